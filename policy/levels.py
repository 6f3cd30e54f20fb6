"""Noise levels drawn in training: every stream of every token its own.

Independent and uniform levels make any subset of the trajectory a condition (Chen et al. 2024, section 3.1); shared
and pyramid-shaped ones are what sampling meets, and mixing them in measures better (docs/experiments.md). Teacher
forcing, every token guessed from clean predecessors, is a baseline. Knows nothing of networks.
"""

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True, slots=True, kw_only=True)
class LevelMix:
    """Shares of windows by how their plan tokens are noised, and how history and goal are shown; each 0 to 1.

    independent, shared, pyramid, next_token: must sum to 1. The last is teacher forcing: clean tokens up to a random
    one, that one at one uniform level, pure noise behind it. history_clean: windows whose history is clean.
    history_actions: windows whose history shows actions. goal_clean, goal_masked: windows whose goal is given, and
    hidden; the rest are noisy.
    """

    independent: float = 0.35
    shared: float = 0.40
    pyramid: float = 0.25
    next_token: float = 0.0
    history_clean: float = 0.8
    history_actions: float = 0.3
    goal_clean: float = 0.65
    goal_masked: float = 0.2

    def __post_init__(self) -> None:
        for name in self.__dataclass_fields__:
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"{name} must be from 0 to 1, got {getattr(self, name)}")
        total = self.independent + self.shared + self.pyramid + self.next_token
        if abs(total - 1) > 1e-9:
            raise ValueError(f"independent, shared, pyramid and next_token must sum to 1, got {total:g}")
        if self.goal_clean + self.goal_masked > 1:
            raise ValueError("goal_clean and goal_masked must sum to at most 1")


@dataclass(frozen=True, slots=True, kw_only=True)
class SequenceShape:
    """history: tokens up to now. actions: [S] which streams are actions. goal: index of the goal stream, None
    without."""

    history: int
    actions: tuple[bool, ...]
    goal: int | None


def draw_levels(mix: LevelMix, shape: SequenceShape, batch: int, plan: int, generator: torch.Generator) -> Tensor:
    """[B, history + plan + 1, S] levels for training, 0 clean to 1 pure noise."""
    streams = len(shape.actions)

    def uniform(*size: int) -> Tensor:
        return torch.rand(*size, generator=generator)

    kind = uniform(batch, 1, 1)
    independent, shared = uniform(batch, plan, streams), uniform(batch, 1, 1)
    # A pyramid caught at a random moment of sampling: levels rise by a random slope, from below 0 to above 1.
    slope = uniform(batch, 1, 1)
    ramp = torch.arange(plan).view(1, plan, 1) * slope
    start = uniform(batch, 1, 1) * (1 + ramp[:, -1:]) - ramp[:, -1:]
    pyramid = (start + ramp).clamp(0, 1)
    body = torch.where(kind < mix.independent + mix.shared, shared, pyramid).expand(batch, plan, streams)
    body = torch.where(kind < mix.independent, independent, body)
    if mix.next_token > 0:
        following = _next_token(batch, plan, generator).expand_as(body)
        body = torch.where(kind >= 1 - mix.next_token, following, body)

    history = torch.where(uniform(batch, 1, 1) < mix.history_clean, 0.0, uniform(batch, shape.history, streams))
    hidden = (uniform(batch, 1, 1) >= mix.history_actions) & torch.tensor(shape.actions)
    history = torch.where(hidden, 1.0, history)

    goal = torch.ones(batch, 1, streams)
    if shape.goal is not None:
        kind = uniform(batch)
        level = torch.where(kind < mix.goal_clean, 0.0, uniform(batch))
        goal[:, 0, shape.goal] = torch.where(kind >= 1 - mix.goal_masked, 1.0, level)
    return torch.cat([history, body, goal], dim=1)


def _next_token(batch: int, plan: int, generator: torch.Generator) -> Tensor:
    """[B, plan, 1] levels of teacher forcing: 0 before a uniformly drawn token, a uniform level on it, 1 behind it."""
    guessed = torch.randint(plan, (batch, 1, 1), generator=generator)
    level = torch.rand(batch, 1, 1, generator=generator)
    index = torch.arange(plan).view(1, plan, 1)
    return torch.where(index == guessed, level, (index > guessed).to(level.dtype))
