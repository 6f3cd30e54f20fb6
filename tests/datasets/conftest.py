"""Recordings of a point mass that the tests integrate themselves: v' = v + a/20, x' = x + v'/100."""

from collections.abc import Callable, Sequence

import numpy as np
import pytest

from forcing.policy.types import StreamSpec, Trajectories, TrajectorySpec

SPEC = TrajectorySpec(
    streams=(
        StreamSpec(name="position", role="observation", shape=(2,), units="m"),
        StreamSpec(name="velocity", role="observation", shape=(2,), units="m/s", rate_of="position"),
        StreamSpec(name="action", role="action", shape=(2,), low=(-1, -1), high=(1, 1)),
        StreamSpec(name="reward", role="reward", shape=()),
    ),
    control_hz=100,
    goal="position",
)

Recorder = Callable[..., Trajectories]


@pytest.fixture(scope="session")
def point_mass() -> Recorder:
    """(lengths, seed=0) -> a clean recording of episodes of these lengths, each from a start of its own."""

    def record(lengths: Sequence[int], seed: int = 0) -> Trajectories:
        rng = np.random.default_rng(seed)
        parts: dict[str, list[np.ndarray]] = {stream.name: [] for stream in SPEC.streams}
        for length in lengths:
            action = rng.uniform(-1, 1, (length, 2))
            velocity = np.cumsum(np.concatenate([rng.uniform(-1, 1, (1, 2)), action / 20]), axis=0)
            moved = np.concatenate([rng.uniform(-4, 4, (1, 2)), velocity[1:] / 100])
            parts["position"].append(np.cumsum(moved, axis=0))
            parts["velocity"].append(velocity)
            parts["action"].append(action)
            parts["reward"].append(rng.uniform(0, 1, length))
        streams = {name: np.concatenate(rows).astype(np.float32) for name, rows in parts.items()}
        return Trajectories(spec=SPEC, streams=streams, lengths=np.array(lengths), provenance={"source": "test"})

    return record
