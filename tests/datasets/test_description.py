"""What `forcing data info` says of recordings, against figures worked out by hand or by numpy in one go."""

import tracemalloc
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from forcing.datasets.description import describe
from forcing.datasets.episodes import Episode, InMemory
from forcing.policy.types import Array, EpisodeNote, StreamSpec, Trajectories, TrajectorySpec

Recorder = Callable[..., Trajectories]


def test_a_description_agrees_with_figures_worked_by_hand() -> None:
    spec = TrajectorySpec(
        streams=(
            StreamSpec(name="height", role="observation", shape=(), units="m"),
            StreamSpec(name="push", role="action", shape=(2,)),
        ),
        control_hz=10,
        goal="height",
    )
    streams = {
        "height": np.array([0, 1, 2, 3, 4, 5, 6, 7], np.float32),  # two episodes: 3 + 1 and 3 + 1 rows
        "push": np.array([[1, -1]] * 6, np.float32),
    }
    described = describe(
        InMemory(Trajectories(spec=spec, streams=streams, lengths=np.array([3, 3]), provenance={"by": "hand"})), "hand"
    )
    height, push = described.streams
    assert (described.episodes, described.steps) == (2, 6)
    assert described.hours == pytest.approx(0.6 / 3600)
    assert (height.low, height.high, height.mean) == (0, 7, 3.5)
    assert height.std == pytest.approx(np.sqrt(5.25))
    assert (push.mean, push.std) == (0, 1)
    assert described.to_json()["provenance"] == {"by": "hand"}
    assert "2 episodes, 6 steps" in str(described)
    assert described.length_steps == {"0 %": 3, "25 %": 3, "50 %": 3, "75 %": 3, "100 %": 3}


CAMERA = TrajectorySpec(
    streams=(
        StreamSpec(name="front", role="observation", shape=(96, 96, 3)),
        StreamSpec(name="arm", role="observation", shape=(2,), units="m"),
        StreamSpec(name="action", role="action", shape=(2,)),
    ),
    control_hz=10,
)


class Drawn:
    """A recording with a camera whose episodes are made when they are asked for."""

    spec = CAMERA

    def __init__(self, episodes: int, steps: int = 40) -> None:
        self._episodes, self._steps = episodes, steps

    def episodes(self) -> Iterator[Episode]:
        for index in range(self._episodes):
            rng = np.random.default_rng(index)
            streams: dict[str, Array] = {
                "front": rng.integers(0, 256, (self._steps + 1, 96, 96, 3), dtype=np.uint8),
                "arm": 1e6 + rng.standard_normal((self._steps + 1, 2)),
                "action": rng.uniform(-1, 1, (self._steps, 2)),
            }
            note = EpisodeNote(task=f"task {index % 12}", subsets=("train",) if index else ())
            yield Episode(streams, f"drawn {index}", note)

    def provenance(self) -> Mapping[str, Any]:
        return {"source": "drawn"}


def test_ranges_agree_with_those_of_all_episodes_at_once() -> None:
    described = describe(Drawn(3), "drawn")
    front, arm, _ = described.streams
    every = {name: np.concatenate([each.streams[name] for each in Drawn(3).episodes()]) for name in ("front", "arm")}
    assert (front.image, front.dtype, front.low, front.high) == (True, "uint8", 0, 255)
    assert (front.mean, front.std) == pytest.approx((every["front"].mean(), every["front"].std()), rel=1e-9)
    assert (arm.mean, arm.std) == pytest.approx((every["arm"].mean(), every["arm"].std()), rel=1e-9)


def test_frames_are_described_without_holding_them_all() -> None:
    tracemalloc.start()
    describe(Drawn(12), "drawn")  # 13 MB of frames
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 6 * 2**20


def test_tasks_and_subsets_are_counted_and_the_first_ten_shown() -> None:
    described = describe(Drawn(14, steps=2), "drawn")
    assert (described.tasks["task 0"], described.tasks["task 11"], described.subsets) == (2, 1, {"train": 13})
    text = str(described)
    assert "task: task 0 (2 episodes)" in text
    assert "and 2 more tasks" in text
    assert "subset: train (13 episodes)" in text
    assert "format: drawn" in text
    assert "96×96×3" in next(line for line in text.splitlines() if line.startswith("front") and "image" in line)


def test_a_rate_is_told_with_what_it_is_the_rate_of(point_mass: Recorder) -> None:
    text = str(describe(InMemory(point_mass([5])), "store"))
    assert next(line for line in text.splitlines() if line.startswith("velocity")).endswith("rate of position")


def test_values_that_are_not_finite_are_left_aside(point_mass: Recorder) -> None:
    recorded = point_mass([5])
    reward = np.array([np.nan, 1, np.inf, 3, 2], np.float32)
    described = describe(InMemory(replace(recorded, streams={**recorded.streams, "reward": reward})), "store")
    assert (described.streams[3].low, described.streams[3].high, described.streams[3].mean) == (1, 3, 2)
    nothing = describe(InMemory(replace(recorded, streams={**recorded.streams, "reward": np.full(5, np.nan)})), "store")
    assert np.isnan(nothing.streams[3].mean)


def test_a_recording_without_episodes_is_none() -> None:
    with pytest.raises(ValueError, match="at least 1 episode, got 0"):
        describe(Drawn(0), "drawn")
