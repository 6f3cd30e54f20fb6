"""Steering plans by the gradient of a return, averaged over several futures.

An objective maps predicted clean tokens [B, N, L, D] to a log return [B, N]; objectives add up. Knows nothing of goals'
units, planners or scheduling matrices.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from forcing.policy.sampler import Model, PlanState

Objective = Callable[[Tensor], Tensor]


def reach(target: Tensor, where: slice, token: Tensor, scale: float) -> Objective:
    """-scale / 2 times the mean squared distance of features `where` of token `token[b]` from `target`.

    target: [B, features] in the tokens' units. token: [B] index of the token that must arrive.
    """

    def objective(tokens: Tensor) -> Tensor:
        rows = torch.arange(tokens.shape[0], device=tokens.device)
        arrived = tokens[rows, :, token][:, :, where]
        error: Tensor = (arrived - target[:, None]).square().mean(dim=-1)
        return -0.5 * scale * error

    return objective


def total(objectives: Sequence[Objective]) -> Objective:
    """The sum of log returns: the product of their likelihoods."""

    def objective(tokens: Tensor) -> Tensor:
        return torch.stack([part(tokens) for part in objectives]).sum(dim=0)

    return objective


@dataclass(frozen=True, slots=True, kw_only=True)
class Guidance:
    """The gradient that steers a sampling step; a `Guide` for `denoise_step`.

    objective: the log return. futures: 0 for the plain gradient through one prediction; N >= 1 for Monte-Carlo
    guidance (Chen et al. 2024, section 3.3): for each moving token, whatever is noisier than it is drawn anew N times
    at its own level around what the model expects, and the gradients with respect to the token are averaged. In a
    pyramid that is its future; with equal levels nothing is noisier, and the average is the plain gradient. max_norm:
    largest norm of a token's gradient.
    """

    objective: Objective
    futures: int = 0
    max_norm: float = float("inf")

    def __post_init__(self) -> None:
        if self.futures < 0:
            raise ValueError(f"futures must be at least 0, got {self.futures}")

    def __call__(self, model: Model, state: PlanState, moving: Tensor) -> Tensor:
        """[B, L, D] gradient of the (averaged) log return with respect to the tokens; zero where nothing moves."""
        gradient = self._plain(model, state) if self.futures == 0 else self._monte_carlo(model, state, moving)
        gradient = torch.where(moving[..., model.features], gradient, 0.0)
        norm = gradient.norm(dim=-1, keepdim=True)
        shrink: Tensor = (self.max_norm / norm.clamp(min=1e-12)).clamp(max=1.0)
        return gradient * shrink

    def _plain(self, model: Model, state: PlanState) -> Tensor:
        with torch.enable_grad():
            tokens = state.tokens.detach().requires_grad_()
            x0_hat = model.denoise(tokens, state.levels, state.lengths)
            gradient: Tensor = torch.autograd.grad(self.objective(x0_hat[:, None]).sum(), tokens)[0]
        return gradient

    def _monte_carlo(self, model: Model, state: PlanState, moving: Tensor) -> Tensor:
        batch, length, width = state.tokens.shape
        shape = (batch, self.futures, length, width)
        level = state.levels[..., model.features]
        levels = state.levels.repeat_interleave(self.futures, dim=0)
        lengths = state.lengths.repeat_interleave(self.futures)
        with torch.no_grad():
            expected = model.denoise(state.tokens, state.levels, state.lengths)
        gradient = torch.zeros_like(state.tokens)
        # One level at a time: what is as clean or cleaner is shared by all futures, what is noisier is drawn anew.
        for pivot in torch.unique(state.levels[moving]):
            noise = torch.randn(shape, generator=state.generator).to(state.tokens)
            redrawn = model.schedule.add_noise(expected[:, None], level[:, None].expand(shape), noise)
            with torch.enable_grad():
                tokens = state.tokens.detach().requires_grad_()
                futures = torch.where((level > pivot)[:, None], redrawn, tokens[:, None]).reshape(-1, length, width)
                x0_hat = model.denoise(futures, levels, lengths)
                returns = self.objective(x0_hat.view(shape)).mean(dim=1)
                averaged = torch.autograd.grad(returns.sum(), tokens)[0]
            gradient = torch.where(level == pivot, averaged, gradient)
        return gradient
