"""Demonstrations of `swap`: the expert's whole exchanges from all layouts, pushed about, and only those that hold.

Knows nothing of files.
"""

from collections.abc import Iterator
from functools import partial

import numpy as np
from gymnasium import spaces

from forcing.envs import held_episodes
from forcing.envs.arm_control import CUBES
from forcing.envs.held_episodes import Episode
from forcing.envs.swap import STATE, Swap
from forcing.envs.swap_expert import demonstrate
from forcing.envs.swap_layout import CAMERAS, IMAGE_SIZE
from forcing.envs.swap_pushes import FEW, MANY

NOISE_STD = 0.2
# What goes wrong, and of how many episodes one has noise alone. Who acts from cameras, and may lose one, misses more
# often than who is told where cubes are, and must have seen more of what to do then (docs/experiments.md).
TOLD, SEEN = (FEW, 3), (MANY, 6)
AFTER_STEPS = (10, 40)  # at rest when all is done, so that what to do then is shown too: nothing
LEAST_STEPS = 100  # no exchange is done in fewer


def collect(*, steps: int, seed: int, workers: int | None = None, cameras: bool = False) -> Iterator[list[Episode]]:
    """Whole episodes that hold `steps` control steps or up to 299 more, see `held_episodes.collect`.

    cameras: frames are observed, and what the state tells of the cubes is in infos. Raises RuntimeError if ogbench is
    not installed or nothing renders.
    """
    env, attempt = partial(Swap, cameras=cameras), partial(_attempt, cameras)
    return held_episodes.collect(env, attempt, steps=steps, least_steps=LEAST_STEPS, seed=seed, workers=workers)


def observation_space(*, cameras: bool) -> spaces.Dict:
    """Of what is recorded."""
    if not cameras:
        return spaces.Dict(STATE)
    image = spaces.Box(0, 255, (IMAGE_SIZE, IMAGE_SIZE, 3), np.uint8)
    seen = {name: space for name, space in STATE.items() if not _is_of_cubes(name)}
    return spaces.Dict({**seen, **dict.fromkeys(CAMERAS, image)})


def _attempt(cameras: bool, env: Swap, number: int, seeds: np.random.SeedSequence) -> Episode:
    drawn, more = seeds.generate_state(2)
    after = int(AFTER_STEPS[0] + more % (AFTER_STEPS[1] - AFTER_STEPS[0] + 1))
    bursts, without = SEEN if cameras else TOLD
    episode = demonstrate(
        env, seed=int(drawn), noise=NOISE_STD, bursts=bursts if number % without > 0 else None, after=after
    )
    return _without_cubes(episode) if cameras else episode


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
