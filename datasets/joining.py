"""Several recordings of one robot as one, frames of cameras wherever they are. Knows no file."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from forcing.datasets.mixture import spec_difference
from forcing.policy.types import Array, EpisodeNote, Frames, Trajectories


class ChainedFrames:
    """Frames of one camera, those of one recording after another's."""

    def __init__(self, parts: Sequence[Frames]) -> None:
        self._parts = tuple(parts)
        self._ends = np.cumsum([part.shape[0] for part in parts])

    @property
    def shape(self) -> tuple[int, ...]:
        return (int(self._ends[-1]), *self._parts[0].shape[1:])

    @property
    def dtype(self) -> np.dtype[np.generic]:
        return self._parts[0].dtype

    def __getitem__(self, rows: slice) -> Array:
        start, stop, _ = rows.indices(self.shape[0])
        found = [self._parts[0][0:0]]
        for part, end in zip(self._parts, self._ends.tolist(), strict=True):
            begin = end - part.shape[0]
            if start < end and stop > begin:
                found.append(part[max(start - begin, 0) : min(stop, end) - begin])
        return np.concatenate(found)


def divided(recording: Trajectories, episodes: Sequence[int]) -> list[Trajectories]:
    """A recording of numbers alone cut into parts of so many episodes each."""
    if len(episodes) == 1:
        return [recording]
    parts, first = [], 0
    for count in episodes:
        until, streams = first + count, dict[str, Array]()
        for stream in recording.spec.streams:
            ends = np.append(recording.starts(stream.role), len(recording.streams[stream.name]))
            streams[stream.name] = recording.streams[stream.name][ends[first] : ends[until]]
        lengths, notes = recording.lengths[first:until], recording.notes[first:until]
        parts.append(replace(recording, streams=streams, lengths=lengths, notes=notes))
        first = until
    return parts


def joined(recordings: Sequence[Trajectories]) -> Trajectories:
    """All episodes, recording after recording, with the first one's limits.

    Raises ValueError naming the recording and the difference if one is not like the first.
    """
    first, *others = recordings
    if not others:
        return first
    for number, other in enumerate(others, start=2):
        if difference := spec_difference(first.spec, other.spec):
            raise ValueError(f"recording {number} must be like the first: {difference}")
    noted = any(found.notes for found in recordings)
    return Trajectories(
        spec=first.spec,
        streams={name: np.concatenate([found.streams[name] for found in recordings]) for name in first.streams},
        lengths=np.concatenate([found.lengths for found in recordings]),
        provenance={"source": "several", "recordings": [dict(found.provenance) for found in recordings]},
        frames={name: ChainedFrames([found.frames[name] for found in recordings]) for name in first.frames},
        notes=tuple(
            note for found in recordings for note in found.notes or (EpisodeNote(),) * len(found.lengths) if noted
        ),
    )
