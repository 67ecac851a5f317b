"""What must hold after every event of a simulation, whoever lies and whatever breaks.

Each file holds one promise and names the sentence of docs/PROTOCOL.md that it enforces. All are checked from
outside, from the effects that nodes perform and the blocks that they write, never from what an engine says of
itself; what the adversary may do is not limited by them, only what honest nodes may let happen.
"""
