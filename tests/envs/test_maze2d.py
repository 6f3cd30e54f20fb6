import math
import pickle
import tempfile
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env

from forcing.envs.maze2d import TASKS, Maze2DTask, normalized_score, register
from forcing.envs.maze_grid import cell_at

tasks = pytest.mark.parametrize("task", TASKS.values(), ids=TASKS.keys())


@tasks
def test_the_environment_passes_gymnasiums_checker_without_a_warning(task: Maze2DTask) -> None:
    check_env(gymnasium.make(task.env_id).unwrapped, skip_render_check=True)


def test_there_are_six_tasks_with_d4rls_lengths_and_goals() -> None:
    assert {task.name: (task.env_id, task.episode_steps, task.goal) for task in TASKS.values()} == {
        "maze2d-umaze-single": ("forcing/Maze2D-UMaze-Single-v0", 300, (-0.8, 0.8)),
        "maze2d-umaze-multi": ("forcing/Maze2D-UMaze-Multi-v0", 300, None),
        "maze2d-medium-single": ("forcing/Maze2D-Medium-Single-v0", 600, (2.7, -2.7)),
        "maze2d-medium-multi": ("forcing/Maze2D-Medium-Multi-v0", 600, None),
        "maze2d-large-single": ("forcing/Maze2D-Large-Single-v0", 800, (3.7, -3.2)),
        "maze2d-large-multi": ("forcing/Maze2D-Large-Multi-v0", 800, None),
    }


@tasks
def test_an_episode_is_truncated_at_its_last_step_and_never_terminates(task: Maze2DTask) -> None:
    env = gymnasium.make(task.env_id)
    env.reset(seed=0)
    ends = [env.step(np.zeros(2, np.float32))[2:4] for _ in range(task.episode_steps)]
    assert ends == [(False, False)] * (task.episode_steps - 1) + [(False, True)]


def test_reward_and_success_hold_within_half_a_metre_of_the_goal() -> None:
    env = gymnasium.make("forcing/Maze2D-UMaze-Multi-v0")
    rewards = []
    for seed in range(6):
        observation, info = env.reset(seed=seed)
        for _ in range(150):
            toward = np.sign(observation["desired_goal"] - observation["achieved_goal"])
            observation, reward, _, _, info = env.step(toward.astype(np.float32))
            (x, y), (goal_x, goal_y) = observation["observation"][:2], observation["desired_goal"]
            assert reward == (1.0 if math.hypot(x - goal_x, y - goal_y) <= 0.5 else 0.0)
            assert info["success"] is (reward == 1.0)
            rewards.append(float(reward))
    assert 0.1 < np.mean(rewards) < 0.9


def test_the_edge_of_the_goal_belongs_to_it_and_rewards_can_be_computed_in_batches() -> None:
    env: Any = gymnasium.make("forcing/Maze2D-UMaze-Multi-v0").unwrapped
    positions = np.array([[0.3, 0.4], [0.3, 0.41], [0.0, 0.0]])
    np.testing.assert_array_equal(env.compute_reward(positions, np.zeros((3, 2)), {}), [1.0, 0.0, 1.0])


def test_success_is_reported_at_reset_too() -> None:
    env = gymnasium.make("forcing/Maze2D-Large-Multi-v0")
    assert env.reset(seed=0)[1]["success"] is False


@pytest.mark.parametrize("task", [task for task in TASKS.values() if task.goal], ids=lambda task: task.name)
def test_a_single_task_starts_outside_the_goals_cell_and_always_has_d4rls_goal(task: Maze2DTask) -> None:
    env: Any = gymnasium.make(task.env_id)
    maze_map = env.unwrapped.maze.maze_map
    assert task.goal is not None
    starts = set()
    for seed in range(60):
        observation, _ = env.reset(seed=seed)
        assert observation["desired_goal"].tolist() == list(task.goal)
        starts.add(cell_at(maze_map, tuple(observation["achieved_goal"])))
    assert env.step(np.zeros(2, np.float32))[0]["desired_goal"].tolist() == list(task.goal)
    assert cell_at(maze_map, task.goal) not in starts
    assert len(starts) > 4


