"""What the network agrees on: pure, deterministic rules and the sans-IO engine.

Nothing below this package opens a socket, reads a clock, draws randomness, or starts a thread.
"""
