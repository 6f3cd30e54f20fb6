"""Benchmark tasks by name: how to make the environment, what a controller may see of it, and how it is scored.

The place where a simulator's observation becomes a policy's streams; nothing else of the simulator passes through.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Protocol, get_args

import gymnasium
import numpy as np

from forcing.envs import maze2d, ogbench_maze
from forcing.envs.faults import Sensors
from forcing.envs.floor_plan import FloorPlan
from forcing.envs.ogbench_demonstrations import Kind
from forcing.envs.waypoint_expert import POSITION_GAIN, VELOCITY_GAIN, WaypointExpert
from forcing.policy.names import UnknownName, did_you_mean
from forcing.policy.types import Array

Observation = Mapping[str, Array]
Env = gymnasium.Env[Any, Array]


class Expert(Protocol):
    """A scripted controller that knows the map."""

    def reset(self, observation: Any) -> None: ...

    def act(self, observation: Any) -> Array: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Task(ABC):
    """One row of a benchmark.

    name: as typed. policy: the shipped policy that was trained for it. maze: which maze, for pictures and yardsticks
    alone. control_hz: control steps a second. fastest_m: the longest way that a control step can take. sensors: the
    streams that a real controller would measure, `position`, in m, among them. goals: how many
    goals of fixed number the benchmark has, which episodes take in turn; 0 if each episode draws its own. score: what
    `normalized` is, in words.
    """

    name: str
    policy: str
    maze: str
    control_hz: ClassVar[float]
    fastest_m: ClassVar[float]
    sensors: ClassVar[Sensors]
    goals: ClassVar[int] = 0
    score: ClassVar[str]

    @abstractmethod
    def make(self, render_mode: str | None = None) -> Env:
        """A new environment; `reset` seeds it, the caller closes it."""

    def reset(self, env: Env, index: int, seed: int) -> Observation:
        """The first observation of episode `index`, which depends on `seed` and on its goal's number."""
        goal = self.goal_number(index)
        observation: Observation = env.reset(seed=seed, options=None if goal is None else {"task_id": goal})[0]
        return observation

    def goal_number(self, index: int) -> int | None:
        """Which of the `goals` episode `index` has, from 1 on; None if it draws its own."""
        return 1 + index % self.goals if self.goals else None

    def observe(self, observation: Observation) -> dict[str, Array]:
        """What the sensors read: stream -> [numbers], NaN where one was lost."""
        return {
            name: np.asarray(observation[key][where], dtype=np.float64) for name, (key, where) in self.sensors.items()
        }

    def goal(self, observation: Observation) -> Array:
        """[2] position in m to be reached."""
        return np.asarray(observation["desired_goal"], dtype=np.float64)

    @abstractmethod
    def straight(self, observation: Observation) -> Array:
        """[A] the action that leads straight to the goal, walls or not."""

    @abstractmethod
    def expert(self) -> Expert:
        """The scripted expert that made the recordings, without its noise."""

    @abstractmethod
    def normalized(self, episode_return: float) -> float:
        """The benchmark's own score, 100 for its reference."""

    @abstractmethod
    def floor_plan(self) -> FloorPlan:
        """The maze from above."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Maze2D(Task):
    """D4RL's: reach a goal soon and stay there."""

    definition: maze2d.Maze2DTask
    control_hz: ClassVar[float] = maze2d.CONTROL_HZ
    fastest_m: ClassVar[float] = 2**0.5 * maze2d.SPEED_BOUND / maze2d.CONTROL_HZ
    sensors: ClassVar[Sensors] = {
        "position": ("observation", slice(0, 2)),
        "velocity": ("observation", slice(2, 4)),
    }  # m, m/s
    score: ClassVar[str] = "D4RL's score"

    def make(self, render_mode: str | None = None) -> Env:
        return gymnasium.make(self.definition.env_id, render_mode=render_mode)

    def straight(self, observation: Observation) -> Array:
        """The expert's gains."""
        seen = self.observe(observation)
        force = POSITION_GAIN * (self.goal(observation) - seen["position"]) + VELOCITY_GAIN * seen["velocity"]
        return np.clip(force, -1.0, 1.0).astype(np.float32)

    def expert(self) -> Expert:
        return WaypointExpert(maze2d.maze_map(self.maze))

    def normalized(self, episode_return: float) -> float:
        return maze2d.normalized_score(self.definition, episode_return)

    def floor_plan(self) -> FloorPlan:
        return maze2d.floor_plan(self.maze)


@dataclass(frozen=True, slots=True, kw_only=True)
class OGBenchMaze(Task):
    """OGBench's: reach one of five goals within 1000 steps; the episode ends there. Its noise on start and goal stays.

    The recordings that a policy learned from, navigate or stitch, are part of the name; the episodes are the same.
    """

    control_hz: ClassVar[float] = ogbench_maze.CONTROL_HZ
    fastest_m: ClassVar[float] = 2**0.5 * ogbench_maze.STEP_M
    sensors: ClassVar[Sensors] = {"position": ("position", slice(0, 2))}  # m
    goals: ClassVar[int] = ogbench_maze.GOALS
    score: ClassVar[str] = "percentage of episodes that reach their goal"

    def make(self, render_mode: str | None = None) -> Env:
        """Raises RuntimeError if ogbench is not installed."""
        return ogbench_maze.make(self.maze, **({} if render_mode is None else {"render_mode": render_mode}))

    def straight(self, observation: Observation) -> Array:
        """As far as a step leads, in the goal's direction."""
        offset = self.goal(observation) - self.observe(observation)["position"]
        return (offset / max(float(np.abs(offset).max()), ogbench_maze.STEP_M)).astype(np.float32)

    def expert(self) -> Expert:
        return ogbench_maze.OracleExpert(self.maze)

    def normalized(self, episode_return: float) -> float:
        """100 if the goal was reached."""
        return 100.0 * episode_return

    def floor_plan(self) -> FloorPlan:
        return ogbench_maze.floor_plan(self.maze)


def _tasks() -> list[Task]:
    tasks: list[Task] = [
        Maze2D(name=name, policy=f"maze2d-{definition.maze}", maze=definition.maze, definition=definition)
        for name, definition in maze2d.TASKS.items()
    ]
    for maze in ogbench_maze.MAZES:
        for kind in get_args(Kind):
            name = f"ogbench-pointmaze-{maze}-{kind}"
            tasks.append(OGBenchMaze(name=name, policy=name, maze=maze))
    return tasks


TASKS: Mapping[str, Task] = {task.name: task for task in _tasks()}


def find_task(name: str) -> Task:
    """Raises UnknownName naming the nearest, if `name` is none."""
    if name in TASKS:
        return TASKS[name]
    raise UnknownName(f"unknown task {name!r}; {did_you_mean(name, TASKS)}")
