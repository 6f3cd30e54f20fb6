"""Arms as tasks: streams are named as the environment names them, no goal is told, and success must hold to the end.

A task more is an entry more in `arm_tasks`, besides its environment and expert, a recipe of demonstrations and a preset
(docs/manipulation.md says it step by step). Nothing of a simulator's extra is imported before an environment is made.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar, get_args

import numpy as np
from numpy.typing import NDArray

from forcing.envs import cube, fetch, metaworld, swap, swap_demonstrations
from forcing.envs.arm_control import CUBES
from forcing.envs.cube_expert import CubeExpert
from forcing.envs.fetch_expert import FetchExpert
from forcing.envs.metaworld_expert import MetaWorldExpert
from forcing.envs.swap_expert import SwapExpert
from forcing.envs.swap_layout import CAMERAS
from forcing.eval.distractors import DISTRACTORS
from forcing.eval.task import Env, Expert, Observation, Outcome, Task
from forcing.policy.types import Array

EFFECTOR = "effector_position"  # of every arm's observations: where its end is, in m


@dataclass(frozen=True, slots=True, kw_only=True)
class ArmTask(Task):
    """env: makes the environment, told whether it shall show what happens: by its cameras, or where it has none by
    `render`; its info says `success` after every step.
    scripted: makes the expert, which sees all that the environment observes. observed: what policies may see of that.
    cameras: observations that are frames, whether policies see them or not. units: of observations. distractors: by
    name, seed of an episode -> what the environment's reset takes as its `distractor`. telling: where things lie, in
    words."""

    env: Callable[[bool], Env]
    scripted: Callable[[], Expert]
    observed: tuple[str, ...]
    cameras: tuple[str, ...] = ()
    units: Mapping[str, str] = field(default_factory=dict)
    distractors: Mapping[str, Callable[[int], Any]] = field(default_factory=dict)
    telling: Callable[[Observation], str] = lambda observation: ""
    score: ClassVar[str] = "percentage of episodes whose success holds at their last step"

    @property
    def streams(self) -> tuple[str, ...]:
        return self.observed

    def make(self, render_mode: str | None = None) -> Env:
        """render_mode: rgb_array for cameras that no policy sees, too. Raises RuntimeError if an extra is missing, or
        nothing renders here."""
        return self.env(render_mode is not None or bool(set(self.cameras) & set(self.observed)))

    def observe(self, observation: Observation) -> dict[str, Array]:
        return {
            name: observation[name] if name in self.cameras else np.asarray(observation[name], dtype=np.float64)
            for name in self.observed
            if name in observation
        }

    def position(self, observation: Observation) -> NDArray[np.float64]:
        """[3] of the arm's end, in m."""
        return np.asarray(observation[EFFECTOR], dtype=np.float64)

    def goal(self, observation: Observation) -> None:
        return None

    def expert(self) -> Expert:
        return self.scripted()

    def outcome(self, rewards: NDArray[np.float64], successes: NDArray[np.bool_]) -> Outcome:
        """What was done and undone again is none."""
        reached = np.flatnonzero(successes)
        held = bool(successes[-1])
        return Outcome(success=held, first=int(reached[0]) + 1 if len(reached) else None, normalized=100.0 * held)


def arm_tasks() -> list[ArmTask]:
    """Every task of an arm."""
    return [
        _swap(cameras=False),
        _swap(cameras=True),
        *(_cube(kind) for kind in get_args(cube.Kind)),
        _metaworld(),
        *(_fetch(kind) for kind in get_args(fetch.Kind)),
    ]


def _swap(*, cameras: bool) -> ArmTask:
    name, recorded = "swap-cameras" if cameras else "swap", swap_demonstrations.observation_space(cameras=cameras)
    return ArmTask(
        name=name,
        policy=name,
        control_hz=swap.CONTROL_HZ,
        env=swap.Swap,
        scripted=SwapExpert,
        observed=tuple(part for part in (*swap.STATE, *CAMERAS) if part in recorded.spaces),
        cameras=tuple(CAMERAS),
        units=swap.UNITS,
        distractors=DISTRACTORS if cameras else {},
        telling=_where_cubes_lie,
    )


def _cube(kind: cube.Kind) -> ArmTask:
    name = f"cube-{kind}"
    return ArmTask(
        name=name,
        policy=name,
        control_hz=cube.CONTROL_HZ,
        goals=tuple(f"task {number}" for number in range(1, cube.TASKS + 1)),
        env=lambda shown: cube.Cube(kind, _mode(shown)),
        scripted=CubeExpert,
        observed=tuple(cube.observation_space(kind)),
        units=cube.units(kind),
    )


def _metaworld() -> ArmTask:
    return ArmTask(
        name="metaworld",
        policy="metaworld",
        control_hz=metaworld.CONTROL_HZ,
        goals=metaworld.TASKS,
        env=lambda shown: metaworld.MetaWorld(render_mode=_mode(shown)),
        scripted=MetaWorldExpert,
        observed=tuple(metaworld.OBSERVATION),
        units=metaworld.UNITS,
        telling=lambda observation: metaworld.TASKS[int(observation["task"].argmax())],
    )


def _fetch(kind: fetch.Kind) -> ArmTask:
    name = f"fetch-{kind}"
    return ArmTask(
        name=name,
        policy=name,
        control_hz=fetch.CONTROL_HZ,
        env=lambda shown: fetch.Fetch(kind, _mode(shown)),
        scripted=FetchExpert,
        observed=tuple(fetch.OBSERVATION[kind]),
        units=fetch.UNITS,
    )


def _mode(shown: bool) -> str | None:
    return "rgb_array" if shown else None


def _where_cubes_lie(observation: Observation) -> str:
    slots = {cube: swap.resting_slot(observation[f"{cube}_position"], observation[EFFECTOR]) for cube in CUBES}
    return ", ".join(f"{cube}: {'in none' if slot is None else f'slot {slot}'}" for cube, slot in slots.items())
