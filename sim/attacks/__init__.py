"""Every attack that docs/ATTACKS.md lists, each run for real, and what came of it."""
