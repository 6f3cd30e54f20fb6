"""Memory for batches of frames, used again when nobody holds the batch any more.

New memory of many megabytes is zeroed page by page by the system, which takes as long as copying frames into it.
"""

import sys

import numpy as np
from numpy.typing import DTypeLike

from forcing.policy.types import Array

KEPT = 3  # batches: one in use, one being made, one besides


class BatchMemory:
    """Arrays that are new, or whose memory no array refers to any more; every view of one counts."""

    def __init__(self) -> None:
        self._owners = [np.empty(0, np.uint8)]
        self._unheld = self._references(0)

    def array(self, shape: tuple[int, ...], dtype: DTypeLike) -> Array:
        """An array with anything in it."""
        size = int(np.prod(shape, dtype=np.int64)) * np.dtype(dtype).itemsize
        free = [index for index in range(len(self._owners)) if self._references(index) == self._unheld]
        fitting = [index for index in free if self._owners[index].nbytes >= size]
        if not fitting:
            held = [owner for index, owner in enumerate(self._owners) if index not in free]
            self._owners = [*held[1 - KEPT :], np.empty(size, np.uint8)]
            fitting = [len(self._owners) - 1]
        return self._owners[fitting[0]][:size].view(dtype).reshape(shape)

    def _references(self, index: int) -> int:
        return sys.getrefcount(self._owners[index])
