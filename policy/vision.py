"""What a network sees of a camera: a few numbers a frame, its principal components, fixed before training.

Frames are averaged over areas to a small grid, and the grid to latents of variance 1 (decision 0019). Knows no network
and no recording's format.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from forcing.policy.types import Array, Frames, blocks

GRID = 32  # cells a side at the most
LATENTS = 32
SAMPLE = 4096  # frames that components are fitted on
SPARE, ROUNDS = 16, 4  # directions beside those wanted, and rounds, of the randomised decomposition
ROUNDING = 12**-0.5  # standard deviation of rounding to whole grey levels: what varies less shows nothing
LIMIT = 10.0  # standard deviations: a frame unlike any recorded must not drown what else is known
BLOCK_BYTES = 1 << 22  # of frames that are looked at together; as float32 they take four times as much

Floats = NDArray[np.float32]


@dataclass(frozen=True, slots=True, kw_only=True)
class FrameCodec:
    """Frames of one camera to latents and back.

    shape: [h, w, c] of a frame, uint8. mean: [P] of the grid's cells, in grey levels, C order. components: [k, P],
    orthonormal rows. std: [k] of the sample along them. explained: share of the grid's variance that they hold.
    """

    shape: tuple[int, int, int]
    mean: Floats
    components: Floats
    std: Floats
    explained: float

    @property
    def latents(self) -> int:
        return len(self.std)

    def encode(self, frames: Array) -> Floats:
        """[N, h, w, c] uint8 to [N, k], mean 0 and variance 1 over the sample, cut to `LIMIT`."""
        latents = (_cells(frames) - self.mean) @ self.components.T / self.std
        return np.clip(latents, -LIMIT, LIMIT).astype(np.float32, copy=False)

    def decode(self, latents: Array) -> NDArray[np.uint8]:
        """[N, k] to [N, h, w, c]: the frames as far as latents tell them."""
        height, width, channels = self.shape
        grid = ((latents * self.std) @ self.components + self.mean).reshape(len(latents), _side(height), -1)
        rows = _spread_out(_averaging(height)) @ grid
        pixels = rows.reshape(-1, _side(width) * channels) @ _spread_out(_per_channel(width, channels)).T
        return np.clip(np.rint(pixels), 0, 255).astype(np.uint8).reshape(len(latents), *self.shape)

    def tensors(self) -> dict[str, Tensor]:
        """As a checkpoint keeps it."""
        return {
            "shape": torch.tensor(self.shape),
            "mean": torch.from_numpy(self.mean),
            "components": torch.from_numpy(self.components),
            "std": torch.from_numpy(self.std),
            "explained": torch.tensor([self.explained], dtype=torch.float64),
        }

    @classmethod
    def from_tensors(cls, tensors: Mapping[str, Tensor]) -> "FrameCodec":
        """Raises KeyError if one is missing, ValueError if they do not fit together."""
        values = {name: tensors[name].numpy() for name in ("shape", "mean", "components", "std", "explained")}
        height, width, channels = (int(size) for size in values["shape"])
        cells = _side(height) * _side(width) * channels
        shapes = [values[name].shape for name in ("mean", "components", "std")]
        if shapes != [(cells,), (len(values["std"]), cells), (len(values["std"]),)]:
            raise ValueError(f"a camera of shape {(height, width, channels)} needs {cells} cells, got {shapes}")
        return cls(
            shape=(height, width, channels),
            mean=values["mean"],
            components=values["components"],
            std=values["std"],
            explained=float(values["explained"][0]),
        )


def fit_codec(frames: Frames, *, latents: int = LATENTS, seed: int = 0) -> FrameCodec:
    """The codec of a camera: principal components of a random sample of its frames, fewer than `latents` if they span
    less.

    frames: [N, h, w, c] uint8, of which a block at a time is in memory. The same frames and seed give the same codec.
    Randomised subspace iteration: Halko, Martinsson and Tropp, SIAM Review 53 (2011), algorithms 4.4 and 5.1.
    """
    rng = np.random.default_rng(seed)
    cells = _sample(frames, rng)
    mean = cells.mean(axis=0, dtype=np.float64).astype(np.float32)
    cells -= mean
    count = min(latents + SPARE, *cells.shape)
    basis = np.linalg.qr(cells @ rng.standard_normal((cells.shape[1], count), dtype=np.float32))[0]
    for _ in range(ROUNDS):
        basis = np.linalg.qr(cells @ np.linalg.qr(cells.T @ basis)[0])[0]
    _, values, components = np.linalg.svd(basis.T @ cells, full_matrices=False)
    std = values / np.sqrt(len(cells))
    height, width, channels = frames.shape[1:]
    shape = (int(height), int(width), int(channels))
    varying = int((std[:latents] > max(ROUNDING, 1e-4 * std[0])).sum())
    if varying == 0:  # a picture that never changes: one latent, which is always 0
        nothing = np.zeros((1, cells.shape[1]), np.float32)
        return FrameCodec(shape=shape, mean=mean, components=nothing, std=np.ones(1, np.float32), explained=1.0)
    components, std = components[:varying], std[:varying]
    largest = components[np.arange(varying), np.abs(components).argmax(axis=1)]
    return FrameCodec(
        shape=shape,
        mean=mean,
        components=np.ascontiguousarray(components * np.sign(largest)[:, None], dtype=np.float32),
        std=std.astype(np.float32),
        explained=float(np.square(std, dtype=np.float64).sum() * len(cells) / np.square(cells, dtype=np.float64).sum()),
    )


def as_bytes(values: Array) -> NDArray[np.uint8] | None:
    """The values as uint8, None if they are not all whole numbers from 0 to 255."""
    if values.dtype == np.uint8:
        return values
    if values.dtype.kind not in "iuf" or not ((values >= 0) & (values <= 255)).all():
        return None
    whole = values.astype(np.uint8)
    return whole if (whole == values).all() else None


def _sample(frames: Frames, rng: np.random.Generator) -> Floats:
    """[S, P] cells of up to `SAMPLE` frames."""
    total, starts = frames.shape[0], blocks(frames, BLOCK_BYTES)
    chosen = np.sort(rng.choice(total, min(SAMPLE, total), replace=False))
    found = []
    for start in starts:
        rows = chosen[np.searchsorted(chosen, start) : np.searchsorted(chosen, start + starts.step)]
        if len(rows):
            found.append(_cells(frames[int(rows[0]) : int(rows[-1]) + 1][rows - rows[0]]))
    return np.concatenate(found)


def _cells(frames: Array) -> Floats:
    """[N, h, w, c] to [N, P], each the mean over an area of the frame."""
    count, height, width, channels = frames.shape
    values = frames.reshape(count, height, width * channels).astype(np.float32)
    if height > GRID:
        values = _averaging(height) @ values
    if width > GRID:
        values = values.reshape(-1, width * channels) @ _per_channel(width, channels).T
    return values.reshape(count, -1)


def _side(size: int) -> int:
    return min(size, GRID)


@lru_cache
def _averaging(size: int) -> Floats:
    """[cells, size] shares of pixels in the mean of each cell of one side."""
    edges = np.linspace(0, size, _side(size) + 1)
    pixels = np.arange(size)
    shared = np.minimum(edges[1:, None], pixels + 1) - np.maximum(edges[:-1, None], pixels)
    shared = np.maximum(shared, 0)
    result: Floats = (shared / shared.sum(axis=1, keepdims=True)).astype(np.float32)
    return result


@lru_cache
def _per_channel(size: int, channels: int) -> Floats:
    """As `_averaging`, for rows of pixels with channels beside each other: [cells * c, size * c]."""
    return np.kron(_averaging(size), np.eye(channels, dtype=np.float32))


def _spread_out(means: Floats) -> Floats:
    """[size, cells] that gives each pixel the mean of the cells it lies in, from [cells, size] of averaging."""
    result: Floats = (means / means.sum(axis=0)).T
    return result
