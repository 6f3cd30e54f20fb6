"""What every benchmark task has: how to make its environment, what a controller may see of it, how it is scored.

Knows no simulator; `maze_tasks` and `arm_tasks` do, and `tasks` lists them all by name.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Protocol

import gymnasium
import numpy as np
from numpy.typing import NDArray

from forcing.policy.types import Array

Observation = Mapping[str, Array]
Info = Mapping[str, Any]
Env = gymnasium.Env[Any, Array]


class Expert(Protocol):
    """A scripted controller that knows more than policies do: the map, or where things lie."""

    def reset(self, observation: Any, seed: int) -> None:
        """An episode begins. seed: of whatever it draws."""
        ...

    def act(self, observation: Any) -> Array: ...


@dataclass(frozen=True, slots=True)
class Outcome:
    """How an episode ended. success: as the benchmark counts it. first: the first step, from 1 on, at which success was
    at hand, whether it lasted or not; None if never. normalized: the benchmark's own score."""

    success: bool
    first: int | None
    normalized: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Task(ABC):
    """One row of a benchmark.

    name: as typed. policy: the shipped policy that was trained for it. control_hz: control steps a second. goals: what
    the benchmark calls its goals of fixed number, in their order, which episodes take in turn; none if each episode
    draws its own. score: what `normalized` is, in words. keeps_plans: whether pictures and figures are made of its
    plans.
    """

    name: str
    policy: str
    control_hz: float
    goals: tuple[str, ...] = ()
    score: ClassVar[str]
    keeps_plans: ClassVar[bool] = False

    @property
    @abstractmethod
    def streams(self) -> tuple[str, ...]:
        """Names of what a policy may observe."""

    @abstractmethod
    def make(self, render_mode: str | None = None) -> Env:
        """A new environment; `reset` seeds it, the caller closes it."""

    def begin(
        self, env: Env, index: int, seed: int, options: Mapping[str, Any] | None = None
    ) -> tuple[Observation, Info]:
        """What `Env.reset` says of episode `index`, which depends on `seed`, on its goal's number and on `options`."""
        goal = self.goal_number(index)
        told = {**({} if goal is None else {"task_id": goal}), **(options or {})}
        observation, info = env.reset(seed=seed, options=told or None)
        return observation, info

    def reset(self, env: Env, index: int, seed: int) -> Observation:
        """The first observation of episode `index`, see `begin`."""
        return self.begin(env, index, seed)[0]

    def goal_number(self, index: int) -> int | None:
        """Which of the `goals` episode `index` has, from 1 on; None if it draws its own."""
        return 1 + index % len(self.goals) if self.goals else None

    @abstractmethod
    def observe(self, observation: Observation) -> dict[str, Array]:
        """What was sensed: stream -> value, of `streams`; one that was not sensed is left out."""

    @abstractmethod
    def position(self, observation: Observation) -> NDArray[np.float64]:
        """[d] where the robot is, in m."""

    @abstractmethod
    def goal(self, observation: Observation) -> Array | None:
        """What a session is told to reach, None where what is to be done is always the same."""

    @abstractmethod
    def expert(self) -> Expert:
        """The scripted expert that made the recordings, without its noise."""

    @abstractmethod
    def outcome(self, rewards: NDArray[np.float64], successes: NDArray[np.bool_]) -> Outcome:
        """rewards: [T] of an episode. successes: [T] what the environment's info says after each step."""
