"""Plans to choose from, in physical units."""

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from forcing.policy.types import Array


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidates:
    """Plans of several lengths, one a row.

    steps: [F] control steps to each frame of the longest. used: [C, F] frames within a plan's own horizon. start:
    observation stream -> [C, *shape] before the first frame. streams: [C, F, *shape].
    """

    steps: NDArray[np.int64]
    used: NDArray[np.bool_]
    start: Mapping[str, Array]
    streams: Mapping[str, Array]

    def path(self, name: str) -> NDArray[np.float64]:
        """[C, F, size] of one stream, NaN past a plan's own horizon."""
        values = self.streams[name].reshape(*self.used.shape, -1)
        return np.where(self.used[..., None], values, np.nan)

    def last_steps(self) -> NDArray[np.int64]:
        """[C] control steps until the end of each plan."""
        return np.asarray(self.steps[self.used.sum(axis=1) - 1])

    def rows(self, index: NDArray[np.int64]) -> "Candidates":
        """Some of the rows, in the order of `index` [N]."""
        return replace(
            self,
            used=self.used[index],
            start={name: values[index] for name, values in self.start.items()},
            streams={name: values[index] for name, values in self.streams.items()},
        )

    def joined(self, other: "Candidates") -> "Candidates":
        """These rows and then the other's, of the same frames and streams."""
        return replace(
            self,
            used=np.concatenate([self.used, other.used]),
            start={name: np.concatenate([values, other.start[name]]) for name, values in self.start.items()},
            streams={name: np.concatenate([values, other.streams[name]]) for name, values in self.streams.items()},
        )

    def shortened(self) -> "Candidates":
        """Without the frames that no plan uses."""
        return self.lengthened(int(self.used.sum(axis=1).max()))

    def lengthened(self, frames: int) -> "Candidates":
        """With this many frames, of which no plan uses those that are new."""
        index = np.minimum(np.arange(frames), len(self.steps) - 1)
        step = int(self.steps[0])
        return replace(
            self,
            steps=np.arange(1, frames + 1) * step,
            used=self.used[:, index] & (np.arange(frames) < len(self.steps)),
            streams={name: values[:, index] for name, values in self.streams.items()},
        )


@dataclass(frozen=True, slots=True)
class Judged:
    """candidates: as they would be driven. costs: [C] what they are ranked by, lower is better. sound: [C] bool, those
    that keep all rules, or nearly."""

    candidates: Candidates
    costs: NDArray[np.float64]
    sound: NDArray[np.bool_]
