"""Streams that are off by the factor between two units, told from the recording itself, and undone.

Degrees where radians are meant, or millimetres where metres: 57.3 or 1000 times (or 100) what a rate's position moves
by, or what the same stream is in the other episodes. Knows no file.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np

from forcing.datasets.clocks import is_clock
from forcing.policy.types import Array, Index, StreamSpec, Trajectories

DEGREES = 180 / np.pi
MEANING = {DEGREES: "degrees and radians", 1000.0: "millimetres and metres", 100.0: "centimetres and metres"}
FACTORS = (*MEANING, *(1 / factor for factor in MEANING))  # either way
# A factor of 100 between a rate and its position is rather a wrong control_hz.
RATE_FACTORS = tuple(factor for factor in FACTORS if factor not in (100.0, 1 / 100.0))
RATE_TOLERANCE, AGREEING_SHARE, LEAST_ROWS = 0.3, 2 / 3, 10
# Episodes against each other, as logarithms: how far a size may lie from the factor, and how sure it must be.
NEAR, SURE, CLEAR_SHARE = np.log(2.5), 0.09, 0.9
LEAST_EPISODES = 3
OTHERS = "other episodes"


@dataclass(frozen=True, slots=True, kw_only=True)
class UnitFault:
    """A stream whose numbers are `factor` times what they should be.

    episodes, entries: where. against: the stream, or what else, that says so. proven: whether dividing by the factor
    makes the recording agree with itself, with no other factor possible.
    """

    stream: str
    factor: float
    episodes: Index
    entries: tuple[int, ...]
    against: str
    proven: bool

    @property
    def meaning(self) -> str:
        """The two units that differ by this factor."""
        return MEANING[max(self.factor, 1 / self.factor)]

    def spans(self, trajectories: Trajectories) -> Index:
        """[n, 3] its episodes from their first row to the one after the last."""
        extra = 1 if trajectories.spec[self.stream].role == "observation" else 0
        ends = trajectories.lengths[self.episodes] + extra
        return np.stack([self.episodes, np.zeros_like(self.episodes), ends], axis=1)


def unit_faults(trajectories: Trajectories) -> list[UnitFault]:
    """Everything that is off by the factor between two units; each stream and episode at most once."""
    found = [fault for stream in trajectories.spec.streams for fault in _against_position(trajectories, stream)]
    known = {stream.name for stream in trajectories.spec.streams for fault in found if _concerns(fault, stream)}
    for stream in trajectories.spec.streams:
        if stream.image or stream.name in known or stream.role == "reward":
            continue
        if fault := _against_other_episodes(trajectories, stream):
            found.append(fault)
    return found


def undone(trajectories: Trajectories, faults: Sequence[UnitFault]) -> Trajectories:
    """With the streams of these faults divided by their factors."""
    streams = dict(trajectories.streams)
    for fault in faults:
        role = trajectories.spec[fault.stream].role
        values = streams[fault.stream].copy()
        flat = values.reshape(len(values), -1)
        starts, extra = trajectories.starts(role), 1 if role == "observation" else 0
        for episode in fault.episodes:
            rows = slice(int(starts[episode]), int(starts[episode] + trajectories.lengths[episode]) + extra)
            for entry in fault.entries:
                flat[rows, entry] = (flat[rows, entry] / fault.factor).astype(values.dtype)
        streams[fault.stream] = values
    return replace(trajectories, streams=streams) if faults else trajectories


def _concerns(fault: UnitFault, stream: StreamSpec) -> bool:
    return stream.name in (fault.stream, fault.against)


def _against_position(trajectories: Trajectories, stream: StreamSpec) -> Iterator[UnitFault]:
    """A rate that is a factor times what its position moves by, in all episodes or in some; else the position is."""
    if stream.rate_of is None:
        return
    rate, position = trajectories.streams[stream.name], trajectories.streams[stream.rate_of]
    if rate.shape != position.shape:
        return
    factors = _rate_factors(trajectories, position, rate)
    for factor in RATE_FACTORS:
        off = factors == factor
        for entries, episodes in _grouped(off):
            among_known = np.isfinite(factors[:, list(entries)]).any(axis=1)
            if len(episodes) == among_known.sum():
                every = np.arange(len(factors))
                yield UnitFault(
                    stream=stream.name,
                    factor=factor,
                    episodes=every,
                    entries=entries,
                    against=stream.rate_of,
                    proven=True,
                )
            else:
                yield _in_some_episodes(trajectories, stream, factor, episodes, entries)


def _in_some_episodes(
    trajectories: Trajectories, stream: StreamSpec, factor: float, episodes: Index, entries: tuple[int, ...]
) -> UnitFault:
    """Whichever of the rate and its position differs from the other episodes."""
    assert stream.rate_of is not None
    sizes = {name: _sizes(trajectories, name)[1] for name in (stream.name, stream.rate_of)}
    others = np.setdiff1d(np.arange(len(trajectories.lengths)), episodes)
    misfit = {}
    for name, wanted in ((stream.name, factor), (stream.rate_of, 1 / factor)):
        with np.errstate(invalid="ignore", divide="ignore"):
            ratios = sizes[name][episodes] / np.nanmedian(sizes[name][others], axis=0)
            misfit[name] = float(np.nanmedian(np.abs(np.log(ratios / wanted))[:, list(entries)]))
    off = min(misfit, key=lambda name: misfit[name])
    return UnitFault(
        stream=off,
        factor=factor if off == stream.name else 1 / factor,
        episodes=episodes,
        entries=entries,
        against=stream.rate_of if off == stream.name else stream.name,
        proven=misfit[off] < NEAR,
    )


def _rate_factors(trajectories: Trajectories, position: Array, rate: Array) -> Array:
    """[E, D] the factor of `RATE_FACTORS` that a rate is too large by; 1 if none, NaN if unknown."""
    dt = 1 / trajectories.spec.control_hz
    known = np.array(RATE_FACTORS)
    starts = trajectories.starts("observation")
    entries = int(np.prod(position.shape[1:], dtype=int))
    found = np.full((len(starts), entries), np.nan)
    for episode, (start, length) in enumerate(zip(starts, trajectories.lengths, strict=True)):
        rows = slice(int(start), int(start + length) + 1)
        with np.errstate(invalid="ignore"):  # between two that are infinite
            moved = np.diff(position[rows].reshape(length + 1, -1).astype(np.float64), axis=0)
        driven = dt * rate[rows].reshape(length + 1, -1)[1:].astype(np.float64)
        for entry in range(entries):
            usable = np.isfinite(moved[:, entry]) & np.isfinite(driven[:, entry]) & (moved[:, entry] != 0)
            size = np.abs(moved[usable, entry])
            fast = size >= np.median(size) if size.size else np.zeros(0, bool)
            if fast.sum() < LEAST_ROWS:
                continue
            ratio = driven[usable, entry][fast] / moved[usable, entry][fast]
            near = np.abs(ratio[:, None] / known - 1) < RATE_TOLERANCE
            best = int(near.sum(axis=0).argmax())
            found[episode, entry] = known[best] if near[:, best].mean() >= AGREEING_SHARE else 1.0
    return found


def _grouped(off: Array) -> Iterator[tuple[tuple[int, ...], Index]]:
    """Entries that are off in the same episodes, together."""
    seen: dict[bytes, list[int]] = {}
    for entry in np.flatnonzero(off.any(axis=0)):
        seen.setdefault(off[:, entry].tobytes(), []).append(int(entry))
    for entries in seen.values():
        yield tuple(entries), np.flatnonzero(off[:, entries[0]])


def _against_other_episodes(trajectories: Trajectories, stream: StreamSpec) -> UnitFault | None:
    """Episodes in which all entries are a factor larger or smaller than in most: numbers and changes alike."""
    values = trajectories.streams[stream.name]
    if (
        len(trajectories.lengths) < LEAST_EPISODES
        or not np.issubdtype(values.dtype, np.floating)
        or is_clock(trajectories, stream)
    ):
        return None
    with np.errstate(invalid="ignore", divide="ignore"):
        larger = [np.log(_over_usual(size)) for size in _sizes(trajectories, stream.name)]
    both = np.concatenate(larger, axis=1)  # [E, 2 D]
    usable = np.isfinite(both).any(axis=0)
    both, of_changes = both[:, usable], (np.arange(both.shape[1]) >= stream.size)[usable]
    known = np.isfinite(both).all(axis=1)
    if not of_changes.any() or of_changes.all() or known.sum() < LEAST_EPISODES:
        return None
    numbers, changes = np.median(both[:, ~of_changes], axis=1), np.median(both[:, of_changes], axis=1)
    for factor in FACTORS:
        wanted = np.log(factor)
        off = known & (np.abs(numbers - wanted) < NEAR) & (np.abs(changes - wanted) < NEAR)
        off &= (both / wanted > 0.5).mean(axis=1) >= CLEAR_SHARE
        between = known & ~off & (np.abs(numbers) > np.log(DEGREES) / 2) & (np.abs(changes) > np.log(DEGREES) / 2)
        if not off.any() or off.sum() > known.sum() / 2 or between.sum() > off.sum():
            continue
        best, sure = _nearest(both[off])
        episodes = np.flatnonzero(off)
        entries = tuple(range(stream.size))
        return UnitFault(
            stream=stream.name, factor=best, episodes=episodes, entries=entries, against=OTHERS, proven=sure
        )
    return None


def _nearest(logarithms: Array) -> tuple[float, bool]:
    """The factor nearest to these logarithms of sizes, and whether they leave no other."""
    mean, error = float(logarithms.mean()), float(logarithms.std() / np.sqrt(logarithms.size))
    best = min(FACTORS, key=lambda factor: abs(mean - np.log(factor)))
    return best, error < SURE and abs(mean - np.log(best)) < 3 * SURE


def _sizes(trajectories: Trajectories, name: str) -> tuple[Array, Array]:
    """[E, D] median size of the numbers in each episode, and of their changes where they change; NaN if none."""
    role, values = trajectories.spec[name].role, trajectories.streams[name]
    starts, extra = trajectories.starts(role), 1 if role == "observation" else 0
    numbers, changes = [], []
    for start, length in zip(starts, trajectories.lengths, strict=True):
        flat = values[int(start) : int(start + length) + extra].reshape(int(length) + extra, -1)
        numbers.append(_median_size(flat))
        with np.errstate(invalid="ignore"):
            changes.append(_median_size(np.diff(flat.astype(np.float64), axis=0)))
    return np.array(numbers), np.array(changes)


def _median_size(flat: Array) -> Array:
    """[D] of the entries' sizes that are neither zero nor unknown."""
    sizes = np.abs(flat.astype(np.float64))
    sizes[~np.isfinite(sizes) | (sizes == 0)] = np.nan
    return _median(sizes)


def _over_usual(sizes: Array) -> Array:
    """Each episode's size over that of the usual episode: the median, and then that of those near it."""
    ratios = np.array(sizes)
    for _ in range(2):
        near = np.where(np.abs(np.log(ratios / _median(ratios))) < np.log(DEGREES) / 2, ratios, np.nan)
        ratios = ratios / _median(near)
    return ratios


def _median(sizes: Array) -> Array:
    """[D] the lower median of those that are known; NaN if none is."""
    if not len(sizes):
        return np.full(sizes.shape[1], np.nan)
    known = np.isfinite(sizes).sum(axis=0)
    return np.asarray(
        np.sort(sizes, axis=0)[np.maximum(known - 1, 0) // 2, np.arange(sizes.shape[1])]
    )  # NaN sorts last
