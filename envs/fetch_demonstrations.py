"""Demonstrations of Fetch's tasks: whole episodes of 50 steps. Knows nothing of files."""

from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from forcing.envs.arm_demonstrations import Lesson, Observation
from forcing.envs.fetch import MAX_STEPS, STEP_M, Fetch, Kind
from forcing.envs.fetch_expert import FetchExpert
from forcing.envs.pushes import Pushing

NOISE_STD = 0.006


def lesson(kind: Kind) -> Lesson:
    """What `arm_demonstrations.collect` takes; episodes are all of 50 steps."""
    gripper = (0.0,) * (kind == "pick-and-place")
    return Lesson(
        env=partial(Fetch, kind),
        expert=FetchExpert,
        options=_nothing,
        reach=_within_reach,
        pushing=Pushing(
            noise=(NOISE_STD,) * 3 + gripper,
            burst=(STEP_M,) * 3,
            steps=(2, 5),
            often=0.02,
            anew=0.05,
            lately=8,
        ),
        after=MAX_STEPS + 1,
        least_steps=MAX_STEPS,
    )


def _nothing(number: int, rng: np.random.Generator) -> dict[str, Any] | None:
    return None


def _within_reach(action: NDArray[Any], observation: Observation) -> NDArray[np.float64]:
    """The same step follows from it."""
    hand = observation["effector_position"].astype(np.float64)
    return np.append(np.clip(action[:3], hand - STEP_M, hand + STEP_M), action[3:])
