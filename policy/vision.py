"""What a network sees of a camera: a few numbers a frame, by a codec that is fixed before training.

What every codec does, and the plainest: frames are averaged over areas to a small grid, and the grid's principal
components are latents of variance 1 (decision 0019). Knows no network and no recording's format.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal, Protocol, TypeVar, get_args, get_type_hints

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from forcing.policy.grids import Floats, averaged, spread_out
from forcing.policy.types import Array, Frames, blocks

GRID = 32  # cells a side at the most
LATENTS = 32
SAMPLE = 4096  # frames that components are fitted on
SPARE, ROUNDS = 16, 4  # directions beside those wanted, and rounds, of the randomised decomposition
ROUNDING = 12**-0.5  # standard deviation of rounding to whole grey levels: what varies less shows nothing
LEAST_LOG = 0.01  # least standard deviation of what is usually lost, as a log: a recording may lose the same always
LIMIT = 10.0  # standard deviations: a frame unlike any recorded must not drown what else is known
BLOCK_BYTES = 1 << 22  # of frames that are looked at together; as float32 they take four times as much

Kind = TypeVar("Kind", bound=np.generic)


@dataclass(frozen=True, slots=True, kw_only=True)
class VisionConfig:
    """How cameras are seen.

    kind: of codec; principal components (`fit_codec`), or keypoints of a small auto-encoder that is trained first
    (`keypoints`). components: latents a camera, at the most, of the first kind. keypoints, values: of the second; a
    keypoint is two latents, a value one. steps: of training the second, on `batch` frames each. counted: numbers that
    all latents of a camera together count as when a policy is trained: as many as they are, they drown the action.
    """

    kind: Literal["components", "keypoints"] = "components"
    components: int = LATENTS
    keypoints: int = 12
    values: int = 8
    steps: int = 6000
    batch: int = 16
    counted: float = 4.0

    def __post_init__(self) -> None:
        kinds = get_args(get_type_hints(type(self))["kind"])
        if self.kind not in kinds:
            raise ValueError(f"kind must be one of {', '.join(kinds)}, got {self.kind!r}")
        for name in ("components", "keypoints", "values", "steps", "batch"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, got {getattr(self, name)}")
        if not self.counted > 0:
            raise ValueError(f"counted must be positive, got {self.counted}")

    @property
    def latents(self) -> int:
        """Numbers that a frame becomes; of components it may be fewer."""
        return self.components if self.kind == "components" else 2 * self.keypoints + self.values


class Codec(Protocol):
    """Frames of one camera to latents and back.

    shape: [h, w, c] of a frame, uint8. latents: how many numbers a frame becomes. explained: share of the frames'
    variance that they hold.
    """

    @property
    def shape(self) -> tuple[int, int, int]: ...

    @property
    def latents(self) -> int: ...

    @property
    def explained(self) -> float: ...

    def encode(self, frames: Array) -> Floats:
        """[N, h, w, c] uint8 to [N, k], mean 0 and variance about 1 over the recording, cut to `LIMIT`."""
        ...

    def decode(self, latents: Array) -> NDArray[np.uint8]:
        """[N, k] to [N, h, w, c]: the frames as far as latents tell them."""
        ...

    def misfit(self, frames: Array) -> Floats:
        """[N]: how unlike its own decoding each frame [N, h, w, c] is, see `Usual`."""
        ...

    def tensors(self) -> dict[str, Tensor]:
        """As a checkpoint keeps it."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Usual:
    """What is lost of a frame by a codec over its recording: mean and standard deviation of the log of the mean square
    error, in grey levels squared, to which that of rounding is added."""

    mean: float
    std: float

    @classmethod
    def of(cls, errors: Array) -> "Usual":
        """errors: [N], mean square of what is lost of each frame."""
        logs = _log(errors)
        return cls(mean=float(logs.mean()), std=max(float(logs.std()), LEAST_LOG))

    @classmethod
    def of_tensor(cls, tensor: Tensor) -> "Usual":
        """From `tensor`. Raises ValueError if that is not of two numbers, the second positive."""
        values = tensor.tolist()
        if tensor.shape != (2,) or not np.isfinite(values).all() or not values[1] > 0:
            raise ValueError(f"what a camera usually loses must be a mean and a positive deviation, got {values}")
        return cls(mean=values[0], std=values[1])

    def tensor(self) -> Tensor:
        """[2] float64."""
        return torch.tensor([self.mean, self.std], dtype=torch.float64)

    def misfit(self, errors: Array) -> Floats:
        """[N]: by how many standard deviations more than usual is lost; below 0 where it is less."""
        result: Floats = ((_log(errors) - self.mean) / self.std).astype(np.float32)
        return result


