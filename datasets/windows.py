"""Windows out of recordings: uniform anchors over all steps that fit, without a list of them. Knows no file."""

import numpy as np
from numpy.typing import NDArray

from forcing.policy.types import Array, Role, Trajectories, TrajectorySpec, WindowBatch

Index = NDArray[np.int64]


class TrajectoryWindows:
    """A `WindowSource` over recordings in memory.

    An anchor is an observation index t of an episode of L steps with t + future <= L. An episode's anchors are
    counted, never listed: one number drawn below the count of all of them is found in the running sum.
    """

    def __init__(self, trajectories: Trajectories) -> None:
        self._trajectories = trajectories
        roles: tuple[Role, ...] = ("observation", "action", "reward")
        self._starts = {role: trajectories.starts(role) for role in roles}

    @property
    def spec(self) -> TrajectorySpec:
        return self._trajectories.spec

    def anchors(self, future: int) -> int:
        """How many observations have at least `future` steps of their episode after them."""
        return int(self._counts(future).sum())

    def sample(self, rng: np.random.Generator, count: int, past: int, future: int) -> WindowBatch:
        """`count` windows, drawn with replacement, every anchor equally likely.

        Observations [count, past + future + 1, *shape], actions and rewards [count, past + future, *shape], in the
        recording's dtype and units. Before an episode's first step its first row is repeated. Raises ValueError if
        count is below 1, past or future is negative, or no episode has `future` steps.
        """
        _at_least("count", count, 1)
        _at_least("past", past, 0)
        episode, now = self._draw(rng, count, future)
        offsets = np.maximum(now[:, None] + np.arange(-past, future + 1), 0)
        streams: dict[str, Array] = {}
        for stream in self.spec.streams:
            inside = offsets if stream.role == "observation" else offsets[:, :-1]
            rows = self._starts[stream.role][episode][:, None] + inside
            streams[stream.name] = np.take(self._trajectories.streams[stream.name], rows, axis=0)
        return WindowBatch(streams=streams, past_valid=np.minimum(now, past))

    def _counts(self, future: int) -> Index:
        _at_least("future", future, 0)
        return np.maximum(self._trajectories.lengths - future + 1, 0)

    def _draw(self, rng: np.random.Generator, count: int, future: int) -> tuple[Index, Index]:
        """Episode and observation index, [count] each."""
        counts = self._counts(future)
        ends = np.cumsum(counts)
        if ends[-1] == 0:
            longest = int(self._trajectories.lengths.max())
            raise ValueError(f"future must be at most the longest episode, {longest} steps, got {future}")
        drawn = rng.integers(0, ends[-1], size=count)
        episode = np.searchsorted(ends, drawn, side="right")
        return episode, drawn - (ends - counts)[episode]


def _at_least(name: str, value: int, least: int) -> None:
    if value < least:
        raise ValueError(f"{name} must be at least {least}, got {value}")
