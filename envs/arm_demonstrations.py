"""Demonstrations of an arm by an expert that is pushed about, as a `Lesson` says; cubes, Meta-World and Fetch have one.

Knows no simulator and no files.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import gymnasium
import numpy as np
from numpy.typing import NDArray

from forcing.envs import held_episodes
from forcing.envs.held_episodes import Env, Episode, Expert, Push, drive
from forcing.envs.pushes import Pushes, Pushing

BURSTS = 2 / 3  # of the episodes

Observation = Mapping[str, NDArray[Any]]


def no_options(number: int, rng: np.random.Generator) -> dict[str, Any] | None:
    """None: everything is left to the environment."""
    return None


@dataclass(frozen=True, slots=True, kw_only=True)
class Lesson:
    """What is demonstrated, and how; picklable, for processes.

    env: an environment whose info says `success`. expert: who drives. options: for the environment's reset in episode
    number n, drawn from the generator; none by default. reach: (action, observation) -> an action that leads one step
    as far and not further, to which pushes can be added. pushing: what goes wrong. after: steps for which success has
    held when an episode ends, if the environment does not cut it before. least_steps: no episode is shorter.
    """

    env: Callable[[], Env]
    expert: Callable[[], Expert]
    options: Callable[[int, np.random.Generator], dict[str, Any] | None] = no_options
    reach: Callable[[NDArray[Any], Observation], NDArray[np.float64]]
    pushing: Pushing
    after: int
    least_steps: int


def within(step_m: float, action: NDArray[Any], observation: Observation) -> NDArray[np.float64]:
    """A `Lesson`'s reach where actions begin with a place, [3] in m, and a step leads `step_m` along each axis."""
    hand = observation["effector_position"].astype(np.float64)
    return np.append(np.clip(action[:3], hand - step_m, hand + step_m), action[3:])


def collect(lesson: Lesson, *, steps: int, seed: int, workers: int | None = None) -> Iterator[list[Episode]]:
    """See `held_episodes.collect`."""
    attempt, least = partial(_attempt, lesson), lesson.least_steps
    return held_episodes.collect(lesson.env, attempt, steps=steps, least_steps=least, seed=seed, workers=workers)


def demonstrate(
    lesson: Lesson,
    env: Env,
    *,
    seed: int,
    options: dict[str, Any] | None = None,
    pushed: bool = True,
    bursts: bool = False,
) -> Episode:
    """One episode, whether it succeeds or not, that depends on its seed and options alone.

    pushed: whether what is executed is a little off; bursts: and now and then far off.
    """
    return drive(
        env,
        lesson.expert(),
        seed=seed,
        options=options,
        pushed=partial(_push, lesson, env.action_space, bursts) if pushed else None,
        at_rest=lambda info: bool(info["success"]),
        after=lesson.after,
    )


def _push(lesson: Lesson, space: gymnasium.Space[Any], bursts: bool, rng: np.random.Generator) -> Push:
    assert isinstance(space, gymnasium.spaces.Box)
    low, high, pushes = space.low, space.high, Pushes(lesson.pushing, rng, bursts=bursts)

    def push(action: NDArray[np.float32], observation: Observation) -> NDArray[np.float32]:
        return np.clip(pushes.next(lesson.reach(action, observation)), low, high).astype(np.float32)

    return push


def _attempt(lesson: Lesson, env: Env, number: int, seeds: np.random.SeedSequence) -> Episode:
    rng = np.random.default_rng(seeds)
    options, bursts = lesson.options(number, rng), bool(rng.random() < BURSTS)
    return demonstrate(lesson, env, seed=int(rng.integers(2**31)), options=options, bursts=bursts)
