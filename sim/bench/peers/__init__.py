"""flocknode beside Flower and p2pfl: same machine, same model, same data, runs in turn.

Each system has a file that adapts it, run as a process of its own (`isolation`): `own_*`, `flower_*`,
`p2pfl_*`. An adapter reads a JSON spec and writes a JSON result (`adapter`).
"""
