"""Policies that act from all that an episode has shown: what they are trained on and how they recall it.

A sequence is an episode from its beginning (decision 21): token 0 is the first observation, each later one the actions
of `token_steps` control steps and the observation that they led to. Levels of noise say what is known of each stream of
each token, as everywhere; here are those that such a policy is trained on. Knows no network and no recording.
"""

from collections.abc import Collection
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from forcing.policy.types import TrajectorySpec


@dataclass(frozen=True, slots=True, kw_only=True)
class RecallMix:
    """How tokens are noised in training; shares are 0 to 1.

    behind: share of batches in which every token is guessed behind a known past, which is what acting comes to. The
    sequences of the other batches are noised as a whole: independent, shared, pyramid, as in `LevelMix`, sum to 1.
    Of a known past: slightly: level up to which every other sequence's is noisy; what a robot observes is never exact.
    lost: share of sequences in which some observations are missing from some token on; alone: the share of these in
    which one is, a single camera where there are any, and not all; for_good: that in which they never come back; early:
    that in which they are missing from a token on that is near the beginning, half of them within an eighth of it.
    actions_hidden: share of sequences in which past actions are missing. Of the tokens behind it: led: share whose
    actions are known, and where they lead is guessed. pure: share that are pure noise; the others have any level.

    For models of the world, which are asked where known actions lead: known_actions: share of sequences, of any kind,
    in which all actions are known and none is guessed. together: share of the independent in which all streams of a
    token have one level.
    """

    behind: float = 0.7
    independent: float = 0.4
    shared: float = 0.2
    pyramid: float = 0.4
    slightly: float = 0.02
    lost: float = 0.3
    alone: float = 0.5
    for_good: float = 0.3
    early: float = 0.0
    actions_hidden: float = 0.5
    led: float = 0.15
    pure: float = 0.1
    known_actions: float = 0.0
    together: float = 0.0

    def __post_init__(self) -> None:
        for name in self.__dataclass_fields__:
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"{name} must be from 0 to 1, got {getattr(self, name)}")
        total = self.independent + self.shared + self.pyramid
        if abs(total - 1) > 1e-9:
            raise ValueError(f"independent, shared and pyramid must sum to 1, got {total:g}")


