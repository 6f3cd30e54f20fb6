"""Stretches of steps: where something holds for several steps of one episode. Knows no file and no rule."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from forcing.datasets.findings import Index
from forcing.policy.types import Array, Role, Trajectories

MOTION_SHARE = 0.25  # of an entry's standard deviation: what it must move by to have moved
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


@dataclass(frozen=True, slots=True)
class Motion:
    """Numbers that show whether anything moves: entries that vary, of float streams, one row an observation.

    values: [R, D]. names: [D] of their streams. deviations: [D].
    """

    values: Array
    names: tuple[str, ...]
    deviations: Array

    def moves(self, found: Stretches) -> NDArray[np.bool_]:
        """[n] whether an entry moves while each stretch lasts; one that repeats itself does not."""
        if not self.names:
            return np.zeros(len(found), bool)
        least = MOTION_SHARE * self.deviations
        rows = found.first + found.episode  # of the observation that the first step began with
        result = np.zeros(len(found), bool)
        for index, (row, steps) in enumerate(zip(rows, found.steps, strict=True)):
            result[index] = bool((np.ptp(self.values[row : row + steps + 1], axis=0) > least).any())
        return result


def motion_of(
    trajectories: Trajectories, leave_out: tuple[str, ...] = (), roles: tuple[Role, ...] = ("observation",)
) -> Motion:
    """Of the float streams of these roles; an action stands in the row that it was taken at. NaN never moves."""
    columns, names, deviations = [], [], []
    step_of_row = np.arange(int((trajectories.lengths + 1).sum())) - np.repeat(
        np.arange(len(trajectories.lengths)), trajectories.lengths + 1
    )
    step_of_row[trajectories.starts("observation") + trajectories.lengths] -= 1  # the last has none: the one before
    for stream in trajectories.spec.streams:
        values = trajectories.streams.get(stream.name)
        if values is None or stream.role not in roles or stream.name in leave_out:
            continue
        if not np.issubdtype(values.dtype, np.floating):
            continue
        rows = values if stream.role == "observation" else values[step_of_row]
        for entry in rows.reshape(len(rows), -1).T:
            finite = entry[np.isfinite(entry)]
            deviation = float(finite.std(dtype=np.float64)) if finite.size else 0.0
            if deviation > 0:
                columns.append(entry)
                names.append(stream.name)
                deviations.append(deviation)
    values = np.stack(columns, axis=1) if columns else np.zeros((0, 0))
    return Motion(values, tuple(names), np.array(deviations))
