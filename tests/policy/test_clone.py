"""Clones of data whose best clone is known: with Gaussian data it is a linear map; and what a file of one must keep."""

from pathlib import Path

import numpy as np
import pytest

from forcing.policy.checkpoint import CheckpointError
from forcing.policy.clone import FILE_NAME, CloneConfig, HindsightPairs, is_clone, load_clone, train_clone
from forcing.policy.tokens import Normaliser
from forcing.policy.training import Budget, Interrupted, Progress
from forcing.policy.types import StreamSpec, Trajectories, TrajectorySpec

A = np.array([[0.9, 0.2], [-0.1, 0.8]])
B = np.array([[1.0, 0.3], [0.0, 0.5]])
PUSH, NOISE = 0.5, 0.2  # standard deviations
QUICK = CloneConfig(width=64, depth=2, batch=512)


def spec(goal: str | None = "place", low: float | None = None) -> TrajectorySpec:
    bounds = (None, None) if low is None else ((low, low), (-low, -low))
    return TrajectorySpec(
        streams=(
            StreamSpec(name="place", role="observation", shape=(2,)),
            StreamSpec(name="push", role="action", shape=(2,), low=bounds[0], high=bounds[1]),
        ),
        control_hz=10.0,
        goal=goal,
    )


def single_steps(count: int = 20_000, low: float | None = None) -> Trajectories:
    """Episodes of one step, x' = A x + B u + noise, so that the goal is always the next place."""
    rng = np.random.default_rng(0)
    place, push = rng.normal(0, 1, (count, 2)), rng.normal(0, PUSH, (count, 2))
    after = place @ A.T + push @ B.T + rng.normal(0, NOISE, (count, 2))
    rows = np.stack([place, after], axis=1).reshape(-1, 2)
    return Trajectories(
        spec=spec(low=low), streams={"place": rows, "push": push}, lengths=np.ones(count, dtype=np.int64)
    )


def counting(lengths: list[int]) -> Trajectories:
    """The place is the number of the row, the push that of the step."""
    rows, steps = sum(lengths) + len(lengths), sum(lengths)
    streams = {"place": np.tile(np.arange(rows)[:, None], 2) * 1.0, "push": np.tile(np.arange(steps)[:, None], 2) * 1.0}
    return Trajectories(spec=spec(), streams=streams, lengths=np.array(lengths))


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("clones") / "linear"
    return train_clone(single_steps(), QUICK, Budget(steps=500), folder, {"data": "test"}).parent


def test_the_clone_of_gaussian_data_is_the_conditional_mean(trained: Path) -> None:
    # u given x and the goal g = A x + B u + noise: K (g - A x), K = S Bᵀ (B S Bᵀ + N)⁻¹.
    gain = PUSH**2 * B.T @ np.linalg.inv(PUSH**2 * B @ B.T + NOISE**2 * np.eye(2))
    clone, rng = load_clone(str(trained)), np.random.default_rng(1)
    place = rng.normal(0, 1, (300, 2))
    goal = place @ A.T + rng.normal(0, 0.6, (300, 2))
    expected = (goal - place @ A.T) @ gain.T
    found = np.array([clone.action({"place": p}, g) for p, g in zip(place, goal, strict=True)])
    assert np.sqrt(np.square(found - expected).mean()) < 0.1 * expected.std()


