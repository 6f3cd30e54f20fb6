"""Steering plans by the gradient of a return, averaged over sampled futures.

Knows nothing of goals, units, planners or scheduling matrices; what is wanted comes as an `Objective`.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from forcing.policy.ancestral import stochastic_step
from forcing.policy.objectives import Objective
from forcing.policy.sampler import Model, PlanState


@dataclass(frozen=True, slots=True, kw_only=True)
class Guidance:
    """The gradient that steers a sampling step; a `Guide` for `denoise_step`.

    objective: the log return log c. futures: 0 for the plain gradient, through one prediction of the clean tokens; N
    >= 1 for Monte-Carlo guidance (Chen et al. 2024, section 3.3): for each moving token, N futures are sampled from
    the model down to clean tokens, and the gradients of their log returns with respect to the token are averaged. Its
    future is whatever is noisier than it, drawn anew from pure noise; the token and what is less noisy start from
    where they are. Every step down takes fresh noise (eta = 1), and the gradient runs through all of them.
    rollout_steps: network passes in which a future comes down.

    The average estimates the gradient of E[log c] over the model's p(clean tokens | the token and what is not
    noisier), a lower bound of log E[c]; that one's gradient would weigh futures by their return. One future is
    already an unbiased estimate, N divide its variance by N. With one rollout step all futures are the mean; more
    give them their spread.
    """

    objective: Objective
    futures: int = 0
    rollout_steps: int = 2

    def __post_init__(self) -> None:
        if self.futures < 0:
            raise ValueError(f"futures must be at least 0, got {self.futures}")
        if self.rollout_steps < 1:
            raise ValueError(f"rollout_steps must be at least 1, got {self.rollout_steps}")

    def passes(self, state: PlanState, moving: Tensor) -> int:
        """Network calls that `__call__` makes for this state."""
        return 1 if self.futures == 0 else self.rollout_steps * len(_pivots(state, moving))

    def __call__(self, model: Model, state: PlanState, moving: Tensor) -> Tensor:
        """[B, L, D] gradient of the (averaged) log return with respect to the tokens; zero where nothing moves."""
        if self.futures == 0:
            gradient = self._plain(model, state)
        else:
            gradient = torch.zeros_like(state.tokens)
            for pivot in _pivots(state, moving):
                at_pivot = moving & (state.levels == pivot)
                rows = at_pivot.any(dim=2).any(dim=1).nonzero()[:, 0]
                averaged = self._averaged(model, state, rows, pivot)
                gradient[rows] = torch.where(at_pivot[rows][..., model.features], averaged, gradient[rows])
        return torch.where(moving[..., model.features], gradient, 0.0)

    def _plain(self, model: Model, state: PlanState) -> Tensor:
        with torch.enable_grad():
            tokens = state.tokens.detach().requires_grad_()
            x0_hat = _guess(model, tokens, state.levels, state.lengths)
            returns = self.objective(x0_hat[:, None], state.lengths)
            gradient: Tensor = torch.autograd.grad(returns.sum(), tokens)[0]
        return gradient

    def _averaged(self, model: Model, state: PlanState, rows: Tensor, pivot: float) -> Tensor:
        """[len(rows), L, D] mean gradient over the futures of what is at level `pivot` in these rows."""
        copies = rows.repeat_interleave(self.futures)
        levels, lengths = state.levels[copies], state.lengths[copies]
        later = levels > pivot
        with torch.enable_grad():
            tokens = state.tokens[rows].detach().requires_grad_()
            drawn = torch.where(
                later[..., model.features],
                _noise_like(state.tokens[copies], state.generator),
                tokens.repeat_interleave(self.futures, dim=0),
            )
            start = torch.where(later, 1.0, levels)
            clean = self._roll_out(model, drawn, start, lengths, state.generator)
            futures = clean.view(len(rows), self.futures, *tokens.shape[1:])
            returns = self.objective(futures, state.lengths[rows]).mean(dim=1)
            gradient: Tensor = torch.autograd.grad(returns.sum(), tokens)[0]
        return gradient

    def _roll_out(
        self, model: Model, tokens: Tensor, levels: Tensor, lengths: Tensor, generator: torch.Generator
    ) -> Tensor:
        """[B, L, D] clean tokens, every stream falling linearly from its level in `levels` to 0."""
        fall = levels / self.rollout_steps
        for step in range(self.rollout_steps):
            now = levels - step * fall
            following = levels - (step + 1) * fall if step + 1 < self.rollout_steps else torch.zeros_like(levels)
            x0_hat = _guess(model, tokens, now, lengths)
            noise = _noise_like(tokens, generator)
            level, lower = now[..., model.features], following[..., model.features]
            tokens = stochastic_step(tokens, x0_hat, level, lower, model.schedule, 1.0, noise)
        return tokens


def _pivots(state: PlanState, moving: Tensor) -> list[float]:
    """Levels of what moves. Pure noise is left out: it has no gradient to follow (`denoise_step`)."""
    return [level for level in torch.unique(state.levels[moving]).tolist() if level < 1]


def _guess(model: Model, tokens: Tensor, levels: Tensor, lengths: Tensor) -> Tensor:
    """[B, L, D] the clean tokens; what is known is not guessed anew."""
    return torch.where(levels[..., model.features] > 0, model.denoise(tokens, levels, lengths), tokens)


def _noise_like(tokens: Tensor, generator: torch.Generator) -> Tensor:
    return torch.randn(tokens.shape, generator=generator).to(tokens)
