"""Mixtures: shares as asked for, windows as the sources have them, and sources that do not go together refused."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from forcing.datasets.mixture import Mixture, windows_of
from forcing.datasets.store import open_store, write_store
from forcing.datasets.windows import TrajectoryWindows
from forcing.policy.types import StreamSpec, Trajectories, TrajectorySpec

SPEC = TrajectorySpec(
    streams=(
        StreamSpec(name="position", role="observation", shape=(2,), units="m"),
        StreamSpec(name="action", role="action", shape=(), low=(-1,), high=(1,)),
    ),
    control_hz=10,
    goal="position",
)


def marked(mark: float, lengths: list[int], spec: TrajectorySpec = SPEC) -> Trajectories:
    """Positions are (mark, row)."""
    rows = sum(lengths) + len(lengths)
    position = np.stack([np.full(rows, mark), np.arange(rows)], axis=1).astype(np.float32)
    action = np.full(sum(lengths), mark, np.float32)
    streams = {"position": position, "action": action}
    return Trajectories(spec=spec, streams=streams, lengths=np.array(lengths))


def shares(source: Any, count: int = 20_000, future: int = 2) -> list[float]:
    batch = source.sample(np.random.default_rng(0), count, 1, future)
    marks = batch.streams["position"][:, 0, 0]
    assert (batch.streams["position"][..., 0] == marks[:, None]).all()
    assert (batch.streams["action"] == marks[:, None]).all()
    steps = np.diff(batch.streams["position"][:, 1:, 1], axis=1)
    assert (steps == 1).all()
    assert set(batch.past_valid.tolist()) <= {0, 1}
    return [float((marks == mark).mean()) for mark in (1, 2, 3)]


def test_windows_come_from_each_source_as_often_as_its_weight_says() -> None:
    sources = [marked(1, [9, 30]), marked(2, [400]), marked(3, [5])]
    mixture = Mixture([TrajectoryWindows(source) for source in sources], [7, 2, 1])
    assert shares(mixture) == pytest.approx([0.7, 0.2, 0.1], abs=0.012)  # four standard errors
    assert mixture.anchors(2) == 8 + 29 + 399 + 4


def test_a_batch_that_is_kept_is_not_overwritten_by_the_next() -> None:
    mixture = Mixture([TrajectoryWindows(marked(mark, [90])) for mark in (1, 2)], [1, 1])
    rng = np.random.default_rng(0)
    kept = [mixture.sample(rng, 16, 1, 2).streams["position"] for _ in range(6)]
    copies = [batch.copy() for batch in kept]
    mixture.sample(rng, 16, 1, 2)
    assert len({batch.tobytes() for batch in copies}) == 6
    assert all(np.array_equal(batch, copy) for batch, copy in zip(kept, copies, strict=True))


def test_frames_of_stores_are_mixed(tmp_path: Path) -> None:
    spec = replace(SPEC, streams=(*SPEC.streams, StreamSpec(name="camera", role="observation", shape=(8, 8, 1))))
    stores = []
    for mark in (1, 2):
        plain = marked(mark, [200, 100])
        frames = {"camera": np.full((302, 8, 8, 1), mark, np.uint8)}
        stores.append(open_store(write_store(replace(plain, spec=spec, frames=frames), tmp_path / f"{mark}.zarr")))
    mixture = windows_of(stores, [1, 3], cache_bytes=8_000)
    for _ in range(4):
        batch = mixture.sample(np.random.default_rng(0), 400, 1, 5)
        assert batch.streams["camera"].shape == (400, 7, 8, 8, 1)
        assert (batch.streams["camera"][..., 0, 0, 0] == batch.streams["position"][..., 0]).all()
        assert (batch.streams["camera"] == 2).mean() == pytest.approx(0.75, abs=0.09)


def test_a_source_without_an_episode_that_long_is_left_out() -> None:
    mixture = Mixture([TrajectoryWindows(marked(1, [9])), TrajectoryWindows(marked(2, [40]))], [0.9, 0.1])
    assert shares(mixture, future=20) == [0.0, 1.0, 0.0]
    with pytest.raises(ValueError, match="future must be at most the longest episode, 9 steps, got 50"):
        mixture.sample(np.random.default_rng(0), 1, 0, 50)


def test_the_same_generator_draws_the_same_windows_and_how_many_were_drawn_is_passed_on() -> None:
    told: list[int | None] = []

    class Watched(TrajectoryWindows):
        def sample(self, *args: Any, drawn: int | None = None) -> Any:
            told.append(drawn)
            return super().sample(*args, drawn=drawn)

    mixture = Mixture([Watched(marked(1, [50])), Watched(marked(2, [50]))], [3, 1])
    first = mixture.sample(np.random.default_rng(4), 64, 0, 3).streams["position"]
    mixture.sample(np.random.default_rng(5), 64, 0, 3)
    again = mixture.sample(np.random.default_rng(4), 64, 0, 3, drawn=1000).streams["position"]
    assert np.array_equal(first, again)
    assert told == [0, 0, 48, 16, 750, 250]


def test_one_recording_without_weights_is_drawn_from_as_it_is() -> None:
    alone = windows_of([marked(1, [50])])
    plain = TrajectoryWindows(marked(1, [50]))
    found, expected = (one.sample(np.random.default_rng(0), 9, 0, 3).streams["position"] for one in (alone, plain))
    assert np.array_equal(found, expected)


def test_recordings_without_weights_are_drawn_from_by_their_steps() -> None:
    recordings = [marked(1, [300]), marked(2, [50, 50])]
    assert shares(windows_of(recordings)) == pytest.approx([0.75, 0.25, 0], abs=0.013)
    assert shares(windows_of(recordings, [1, 1])) == pytest.approx([0.5, 0.5, 0], abs=0.015)


POSITION, ACTION = SPEC.streams


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        (replace(SPEC, control_hz=20), "control_hz is 20, not 10; resample one of them"),
        (replace(SPEC, goal=None), "goal is None, not 'position'"),
        (
            replace(SPEC, streams=(replace(POSITION, units="mm"), ACTION)),
            "units of stream 'position' is 'mm', not 'm'",
        ),
        (
            replace(SPEC, streams=(ACTION, POSITION)),
            r"its streams are \['action', 'position'\], not \['position', 'action'\]",
        ),
    ],
)
def test_recordings_that_differ_are_refused_by_what_differs(spec: TrajectorySpec, message: str) -> None:
    with pytest.raises(ValueError, match=f"recording 2 of a mixture must be like the first: {message}"):
        windows_of([marked(1, [9]), marked(2, [9], spec)])


def test_limits_may_differ() -> None:
    spec = replace(SPEC, streams=(POSITION, replace(ACTION, low=(-2.0,))))
    assert windows_of([marked(1, [9]), marked(2, [9], spec)]).spec == SPEC


@pytest.mark.parametrize(
    ("weights", "message"),
    [
        ([1.0], "weights must be one for each of 2 sources, got 1"),
        ([1.0, 0.0], r"weights must be positive, got \[1.0, 0.0\]; leave out a source"),
        ([1.0, float("nan")], "weights must be positive"),
    ],
)
def test_weights_that_cannot_be_are_refused(weights: list[float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        windows_of([marked(1, [9]), marked(2, [9])], weights)


def test_nothing_is_no_mixture() -> None:
    with pytest.raises(ValueError, match="at least 1 source, got none"):
        Mixture([], [])
    with pytest.raises(ValueError, match="at least 1 recording to train on, got none"):
        windows_of([])


def test_a_count_below_one_is_refused() -> None:
    with pytest.raises(ValueError, match="count must be at least 1, got 0"):
        Mixture([TrajectoryWindows(marked(1, [9]))], [1]).sample(np.random.default_rng(0), 0, 0, 1)
