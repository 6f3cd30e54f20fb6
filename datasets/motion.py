"""What a position may do in one step, and whether anything moves, judged from the recording itself. Knows no file."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from forcing.datasets.runs import Stretches
from forcing.policy.types import Array, Role, Trajectories

STEP_SLACK = 2.0  # how many of the fastest recorded steps a legitimate step may measure
RATE_SLACK = 0.5  # of the fastest usual step: how far position and rate may disagree
MOTION_SHARE = 0.25  # of an entry's standard deviation: what it must move by to have moved
JUMP_FACTOR = 10.0  # over the largest usual change: an order of magnitude


def fitted_dt(position: Array, velocity: Array) -> float | None:
    """Seconds a step: the median of dx·v / v·v over the faster half of the rows, which jumps and contacts do not move.

    position, velocity: [R, D], one row after another; the velocity belongs to the position of its own row, which it
    brought about. None if nothing moves.
    """
    if len(position) < 2:
        return None
    moved, rate = np.diff(position.astype(np.float64), axis=0), velocity[1:].astype(np.float64)
    squared = (rate**2).sum(axis=1)
    fast = (squared > 0) & (squared >= np.median(squared))
    if not fast.any():
        return None
    return float(np.median((moved * rate).sum(axis=1)[fast] / squared[fast]))


def jumps(position: Array, velocity: Array) -> NDArray[np.int64]:
    """Rows after which the position moves farther than physics allows: a reset that nobody flagged.

    position, velocity: [R, D]. A row may move at most `STEP_SLACK` times what the fastest usual speed (the 99.9 %
    quantile) covers in one step, the step being `fitted_dt`. A shorter jump cannot be told from motion.
    """
    finite = np.isfinite(position).all(axis=1) & np.isfinite(velocity).all(axis=1)
    speed = np.sqrt((velocity[finite] ** 2).sum(axis=1))
    fastest = float(np.quantile(speed, 0.999)) if speed.size else 0.0
    dt = fitted_dt(position[finite], velocity[finite])
    if dt is None:
        return np.zeros(0, np.int64)
    reach = STEP_SLACK * abs(dt) * fastest
    with np.errstate(invalid="ignore", over="ignore"):
        distance = np.sqrt((np.diff(position, axis=0) ** 2).sum(axis=1))
    return np.flatnonzero(distance > reach)


def disagreements(
    position: Array, rate: Array, starts: NDArray[np.int64], dt: float
) -> tuple[NDArray[np.int64], float]:
    """Steps at which the position does not follow its rate, and the tolerance used, in units of the position.

    position, rate: [R, *shape], episodes one after another from rows `starts`. An entry may move by anything between
    dt times its rate before and after (so explicit, implicit and midpoint integrators all pass), give or take
    `RATE_SLACK` of the fastest usual step, the 99 % quantile of dt·|rate| over all entries. NaN is no disagreement.
    """
    moved = changes(position, starts)
    after = _steps(dt * rate.reshape(len(rate), -1)[1:], starts)
    before = _steps(dt * rate.reshape(len(rate), -1)[:-1], starts)
    usual = np.abs(after[np.isfinite(after)])
    tolerance = RATE_SLACK * float(np.quantile(usual, 0.99)) if usual.size else 0.0
    low, high = np.minimum(before, after) - tolerance, np.maximum(before, after) + tolerance
    outside = (moved < low - _rounding(position)) | (moved > high + _rounding(position))
    return np.flatnonzero(outside.any(axis=1)), tolerance


def unusual_changes(values: Array, starts: NDArray[np.int64]) -> NDArray[np.int64]:
    """Steps at which an entry changes by more than `JUMP_FACTOR` times the 99.9 % quantile of its nonzero changes.

    Of fewer than a thousand, the largest is not counted among these: else it would be its own measure.
    """
    moved = np.abs(changes(values, starts))
    found = np.zeros(len(moved), bool)
    for entry in moved.T:
        usual = entry[np.isfinite(entry) & (entry > 0)]
        if len(usual) > 1:
            found |= entry > JUMP_FACTOR * np.quantile(np.delete(usual, usual.argmax()), 0.999)
    return np.flatnonzero(found)


def changes(values: Array, starts: NDArray[np.int64]) -> Array:
    """[steps, entries] change from each observation to the next of its episode, as float64."""
    flat = values.reshape(len(values), -1).astype(np.float64)
    with np.errstate(invalid="ignore"):  # between two that are infinite
        return _steps(np.diff(flat, axis=0), starts)


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


def _steps(between_rows: Array, starts: NDArray[np.int64]) -> Array:
    """Without the rows that lead from one episode's last observation to the next one's first."""
    return np.delete(between_rows, starts[1:] - 1, axis=0)


def _rounding(position: Array) -> float:
    """What two float32 numbers of this size may lose in their difference."""
    finite = np.abs(position[np.isfinite(position)])
    return 4.0 * float(np.finfo(np.float32).eps) * float(finite.max(initial=0.0))
