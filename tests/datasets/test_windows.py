"""Windows against slices cut by hand out of recordings whose values say where they stand."""

import time
from typing import Any, cast

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from forcing.datasets.windows import TrajectoryWindows
from forcing.policy.types import StreamSpec, Trajectories, TrajectorySpec

LENGTHS = st.lists(st.integers(1, 9), min_size=1, max_size=6)


def coded(lengths: list[int]) -> Trajectories:
    """Every row of every stream is (episode, step)."""
    spec = TrajectorySpec(
        streams=(
            StreamSpec(name="seen", role="observation", shape=(2,)),
            StreamSpec(name="done", role="action", shape=(2,)),
            StreamSpec(name="paid", role="reward", shape=(2,)),
        ),
        control_hz=10,
    )

    def rows(extra: int) -> np.ndarray:
        return np.array([(e, step) for e, length in enumerate(lengths) for step in range(length + extra)], np.float32)

    streams = {"seen": rows(1), "done": rows(0), "paid": rows(0)}
    return Trajectories(spec=spec, streams=streams, lengths=np.array(lengths))


class Enumerating:
    """In place of a generator: every number below the bound once, instead of random ones."""

    def integers(self, low: int, high: int, size: int) -> np.ndarray:
        assert size == high - low
        return np.arange(low, high)


def anchors_by_hand(lengths: list[int], future: int) -> list[tuple[int, int]]:
    return [(e, t) for e, length in enumerate(lengths) for t in range(length + 1) if t + future <= length]


@given(lengths=LENGTHS, past=st.integers(0, 5), future=st.integers(0, 9), seed=st.integers(0, 99))
def test_windows_never_cross_an_episode(lengths: list[int], past: int, future: int, seed: int) -> None:
    windows = TrajectoryWindows(coded(lengths))
    if not anchors_by_hand(lengths, future):
        with pytest.raises(ValueError, match="future must be at most the longest episode"):
            windows.sample(np.random.default_rng(seed), 1, past, future)
        return
    batch = windows.sample(np.random.default_rng(seed), 20, past, future)
    for row in range(20):
        episode, now = batch.streams["seen"][row, past].astype(int)
        assert 0 <= now <= lengths[episode] - future
        expected = [(episode, max(now + offset, 0)) for offset in range(-past, future + 1)]
        assert batch.streams["seen"][row].tolist() == [list(pair) for pair in expected]
        assert batch.streams["done"][row].tolist() == [list(pair) for pair in expected[:-1]]
        assert batch.streams["paid"][row].tolist() == [list(pair) for pair in expected[:-1]]
        assert batch.past_valid[row] == min(past, now)


@given(lengths=LENGTHS, future=st.integers(0, 9))
def test_every_step_that_fits_is_an_anchor_exactly_once(lengths: list[int], future: int) -> None:
    windows, expected = TrajectoryWindows(coded(lengths)), anchors_by_hand(lengths, future)
    assert windows.anchors(future) == len(expected)
    if expected:
        everything = cast(np.random.Generator, Enumerating())
        batch = windows.sample(everything, len(expected), past=0, future=future)
        assert [tuple(row) for row in batch.streams["seen"][:, 0].astype(int).tolist()] == expected


def test_anchors_are_drawn_uniformly() -> None:
    lengths, draws = [1, 30, 4, 12], 50_000
    batch = TrajectoryWindows(coded(lengths)).sample(np.random.default_rng(5), draws, past=0, future=3)
    counts = np.unique(batch.streams["seen"][:, 0], axis=0, return_counts=True)[1]
    assert len(counts) == 28 + 2 + 10
    chi_square = float(((counts - draws / 40) ** 2 / (draws / 40)).sum())
    assert chi_square < 72.1  # 39 degrees of freedom, exceeded once in a thousand


def test_the_same_generator_draws_the_same_windows() -> None:
    windows = TrajectoryWindows(coded([9, 9]))
    first, second = (windows.sample(np.random.default_rng(3), 8, 2, 4).streams["seen"] for _ in range(2))
    assert np.array_equal(first, second)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"count": 0}, "count must be at least 1, got 0"),
        ({"past": -1}, "past must be at least 0, got -1"),
        ({"future": -1}, "future must be at least 0, got -1"),
        ({"future": 10}, "longest episode, 9 steps, got 10"),
    ],
)
def test_a_window_that_cannot_be_is_refused(wrong: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        TrajectoryWindows(coded([9])).sample(np.random.default_rng(0), **{"count": 1, "past": 0, "future": 1, **wrong})


def test_more_than_100_000_windows_of_64_steps_come_out_of_a_core_in_a_second() -> None:
    lengths = np.random.default_rng(0).integers(100, 500, 1000)
    steps, episodes = int(lengths.sum()), len(lengths)
    spec = TrajectorySpec(
        streams=(
            StreamSpec(name="position", role="observation", shape=(2,)),
            StreamSpec(name="velocity", role="observation", shape=(2,)),
            StreamSpec(name="action", role="action", shape=(2,)),
        ),
        control_hz=100,
    )
    rows = {"position": steps + episodes, "velocity": steps + episodes, "action": steps}
    streams = {name: np.zeros((count, 2), np.float32) for name, count in rows.items()}
    windows = TrajectoryWindows(Trajectories(spec=spec, streams=streams, lengths=lengths))
    rng, started = np.random.default_rng(0), time.process_time()
    for _ in range(50):
        windows.sample(rng, 1000, past=16, future=47)
    assert 50_000 / (time.process_time() - started) > 100_000
