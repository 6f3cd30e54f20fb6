"""What goes wrong while an arm demonstrates, so that misses and slips are shown, and what to do then.

Every executed action is a little off, for a few steps at a time; in some episodes, besides, bursts push the arm one way
for a while, and may open the gripper. Knows no simulator.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

KEPT = 0.8  # of the noise of the step before
GRIPPER_TOLD = 0.3  # a change of the gripper's entry that counts


@dataclass(frozen=True, slots=True, kw_only=True)
class Pushing:
    """How much goes wrong, in the units of actions [A].

    noise: standard deviation of what is added to each entry. burst: along each of the entries that can be pushed, which
    are the first, the most that a burst adds; it adds between half of that and all of it, in one direction. If others
    follow, the last is the gripper, 0 open to 1 closed. steps: the least and the most that a burst lasts. often: chance
    a step that one begins; anew: the same for the `lately` steps after the gripper has been told otherwise, as at a
    grasp. opens: chance that a burst opens the gripper instead of pushing.
    """

    noise: tuple[float, ...]
    burst: tuple[float, ...]
    steps: tuple[int, int] = (3, 10)
    often: float = 0.015
    anew: float = 0.05
    lately: int = 12
    opens: float = 0.3


class Pushes:
    """Those of one episode, drawn from the generator as it goes."""

    def __init__(self, pushing: Pushing, rng: np.random.Generator, *, bursts: bool) -> None:
        self._pushing, self._rng, self._bursts = pushing, rng, bursts
        self._noise = np.zeros(len(pushing.noise))
        self._grips = len(pushing.noise) > len(pushing.burst)
        self._burst: NDArray[np.float64] | None = None
        self._left, self._since, self._gripper = 0, pushing.lately, 0.0

    def next(self, action: NDArray[np.floating]) -> NDArray[np.float64]:
        """[A] what is executed for the action that is wanted, not cut to any limits."""
        how = self._pushing
        spread = np.array(how.noise) * np.sqrt(1 - KEPT**2)
        self._noise = KEPT * self._noise + self._rng.normal(0.0, 1.0, len(spread)) * spread
        pushed = action + self._noise
        self._since += 1
        if self._grips and abs(action[-1] - self._gripper) > GRIPPER_TOLD:
            self._since, self._gripper = 0, float(action[-1])
        if self._left == 0 and self._bursts and self._rng.random() < self._chance():
            self._left = int(self._rng.integers(*how.steps, endpoint=True))
            opens = self._rng.random() < how.opens and self._grips
            self._burst = None if opens else self._drawn()
        if self._left > 0:
            self._left -= 1
            if self._burst is None:
                pushed[-1] = 0.0
            else:
                pushed[: len(self._burst)] += self._burst
        return pushed

    def _chance(self) -> float:
        return self._pushing.anew if self._since < self._pushing.lately else self._pushing.often

    def _drawn(self) -> NDArray[np.float64]:
        direction = self._rng.normal(size=len(self._pushing.burst))
        length = self._rng.uniform(0.5, 1.0) / np.linalg.norm(direction)
        return np.array(self._pushing.burst) * direction * length
