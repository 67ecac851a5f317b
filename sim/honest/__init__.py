"""Does an honest network live? Long runs of the stake contract with real training and honest nodes."""
