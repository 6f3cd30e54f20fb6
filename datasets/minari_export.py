"""Recordings of any format as Minari datasets, which say by themselves what a reader must know."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
from gymnasium import spaces

from forcing.datasets.minari_writer import Episode, write_minari
from forcing.policy.types import StreamSpec, Trajectories


def export_minari(trajectories: Trajectories, out_dir: str | Path, dataset_id: str) -> Path:
    """The folder of the dataset: observation streams by name in a Dict space, actions, rewards (0 where none were
    recorded), and every episode truncated at its end. Raises ValueError if the id is malformed or taken, or there is no
    episode."""
    spec = trajectories.spec
    observed = spec.of_role("observation")
    return write_minari(
        out_dir,
        dataset_id,
        _episodes(trajectories),
        description=f"converted from {trajectories.provenance.get('source', 'a recording')}",
        observation_space=spaces.Dict({stream.name: _box(stream) for stream in observed}),
        action_space=_box(spec.action),
        control_hz=spec.control_hz,
        goal=spec.goal,
        units={stream.name: stream.units for stream in observed if stream.units},
    )


def _episodes(trajectories: Trajectories) -> Iterator[Episode]:
    spec = trajectories.spec
    rewards = [stream.name for stream in spec.of_role("reward")]
    for index, length in enumerate(trajectories.lengths):
        streams = trajectories.episode(index)
        last = np.arange(length) == length - 1
        yield {
            "observations": {stream.name: streams[stream.name] for stream in spec.of_role("observation")},
            "actions": streams[spec.action.name],
            "rewards": np.asarray(streams[rewards[0]], dtype=np.float64) if rewards else np.zeros(length),
            "terminations": np.zeros(length, dtype=np.bool_),
            "truncations": last,
        }


def _box(stream: StreamSpec) -> spaces.Box:
    low, high = (
        np.full(stream.shape, default) if bound is None else np.array(bound).reshape(stream.shape)
        for bound, default in ((stream.low, -np.inf), (stream.high, np.inf))
    )
    return spaces.Box(low.astype(np.float32), high.astype(np.float32), stream.shape, np.float32)
