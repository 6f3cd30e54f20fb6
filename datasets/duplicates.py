"""Episodes that are in a recording twice: to the last byte, or from a later start on. Knows no file and no rule."""

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from forcing.datasets.clocks import is_clock
from forcing.policy.types import Index, Trajectories, blocks

BLOCK_BYTES = 32 << 20
FEWEST_SHARED_STEPS = 10
SHARED_SHARE = 0.5  # of the shorter episode's observations
NEAREST_PLACES = 8  # of equal rows that are compared: fewer than FEWEST_SHARED_STEPS, so that resting is no overlap


@dataclass(frozen=True, slots=True)
class Overlap:
    """Observations that two episodes share: `later` has those that `earlier` has `offset` observations later.

    whole: whether all of `later` lies in `earlier`, actions and frames included.
    """

    earlier: int
    later: int
    offset: int
    shared: int
    whole: bool


@dataclass(frozen=True, slots=True)
class Repeated:
    """Episodes that are there more than once. groups: those equal to the last byte. copies: all of these but the first
    of each group, rising. pairs: others that share observations."""

    groups: list[Index]
    copies: Index
    pairs: list[Overlap]


def repeated(trajectories: Trajectories) -> Repeated:
    """Everything that is in the recording twice."""
    groups = _same_episodes(trajectories)
    copies = np.array(sorted(int(episode) for group in groups for episode in group[1:]), np.int64)
    return Repeated(groups, copies, _overlaps(trajectories, copies))


def _same_episodes(trajectories: Trajectories) -> list[Index]:
    """Groups of two or more episodes that are equal to the last byte, numbers and frames."""
    groups: dict[tuple[int, bytes], list[int]] = {}
    starts = {stream.role: trajectories.starts(stream.role) for stream in trajectories.spec.streams}
    for episode, length in enumerate(trajectories.lengths):
        digest = hashlib.sha256()
        for stream in trajectories.spec.streams:
            if not stream.image:
                start = int(starts[stream.role][episode])
                rows = trajectories.streams[stream.name][start : start + int(length) + (stream.role == "observation")]
                digest.update(np.ascontiguousarray(rows).reshape(-1).view(np.uint8).data)
        groups.setdefault((int(length), digest.digest()), []).append(episode)
    alike = [np.array(group) for group in groups.values() if len(group) > 1]
    return [part for group in alike for part in _same_frames(trajectories, group)]


def _overlaps(trajectories: Trajectories, left_out: Index) -> list[Overlap]:
    """Pairs of episodes that share observations in the same order, at least `SHARED_SHARE` of the shorter one's.

    Told by the float observations, clocks apart. left_out: episodes that were found otherwise.
    """
    hashes = _row_hashes(trajectories)
    if hashes is None:
        return []
    starts, rows = trajectories.starts("observation"), trajectories.lengths + 1
    episode = np.repeat(np.arange(len(rows)), rows)
    usable = ~np.isin(episode, left_out)
    votes = _votes(hashes, episode, np.arange(len(hashes)) - starts[episode], usable)
    return list(_confirmed(trajectories, votes, starts))


def _confirmed(trajectories: Trajectories, votes: NDArray[np.int64], starts: Index) -> Iterator[Overlap]:
    """votes: [n, 4] episode a < b, offset of b's observations in a, rows that say so."""
    for a, b, offset, shared in votes:
        first, last = (int(a), int(b)) if offset >= 0 else (int(b), int(a))
        shift = abs(int(offset))
        shorter = int(min(trajectories.lengths[a], trajectories.lengths[b])) + 1
        if shared < max(FEWEST_SHARED_STEPS, SHARED_SHARE * shorter):
            continue
        inside = shift + trajectories.lengths[last] <= trajectories.lengths[first]
        whole = bool(inside) and _lies_in(trajectories, first, last, shift)
        if not whole and offset == 0 and trajectories.lengths[a] < trajectories.lengths[b]:
            first, last = int(b), int(a)
            whole = _lies_in(trajectories, first, last, 0)
        yield Overlap(first, last, shift, int(shared), whole)


