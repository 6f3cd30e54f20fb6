"""Recordings as episodes that are read one at a time, so that one larger than memory can be looked at and copied.

Every reader of a format gives a `Recording`. Knows no format and no store. What the provenance of one says, besides
what only its own format has:

    source                  the format, as `recording.recognise` names it
    file                    the file's or the folder's name
    source_names            stream -> what the source calls it, under which it can be named anew
    left_out                what else is in the source -> why it is no stream
    last_actions_left_out   how many actions, the last of their episodes, led nowhere anybody saw
    single_rows_left_out    how many episodes had one row, and so no step
    goals                   what the goals it names are worth (`goals`), None if it names none
    subsets, subset         subset -> how many episodes; the one that alone was read
    unwanted                streams that its user left out
    mended, converted_from  changes made to it; the provenance that it had before an export
    named                   how a run that converted it for itself was told to read it
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np

from forcing.datasets.rows import EpisodeRows, as_kept
from forcing.policy.types import Array, EpisodeNote, Trajectories, TrajectorySpec

FIRST_FEW = 5  # of what is listed in a provenance or a finding
CUT_SHORT = "it was cut short or altered: download or record it again"


@dataclass(frozen=True, slots=True)
class Episode:
    """Streams of one episode of L steps: observations [L + 1, *shape], the others [L, *shape]; all of the spec's."""

    streams: Mapping[str, Array]
    where: str
    note: EpisodeNote = field(default_factory=EpisodeNote)


class Recording(Protocol):
    """What is in a recording, and its episodes whenever they are asked for."""

    @property
    def spec(self) -> TrajectorySpec: ...

    def episodes(self) -> Iterator[Episode]:
        """From the first to the last. Raises ValueError, naming file, field and rule, at one that cannot be read."""
        ...

    def provenance(self) -> Mapping[str, Any]:
        """Where it comes from, as plain JSON; complete when all episodes were read."""
        ...


@dataclass(frozen=True, slots=True)
class InMemory:
    """A `Recording` of what was read already."""

    trajectories: Trajectories

    @property
    def spec(self) -> TrajectorySpec:
        return self.trajectories.spec

    def episodes(self) -> Iterator[Episode]:
        for index in range(len(self.trajectories.lengths)):
            note = self.trajectories.notes[index] if self.trajectories.notes else EpisodeNote()
            yield Episode(self.trajectories.episode(index), f"episode {index}", note)

    def provenance(self) -> Mapping[str, Any]:
        return self.trajectories.provenance


@dataclass(frozen=True, slots=True)
class Finite:
    """A `Recording` whose numbers must be finite: for exports, which look at each episode once and check nothing."""

    recording: Recording

    @property
    def spec(self) -> TrajectorySpec:
        return self.recording.spec

    def episodes(self) -> Iterator[Episode]:
        """Raises ValueError at the first episode with a number that is not, or too large for float32."""
        for episode in self.recording.episodes():
            for stream in self.spec.streams:
                if not stream.image and not np.isfinite(as_kept(episode.streams[stream.name])).all():
                    raise ValueError(
                        f"{episode.where}: stream {stream.name!r} must be finite; `forcing data check SOURCE` says "
                        "where, and --fix OUT.zarr mends it"
                    )
            yield episode

    def provenance(self) -> Mapping[str, Any]:
        return self.recording.provenance()


def gathered(recording: Recording) -> Trajectories:
    """All of a recording in memory, floats as float32. Raises ValueError if it cannot be read, or is empty."""
    rows = EpisodeRows(recording.spec)
    for episode in recording.episodes():
        steps = len(episode.streams[recording.spec.action.name])
        rows.add(episode.streams, steps, episode.where, episode.note)
    return rows.trajectories(recording.provenance())
