"""What may stand between a robot's sensors and its controller: yardsticks for a belief. Knows no scores.

Each turns what was read at a control step into what the controller is told of it, as keywords of `Controller.observe`.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from forcing.policy.types import Array

Floats = NDArray[np.float64]


class Front(Protocol):
    def begin(self) -> None:
        """An episode begins."""
        ...

    def told(self, read: Mapping[str, Array]) -> dict[str, Any]:
        """read: stream -> [*shape] in its units, NaN where it was lost."""
        ...


@dataclass(frozen=True, slots=True)
class Declared:
    """Every reading is declared as noisy as this. sigma: standard error, in each stream's own units."""

    sigma: float

    def begin(self) -> None:
        """Nothing is remembered."""

    def told(self, read: Mapping[str, Array]) -> dict[str, Any]:
        return {"observation": read, "noise": dict.fromkeys(read, self.sigma)}


@dataclass(slots=True)
class ConstantVelocity:
    """A Kalman filter of a point that moves on at its velocity and is pushed at random (Bar-Shalom et al. 2001,
    section 6.3.2, in discrete time). Its estimates are told as if they had been read.

    position_sigma, velocity_sigma: of the readings. acceleration: standard deviation of the push, the same in every
    direction, constant for a step. dt_s: of a step. A stream that was never read is not told.
    """

    position_sigma: float
    velocity_sigma: float
    acceleration: float
    dt_s: float
    _mean: Floats | None = field(default=None, init=False, repr=False)
    _cov: Floats = field(default_factory=lambda: np.zeros((2, 2)), init=False, repr=False)

    def begin(self) -> None:
        self._mean = None

    def told(self, read: Mapping[str, Array]) -> dict[str, Any]:
        """read: `position` [d], and `velocity` [d] if there is such a sensor."""
        sensed = [
            np.asarray(read.get(name, np.full_like(read["position"], np.nan))) for name in ("position", "velocity")
        ]
        dt = self.dt_s
        if self._mean is None:
            if np.isnan(sensed[0]).any():
                return {"observation": dict(read)}
            self._mean = np.stack([sensed[0], np.nan_to_num(sensed[1])])
            self._cov = np.diag([self.position_sigma**2, self.velocity_sigma**2])
        else:
            drift, push = np.array([[1, dt], [0, 1]]), np.array([dt**2 / 2, dt])
            self._mean = drift @ self._mean
            self._cov = drift @ self._cov @ drift.T + self.acceleration**2 * np.outer(push, push)
            for row, (reading, sigma) in enumerate(
                zip(sensed, (self.position_sigma, self.velocity_sigma), strict=True)
            ):
                if np.isnan(reading).any():
                    continue
                gain = self._cov[:, row] / (self._cov[row, row] + sigma**2)
                self._mean = self._mean + np.outer(gain, reading - self._mean[row])
                self._cov = self._cov - np.outer(gain, self._cov[row])
        told = dict(zip(("position", "velocity"), self._mean.copy(), strict=True))
        return {"observation": {name: told.get(name, value) for name, value in read.items()}}
