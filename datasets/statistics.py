"""Count, mean, standard deviation and range of numbers that come in pieces. Knows no file."""

from typing import Any

import numpy as np

from forcing.policy.types import Array


class RunningStatistics:
    """Of each of `size` entries over all rows added so far, finite values alone.

    Pieces are joined as in Chan, Golub and LeVeque (1979), Eq. 2.1, so that nothing is lost where the mean is large.
    """

    def __init__(self, size: int) -> None:
        self.count = np.zeros(size, np.int64)
        self.mean = np.zeros(size)
        self._squares = np.zeros(size)  # sum of squared distances from the mean
        self.low = np.full(size, np.inf)
        self.high = np.full(size, -np.inf)

    def add(self, rows: Array) -> None:
        """rows: [n, size]."""
        values = rows.astype(np.float64)
        finite = np.isfinite(values)
        counted = True if finite.all() else finite
        count = finite.sum(axis=0)
        with np.errstate(over="ignore", invalid="ignore"):  # the spread of absurd numbers is infinite
            mean = values.sum(axis=0, where=counted) / np.maximum(count, 1)
            squares = np.square(values - mean).sum(axis=0, where=counted)
            total, apart = self.count + count, mean - self.mean
            share = count / np.maximum(total, 1)
            self._squares += squares + np.square(apart) * self.count * share
            self.mean += apart * share
        self.count = total
        self.low = np.minimum(self.low, values.min(axis=0, initial=np.inf, where=counted))
        self.high = np.maximum(self.high, values.max(axis=0, initial=-np.inf, where=counted))

    @property
    def std(self) -> Array:
        """[size] over the rows, not an estimate of more of them."""
        return np.asarray(np.sqrt(self._squares / np.maximum(self.count, 1)))

    def to_json(self) -> dict[str, Any]:
        """count, mean, std, min and max, [size] each in C order; None for an entry that is never finite."""
        told = self.count > 0

        def listed(values: Array) -> list[float | None]:
            return [float(value) if known else None for value, known in zip(values, told, strict=True)]

        return {
            "count": self.count.tolist(),
            "mean": listed(self.mean),
            "std": listed(self.std),
            "min": listed(self.low),
            "max": listed(self.high),
        }
