"""Recordings out of parts of the episodes of another; frames stay where they are until they are asked for."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from forcing.policy.types import Array, Frames, Index, Trajectories


@dataclass(frozen=True, slots=True)
class Part:
    """Observations `first` to `last` of an episode, both kept, and the steps between them."""

    episode: int
    first: int
    last: int

    @property
    def steps(self) -> int:
        return self.last - self.first


@dataclass(frozen=True, slots=True)
class Pieces:
    """`Frames` that are made of some rows of others. pieces: [n, 2] first row and the one after the last of each."""

    frames: Frames
    pieces: Index

    @property
    def shape(self) -> tuple[int, ...]:
        return (int((self.pieces[:, 1] - self.pieces[:, 0]).sum()), *self.frames.shape[1:])

    @property
    def dtype(self) -> np.dtype[Any]:
        return self.frames.dtype

    def __getitem__(self, rows: slice, /) -> Array:
        """Of a step of 1, in memory."""
        first, end, _ = rows.indices(self.shape[0])
        ends = np.cumsum(self.pieces[:, 1] - self.pieces[:, 0])
        begins = ends - (self.pieces[:, 1] - self.pieces[:, 0])
        read = [self.frames[0:0]]
        touched = slice(int(np.searchsorted(ends, first, side="right")), int(np.searchsorted(begins, end, side="left")))
        for (source, _), begin, stop in zip(self.pieces[touched], begins[touched], ends[touched], strict=True):
            low, high = max(first, int(begin)), min(end, int(stop))
            read.append(self.frames[int(source) + low - int(begin) : int(source) + high - int(begin)])
        return np.concatenate(read)


def parts_of(kept_observations: NDArray[np.bool_], kept_steps: NDArray[np.bool_], episode: int) -> list[Part]:
    """The longest runs of an episode that miss nothing. kept_observations: [L + 1]. kept_steps: [L]."""
    joined = kept_steps & kept_observations[:-1] & kept_observations[1:]
    edges = np.diff(np.concatenate([[0], joined.astype(np.int8), [0]]))
    pairs = zip(np.flatnonzero(edges == 1), np.flatnonzero(edges == -1), strict=True)
    return [Part(episode, int(first), int(last)) for first, last in pairs]


def taken(trajectories: Trajectories, parts: Sequence[Part]) -> Trajectories:
    """These parts, an episode each, in this order. Raises ValueError if there are none."""
    if not parts:
        raise ValueError("nothing of the recording is left; record it again")
    rows = {
        role: np.array(
            [(starts[part.episode] + part.first, starts[part.episode] + part.last + extra) for part in parts],
            dtype=np.int64,
        )
        for role, extra, starts in (
            ("observation", 1, trajectories.starts("observation")),
            ("action", 0, trajectories.starts("action")),
        )
    }
    rows["reward"] = rows["action"]
    streams = {
        stream.name: np.concatenate([trajectories.streams[stream.name][a:b] for a, b in rows[stream.role]])
        for stream in trajectories.spec.streams
        if not stream.image
    }
    frames = {name: Pieces(frames, rows["observation"]) for name, frames in trajectories.frames.items()}
    return replace(
        trajectories,
        streams=streams,
        frames=frames,
        lengths=np.array([part.steps for part in parts], np.int64),
        notes=tuple(trajectories.notes[part.episode] for part in parts) if trajectories.notes else (),
    )
