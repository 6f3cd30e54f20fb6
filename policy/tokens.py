"""From recorded steps to tokens and back: which steps of which stream make up a token, and in what units.

A sequence is `history` tokens up to now, then plan tokens, then one goal token: the goal stream held at the place where
the plan ends. Knows nothing of networks or noise.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from forcing.policy.types import Array, StreamSpec, Trajectories, TrajectorySpec, WindowBatch


@dataclass(frozen=True, slots=True, kw_only=True)
class Normaliser:
    """Per stream and entry: normalised = (value - mean) / std. Flattened in C order."""

    mean: Mapping[str, tuple[float, ...]]
    std: Mapping[str, tuple[float, ...]]

    @classmethod
    def fit(cls, trajectories: Trajectories) -> "Normaliser":
        """Mean and standard deviation of every stream; an entry that never changes gets std 1.

        Raises ValueError on a non-finite value.
        """
        trajectories.require_finite()
        mean, std = {}, {}
        for stream in trajectories.spec.streams:
            values = trajectories.streams[stream.name].reshape(-1, stream.size).astype(np.float64)
            spread = values.std(axis=0)
            mean[stream.name] = tuple(values.mean(axis=0).tolist())
            std[stream.name] = tuple(np.where(spread > 1e-6, spread, 1.0).tolist())
        return cls(mean=mean, std=std)

    def scale(self, name: str) -> float:
        """A stream's standard deviation in one number, in its units: the mean of its entries'."""
        return float(np.mean(self.std[name]))

    def apply(self, name: str, values: Array) -> NDArray[np.float32]:
        """[..., size] physical to [..., size] normalised."""
        scaled = (values - np.asarray(self.mean[name])) / np.asarray(self.std[name])
        result: NDArray[np.float32] = scaled.astype(np.float32)
        return result

    def invert(self, name: str, values: Array) -> NDArray[np.float64]:
        """[..., size] normalised to [..., size] physical."""
        scaled = np.asarray(values, dtype=np.float64) * np.asarray(self.std[name])
        result: NDArray[np.float64] = scaled + np.asarray(self.mean[name])
        return result

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_json(cls, document: Mapping[str, Any]) -> "Normaliser":
        """Raises ValueError on a missing or unknown key."""
        try:
            return cls(**{key: {name: tuple(v) for name, v in part.items()} for key, part in document.items()})
        except (AttributeError, TypeError) as error:
            raise ValueError(f"normaliser: {error}") from error


MOST_TOKENS = 1024  # attention takes memory by the square of them


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenLayout:
    """How many steps a token covers, and every how many of them a frame is kept.

    token_steps: control steps a token covers. stride: control steps between frames, a divisor of token_steps;
    observations are sampled, actions averaged over the stride, or kept as they are, every one, if `chunks`.
    history: tokens up to now. horizon: most plan tokens.
    """

    token_steps: int = 32
    stride: int = 4
    history: int = 1
    horizon: int = 12
    chunks: bool = False

    def __post_init__(self) -> None:
        for name in ("token_steps", "stride", "history", "horizon"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, got {getattr(self, name)}")
        if self.max_length > MOST_TOKENS:
            raise ValueError(
                f"history, horizon and the goal must be at most {MOST_TOKENS} tokens, got {self.max_length}"
            )
        if self.token_steps % self.stride:
            raise ValueError(f"stride must divide token_steps {self.token_steps}, got {self.stride}")

    @property
    def frames(self) -> int:
        """Frames of each stream in a token."""
        return self.token_steps // self.stride

    @property
    def past_steps(self) -> int:
        return self.history * self.token_steps

    @property
    def max_length(self) -> int:
        """Tokens of the longest sequence: history, plan, goal."""
        return self.history + self.horizon + 1


class Tokenizer:
    """Recorded windows to token sequences and plans back to physical units, for one spec, layout and normaliser."""

    def __init__(self, spec: TrajectorySpec, layout: TokenLayout, normaliser: Normaliser) -> None:
        self.spec, self.layout, self.normaliser = spec, layout, normaliser
        self.streams: tuple[StreamSpec, ...] = tuple(s for s in spec.streams if s.role != "reward")
        widths = [layout.token_steps // self._every(stream) * stream.size for stream in self.streams]
        bounds = np.concatenate([[0], np.cumsum(widths)]).tolist()
        self.slices = {s.name: slice(bounds[i], bounds[i + 1]) for i, s in enumerate(self.streams)}
        self.width = int(bounds[-1])
        self.goal_index = None if spec.goal is None else [s.name for s in self.streams].index(spec.goal)
        self.stream_of_feature = torch.repeat_interleave(torch.arange(len(widths)), torch.tensor(widths))
        self.actions = torch.tensor([stream.role == "action" for stream in self.streams])  # [S]

    def _every(self, stream: StreamSpec) -> int:
        """Control steps of one entry of a stream."""
        return 1 if self.layout.chunks and stream.role == "action" else self.layout.stride

    def per_feature(self, levels: Tensor) -> Tensor:
        """[..., S] levels to [..., D]: each feature's own level."""
        return levels[..., self.stream_of_feature]

    def encode(self, windows: WindowBatch, kept_past: NDArray[np.int64]) -> Tensor:
        """[B, history + T + 1, D] clean tokens, T from the windows' length.

        kept_past: [B] past steps that the history may show; older frames repeat the oldest shown one, which is what a
        controller does whose episode has just begun.
        """
        layout, columns = self.layout, []
        some = next(s for s in self.streams if s.role == "observation")
        steps = windows.streams[some.name].shape[1] - 1
        batch, tokens = len(kept_past), steps // layout.token_steps
        index = np.maximum(np.arange(steps + 1)[None, :], layout.past_steps - kept_past[:, None])
        rows = np.arange(batch)[:, None]
        for stream in self.streams:
            values = windows.streams[stream.name].reshape(batch, -1, stream.size)
            if stream.role == "observation":
                frames = values[rows, index[:, layout.stride :: layout.stride]]
            else:
                frames = values.reshape(batch, -1, self._every(stream), stream.size).mean(axis=2)
            columns.append(self.normaliser.apply(stream.name, frames).reshape(batch, tokens, -1))
        sequence = np.concatenate(columns, axis=-1)
        goal = np.zeros((batch, 1, self.width), dtype=np.float32)
        if self.spec.goal is not None:
            where = self.slices[self.spec.goal]
            last = sequence[:, -1:, where].reshape(batch, 1, layout.frames, -1)[:, :, -1:]
            goal[:, :, where] = np.repeat(last, layout.frames, axis=2).reshape(batch, 1, -1)
        return torch.from_numpy(np.concatenate([sequence, goal], axis=1))

    def encode_frames(self, name: str, frames: Array) -> Tensor:
        """[tokens * entries, *shape] physical entries of one stream to [tokens, entries * size]."""
        flat = np.asarray(frames, dtype=np.float64).reshape(-1, self.spec[name].size)
        where = self.slices[name]
        return torch.from_numpy(self.normaliser.apply(name, flat)).reshape(-1, where.stop - where.start)

    def decode(self, tokens: Tensor) -> dict[str, NDArray[np.float64]]:
        """[..., T, D] to stream -> [..., T * frames, *shape] in physical units."""
        values = tokens.detach().cpu().numpy()
        result = {}
        for stream in self.streams:
            frames = values[..., self.slices[stream.name]].reshape(*values.shape[:-2], -1, stream.size)
            result[stream.name] = self.normaliser.invert(stream.name, frames).reshape(*frames.shape[:-1], *stream.shape)
        return result
