"""A lower bound on the likelihood of any noised part of a trajectory, in nats.

Tokens are drawn down a scheduling matrix by ancestral steps, each Gaussian around what the denoiser's guess of the
clean tokens implies; the forward process, which noises every entry by itself, is the inference distribution. Chen et
al. (2024), arXiv:2407.01392, Theorem 3.1 and appendix A; with equal levels it is the bound of Ho et al. (2020),
arXiv:2006.11239. Knows nothing of units or goals.
"""

import math
from itertools import pairwise

import torch
from torch import Tensor

from forcing.policy.noise import NoiseSchedule
from forcing.policy.sampler import Model


def elbo(
    model: Model, tokens: Tensor, lengths: Tensor, rows: Tensor, generator: torch.Generator, draws: int = 1
) -> Tensor:
    """[B] a lower bound on log p(the entries of `tokens` that fall, at their last levels | the entries that do not).

    tokens: [B, L, D] at the levels of the last row: clean where it is 0, noised where it is not, anything where it is
    1. lengths: [B] tokens in use; what stands behind them does not count. rows: [M, L, S], or [M, B, L, S], levels from
    pure noise down. An entry whose level is the same in all rows is given (history, goal, an observation with noise)
    or, at 1, integrated out; all others begin at 1 and never rise. M - 1 network calls of B * draws rows; the mean over
    `draws` estimates the bound without bias.

    The step from row to row has the variance of the forward process over that step, which is that of the true reverse
    step where tokens vary by 1, and in the limit of many rows: there the bound of a perfect denoiser is the likelihood.
    Raises ValueError if the levels do not fit this description.
    """
    if draws < 1:
        raise ValueError(f"draws must be at least 1, got {draws}")
    rows = _rows(rows, tokens)
    real = torch.arange(tokens.shape[1], device=tokens.device) < lengths[:, None]
    copies = torch.arange(len(tokens), device=tokens.device).repeat_interleave(draws)
    tokens, lengths, rows = tokens[copies], lengths[copies], rows[:, copies]
    final = rows[-1][..., model.features]
    bound = torch.zeros(len(copies), dtype=torch.float64, device=tokens.device)
    for levels, following in pairwise(rows):
        level, lower = levels[..., model.features], following[..., model.features]
        noise = torch.randn(tokens.shape, generator=generator, dtype=torch.float64).to(tokens.device)
        x = _noised(tokens.double(), final, level, noise, model.schedule)
        with torch.no_grad():
            x0_hat = model.denoise(x.to(tokens), levels.to(tokens), lengths)
        terms = _terms(x, x0_hat.double(), tokens.double(), level, lower, final, model.schedule)
        counted = (lower < level) & real[copies][..., None]
        bound = bound + torch.where(counted, terms, 0.0).sum(dim=(1, 2))
    return bound.view(-1, draws).mean(dim=1)


def _rows(rows: Tensor, tokens: Tensor) -> Tensor:
    """[M, B, L, S] in double precision, checked: differences of nearly equal levels decide the result."""
    batch, length, _ = tokens.shape
    if rows.dim() not in (3, 4) or rows.shape[-2] != length or (rows.dim() == 4 and rows.shape[1] != batch):
        raise ValueError(f"rows must be [M, {length}, S] or [M, {batch}, {length}, S], got {list(rows.shape)}")
    rows = rows.double() if rows.dim() == 4 else rows.double()[:, None].expand(-1, batch, -1, -1)
    if not bool(((rows >= 0) & (rows <= 1)).all()):
        raise ValueError("levels must be from 0 to 1")
    if bool((rows.diff(dim=0) > 0).any()):
        raise ValueError("levels must not rise from row to row")
    if bool(((rows[0] < 1) & (rows[-1] < rows[0])).any()):
        raise ValueError("levels that fall must begin at 1, pure noise: below it the bound lacks a prior")
    return rows


def _forward(level: Tensor, lower: Tensor, schedule: NoiseSchedule) -> tuple[Tensor, Tensor]:
    """(a, v) of the forward process x_level ~ N(a x_lower, v) from `lower` up to `level`; (0, 1) from level 1."""
    share, before = schedule.alpha_bar(level), schedule.alpha_bar(lower)
    ratio = torch.where(before > 0, share / before.clamp(min=1e-300), 0.0)
    return ratio.sqrt(), ((1 - share) - ratio * (1 - before)).clamp(min=0)


def _noised(tokens: Tensor, final: Tensor, level: Tensor, noise: Tensor, schedule: NoiseSchedule) -> Tensor:
    """A draw at `level` of tokens that are known at level `final`; those that stay are kept, pure noise is drawn."""
    scale, variance = _forward(level, final, schedule)
    # What stands at level 1 may be anything, NaN too.
    return scale * torch.where(final < 1, tokens, 0.0) + variance.sqrt() * noise


def _terms(
    x: Tensor, x0_hat: Tensor, tokens: Tensor, level: Tensor, lower: Tensor, final: Tensor, schedule: NoiseSchedule
) -> Tensor:
    """[B, L, D] what each entry's step from `level` to `lower` adds to the bound; no meaning where it takes none.

    On the way -KL(q(x_lower | x_level, x_final) || p(x_lower | x_level)), in the last step log p(x_final | x_level).
    """
    share, lower_share = schedule.alpha_bar(level), schedule.alpha_bar(lower)
    scale, variance = _forward(level, lower, schedule)
    variance = torch.where(lower < level, variance, 1.0)
    mean = (scale * (1 - lower_share) * x + variance * lower_share.sqrt() * x0_hat) / torch.where(
        lower < level, 1 - share, 1.0
    )
    final_scale, final_variance = _forward(lower, final, schedule)
    whole = scale.square() * final_variance + variance
    true_mean = (scale * final_variance * x + variance * final_scale * tokens) / whole
    true_variance = variance * final_variance / whole
    squared = (true_mean - mean).square() / variance
    arrived = -0.5 * (squared + torch.log(2 * math.pi * variance))
    shrink = torch.where(lower > final, true_variance / variance, 1.0)
    on_the_way = -0.5 * (shrink + squared - 1 - shrink.log())
    return torch.where(lower > final, on_the_way, arrived)
