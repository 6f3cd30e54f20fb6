"""How rare a number is, by what was recorded of it: the tail of a distribution, read off as far as there are values and
exponential beyond. Knows no network, no stream and no unit.
"""

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

# Of recorded values that are as great or greater.
SHARES = (1.0, 0.5, 0.2, 0.1, 0.05, 0.02, 0.01, 0.005, 0.002, 0.001)
FEWEST = 10  # values beyond a level that is read off
FITTED = 0.02  # share of greatest values that the exponential is fitted to, and at least `TAIL` of them
TAIL = 20

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Tail:
    """levels: [Q] what the shares `SHARES` of recorded values reach. decade: how much greater those are that are ten
    times as rare, beyond the last level.

    An exponential tail is what the negative log of a likelihood has whose own tails are powers.
    """

    levels: Floats
    decade: float

    @classmethod
    def of(cls, values: Floats) -> "Tail":
        """Of values, [n], of which there must be one."""
        ordered = np.sort(values)[::-1]
        many = len(ordered)
        most = min(many - 1, max(TAIL, int(FITTED * many)))
        start = float(ordered[most])
        mean = float(np.mean(ordered[:most] - start)) if most else 0.0
        decade = max(mean * np.log(10), 1e-6)
        levels = []
        for share in SHARES:
            behind = share * many
            if share == 1 or behind >= FEWEST:
                levels.append(float(ordered[min(many, int(np.ceil(behind))) - 1]))
            else:
                levels.append(start + decade * np.log10(max(most, 1) / behind))
        return cls(levels=np.maximum.accumulate(levels), decade=decade)

    def rarity(self, value: float) -> float:
        """-log10 of the share of recorded values that are as great: 0 for any, 3 for one in a thousand."""
        if value >= self.levels[-1]:
            return float(-np.log10(SHARES[-1]) + (value - self.levels[-1]) / self.decade)
        return float(np.interp(value, self.levels, -np.log10(SHARES)))

    def tensor(self) -> Tensor:
        """[Q + 1] float64: levels, then the decade."""
        return torch.from_numpy(np.append(self.levels, self.decade))

    @classmethod
    def of_tensor(cls, tensor: Tensor) -> "Tail":
        """From `tensor`. Raises ValueError if that is not of rising levels and a positive decade."""
        values = tensor.numpy()
        if values.shape != (len(SHARES) + 1,) or not (np.diff(values[:-1]) >= 0).all() or not values[-1] > 0:
            raise ValueError(f"a tail must be {len(SHARES)} rising levels and a positive decade, got {values}")
        return cls(levels=values[:-1], decade=float(values[-1]))


def either(first: float, second: float) -> float:
    """Rarity of the rarer of two, whatever they have to do with each other: half as rare as if there were no other.

    Bonferroni's bound. That of their sum (Fisher's method) would let what is usual of one outweigh the other.
    """
    return max(0.0, max(first, second) - float(np.log10(2)))
