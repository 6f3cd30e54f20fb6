"""Steering plans by the gradient of a return, averaged over several futures.

An objective maps predicted clean tokens [B, N, L, D] to a log return [B, N]. Knows nothing of goals'
units, planners or scheduling matrices.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from forcing.policy.sampler import Model, PlanState, denoise_step

Objective = Callable[[Tensor], Tensor]


def reach(target: Tensor, where: slice, token: Tensor, scale: float) -> Objective:
    """-scale / 2 times the mean, over features `where`, of the squared distance of token `token[b]` from `target`.

    target: [B, features] in the tokens' units. token: [B] index of the token that must arrive.
    """

    def objective(tokens: Tensor) -> Tensor:
        rows = torch.arange(tokens.shape[0], device=tokens.device)
        arrived = tokens[rows, :, token][:, :, where]
        error: Tensor = (arrived - target[:, None]).square().mean(dim=-1)
        return -0.5 * scale * error

    return objective


@dataclass(frozen=True, slots=True, kw_only=True)
class Guidance:
    """The gradient that steers a sampling step; a `Guide` for `denoise_step`.

    objective: the log return. futures: 0 for the plain gradient through one prediction; N >= 1 for Monte-Carlo
    guidance (Chen et al. 2024, section 3.3): for each moving token, N futures are drawn from the model and the
    gradients with respect to the token are averaged over them. Its future is whatever is noisier than it: in a
    pyramid all later tokens but those that share its level, with equal levels nothing, and then the average is the
    plain gradient. rollout_steps: DDIM steps in which a future comes from pure noise down to its own present level.
    The gradient runs through the last prediction, not through those steps.
    """

    objective: Objective
    futures: int = 0
    rollout_steps: int = 2

    def __post_init__(self) -> None:
        if self.futures < 0:
            raise ValueError(f"futures must be at least 0, got {self.futures}")
        if self.rollout_steps < 1:
            raise ValueError(f"rollout_steps must be at least 1, got {self.rollout_steps}")

    def __call__(self, model: Model, state: PlanState, moving: Tensor) -> Tensor:
        """[B, L, D] gradient of the (averaged) log return with respect to the tokens; zero where nothing moves."""
        itself = torch.zeros_like(state.levels, dtype=torch.bool)
        gradient = self._gradient(model, state, itself, state.tokens[:, None])
        for pivot in torch.unique(state.levels[moving]).tolist() if self.futures else []:
            later = state.levels > pivot
            # Pure noise has no gradient to follow (`denoise_step`), and what has no future keeps the plain one.
            if pivot < 1 and bool(later.any()):
                averaged = self._gradient(model, state, later, self._futures(model, state, later))
                gradient = torch.where((state.levels == pivot)[..., model.features], averaged, gradient)
        return torch.where(moving[..., model.features], gradient, 0.0)

    def _futures(self, model: Model, state: PlanState, later: Tensor) -> Tensor:
        """[B, N, L, D] tokens in which everything `later` [B, L, S] is sampled anew, given the rest as it is."""
        again = later.repeat_interleave(self.futures, dim=0)
        levels = state.levels.repeat_interleave(self.futures, dim=0)
        tokens = state.tokens.repeat_interleave(self.futures, dim=0)
        noise = torch.randn(tokens.shape, generator=state.generator).to(tokens)
        future = replace(
            state,
            tokens=torch.where(again[..., model.features], noise, tokens),
            levels=torch.where(again, 1.0, levels),
            lengths=state.lengths.repeat_interleave(self.futures),
        )
        for step in range(1, self.rollout_steps + 1):
            fallen = 1 - (1 - levels) * step / self.rollout_steps
            future = denoise_step(model, future, torch.where(again, fallen, levels))
        return future.tokens.view(len(state.tokens), self.futures, *state.tokens.shape[1:])

    def _gradient(self, model: Model, state: PlanState, later: Tensor, futures: Tensor) -> Tensor:
        """[B, L, D] gradient with respect to the tokens, averaged over `futures` [B, N, L, D] of what is `later`."""
        count = futures.shape[1]
        with torch.enable_grad():
            tokens = state.tokens.detach().requires_grad_()
            mixed = torch.where(later[..., model.features][:, None], futures, tokens[:, None])
            levels = state.levels.repeat_interleave(count, dim=0)
            x0_hat = model.denoise(mixed.flatten(0, 1), levels, state.lengths.repeat_interleave(count))
            returns = self.objective(x0_hat.view(mixed.shape)).mean(dim=1)
            gradient: Tensor = torch.autograd.grad(returns.sum(), tokens)[0]
        return gradient
