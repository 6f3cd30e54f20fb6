"""Numbers judged one by one: not finite, outside their limits, lone outliers, entries that never change."""

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from forcing.datasets.findings import Finding, Severity, found_in_rows
from forcing.policy.types import Array, Index, StreamSpec, Trajectories

ROUNDING = 1e-6
# A lone outlier: at most this share of the steps, farther out than this many times the width of the middle 99 %.
LONE_SHARE, LONE_LEAST, FAR_WIDTHS = 5e-4, 3, 10.0
DISTINCT_SHARE = 0.2  # of the values must differ for a width to mean anything: a gripper's commands do not


def check_numbers(trajectories: Trajectories) -> Iterator[Finding]:
    """What is wrong with the numbers of each stream, whatever comes before or after them."""
    for stream in trajectories.spec.streams:
        if stream.image:
            continue
        values = trajectories.streams[stream.name]
        for finding in (_not_finite, _outside_limits, _outliers, _constant):
            yield from finding(trajectories, stream, values)


def outside_limits(stream: StreamSpec, values: Array) -> NDArray[np.bool_]:
    """[R, entries] whether a number lies outside the stream's limits by more than rounding; only finite ones do."""
    flat = values.reshape(len(values), -1)
    outside = np.zeros(flat.shape, bool)
    if stream.low is not None:
        low = np.array(stream.low)
        outside |= flat < low - ROUNDING * np.maximum(1, np.abs(low))
    if stream.high is not None:
        high = np.array(stream.high)
        outside |= flat > high + ROUNDING * np.maximum(1, np.abs(high))
    return outside & np.isfinite(flat)


def _not_finite(trajectories: Trajectories, stream: StreamSpec, values: Array) -> Iterator[Finding]:
    rows = np.flatnonzero(_any_entry(~np.isfinite(values)))
    if rows.size:
        remedy = "remove those episodes or record them again; --fix cuts these rows out"
        yield found_in_rows(
            trajectories, "not finite", "error", stream.name, rows, "must be finite", remedy, stream.role
        )


def _outside_limits(trajectories: Trajectories, stream: StreamSpec, values: Array) -> Iterator[Finding]:
    rows = np.flatnonzero(outside_limits(stream, values).any(axis=1))
    if rows.size:
        severity: Severity = "error" if stream.role == "action" else "warning"
        rule = f"must stay within its limits {_shown(stream.low)} to {_shown(stream.high)}"
        remedy = "clip when recording, or correct the limits"
        remedy += "; --fix clips" if stream.role == "action" else ""
        yield found_in_rows(trajectories, "outside limits", severity, stream.name, rows, rule, remedy, stream.role)


def _outliers(trajectories: Trajectories, stream: StreamSpec, values: Array) -> Iterator[Finding]:
    """Of actions without limits: a few commands far from all others."""
    if stream.role != "action" or (stream.low is not None and stream.high is not None):
        return
    rows = lone_outliers(values)
    if rows.size:
        rule = f"without limits, should stay within {FAR_WIDTHS:g} times the range of the middle 99 % of its steps"
        remedy = "lone commands that no robot followed: cut them out, or declare the limits so that --fix can clip"
        yield found_in_rows(trajectories, "outlier", "warning", stream.name, rows, rule, remedy, stream.role)


def lone_outliers(values: Array) -> Index:
    """Rows in which an entry lies far outside all others, if they are few. Entries of few distinct values have none."""
    flat = values.reshape(len(values), -1)
    found = np.zeros(len(flat), bool)
    if not np.issubdtype(flat.dtype, np.floating):
        return np.flatnonzero(found)
    for entry in flat.T:
        finite = entry[np.isfinite(entry)]
        if not finite.size or len(np.unique(finite)) < DISTINCT_SHARE * len(finite):
            continue
        low, high = np.quantile(finite, (0.005, 0.995))
        width = float(high - low)
        with np.errstate(invalid="ignore"):
            far = (entry < low - FAR_WIDTHS * width) | (entry > high + FAR_WIDTHS * width)
        if width > 0 and far.sum() <= max(LONE_LEAST, LONE_SHARE * len(entry)):
            found |= far & np.isfinite(entry)
    return np.flatnonzero(found)


def _constant(trajectories: Trajectories, stream: StreamSpec, values: Array) -> Iterator[Finding]:
    flat = values.reshape(len(values), -1)
    same = (flat == flat[0]).all(axis=0)
    if len(values) > 1 and same.any():
        yield Finding(
            kind="constant",
            severity="warning",
            stream=stream.name,
            rule=f"should vary: {int(same.sum())} of its {stream.size} entries never change",
            count=int(same.sum()),
            where=(),
            remedy="a sensor that is not connected, or nothing to learn from: leave the stream out if so",
        )


def _any_entry(flags: Array) -> NDArray[np.bool_]:
    return np.asarray(flags.reshape(len(flags), -1).any(axis=1))


def _shown(limits: tuple[float, ...] | None) -> Any:
    if limits is None:
        return "none"
    return limits[0] if len(set(limits)) == 1 else limits
