"""Numbers judged by how they change: jumps, a rate that does not fit, clocks, steps that took longer than they say."""

from collections.abc import Iterator

import numpy as np

from forcing.datasets.clocks import clocks, is_clock, ticks
from forcing.datasets.findings import Finding, Kind, found_in_rows
from forcing.datasets.motion import changes, disagreements, fitted_dt, unusual_changes
from forcing.policy.types import Array, Index, StreamSpec, Trajectories

HZ_TOLERANCE = 0.2
# A step took longer: all entries moved by at least this many times what their steady rate says, give or take a share.
LATE_TIMES, STEADY_SHARE, USUAL_SPREAD = 1.7, 0.25, 0.1
CLOCK_LATE = 1.8  # usual ticks: a camera that jitters stays below
CLOCK_UNITS = {1.0: "s", 1e3: "ms", 1e6: "µs", 1e9: "ns"}
COARSE_SHARE = 0.1  # of a tick: what a clock's numbers must resolve
COARSE_REMEDY = (
    "record it finer and from the start of each episode, or leave the stream out; its jumps were not looked for"
)


def check_motion(trajectories: Trajectories) -> Iterator[Finding]:
    """Jumps and wrong rates of each float observation, late steps, and what clocks say."""
    for stream in trajectories.spec.of_role("observation"):
        if stream.image or not np.issubdtype(trajectories.streams[stream.name].dtype, np.floating):
            continue
        if stream.rate_of is not None:
            yield from _rate(trajectories, stream, stream.rate_of)
        elif trajectories.spec.rate(stream.name) is None and not is_clock(trajectories, stream):
            yield from _unusual(trajectories, stream)
    for clock in clocks(trajectories):
        yield from _clock(trajectories, clock)


def _rate(trajectories: Trajectories, stream: StreamSpec, position_name: str) -> Iterator[Finding]:
    """A position against its rate."""
    position, rate = trajectories.streams[position_name], trajectories.streams[stream.name]
    if misfit := _wrong_hz(trajectories, stream, position, rate):
        yield misfit
        return
    dt, starts = 1 / trajectories.spec.control_hz, trajectories.starts("observation")
    steps, tolerance = disagreements(position, rate, starts, dt)
    if steps.size:
        rule = f"{position_name!r} must move by dt·{stream.name!r} each step, give or take {tolerance:.3g}"
        remedy = "an unflagged reset or a sensor fault: cut or remove the episode; --fix cuts there"
        yield found_in_rows(trajectories, "jump", "error", stream.name, steps, rule, remedy)
    late = np.setdiff1d(late_steps(position, rate, starts, dt), steps)
    if late.size:
        rule = f"{position_name!r} moves by {LATE_TIMES:g} times dt·{stream.name!r} or more, in all entries alike"
        remedy = "a step took a multiple of its time, such as where frames were dropped; --fix cuts there"
        yield found_in_rows(trajectories, "clock jump", "warning", stream.name, late, rule, remedy)


def _unusual(trajectories: Trajectories, stream: StreamSpec) -> Iterator[Finding]:
    """A stream without a rate, against its own usual changes."""
    steps = unusual_changes(trajectories.streams[stream.name], trajectories.starts("observation"))
    if steps.size:
        rule = "should not change by more than ten times its largest usual change"
        remedy = "an unflagged reset or a sensor fault: cut or remove the episode; harmless if such changes are meant"
        yield found_in_rows(trajectories, "unusual change", "warning", stream.name, steps, rule, remedy)


def _wrong_hz(trajectories: Trajectories, stream: StreamSpec, position: Array, rate: Array) -> Finding | None:
    """A control_hz that the recording itself contradicts, which would let every step disagree."""
    flat, flat_rate = position.reshape(len(position), -1), rate.reshape(len(rate), -1)
    finite = np.isfinite(flat).all(axis=1) & np.isfinite(flat_rate).all(axis=1)
    claimed = trajectories.spec.control_hz
    seconds = fitted_dt(flat[finite], flat_rate[finite])
    if seconds is None or abs(seconds * claimed - 1) <= HZ_TOLERANCE:
        return None
    return Finding(
        kind="wrong rate",
        severity="error",
        stream=stream.name,
        rule=f"must be the rate of {stream.rate_of!r} at control_hz, which is {claimed:g}; "
        f"the data moves as if it were {1 / seconds if seconds else np.inf:.3g}",
        count=int(trajectories.lengths.sum()),
        where=(),
        remedy="pass the right control_hz when reading, or drop rate_of if this is no rate",
    )


