"""What goes wrong in demonstrations of `swap`: grasps miss, cubes are dropped, and what to do then is shown.

Every executed step is a little off for a few steps at a time. In episodes with bursts, a few times besides, the arm is
pushed one way for a while or the gripper opens: at any time, at a grasp, with a cube in the air, or low above the
table, where cubes are shoved. Knows no simulator.
"""

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

NOISE_KEPT = 0.8  # of the noise of the step before: pushes that last a few steps
BURST_STEPS = (5, 15)
BURST_STEP = (0.5, 1.0)  # strength, in ogbench's steps
OPENING_STEPS = (3, 6)
# A burst at a grasp, with a cube in the air or low comes from one of the three grasps on, up to so many steps into it.
GRASPS, INTO_A_GRASP, INTO_THE_AIR, INTO_LOW = 3, 3, 12, 8
ANY_TIME = 120

When = Literal["any", "grasp", "carry", "low"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Bursts:
    """least, most: how many an episode has. when: what they may come at, each as likely."""

    least: int
    most: int
    when: tuple[When, ...]


FEW = Bursts(least=2, most=4, when=("any", "grasp", "carry"))
MANY = Bursts(least=4, most=8, when=("any", "grasp", "carry", "low"))


@dataclass(slots=True)
class _Burst:
    """From `after` steps past when it is due: `steps` with this push [4], in ogbench's steps, or the gripper open."""

    when: When
    grasp: int
    after: int
    steps: int
    push: NDArray[np.float64]
    opens: bool
    due: bool = False


class Pushes:
    """What is added to the steps of one episode, drawn from the generator as it goes."""

    def __init__(self, rng: np.random.Generator, *, noise: float, bursts: Bursts | None) -> None:
        """noise: standard deviation along each of x, y, z and yaw, in ogbench's steps."""
        self._rng, self._noise = rng, noise
        self._now = np.zeros(4)
        self._bursts = [] if bursts is None else _drawn(bursts, rng)
        self._grasps, self._grasping = 0, False

    def next(
        self, step: NDArray[np.float64], *, grasping: bool, carrying: bool, low: bool = False
    ) -> NDArray[np.float64]:
        """The step [5] to execute, not cut to its limits. step: the one that is wanted, in ogbench's steps.

        grasping: the gripper shall close around a cube on the table. carrying: a cube is in the air in it. low:
        it is open, and as deep as cubes are high.
        """
        self._grasps += grasping and not self._grasping
        self._grasping = grasping or (self._grasping and carrying)
        drawn = self._rng.normal(0.0, self._noise * np.sqrt(1 - NOISE_KEPT**2), 4)
        self._now = NOISE_KEPT * self._now + drawn
        pushed: NDArray[np.float64] = step + np.append(self._now, 0.0)
        for burst in self._bursts:
            at_last = {"any": True, "grasp": grasping, "carry": carrying, "low": low}[burst.when]
            burst.due |= at_last and (burst.when == "any" or self._grasps >= burst.grasp)
            if not burst.due or burst.steps == 0:
                continue
            if burst.after > 0:
                burst.after -= 1
                continue
            burst.steps -= 1
            pushed[:4] += burst.push
            if burst.opens:
                pushed[4] = -1.0
        return pushed


def _drawn(kinds: Bursts, rng: np.random.Generator) -> list[_Burst]:
    bursts = []
    for _ in range(rng.integers(kinds.least, kinds.most + 1)):
        when = kinds.when[rng.integers(len(kinds.when))]
        opens = when == "carry" and bool(rng.random() < 0.5)
        direction = rng.normal(size=4)
        if when == "low":
            direction[2] = 0.0  # the hand stays as deep as it is
        push = direction / np.linalg.norm(direction) * rng.uniform(*BURST_STEP)
        latest = {"any": ANY_TIME, "grasp": INTO_A_GRASP, "carry": INTO_THE_AIR, "low": INTO_LOW}[when]
        steps = rng.integers(*(OPENING_STEPS if opens else BURST_STEPS), endpoint=True)
        bursts.append(
            _Burst(
                when=when,
                grasp=int(rng.integers(1, GRASPS + 1)),
                after=int(rng.integers(latest + 1)),
                steps=int(steps),
                push=0 * push if opens else push,
                opens=opens,
            )
        )
    return bursts
