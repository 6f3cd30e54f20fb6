"""Plans made better: the best are noised a little, guessed anew and judged, over and over.

What comes out are still guesses of the model, near plans that were good; sampling from pure noise would have to hit
them by luck. The evolution strategy of Diffusion-ES (Yang et al. 2024, arXiv:2402.06559) with one network pass a
generation. Knows nothing of goals, units or horizons.
"""

from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from forcing.policy.guidance import Guidance
from forcing.policy.sampler import Model, PlanState, denoise_step
from forcing.policy.search import Cost


@dataclass(frozen=True, slots=True, kw_only=True)
class RefineConfig:
    """rounds: of noising and guessing, a network pass each. survivors: best plans that are varied in a round. level,
    least: most and least noise that a variant gets, drawn log-uniformly in between."""

    rounds: int = 9
    survivors: int = 8
    level: float = 0.3
    least: float = 0.06

    def __post_init__(self) -> None:
        for name in ("rounds", "survivors"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, got {getattr(self, name)}")
        if not 0 < self.least <= self.level <= 1:
            raise ValueError(f"least and level must be 0 < least <= level <= 1, got {self.least} and {self.level}")


def refine(
    model: Model, state: PlanState, planned: Tensor, cost: Cost, config: RefineConfig, guide: Guidance | None = None
) -> tuple[PlanState, int]:
    """As many plans as there were, the best found first, and the network passes it took.

    state: with x0_hat, the plans to begin with. planned: bool [B, L], tokens that may be changed. Each round makes as
    many variants as there are plans; plans as cheap as each other stay in order, older ones before their variants. A
    token keeps no more noise than it had. The same generator gives the same plans.
    """
    count, passes = len(state.tokens), 0
    costs, moves = cost(state), planned
    for _ in range(config.rounds):
        order = np.argsort(costs, kind="stable")[:count]
        best = torch.from_numpy(order)
        state, costs, moves = state.rows(best), costs[order], moves[best]
        parents = torch.arange(count) % min(config.survivors, count)
        variants, price = _varied(model, state.rows(parents), moves[parents], config, guide)
        passes += price
        state, costs = state.joined(variants), np.concatenate([costs, cost(variants)])
        moves = torch.cat([moves, moves[parents]])
    return state.rows(torch.from_numpy(np.argsort(costs, kind="stable")[:count])), passes


def _varied(
    model: Model, parents: PlanState, moves: Tensor, config: RefineConfig, guide: Guidance | None
) -> tuple[PlanState, int]:
    """One variant of each parent, and the network passes they took."""
    assert parents.x0_hat is not None
    drawn = torch.rand(len(parents.tokens), generator=parents.generator)
    level = (config.level * (config.least / config.level) ** drawn)[:, None, None]
    levels = torch.where(moves[..., None], level, parents.levels)
    noise = torch.randn(parents.tokens.shape, generator=parents.generator)
    noised = model.schedule.add_noise(parents.x0_hat, levels[..., model.features], noise)
    tokens = torch.where(moves[..., None], noised, parents.tokens)
    following = torch.minimum(parents.levels, levels)
    state = replace(parents, tokens=tokens, levels=levels, x0_hat=None)
    price = 1 + (0 if guide is None else guide.passes(state, following < levels))
    return denoise_step(model, state, following, guide), price
