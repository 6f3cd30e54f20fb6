"""D4RL's Maze2D as Gymnasium environments on gymnasium-robotics' PointMaze, whose physics are left as they are.

Importing this module registers `forcing/Maze2D-{UMaze,Medium,Large}-{Single,Multi}-v0`. A force-driven ball collects 1
at each of 300, 600 or 800 steps that ends within 0.5 m of the goal; nothing ends an episode early. Knows nothing of
policies, recordings or controllers.
"""

import tempfile
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import gymnasium
import numpy as np
from farama_notifications import notifications  # type: ignore[import-untyped]
from gymnasium import spaces
from gymnasium.utils.ezpickle import EzPickle
from numpy.typing import NDArray

from forcing.envs.floor_plan import FloorPlan
from forcing.envs.maze_grid import MazeMap, Point

# Each process that imports gymnasium-robotics would print a notice about other environments on stderr.
notifications.pop("gymnasium_robotics", None)

from gymnasium_robotics.envs.maze import maps  # noqa: E402
from gymnasium_robotics.envs.maze.point_maze import PointMazeEnv  # noqa: E402

GOAL_RADIUS_M = 0.5
CONTROL_HZ = 100.0
# PointMaze cuts the velocity to 5 m/s before each step, and a step adds 0.24 m/s at most.
SPEED_BOUND = 6.0

MAZE_MAPS: Mapping[str, MazeMap] = {"umaze": maps.U_MAZE, "medium": maps.MEDIUM_MAZE, "large": maps.LARGE_MAZE}

_TEMPORARY_FOLDER = threading.Lock()


def maze_map(maze: str) -> MazeMap:
    """The maze's rows of cells, 1 for a wall. Raises ValueError for an unknown maze."""
    if maze not in MAZE_MAPS:
        raise ValueError(f"maze must be one of {list(MAZE_MAPS)}, got {maze!r}")
    return MAZE_MAPS[maze]


def floor_plan(maze: str) -> FloorPlan:
    """The maze with D4RL's goal radius, the origin at its centre. Raises ValueError for an unknown maze."""
    cells = maze_map(maze)
    half_width, half_height = len(cells[0]) / 2, len(cells) / 2
    return FloorPlan(cells=cells, cell_m=1, left_m=-half_width, bottom_m=-half_height, goal_radius_m=GOAL_RADIUS_M)


@dataclass(frozen=True, slots=True, kw_only=True)
class Maze2DTask:
    """One of D4RL's Maze2D tasks.

    name: "maze2d-medium-multi". env_id: for gymnasium.make. maze: key of MAZE_MAPS. goal: (x, y) in metres if it is the
    same in every episode, None if each episode draws its own. episode_steps: control steps, at 100 Hz.
    return_min, return_max: episode returns that D4RL scores as 0 and 100.
    """

    name: str
    env_id: str
    maze: str
    goal: Point | None
    episode_steps: int
    return_min: float
    return_max: float


def _pair(maze: str, label: str, goal: Point, steps: int, low: float, high: float) -> list[Maze2DTask]:
    return [
        Maze2DTask(
            name=f"maze2d-{maze}-{variant.lower()}",
            env_id=f"forcing/Maze2D-{label}-{variant}-v0",
            maze=maze,
            goal=fixed_goal,
            episode_steps=steps,
            return_min=low,
            return_max=high,
        )
        for variant, fixed_goal in (("Single", goal), ("Multi", None))
    ]


TASKS: Mapping[str, Maze2DTask] = {
    task.name: task
    for task in (
        *_pair("umaze", "UMaze", (-0.8, 0.8), 300, 23.85, 161.86),
        *_pair("medium", "Medium", (2.7, -2.7), 600, 13.13, 277.39),
        *_pair("large", "Large", (3.7, -3.2), 800, 6.7, 273.99),
    )
}


def normalized_score(task: Maze2DTask, episode_return: float) -> float:
    """D4RL's score of an episode's return: 0 for a random policy, 100 for D4RL's reference controller."""
    return 100.0 * (episode_return - task.return_min) / (task.return_max - task.return_min)


@contextmanager
def _private_temporary_folder() -> Iterator[None]:
    """Everything that `tempfile` writes meanwhile goes to a folder of its own, which is removed at the end.

    PointMaze leaves its model in the temporary folder under a name made from the clock: processes that start together
    can read each other's maze, and nobody removes the file. It is not read again once the environment exists.
    """
    with _TEMPORARY_FOLDER, tempfile.TemporaryDirectory(prefix="forcing-maze2d-") as folder:
        before, tempfile.tempdir = tempfile.tempdir, folder
        try:
            yield
        finally:
            tempfile.tempdir = before


