"""Recordings of OGBench's mazes: replayed through the package, and held against its recipe and its published files."""

from typing import Any

import gymnasium
import numpy as np
import pytest

from forcing.envs import ogbench_demonstrations
from forcing.envs.ogbench_demonstrations import Episode, Kind, collect, episode_steps, recording_spec
from forcing.envs.ogbench_maze import make


def recorded(kind: Kind, steps: int = 5000, maze: str = "medium", seed: int = 0, workers: int = 1) -> list[Episode]:
    return [episode for shard in collect(maze, kind, steps=steps, seed=seed, workers=workers) for episode in shard]


@pytest.fixture(scope="module")
def navigate() -> list[Episode]:
    return recorded("navigate", 12_000)


@pytest.fixture(scope="module")
def stitch() -> list[Episode]:
    return recorded("stitch", 12_000)


def cells_of(positions: Any, maze: str = "medium") -> list[tuple[int, int]]:
    inner: Any = make(maze).unwrapped
    return [inner.xy_to_ij(position) for position in positions]


def test_episodes_have_the_layout_that_is_promised(navigate: list[Episode], stitch: list[Episode]) -> None:
    for episodes, length in ((navigate, 1000), (stitch, 200)):
        assert sum(len(episode["actions"]) for episode in episodes) == 12_000
        for episode in episodes:
            columns: dict[str, Any] = {**episode["observations"], **episode["infos"], **episode}
            del columns["observations"], columns["infos"]
            layout = {name: (column.shape, str(column.dtype)) for name, column in columns.items()}
            assert layout == {
                "position": ((length + 1, 2), "float64"),
                "goal": ((length + 1, 2), "float64"),
                "actions": ((length, 2), "float32"),
                "rewards": ((length,), "float64"),
                "terminations": ((length,), "bool"),
                "truncations": ((length,), "bool"),
            }
            assert not episode["terminations"].any()
            assert episode["truncations"].tolist() == [False] * (length - 1) + [True]


def test_the_actions_replayed_through_the_package_give_the_recording_back(navigate: list[Episode]) -> None:
    env: Any = gymnasium.make(recording_spec("medium", "navigate"))
    env.reset(seed=0, options={"task_id": 1})
    for episode in navigate[:2]:
        positions = episode["observations"]["position"]
        env.unwrapped.set_xy(positions[0])
        for action, expected in zip(episode["actions"], positions[1:], strict=True):
            position, *_ = env.unwrapped.step(action.astype(np.float64))
            np.testing.assert_allclose(position, expected, atol=1e-9)


def test_a_reward_is_a_step_that_ends_within_a_metre_of_the_goal_it_was_driven_to(
    navigate: list[Episode], stitch: list[Episode]
) -> None:
    for episode in navigate + stitch:
        distance = np.linalg.norm(episode["observations"]["position"][1:] - episode["infos"]["goal"][:-1], axis=1)
        np.testing.assert_array_equal(episode["rewards"], distance <= 1.0)
    assert sum(episode["rewards"].sum() for episode in navigate) > 20


def test_navigate_takes_a_new_goal_when_one_is_reached_and_only_then(navigate: list[Episode]) -> None:
    for episode in navigate:
        changed = (np.diff(episode["infos"]["goal"], axis=0) != 0).any(axis=1)
        np.testing.assert_array_equal(changed, episode["rewards"] == 1)


def test_navigates_goals_are_ends_corners_and_crossings_and_never_straight_corridors() -> None:
    # Drawn by hand: medium's free cells, rows upwards from 1; c is a straight corridor.
    drawn = ["11111111", "1oo11oo1", "1oo1ooo1", "11oco111", "1oo1oco1", "1c1oo1c1", "1oco1oo1", "11111111"]
    corridors = {(row, column) for row, cells in enumerate(drawn) for column, cell in enumerate(cells) if cell == "c"}
    goals = np.concatenate([episode["infos"]["goal"] for episode in recorded("navigate", 30_000, seed=2)])
    seen = set(cells_of(np.unique(goals, axis=0)))
    free = {(row, column) for row, cells in enumerate(drawn) for column, cell in enumerate(cells) if cell != "1"}
    assert seen == free - corridors


