"""Sensors that got stuck: one repeats itself to the last bit while the robot moves, and at other times never does.

A sensor at rest repeats itself too. So a stretch counts only if other entries, or actions, move meanwhile, if this one
otherwise moves at nearly every step, and if there is proof: what it jumps to when it thaws, or its rate, which says
that it moved all the while. Without proof, a stretch counts if such are rare in the recording.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from forcing.datasets.clocks import clocks
from forcing.datasets.findings import Finding, Severity, found_in_spans
from forcing.datasets.motion import Motion, changes, motion_of
from forcing.datasets.runs import Stretches, long_steps, stretches
from forcing.policy.types import Array, Index, StreamSpec, Trajectories

REPEATING_SHARE = 0.1  # of the other steps: more often than that, repeating is how the sensor is
FROZEN_SHARE = 0.5  # of all steps
THAW_TIMES, DRIVEN_TIMES = 2.0, 5.0  # of the largest usual change (99 % of them are smaller), of the median one
RARE_EPISODES, RARE_SHARE, RARE_REPEATS, LEAST_EPISODES = 0.1, 0.1, 0.002, 5
MOST_ENTRIES = 256  # beyond, a stream is judged as a whole


@dataclass(frozen=True, slots=True)
class _Column:
    """One entry of a stream, [sum(lengths)] each: its changes, its numbers after each step, and how far its rate says
    that it moved, or its position that it is wrong; None without one. least: sum of these that is proof."""

    change: Array
    after: Array
    driven: Array | None
    least: float


def check_frozen(trajectories: Trajectories) -> Iterator[Finding]:
    """One finding for each stream, at the observations that only repeat."""
    motion = motion_of(trajectories, tuple(clock.name for clock in clocks(trajectories)), ("observation", "action"))
    for stream in trajectories.spec.of_role("observation"):
        if stream.name in motion.names and stream.size <= MOST_ENTRIES:
            yield from _stream(trajectories, stream, motion)


def _stream(trajectories: Trajectories, stream: StreamSpec, motion: Motion) -> Iterator[Finding]:
    groups: dict[Severity, list[Index]] = {"error": [], "warning": []}
    repeated: list[Index] = []
    for column in _columns(trajectories, stream):
        found = _long_repeats(trajectories, column)
        found = found[motion.moves(found)]
        repeated.append(found.spans(trajectories, shift=1))
        proof = _thaws(trajectories, found, column) | _driven(found, column)
        if proof.any():
            groups["error"].append(found[proof].spans(trajectories, shift=1))
        if _rare(trajectories, found[~proof], column):
            groups["warning"].append(found[~proof].spans(trajectories, shift=1))
    proven: Index = np.zeros((0, 3), np.int64)
    for severity, spans_of_entries in groups.items():
        spans = np.unique(np.concatenate([proven[:0], *spans_of_entries]), axis=0)  # each stretch once
        spans = spans[~(spans[:, None] == proven).all(axis=2).any(axis=1)]
        if not len(spans):
            continue
        proven = spans
        longest = int((spans[:, 2] - spans[:, 1]).max())
        entries = sum(bool((each[:, None] == spans).all(axis=2).any()) for each in repeated)
        yield found_in_spans(
            "frozen",
            severity,
            stream.name,
            spans,
            f"must not repeat itself to the last bit while others move: {entries} of {stream.size} "
            f"entries, for up to {longest} steps",
            "a sensor that was stuck: look at its driver; --fix cuts these stretches out",
        )


def _columns(trajectories: Trajectories, stream: StreamSpec) -> Iterator[_Column]:
    """Entries that vary."""
    values, starts = trajectories.streams[stream.name], trajectories.starts("observation")
    moved, dt = changes(values, starts), 1 / trajectories.spec.control_hz
    flat = values.reshape(len(values), -1)
    after = trajectories.before_steps() + 1
    driven, usual = None, moved
    rate = trajectories.spec.rate(stream.name)
    if rate is not None and trajectories.streams[rate].shape == values.shape:
        numbers = trajectories.streams[rate]
        driven = dt * numbers.reshape(len(numbers), -1)[after].astype(np.float64)
    elif stream.rate_of is not None and trajectories.streams[stream.rate_of].shape == values.shape:
        # A rate that stands still is wrong by as much as its position moves otherwise.
        usual = changes(trajectories.streams[stream.rate_of], starts)
        driven = usual - dt * flat[after].astype(np.float64)
    for entry in range(stream.size):
        if (moved[:, entry] != 0).any():
            least = DRIVEN_TIMES * _usual_change(usual[:, entry], 0.5)
            yield _Column(moved[:, entry], flat[after, entry], None if driven is None else driven[:, entry], least)


def _long_repeats(trajectories: Trajectories, column: _Column) -> Stretches:
    """Long stretches of an entry that otherwise moves nearly always, at no end of its range."""
    repeats: NDArray[np.bool_] = column.change == 0
    found = stretches(repeats, trajectories, long_steps(trajectories.spec.control_hz))
    frozen = int(found.steps.sum())
    others = len(repeats) - frozen
    usual = (repeats.sum() - frozen) / max(others, 1)
    if usual > REPEATING_SHARE or frozen > FROZEN_SHARE * len(repeats):
        return found[np.zeros(len(found), bool)]
    held = column.after[found.first]
    finite = column.after[np.isfinite(column.after)]
    return found[(held != finite.min()) & (held != finite.max())]


def _usual_change(change: Array, quantile: float) -> float:
    sizes = np.abs(change)
    sizes = sizes[np.isfinite(sizes) & (sizes > 0)]
    return float(np.quantile(sizes, quantile)) if sizes.size else np.inf


def _thaws(trajectories: Trajectories, found: Stretches, column: _Column) -> NDArray[np.bool_]:
    """[n] whether the entry makes up at once for what it missed, if it thaws before its episode ends."""
    episode_ends = np.cumsum(trajectories.lengths)[found.episode]
    next_steps = np.minimum(found.end, episode_ends - 1)  # of those that do not thaw, a step of no change
    return np.asarray(np.abs(column.change[next_steps]) > THAW_TIMES * _usual_change(column.change, 0.99))


def _driven(found: Stretches, column: _Column) -> NDArray[np.bool_]:
    """[n] whether the entry's rate says that it moved, or its position that it is no longer the rate."""
    if column.driven is None:
        return np.zeros(len(found), bool)
    pairs = zip(found.first, found.end, strict=True)
    return np.array([abs(float(np.nansum(column.driven[a:b]))) > column.least for a, b in pairs], bool)


def _rare(trajectories: Trajectories, found: Stretches, column: _Column) -> bool:
    """Whether these are too few to be the way in which this entry rests."""
    episodes, steps = len(trajectories.lengths), len(column.change)
    repeats = int((column.change == 0).sum()) - int(found.steps.sum())
    at_start = (found.first == trajectories.starts("action")[found.episode]).any() if len(found) else True
    return (
        episodes >= LEAST_EPISODES
        and not at_start
        and len(np.unique(found.episode)) <= max(1, RARE_EPISODES * episodes)
        and int(found.steps.sum()) <= RARE_SHARE * steps
        and repeats <= RARE_REPEATS * steps
    )