def _lies_in(trajectories: Trajectories, outer: int, inner: int, shift: int) -> bool:
    """Whether all float numbers and frames of `inner` are those of `outer` from observation `shift` on."""
    length = int(trajectories.lengths[inner])
    for stream in trajectories.spec.streams:
        if stream.role == "reward" or is_clock(trajectories, stream):
            continue
        starts = trajectories.starts(stream.role)
        rows = length + (stream.role == "observation")
        if stream.image:
            if not _frames_equal(trajectories, stream.name, int(starts[outer]) + shift, int(starts[inner]), rows):
                return False
            continue
        values = trajectories.streams[stream.name]
        theirs = values[starts[outer] + shift : starts[outer] + shift + rows]
        if not np.array_equal(theirs, values[starts[inner] : starts[inner] + rows]):
            return False
    return True


def _votes(hashes: NDArray[np.uint64], episode: Index, within: Index, usable: NDArray[np.bool_]) -> NDArray[np.int64]:
    """[n, 4] episodes a < b, offset and how many rows of equal hash lie at it."""
    rows = np.flatnonzero(usable)
    order = rows[np.argsort(hashes[rows], kind="stable")]
    found = []
    for apart in range(1, NEAREST_PLACES):  # neighbours in this order that are `apart` places from each other
        left, right = order[:-apart], order[apart:]
        alike = hashes[left] == hashes[right]
        if not alike.any():
            break
        left, right = left[alike], right[alike]
        found.append(np.stack([left, right], axis=1))
    if not found:
        return np.zeros((0, 4), np.int64)
    pairs = np.concatenate(found)
    pairs = pairs[episode[pairs[:, 0]] != episode[pairs[:, 1]]]
    keys = np.stack([episode[pairs[:, 0]], episode[pairs[:, 1]], within[pairs[:, 0]] - within[pairs[:, 1]]], axis=1)
    unique, counts = np.unique(keys, axis=0, return_counts=True)
    return np.concatenate([unique, counts[:, None]], axis=1).astype(np.int64)


def _row_hashes(trajectories: Trajectories) -> NDArray[np.uint64] | None:
    """[R] of all float observations of a row together; None without any. Equal hashes are confirmed afterwards."""
    weights = np.random.default_rng(0)
    total: NDArray[np.uint64] | None = None
    for stream in trajectories.spec.of_role("observation"):
        values = trajectories.streams.get(stream.name)
        if values is None or not np.issubdtype(values.dtype, np.floating) or is_clock(trajectories, stream):
            continue
        words = np.ascontiguousarray(values.astype(np.float32)).reshape(len(values), -1).view(np.uint32)
        mixed = words.astype(np.uint64)
        mixed ^= mixed << np.uint64(29)
        factors = weights.integers(1, 2**63, words.shape[1], dtype=np.uint64) | np.uint64(1)
        added = (mixed * factors).sum(axis=1, dtype=np.uint64)
        total = added if total is None else total + added
    return total


def _same_frames(trajectories: Trajectories, group: Index) -> Iterator[Index]:
    """The episodes of equal numbers, parted by their frames."""
    starts, rest = trajectories.starts("observation"), list(group)
    while len(rest) > 1:
        first = rest[0]
        rows = int(trajectories.lengths[first]) + 1
        equal = [
            other
            for other in rest
            if all(
                _frames_equal(trajectories, name, int(starts[first]), int(starts[other]), rows)
                for name in trajectories.frames
            )
        ]
        rest = [other for other in rest if other not in equal]
        if len(equal) > 1:
            yield np.array(equal)


def _frames_equal(trajectories: Trajectories, name: str, first: int, other: int, rows: int) -> bool:
    """Whether `rows` frames from two rows on are equal; read in blocks."""
    frames = trajectories.frames[name]
    block = blocks(frames, BLOCK_BYTES).step
    return first == other or all(
        np.array_equal(
            frames[first + at : first + min(at + block, rows)], frames[other + at : other + min(at + block, rows)]
        )
        for at in range(0, rows, block)
    )
