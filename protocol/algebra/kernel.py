"""The one way numeric kernels are compiled.

Kernels are cached on disk, release the interpreter lock and never run in parallel: numba's `workqueue`
threading layer aborts the process when two parallel kernels run at once, and a node's concurrency comes
from its worker threads.
"""

from collections.abc import Callable
from typing import Any, TypeVar, cast

import numba
import numpy as np
import numpy.typing as npt

Function = TypeVar("Function", bound=Callable[..., Any])
Element = TypeVar("Element", bound=np.generic)


def kernel(function: Function) -> Function:
    """Compile `function` with numba, keeping its declared type."""
    return cast(Function, numba.njit(cache=True, nogil=True)(function))


def operand(x: npt.NDArray[Element]) -> npt.NDArray[Element]:
    """x as a contiguous, aligned, writable array, copied only when it is not one.

    Numba compiles a kernel once for every memory layout: without this, a strided vector or a read-only view
    of a received message would start the compiler in the middle of a round.
    """
    return np.require(x, requirements=["C", "A", "W"])


def elementwise(*signatures: str) -> Callable[[Function], Callable[..., npt.NDArray[np.generic]]]:
    """Compile a scalar rule into a broadcasting ufunc with exactly these type signatures."""

    def compiled(function: Function) -> Callable[..., npt.NDArray[np.generic]]:
        ufunc = numba.vectorize(list(signatures), nopython=True, cache=True)(function)
        return cast(Callable[..., npt.NDArray[np.generic]], ufunc)

    return compiled