def test_goals_are_places_of_the_same_episode_uniform_over_the_steps_that_are_left() -> None:
    recorded = counting([1, 4, 2])
    unit = Normaliser(mean=dict.fromkeys(recorded.streams, (0.0, 0.0)), std=dict.fromkeys(recorded.streams, (1.0, 1.0)))
    inputs, actions = HindsightPairs(recorded, unit).draw(np.random.default_rng(0), 70_000)
    drawn = np.stack([inputs[:, 0].numpy(), inputs[:, 2].numpy(), actions[:, 0].numpy()], axis=1).astype(int)
    # Row of the state, row of the goal, step; by hand. Seven steps, each as likely.
    shares = {
        (0, 1, 0): 1.0,
        **{(2, goal, 1): 1 / 4 for goal in (3, 4, 5, 6)},
        **{(3, goal, 2): 1 / 3 for goal in (4, 5, 6)},
        **{(4, goal, 3): 1 / 2 for goal in (5, 6)},
        (5, 6, 4): 1.0,
        **{(7, goal, 5): 1 / 2 for goal in (8, 9)},
        (8, 9, 6): 1.0,
    }
    found, counts = np.unique(drawn, axis=0, return_counts=True)
    assert {tuple(row) for row in found.tolist()} == set(shares)
    for row, count in zip(found.tolist(), counts, strict=True):
        expected = shares[tuple(row)] / 7
        assert abs(count / 70_000 - expected) < 4 * np.sqrt(expected / 70_000)


def test_actions_keep_the_limits_of_the_recording(tmp_path: Path) -> None:
    train_clone(single_steps(100, low=-0.25), QUICK, Budget(steps=30), tmp_path, {})
    far = load_clone(str(tmp_path)).action({"place": np.zeros(2)}, np.array([30.0, -30.0]))
    assert np.abs(far).max() == 0.25


def test_the_same_seed_and_steps_give_the_same_clone_and_cards_do_not_count(tmp_path: Path) -> None:
    data = single_steps(100)
    revisions = []
    for name, seed in (("one", 3), ("again", 3), ("other", 4)):
        train_clone(data, QUICK, Budget(steps=5), tmp_path / name, {"name": name}, seed=seed)
        revisions.append(load_clone(str(tmp_path / name)).revision)
    assert revisions[0] == revisions[1] != revisions[2]


def test_who_asks_it_to_stop_gets_what_there_is(tmp_path: Path) -> None:
    asked = iter([False] * 7 + [True])
    with pytest.raises(Interrupted, match="stopped at step 7"):
        train_clone(single_steps(100), QUICK, Budget(steps=1000), tmp_path, {}, stop=lambda: next(asked))
    assert load_clone(str(tmp_path)).action({"place": np.zeros(2)}, np.zeros(2)).shape == (2,)


def test_a_budget_in_minutes_ends_in_time_and_is_reported(tmp_path: Path) -> None:
    reports: list[Progress] = []
    train_clone(single_steps(100), QUICK, Budget(minutes=0.02), tmp_path, {}, report=reports.append)
    assert len(reports) == 1
    assert reports[0].total_steps >= reports[0].step > 0
    assert 0 <= reports[0].remaining_s < 1.2


def test_a_recording_without_a_goal_stream_is_refused(tmp_path: Path) -> None:
    data = single_steps(100)
    goalless = Trajectories(spec=spec(goal=None), streams=data.streams, lengths=data.lengths)
    with pytest.raises(ValueError, match="needs a goal stream, the recording has none"):
        train_clone(goalless, QUICK, Budget(steps=1), tmp_path, {})


def test_a_damaged_file_is_named(trained: Path, tmp_path: Path) -> None:
    assert is_clone(str(trained))
    assert not is_clone(str(tmp_path))
    data = bytearray((trained / FILE_NAME).read_bytes())
    data[-5] ^= 1
    (tmp_path / FILE_NAME).write_bytes(data)
    with pytest.raises(CheckpointError, match=r"clone\.safetensors is damaged"):
        load_clone(str(tmp_path))
    with pytest.raises(CheckpointError, match="does not exist"):
        load_clone(str(tmp_path / "nowhere"))


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ({"width": 0}, "width must be at least 1, got 0"),
        ({"learning_rate": 0.0}, "learning_rate must be positive, got 0"),
        ({"constant": 1.0}, "constant must be from 0 to below 1, got 1.0"),
    ],
)
def test_settings_out_of_range_are_named(setting: dict[str, float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        CloneConfig(**setting)  # type: ignore[arg-type]
