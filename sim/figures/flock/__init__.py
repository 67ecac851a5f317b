"""FLock's experiments (Dong et al. 2024, arXiv 2307.00543), with real training and the ledger's contract."""
