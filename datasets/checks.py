"""What is wrong with a recording. Each check is a function from recordings to findings."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from forcing.datasets.motion import disagreements, fitted_dt, locate, unusual_changes
from forcing.datasets.recording import read_recording
from forcing.policy.types import Array, StreamSpec, Trajectories

Severity = Literal["error", "warning"]
Places = tuple[tuple[int, int], ...]

FIRST_FEW = 5
SHORTEST_S = 0.1
SHORTEST_STEPS = 2
HZ_TOLERANCE = 0.2


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One rule that a recording breaks.

    severity: an error makes training or planning wrong, a warning may be meant. stream: "" if it concerns whole
    episodes. count: how often. where: (episode, step) of the first few. remedy: what to do.
    """

    severity: Severity
    stream: str
    rule: str
    count: int
    where: Places
    remedy: str

    def __str__(self) -> str:
        subject = f"stream {self.stream!r}: " if self.stream else ""
        places = ", ".join(f"{episode}:{step}" for episode, step in self.where)
        at = f" at episode:step {places}{', …' if self.count > len(self.where) else ''}" if places else ""
        times = "once" if self.count == 1 else f"{self.count} times"
        return f"{self.severity}: {subject}{self.rule} ({times}{at}); {self.remedy}"


def check(trajectories: Trajectories) -> list[Finding]:
    """Everything found wrong, errors first; empty if nothing is. Frames of cameras are not looked at."""
    trajectories = trajectories.numbers()
    found = [*_short_episodes(trajectories), *_stale_goals(trajectories)]
    for stream in trajectories.spec.streams:
        values = trajectories.streams[stream.name]
        for finding in (_not_finite, _outside_limits, _constant, _jumps):
            found += finding(trajectories, stream, values)
    return sorted(found, key=lambda finding: finding.severity)


def check_source(source: str | Path, **how: Any) -> list[Finding]:
    """`check` of a recording in any format; one that cannot be read (wrong lengths, cut short) is an error found.

    how: as `read_recording` takes it.
    """
    try:
        trajectories = read_recording(source, **how)
    except ValueError as error:
        rule, _, remedy = str(error).partition("; ")
        remedy = remedy or "nothing else was checked"
        return [Finding(severity="error", stream="", rule=rule, count=1, where=(), remedy=remedy)]
    return check(trajectories)


def _short_episodes(trajectories: Trajectories) -> Iterator[Finding]:
    shortest = max(SHORTEST_STEPS, round(SHORTEST_S * trajectories.spec.control_hz))
    episodes = np.flatnonzero(trajectories.lengths < shortest)
    if episodes.size:
        yield Finding(
            severity="warning",
            stream="",
            rule=f"an episode should have at least {shortest} steps ({SHORTEST_S} s)",
            count=len(episodes),
            where=tuple((int(episode), 0) for episode in episodes[:FIRST_FEW]),
            remedy="harmless if few: windows that do not fit are never drawn; if many, look at how episodes are cut",
        )


def _stale_goals(trajectories: Trajectories) -> Iterator[Finding]:
    stale = ((trajectories.provenance.get("goals") or {}).get("stale_first")) or {"count": 0}
    if stale["count"]:
        yield Finding(
            severity="warning",
            stream=trajectories.spec.goal or "",
            rule="the first observation of an episode should carry its own goal, not that of the episode before",
            count=int(stale["count"]),
            where=tuple((int(episode), 0) for episode in stale["episodes"]),
            remedy="read recorded goals from step 1 on; training here does not use them",
        )


def _not_finite(trajectories: Trajectories, stream: StreamSpec, values: Array) -> Iterator[Finding]:
    rows = np.flatnonzero(_any_entry(~np.isfinite(values)))
    if rows.size:
        yield _finding(
            trajectories, stream, rows, "error", "must be finite", "remove those episodes or record them again"
        )


