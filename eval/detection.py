"""What a policy took for disturbed, held against what was, reading by reading.

A reading is flagged if it was left aside, or is rarer than `false_alarms` of the recorded ones, whatever the policy
does about it. An episode's record: stream -> spans of steps at which it was flagged and distracted, [first, behind the
last], and how many of its readings had which surprise, where it was distracted and where it was not. Knows no policy
and no simulator.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from forcing.eval.rollout import Episode
from forcing.policy.types import SensorReport

FALSE_ALARMS = 1e-3  # what policies that doubt go by, if nothing else is asked for
STEP, MOST = 0.5, 20  # surprise is counted in bins of half a decade up to ten, the last one without an end
Span = Sequence[int]
Record = Mapping[str, Mapping[str, Any]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Counts:
    """Of all streams. frames: readings that the policy could judge. disturbed: of these, distracted. flagged: of these,
    distracted or not. hits: flagged and distracted. alarms: runs of flagged readings, none of which was distracted.
    spans: runs of distracted ones. delays: steps from the begin of each to its first flagged one, where there is one.
    steps: of the episodes."""

    frames: int
    disturbed: int
    flagged: int
    hits: int
    alarms: int
    spans: int
    delays: tuple[int, ...]
    steps: int

    @property
    def precision(self) -> float | None:
        """Share of flagged readings that were disturbed; None if none was flagged."""
        return self.hits / self.flagged if self.flagged else None

    @property
    def recall(self) -> float | None:
        """Share of disturbed readings that were flagged; None if none was disturbed."""
        return self.hits / self.disturbed if self.disturbed else None

    @property
    def false_alarms(self) -> float | None:
        """Share of undisturbed readings that were flagged; None if all were disturbed."""
        clean = self.frames - self.disturbed
        return (self.flagged - self.hits) / clean if clean else None

    def alarms_a_minute(self, control_hz: float) -> float:
        return self.alarms / (self.steps / control_hz / 60)


def detection(episodes: Sequence[Episode], false_alarms: float = FALSE_ALARMS) -> dict[str, Any] | None:
    """What reports say of `Counts`: frames, disturbed, precision, recall, false_alarms. None if nothing was judged."""
    records = [recorded(episode, false_alarms) for episode in episodes]
    counts = counted(records, [len(episode.actions) for episode in episodes])
    names = ("frames", "disturbed", "precision", "recall", "false_alarms")
    return {name: getattr(counts, name) for name in names} if counts.frames else None


def recorded(episode: Episode, false_alarms: float) -> Record:
    """One episode's record, empty without a policy that says what it thinks of its sensors.

    false_alarms: share of recorded readings, see above. What is left aside unjudged, as no recorded reading was
    anything like it, counts as most surprising.
    """
    sensors, record = episode.trace.sensors, {}
    for name in sensors[0] if sensors else ():
        true = [name in names for names, _ in zip(episode.distracted, sensors, strict=False)]
        surprise = [_surprise(reports[name]) for reports in sensors]
        limit = -np.log10(false_alarms)
        flagged = [
            reports[name].rejected or (found is not None and found > limit)
            for reports, found in zip(sensors, surprise, strict=True)
        ]
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


def counted(records: Sequence[Record], steps: Sequence[int]) -> Counts:
    """Of all streams of all episodes. steps: of each episode."""
    frames = disturbed = flagged = hits = alarms = runs = 0
    delays = []
    for stream in (stream for record in records for stream in record.values()):
        true, flags = stream["distracted"], stream["flagged"]
        disturbed += sum(stream["disturbed"])
        frames += sum(stream["disturbed"]) + sum(stream["undisturbed"])
        flagged += sum(last - first for first, last in flags)
        hits += sum(max(0, last - first) for first, last in _common(true, flags))
        alarms += sum(not any(first < last for first, last in _common([flag], true)) for flag in flags)
        runs += len(true)
        for span in true:
            starts = [first for first, last in _common([span], flags) if first < last]
            delays += [min(starts) - span[0]] if starts else []
    return Counts(
        frames=frames,
        disturbed=disturbed,
        flagged=flagged,
        hits=hits,
        alarms=alarms,
        spans=runs,
        delays=tuple(delays),
        steps=sum(steps),
    )


def beyond(records: Sequence[Record], kind: str, decades: float) -> float | None:
    """Share of readings whose surprise was at least so many decades, a multiple of `STEP`. kind: disturbed or
    undisturbed. None if there were none. Flags were made at one threshold, and what is planned from goes by them."""
    counts = np.sum([stream[kind] for record in records for stream in record.values()], axis=0)
    total = int(counts.sum())
    return float(counts[round(decades / STEP) :].sum()) / total if total else None


def _surprise(report: SensorReport) -> float | None:
    return np.inf if report.surprise is None and report.rejected else report.surprise


def _histogram(surprise: Sequence[float]) -> list[int]:
    bins = np.minimum(np.asarray(surprise, np.float64) / STEP, MOST).astype(np.int64)
    return [int(count) for count in np.bincount(bins, minlength=MOST + 1)]


def _common(ones: Sequence[Span], others: Sequence[Span]) -> Iterator[tuple[int, int]]:
    """What every two have in common, nothing if the second number is not greater."""
    for one in ones:
        for other in others:
            yield max(one[0], other[0]), min(one[1], other[1])
