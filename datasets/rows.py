"""Episodes gathered one by one into `Trajectories`. Knows no file; readers of every format end here."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from forcing.policy.types import Array, EpisodeNote, Trajectories, TrajectorySpec


class EpisodeRows:
    """Rows of the spec's streams, floats as float32 and everything else as it came."""

    def __init__(self, spec: TrajectorySpec) -> None:
        self._spec = spec
        self._rows: dict[str, list[Array]] = {stream.name: [] for stream in spec.streams}
        self._lengths: list[int] = []
        self._notes: list[EpisodeNote] = []

    def add(self, streams: Mapping[str, Array], steps: int, where: str, note: EpisodeNote | None = None) -> None:
        """One episode: observations [steps + 1, *shape], the others [steps, *shape].

        Raises ValueError naming `where` and the stream if there are no steps or a stream has other rows.
        """
        check_rows(self._spec, streams, steps, where)
        for stream in self._spec.streams:
            rows = streams[stream.name]
            with np.errstate(over="ignore"):  # what is too large becomes infinite, which checks find
                kept = rows.astype(np.float32) if np.issubdtype(rows.dtype, np.floating) else rows
            self._rows[stream.name].append(kept)
        self._lengths.append(steps)
        self._notes.append(note or EpisodeNote())

    def trajectories(self, provenance: Mapping[str, Any]) -> Trajectories:
        """All episodes added. Raises ValueError if there are none."""
        joined = {name: np.concatenate(rows) for name, rows in self._rows.items() if rows}
        images = {stream.name for stream in self._spec.streams if stream.image}
        return Trajectories(
            spec=self._spec,
            streams={name: rows for name, rows in joined.items() if name not in images},
            lengths=np.array(self._lengths, dtype=np.int64),
            provenance=provenance,
            frames={name: rows for name, rows in joined.items() if name in images},
            notes=tuple(self._notes) if any(note != EpisodeNote() for note in self._notes) else (),
        )


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
