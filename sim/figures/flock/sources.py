"""Whose claim a claim is."""

FLOCK = "FLock, Dong et al. 2024, arXiv 2307.00543"
FLOCK_REMARK = "FLock's remark on setting gamma by eta, and the goal that this project sets itself for it"
OURS = "this project"
