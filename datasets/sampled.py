"""Rows of a camera, some of them or all in blocks, so that a recording larger than memory can be looked at."""

from collections.abc import Iterator

import numpy as np

from forcing.policy.types import Array, Frames

BLOCK_BYTES = 32 << 20


def sampled_rows(frames: Frames, count: int) -> Array:
    """At most `count` rows, evenly spaced, the first and the last among them."""
    rows = np.unique(np.linspace(0, frames.shape[0] - 1, min(count, frames.shape[0])).round().astype(int))
    return np.concatenate([frames[int(row) : int(row) + 1] for row in rows])


def blocks(frames: Frames) -> Iterator[tuple[int, Array]]:
    """All rows, as the first row's number and some rows of about `BLOCK_BYTES` together."""
    row_bytes = max(int(np.prod(frames.shape[1:])) * frames.dtype.itemsize, 1)
    count = max(BLOCK_BYTES // row_bytes, 1)
    for first in range(0, frames.shape[0], count):
        yield first, frames[first : first + count]
