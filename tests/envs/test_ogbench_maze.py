"""OGBench's mazes: the wrapper against the bare package, the dynamics against algebra, the plan against the package's
walls."""

import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import ogbench.locomaze  # noqa: F401  # registers the environments
import pytest

from forcing.envs import ogbench_maze
from forcing.envs.ogbench_maze import (
    CONTROL_HZ,
    GOAL_RADIUS_M,
    GOALS,
    MAZES,
    STEP_M,
    OracleExpert,
    OracleSubgoals,
    floor_plan,
    make,
    numpy_seeded,
)


def bare(maze: str) -> Any:
    return gymnasium.make(f"pointmaze-{maze}-v0").unwrapped


@pytest.mark.parametrize("maze", MAZES)
def test_constants_are_the_packages(maze: str) -> None:
    env = make(maze)
    inner: Any = env.unwrapped
    assert (inner.num_tasks, inner._goal_tol, 1 / inner.dt) == (GOALS, GOAL_RADIUS_M, pytest.approx(CONTROL_HZ))
    assert env.spec is not None
    assert (env.spec.id, env.spec.max_episode_steps) == (f"pointmaze-{maze}-v0", 1000)
    assert inner.maze_map.tolist() == bare(maze).maze_map.tolist()


def test_steps_are_those_of_the_package_stepped_directly() -> None:
    ours, theirs = make("medium"), bare("medium")
    first, _ = ours.reset(seed=3, options={"task_id": 2})
    theirs.action_space.seed(3)
    with numpy_seeded(3):
        position, info = theirs.reset(seed=3, options={"task_id": 2})
    np.testing.assert_array_equal(first["position"], position)
    np.testing.assert_array_equal(first["desired_goal"], info["goal"])
    rng = np.random.default_rng(0)
    for _ in range(300):
        action = rng.uniform(-1, 1, 2) + 0.3
        observation, reward, terminated, *_ = ours.step(action)
        expected = theirs.step(action)
        np.testing.assert_array_equal(observation["position"], expected[0])
        np.testing.assert_array_equal(observation["desired_goal"], info["goal"])
        assert (reward, terminated) == expected[1:3]


def test_away_from_walls_a_step_adds_a_fifth_of_the_action_whatever_went_before() -> None:
    env = make("giant")
    env.reset(seed=0, options={"task_id": 1})
    inner: Any = env.unwrapped
    inner.set_xy((0.0, 0.0))
    expected = np.zeros(2)
    for action in ([1.0, 0.0], [0.3, -0.4], [-1.0, 1.0], [0.0, 0.0]):
        observation, *_ = env.step(np.array(action))
        expected = expected + STEP_M * np.array(action)
        np.testing.assert_allclose(observation["position"], expected, atol=1e-12)


def test_a_wall_stops_the_ball_and_the_step_after_it_starts_at_rest() -> None:
    env = make("medium")  # a wall begins at x = 6 in the lowest row of cells; the ball's radius is 0.7
    env.reset(seed=0, options={"task_id": 1})
    inner: Any = env.unwrapped
    inner.set_xy((4.0, 0.0))
    for _ in range(20):
        pushed, *_ = env.step(np.array([1.0, 0.0]))
    assert 5.3 < pushed["position"][0] < 5.4
    away, *_ = env.step(np.array([-1.0, 0.0]))
    np.testing.assert_allclose(away["position"], pushed["position"] - [STEP_M, 0.0], atol=1e-9)


@pytest.mark.parametrize("maze", MAZES)
def test_each_numbered_goal_starts_and_ends_in_the_packages_cells_with_its_noise_of_a_metre(maze: str) -> None:
    env, tasks = make(maze), bare(maze).task_infos
    for number, task in enumerate(tasks, start=1):
        drawn = [env.reset(seed=seed, options={"task_id": number})[0] for seed in range(8)]
        for name, centre in (("position", task["init_xy"]), ("desired_goal", task["goal_xy"])):
            offsets = np.array([observation[name] for observation in drawn]) - centre
            assert (np.abs(offsets) <= 1).all()
            assert len(np.unique(offsets)) == offsets.size


