"""Demonstrations of Meta-World's tasks: one of them, or all eight in turn. Knows nothing of files."""

from functools import partial
from typing import Any

import numpy as np

from forcing.envs.arm_demonstrations import Lesson, within
from forcing.envs.metaworld import REACH_M, TASKS, MetaWorld, Task
from forcing.envs.metaworld_expert import MetaWorldExpert
from forcing.envs.pushes import Pushing

NOISE_STD = 0.006


def lesson(task: Task | None = None) -> Lesson:
    """What `arm_demonstrations.collect` takes; of all eight in turn if no task is given."""
    return Lesson(
        env=partial(MetaWorld, task),
        expert=MetaWorldExpert,
        options=partial(_options, task),
        reach=partial(within, REACH_M),
        pushing=Pushing(
            noise=(NOISE_STD,) * 3 + (0.0,), burst=(REACH_M,) * 3, steps=(5, 20), often=0.01, anew=0.03, lately=20
        ),
        after=40,
        least_steps=40,
    )


def _options(task: Task | None, number: int, rng: np.random.Generator) -> dict[str, Any] | None:
    return {"task_id": 1 + number % len(TASKS)} if task is None else None
