"""Windows out of recordings: uniform anchors over all steps that fit, without a list of them. Knows no file.

Where frames of cameras lie in a store that is larger than memory, the anchors are drawn from a pool that slowly moves
over the recording (draw_order.py), and frames are copied out of a bounded cache of decoded chunks (chunk_cache.py).
"""

import numpy as np

from forcing.datasets.batch_memory import BatchMemory
from forcing.datasets.chunk_cache import ChunkCache
from forcing.datasets.draw_order import DrawOrder
from forcing.datasets.stored_frames import StoredFrames
from forcing.policy.types import Array, Frames, Index, Role, Trajectories, TrajectorySpec, WindowBatch

CACHE_BYTES = 256 << 20
SEGMENT_ROWS = 256  # long against a window, whose last frames are decoded with the segment
FEWEST_SEGMENT_ROWS = 32
VISIT_WINDOWS = 2  # for each row of a segment, while it is in the pool: decoding costs half of what 1 would make it
SEGMENTS_CACHED = 24  # of those, where the cache is small


class TrajectoryWindows:
    """A `WindowSource` over recordings whose numbers are in memory, and whose frames are there or in a store.

    Frames that are chained or cut out of others' are read anew for each window: several stores are drawn from faster as
    a mixture.

    An anchor is an observation index t of an episode of L steps with t + future <= L. An episode's anchors are
    counted, never listed: one number drawn below the count of all of them is found in the running sum.
    """

    def __init__(
        self,
        trajectories: Trajectories,
        *,
        seed: int = 0,
        cache_bytes: int = CACHE_BYTES,
        worker: tuple[int, int] = (0, 1),
    ) -> None:
        """seed: of the order in which segments of a store are visited. cache_bytes: for decoded frames of all cameras;
        a store of no more is drawn from uniformly, as a recording in memory is. worker: (index, count); each of count
        workers draws anchors of its own, unlike any other's with the same future."""
        _at_least("cache_bytes", cache_bytes, 1)
        self._trajectories = trajectories
        roles: tuple[Role, ...] = ("observation", "action", "reward")
        self._starts = {role: trajectories.starts(role) for role in roles}
        stored = {name: frames for name, frames in trajectories.frames.items() if isinstance(frames, StoredFrames)}
        self._row_bytes = {name: frames.new_chunks(1)[0, :1].nbytes for name, frames in stored.items()}
        self._cache_rows = cache_bytes // max(sum(self._row_bytes.values()), 1)
        self._caches = {
            name: ChunkCache(frames, self._cache_rows * self._row_bytes[name]) for name, frames in stored.items()
        }
        self._chunk_rows = max((frames.chunk_rows for frames in stored.values()), default=0)
        self._memory = {name: BatchMemory() for name in stored}
        rows = int(trajectories.lengths.sum()) + len(trajectories.lengths)
        self._all_held = not stored or rows + self._chunk_rows <= self._cache_rows
        segment = min(max(self._cache_rows // SEGMENTS_CACHED, FEWEST_SEGMENT_ROWS), SEGMENT_ROWS)
        segments = 1 if self._all_held and worker[1] == 1 else max(-(-rows // segment), worker[1])
        self._segment_rows = segment
        self._order = DrawOrder(segments=segments, segment_windows=VISIT_WINDOWS * segment, seed=seed, worker=worker)
        self._drawn = 0

    @property
    def spec(self) -> TrajectorySpec:
        return self._trajectories.spec

    @property
    def decoded_chunks(self) -> int:
        """How many chunks of frames were decoded so far."""
        return sum(cache.decoded for cache in self._caches.values())

    def anchors(self, future: int) -> int:
        """How many observations have at least `future` steps of their episode after them."""
        return int(self._counts(future).sum())

    def pool_segments(self, past: int, future: int) -> tuple[int, int]:
        """How many segments windows of this length are drawn from at a time, and of how many."""
        if self._all_held:
            return self._order.own, self._order.own
        span = self._segment_rows + past + future + 1 + 2 * self._chunk_rows
        return min(max(self._cache_rows // span, 1), self._order.own), self._order.own

    def sample(
        self, rng: np.random.Generator, count: int, past: int, future: int, *, drawn: int | None = None
    ) -> WindowBatch:
        """`count` windows, drawn with replacement, every anchor equally likely.

        Observations [count, past + future + 1, *shape], actions and rewards [count, past + future, *shape], in the
        recording's dtype and units. Before an episode's first step its first row is repeated. drawn: windows drawn
        before; what this source has counted if not given. It matters for frames that do not fit the cache alone: there
        every anchor is equally likely over a pass of twice as many windows as the recording has rows. Raises ValueError
        if count is below 1, past or future is negative, or no episode has `future` steps; StoreError if a frame cannot
        be read.
        """
        _at_least("count", count, 1)
        _at_least("past", past, 0)
        before = self._drawn if drawn is None else drawn
        slots, _ = self.pool_segments(past, _checked("future", future))
        episode, now = self._draw(rng, count, future, self._order.pool(before, slots))
        self._drawn = before + count
        offsets = np.maximum(now[:, None] + np.arange(-past, future + 1), 0)
        streams: dict[str, Array] = {}
        for stream in self.spec.streams:
            starts = self._starts[stream.role][episode]
            if stream.name in self._caches:
                first = starts + offsets[:, 0]
                streams[stream.name] = self._gather(stream.name, first, np.maximum(past - now, 0), past + future + 1)
                continue
            inside = offsets if stream.role == "observation" else offsets[:, :-1]
            values = (self._trajectories.frames if stream.image else self._trajectories.streams)[stream.name]
            streams[stream.name] = _taken(values, starts[:, None] + inside)
        return WindowBatch(streams=streams, past_valid=np.minimum(now, past))

    def _gather(self, name: str, first: Index, repeated: Index, length: int) -> Array:
        cache = self._caches[name]
        out = self._memory[name].array((len(first), length, *cache.frames.shape[1:]), cache.frames.dtype)
        cache.gather(first, repeated, out)
        return out

    def _counts(self, future: int) -> Index:
        return np.maximum(self._trajectories.lengths - _checked("future", future) + 1, 0)

    def _draw(self, rng: np.random.Generator, count: int, future: int, pool: Index) -> tuple[Index, Index]:
        """Episode and observation index, [count] each, of anchors in the segments of the pool; of any anchors, should
        so few episodes be long enough that none lies there."""
        counts = self._counts(future)
        ends = np.cumsum(counts)
        if ends[-1] == 0:
            longest = int(self._trajectories.lengths.max())
            raise ValueError(f"future must be at most the longest episode, {longest} steps, got {future}")
        first, sizes = self._order.anchors(pool, int(ends[-1]))
        if not sizes.any():
            first, sizes = np.zeros(1, np.int64), ends[-1:]
        within = np.cumsum(sizes)
        chosen = rng.integers(0, within[-1], size=count)
        segment = np.searchsorted(within, chosen, side="right")
        anchor = first[segment] + chosen - (within - sizes)[segment]
        episode = np.searchsorted(ends, anchor, side="right")
        return episode, anchor - (ends - counts)[episode]


def _taken(values: Frames, rows: Index) -> Array:
    """[*rows.shape, *one row] of an array, or of frames that are made when they are read. rows: [B, T], each rising."""
    if isinstance(values, np.ndarray):
        return np.take(values, rows, axis=0)
    return np.stack([values[int(each[0]) : int(each[-1]) + 1][each - each[0]] for each in rows])


def _at_least(name: str, value: int, least: int) -> None:
    if value < least:
        raise ValueError(f"{name} must be at least {least}, got {value}")


def _checked(name: str, value: int) -> int:
    _at_least(name, value, 0)
    return value