@dataclass(frozen=True, slots=True, kw_only=True)
class FrameCodec:
    """The codec of principal components.

    shape: [h, w, c] of a frame, uint8. mean: [P] of the grid's cells, in grey levels, C order. components: [k, P],
    orthonormal rows. std: [k] of the sample along them. explained: share of the grid's variance that they hold. usual:
    of the sample's cells, None in files from before it was told.
    """

    shape: tuple[int, int, int]
    mean: Floats
    components: Floats
    std: Floats
    explained: float
    usual: Usual | None = None

    @property
    def latents(self) -> int:
        return len(self.std)

    def encode(self, frames: Array) -> Floats:
        """See `Codec`."""
        return self._latents(_cells(frames))

    def decode(self, latents: Array) -> NDArray[np.uint8]:
        """See `Codec`."""
        height, width, channels = self.shape
        grid = self._shown(latents).reshape(len(latents), _side(height), _side(width), channels)
        return as_pixels(spread_out(grid, height, width))

    def misfit(self, frames: Array) -> Floats:
        """See `Codec`. Raises ValueError if the codec is of a file that does not tell what is usual."""
        if self.usual is None:
            raise ValueError(
                "this camera's codec does not tell what it usually loses of a frame; train the policy anew"
            )
        cells = _cells(frames)
        return self.usual.misfit(np.square(cells - self._shown(self._latents(cells))).mean(axis=1))

    def tensors(self) -> dict[str, Tensor]:
        """See `Codec`."""
        usual = {} if self.usual is None else {"usual": self.usual.tensor()}
        return usual | {
            "shape": torch.tensor(self.shape),
            "mean": torch.from_numpy(self.mean),
            "components": torch.from_numpy(self.components),
            "std": torch.from_numpy(self.std),
            "explained": torch.tensor([self.explained], dtype=torch.float64),
        }

    def _latents(self, cells: Floats) -> Floats:
        """[N, P] to [N, k]."""
        latents = (cells - self.mean) @ self.components.T / self.std
        return np.clip(latents, -LIMIT, LIMIT).astype(np.float32, copy=False)

    def _shown(self, latents: Array) -> Array:
        """[N, k] to [N, P]."""
        cells: Array = (latents * self.std) @ self.components + self.mean
        return cells

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
            usual=Usual.of_tensor(tensors["usual"]) if "usual" in tensors else None,
        )


def fit_codec(frames: Frames, *, latents: int = LATENTS, seed: int = 0) -> FrameCodec:
    """The codec of a camera: principal components of a random sample of its frames, fewer than `latents` if they span
    less.

    frames: [N, h, w, c] uint8, of which a block at a time is in memory. The same frames and seed give the same codec.
    Randomised subspace iteration: Halko, Martinsson and Tropp, SIAM Review 53 (2011), algorithms 4.4 and 5.1.
    """
    rng = np.random.default_rng(seed)
    cells = sampled(frames, SAMPLE, rng, _cells)
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
        usual = Usual.of(np.square(cells).mean(axis=1))
        ones = np.ones(1, np.float32)
        return FrameCodec(shape=shape, mean=mean, components=nothing, std=ones, explained=1.0, usual=usual)
    components, std = components[:varying], std[:varying]
    lost = np.square(cells - (cells @ components.T) @ components).mean(axis=1)
    largest = components[np.arange(varying), np.abs(components).argmax(axis=1)]
    return FrameCodec(
        shape=shape,
        mean=mean,
        components=np.ascontiguousarray(components * np.sign(largest)[:, None], dtype=np.float32),
        std=std.astype(np.float32),
        explained=float(np.square(std, dtype=np.float64).sum() * len(cells) / np.square(cells, dtype=np.float64).sum()),
        usual=Usual.of(lost),
    )


def sampled(
    frames: Frames, most: int, rng: np.random.Generator, reduced: Callable[[Array], NDArray[Kind]]
) -> NDArray[Kind]:
    """Up to `most` frames at random, in order, as `reduced` makes them of some at a time; of the frames themselves
    [N, h, w, c] only a block is in memory."""
    total, starts = frames.shape[0], blocks(frames, BLOCK_BYTES)
    chosen = np.sort(rng.choice(total, min(most, total), replace=False))
    found = []
    for start in starts:
        rows = chosen[np.searchsorted(chosen, start) : np.searchsorted(chosen, start + starts.step)]
        if len(rows):
            found.append(reduced(frames[int(rows[0]) : int(rows[-1]) + 1][rows - rows[0]]))
    return np.concatenate(found)


def as_pixels(frames: Array) -> NDArray[np.uint8]:
    """Grey levels as uint8, rounded and cut to what a byte holds."""
    return np.clip(np.rint(frames), 0, 255).astype(np.uint8)


def as_bytes(values: Array) -> NDArray[np.uint8] | None:
    """The values as uint8, None if they are not all whole numbers from 0 to 255."""
    if values.dtype == np.uint8:
        return values
    if values.dtype.kind not in "iuf" or not ((values >= 0) & (values <= 255)).all():
        return None
    whole = values.astype(np.uint8)
    return whole if (whole == values).all() else None


def _cells(frames: Array) -> Floats:
    """[N, h, w, c] to [N, P], each the mean over an area of the frame."""
    _, height, width, _ = frames.shape
    return averaged(frames, _side(height), _side(width)).reshape(len(frames), -1)


def _log(errors: Array) -> Array:
    logs: Array = np.log(errors + ROUNDING**2)
    return logs


def _side(size: int) -> int:
    return min(size, GRID)
