"""How the Sudoku solver is compiled, and the types that its functions take."""

from collections.abc import Callable
from typing import Any, TypeVar, cast

import numba
import numpy as np
from numpy.typing import NDArray

from gram.models.tasks.base import Tokens

Hashes = NDArray[np.uint64]

_Function = TypeVar("_Function", bound=Callable[..., Any])


def compiled(function: _Function) -> _Function:
    """Compile a function to run without the interpreter's lock, and cache it on disk if a folder for that can be written."""
    try:
        return cast(_Function, numba.njit(cache=True, nogil=True)(function))
    except RuntimeError:  # numba found no place for its cache
        return cast(_Function, numba.njit(nogil=True)(function))


def plain(array: Tokens) -> Tokens:
    """The array in the one type and layout that the functions are compiled for."""
    return np.ascontiguousarray(array, dtype=np.int64)


@compiled
def mix(value: np.uint64) -> np.uint64:
    """The finaliser of splitmix64, a one-to-one scrambling of 64-bit words."""
    value = (value ^ (value >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    value = (value ^ (value >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return value ^ (value >> np.uint64(31))
