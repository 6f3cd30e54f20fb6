"""Sequences longer than any the network was trained on: the window slides along, what was generated is its history.

Knows nothing of goals, units or planners; the model may be causal or not.
"""

from collections.abc import Iterator
from dataclasses import replace

import torch
from torch import Tensor

from forcing.policy.sampler import Model, PlanState, denoise_step, stabilised


def rollout(model: Model, start: PlanState, matrix: Tensor, total: int, *, stabilisation: float = 0.0) -> Tensor:
    """[B, total, D] clean tokens that continue the history of `start`.

    start: its first tokens are the history at their levels, the next T pure noise, the last one the goal at its level,
    held as it is all along; every row uses all L = history + T + 1 tokens. matrix: [M, T] scheduling matrix from 1 to
    0, T tokens a window; a window's history is the last tokens before it. stabilisation: level at which generated
    tokens are declared to the network once they are clean, 0 for what they are (see `sampler.stabilised`). Draws from
    the state's generator. Raises ValueError if `start` and `matrix` do not fit together.
    """
    _check(start, matrix, total, stabilisation)
    plan = matrix.shape[1]
    history = start.tokens.shape[1] - plan - 1
    state, generated = start, torch.zeros_like(start.levels, dtype=torch.bool)
    made: list[Tensor] = []
    while len(made) * plan < total:
        # A token of the window becomes the sampler's own as soon as it is clean.
        generated[:, history:-1] = True
        for levels in _falling(state.levels, matrix, history):
            declared = stabilised(state.levels, generated, stabilisation) if stabilisation > 0 else None
            state = denoise_step(model, state, levels, declared=declared)
        made.append(state.tokens[:, history:-1])
        generated = _slid(generated, plan, torch.ones_like(generated[:, :plan]))
        noise = torch.randn(made[-1].shape, generator=start.generator, dtype=state.tokens.dtype).to(state.tokens)
        state = replace(
            state,
            tokens=_slid(state.tokens, plan, noise),
            levels=_slid(state.levels, plan, torch.ones_like(state.levels[:, :plan])),
            x0_hat=None,
        )
    return torch.cat(made, dim=1)[:, :total]


def _falling(levels: Tensor, matrix: Tensor, history: int) -> Iterator[Tensor]:
    """[B, L, S] levels of each row of the scheduling matrix after the first."""
    for row in matrix[1:]:
        following = levels.clone()
        following[:, history:-1] = row.to(levels)[:, None]
        yield following


def _slid(values: Tensor, count: int, fresh: Tensor) -> Tensor:
    """[B, L, ...] values moved `count` tokens to the past, `fresh` behind them; the last token, the goal, stays."""
    return torch.cat([values[:, count:-1], fresh, values[:, -1:]], dim=1)


def _check(start: PlanState, matrix: Tensor, total: int, stabilisation: float) -> None:
    length, plan = start.tokens.shape[1], matrix.shape[1]
    if total < 1:
        raise ValueError(f"total must be at least 1 token, got {total}")
    if not 0 <= stabilisation < 1:
        raise ValueError(f"stabilisation must be at least 0 and below 1, got {stabilisation}")
    if length < plan + 2:
        raise ValueError(
            f"start must have at least 1 history token, {plan} plan tokens and a goal, got {length} tokens"
        )
    if bool((start.lengths != length).any()):
        raise ValueError(f"every row of start must use all {length} tokens, got lengths {start.lengths.tolist()}")
    if bool((start.levels[:, -plan - 1 : -1] != 1).any()):
        raise ValueError(f"the {plan} plan tokens of start must be pure noise, level 1")
    if bool((matrix[0] != 1).any() | (matrix[-1] != 0).any()):
        raise ValueError("matrix must fall from 1 in its first row to 0 in its last")
