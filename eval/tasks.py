"""Benchmark tasks by name: how to make the environment, what a controller may see of it, and how it is scored.

The place where a simulator's observation becomes a policy's streams; nothing else of the simulator passes through.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import gymnasium
import numpy as np

from forcing.envs import maze2d
from forcing.policy.names import UnknownName, did_you_mean
from forcing.policy.types import Array


@dataclass(frozen=True, slots=True, kw_only=True)
class Task:
    """One row of a benchmark.

    name: as typed. control_hz: control steps a second. policy: the shipped policy that was trained for it. maze:
    which maze, for pictures and yardsticks alone.
    """

    name: str
    policy: str
    maze: str
    definition: maze2d.Maze2DTask
    control_hz: float = maze2d.CONTROL_HZ

    def make(self, render_mode: str | None = None) -> "gymnasium.Env[Mapping[str, Array], Array]":
        """A new environment; the caller seeds it at reset and closes it."""
        return gymnasium.make(self.definition.env_id, render_mode=render_mode)

    def observe(self, observation: Mapping[str, Array]) -> dict[str, Array]:
        """The streams that a real controller would measure: position in m, velocity in m/s."""
        state = np.asarray(observation["observation"], dtype=np.float64)
        return {"position": state[:2], "velocity": state[2:]}

    def goal(self, observation: Mapping[str, Array]) -> Array:
        """[2] position in m to be reached and held."""
        return np.asarray(observation["desired_goal"], dtype=np.float64)

    def normalized(self, episode_return: float) -> float:
        """The benchmark's own score, 100 for its reference."""
        return maze2d.normalized_score(self.definition, episode_return)


TASKS: Mapping[str, Task] = {
    name: Task(name=name, policy=f"maze2d-{definition.maze}", maze=definition.maze, definition=definition)
    for name, definition in maze2d.TASKS.items()
}


def find_task(name: str) -> Task:
    """Raises UnknownName naming the nearest, if `name` is none."""
    if name in TASKS:
        return TASKS[name]
    raise UnknownName(f"unknown task {name!r}; {did_you_mean(name, TASKS)}")
