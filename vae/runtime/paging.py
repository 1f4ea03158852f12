"""Parts of a file that is mapped into memory, asked for before they are read."""

import ctypes
import mmap
from collections.abc import Callable
from functools import cache

from torch import Tensor

LARGE = 2**30  # bytes; of less all is soon in memory, whatever is read


def ask_for(array: Tensor, rows: Tensor) -> None:
    """Have the system fetch these rows (k,) of a large mapped `array` (N, ...), all at once and nothing else. Whoever
    reads without having asked waits for one row after the other, and for what lies around it as well: Linux reads
    128 KiB or more wherever a page is not there, in case the reader goes on from it. Where a row does not lie in one
    piece, or the system takes no such advice, this does nothing."""
    advise = _advise()
    width = array.element_size()
    step, *strides = (stride * width for stride in array.stride())
    length = width + sum((size - 1) * stride for size, stride in zip(array.shape[1:], strides, strict=True))  # of a row
    if advise is None or array.nbytes < LARGE or length > step:
        return
    start = array.data_ptr()
    for row in rows.tolist():
        place = start + row * step
        page = place - place % mmap.PAGESIZE
        advise(page, place + length - page, mmap.MADV_WILLNEED)


@cache
def _advise() -> Callable[[int, int, int], int] | None:
    """madvise of the C library; it returns at once. (mmap.madvise is for who holds the mapping itself, which neither
    NumPy's arrays nor torch's tensors pass on.)"""
    try:
        advise = ctypes.PyDLL(None).madvise
    except (AttributeError, OSError, TypeError):  # Windows
        return None
    advise.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]
    return advise
