"""Frames averaged over areas to grids of fewer cells, and spread out again. Knows no codec."""

from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from forcing.policy.types import Array

Floats = NDArray[np.float32]


def averaged(frames: Array, height: int, width: int) -> Floats:
    """[N, h, w, c] to [N, height, width, c] float32, each cell the mean of what it covers of the frame."""
    count, rows, columns, channels = frames.shape
    values = frames.reshape(count, rows, columns * channels).astype(np.float32)
    if height != rows:
        values = _shares(rows, height) @ values
    if width != columns:
        values = values.reshape(-1, columns * channels) @ _per_channel(columns, width, channels).T
    return values.reshape(count, height, width, channels)


def spread_out(grid: Array, height: int, width: int) -> Array:
    """[N, rows, columns, c] to [N, height, width, c]: each pixel the mean of the cells it lies in."""
    count, rows, columns, channels = grid.shape
    values = grid.reshape(count, rows, columns * channels)
    if height != rows:
        values = _parts(_shares(height, rows)) @ values
    if width != columns:
        values = values.reshape(-1, columns * channels) @ _parts(_per_channel(width, columns, channels)).T
    return values.reshape(count, height, width, channels)


@lru_cache
def _shares(size: int, cells: int) -> Floats:
    """[cells, size] shares of pixels in the mean of each cell of one side."""
    edges = np.linspace(0, size, cells + 1)
    pixels = np.arange(size)
    shared = np.minimum(edges[1:, None], pixels + 1) - np.maximum(edges[:-1, None], pixels)
    shared = np.maximum(shared, 0)
    result: Floats = (shared / shared.sum(axis=1, keepdims=True)).astype(np.float32)
    return result


@lru_cache
def _per_channel(size: int, cells: int, channels: int) -> Floats:
    """As `_shares`, for rows of pixels with channels beside each other: [cells * c, size * c]."""
    return np.kron(_shares(size, cells), np.eye(channels, dtype=np.float32))


def _parts(means: Floats) -> Floats:
    """[size, cells] that gives each pixel the mean of the cells it lies in, from [cells, size] of averaging."""
    result: Floats = (means / means.sum(axis=0)).T
    return result
