"""What a network imagines that will be observed, given how an episode began and what was done in it from there on.

A window as long as the sequences of training slides over the episode, however long that is: what was observed or made
before stands in front, new tokens behind it are sampled. Knows no units and no recording.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from forcing.policy.memory import MemoryConfig
from forcing.policy.sampler import Model, PlanState, denoise_step, stabilised
from forcing.policy.tokens import TokenLayout

# Where sampling begins: as good as pure noise, and a level that training draws, which it does of exactly 1 hardly ever.
START = 0.999


@dataclass(frozen=True, slots=True, kw_only=True)
class Imagining:
    """How an episode is carried on.

    length: tokens of a window, at least 2. fresh: of them that are made together, behind those that were there before,
    at least 1. passes: network passes for them, at least 1. stabilisation: level at which observations are declared
    that were made, 0 for clean, as in teacher forcing; below 1. noised: observations that were there before are as
    noisy as those that are being made, as in full-sequence diffusion, which knows one level for a whole window.
    """

    length: int
    fresh: int = 1
    passes: int = 4
    stabilisation: float = 0.0
    noised: bool = False

    def __post_init__(self) -> None:
        if not 1 <= self.fresh < self.length:
            raise ValueError(f"fresh must be at least 1 and below length {self.length}, got {self.fresh}")
        if self.passes < 1:
            raise ValueError(f"passes must be at least 1, got {self.passes}")
        if not 0 <= self.stabilisation < 1:
            raise ValueError(f"stabilisation must be at least 0 and below 1, got {self.stabilisation}")
        if self.noised and self.stabilisation > 0:
            raise ValueError(f"stabilisation must be 0 with noised, where nothing is clean, got {self.stabilisation}")


def imagining_of(layout: TokenLayout, memory: MemoryConfig, passes: int) -> Imagining:
    """How a policy's recipe says that its network imagines: `layout.horizon` tokens at a time behind up to
    `layout.history`, those that were made declared at `memory.recall_level`, or noised with `memory.equal_levels`."""
    return Imagining(
        length=layout.history + layout.horizon,
        fresh=layout.horizon,
        passes=passes,
        stabilisation=0.0 if memory.equal_levels else memory.recall_level,
        noised=memory.equal_levels,
    )


@torch.no_grad()
def imagine(
    model: Model, tokens: Tensor, observed: int, actions: Tensor, how: Imagining, generator: torch.Generator
) -> Tensor:
    """[B, T, D]: the first `observed` tokens as they are, behind them the actions as they are and observations made up.

    tokens: [B, T, D], clean; of those behind the first `observed` only actions are looked at. observed: at least 1 and
    below T. actions: [S] bool, which streams are. Actions are known at level 0, but for those that led to the first
    token of a window, which no training sequence shows. Raises ValueError if `observed` does not fit,
    FloatingPointError if what is made is not finite.
    """
    total = tokens.shape[1]
    if not 1 <= observed < total:
        raise ValueError(f"observed must be at least 1 and below the {total} tokens, got {observed}")
    made = torch.where(actions[model.features], tokens, 0.0)
    made[:, :observed] = tokens[:, :observed]
    reached = observed
    while reached < total:
        end = min(reached + how.fresh, total)
        begin = max(0, end - how.length)
        made[:, reached:end] = _sampled(
            model, made[:, begin:end], reached - begin, observed - begin, actions, how, generator
        )
        reached = end
    if not bool(torch.isfinite(made).all()):
        raise FloatingPointError("what the network imagines is not finite; lower the learning rate and train it anew")
    return made


def _sampled(
    model: Model,
    window: Tensor,
    before: int,
    observed: int,
    actions: Tensor,
    how: Imagining,
    generator: torch.Generator,
) -> Tensor:
    """[B, l - before, D] the tokens behind the first `before` of a window [B, l, D], of which the first `observed`, if
    any, were observed."""
    batch, length, _ = window.shape
    index = torch.arange(length)[None, :, None]
    fresh, made = (index >= before) & ~actions, (index >= observed) & ~actions  # [1, l, S]
    known = torch.zeros(batch, length, len(actions))
    known[:, 0, actions] = 1.0

    def noise() -> Tensor:
        return torch.randn(window.shape, generator=generator)

    features = model.features
    tokens = torch.where(fresh[..., features], noise(), window)
    levels = torch.where(fresh, START, known)
    for row in torch.linspace(START, 0.0, how.passes + 1)[1:].tolist():
        if how.noised:
            levels = torch.where(actions, known, levels[:, -1:].amax(dim=2, keepdim=True))
            drawn = model.schedule.add_noise(window, levels[..., features], noise())
            tokens = torch.where((fresh | actions)[..., features], tokens, drawn)
        state = PlanState(tokens, levels, torch.full((batch,), length), generator)
        declared = stabilised(levels, made, how.stabilisation) if how.stabilisation > 0 else None
        state = denoise_step(model, state, torch.where(fresh, row, levels), declared=declared)
        tokens, levels = state.tokens, state.levels
    return tokens[:, before:]
