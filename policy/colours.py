"""Colours of what comes and goes before a camera, and how to tell them apart: where keypoints begin to look.

Knows no network.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from forcing.policy.types import Array

CELLS = 20_000  # that are looked at
ROUNDS = 15  # of k-means
SPECK = 1e-3  # added to the variance of colours, which may be all of one hue

Doubles = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Tellers:
    """Linear functions of a colour [c]: weights [K, c], bias [K]. Each is 1 at its own colour, and 0 or less from half
    way to the mean of all on."""

    weights: Doubles
    bias: Doubles


def tell_colours(grids: Array, mean: Array, count: int, rng: np.random.Generator) -> Tellers | None:
    """Of `count` colours that differ and are often where they are not always; None if nothing changes.

    grids: [N, h, w, c]; mean: [h, w, c], the picture with nothing special in it. A cell counts by the square of how far
    it is from the mean picture. Colours are centres of k-means (Arthur and Vassilvitskii, 2007) where all vary by one.
    """
    channels = grids.shape[-1]
    shares = np.square(grids - mean, dtype=np.float64).sum(axis=-1).reshape(-1)
    if not shares.sum() > 0:
        return None
    cells = grids.reshape(-1, channels)[rng.choice(len(shares), CELLS, p=shares / shares.sum())].astype(np.float64)
    middle = cells.mean(axis=0)
    variance = np.cov(cells.T).reshape(channels, channels)
    variance += (SPECK * np.trace(variance) + np.finfo(np.float64).tiny) * np.eye(channels)
    even = np.linalg.inv(np.linalg.cholesky(variance)).T
    centres = _centres((cells - middle) @ even, count, rng)
    weights = 2 * centres / np.maximum(np.square(centres).sum(axis=1, keepdims=True), SPECK) @ even.T
    return Tellers(weights=weights, bias=-1 - weights @ middle)


def _centres(points: Doubles, count: int, rng: np.random.Generator) -> Doubles:
    """[count, c] of k-means, drawn far apart at first; one that nothing is nearest to stays."""
    centres = points[rng.integers(len(points))][None]
    while len(centres) < count:
        away = _squares(points, centres).min(axis=1) + np.finfo(np.float64).tiny
        centres = np.vstack([centres, points[rng.choice(len(points), p=away / away.sum())]])
    for _ in range(ROUNDS):
        nearest = _squares(points, centres).argmin(axis=1)
        for index in range(count):
            if (mine := nearest == index).any():
                centres[index] = points[mine].mean(axis=0)
    result: NDArray[np.float64] = centres
    return result


def _squares(points: Doubles, centres: Doubles) -> Doubles:
    """[P, K] squares of distances."""
    result: Doubles = np.square(points[:, None] - centres).sum(axis=2)
    return result
