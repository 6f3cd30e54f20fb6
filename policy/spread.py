"""How far a robot will be from its plan, by steps ahead: a scale of what plans missed when the policy drove in its own
world (`calibration`). Knows no network and no particles.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from forcing.policy.tokens import Normaliser
from forcing.policy.types import Array, TrajectorySpec

COVERED, NORMAL = 0.8, 1.2815515655446004  # an interval of so many standard deviations covers so much of a normal error


@dataclass(frozen=True, slots=True, kw_only=True)
class Spread:
    """Of each of F frames: what a plan misses by, such that `NORMAL` times it covers the share `COVERED` of outcomes.

    clean: [S, F] where the state was known when the plan was made, in recorded standard deviations of each observation
    stream. doubted: [S, F] what comes to that, in quadrature, for each unit of what was doubted then.
    """

    clean: NDArray[np.float64]
    doubted: NDArray[np.float64]

    def of(
        self, frames: int, doubt: Mapping[str, float], spec: TrajectorySpec, normaliser: Normaliser
    ) -> dict[str, Array]:
        """Observation stream -> [frames, *shape], in its units; that of the last frame beyond it.

        doubt: stream -> standard error of what it was believed to be when the plan was made, 0 where it is left out.
        """
        at = np.minimum(np.arange(frames), self.clean.shape[1] - 1)
        result = {}
        for stream, clean, doubted in zip(spec.of_role("observation"), self.clean, self.doubted, strict=True):
            known = clean[at, None] * np.array(normaliser.std[stream.name])
            values = np.hypot(known, doubted[at, None] * doubt.get(stream.name, 0.0))
            result[stream.name] = values.reshape(frames, *stream.shape)
        return result

    def tensors(self) -> dict[str, Tensor]:
        """As a checkpoint keeps it."""
        return {"clean": torch.from_numpy(self.clean), "doubted": torch.from_numpy(self.doubted)}

    @classmethod
    def from_tensors(cls, tensors: Mapping[str, Tensor]) -> "Spread":
        """Raises KeyError if one is missing."""
        return cls(clean=tensors["clean"].numpy(), doubted=tensors["doubted"].numpy())