def test_a_single_task_refuses_another_goal() -> None:
    env = gymnasium.make("forcing/Maze2D-UMaze-Single-v0")
    with pytest.raises(ValueError, match="'goal_cell' must be absent"):
        env.reset(options={"goal_cell": np.array([3, 1])})
    observation, _ = env.reset(seed=0, options={"reset_cell": np.array([3, 3])})
    assert cell_at(env.get_wrapper_attr("maze").maze_map, tuple(observation["achieved_goal"])) == (3, 3)


@pytest.mark.parametrize("label", ["UMaze", "Medium", "Large"])
def test_physics_starts_and_goals_are_pointmazes_own(
    label: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    ours = gymnasium.make(f"forcing/Maze2D-{label}-Multi-v0")
    stock = gymnasium.make(f"PointMaze_{label}-v3", continuing_task=True, reset_target=False)
    first, _ = ours.reset(seed=4)
    np.testing.assert_equal(first, stock.reset(seed=4)[0])
    actions = np.repeat(np.random.default_rng(0).uniform(-1, 1, (12, 2)), 20, axis=0).astype(np.float32)
    for action in actions:
        np.testing.assert_equal(ours.step(action)[0], stock.step(action)[0])


def test_the_same_seed_gives_the_same_episode_and_another_seed_another() -> None:
    def run(seed: int) -> list[list[float]]:
        env = gymnasium.make("forcing/Maze2D-Large-Multi-v0")
        env.reset(seed=seed)
        return [env.step(np.array([0.7, -0.4], np.float32))[0]["observation"].tolist() for _ in range(30)]

    assert run(3) == run(3)
    assert run(3) != run(4)


@pytest.mark.parametrize("mode", ["sync", "async"])
def test_environments_run_side_by_side_as_they_run_alone(mode: str) -> None:
    vector: Any = gymnasium.make_vec("forcing/Maze2D-Medium-Single-v0", num_envs=2, vectorization_mode=mode)
    alone = gymnasium.make("forcing/Maze2D-Medium-Single-v0")
    action = np.array([0.5, -1.0], np.float32)
    vector.reset(seed=[10, 11])
    alone.reset(seed=11)
    for _ in range(5):
        observation, reward, _, _, _ = vector.step(np.stack([action, action]))
        expected, expected_reward, *_ = alone.step(action)
        np.testing.assert_equal(observation["observation"][1], expected["observation"])
        assert reward[1] == expected_reward
    vector.close()


def test_nothing_is_left_in_the_temporary_folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    gymnasium.make("forcing/Maze2D-UMaze-Multi-v0").reset(seed=0)
    assert list(tmp_path.iterdir()) == []
    assert tempfile.tempdir == str(tmp_path)


def test_a_copy_through_gymnasiums_pickling_keeps_maze_and_goal() -> None:
    env = gymnasium.make("forcing/Maze2D-Large-Single-v0").unwrapped
    copy = pickle.loads(pickle.dumps(env))
    np.testing.assert_equal(copy.reset(seed=5)[0], env.reset(seed=5)[0])


def test_importing_by_name_and_registering_again_both_work() -> None:
    register()
    spec = gymnasium.make("forcing.envs.maze2d:forcing/Maze2D-Medium-Multi-v0").spec
    assert spec is not None
    assert spec.max_episode_steps == 600


@pytest.mark.parametrize(
    ("name", "low", "high", "best"),
    [("umaze", 23.85, 161.86, 200.0942), ("medium", 13.13, 277.39, 222.0805), ("large", 6.7, 273.99, 296.7937)],
)
def test_scores_are_0_and_100_at_d4rls_references(name: str, low: float, high: float, best: float) -> None:
    for variant in ("single", "multi"):
        task = TASKS[f"maze2d-{name}-{variant}"]
        assert normalized_score(task, low) == 0.0
        assert normalized_score(task, high) == pytest.approx(100.0)
        assert normalized_score(task, task.episode_steps) == pytest.approx(best, abs=1e-4)


def test_an_unknown_maze_is_refused_by_name() -> None:
    with pytest.raises(ValueError, match=r"maze must be one of \['umaze', 'medium', 'large'\], got 'huge'"):
        gymnasium.make("forcing/Maze2D-UMaze-Multi-v0", maze="huge")
