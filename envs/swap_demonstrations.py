"""Demonstrations of `swap`: the expert's whole exchanges from all layouts, pushed about, and only those that hold.

Every episode has a random stream of its own, so a recording depends on the seed alone, and a longer one begins like a
shorter one. Knows nothing of files.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from gymnasium import spaces

from forcing.envs.arm_control import CUBES
from forcing.envs.rendering import use_headless
from forcing.envs.shards import check_request, run_shards
from forcing.envs.swap import STATE, Swap
from forcing.envs.swap_expert import Episode, SwapExpert, demonstrate
from forcing.envs.swap_layout import CAMERAS, IMAGE_SIZE

NOISE_STD = 0.2
WITHOUT_BURSTS = 3  # one episode of so many has noise alone
AFTER_STEPS = (10, 40)  # at rest when all is done, so that what to do then is shown too: nothing
LEAST_STEPS = 100  # no exchange is done in fewer
SHARD_EPISODES = 10


@dataclass(frozen=True, slots=True, kw_only=True)
class _Shard:
    """Episodes from number `first` to before `end`."""

    cameras: bool
    seed: int
    first: int
    end: int


def collect(*, steps: int, seed: int, workers: int | None = None, cameras: bool = False) -> Iterator[list[Episode]]:
    """Whole episodes that hold `steps` control steps or up to 299 more, in lists of a fixed order.

    cameras: frames are observed, and what the state tells of the cubes is in infos. workers: processes, None for one a
    core; they change nothing but the time it takes (see `run_shards`). Raises ValueError for a number below its least,
    RuntimeError if ogbench is not installed or nothing renders.
    """
    processes = check_request(steps=steps, seed=seed, workers=workers)
    SwapExpert()  # that ogbench is missing, or that nothing renders, is an error at once
    if cameras:
        use_headless()
    episodes = -(-steps // LEAST_STEPS)
    shards = [
        _Shard(cameras=cameras, seed=seed, first=first, end=min(first + SHARD_EPISODES, episodes))
        for first in range(0, episodes, SHARD_EPISODES)
    ]
    return _enough(run_shards(_collect_shard, shards, processes), steps)


def observation_space(*, cameras: bool) -> spaces.Dict:
    """Of what is recorded."""
    if not cameras:
        return spaces.Dict(STATE)
    image = spaces.Box(0, 255, (IMAGE_SIZE, IMAGE_SIZE, 3), np.uint8)
    seen = {name: space for name, space in STATE.items() if not _is_of_cubes(name)}
    return spaces.Dict({**seen, **dict.fromkeys(CAMERAS, image)})


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


def _collect_shard(shard: _Shard) -> list[Episode]:
    env = Swap(cameras=shard.cameras)
    episodes = [_held(env, shard.seed, number) for number in range(shard.first, shard.end)]
    env.close()
    return [_without_cubes(episode) for episode in episodes] if shard.cameras else episodes


def _held(env: Swap, seed: int, number: int) -> Episode:
    """The first attempt at this episode whose swap holds to the end."""
    attempt = 0
    while True:
        drawn, more = np.random.SeedSequence(seed, spawn_key=(number, attempt)).generate_state(2)
        after = int(AFTER_STEPS[0] + more % (AFTER_STEPS[1] - AFTER_STEPS[0] + 1))
        bursts = number % WITHOUT_BURSTS > 0
        episode = demonstrate(env, seed=int(drawn), noise=NOISE_STD, bursts=bursts, after=after)
        if episode["infos"]["success"][-1]:
            return episode
        attempt += 1


def _without_cubes(episode: Episode) -> Episode:
    observed = episode["observations"]
    cubes = {name: rows for name, rows in observed.items() if _is_of_cubes(name)}
    return {
        **episode,
        "observations": {name: rows for name, rows in observed.items() if name not in cubes},
        "infos": {**episode["infos"], **cubes},
    }


def _is_of_cubes(name: str) -> bool:
    return name.startswith(CUBES)
