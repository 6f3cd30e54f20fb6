"""From which part of a recording windows are drawn at any time, so that what was decoded serves many of them.

Anchors (see windows.py) are cut, in the order of the recording, into segments of equally many. A pool holds a few
segments; windows are drawn from all anchors of the pool alike. Segments enter the pool one after another in a seeded
order that has each of them once a pass, and the one that is longest there leaves. So the pool is a function of the seed
and of how many windows were drawn before, and there is no list of windows. Knows no recording, file or frame.
"""

from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from forcing.policy.types import Index


@dataclass(frozen=True, slots=True, kw_only=True)
class DrawOrder:
    """segments: that the anchors are cut into. segment_windows: drawn from one pool to the next, which has one new
    segment. worker: (index, count), of which each draws from every count-th segment, disjoint from the others'."""

    segments: int
    segment_windows: int
    seed: int = 0
    worker: tuple[int, int] = (0, 1)

    def __post_init__(self) -> None:
        index, count = self.worker
        if not 0 <= index < count:
            raise ValueError(f"worker must be (index, count) with 0 <= index < count, got {self.worker}")
        if self.segments < count:
            raise ValueError(f"there must be a segment for each of {count} workers, got {self.segments}; use fewer")
        if self.segment_windows < 1:
            raise ValueError(f"segment_windows must be at least 1, got {self.segment_windows}")

    @property
    def own(self) -> int:
        """Segments of this worker."""
        return len(range(self.worker[0], self.segments, self.worker[1]))

    def pool(self, drawn: int, slots: int) -> Index:
        """[slots] segments, rising, after `drawn` windows; all of this worker's if there are no more than slots.

        Where a pass ends and the next begins a segment may be there twice.
        """
        if slots >= self.own:
            places = np.arange(self.own)
        else:
            newest = drawn // self.segment_windows + self.own  # the pass before the first has filled the pool
            entered = np.arange(newest - slots + 1, newest + 1)
            places = np.array([_order(self.seed, self.own, int(n) // self.own)[n % self.own] for n in entered])
        return np.asarray(np.sort(self.worker[0] + places * self.worker[1]), dtype=np.int64)

    def anchors(self, segments: Index, count: int) -> tuple[Index, Index]:
        """[len(segments)] first anchor and number of anchors of each, if there are `count` of them in all."""
        first = segments * count // self.segments
        return first, (segments + 1) * count // self.segments - first


@lru_cache(maxsize=32)  # two passes of each source of a mixture
def _order(seed: int, segments: int, turn: int) -> Index:
    """The segments in the order of one pass."""
    return np.random.default_rng((seed, turn)).permutation(segments)
