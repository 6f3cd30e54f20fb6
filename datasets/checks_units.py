"""Wrong units by a factor: what `units` finds, and streams that contradict the unit they are declared in."""

from collections.abc import Iterator, Sequence

import numpy as np

from forcing.datasets.clocks import is_clock
from forcing.datasets.findings import Finding, found_in_spans
from forcing.datasets.units import DEGREES, MEANING, NEAR, OTHERS, UnitFault
from forcing.policy.types import Array, StreamSpec, Trajectories

RADIANS = {"rad", "rads", "radian", "radians"}
FAR_RADIANS = 8 * np.pi  # joints turn once or twice; degrees exceed this in a seventh of a turn
ENTRY_FACTORS, LEAST_ENTRIES = (DEGREES, 1000.0), 3


def check_units(trajectories: Trajectories, faults: Sequence[UnitFault]) -> Iterator[Finding]:
    """`faults` as findings, and entries of streams that cannot be in the unit that is declared."""
    yield from (_finding(trajectories, fault) for fault in faults)
    known = {fault.stream for fault in faults}
    for stream in trajectories.spec.streams:
        if stream.name in known or stream.image or not stream.units or is_clock(trajectories, stream):
            continue
        yield from _against_declared(trajectories, stream)


def _finding(trajectories: Trajectories, fault: UnitFault) -> Finding:
    stream = trajectories.spec[fault.stream]
    entries = "" if len(fault.entries) == stream.size else f" in entries {list(fault.entries)}"
    larger = f"{fault.factor:.4g} times" if fault.factor > 1 else f"1/{1 / fault.factor:.4g} of"
    verb = "have" if fault.against == OTHERS else "says"
    says = fault.against if fault.against == OTHERS else f"stream {fault.against!r}"
    mended = (
        "--fix divides"
        if fault.proven
        else "how many times exactly cannot be told from the recording: mend it where it is made"
    )
    return found_in_spans(
        "wrong unit",
        "error" if fault.proven else "warning",
        fault.stream,
        fault.spans(trajectories),
        f"must be in one unit, is {larger} what {says} {verb}{entries}",
        f"{fault.meaning} were mixed: {mended}",
    )


def _against_declared(trajectories: Trajectories, stream: StreamSpec) -> Iterator[Finding]:
    values = trajectories.streams[stream.name]
    flat = values.reshape(len(values), -1)
    if not np.issubdtype(flat.dtype, np.floating):
        return
    sizes = np.array([_usual_largest(entry) for entry in flat.T])
    if stream.units.lower() in RADIANS and (far := np.flatnonzero(sizes > FAR_RADIANS)).size:
        yield _entries_finding(
            stream,
            far.tolist(),
            f"is declared in {stream.units} and reaches {sizes[far].max():.4g}",
            "degrees, if these joints do not turn many times: correct the units, or convert the numbers",
        )
    elif len(sizes) >= LEAST_ENTRIES:
        usual = float(np.quantile(sizes, 0.5, method="lower"))
        ratio = np.log(np.maximum(sizes, 1e-300) / usual) if usual > 0 else np.zeros_like(sizes)
        for factor in ENTRY_FACTORS:
            off = np.flatnonzero(np.abs(ratio - np.log(factor)) < NEAR / 2)
            if off.size and (np.abs(np.delete(ratio, off)) < NEAR).all():
                yield _entries_finding(
                    stream,
                    off.tolist(),
                    f"is declared in {stream.units}, and some entries are about {factor:.4g} times the others",
                    f"{MEANING[factor]}, if all entries mean the same: convert these, or split the stream",
                )
                return


def _usual_largest(entry: Array) -> float:
    finite = np.abs(entry[np.isfinite(entry)])
    return float(np.quantile(finite, 0.99)) if finite.size else 0.0


def _entries_finding(stream: StreamSpec, entries: list[int], rule: str, remedy: str) -> Finding:
    return Finding(
        kind="wrong unit",
        severity="warning",
        stream=stream.name,
        rule=f"{rule} (entries {entries})",
        count=len(entries),
        where=(),
        remedy=remedy,
    )
