"""Keeping a launcher on one thread, so that it can fork. Imports nothing: it must come before numpy."""

import os

POOLS = ("MKL_NUM_THREADS", "OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS")


def start_no_thread_pools() -> None:
    """Tell the BLAS libraries, before they are loaded, not to start threads; those of the nodes neither.

    A fork takes along only the thread that forks, and many nodes on few cores gain nothing from pools.
    """
    for variable in POOLS:
        os.environ.setdefault(variable, "1")
