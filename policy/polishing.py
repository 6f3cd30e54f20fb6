"""Rehearsed plans polished: bent and hurried here and there at random, rehearsed again, and the better ones kept.

A plan sampled from a model is as good as what the model learned from; where dynamics and visited places are known, what
is left to gain lies near it. Variants bend a stretch of the path and its velocities with it, or skip ahead in time.
Plain numpy; knows no network, and what makes a plan good it is told.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from forcing.policy.candidates import Candidates, Judged
from forcing.policy.tokens import Tokenizer

Judge = Callable[[Candidates], Judged]

# A variant's place is uniform over its plan, its other sizes are log-uniform: how long a stretch it changes and how far
# it skips, in frames; how far it bends, in standard deviations of the goal stream.
WIDTH, SKIP, BEND = (1.0, 10.0), (0.1, 1.5), (0.004, 0.08)
SLOWER = 0.15  # share of skips that go back instead of ahead


@dataclass(frozen=True, slots=True, kw_only=True)
class PolishConfig:
    """rounds: of variants, rehearsed at once. variants: in a round. survivors: best plans that they are made of."""

    rounds: int = 8
    variants: int = 64
    survivors: int = 4

    def __post_init__(self) -> None:
        for name in ("rounds", "variants", "survivors"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, got {getattr(self, name)}")


@dataclass(frozen=True, slots=True)
class Polished:
    """candidate: the best plan found, one row, its cost and whether it is sound. row: of the candidate that it was made
    of."""

    candidate: Candidates
    cost: float
    sound: bool
    row: int


class Polisher:
    """Polishes the plans of one policy."""

    def __init__(self, tokenizer: Tokenizer, config: PolishConfig) -> None:
        spec = tokenizer.spec
        assert spec.goal is not None
        self.config, self._name, self._rate = config, spec.goal, spec.rate(spec.goal)
        self._std = np.asarray(tokenizer.normaliser.std[spec.goal])
        self._frame_s = tokenizer.layout.stride / spec.control_hz

    def polish(self, judged: Judged, judge: Judge, rng: np.random.Generator) -> Polished | None:
        """The best that was found among variants of the cheapest candidates; None if nothing is cheaper than those."""
        frames = judged.candidates.used.shape[1]
        origin = np.argsort(judged.costs, kind="stable")[: self.config.survivors]
        best, prices, sound = judged.candidates.rows(origin).shortened(), judged.costs[origin], judged.sound[origin]
        for _ in range(self.config.rounds):
            parents = np.arange(self.config.variants) % len(origin)
            found = judge(self.vary(best.rows(parents), rng))
            origin, prices = np.concatenate([origin, origin[parents]]), np.concatenate([prices, found.costs])
            sound = np.concatenate([sound, found.sound])
            order = np.argsort(prices, kind="stable")[: self.config.survivors]
            best, origin = best.joined(found.candidates).rows(order), origin[order]
            prices, sound = prices[order], sound[order]
        if prices[0] >= judged.costs.min():
            return None
        first = best.rows(np.array([0])).lengthened(frames)
        return Polished(first, float(prices[0]), bool(sound[0]), int(origin[0]))

    def vary(self, parents: Candidates, rng: np.random.Generator) -> Candidates:
        """A variant of each row."""
        count, frames = parents.used.shape
        own, index = parents.used.sum(axis=1)[:, None], np.arange(frames)

        def drawn(bounds: tuple[float, float]) -> NDArray[np.float64]:
            low, high = np.log(bounds)
            return np.asarray(np.exp(rng.uniform(low, high, size=(count, 1))))

        width = drawn(WIDTH)
        place = (index - rng.uniform(0, own)) / width  # [C, F] from the middle of what is changed, in widths
        bends, skips = rng.integers(3, size=(2, count, 1)) > 0  # a third each of neither, but for ...
        skips |= ~bends  # ... that something always is
        ahead = np.where(rng.random((count, 1)) < SLOWER, -1, 1) * drawn(SKIP) * skips
        passed = 1 / (1 + np.exp(-np.clip(2 * place, -50, 50)))
        from_frame = np.clip(index + ahead * passed, 0, own - 1)
        speed = 1 + ahead * 2 * passed * (1 - passed) / width
        before = np.minimum(from_frame.astype(np.int64), np.maximum(own - 2, 0))
        share = from_frame - before
        rows = np.arange(count)[:, None]
        streams = {}
        for name, values in parents.streams.items():
            axes = (..., *(None,) * (values.ndim - 2))
            after = np.minimum(before + 1, own - 1)
            streams[name] = (1 - share[axes]) * values[rows, before] + share[axes] * values[rows, after]
        bump = np.exp(-0.5 * place**2)[..., None]
        bend = (bends * drawn(BEND) * rng.standard_normal((count, len(self._std))) * self._std)[:, None]
        path = streams[self._name]
        streams[self._name] = path + (bend * bump).reshape(path.shape)
        if self._rate is not None:
            rate = streams[self._rate]
            slope = -place[..., None] * bump / (width[..., None] * self._frame_s)
            streams[self._rate] = rate * speed.reshape(count, frames, *(1,) * (rate.ndim - 2)) + (bend * slope).reshape(
                rate.shape
            )
        return replace(parents, streams=streams)
