"""Mazes as tasks: what only they have is a floor plan, a goal that is a place, and sensors that may be at fault."""

from abc import abstractmethod
from dataclasses import dataclass
from typing import Any, ClassVar, Protocol, get_args

import gymnasium
import numpy as np
from numpy.typing import NDArray

from forcing.envs import maze2d, ogbench_maze
from forcing.envs.faults import Sensors
from forcing.envs.floor_plan import FloorPlan
from forcing.envs.ogbench_demonstrations import Kind
from forcing.envs.waypoint_expert import POSITION_GAIN, VELOCITY_GAIN, WaypointExpert
from forcing.eval.task import Env, Expert, Observation, Outcome, Task
from forcing.policy.types import Array


@dataclass(frozen=True, slots=True, kw_only=True)
class MazeTask(Task):
    """maze: which one, for pictures and yardsticks alone. fastest_m: the longest way that a control step can take.
    sensors: the streams that a real controller would measure, `position`, in m, among them."""

    maze: str
    fastest_m: ClassVar[float]
    sensors: ClassVar[Sensors]
    keeps_plans: ClassVar[bool] = True

    @property
    def streams(self) -> tuple[str, ...]:
        return tuple(self.sensors)

    def observe(self, observation: Observation) -> dict[str, Array]:
        """What the sensors read: stream -> [numbers], NaN where one was lost."""
        return {
            name: np.asarray(observation[key][where], dtype=np.float64) for name, (key, where) in self.sensors.items()
        }

    def position(self, observation: Observation) -> NDArray[np.float64]:
        """[2] in m."""
        return self.observe(observation)["position"]

    def goal(self, observation: Observation) -> Array:
        """[2] position in m to be reached."""
        return np.asarray(observation["desired_goal"], dtype=np.float64)

    def outcome(self, rewards: NDArray[np.float64], successes: NDArray[np.bool_]) -> Outcome:
        """A success is to have been at the goal, where rewards are."""
        reached = np.flatnonzero(rewards > 0)
        first = int(reached[0]) + 1 if len(reached) else None
        return Outcome(success=first is not None, first=first, normalized=self.normalized(float(sum(rewards))))

    @abstractmethod
    def straight(self, observation: Observation) -> Array:
        """[A] the action that leads straight to the goal, walls or not."""

    @abstractmethod
    def normalized(self, episode_return: float) -> float:
        """The benchmark's own score, 100 for its reference."""

    @abstractmethod
    def floor_plan(self) -> FloorPlan:
        """The maze from above."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Maze2D(MazeTask):
    """D4RL's: reach a goal soon and stay there."""

    definition: maze2d.Maze2DTask
    control_hz: float = maze2d.CONTROL_HZ
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
        return _Seedless(WaypointExpert(maze2d.maze_map(self.maze)))

    def normalized(self, episode_return: float) -> float:
        return maze2d.normalized_score(self.definition, episode_return)

    def floor_plan(self) -> FloorPlan:
        return maze2d.floor_plan(self.maze)


@dataclass(frozen=True, slots=True, kw_only=True)
class OGBenchMaze(MazeTask):
    """OGBench's: reach one of five goals within 1000 steps; the episode ends there. Its noise on start and goal stays.

    The recordings that a policy learned from, navigate or stitch, are part of the name; the episodes are the same.
    """

    control_hz: float = ogbench_maze.CONTROL_HZ
    goals: tuple[str, ...] = tuple(str(number) for number in range(1, ogbench_maze.GOALS + 1))
    fastest_m: ClassVar[float] = 2**0.5 * ogbench_maze.STEP_M
    sensors: ClassVar[Sensors] = {"position": ("position", slice(0, 2))}  # m
    score: ClassVar[str] = "percentage of episodes that reach their goal"

    def make(self, render_mode: str | None = None) -> Env:
        """Raises RuntimeError if ogbench is not installed."""
        return ogbench_maze.make(self.maze, **({} if render_mode is None else {"render_mode": render_mode}))

    def straight(self, observation: Observation) -> Array:
        """As far as a step leads, in the goal's direction."""
        offset = self.goal(observation) - self.observe(observation)["position"]
        return (offset / max(float(np.abs(offset).max()), ogbench_maze.STEP_M)).astype(np.float32)

    def expert(self) -> Expert:
        return _Seedless(ogbench_maze.OracleExpert(self.maze))

    def normalized(self, episode_return: float) -> float:
        """100 if the goal was reached."""
        return 100.0 * episode_return

    def floor_plan(self) -> FloorPlan:
        return ogbench_maze.floor_plan(self.maze)


class _MapExpert(Protocol):
    def reset(self, observation: Any) -> None: ...

    def act(self, observation: Any) -> Array: ...


@dataclass(frozen=True, slots=True)
class _Seedless:
    """An expert that draws nothing, as one that is given a seed."""

    expert: _MapExpert

    def reset(self, observation: Any, seed: int) -> None:
        self.expert.reset(observation)

    def act(self, observation: Any) -> Array:
        return self.expert.act(observation)


def maze_tasks() -> list[MazeTask]:
    """D4RL's, then OGBench's with each kind of recordings."""
    tasks: list[MazeTask] = [
        Maze2D(name=name, policy=f"maze2d-{definition.maze}", maze=definition.maze, definition=definition)
        for name, definition in maze2d.TASKS.items()
    ]
    for maze in ogbench_maze.MAZES:
        for kind in get_args(Kind):
            name = f"ogbench-pointmaze-{maze}-{kind}"
            tasks.append(OGBenchMaze(name=name, policy=name, maze=maze))
    return tasks
