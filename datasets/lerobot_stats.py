"""The statistics that LeRobot keeps of each feature, of an episode and of all. Knows no file.

Of numbers each entry apart; of images each channel apart, with pixels from 0 to 1. Those of all episodes are joined
from those of each as LeRobot joins them: exact but for the quantiles, which are the mean of the episodes'.
"""

from collections.abc import Mapping

import numpy as np

from forcing.policy.types import Array

QUANTILES = {"q01": 0.01, "q10": 0.10, "q50": 0.50, "q90": 0.90, "q99": 0.99}
MOMENTS = ("min", "max", "mean", "std")
Stats = Mapping[str, Array]


def number_stats(values: Array) -> Stats:
    """min, max, mean, std and quantiles [*shape], scalars as [1], and count [1] of values [N, *shape]. A NaN makes all
    of its entry NaN."""
    rows = values.reshape(len(values), -1).astype(np.float64)
    shape = values.shape[1:] or (1,)
    with np.errstate(invalid="ignore"):  # infinities have no mean
        found = {"min": rows.min(0), "max": rows.max(0), "mean": rows.mean(0), "std": rows.std(0)}
        quantiles = np.quantile(rows, list(QUANTILES.values()), axis=0)
    found.update(zip(QUANTILES, quantiles, strict=True))
    return {**{name: value.reshape(shape) for name, value in found.items()}, "count": np.array([len(values)])}


def image_stats(frames: Array) -> Stats:
    """As `number_stats`, [c, 1, 1], of all pixels of frames [N, h, w, c] uint8; count is of frames."""
    counts = np.zeros((frames.shape[3], 256), np.int64)
    for frame in frames:
        for channel in range(frames.shape[3]):
            counts[channel] += np.bincount(frame[..., channel].reshape(-1), minlength=256)
    levels, pixels = np.arange(256) / 255, counts.sum(1)
    mean = counts @ levels / pixels
    seen = counts > 0
    below = np.cumsum(counts, axis=1)
    found = {
        "min": levels[seen.argmax(1)],
        "max": levels[255 - seen[:, ::-1].argmax(1)],
        "mean": mean,
        "std": np.sqrt((counts * (levels - mean[:, None]) ** 2).sum(1) / pixels),
        **{name: levels[(below >= share * pixels[:, None]).argmax(1)] for name, share in QUANTILES.items()},
    }
    return {**{name: value.reshape(-1, 1, 1) for name, value in found.items()}, "count": np.array([len(frames)])}


def joined(one: Stats, other: Stats) -> Stats:
    """Of both together."""
    first, second = float(one["count"][0]), float(other["count"][0])
    share = second / (first + second)
    with np.errstate(invalid="ignore"):
        means = {name: one[name] + (other[name] - one[name]) * share for name in ("mean", *QUANTILES)}
        apart = other["mean"] - one["mean"]
        variance = one["std"] ** 2 * (1 - share) + other["std"] ** 2 * share + apart**2 * share * (1 - share)
    return {
        "min": np.minimum(one["min"], other["min"]),
        "max": np.maximum(one["max"], other["max"]),
        **means,
        "std": np.sqrt(variance),
        "count": one["count"] + other["count"],
    }