def _outside_limits(trajectories: Trajectories, stream: StreamSpec, values: Array) -> Iterator[Finding]:
    flat, outside = values.reshape(len(values), -1), np.zeros(len(values), bool)
    rounding = 1e-6
    if stream.low is not None:
        low = np.array(stream.low)
        outside |= (flat < low - rounding * np.maximum(1, np.abs(low))).any(axis=1)
    if stream.high is not None:
        high = np.array(stream.high)
        outside |= (flat > high + rounding * np.maximum(1, np.abs(high))).any(axis=1)
    rows = np.flatnonzero(outside)
    if rows.size:
        severity: Severity = "error" if stream.role == "action" else "warning"
        rule = f"must stay within its limits {_shown(stream.low)} to {_shown(stream.high)}"
        yield _finding(trajectories, stream, rows, severity, rule, "clip when recording, or correct the limits")


def _constant(trajectories: Trajectories, stream: StreamSpec, values: Array) -> Iterator[Finding]:
    flat = values.reshape(len(values), -1)
    same = (flat == flat[0]).all(axis=0)
    if len(values) > 1 and same.any():
        yield Finding(
            severity="warning",
            stream=stream.name,
            rule=f"should vary: {int(same.sum())} of its {stream.size} entries never change",
            count=int(same.sum()),
            where=(),
            remedy="a sensor that is not connected, or nothing to learn from: leave the stream out if so",
        )


def _jumps(trajectories: Trajectories, stream: StreamSpec, values: Array) -> Iterator[Finding]:
    """Against the rate where one is recorded; against the stream's own usual changes otherwise."""
    if stream.role != "observation" or not np.issubdtype(values.dtype, np.floating):
        return
    spec, starts = trajectories.spec, trajectories.starts("observation")
    if stream.rate_of is not None:
        position = trajectories.streams[stream.rate_of]
        if misfit := _wrong_hz(trajectories, stream, position, values):
            yield misfit
            return
        steps, tolerance = disagreements(position, values, starts, 1 / spec.control_hz)
        rule = f"{stream.rate_of!r} must move by dt·{stream.name!r} each step, give or take {tolerance:.3g}"
        remedy = "an unflagged reset or a sensor fault: cut or remove the episode"
        severity: Severity = "error"
    elif any(other.rate_of == stream.name for other in spec.streams):
        return  # judged with its rate
    else:
        steps = unusual_changes(values, starts)
        rule = "should not change by more than ten times its largest usual change"
        remedy = "an unflagged reset or a sensor fault: cut or remove the episode; harmless if such changes are meant"
        severity = "warning"
    if steps.size:
        places = locate(steps[:FIRST_FEW], trajectories)
        yield Finding(severity=severity, stream=stream.name, rule=rule, count=len(steps), where=places, remedy=remedy)


def _wrong_hz(trajectories: Trajectories, stream: StreamSpec, position: Array, rate: Array) -> Finding | None:
    """A control_hz that the recording itself contradicts, which would let every step disagree."""
    flat, flat_rate = position.reshape(len(position), -1), rate.reshape(len(rate), -1)
    finite = np.isfinite(flat).all(axis=1) & np.isfinite(flat_rate).all(axis=1)
    claimed = trajectories.spec.control_hz
    seconds = fitted_dt(flat[finite], flat_rate[finite])
    if seconds is None or abs(seconds * claimed - 1) <= HZ_TOLERANCE:
        return None
    return Finding(
        severity="error",
        stream=stream.name,
        rule=f"must be the rate of {stream.rate_of!r} at control_hz, which is {claimed:g}; "
        f"the data moves as if it were {1 / seconds if seconds else np.inf:.3g}",
        count=int(trajectories.lengths.sum()),
        where=(),
        remedy="pass the right control_hz when reading, or drop rate_of if this is no rate",
    )


def _finding(
    trajectories: Trajectories, stream: StreamSpec, rows: NDArray[np.int64], severity: Severity, rule: str, remedy: str
) -> Finding:
    where = locate(rows[:FIRST_FEW], trajectories, stream.role)
    return Finding(severity=severity, stream=stream.name, rule=rule, count=len(rows), where=where, remedy=remedy)


def _any_entry(flags: Array) -> NDArray[np.bool_]:
    return np.asarray(flags.reshape(len(flags), -1).any(axis=1))


def _shown(limits: tuple[float, ...] | None) -> Any:
    if limits is None:
        return "none"
    return limits[0] if len(set(limits)) == 1 else limits
