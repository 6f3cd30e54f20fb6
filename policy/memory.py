"""Policies that act from all that an episode has shown: what they are trained on and how they recall it.

A sequence is an episode from its beginning (decision 21): token 0 is the first observation, each later one the actions
of `token_steps` control steps and the observation that they led to. Levels of noise say what is known of each stream of
each token, as everywhere; here are those that such a policy is trained on. Knows no network and no recording.
"""

from dataclasses import dataclass, field

import torch
from torch import Tensor


@dataclass(frozen=True, slots=True, kw_only=True)
class RecallMix:
    """Shares of sequences by how their tokens are noised, each 0 to 1.

    recalled: a known past with some tokens to be guessed; independent, shared, pyramid: as in `levels.LevelMix`;
    next_token: teacher forcing, one token at any level behind a clean past; cloned: the same, as pure noise. They sum
    to 1. Of the recalled: guessed: share of tokens that are. slightly: level up to which the past of every other
    sequence is noisy; an observation of a robot's is never exact. lost: share of sequences in which some observations
    are missing for a while, or for good. actions_hidden: share in which past actions are. Of the guessed tokens:
    led: share whose actions are known, and where they lead is guessed.
    """

    recalled: float = 0.6
    independent: float = 0.15
    shared: float = 0.05
    pyramid: float = 0.2
    next_token: float = 0.0
    cloned: float = 0.0
    guessed: float = 0.35
    slightly: float = 0.02
    lost: float = 0.3
    actions_hidden: float = 0.5
    led: float = 0.15

    def __post_init__(self) -> None:
        for name in self.__dataclass_fields__:
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"{name} must be from 0 to 1, got {getattr(self, name)}")
        total = self.recalled + self.independent + self.shared + self.pyramid + self.next_token + self.cloned
        if abs(total - 1) > 1e-9:
            raise ValueError(
                f"recalled, independent, shared, pyramid, next_token and cloned must sum to 1, got {total:g}"
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class MemoryConfig:
    """How a policy remembers.

    mix: levels in training. hold_tokens: tokens that an episode goes on after its end in training, its last observation
    and action held; 0 where an action is no place to be. observation_share: what an error of observations counts in the
    loss, beside 1 of actions. recall_level: level at which the past is declared in use, at least 0 and below 1.
    show_actions: whether past actions are known in use. equal_levels: in use the past is as noisy as what is sampled,
    as in full-sequence diffusion. doubt: whether in use a reading is left aside that is more surprising (`surprise`)
    than the share `false_alarms` of those that were recorded, above 0 and below 1.
    """

    mix: RecallMix = field(default_factory=RecallMix)
    hold_tokens: int = 8
    observation_share: float = 0.3
    recall_level: float = 0.0
    show_actions: bool = False
    equal_levels: bool = False
    doubt: bool = False
    false_alarms: float = 1e-3

    def __post_init__(self) -> None:
        if self.hold_tokens < 0:
            raise ValueError(f"hold_tokens must be at least 0, got {self.hold_tokens}")
        if not self.observation_share >= 0:
            raise ValueError(f"observation_share must be at least 0, got {self.observation_share}")
        if not 0 <= self.recall_level < 1:
            raise ValueError(f"recall_level must be at least 0 and below 1, got {self.recall_level}")
        if not 0 < self.false_alarms < 1:
            raise ValueError(f"false_alarms must be above 0 and below 1, got {self.false_alarms}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Streams:
    """actions: [S] which streams are. cameras: [S] which are a camera's."""

    actions: tuple[bool, ...]
    cameras: tuple[bool, ...]


def draw_recall(
    mix: RecallMix, streams: Streams, batch: int, length: int, generator: torch.Generator
) -> tuple[Tensor, Tensor]:
    """Levels [B, L, S] for training, 0 clean to 1 pure noise, and which of them are to be guessed, bool [B, L, S].

    Actions before the first token are never known.
    """
    many = len(streams.actions)

    def uniform(*size: int) -> Tensor:
        return torch.rand(*size, generator=generator)

    kind = uniform(batch, 1, 1)
    bounds = torch.tensor(
        [mix.recalled, mix.independent, mix.shared, mix.pyramid, mix.next_token, mix.cloned]
    ).cumsum(0)  # fmt: skip
    which = torch.bucketize(kind, bounds[:-1], right=True)
    levels, guessed = _recalled(mix, streams, batch, length, generator)
    everything = torch.ones(batch, length, many, dtype=torch.bool)
    one, behind = _one_token(batch, length, generator)
    # A pyramid caught at a random moment of sampling, behind a clean past.
    slope, ahead = uniform(batch, 1, 1), torch.arange(length).view(1, length, 1) - one
    pyramid = (uniform(batch, 1, 1) + slope * ahead).clamp(0, 1) * (ahead >= 0)
    one_level = uniform(batch, 1, 1)
    single = ahead == 0
    for number, (values, counted) in enumerate(
        (
            (uniform(batch, length, many), everything),
            (uniform(batch, 1, 1).expand(batch, length, many), everything),
            (pyramid.expand(batch, length, many), (ahead >= 0).expand_as(everything)),
            (torch.where(single, one_level, behind).expand(batch, length, many), single.expand_as(everything)),
            (torch.where(single, 1.0, behind).expand(batch, length, many), single.expand_as(everything)),
        ),
        start=1,
    ):
        levels = torch.where(which == number, values, levels)
        guessed = torch.where(which == number, counted, guessed)
    actions = torch.tensor(streams.actions)
    levels[:, 0, actions], guessed[:, 0, actions] = 1.0, False
    return levels, guessed & (levels > 0)


def _recalled(
    mix: RecallMix, streams: Streams, batch: int, length: int, generator: torch.Generator
) -> tuple[Tensor, Tensor]:
    """Levels of a known past with tokens to be guessed in it, and which are."""
    many, actions = len(streams.actions), torch.tensor(streams.actions)

    def uniform(*size: int) -> Tensor:
        return torch.rand(*size, generator=generator)

    slightly = uniform(batch, 1, 1) * mix.slightly * (uniform(batch, 1, 1) < 0.5)
    levels = slightly * uniform(batch, length, many)
    hidden = (uniform(batch, 1, 1) < mix.actions_hidden) & actions
    levels = torch.where(hidden | _lost(mix, streams, batch, length, generator), 1.0, levels)
    guessed = (uniform(batch, length, 1) < mix.guessed).expand(batch, length, many)
    # High levels decide what is done, low ones how exactly; pure noise is where sampling begins.
    level = uniform(batch, length, 1) * 1.1
    led = (uniform(batch, length, 1) < mix.led) & actions
    levels = torch.where(guessed, torch.where(led, 0.0, level.clamp(max=1.0)), levels)
    return levels, guessed & ~led


def _lost(mix: RecallMix, streams: Streams, batch: int, length: int, generator: torch.Generator) -> Tensor:
    """bool [B, L, S] observations that are missing: of one sensor, of all cameras or of any, from some token on, for a
    while or for good."""
    many = len(streams.actions)

    def uniform(*size: int) -> Tensor:
        return torch.rand(*size, generator=generator)

    cameras = torch.tensor(streams.cameras)
    candidates = cameras if bool(cameras.any()) else ~torch.tensor(streams.actions)
    numbers = torch.nonzero(candidates)[:, 0]
    one = numbers[torch.randint(len(numbers), (batch,), generator=generator)]
    alone = torch.arange(many) == one[:, None]
    of_cameras = uniform(batch, 1) < 0.5
    some = torch.where(of_cameras, candidates, alone)[:, None, :]
    start = (uniform(batch, 1, 1) * length).floor()
    span = torch.where(uniform(batch, 1, 1) < 0.3, float(length), 1 + uniform(batch, 1, 1) ** 2 * 20)
    index = torch.arange(length).view(1, length, 1)
    return (uniform(batch, 1, 1) < mix.lost) & some & (index >= start) & (index < start + span)


def _one_token(batch: int, length: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """[B, 1, 1] a token after the first, and [B, L, 1] 0 before and at it, 1 behind it."""
    one = torch.randint(1, max(length, 2), (batch, 1, 1), generator=generator)
    return one, (torch.arange(length).view(1, length, 1) > one).to(torch.float32)
