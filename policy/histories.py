"""Token sequences of whole episodes, for policies that remember (docs/decisions/0021-episodes-as-memory.md).

Knows no network, no noise and no file.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from forcing.policy.memory import MemoryConfig
from forcing.policy.tokens import Tokenizer
from forcing.policy.types import Trajectories, TrajectorySpec

ALIKE = 4  # what fills the shorter of a batch's sequences costs as much as what is learned from


@dataclass(frozen=True, slots=True)
class Episodes:
    """What such a policy learns from: a recording in numbers. shares: [E] how often each episode is drawn, None for by
    its length."""

    trajectories: Trajectories
    shares: NDArray[np.float64] | None = None

    @property
    def spec(self) -> TrajectorySpec:
        """Without a goal: what is wanted must be among what is observed."""
        return replace(self.trajectories.spec, goal=None)


@dataclass(frozen=True, slots=True)
class Histories:
    """tokens: [B, L, D], normalised. lengths: [B] of them that are an episode's; the others repeat its last."""

    tokens: Tensor
    lengths: Tensor


@dataclass(frozen=True, slots=True)
class Rows:
    """A recording's streams, normalised. starts: stream -> [E] first row of each episode. values: -> [rows, size]."""

    starts: Mapping[str, NDArray[np.int64]]
    values: Mapping[str, NDArray[np.float32]]


def rows_of(trajectories: Trajectories, tokenizer: Tokenizer) -> Rows:
    """Of a recording whose streams are numbers in memory."""
    starts, values = dict[str, NDArray[np.int64]](), dict[str, NDArray[np.float32]]()
    for stream in tokenizer.streams:
        starts[stream.name] = trajectories.starts(stream.role)
        flat = trajectories.streams[stream.name].reshape(-1, stream.size)
        values[stream.name] = tokenizer.normaliser.apply(stream.name, flat)
    return Rows(starts, values)


class HistorySource:
    """Draws sequences of a recording whose streams are numbers in memory."""

    def __init__(self, episodes: Episodes, tokenizer: Tokenizer, config: MemoryConfig) -> None:
        """Raises ValueError if no episode has the steps of a token."""
        layout, trajectories, shares = tokenizer.layout, episodes.trajectories, episodes.shares
        self.tokenizer, self.config, self.most = tokenizer, config, layout.history + layout.horizon
        self._lengths = trajectories.lengths
        mean = float((trajectories.lengths // layout.token_steps + 1).mean()) + config.hold_tokens / 2
        self.usual = min(round(mean), self.most)  # tokens of a sequence
        if int(self._lengths.max()) < layout.token_steps:
            raise ValueError(
                f"no episode has the {layout.token_steps} steps of one token; use shorter tokens or longer recordings"
            )
        weights = np.where(self._lengths >= layout.token_steps, self._lengths if shares is None else shares, 0.0)
        self._shares = weights / weights.sum()
        self._rows = rows_of(trajectories, tokenizer)

    def draw(self, rng: np.random.Generator, count: int, alike: int = ALIKE) -> Histories:
        """`count` sequences of as many tokens as the longest of them has, at most history and horizon together.

        They are neighbours by length among `alike` times as many.

        An episode that fits begins within its first token's steps, at random, so that every step is seen in every place
        of a token; a part of a longer one begins anywhere.
        """
        token = self.tokenizer.layout.token_steps
        drawn = count * alike
        episodes = rng.choice(len(self._lengths), size=drawn, p=self._shares)
        steps = self._lengths[episodes]
        held = rng.integers(0, self.config.hold_tokens + 1, size=drawn)
        later = np.maximum(steps // token + 1 + held - self.most, 0)
        begin = np.minimum(rng.integers(0, later * token + token), steps - token)
        lengths = np.minimum((steps - begin) // token + 1 + held, self.most)
        first = count * int(rng.integers(0, alike))
        chosen = np.argsort(lengths, kind="stable")[first : first + count]
        episodes, begin, lengths = episodes[chosen], begin[chosen], lengths[chosen]
        tokens = self._tokens(episodes, begin, int(lengths.max()))
        if self.config.moved_m > 0:
            tokens = tokens + self._displaced(rng.normal(0.0, self.config.moved_m, (count, 2)))[:, None]
        return Histories(tokens, torch.from_numpy(lengths))

    def _displaced(self, floor: NDArray[np.float64]) -> Tensor:
        """[B, D] what features grow by, normalised, where all places are moved by `floor` [B, 2], x and y in m."""
        columns = []
        for stream in self.tokenizer.streams:
            acts = stream.role == "action"
            physical = np.zeros((len(floor), stream.size))
            for place in range(stream.places):
                physical[:, 3 * place : 3 * place + 2] = floor
            normalised = physical / np.asarray(self.tokenizer.normaliser.std[stream.name])
            columns.append(np.tile(normalised, self.tokenizer.layout.token_steps if acts else 1))
        return torch.from_numpy(np.concatenate(columns, axis=1).astype(np.float32))

    def _tokens(self, episodes: NDArray[np.int64], begin: NDArray[np.int64], length: int) -> Tensor:
        token = self.tokenizer.layout.token_steps
        steps, columns = self._lengths[episodes][:, None], []
        for stream in self.tokenizer.streams:
            first = self._rows.starts[stream.name][episodes][:, None]
            if stream.role == "observation":
                rows = np.minimum(begin[:, None] + token * np.arange(length), steps)
            else:  # those that led to a token's observation; before the first nobody knows
                rows = begin[:, None] + np.arange(-token, token * (length - 1))
                rows = np.clip(rows, 0, steps - 1)
            columns.append(self._rows.values[stream.name][first + rows].reshape(len(episodes), length, -1))
        return torch.from_numpy(np.concatenate(columns, axis=-1))
