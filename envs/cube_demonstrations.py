"""Demonstrations of `cube`: random starts and targets of the kinds that ogbench's official tasks have.

One of two cubes stays and the other is carried, or both are, or they change places, or one comes to stand on the other.
Knows nothing of files.
"""

from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from forcing.envs.arm_control import STEP_M, within_reach
from forcing.envs.arm_demonstrations import Lesson
from forcing.envs.cube import Cube, Kind
from forcing.envs.cube_expert import CubeExpert
from forcing.envs.pushes import Pushing

# A little within what ogbench draws from in its own collection; its official places are within this.
LOW_M, HIGH_M = np.array([0.32, -0.27]), np.array([0.54, 0.27])
APART_M = 0.09
CUBE_M = 0.04
TASKS_OF_TWO = ("one", "both", "both", "exchange", "stack")
NOISE_STD = 0.01

Places = NDArray[np.float64]


def lesson(kind: Kind) -> Lesson:
    """What `arm_demonstrations.collect` takes."""
    return Lesson(
        env=partial(Cube, kind),
        expert=CubeExpert,
        options=partial(_options, kind),
        reach=within_reach,
        pushing=Pushing(noise=(NOISE_STD,) * 3 + (0.3, 0.3, 0.0), burst=(0.8 * STEP_M,) * 3),
        after=25,
        least_steps=25,
    )


def _options(kind: Kind, number: int, rng: np.random.Generator) -> dict[str, Any]:
    """Starts and goals [n, 3], in m."""
    if kind == "single":
        start, goal = _apart(rng, 2)
        return {"starts": start[None], "goals": goal[None]}
    starts = _apart(rng, 2)
    goals = _goals(TASKS_OF_TWO[number % len(TASKS_OF_TWO)], starts, rng)
    order = rng.permutation(2)
    return {"starts": starts[order], "goals": goals[order]}


def _goals(task: str, starts: Places, rng: np.random.Generator) -> Places:
    if task == "both":
        goals = _apart(rng, 2)
        while np.linalg.norm(goals - starts, axis=1).min() < APART_M:
            goals = _apart(rng, 2)
        return goals
    if task == "stack":
        (place,) = _apart(rng, 1)
        return np.stack([place, [*place[:2], place[2] + CUBE_M]])
    moved = starts + np.append(rng.uniform(-0.01, 0.01, (2, 2)), np.zeros((2, 1)), 1)  # as the official tasks' starts
    if task == "exchange":
        return moved[::-1]
    goal = _place(rng)
    while min(np.linalg.norm(goal - moved[0]), np.linalg.norm(goal - starts[1])) < APART_M:
        goal = _place(rng)
    return np.stack([moved[0], goal])


def _apart(rng: np.random.Generator, count: int) -> Places:
    """[count, 3] places on the table, at least 9 cm from each other."""
    while True:
        places = np.stack([_place(rng) for _ in range(count)])
        if count == 1 or np.linalg.norm(places[0] - places[1]) >= APART_M:
            return places


def _place(rng: np.random.Generator) -> NDArray[np.float64]:
    return np.append(rng.uniform(LOW_M, HIGH_M), CUBE_M / 2)
