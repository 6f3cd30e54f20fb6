"""Whole episodes of an arm whose expert is pushed about, and only those whose success holds to the end.

What is recorded as the action is what the expert wanted; what was executed is beside it. Every episode has a random
stream of its own, so a recording depends on the seed alone, and a longer one begins like a shorter one. Knows no
simulator and no files.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import count
from typing import Any, Protocol, TypedDict

import gymnasium
import numpy as np
from numpy.typing import NDArray

from forcing.envs.shards import check_request, run_shards

SHARD_EPISODES = 5

Env = gymnasium.Env[Any, Any]
Push = Callable[[NDArray[np.float32], Any], NDArray[np.float32]]  # action wanted, observation -> action executed


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


Attempt = Callable[[Any, int, np.random.SeedSequence], Episode]  # environment, number of the episode, its seeds


class Expert(Protocol):
    """A scripted controller; what it wants follows from what it has observed."""

    def reset(self, observation: Any, seed: int) -> None: ...

    def act(self, observation: Any) -> NDArray[np.float32]: ...


def collect(
    env: Callable[[], Env], attempt: Attempt, *, steps: int, least_steps: int, seed: int, workers: int | None
) -> Iterator[list[Episode]]:
    """Whole episodes that hold `steps` control steps, the last as many more as it takes, in lists of a fixed order.

    env: makes the environment. attempt: makes an episode in it; of each number the first whose success holds at its
    last step is kept. Both are picklable. least_steps: no episode is shorter. workers: processes, None for one a core;
    they change nothing but the time it takes (see `run_shards`). Raises ValueError for a number below its least, and as
    `env` does.
    """
    processes = check_request(steps=steps, seed=seed, workers=workers)
    env().close()  # that a simulator is missing is an error at once
    episodes = -(-steps // least_steps)
    shards = [
        _Shard(env=env, attempt=attempt, seed=seed, first=first, end=min(first + SHARD_EPISODES, episodes))
        for first in range(0, episodes, SHARD_EPISODES)
    ]
    return _enough(run_shards(_collect_shard, shards, processes), steps)


def drive(
    env: Env,
    expert: Expert,
    *,
    seed: int,
    options: dict[str, Any] | None,
    pushed: Callable[[np.random.Generator], Push] | None,
    at_rest: Callable[[dict[str, Any]], bool],
    after: int,
) -> Episode:
    """One episode, whether it succeeds or not, until it was at rest for `after` steps on end, or cut by the
    environment; it depends on seed and options alone.

    pushed: makes what pushes the expert about, from a generator; None for nothing. at_rest: by the info of a step.
    """
    observation, info = env.reset(seed=seed, options=options)
    for_pushes, for_expert = np.random.SeedSequence(seed, spawn_key=(1,)).generate_state(2)
    push = None if pushed is None else pushed(np.random.default_rng(for_pushes))
    expert.reset(observation, int(for_expert))
    observations, successes = [observation], [bool(info["success"])]
    actions, executed, rewards = [], [], []
    held, truncated = 0, False
    while held < after and not truncated:
        action = expert.act(observation)
        done = action if push is None else push(action, observation)
        observation, reward, _, truncated, info = env.step(done)
        observations.append(observation)
        successes.append(bool(info["success"]))
        actions.append(action)
        executed.append(done)
        rewards.append(float(reward))
        held = held + 1 if at_rest(info) else 0
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

    env: Callable[[], Env]
    attempt: Attempt
    seed: int
    first: int
    end: int


def _collect_shard(shard: _Shard) -> list[Episode]:
    env = shard.env()
    episodes = [_held(shard, env, number) for number in range(shard.first, shard.end)]
    env.close()
    return episodes


def _held(shard: _Shard, env: Env, number: int) -> Episode:
    """The first attempt at this episode whose success holds to the end."""
    seeds = (np.random.SeedSequence(shard.seed, spawn_key=(number, attempt)) for attempt in count())
    attempts = (shard.attempt(env, number, each) for each in seeds)
    return next(episode for episode in attempts if episode["infos"]["success"][-1])


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
