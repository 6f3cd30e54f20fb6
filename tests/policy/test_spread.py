"""How far a robot will be from its plan, read off what plans missed."""

from dataclasses import replace

import numpy as np
import pytest

from forcing.policy.spread import NORMAL, Missed, Spread, arrival_of, spread_of
from forcing.policy.tokens import Normaliser
from forcing.policy.types import TrajectorySpec


@pytest.fixture
def spread() -> Spread:
    """Of 4 frames, known and doubted by 0.5 standard deviations: position, then velocity."""
    sure = np.array([[0.1, 0.2, 0.3, 0.4], [1.0, 2.0, 3.0, 4.0]])
    rest = np.array([[0.25, 0.05, 0.04, 0.03], [0.5, 0.4, 0.3, 0.2]])
    return Spread(
        doubts=np.array([[0.0, 0.5], [0.0, 0.5]]),
        moving=np.stack([sure, 3 * sure], axis=1),
        resting=np.stack([rest, 3 * rest], axis=1),
    )


def test_spread_is_in_the_units_of_each_coordinate_and_another_once_the_plan_rests(
    spread: Spread, spec: TrajectorySpec, normaliser: Normaliser
) -> None:
    told = spread.of(4, 2, {}, spec, normaliser)
    assert set(told) == {"position", "velocity"}
    # Recorded standard deviations are 2 and 4 m, 0.5 and 0.25 m/s.
    np.testing.assert_allclose(told["position"], np.outer([0.1, 0.2, 0.25, 0.05], [2, 4]))
    np.testing.assert_allclose(told["velocity"], np.outer([1.0, 2.0, 0.5, 0.4], [0.5, 0.25]))


@pytest.mark.parametrize(("doubt_m", "wider"), [(0.0, 1), (0.75, 2), (1.5, 3), (1.65, 3.3)])
def test_doubt_of_the_present_widens_its_own_stream(
    doubt_m: float, wider: float, spread: Spread, spec: TrajectorySpec, normaliser: Normaliser
) -> None:
    """Linear between what was measured, at 0 and at half of 3 m, in proportion beyond."""
    sure, doubtful = (spread.of(4, 2, doubt, spec, normaliser) for doubt in ({}, {"position": doubt_m}))
    np.testing.assert_allclose(doubtful["position"], wider * sure["position"])
    np.testing.assert_array_equal(sure["velocity"], doubtful["velocity"])


def test_nobody_is_farther_off_than_recorded_places_are_apart(
    spread: Spread, spec: TrajectorySpec, normaliser: Normaliser
) -> None:
    """But where more was measured, that counts."""
    lost = spread.of(4, 4, {"position": 1e6, "velocity": 1e6}, spec, normaliser)
    np.testing.assert_allclose(lost["position"], np.outer([1, 1, 1, 1.2], [2, 4]))
    np.testing.assert_allclose(lost["velocity"], np.outer([3, 6, 9, 12], [0.5, 0.25]))


def test_a_plan_longer_than_any_measured_keeps_the_last_spread(
    spread: Spread, spec: TrajectorySpec, normaliser: Normaliser
) -> None:
    long = spread.of(6, 6, {}, spec, normaliser)["position"]
    np.testing.assert_array_equal(long[4:], long[[3, 3]])


@pytest.mark.parametrize(
    ("path", "arrival"),
    [([3.0, 2.0, 1.0, 0.1, 0.0], 3), ([0.0, 0.1], 0), ([3.0, 2.0], 2), ([3.0, 0.0, 2.0, 0.0], 3)],
)
def test_a_plan_has_arrived_where_it_no_longer_leaves_its_goal(path: list[float], arrival: int) -> None:
    there = np.array(path)[:, None] * [0.6, 0.8] + [5.0, -1.0]
    assert arrival_of(there, np.array([5.0, -1.0]), near=0.2) == arrival


def _drive(rng: np.random.Generator, count: int, plans: int = 1, *, noisy: bool = True) -> Missed:
    """Outcomes of 16 frames, at the goal from the 8th on: errors grow by the frame, are 0.5 at rest, and 5 times that
    where the start was in doubt."""
    frame = rng.integers(0, 16, count)
    doubt = np.where(rng.random(count) < 0.5, rng.uniform(0.19, 0.21, count), 0)
    size = np.where(frame < 8, 1 + frame, 0.5) * np.where(doubt > 0, 5, 1)
    return Missed(plans, noisy, frame, frame - 8, rng.normal(0, size)[:, None], doubt[:, None])


