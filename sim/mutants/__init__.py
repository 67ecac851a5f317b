"""Bugs that are planted in the protocol, to see whether the simulator's checks find them."""
