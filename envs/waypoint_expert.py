"""D4RL's waypoint controller: drives the ball along the middle of the cells to the goal.

Knows the maze's map and nothing of the simulator, learned policies or files.
"""

import math
from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from forcing.envs.maze_grid import MazeMap, Point, cell_at, cell_center, shortest_path

POSITION_GAIN = 10.0
VELOCITY_GAIN = -1.0
REACHED_M = 0.1
DEMONSTRATION_NOISE = 0.5

Observation = Mapping[str, NDArray[np.float64]]


class WaypointExpert:
    """A controller on PointMaze's observations: shortest path over the grid, one cell centre after the other.

    The last waypoint is the goal itself. A new goal in an observation is planned for at once. D4RL's second condition
    for passing a waypoint, 0.1 m moved in the last 10 ms step, holds at every speed the ball can have; it is left out.

    maze_map: rows of cells, 1 is a wall. noise_std: of the Gaussian noise on each action before it is cut to
    [-1, 1]; D4RL's recordings have 0.5. rng: where that noise comes from. Raises ValueError for a negative noise_std,
    or a positive one without an rng.
    """

    def __init__(self, maze_map: MazeMap, *, noise_std: float = 0.0, rng: np.random.Generator | None = None) -> None:
        if not (math.isfinite(noise_std) and noise_std >= 0):
            raise ValueError(f"noise_std must be at least 0, got {noise_std}")
        if noise_std > 0 and rng is None:
            raise ValueError(f"rng must be given for noise_std {noise_std}: pass numpy.random.default_rng(seed)")
        self._maze_map = maze_map
        self._noise_std = noise_std
        self._rng = rng
        self._goal: Point | None = None
        self._waypoints: list[Point] = []

    def reset(self, observation: Observation) -> None:
        """Plans from this observation, whatever went before. Raises ValueError if its goal cannot be reached."""
        x, y = observation["observation"][:2].tolist()
        goal_x, goal_y = observation["desired_goal"].tolist()
        start, end = cell_at(self._maze_map, (x, y)), cell_at(self._maze_map, (goal_x, goal_y))
        path = shortest_path(self._maze_map, start, end)
        self._goal = (goal_x, goal_y)
        self._waypoints = [*(cell_center(self._maze_map, cell) for cell in path[1:-1]), self._goal]

    def act(self, observation: Observation) -> NDArray[np.float32]:
        """[2] force towards the next waypoint, within -1 and 1."""
        if self._goal != tuple(observation["desired_goal"].tolist()):
            self.reset(observation)
        x, y, velocity_x, velocity_y = observation["observation"].tolist()
        target_x, target_y = self._waypoints[0]
        force_x = _clip(POSITION_GAIN * (target_x - x) + VELOCITY_GAIN * velocity_x)
        force_y = _clip(POSITION_GAIN * (target_y - y) + VELOCITY_GAIN * velocity_y)
        if len(self._waypoints) > 1 and math.hypot(target_x - x, target_y - y) < REACHED_M:
            del self._waypoints[0]
        if self._rng is not None:
            noise_x, noise_y = (self._noise_std * self._rng.standard_normal(2)).tolist()
            force_x, force_y = _clip(force_x + noise_x), _clip(force_y + noise_y)
        return np.array([force_x, force_y], dtype=np.float32)


def _clip(force: float) -> float:
    return min(max(force, -1.0), 1.0)