def test_scales_cover_the_share_of_normal_errors_that_they_promise() -> None:
    rng = np.random.default_rng(0)
    found = spread_of([_drive(rng, 1000) for _ in range(60)], [slice(0, 1)], 16)
    assert found.doubts.shape == (1, 4)
    np.testing.assert_allclose(found.doubts[0], [0, 0.193, 0.2, 0.207], atol=0.002)
    for group, wider in enumerate((1, 5, 5, 5)):
        np.testing.assert_allclose(found.moving[0, group, :8], wider * np.arange(1, 9), rtol=0.12)
        np.testing.assert_allclose(found.resting[0, group, :8], wider * np.full(8, 0.5), rtol=0.12)


def test_a_drive_of_many_plans_counts_like_any_other() -> None:
    rng = np.random.default_rng(0)
    drives = [_drive(rng, 1000) for _ in range(36)]
    stuck = [_drive(rng, 40_000, plans=40) for _ in range(4)]
    found = spread_of([*drives, *(replace(one, error=100 * one.error) for one in stuck)], [slice(0, 1)], 16)
    # One tenth of the weight is far off, so 82 % of all are 91 % of the others: 1.70 standard deviations of these.
    np.testing.assert_allclose(found.moving[0, 0, :8], 1.70 / 1.28 * np.arange(1, 9), rtol=0.15)


def test_doubt_without_noise_tells_nothing() -> None:
    """Sensors that turn out to be perfect are in doubt at a first reading as well: what comes of their plans is neither
    what comes of doubt, nor of a start that is known."""
    rng = np.random.default_rng(0)
    noisy = [_drive(rng, 1000) for _ in range(40)]
    perfect = [_drive(rng, 1000, noisy=False) for _ in range(40)]
    for one in perfect:
        one.error[one.doubt[:, 0] > 0] *= 100
    both, alone = (spread_of(drives, [slice(0, 1)], 16) for drives in ([*noisy, *perfect], noisy))
    np.testing.assert_allclose(both.moving[0, :, :8], alone.moving[0, :, :8], rtol=0.12)


def test_few_drives_are_told_less_than_they_say() -> None:
    """Of five drives, each off by its own error, the next one's is below the largest with a chance of 80 %; the fourth
    largest is not enough."""
    frame = np.zeros(100, dtype=np.int64)
    five = [
        Missed(1, False, frame, frame - 1, np.full((100, 1), error), np.zeros((100, 1))) for error in (1, 2, 3, 4, 5)
    ]
    np.testing.assert_allclose(spread_of(five, [slice(0, 1)], 2).moving, 5 / NORMAL)


def test_neighbouring_frames_tell_too_the_farther_ahead_the_more() -> None:
    """Errors of 1, but of 3 at one frame: a fifth of what is seen from two frames to either side of it."""
    frame = np.repeat(np.arange(40), 70)
    error = np.where(frame == 20, 3.0, 1.0)[:, None]
    drives = [Missed(1, False, frame, frame - 40, error, np.zeros((len(frame), 1))) for _ in range(20)]
    found = spread_of(drives, [slice(0, 1)], 40).moving[0, 0] * NORMAL
    # With 20 drives 84 % are to be covered, so a fifth decides; frame 20 alone would be seen from 20 alone.
    np.testing.assert_array_equal(np.flatnonzero(found > 1.5), [18, 19, 20, 21, 22])


def test_a_frame_with_few_outcomes_asks_its_neighbours() -> None:
    """Frame 2 has one outcome, a huge one: it alone would be believed."""
    frame = np.array([0] * 100 + [1] * 100 + [2] + [3] * 100)
    error = np.where(frame == 2, 100.0, 1.0)
    drives = [Missed(1, False, frame, frame - 9, error[:, None], np.zeros((len(frame), 1))) for _ in range(2)]
    np.testing.assert_allclose(spread_of(drives * 20, [slice(0, 1)], 4).moving[0, 0] * NORMAL, 1)


def test_frames_without_outcomes_have_the_scale_of_the_nearest() -> None:
    rng = np.random.default_rng(0)
    found = spread_of([_drive(rng, 40_000)], [slice(0, 1)], 40)
    np.testing.assert_allclose(found.resting[0, :, 12:], found.resting[0, :, 12:13].repeat(28, axis=1), rtol=0.12)


def test_where_no_start_was_in_doubt_all_groups_are_one() -> None:
    sure = replace(_drive(np.random.default_rng(0), 500), doubt=np.zeros((500, 1)))
    found = spread_of([sure], [slice(0, 1)], 16)
    np.testing.assert_array_equal(found.moving[0], found.moving[0, :1].repeat(4, axis=0))
    assert (found.doubts == 0).all()
    assert (found.moving > 0).all()
