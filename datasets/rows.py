"""Episodes gathered one by one into `Trajectories`, frames of cameras in a file that nobody sees. Knows no format."""

from collections.abc import Mapping
from tempfile import TemporaryFile
from typing import Any
from weakref import finalize

import numpy as np

from forcing.policy.types import Array, EpisodeNote, Trajectories, TrajectorySpec


class EpisodeRows:
    """Rows of the spec's streams, floats as float32 and everything else as it came."""

    def __init__(self, spec: TrajectorySpec) -> None:
        self._spec = spec
        self._rows: dict[str, list[Array]] = {stream.name: [] for stream in spec.streams if not stream.image}
        self._frames = {stream.name: _FrameFile() for stream in spec.streams if stream.image}
        self._lengths: list[int] = []
        self._notes: list[EpisodeNote] = []

    def add(self, streams: Mapping[str, Array], steps: int, where: str, note: EpisodeNote | None = None) -> None:
        """One episode: observations [steps + 1, *shape], the others [steps, *shape].

        Raises ValueError naming `where` and the stream if there are no steps, a stream has other rows, or a camera's
        frames are of another type than before.
        """
        check_rows(self._spec, streams, steps, where)
        for stream in self._spec.streams:
            rows = streams[stream.name]
            if stream.image:
                self._frames[stream.name].append(rows, f"{where}: stream {stream.name!r}")
                continue
            self._rows[stream.name].append(as_kept(rows))
        self._lengths.append(steps)
        self._notes.append(note or EpisodeNote())

    def trajectories(self, provenance: Mapping[str, Any]) -> Trajectories:
        """All episodes added. Raises ValueError if there are none."""
        return Trajectories(
            spec=self._spec,
            streams={name: np.concatenate(rows) for name, rows in self._rows.items() if rows},
            lengths=np.array(self._lengths, dtype=np.int64),
            provenance=provenance,
            frames={name: file.rows() for name, file in self._frames.items()} if self._lengths else {},
            notes=tuple(self._notes) if any(note != EpisodeNote() for note in self._notes) else (),
        )


class _FrameFile:
    """Frames of one camera in a temporary file without a name, so that they need no memory; it goes with them."""

    def __init__(self) -> None:
        self._file = TemporaryFile()  # noqa: SIM115 (what is read of it later outlives it)
        finalize(self, self._file.close)
        self._count, self._dtype, self._shape = 0, np.dtype(np.uint8), tuple[int, ...]()

    def append(self, frames: Array, where: str) -> None:
        """Raises ValueError naming `where` if their type is not that of the frames before."""
        if self._count == 0:
            self._dtype, self._shape = frames.dtype, frames.shape[1:]
        if frames.dtype != self._dtype:
            raise ValueError(
                f"{where} must have type {self._dtype} as in the episodes before, got {frames.dtype}; record it in one "
                "type"
            )
        self._file.write(np.ascontiguousarray(frames).reshape(-1).view(np.uint8).data)
        self._count += len(frames)

    def rows(self) -> Array:
        self._file.flush()
        return np.memmap(self._file, dtype=self._dtype, mode="r", shape=(self._count, *self._shape))


def as_kept(rows: Array) -> Array:
    """Rows in the type in which they are kept: floats as float32."""
    with np.errstate(over="ignore"):  # what is too large becomes infinite, which checks find
        return rows.astype(np.float32, copy=False) if np.issubdtype(rows.dtype, np.floating) else rows


def check_rows(spec: TrajectorySpec, streams: Mapping[str, Array], steps: int, where: str) -> None:
    """Raises ValueError naming `where` and the stream if there are no steps, or a stream has other rows than these."""
    if steps < 1:
        raise ValueError(f"{where}: must have at least 1 step, got {steps}; remove it from the recording")
    for stream in spec.streams:
        expected = (steps + 1 if stream.role == "observation" else steps, *stream.shape)
        if streams[stream.name].shape != expected:
            raise ValueError(
                f"{where}: stream {stream.name!r} must have shape {expected} for {steps} steps, got "
                f"{streams[stream.name].shape}; the episode was cut short or merged: record it again or remove it"
            )
