"""Property tests draw the same examples in every run, and print how to repeat one that fails."""

from hypothesis import settings

settings.register_profile("repeatable", derandomize=True, print_blob=True)
settings.load_profile("repeatable")