def point_maze(maze: str) -> PointMazeEnv:
    """PointMaze as it is, not registered and without wrappers; its goal stays until the caller moves it.

    Raises ValueError for an unknown maze.
    """
    with _private_temporary_folder():
        return PointMazeEnv(maze_map=maze_map(maze), continuing_task=True, reset_target=False)


class Maze2DEnv(PointMazeEnv):  # type: ignore[misc]  # the package has no types
    """Maze2D with D4RL's reward and goals.

    Observation: PointMaze's dict of float64 arrays: observation [x, y, vx, vy] in m and m/s, achieved_goal [x, y],
    desired_goal [x, y]. Action: [2] force along x and y, -1 to 1. info["success"]: within 0.5 m of the goal.
    maze: key of MAZE_MAPS. goal: (x, y) of every episode, None to draw one at each reset as PointMaze does.
    """

    def __init__(self, maze: str, goal: Point | None = None, render_mode: str | None = None, **kwargs: Any) -> None:
        with _private_temporary_folder():
            super().__init__(
                maze_map=maze_map(maze),
                render_mode=render_mode,
                continuing_task=True,
                reset_target=False,
                **kwargs,
            )
        EzPickle.__init__(self, maze, goal, render_mode, **kwargs)
        self._fixed_goal = None if goal is None else np.array(goal, dtype=np.float64)
        half = np.array([self.maze.map_width / 2, self.maze.map_length / 2])
        state = np.concatenate([half, [SPEED_BOUND, SPEED_BOUND]])
        self.observation_space = spaces.Dict(
            observation=spaces.Box(-state, state, dtype=np.float64),
            achieved_goal=spaces.Box(-half, half, dtype=np.float64),
            desired_goal=spaces.Box(-half, half, dtype=np.float64),
        )

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[dict[str, NDArray[np.float64]], dict[str, Any]]:
        """First observation of a new episode, and info.

        options: PointMaze's `reset_cell` and `goal_cell`, (row, column) each. Raises ValueError for a `goal_cell` where
        the task's goal is fixed.
        """
        if self._fixed_goal is not None and options is not None and options.get("goal_cell") is not None:
            raise ValueError(
                f"options 'goal_cell' must be absent: this task's goal is fixed, got {options['goal_cell']}; "
                "use the task's Multi variant"
            )
        if self._fixed_goal is not None:
            # PointMaze then draws the start outside the goal's cell, as it does for the goals that it draws itself.
            options = {**(options or {}), "goal_cell": self.maze.cell_xy_to_rowcol(self._fixed_goal)}
        observation, info = super().reset(seed=seed, options=options)
        if self._fixed_goal is not None:
            self.goal = self._fixed_goal.copy()
            self.update_target_site_pos()
            observation["desired_goal"] = self.goal.copy()
        return observation, self._with_success(observation, info)

    def step(
        self, action: NDArray[np.floating[Any]]
    ) -> tuple[dict[str, NDArray[np.float64]], float, bool, bool, dict[str, Any]]:
        observation, reward, terminated, truncated, info = super().step(action)
        return observation, float(reward), terminated, truncated, self._with_success(observation, info)

    def compute_reward(
        self, achieved_goal: NDArray[np.float64], desired_goal: NDArray[np.float64], info: Any
    ) -> NDArray[np.float64]:
        """1.0 where achieved_goal [..., 2] is within 0.5 m of desired_goal [..., 2], else 0.0: D4RL's reward."""
        distance = np.linalg.norm(achieved_goal - desired_goal, axis=-1)
        return np.asarray(distance <= GOAL_RADIUS_M, dtype=np.float64)

    def _with_success(self, observation: dict[str, NDArray[np.float64]], info: dict[str, Any]) -> dict[str, Any]:
        reward = self.compute_reward(observation["achieved_goal"], observation["desired_goal"], info)
        return {**info, "success": bool(reward)}


def register() -> None:
    """Registers the six environments with Gymnasium; those that are registered already stay as they are."""
    for task in TASKS.values():
        if task.env_id not in gymnasium.registry:
            gymnasium.register(
                id=task.env_id,
                entry_point="forcing.envs.maze2d:Maze2DEnv",
                kwargs={"maze": task.maze, "goal": task.goal},
                max_episode_steps=task.episode_steps,
            )


register()