def test_a_stitch_goal_is_four_cells_away_and_kept(stitch: list[Episode]) -> None:
    inner: Any = make("medium").unwrapped
    for episode in stitch:
        start, goal = episode["observations"]["position"][0], episode["infos"]["goal"]
        assert (goal == goal[0]).all()
        _, distance = inner.get_oracle_subgoal(start, goal[0])
        away = distance[inner.xy_to_ij(start)]
        assert away == 4 or (away == 0 and 4 not in distance)
    assert len({tuple(episode["infos"]["goal"][0]) for episode in stitch}) == len(stitch)


def test_noise_is_that_of_the_recipe(stitch: list[Episode]) -> None:
    """An entry of the clean action below 0.1 in size leaves N(0, 0.5) cut at two of its standard deviations."""
    inner: Any = make("medium").unwrapped
    left: list[float] = []
    for episode in stitch[:20]:
        for position, goal, action in zip(
            episode["observations"]["position"], episode["infos"]["goal"], episode["actions"], strict=False
        ):
            offset = inner.get_oracle_subgoal(position, goal)[0] - position
            clean = offset / np.linalg.norm(offset)
            left.extend((action - clean)[np.abs(clean) < 0.1].tolist())
    assert len(left) > 300
    # The standard deviation of N(0, 1) set to the nearer of -2 and 2 beyond them is 0.96.
    assert np.std(left) == pytest.approx(0.48, abs=0.035)
    assert np.mean(left) == pytest.approx(0.0, abs=0.07)


def test_statistics_are_those_of_the_published_files(navigate: list[Episode], stitch: list[Episode]) -> None:
    """Published, 1 M steps: actions' standard deviation .7053, .7002 and .7089, .7083; stitch's positions average 9.56,
    10.34, with 5.79, 5.06 about them."""
    for episodes, expected in ((navigate, [0.7053, 0.7002]), (stitch, [0.7089, 0.7083])):
        actions = np.concatenate([episode["actions"] for episode in episodes])
        np.testing.assert_allclose(actions.std(axis=0), expected, atol=0.02)
    averages = np.array([episode["observations"]["position"].mean(axis=0) for episode in stitch])
    error = averages.std(axis=0) / np.sqrt(len(averages))
    assert (np.abs(averages.mean(axis=0) - [9.556, 10.342]) < 3.5 * error).all()
    assert np.concatenate([episode["observations"]["position"] for episode in stitch]).std(axis=0) == pytest.approx(
        [5.79, 5.06], rel=0.15
    )


def test_a_seed_gives_the_same_recording_with_any_number_of_processes_and_any_size_of_shard(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    alone = recorded("stitch", 1900, seed=3)
    monkeypatch.setattr(ogbench_demonstrations, "SHARD_STEPS", 400)
    np.testing.assert_equal(recorded("stitch", 1900, seed=3, workers=2), alone)
    assert [len(episode["actions"]) for episode in alone] == [200] * 9 + [100]


def test_a_longer_recording_begins_like_a_shorter_one_and_another_seed_differs() -> None:
    short, long, other = (recorded("stitch", steps, "giant", seed) for steps, seed in ((400, 1), (800, 1), (400, 2)))
    np.testing.assert_equal(long[:2], short)
    assert not np.array_equal(other[0]["actions"], short[0]["actions"])
    assert not np.array_equal(short[1]["actions"], short[0]["actions"])


@pytest.mark.parametrize(
    ("maze", "kind", "steps"),
    [("medium", "navigate", 1000), ("large", "navigate", 1000), ("giant", "navigate", 2000), ("giant", "stitch", 200)],
)
def test_episodes_are_as_long_as_the_published_ones(maze: str, kind: Kind, steps: int) -> None:
    assert episode_steps(maze, kind) == steps
    spec = recording_spec(maze, kind)
    assert (spec.id, spec.max_episode_steps, spec.kwargs["terminate_at_goal"]) == (f"pointmaze-{maze}-v0", steps, False)


def test_wrong_requests_are_refused_at_once() -> None:
    with pytest.raises(ValueError, match=r"maze must be one of .*, got 'huge'"):
        collect("huge", "stitch", steps=10, seed=0)
    with pytest.raises(ValueError, match=r"kind must be one of \['navigate', 'stitch'\], got 'explore'"):
        collect("medium", "explore", steps=10, seed=0)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="steps must be at least 1, got 0"):
        collect("medium", "stitch", steps=0, seed=0)
