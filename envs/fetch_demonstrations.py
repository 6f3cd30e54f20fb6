"""Demonstrations of Fetch's tasks: whole episodes of 50 steps. Knows nothing of files."""

from functools import partial

from forcing.envs.arm_demonstrations import Lesson, within
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
        reach=partial(within, STEP_M),
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
