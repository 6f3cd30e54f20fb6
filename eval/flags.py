"""What a policy took for a disturbed camera, held against what was one, frame by frame.

An episode's record: stream -> spans of frames at which it was flagged and distracted, [first, behind the last], and how
many of its frames had which surprise, where it was distracted and where it was not. Knows no policy and no simulator.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from forcing.policy.types import SensorReport

STEP, MOST = 0.5, 20  # surprise is counted in bins of half a decade up to ten, the last one without an end
Span = Sequence[int]
Record = Mapping[str, Mapping[str, Any]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """frames: that were distracted. hits: of these, flagged. flagged: all that were. alarms: runs of flagged frames,
    none of which was distracted. spans: runs of distracted frames. delays: frames from the begin of each to its first
    flagged one, where there is one. steps: of the episodes."""

    frames: int
    hits: int
    flagged: int
    alarms: int
    spans: int
    delays: tuple[int, ...]
    steps: int

    @property
    def recall(self) -> float | None:
        return self.hits / self.frames if self.frames else None

    @property
    def precision(self) -> float | None:
        return self.hits / self.flagged if self.flagged else None

    def alarms_a_minute(self, control_hz: float) -> float:
        return self.alarms / (self.steps / control_hz / 60)


def recorded(sensors: Sequence[Mapping[str, SensorReport]], distracted: Sequence[Sequence[str]]) -> Record:
    """One episode's record. sensors: at each act. distracted: names of the cameras that were, at each observation."""
    record = {}
    for name in sensors[0]:
        true = [name in names for names, _ in zip(distracted, sensors, strict=False)]
        flagged = [reports[name].rejected for reports in sensors]
        surprise = [reports[name].surprise for reports in sensors]
        record[name] = {
            "flagged": spans(flagged),
            "distracted": spans(true),
            "disturbed": _histogram([s for s, one in zip(surprise, true, strict=True) if one and s is not None]),
            "undisturbed": _histogram([s for s, one in zip(surprise, true, strict=True) if not one and s is not None]),
        }
    return record


def spans(flags: Sequence[bool]) -> list[list[int]]:
    """[first, behind the last] of each run."""
    edges = np.flatnonzero(np.diff(np.concatenate([[False], np.asarray(flags, np.bool_), [False]])))
    return [[int(first), int(last)] for first, last in edges.reshape(-1, 2)]


def found(records: Sequence[Record], steps: Sequence[int]) -> Found:
    """Of all streams of all episodes. steps: of each episode."""
    frames = hits = flagged = alarms = runs = 0
    delays = []
    for stream in (stream for record in records for stream in record.values()):
        true, flags = stream["distracted"], stream["flagged"]
        frames += sum(last - first for first, last in true)
        flagged += sum(last - first for first, last in flags)
        hits += sum(max(0, last - first) for first, last in _common(true, flags))
        alarms += sum(not any(first < last for first, last in _common([flag], true)) for flag in flags)
        runs += len(true)
        for span in true:
            starts = [first for first, last in _common([span], flags) if first < last]
            delays += [min(starts) - span[0]] if starts else []
    return Found(
        frames=frames, hits=hits, flagged=flagged, alarms=alarms, spans=runs, delays=tuple(delays), steps=sum(steps)
    )


def beyond(records: Sequence[Record], kind: str, decades: float) -> float | None:
    """Share of frames whose surprise was at least so many decades, a multiple of `STEP`. kind: disturbed or
    undisturbed. None if there were none. Flags were made at one threshold, and what is planned from goes by them."""
    counts = np.sum([stream[kind] for record in records for stream in record.values()], axis=0)
    total = int(counts.sum())
    return float(counts[round(decades / STEP) :].sum()) / total if total else None


def _histogram(surprise: Sequence[float]) -> list[int]:
    bins = np.minimum(np.asarray(surprise, np.float64) // STEP, MOST).astype(np.int64)
    return [int(count) for count in np.bincount(bins, minlength=MOST + 1)]


def _common(ones: Sequence[Span], others: Sequence[Span]) -> Iterator[tuple[int, int]]:
    """What every two have in common, nothing if the second number is not greater."""
    for one in ones:
        for other in others:
            yield max(one[0], other[0]), min(one[1], other[1])
