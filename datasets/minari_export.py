"""Recordings of any format as Minari datasets, which say by themselves what a reader must know.

What Minari has no place for (limits as they are, rates, tasks, subsets) is metadata under `OWN`, which our reader alone
looks at.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
from gymnasium import spaces

from forcing.datasets.episodes import Episode, Recording
from forcing.datasets.minari_files import OWN
from forcing.datasets.minari_writer import MinariEpisode, write_minari
from forcing.datasets.rows import as_kept, check_rows
from forcing.datasets.store_layout import episode_table
from forcing.policy.types import Array, EpisodeNote, StreamSpec, TrajectorySpec


def export_minari(recording: Recording, out_dir: str | Path, dataset_id: str) -> Path:
    """The folder of the dataset: observation streams by name in a Dict space, actions, rewards (0 where none were
    recorded), and every episode truncated at its end. Frames are not compressed, so none is altered.

    One episode is in memory at a time. Raises ValueError if the id is malformed or taken, there is no episode, or one
    cannot be read.
    """
    spec, episodes = recording.spec, recording.episodes()
    first = next(episodes, None)
    if first is None:
        raise ValueError(f"{dataset_id}: there must be at least 1 episode to export, got 0")
    observed, written = spec.of_role("observation"), _Written(spec)
    return write_minari(
        out_dir,
        dataset_id,
        written.episodes(chain([first], episodes)),
        description=f"converted from {recording.provenance().get('source', 'a recording')}",
        observation_space=spaces.Dict({stream.name: _box(stream, first.streams[stream.name]) for stream in observed}),
        action_space=_box(spec.action, first.streams[spec.action.name]),
        control_hz=spec.control_hz,
        goal=spec.goal,
        units={stream.name: stream.units for stream in observed if stream.units},
        own=lambda: {OWN: {"spec": spec.to_json(), "episodes": episode_table(written.notes)}},
    )


@dataclass(slots=True)
class _Written:
    """notes: of the episodes that were taken so far."""

    spec: TrajectorySpec
    notes: list[EpisodeNote] = field(default_factory=list)

    def episodes(self, episodes: Iterator[Episode]) -> Iterator[MinariEpisode]:
        rewards = [stream.name for stream in self.spec.of_role("reward")]
        for episode in episodes:
            streams = {name: as_kept(rows) for name, rows in episode.streams.items()}
            length = len(streams[self.spec.action.name])
            check_rows(self.spec, streams, length, episode.where)
            self.notes.append(episode.note)
            yield {
                "observations": {stream.name: streams[stream.name] for stream in self.spec.of_role("observation")},
                "actions": streams[self.spec.action.name],
                "rewards": np.asarray(streams[rewards[0]], dtype=np.float64) if rewards else np.zeros(length),
                "terminations": np.zeros(length, dtype=np.bool_),
                "truncations": np.arange(length) == length - 1,
            }


def _box(stream: StreamSpec, rows: Array) -> spaces.Box:
    """Of the stream's limits, and of all that its type holds where it has none."""
    kind: np.dtype[Any] = as_kept(rows[:1]).dtype
    if not np.issubdtype(kind, np.floating):
        least, most = (0, 1) if kind == np.bool_ else (np.iinfo(kind).min, np.iinfo(kind).max)
        return spaces.Box(least, most, stream.shape, kind.type)
    low, high = (
        np.full(stream.shape, default) if bound is None else np.array(bound).reshape(stream.shape)
        for bound, default in ((stream.low, -np.inf), (stream.high, np.inf))
    )
    return spaces.Box(low.astype(kind), high.astype(kind), stream.shape, kind.type)
