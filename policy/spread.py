"""How far a robot will be from its plan, by steps ahead: a scale of what plans missed when the policy drove in its own
world (`calibration`). Knows no network and no particles.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from forcing.policy.tokens import Normaliser
from forcing.policy.types import Array, TrajectorySpec

COVERED, NORMAL = 0.8, 1.2815515655446004  # an interval of so many standard deviations covers so much of a normal error
DOUBTS = 3  # groups of plans whose start was in doubt
FEWEST = 60  # outcomes that a scale is read off at least: their 80 % quantile lies between those of 69 and 90 %
NEIGHBOURS = 8  # a frame's outcomes are taken together with those of one eighth as many frames to either side


@dataclass(frozen=True, slots=True)
class Missed:
    """What came of the plans of one drive.

    plans: how many there were. noisy: whether sensors were. frame: [K] of a plan. since: [K] frames since that plan is
    at its goal, below 0 before it is. error: [K, n] between the state planned and that which came of it. doubt: [K, n]
    of the state when the plan was made. Both in recorded standard deviations.
    """

    plans: int
    noisy: bool
    frame: NDArray[np.int64]
    since: NDArray[np.int64]
    error: NDArray[np.float64]
    doubt: NDArray[np.float64]


@dataclass(frozen=True, slots=True, kw_only=True)
class Spread:
    """Of each of F frames: what a plan misses by, such that `NORMAL` times it covers the share `COVERED` of outcomes;
    in recorded standard deviations of each of S observation streams.

    doubts: [S, B] what was doubted of the stream when the plan was made, rising from 0, in the mean of its recorded
    standard deviations. moving: [S, B, F] before the plan is at its goal. resting: [S, B, F] from the frame on that
    stays there, by frames since then.
    """

    doubts: NDArray[np.float64]
    moving: NDArray[np.float64]
    resting: NDArray[np.float64]

    def of(
        self, frames: int, arrival: int, doubt: Mapping[str, float], spec: TrajectorySpec, normaliser: Normaliser
    ) -> dict[str, Array]:
        """Observation stream -> [frames, *shape], in its units; linear between doubts that were measured and in
        proportion beyond, up to the recorded standard deviation; that of the last frame beyond it.

        arrival: first frame from which on the plan stays at its goal, see `arrival_of`. doubt: stream -> standard error
        of what it was believed to be when the plan was made, 0 where it is left out.
        """
        at = np.minimum(np.arange(frames), self.moving.shape[2] - 1)
        since, resting = np.maximum(0, at - arrival), np.arange(frames) >= arrival
        result = {}
        for stream, doubts, under_way, there in zip(
            spec.of_role("observation"), self.doubts, self.moving, self.resting, strict=True
        ):
            std = np.array(normaliser.std[stream.name])
            share = doubt.get(stream.name, 0.0) / float(std.mean())
            measured = np.where(resting, there[:, since], under_way[:, at])
            scale = np.array([np.interp(share, doubts, column) for column in measured.T])
            if share > doubts[-1] > 0:
                # Nobody who drives where recordings were is farther off than these places are apart.
                scale = np.minimum(scale * share / doubts[-1], np.maximum(scale, 1.0))
            result[stream.name] = (scale[:, None] * std).reshape(frames, *stream.shape)
        return result

    def tensors(self) -> dict[str, Tensor]:
        """As a checkpoint keeps it."""
        return {name: torch.from_numpy(getattr(self, name)) for name in ("doubts", "moving", "resting")}

    @classmethod
    def from_tensors(cls, tensors: Mapping[str, Tensor], streams: int) -> "Spread":
        """streams: how many there are. Raises KeyError if one is missing, ValueError if they do not fit together."""
        values = {name: tensors[name].numpy() for name in ("doubts", "moving", "resting")}
        shapes = {name: value.shape for name, value in values.items()}
        doubts, frames = shapes["doubts"], shapes["moving"][-1:]
        if doubts[:1] != (streams,) or shapes["moving"] != doubts + frames or shapes["resting"] != doubts + frames:
            raise ValueError(f"a spread of {streams} streams needs [S, B] and twice [S, B, F], got {shapes}")
        return cls(**values)


def arrival_of(path: Array, goal: Array, near: float) -> int:
    """Index of the frame of `path`, [F, *shape], from which it stays within `near` of `goal` [*shape]; F if never."""
    away = np.flatnonzero(np.linalg.norm((path - goal).reshape(len(path), -1), axis=1) > near)
    return int(away[-1]) + 1 if len(away) else 0


def spread_of(drives: Sequence[Missed], streams: Sequence[slice], frames: int) -> Spread:
    """What is read off outcomes: those of plans whose start was known, and of `DOUBTS` groups by how much it was in
    doubt, all of a size. Every drive counts alike, however many plans it took. Where drives with perfect sensors were
    in doubt all the same, as anybody is at a first reading, those with noisy ones alone tell what may come of it.

    streams: where each observation stream is in [n]. frames: of the longest plan.
    """
    frame, since, errors, starts = (
        np.concatenate([getattr(drive, name) for drive in drives]) for name in ("frame", "since", "error", "doubt")
    )
    sizes = [len(drive.frame) for drive in drives]
    drive = np.repeat(np.arange(len(drives)), sizes)
    weight, noisy = (np.repeat(values, sizes) for values in ([1 / d.plans for d in drives], [d.noisy for d in drives]))
    doubts, moving, resting = (np.zeros((len(streams), 1 + DOUBTS, *shape)) for shape in ((), (frames,), (frames,)))
    for stream, where in enumerate(streams):
        doubt, error = starts[:, where].mean(axis=1), np.abs(errors[:, where]) / NORMAL
        doubted = (doubt > 0) & noisy
        edges = np.quantile(doubt[doubted], np.arange(1, DOUBTS) / DOUBTS) if doubted.any() else []
        group = np.where(doubted, 1 + np.searchsorted(edges, doubt), np.where(doubt > 0, -1, 0))
        chosen = group >= 0
        for one in range(1 + DOUBTS):
            chosen = group == one if (group == one).any() else chosen  # an empty one is like that before
            doubts[stream, one] = np.median(doubt[chosen]) if one else 0
            for table, index, of_them in ((moving, frame, since < 0), (resting, np.maximum(since, 0), since >= 0)):
                # Where a group has none all plans tell; where no plan rested or none was under way, the others.
                used = next(some for some in (chosen & of_them, of_them, chosen) if some.any())
                table[stream, one] = _scales(index[used], error[used], weight[used], drive[used], frames)
    return Spread(doubts=doubts, moving=moving, resting=resting)


def _scales(
    frame: NDArray[np.int64],
    values: NDArray[np.float64],
    weight: NDArray[np.float64],
    drive: NDArray[np.int64],
    frames: int,
) -> NDArray[np.float64]:
    """[frames] what the share `COVERED` of values [K, size] stays below, of the frame and its neighbours: those near in
    proportion, and at least the nearest `FEWEST`.

    weight, drive: [K] of each row. The share is that of one more drive besides the n that there are, COVERED (1 + 1/n)
    (split conformal prediction; Lei et al., J. Am. Stat. Assoc. 113, 2018, arXiv:1604.04173).
    """
    scales = np.zeros(frames)
    for index in range(frames):
        apart = np.abs(frame - index)
        near = apart <= max(index // NEIGHBOURS, np.sort(apart)[min(FEWEST, len(apart)) - 1])
        share = min(1.0, COVERED * (1 + 1 / len(np.unique(drive[near]))))
        weights = np.repeat(weight[near], values.shape[1])
        scales[index] = np.quantile(values[near].reshape(-1), share, weights=weights, method="inverted_cdf")
    return scales
