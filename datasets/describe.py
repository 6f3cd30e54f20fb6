"""What a recording holds, in figures: episodes, lengths, tasks, each stream's range. Judges nothing."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from forcing.datasets.sampled import sampled_rows
from forcing.policy.types import Array, StreamSpec, Trajectories

SAMPLED_FRAMES = 256
LONGEST_LINE = 2000


@dataclass(frozen=True, slots=True, kw_only=True)
class StreamSummary:
    """One stream over all its entries and steps, finite values alone, in its units.

    Of a camera, `SAMPLED_FRAMES` of its frames, evenly spaced.
    """

    name: str
    role: str
    shape: tuple[int, ...]
    units: str
    dtype: str
    low: float
    high: float
    mean: float
    std: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Description:
    """length_steps: quantile of the episodes' lengths (0, 25, 50, 75, 100 %) -> control steps. hours: at control_hz.

    tasks, subsets: episodes of each that the recording names; an episode may be in several subsets.
    """

    episodes: int
    steps: int
    control_hz: float
    hours: float
    goal: str | None
    length_steps: Mapping[str, float]
    streams: tuple[StreamSummary, ...]
    provenance: Mapping[str, Any]
    tasks: Mapping[str, int]
    subsets: Mapping[str, int]

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    def __str__(self) -> str:
        lengths = ", ".join(f"{share} {steps:g}" for share, steps in self.length_steps.items())
        lines = [
            f"{self.episodes} episodes, {self.steps} steps, {self.hours:.3g} hours at {self.control_hz:g} Hz",
            f"episode length, steps: {lengths}",
            f"goal stream: {self.goal or 'none'}",
            f"{'stream':<16}{'role':<13}{'shape':<14}{'units':<8}{'min':>12}{'max':>12}{'mean':>12}{'std':>12}",
        ]
        for s in self.streams:
            figures = "".join(f"{value:>12.4g}" for value in (s.low, s.high, s.mean, s.std))
            lines.append(f"{s.name:<16}{s.role:<13}{s.shape!s:<14}{s.units or '-':<8}{figures}")
        lines += [f"task, {count} episodes: {task}" for task, count in self.tasks.items()]
        lines += [f"subset {name}: {count} episodes" for name, count in self.subsets.items()]
        lines += [f"{key}: {_shown(value)}" for key, value in self.provenance.items() if value is not None]
        return "\n".join(lines)


def describe(trajectories: Trajectories) -> Description:
    """Episodes, steps, hours, lengths, each stream's range, and where the recording comes from."""
    spec, lengths = trajectories.spec, trajectories.lengths
    quantiles = {f"{share} %": float(np.quantile(lengths, share / 100)) for share in (0, 25, 50, 75, 100)}
    steps = int(lengths.sum())
    return Description(
        episodes=len(lengths),
        steps=steps,
        control_hz=spec.control_hz,
        hours=steps / spec.control_hz / 3600,
        goal=spec.goal,
        length_steps=quantiles,
        streams=tuple(_summary(stream, _values(trajectories, stream)) for stream in spec.streams),
        provenance=dict(trajectories.provenance),
        tasks=dict(Counter(note.task for note in trajectories.notes if note.task)),
        subsets=dict(Counter(subset for note in trajectories.notes for subset in note.subsets)),
    )


def _values(trajectories: Trajectories, stream: StreamSpec) -> Array:
    if not stream.image:
        return trajectories.streams[stream.name]
    return sampled_rows(trajectories.frames[stream.name], SAMPLED_FRAMES)


def _shown(value: Any) -> str:
    """A line of provenance; the list of what was mended can be as long as the recording is broken."""
    text = str(value)
    return text if len(text) <= LONGEST_LINE else f"{text[:LONGEST_LINE]} …"


def _summary(stream: StreamSpec, values: Array) -> StreamSummary:
    finite = values[np.isfinite(values)]
    low, high, mean, std = (
        (float(finite.min()), float(finite.max()), float(finite.mean(dtype=np.float64)), float(finite.std(dtype=float)))
        if finite.size
        else (np.nan,) * 4
    )
    return StreamSummary(
        name=stream.name,
        role=stream.role,
        shape=stream.shape,
        units=stream.units,
        dtype=values.dtype.str,
        low=low,
        high=high,
        mean=mean,
        std=std,
    )
