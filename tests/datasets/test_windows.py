"""Windows against slices cut by hand out of recordings whose values say where they stand."""

import time
from dataclasses import replace
from typing import Any, cast

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from forcing.datasets.draw_order import DrawOrder
from forcing.datasets.store import open_store, write_store
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


FILMED = [3, 400, 1, 250, 90, 700, 5]


def filmed(lengths: list[int]) -> Trajectories:
    """As `coded`, and a camera whose pixels are (episode, step // 256, step % 256)."""
    plain = coded(lengths)
    seen = plain.streams["seen"].astype(int)
    camera = np.stack([seen[:, 0], seen[:, 1] // 256, seen[:, 1] % 256], axis=1).astype(np.uint8)
    frames = {"camera": np.tile(camera[:, None, None], (1, 8, 8, 1))}
    spec = replace(
        plain.spec, streams=(*plain.spec.streams, StreamSpec(name="camera", role="observation", shape=(8, 8, 3)))
    )
    return replace(plain, spec=spec, frames=frames)


@pytest.fixture(scope="module")
def stored(tmp_path_factory: pytest.TempPathFactory) -> Trajectories:
    return open_store(write_store(filmed(FILMED), tmp_path_factory.mktemp("windows") / "filmed.zarr"))


SMALL = 500 * 8 * 8 * 3  # of 1456 rows, in 46 segments of 32 of which four fit with their windows' ends


@pytest.mark.parametrize("cache_bytes", [1, SMALL, 1 << 30])
@pytest.mark.parametrize(("past", "future"), [(0, 0), (5, 9), (0, 300), (40, 699)])
def test_frames_of_a_store_are_those_of_the_same_steps(
    stored: Trajectories, cache_bytes: int, past: int, future: int
) -> None:
    windows = TrajectoryWindows(stored, cache_bytes=cache_bytes)
    for draw in range(6):
        batch = windows.sample(np.random.default_rng(draw), 9, past, future)
        seen, camera = batch.streams["seen"].astype(int), batch.streams["camera"].astype(int)
        assert camera.shape == (9, past + future + 1, 8, 8, 3)
        assert (camera == camera[:, :, :1, :1]).all()
        assert np.array_equal(camera[:, :, 0, 0, 0], seen[..., 0])
        assert np.array_equal(camera[:, :, 0, 0, 1] * 256 + camera[:, :, 0, 0, 2], seen[..., 1])
        now = seen[:, past, 1]
        assert np.array_equal(seen[..., 1], np.maximum(now[:, None] + np.arange(-past, future + 1), 0))


def test_a_store_that_fits_the_cache_gives_the_windows_of_a_recording_in_memory(stored: Trajectories) -> None:
    for source in (TrajectoryWindows(stored), TrajectoryWindows(filmed(FILMED))):
        assert len(set(source.pool_segments(2, 4))) == 1
    first, second = (
        TrajectoryWindows(found).sample(np.random.default_rng(7), 30, 2, 4) for found in (stored, filmed(FILMED))
    )
    for name, values in first.streams.items():
        assert np.array_equal(values, second.streams[name])


def test_a_run_that_is_resumed_draws_the_windows_it_would_have_drawn(stored: Trajectories) -> None:
    def source() -> TrajectoryWindows:
        return TrajectoryWindows(stored, seed=3, cache_bytes=SMALL)

    rng, whole, through = np.random.default_rng(0), source(), list[np.ndarray]()
    for draw in range(30):
        if draw == 20:
            state = rng.bit_generator.state
        through.append(whole.sample(rng, 32, 0, 9).streams["camera"].copy())
    rng.bit_generator.state = state
    resumed = source()
    for draw in range(20, 30):
        again = resumed.sample(rng, 32, 0, 9, drawn=32 * draw).streams["camera"]
        assert np.array_equal(again, through[draw])


def test_other_seeds_visit_segments_in_another_order() -> None:
    orders = [
        [DrawOrder(segments=50, segment_windows=10, seed=seed).pool(10 * n, 1).item() for n in range(50)]
        for seed in (0, 0, 1)
    ]
    assert orders[0] == orders[1]
    assert orders[0] != orders[2]
    assert sorted(orders[0]) == sorted(orders[2]) == list(range(50))


@pytest.mark.parametrize("slots", [1, 3, 7, 8, 20])
def test_every_segment_is_in_the_pool_equally_long_over_passes(slots: int) -> None:
    order = DrawOrder(segments=8, segment_windows=5, seed=2)
    # The pool before the first window is of an earlier pass, so a long run ends within a pool's length of equality.
    passes, times = 200, np.zeros(8)
    for drawn in range(0, passes * 8 * 5, 5):
        np.add.at(times, order.pool(drawn, slots), 1)
    assert times.sum() == passes * 8 * min(slots, 8)
    assert np.ptp(times) <= 2 * slots
    assert times.min() > 0.97 * times.max()


def test_the_pool_changes_by_one_segment_at_a_time() -> None:
    order = DrawOrder(segments=100, segment_windows=10)
    for drawn in range(0, 3000, 10):
        before, after = order.pool(drawn, 6), order.pool(drawn + 10, 6)
        assert np.array_equal(before, order.pool(drawn + 9, 6))
        left = np.unique(before, return_counts=True)
        entered = np.unique(after, return_counts=True)
        change = np.zeros(100)
        change[left[0]] -= left[1]
        change[entered[0]] += entered[1]
        assert np.abs(change).sum() in (0, 2)


def test_anchors_of_a_store_are_equally_likely_over_passes(stored: Trajectories) -> None:
    windows = TrajectoryWindows(stored, cache_bytes=SMALL)
    slots, segments = windows.pool_segments(0, 9)
    assert 1 < slots < segments
    rng, counts, passes = np.random.default_rng(1), dict[tuple[int, ...], int](), 60
    for _ in range(passes * 2912 // 56):
        for pair in windows.sample(rng, 56, 0, 9).streams["seen"][:, 0].astype(int).tolist():
            counts[tuple(pair)] = counts.get(tuple(pair), 0) + 1
    anchors = windows.anchors(9)
    assert len(counts) == anchors
    found, expected = np.array(list(counts.values())), passes * 2912 / anchors
    # Poisson counts, as if independent: one in a thousand chi squares of so many is above this.
    spread = float(((found - expected) ** 2 / expected).sum() / (anchors - 1))
    assert spread < 1 + 3.1 * np.sqrt(2 / anchors)


def test_every_chunk_serves_many_windows(stored: Trajectories) -> None:
    windows = TrajectoryWindows(stored, cache_bytes=SMALL)
    rng = np.random.default_rng(1)
    for _ in range(100):
        windows.sample(rng, 56, 0, 9)
    # Two passes of 2912 windows decode each of the 46 chunks a few times: segments are short, windows reach out.
    assert windows.decoded_chunks < 4 * 46 * 5600 / 2912


@pytest.mark.parametrize("cache_bytes", [SMALL, 1 << 30])
def test_workers_draw_anchors_of_their_own_and_all_of_them_together(stored: Trajectories, cache_bytes: int) -> None:
    seen = []
    for index in range(3):
        windows = TrajectoryWindows(stored, cache_bytes=cache_bytes, worker=(index, 3))
        rng, mine = np.random.default_rng(index), set[tuple[int, ...]]()
        for _ in range(400):
            mine |= {tuple(pair) for pair in windows.sample(rng, 56, 0, 9).streams["seen"][:, 0].astype(int).tolist()}
        seen.append(mine)
    assert not seen[0] & seen[1]
    assert not seen[0] & seen[2]
    assert not seen[1] & seen[2]
    assert len(seen[0] | seen[1] | seen[2]) == TrajectoryWindows(stored).anchors(9)


def test_workers_share_recordings_in_memory_too() -> None:
    windows = [TrajectoryWindows(coded([40, 3]), worker=(index, 4)) for index in range(4)]
    drawn = [set(one.sample(np.random.default_rng(0), 900, 0, 2).streams["seen"][:, 0, 1].tolist()) for one in windows]
    assert [len(mine) for mine in drawn] == [10, 10, 10, 11]


def test_windows_too_rare_for_the_pool_are_drawn_from_wherever_they_are(stored: Trajectories) -> None:
    windows = TrajectoryWindows(stored, cache_bytes=SMALL)
    assert windows.anchors(699) == 2
    firsts = {
        tuple(pair)
        for n in range(9)
        for pair in windows.sample(np.random.default_rng(n), 4, 0, 699).streams["seen"][:, 0].tolist()
    }
    assert firsts == {(5.0, 0.0), (5.0, 1.0)}


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"cache_bytes": 0}, "cache_bytes must be at least 1, got 0"),
        ({"worker": (2, 2)}, r"worker must be \(index, count\) with 0 <= index < count, got \(2, 2\)"),
    ],
)
def test_a_source_that_cannot_be_is_refused(wrong: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        TrajectoryWindows(coded([9]), **wrong)


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
