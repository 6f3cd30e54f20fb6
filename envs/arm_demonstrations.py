"""Demonstrations of an arm by an expert that is pushed about: whole episodes, and only those whose success holds.

What is recorded as the action is what the expert wanted; what was executed is beside it. Every episode has a random
stream of its own, so a recording depends on the seed alone, and a longer one begins like a shorter one. Knows no
simulator and no files.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Protocol, TypedDict

import gymnasium
import numpy as np
from numpy.typing import NDArray

from forcing.envs.pushes import Pushes, Pushing
from forcing.envs.shards import check_request, run_shards

BURSTS = 2 / 3  # of the episodes
SHARD_EPISODES = 10

Observation = Mapping[str, NDArray[Any]]


class Episode(TypedDict):
    """T control steps.

    observations: [T + 1, ...] by name, as the environment has them. actions: [T, A] float32, what the expert wanted;
    what was executed is in infos. rewards: [T] float64. terminations: [T] all False. truncations: [T], the last is
    True. infos: executed [T + 1, A], of which the last row is 0; success [T + 1].
    """

    observations: dict[str, NDArray[Any]]
    actions: NDArray[np.float32]
    rewards: NDArray[np.float64]
    terminations: NDArray[np.bool_]
    truncations: NDArray[np.bool_]
    infos: dict[str, NDArray[Any]]


class Expert(Protocol):
    """A scripted controller; what it wants follows from what it has observed."""

    def reset(self, observation: Any, seed: int = 0) -> None: ...

    def act(self, observation: Any) -> NDArray[np.float32]: ...


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

    env: Callable[[], gymnasium.Env[Any, Any]]
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
    """Whole episodes that hold `steps` control steps, the last as many more as it takes, in lists of a fixed order.

    workers: processes, None for one a core; they change nothing but the time it takes (see `run_shards`). Raises
    ValueError for a number below its least, and as `lesson.env` does.
    """
    processes = check_request(steps=steps, seed=seed, workers=workers)
    lesson.env().close()  # that a simulator is missing is an error at once
    episodes = -(-steps // lesson.least_steps)
    shards = [
        _Shard(lesson=lesson, seed=seed, first=first, end=min(first + SHARD_EPISODES, episodes))
        for first in range(0, episodes, SHARD_EPISODES)
    ]
    return _enough(run_shards(_collect_shard, shards, processes), steps)


def demonstrate(
    lesson: Lesson,
    env: gymnasium.Env[Any, Any],
    *,
    seed: int,
    options: dict[str, Any] | None = None,
    pushed: bool = True,
    bursts: bool = False,
) -> Episode:
    """One episode, whether it succeeds or not, that depends on its seed and options alone.

    pushed: whether what is executed is a little off; bursts: and now and then far off.
    """
    observation, info = env.reset(seed=seed, options=options)
    for_pushes, for_expert = np.random.SeedSequence(seed, spawn_key=(1,)).generate_state(2)
    pushes = Pushes(lesson.pushing, np.random.default_rng(for_pushes), bursts=bursts)
    expert, space = lesson.expert(), env.action_space
    expert.reset(observation, int(for_expert))
    observations, successes = [observation], [bool(info["success"])]
    actions, executed, rewards = [], [], []
    held, truncated = 0, False
    while held < lesson.after and not truncated:
        action = done = expert.act(observation)
        if pushed:
            assert isinstance(space, gymnasium.spaces.Box)
            done = np.clip(pushes.next(lesson.reach(action, observation)), space.low, space.high).astype(np.float32)
        observation, reward, _, truncated, info = env.step(done)
        observations.append(observation)
        successes.append(bool(info["success"]))
        actions.append(action)
        executed.append(done)
        rewards.append(float(reward))
        held = held + 1 if info["success"] else 0
    steps = len(actions)
    return Episode(
        observations={name: np.stack([each[name] for each in observations]) for name in observation},
        actions=np.stack(actions),
        rewards=np.array(rewards),
        terminations=np.zeros(steps, dtype=np.bool_),
        truncations=np.arange(steps) == steps - 1,
        infos={"executed": np.stack([*executed, np.zeros_like(actions[0])]), "success": np.array(successes)},
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class _Shard:
    """Episodes from number `first` to before `end`."""

    lesson: Lesson
    seed: int
    first: int
    end: int


def _collect_shard(shard: _Shard) -> list[Episode]:
    env = shard.lesson.env()
    episodes = [_held(shard.lesson, env, shard.seed, number) for number in range(shard.first, shard.end)]
    env.close()
    return episodes


def _held(lesson: Lesson, env: gymnasium.Env[Any, Any], seed: int, number: int) -> Episode:
    """The first attempt at this episode whose success holds to the end."""
    attempt = 0
    while True:
        rng = np.random.default_rng(np.random.SeedSequence(seed, spawn_key=(number, attempt)))
        options, bursts = lesson.options(number, rng), bool(rng.random() < BURSTS)
        episode = demonstrate(lesson, env, seed=int(rng.integers(2**31)), options=options, bursts=bursts)
        if episode["infos"]["success"][-1]:
            return episode
        attempt += 1


def _enough(shards: Iterator[list[Episode]], steps: int) -> Iterator[list[Episode]]:
    left = steps
    for shard in shards:
        wanted = []
        for episode in shard:
            if left > 0:
                wanted.append(episode)
                left -= len(episode["actions"])
        yield wanted
        if left <= 0:
            return