def late_steps(position: Array, rate: Array, starts: Index, dt: float) -> Index:
    """Steps in which the position went on along its steady rate, but for a multiple of dt: it was lost sight of.

    Judged where the rate hardly changes and is at least half the median speed, and in recordings whose steps agree with
    their rate closely enough elsewhere to tell.
    """
    moved = changes(position, starts)
    flat = rate.reshape(len(rate), -1).astype(np.float64)
    turned = changes(rate, starts)
    before = np.delete(flat, _last_rows(starts, len(flat)), axis=0)
    with np.errstate(invalid="ignore", divide="ignore"):
        steady = dt * (before + turned / 2)
        speed = np.sqrt((steady**2).sum(axis=1))
        times = (moved * steady).sum(axis=1) / speed**2
        aside = np.sqrt(((moved - times[:, None] * steady) ** 2).sum(axis=1))
        fast = speed >= np.nanmedian(speed) / 2 if np.isfinite(speed).any() else np.zeros(len(speed), bool)
        sure = fast & (dt * np.sqrt((turned**2).sum(axis=1)) <= STEADY_SHARE * speed)
        sure &= aside <= STEADY_SHARE * np.abs(times) * speed
    usual = times[sure & np.isfinite(times)]
    if not usual.size or np.quantile(np.abs(usual - 1), 0.9) > USUAL_SPREAD:
        return np.zeros(0, np.int64)
    return np.flatnonzero(sure & (times >= LATE_TIMES))


def _last_rows(starts: Index, rows: int) -> Index:
    """Rows of each episode's last observation."""
    return np.append(starts[1:], rows) - 1


def _clock(trajectories: Trajectories, clock: StreamSpec) -> Iterator[Finding]:
    """A clock that goes backwards, leaves ticks out, contradicts control_hz, or is stored too coarsely to tell."""
    ticked, values = ticks(trajectories, clock), trajectories.streams[clock.name]
    finite = ticked[np.isfinite(ticked)]
    usual = float(np.median(finite)) if finite.size else 0.0
    if np.issubdtype(values.dtype, np.floating):
        resolved = float(np.spacing(np.abs(values[np.isfinite(values)]).max(initial=0)))
        if resolved > COARSE_SHARE * usual:
            rule = f"must resolve a step, its numbers as {values.dtype.name} only {resolved:.3g}"
            yield _of_all(trajectories, "clock", clock, rule, COARSE_REMEDY)
            return
    if usual <= 0:
        rule = "must resolve a step, and does not rise in most of them"
        yield _of_all(trajectories, "clock", clock, rule, COARSE_REMEDY)
        return
    hz = trajectories.spec.control_hz
    unit = min(CLOCK_UNITS, key=lambda scale: abs(np.log(usual * hz / scale)))
    if abs(usual * hz / unit - 1) > HZ_TOLERANCE:
        rule = f"should tick by 1/control_hz, which is {hz:g}; it ticks as if that were {unit / usual:.4g}"
        remedy = f"pass the right control_hz when reading, if the clock counts {CLOCK_UNITS[unit]}"
        yield _of_all(trajectories, "wrong rate", clock, rule, remedy)
    remedy = "the recorder stood still or its clock was set: --fix cuts there"
    if (falls := np.flatnonzero(ticked <= 0)).size:
        yield found_in_rows(trajectories, "clock jump", "error", clock.name, falls, "must rise", remedy)
    if (late := np.flatnonzero(ticked > CLOCK_LATE * usual)).size:
        most = f"{ticked[late].max() / usual:.3g}"
        rule = f"should not tick by more than {CLOCK_LATE:g} times its usual, ticks by up to {most} times"
        yield found_in_rows(trajectories, "clock jump", "warning", clock.name, late, rule, remedy)


def _of_all(trajectories: Trajectories, kind: Kind, clock: StreamSpec, rule: str, remedy: str) -> Finding:
    return Finding(
        kind=kind,
        severity="warning",
        stream=clock.name,
        rule=rule,
        count=int(trajectories.lengths.sum()),
        where=(),
        remedy=remedy,
    )