@dataclass(frozen=True, slots=True, kw_only=True)
class MemoryConfig:
    """How a policy remembers.

    mix: levels in training.
    moved_m: how far along the floor all places of an episode are moved together in training, standard deviation along x
    and along y in m. Places are observations in m that are x, y, z, and the action's first three entries; where what is
    to be done is at a place that is told, and not always the same, a few demonstrations then count for all around.
    moves_from: the observation of where the robot is, from which actions are told as moves (`moves`), for models of the
    world alone; None to tell them as they are recorded.
    hold_tokens: tokens at the most that an episode goes on after its end in training, its last observation and action
    held; 0 where an action is no place to be. observation_share: what an error of observations counts in the loss,
    beside 1 of actions; streams_alike: whether each stream of them has an equal part in that, and not each number.

    In use: recall_level: level at which the past is declared, at least 0 and below 1. show_actions: whether past
    actions are known. equal_levels: whether the past is as noisy as what is sampled, as in full-sequence diffusion.
    wait_steps: control steps for which the robot is held where it is, and nothing is remembered, while all cameras are
    lacking (where there are none, all observations), before it goes on from memory; 0 where an action is no place to
    be. doubt: whether a reading is left aside that is more surprising (`surprise`) than the share `false_alarms` of
    those that were recorded, above 0 and below 1.
    """

    mix: RecallMix = field(default_factory=RecallMix)
    moved_m: float = 0.0
    moves_from: str | None = None
    hold_tokens: int = 24
    observation_share: float = 0.3
    streams_alike: bool = False
    recall_level: float = 0.0
    show_actions: bool = False
    equal_levels: bool = False
    wait_steps: int = 0
    doubt: bool = False
    false_alarms: float = 1e-3

    def __post_init__(self) -> None:
        if not 0 <= self.moved_m < np.inf:
            raise ValueError(f"moved_m must be finite and at least 0, got {self.moved_m}")
        if self.moves_from is not None:
            self._check_moves(self.moves_from)
        for name in ("hold_tokens", "wait_steps"):
            if getattr(self, name) < 0:
                raise ValueError(f"{name} must be at least 0, got {getattr(self, name)}")
        if not self.observation_share >= 0:
            raise ValueError(f"observation_share must be at least 0, got {self.observation_share}")
        if not 0 <= self.recall_level < 1:
            raise ValueError(f"recall_level must be at least 0 and below 1, got {self.recall_level}")
        if not 0 < self.false_alarms < 1:
            raise ValueError(f"false_alarms must be above 0 and below 1, got {self.false_alarms}")

    @property
    def acts(self) -> bool:
        """Whether actions are guessed. A model of the world, which is told all of them, never learns to."""
        return self.mix.known_actions < 1

    def _check_moves(self, moves_from: str) -> None:
        if self.acts:
            raise ValueError(
                f"moves_from must be none unless actions are known (mix.known_actions 1), got {moves_from!r}"
            )
        for name in ("moved_m", "hold_tokens", "wait_steps"):
            if (value := getattr(self, name)) != 0:
                raise ValueError(f"{name} must be 0 with moves_from, where an action is no place to be, got {value}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Streams:
    """actions: [S] which streams are. cameras: [S] which are a camera's."""

    actions: tuple[bool, ...]
    cameras: tuple[bool, ...]

    @property
    def lacked(self) -> tuple[bool, ...]:
        """[S] those that a policy learns to go without, all at once: the cameras, or every observation where there is
        none."""
        return self.cameras if any(self.cameras) else tuple(not action for action in self.actions)


def may_lack(spec: TrajectorySpec, cameras: Collection[str]) -> tuple[str, ...]:
    """Names of the observations that are `Streams.lacked`. cameras: names of those that are a camera's."""
    names = [stream.name for stream in spec.of_role("observation")]
    streams = Streams(actions=(False,) * len(names), cameras=tuple(name in cameras for name in names))
    return tuple(name for name, lacked in zip(names, streams.lacked, strict=True) if lacked)


def draw_behind(
    mix: RecallMix, streams: Streams, batch: int, length: int, generator: torch.Generator
) -> tuple[Tensor, Tensor, Tensor]:
    """Levels of a known past [B, L, S], of the tokens that are guessed behind it [B, L, S], 0 clean to 1 pure noise,
    and which of these count, bool [B, L, S].

    Actions before the first token are never known.
    """
    many, actions = len(streams.actions), torch.tensor(streams.actions)

    def uniform(*size: int) -> Tensor:
        return torch.rand(*size, generator=generator)

    slightly = uniform(batch, 1, 1) * mix.slightly * (uniform(batch, 1, 1) < 0.5)
    known = slightly * uniform(batch, length, many)
    hidden = (uniform(batch, 1, 1) < mix.actions_hidden) & actions
    known = torch.where(hidden | _lost(mix, streams, batch, length, generator), 1.0, known)
    level = torch.where(uniform(batch, length, 1) < mix.pure, 1.0, uniform(batch, length, 1)).expand(-1, -1, many)
    led = (uniform(batch, length, 1) < mix.led) & actions
    level = torch.where(led, 0.0, level)
    if mix.known_actions > 0:
        told = (uniform(batch, 1, 1) < mix.known_actions) & actions
        known, level = torch.where(told, 0.0, known), torch.where(told, 0.0, level)
    known[:, 0, actions] = 1.0
    level[:, 0, actions] = 1.0
    counted = level > 0
    counted[:, 0, actions] = False
    return known, level, counted


def draw_whole(
    mix: RecallMix, streams: Streams, batch: int, length: int, generator: torch.Generator
) -> tuple[Tensor, Tensor]:
    """Levels [B, L, S] of sequences that are noised as a whole, and which of them count, bool [B, L, S]."""
    many, actions = len(streams.actions), torch.tensor(streams.actions)

    def uniform(*size: int) -> Tensor:
        return torch.rand(*size, generator=generator)

    kind, shared = uniform(batch, 1, 1), uniform(batch, 1, 1)
    # A pyramid caught at a random moment of sampling, behind a clean past.
    first = torch.randint(1, max(length, 2), (batch, 1, 1), generator=generator)
    ahead = torch.arange(length).view(1, length, 1) - first
    pyramid = (uniform(batch, 1, 1) + uniform(batch, 1, 1) * ahead).clamp(0, 1) * (ahead >= 0)
    levels = torch.where(kind < mix.independent + mix.shared, shared, pyramid).expand(batch, length, many)
    independent = uniform(batch, length, many)
    if mix.together > 0:
        independent = torch.where(uniform(batch, 1, 1) < mix.together, independent[..., :1], independent)
    levels = torch.where(kind < mix.independent, independent, levels).clone()
    if mix.known_actions > 0:
        levels = torch.where((uniform(batch, 1, 1) < mix.known_actions) & actions, 0.0, levels)
    levels[:, 0, actions] = 1.0
    counted = levels > 0
    counted[:, 0, actions] = False
    return levels, counted


def _lost(mix: RecallMix, streams: Streams, batch: int, length: int, generator: torch.Generator) -> Tensor:
    """bool [B, L, S] observations that are missing: one of those that may be or all of them, from some token on, for a
    while or for good."""
    many = len(streams.actions)

    def uniform(*size: int) -> Tensor:
        return torch.rand(*size, generator=generator)

    candidates = torch.tensor(streams.lacked)
    numbers = torch.nonzero(candidates)[:, 0]
    one = numbers[torch.randint(len(numbers), (batch,), generator=generator)]
    alone = torch.arange(many) == one[:, None]
    some = torch.where(uniform(batch, 1) < mix.alone, alone, candidates)[:, None, :]
    start = uniform(batch, 1, 1)
    if mix.early > 0:
        start = torch.where(uniform(batch, 1, 1) < mix.early, start**3, start)
    start = (start * length).floor()
    span = torch.where(uniform(batch, 1, 1) < mix.for_good, float(length), 1 + uniform(batch, 1, 1) ** 2 * 20)
    index = torch.arange(length).view(1, length, 1)
    return (uniform(batch, 1, 1) < mix.lost) & some & (index >= start) & (index < start + span)
