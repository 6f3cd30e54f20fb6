import gymnasium
import numpy as np
import pytest
from numpy.typing import NDArray

from forcing.envs.maze2d import MAZE_MAPS, TASKS, Maze2DTask
from forcing.envs.waypoint_expert import WaypointExpert

# Cells' centres are at x = -1, 0, 1 and y = 1, 0, -1; the way from upper left to lower left leads through the right.
UMAZE = MAZE_MAPS["umaze"]


def observation(
    x: float, y: float, goal: tuple[float, float], vx: float = 0.0, vy: float = 0.0
) -> dict[str, NDArray[np.float64]]:
    return {
        "observation": np.array([x, y, vx, vy]),
        "achieved_goal": np.array([x, y]),
        "desired_goal": np.array(goal),
    }


def action(expert: WaypointExpert, seen: dict[str, NDArray[np.float64]]) -> list[float]:
    return [round(float(force), 6) for force in expert.act(seen)]


@pytest.mark.parametrize("task", TASKS.values(), ids=TASKS.keys())
def test_the_expert_reaches_and_holds_every_goal(task: Maze2DTask) -> None:
    env = gymnasium.make(task.env_id)
    expert = WaypointExpert(MAZE_MAPS[task.maze])
    for seed in range(6):
        seen, _ = env.reset(seed=seed)
        expert.reset(seen)
        for _ in range(task.episode_steps):
            seen, _, _, _, info = env.step(expert.act(seen))
        assert info["success"]
        assert np.linalg.norm(seen["achieved_goal"] - seen["desired_goal"]) < 0.1
        assert np.linalg.norm(seen["observation"][2:]) < 0.1


def test_the_force_is_ten_times_the_way_to_the_waypoint_less_the_velocity() -> None:
    goal = (-0.9, 1.1)
    assert action(WaypointExpert(UMAZE), observation(-0.95, 1.08, goal, vx=0.1, vy=-0.3)) == [0.4, 0.5]


def test_the_force_is_cut_to_the_limits() -> None:
    assert action(WaypointExpert(UMAZE), observation(-1.3, 1.1, (-0.9, 1.1), vy=4.0)) == [1.0, -1.0]


def test_the_next_cells_centre_comes_first_and_the_true_goal_last() -> None:
    expert, goal = WaypointExpert(UMAZE), (1.2, 0.9)
    far = observation(-1.0, 1.03, goal)
    expert.reset(far)
    assert action(expert, far) == [1.0, -0.3]
    assert action(expert, observation(-0.05, 1.03, goal)) == [0.5, -0.3]
    assert action(expert, observation(0.0, 0.95, goal)) == [1.0, -0.5]


def test_a_new_goal_is_planned_for_without_being_told() -> None:
    expert = WaypointExpert(UMAZE)
    assert action(expert, observation(0.0, 1.0, (1.0, 1.0))) == [1.0, 0.0]
    assert action(expert, observation(0.0, 1.0, (-1.0, 1.0))) == [-1.0, 0.0]


def test_reset_plans_afresh_for_the_same_goal() -> None:
    expert, goal = WaypointExpert(UMAZE), (-1.0, -1.0)
    expert.act(observation(1.0, 0.0, goal))
    start = observation(-1.0, 1.0, goal)
    expert.reset(start)
    assert action(expert, start) == [1.0, 0.0]


def test_noise_has_the_spread_asked_for_and_comes_from_the_generator_alone() -> None:
    seen = observation(-1.0, 1.0, (-1.0, 1.0))

    def forces(seed: int) -> NDArray[np.float32]:
        expert = WaypointExpert(UMAZE, noise_std=0.2, rng=np.random.default_rng(seed))
        return np.array([expert.act(seen) for _ in range(4000)])

    drawn = forces(1)
    assert np.abs(drawn.mean(axis=0)).max() < 0.015
    assert drawn.std() == pytest.approx(0.2, rel=0.03)
    np.testing.assert_array_equal(drawn, forces(1))


def test_noise_is_cut_to_the_limits_too() -> None:
    expert = WaypointExpert(UMAZE, noise_std=5.0, rng=np.random.default_rng(0))
    drawn = np.array([expert.act(observation(-1.0, 1.0, (-1.0, 1.0))) for _ in range(50)])
    assert drawn.min() == -1.0
    assert drawn.max() == 1.0


def test_noise_without_a_generator_is_refused() -> None:
    with pytest.raises(ValueError, match=r"rng must be given for noise_std 0\.5"):
        WaypointExpert(UMAZE, noise_std=0.5)
    with pytest.raises(ValueError, match="noise_std must be at least 0, got -1"):
        WaypointExpert(UMAZE, noise_std=-1)