def test_a_seed_decides_an_episode_whatever_numpy_drew_before_and_leaves_numpy_where_it_was() -> None:
    env = make("large")
    np.random.seed(1)  # noqa: NPY002
    before = np.random.get_state()[1].tolist()  # type: ignore[index]  # noqa: NPY002
    first, _ = env.reset(seed=9, options={"task_id": 4})
    after = np.random.get_state()[1].tolist()  # type: ignore[index]  # noqa: NPY002
    assert before == after
    np.random.random(7)  # noqa: NPY002
    again, _ = make("large").reset(seed=9, options={"task_id": 4})
    other, _ = env.reset(seed=10, options={"task_id": 4})
    np.testing.assert_equal(again, first)
    assert not np.array_equal(other["position"], first["position"])


def test_an_episode_ends_within_a_metre_of_its_goal_and_after_a_thousand_steps_without() -> None:
    env = make("medium")
    first, _ = env.reset(seed=0, options={"task_id": 1})
    inner: Any = env.unwrapped
    inner.set_xy(first["desired_goal"] - [1.3, 0.0])
    *_, terminated, truncated, _ = env.step(np.array([0.9, 0.0]))
    assert (terminated, truncated) == (False, False)
    _, reward, terminated, _, info = env.step(np.array([0.9, 0.0]))
    assert (reward, terminated, info["success"]) == (1.0, True, 1.0)
    env.reset(seed=0, options={"task_id": 1})
    ends = [env.step(np.zeros(2))[2:4] for _ in range(1000)]
    assert ends[-1] == (False, True)
    assert not any(truncated for _, truncated in ends[:-1])


@pytest.mark.parametrize("maze", MAZES)
def test_the_floor_plan_has_a_wall_where_the_simulator_has_one(maze: str) -> None:
    floor, model = floor_plan(maze), bare(maze).model
    blocks = [model.geom(index) for index in range(model.ngeom) if model.geom(index).name.startswith("block_")]
    walls = {tuple(np.round(block.pos[:2], 9).tolist()) for block in blocks}
    drawn = {
        (floor.left_m + (column + 0.5) * floor.cell_m, floor.top_m - (row + 0.5) * floor.cell_m)
        for row, cells in enumerate(floor.cells)
        for column, cell in enumerate(cells)
        if cell == 1
    }
    assert drawn == walls
    assert {tuple(block.size[:2].tolist()) for block in blocks} == {(floor.cell_m / 2, floor.cell_m / 2)}


@pytest.mark.parametrize("maze", MAZES)
def test_the_expert_reaches_every_numbered_goal(maze: str) -> None:
    env, expert = make(maze), OracleExpert(maze)
    for number in range(1, GOALS + 1):
        observation, _ = env.reset(seed=number, options={"task_id": number})
        terminated = truncated = False
        while not (terminated or truncated):
            action = expert.act(observation)
            assert np.linalg.norm(action) <= 1 + 1e-6
            observation, _, terminated, truncated, _ = env.step(action)
        assert terminated, number


def test_remembered_subgoals_are_the_oracles() -> None:
    inner = bare("giant")
    oracle, rng = OracleSubgoals(inner), np.random.default_rng(0)
    free = np.argwhere(inner.maze_map == 0)
    for _ in range(200):
        start, goal = (np.array(inner.ij_to_xy(cell)) + rng.uniform(-1.3, 1.3, 2) for cell in rng.choice(free, 2))
        assert oracle.subgoal(start, goal) == tuple(inner.get_oracle_subgoal(start, goal)[0])


def test_no_file_is_left_and_none_stays_open(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    descriptors = Path("/proc/self/fd")
    make("medium")
    before = len(list(descriptors.iterdir()))
    for _ in range(5):
        make("medium")
    assert list(tmp_path.iterdir()) == []
    assert len(list(descriptors.iterdir())) == before
    assert ogbench_maze.ogbench_mazes().tempfile is tempfile


def test_without_the_extra_the_error_names_it_and_everything_else_imports() -> None:
    code = (
        "import sys; sys.modules['ogbench'] = None\n"
        "import forcing.envs.recipes, forcing.eval.tasks\n"
        "from forcing.envs.ogbench_maze import make\n"
        "try:\n    make('medium')\nexcept RuntimeError as error:\n    print(error)"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "install it: pip install 'forcing[ogbench]'" in run.stdout


def test_an_unknown_maze_is_refused() -> None:
    with pytest.raises(ValueError, match=r"maze must be one of \['medium', 'large', 'giant'\], got 'umaze'"):
        make("umaze")
