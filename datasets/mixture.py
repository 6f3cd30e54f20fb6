"""Windows out of several recordings, each drawn as often as its weight says."""

from collections.abc import Sequence
from dataclasses import fields

import numpy as np

from forcing.datasets.batch_memory import BatchMemory
from forcing.datasets.windows import CACHE_BYTES, TrajectoryWindows
from forcing.policy.types import Array, StreamSpec, Trajectories, TrajectorySpec, WindowBatch, WindowSource


class Mixture:
    """A `WindowSource` of several: the source of each window is drawn by weight, its anchor by the source."""

    def __init__(self, sources: Sequence[WindowSource], weights: Sequence[float]) -> None:
        """weights: one a source, positive; their ratios count. Raises ValueError if not, or if the sources differ in
        their streams, rate or goal, naming the first difference; ranges of streams need not agree."""
        if not sources:
            raise ValueError("a mixture needs at least 1 source, got none")
        if len(weights) != len(sources):
            raise ValueError(f"weights must be one for each of {len(sources)} sources, got {len(weights)}")
        if not all(np.isfinite(weight) and weight > 0 for weight in weights):
            raise ValueError(f"weights must be positive, got {list(weights)}; leave out a source that is not wanted")
        for number, source in enumerate(sources[1:], start=2):
            if difference := spec_difference(sources[0].spec, source.spec):
                raise ValueError(f"recording {number} of a mixture must be like the first: {difference}")
        self._sources = tuple(sources)
        self._weights = np.array(weights, float) / sum(weights)
        self._memory = {stream.name: BatchMemory() for stream in self.spec.streams}
        self._drawn = 0

    @property
    def spec(self) -> TrajectorySpec:
        """The first source's."""
        return self._sources[0].spec

    def anchors(self, future: int) -> int:
        """Of all sources together."""
        return sum(source.anchors(future) for source in self._sources)

    def sample(
        self, rng: np.random.Generator, count: int, past: int, future: int, *, drawn: int | None = None
    ) -> WindowBatch:
        """As `TrajectoryWindows.sample`. A source none of whose episodes has `future` steps is left out."""
        if count < 1:
            raise ValueError(f"count must be at least 1, got {count}")
        before = self._drawn if drawn is None else drawn
        fits = np.array([source.anchors(future) > 0 for source in self._sources])
        if not fits.any():
            return self._sources[0].sample(rng, count, past, future)  # which says what is wrong
        shares = np.cumsum(np.where(fits, self._weights, 0.0))
        chosen = np.searchsorted(shares, rng.random(count) * shares[-1], side="right")
        streams: dict[str, Array] = {}
        past_valid = np.zeros(count, np.int64)
        for number in np.unique(chosen):
            rows = np.flatnonzero(chosen == number)
            # So many it gave before, or nearly; its own count would not be known to a run that is resumed.
            earlier = int(before * self._weights[number])
            batch = self._sources[number].sample(rng, len(rows), past, future, drawn=earlier)
            past_valid[rows] = batch.past_valid
            for name, values in batch.streams.items():
                if name not in streams:
                    streams[name] = self._memory[name].array((count, *values.shape[1:]), values.dtype)
                streams[name][rows] = values
        self._drawn = before + count
        return WindowBatch(streams=streams, past_valid=past_valid)


def windows_of(
    recordings: Sequence[Trajectories],
    weights: Sequence[float] | None = None,
    *,
    seed: int = 0,
    cache_bytes: int = CACHE_BYTES,
    worker: tuple[int, int] = (0, 1),
) -> WindowSource:
    """Windows of one recording, or of several by weight; by their numbers of rows if no weights are given.

    cache_bytes: for decoded frames of all of them. Raises ValueError as `Mixture` does.
    """
    if not recordings:
        raise ValueError("there must be at least 1 recording to train on, got none")
    share = cache_bytes // len(recordings)
    sources = [TrajectoryWindows(found, seed=seed, cache_bytes=share, worker=worker) for found in recordings]
    if len(sources) == 1 and weights is None:
        return sources[0]
    return Mixture(sources, weights or [float(found.lengths.sum()) for found in recordings])


def spec_difference(first: TrajectorySpec, other: TrajectorySpec) -> str | None:
    """What keeps windows of the two from being one batch, None if nothing does."""
    names, others = [stream.name for stream in first.streams], [stream.name for stream in other.streams]
    if names != others:
        return f"its streams are {others}, not {names}; name them alike first: forcing data convert --stream"
    for stream in first.streams:
        for key in (field.name for field in fields(StreamSpec) if field.name not in ("low", "high")):
            expected, found = getattr(stream, key), getattr(other[stream.name], key)
            if expected != found:
                return f"{key} of stream {stream.name!r} is {found!r}, not {expected!r}"
    if first.control_hz != other.control_hz:
        return f"control_hz is {other.control_hz:g}, not {first.control_hz:g}; resample one of them"
    return None if first.goal == other.goal else f"goal is {other.goal!r}, not {first.goal!r}"
