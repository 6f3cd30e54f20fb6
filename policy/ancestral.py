"""The step from one noise level to a lower one with fresh noise in it: the same tokens, another way down each time.

`noise.ddim_step` is its limit without fresh noise. Knows nothing of networks or plans.
"""

import torch
from torch import Tensor

from forcing.policy.noise import NoiseSchedule


def stochastic_step(
    x: Tensor, x0_hat: Tensor, level: Tensor, next_level: Tensor, schedule: NoiseSchedule, eta: float, noise: Tensor
) -> Tensor:
    """Values moved from `level` to `next_level` with noise; entries whose level does not fall are returned as they are.

    All tensors of one shape, normalised units; levels from 0 clean to 1 pure noise; `noise` standard normal. eta: 0 the
    deterministic DDIM, 1 the ancestral step, a draw of q(x_next | x, x0 = x0_hat). Differentiable in x and x0_hat.
    Raises ValueError if a level rises. Song et al. (2021), arXiv:2010.02502, Eqs. 12 and 16.
    """
    if bool((next_level > level).any()):
        raise ValueError("next_level must not exceed level anywhere")
    alpha_bar, next_alpha_bar = schedule.alpha_bar(level), schedule.alpha_bar(next_level)
    moves = next_level < level
    # Entries that stay are computed too, and must not divide by zero on the way: their share is set to one half.
    alpha_bar, next_alpha_bar = (torch.where(moves, share, 0.5) for share in (alpha_bar, next_alpha_bar))
    variance = eta**2 * (1 - next_alpha_bar) / (1 - alpha_bar) * (1 - alpha_bar / next_alpha_bar)
    eps_hat = (x - alpha_bar.sqrt() * x0_hat) / (1 - alpha_bar).sqrt()
    mean = next_alpha_bar.sqrt() * x0_hat + (1 - next_alpha_bar - variance).clamp(min=0).sqrt() * eps_hat
    return torch.where(moves, mean + variance.sqrt() * noise, x)
