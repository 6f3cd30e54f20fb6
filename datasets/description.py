"""What a recording holds, found by reading it episode by episode: streams, ranges, tasks, subsets. Judges nothing."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from forcing.datasets.episodes import Recording
from forcing.datasets.rows import check_rows
from forcing.datasets.statistics import RunningStatistics
from forcing.policy.types import Array, StreamSpec

BLOCK = 1 << 16
FIGURES = ("min", "max", "mean", "std")
TASKS_SHOWN = 10


@dataclass(frozen=True, slots=True, kw_only=True)
class StreamSummary:
    """One stream over all its entries and steps, finite values alone, in its units. image: whether it is a camera's.
    rate_of: the stream that it is the rate of, None if of none."""

    name: str
    role: str
    shape: tuple[int, ...]
    units: str
    dtype: str
    image: bool
    rate_of: str | None
    low: float
    high: float
    mean: float
    std: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Description:
    """format: as it was recognised. length_steps: quantile of the episodes' lengths (0, 25, 50, 75, 100 %) -> control
    steps. hours: at control_hz. tasks, subsets: what was to be done, or where episodes belong -> how many."""

    format: str
    episodes: int
    steps: int
    control_hz: float
    hours: float
    goal: str | None
    length_steps: Mapping[str, float]
    streams: tuple[StreamSummary, ...]
    tasks: Mapping[str, int]
    subsets: Mapping[str, int]
    provenance: Mapping[str, Any]

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    def __str__(self) -> str:
        lengths = ", ".join(f"{share} {steps:g}" for share, steps in self.length_steps.items())
        lines = [
            f"{self.episodes} episodes, {self.steps} steps, {self.hours:.3g} hours at {self.control_hz:g} Hz",
            f"format: {self.format}",
            f"episode length, steps: {lengths}",
            f"goal stream: {self.goal or 'none'}",
        ]
        wide = max(16, *(len(stream.name) + 2 for stream in self.streams))
        figures = "".join(f"{title:>12}" for title in FIGURES)
        lines.append(f"{'stream':<{wide}}{'role':<13}{'shape':<16}{'type':<9}{'units':<8}{figures}")
        lines += [_line(stream, wide) for stream in self.streams]
        lines += _listed("task", self.tasks) + _listed("subset", self.subsets)
        shown = {key: value for key, value in self.provenance.items() if value is not None and key != "subsets"}
        return "\n".join([*lines, *(f"{key}: {value}" for key, value in shown.items())])


def describe(recording: Recording, found: str) -> Description:
    """Episodes, steps, hours, lengths, each stream's range, tasks, subsets, and where the recording comes from.

    found: the format it was recognised as. One episode is in memory at a time. Raises ValueError at one that cannot be
    read, or has other rows than its spec says, or if there is none.
    """
    spec = recording.spec
    sums = {stream.name: _Entries() for stream in spec.streams}
    lengths, tasks, subsets = list[int](), Counter[str](), Counter[str]()
    for episode in recording.episodes():
        steps = len(episode.streams[spec.action.name])
        check_rows(spec, episode.streams, steps, episode.where)
        lengths.append(steps)
        tasks.update([episode.note.task] if episode.note.task else [])
        subsets.update(episode.note.subsets)
        for name, values in sums.items():
            values.add(episode.streams[name])
    if not lengths:
        raise ValueError("the recording must have at least 1 episode, got 0; record it again")
    return Description(
        format=found,
        episodes=len(lengths),
        steps=sum(lengths),
        control_hz=spec.control_hz,
        hours=sum(lengths) / spec.control_hz / 3600,
        goal=spec.goal,
        length_steps={f"{share} %": float(np.quantile(lengths, share / 100)) for share in (0, 25, 50, 75, 100)},
        streams=tuple(sums[stream.name].summary(stream) for stream in spec.streams),
        tasks=dict(tasks.most_common()),
        subsets=dict(subsets.most_common()),
        provenance=dict(recording.provenance()),
    )


class _Entries:
    """All entries of a stream together, and the type that they first came in."""

    def __init__(self) -> None:
        self._found = RunningStatistics(1)
        self._dtype = ""

    def add(self, values: Array) -> None:
        """Some at a time: as float64, frames take eight times their memory."""
        self._dtype = self._dtype or values.dtype.name
        flat = values.reshape(-1, 1)
        for start in range(0, len(flat), BLOCK):
            self._found.add(flat[start : start + BLOCK])

    def summary(self, stream: StreamSpec) -> StreamSummary:
        found = self._found.to_json()
        low, high, mean, std = (np.nan if found[key] == [None] else found[key][0] for key in FIGURES)
        return StreamSummary(
            name=stream.name,
            role=stream.role,
            shape=stream.shape,
            units=stream.units,
            dtype=self._dtype,
            image=stream.image,
            rate_of=stream.rate_of,
            low=low,
            high=high,
            mean=mean,
            std=std,
        )


def _line(stream: StreamSummary, wide: int) -> str:
    figures = "".join(f"{value:>12.4g}" for value in (stream.low, stream.high, stream.mean, stream.std))
    kind = "image" if stream.image else stream.role
    shape = "×".join(map(str, stream.shape)) or "1"
    rate = f"  rate of {stream.rate_of}" if stream.rate_of else ""
    return f"{stream.name:<{wide}}{kind:<13}{shape:<16}{stream.dtype:<9}{stream.units or '-':<8}{figures}{rate}"


def _listed(title: str, counted: Mapping[str, int]) -> list[str]:
    """The first few with their episodes."""
    shown = [f"{title}: {name} ({count} episodes)" for name, count in list(counted.items())[:TASKS_SHOWN]]
    left = len(counted) - len(shown)
    return [*shown, f"and {left} more {title}s"] if left else shown
