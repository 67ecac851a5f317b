"""Figures: the experiments of the two papers, run again; each figure says which claim it tests."""
