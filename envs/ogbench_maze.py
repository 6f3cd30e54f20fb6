"""OGBench's pointmaze (arXiv:2410.20092), repeatable from a seed; physics, noise, goals and success are ogbench's own.

A ball of radius 0.7 m in a maze of 4 m cells observes nothing but its position. A control step of 0.1 s moves it by
0.2 m times the action, into a wall or not, and then lets MuJoCo push it out again during five substeps of 0.02 s. Away
from walls x' = x + 0.2 a exactly. Every step begins at rest: there is no inertia, and the position is the whole state.
The action is not cut to [-1, 1] by ogbench, whose own evaluation cuts it first; so must every controller.

ogbench is an extra, imported when it is first needed. Knows nothing of policies or recordings.
"""

import os
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import gymnasium
import numpy as np
from gymnasium import spaces
from numpy.typing import NDArray

from forcing.envs.extras import extra_needed
from forcing.envs.floor_plan import FloorPlan

MAZES = ("medium", "large", "giant")
CONTROL_HZ = 10.0
STEP_M = 0.2
GOALS = 5
GOAL_RADIUS_M = 1.0

Observation = dict[str, NDArray[np.float64]]

_CONSTRUCTION = threading.Lock()


class OGBenchMaze(gymnasium.Wrapper[Observation, NDArray[Any], Any, Any]):
    """An ogbench maze whose observation also holds the goal and whose reset depends on its seed alone.

    Observation: position [x, y], desired_goal [x, y], in m, float64. Action, reward, ends: ogbench's.
    """

    def __init__(self, env: gymnasium.Env[Any, Any]) -> None:
        super().__init__(env)
        plane = spaces.Box(-np.inf, np.inf, (2,), np.float64)
        self.observation_space = spaces.Dict(position=plane, desired_goal=plane)  # type: ignore[assignment]
        self._goal = np.zeros(2)

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Observation, dict[str, Any]]:
        """First observation of a new episode, and ogbench's info.

        options: ogbench's own, such as {"task_id": 3}. ogbench draws the noise on start and goal from numpy's global
        generator, which is seeded meanwhile and then put back; without a seed it is left to ogbench.
        """
        if seed is None:
            position, info = self.env.reset(options=options)
        else:
            self.env.action_space.seed(seed)
            with numpy_seeded(seed):
                position, info = self.env.reset(seed=seed, options=options)
        self._goal = np.array(info["goal"], dtype=np.float64)
        return self._observation(position), info

    def step(self, action: NDArray[Any]) -> tuple[Observation, float, bool, bool, dict[str, Any]]:
        position, reward, terminated, truncated, info = self.env.step(action)
        return self._observation(position), float(reward), terminated, truncated, info

    def _observation(self, position: Any) -> Observation:
        """position: [2], as ogbench observes it; Gymnasium's types suppose that wrappers leave observations alone."""
        return {"position": position, "desired_goal": self._goal.copy()}


class OracleSubgoals:
    """Where ogbench's oracle sends the ball: the middle of the next cell on a shortest way, asked once for each pair
    of cells."""

    def __init__(self, maze: Any) -> None:
        """maze: ogbench's bare environment."""
        self._maze = maze
        self._known: dict[tuple[int, int, int, int], tuple[float, float]] = {}

    def subgoal(self, position: NDArray[np.float64], goal: NDArray[np.float64]) -> tuple[float, float]:
        """(x, y) in m; the middle of the goal's own cell once the ball is in it."""
        cells = (*self._maze.xy_to_ij(position), *self._maze.xy_to_ij(goal))
        if cells not in self._known:
            x, y = self._maze.get_oracle_subgoal(position, goal)[0].tolist()
            self._known[cells] = (x, y)
        return self._known[cells]


class OracleExpert:
    """Drives at full speed along ogbench's oracle subgoals, and in the goal's cell to the goal itself.

    ogbench's oracle would stop in the middle of that cell, up to 1.4 m from a goal that counts from 1 m on.
    """

    def __init__(self, maze: str) -> None:
        self._maze: Any = make(maze).unwrapped
        self._oracle = OracleSubgoals(self._maze)

    def reset(self, observation: Observation) -> None:
        """Nothing is kept from step to step."""

    def act(self, observation: Observation) -> NDArray[np.float32]:
        """[2] of length 1 at most: 0.2 m a step."""
        position, goal = observation["position"], observation["desired_goal"]
        arrived = self._maze.xy_to_ij(position) == self._maze.xy_to_ij(goal)
        offset = (goal if arrived else np.array(self._oracle.subgoal(position, goal))) - position
        return (offset / max(float(np.linalg.norm(offset)), STEP_M)).astype(np.float32)


def make(maze: str, **options: Any) -> OGBenchMaze:
    """ogbench's environment of that maze as it is registered, `options` apart: 1000 steps, ended by success.

    Raises ValueError for an unknown maze, RuntimeError if ogbench is not installed.
    """
    env_id = environment_id(maze)
    with _closed_model_file(ogbench_mazes()):
        return OGBenchMaze(gymnasium.make(env_id, **options))


def environment_id(maze: str) -> str:
    """ogbench's name of the environment. Raises ValueError for an unknown maze."""
    if maze not in MAZES:
        raise ValueError(f"maze must be one of {list(MAZES)}, got {maze!r}")
    return f"pointmaze-{maze}-v0"


def ogbench_mazes() -> ModuleType:
    """ogbench's module of mazes, whose import registers them. Raises RuntimeError if it is not installed."""
    with extra_needed("ogbench-pointmaze", "ogbench"):
        import ogbench.locomaze.maze as mazes
    return mazes  # type: ignore[no-any-return]  # the package has no types


@cache
def floor_plan(maze: str) -> FloorPlan:
    """The maze as ogbench builds it: its rows count upwards. Raises as `make` does."""
    bare: Any = make(maze).unwrapped
    (x, y), (next_x, _) = bare.ij_to_xy((0, 0)), bare.ij_to_xy((0, 1))
    unit = float(next_x - x)
    return FloorPlan(
        cells=tuple(map(tuple, bare.maze_map[::-1].tolist())),
        cell_m=unit,
        left_m=x - unit / 2,
        bottom_m=y - unit / 2,
        goal_radius_m=GOAL_RADIUS_M,
    )


@contextmanager
def numpy_seeded(seed: int) -> Iterator[None]:
    """numpy's global generator, which ogbench draws from, starts at `seed` meanwhile, and then goes on as before."""
    before = np.random.get_state()  # noqa: NPY002
    np.random.seed(seed)  # noqa: NPY002
    try:
        yield
    finally:
        np.random.set_state(before)  # noqa: NPY002


@contextmanager
def _closed_model_file(mazes: ModuleType) -> Iterator[None]:
    """The file through which ogbench hands a maze to MuJoCo is closed and removed; ogbench itself leaves it open."""
    made: list[tuple[int, str]] = []

    def mkstemp(**options: Any) -> tuple[int, str]:
        made.append(tempfile.mkstemp(**options))
        return made[-1]

    with _CONSTRUCTION:
        before, mazes.tempfile = mazes.tempfile, SimpleNamespace(mkstemp=mkstemp)  # type: ignore[attr-defined]
        try:
            yield
        finally:
            mazes.tempfile = before  # type: ignore[attr-defined]
            for descriptor, path in made:
                os.close(descriptor)
                Path(path).unlink()
