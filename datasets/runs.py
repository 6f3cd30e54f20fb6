"""Stretches of steps: where something holds for several steps of one episode. Knows no file and no rule."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from forcing.policy.types import Index, Trajectories

LONG_S, LONG_STEPS = 0.2, 8


@dataclass(frozen=True, slots=True)
class Stretches:
    """Runs of steps, each within one episode.

    first, end: [n] rows of the first step and the one after the last, counted over the recording. episode: [n].
    """

    first: Index
    end: Index
    episode: Index

    def __len__(self) -> int:
        return len(self.first)

    def __getitem__(self, kept: NDArray[np.bool_]) -> "Stretches":
        return Stretches(self.first[kept], self.end[kept], self.episode[kept])

    @property
    def steps(self) -> Index:
        """[n] how many steps each has."""
        return self.end - self.first

    def spans(self, trajectories: Trajectories, shift: int = 0) -> Index:
        """[n, 3] episode, first and end within it, `shift` rows later."""
        starts = trajectories.starts("action")[self.episode]
        return np.stack([self.episode, self.first - starts + shift, self.end - starts + shift], axis=1)


def stretches(holds: NDArray[np.bool_], trajectories: Trajectories, shortest: int = 1) -> Stretches:
    """Runs of at least `shortest` steps in which `holds` [sum(lengths)] is true."""
    starts = trajectories.starts("action")
    is_first = np.zeros(len(holds) + 1, bool)
    is_first[starts] = is_first[-1] = True
    before = np.concatenate([[False], holds[:-1]]) & ~is_first[:-1]
    after = np.concatenate([holds[1:], [False]]) & ~is_first[1:]
    first, end = np.flatnonzero(holds & ~before), np.flatnonzero(holds & ~after) + 1
    found = Stretches(first, end, np.searchsorted(starts, first, side="right") - 1)
    return found[found.steps >= shortest]


def long_steps(control_hz: float) -> int:
    """Steps that a sensor must repeat itself to be worth a look."""
    return max(LONG_STEPS, round(LONG_S * control_hz))
