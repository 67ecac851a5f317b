"""VCD-FL's experiments: what a verified round costs, and what its gradient compression saves."""
