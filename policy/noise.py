"""How much of a token is left at each noise level, and the step from one level to a lower one.

Levels are continuous: 0 is clean, 1 is pure noise. Knows nothing of tokens' meaning, networks or plans.
"""

import math
from dataclasses import dataclass
from typing import Literal, get_args

import torch
from torch import Tensor

# Song et al. (2021), arXiv:2011.13456, appendix C: the continuous form of Ho et al.'s linear betas, 1e-4 to 0.02 in
# 1000.
BETA_MIN, BETA_MAX = 0.1, 20.0
# Jabri et al. (2022), arXiv:2212.11972, appendix B: from -SIGMOID_SPAN to SIGMOID_SPAN at temperature 1.
SIGMOID_SPAN = 3.0

Kind = Literal["linear", "cosine", "sigmoid"]


@dataclass(frozen=True, slots=True, kw_only=True)
class NoiseSchedule:
    """Signal left at a noise level.

    kind: `linear` (betas linear in the level), `cosine` (Nichol and Dhariwal 2021, without offset) or `sigmoid` (Jabri
    et al. 2022, start -3, end 3, temperature 1, stretched to run from 1 to 0). A level of exactly 1 keeps nothing of
    the signal in any of them, so that a masked token says nothing.
    """

    kind: Kind = "linear"

    def __post_init__(self) -> None:
        if self.kind not in get_args(Kind):
            raise ValueError(f"noise schedule must be {', '.join(get_args(Kind))}, got {self.kind!r}")

    def alpha_bar(self, level: Tensor) -> Tensor:
        """Share of the variance that is signal, 1 at level 0 and 0 at level 1; same shape as `level`."""
        if self.kind == "cosine":
            alpha_bar = torch.cos(level * (math.pi / 2)).square()
        elif self.kind == "sigmoid":
            # sigmoid(u) = (1 + tanh(u / 2)) / 2 makes the stretched curve a ratio of two tanh.
            half = SIGMOID_SPAN / 2
            alpha_bar = (1 - torch.tanh(half * (2 * level - 1)) / math.tanh(half)) / 2
        else:
            alpha_bar = torch.exp(-(BETA_MIN * level + 0.5 * (BETA_MAX - BETA_MIN) * level.square()))
        return torch.where(level >= 1, torch.zeros_like(alpha_bar), alpha_bar)

    def add_noise(self, x0: Tensor, level: Tensor, noise: Tensor) -> Tensor:
        """A draw of the token at `level`; all of one shape, `noise` standard normal."""
        alpha_bar = self.alpha_bar(level)
        return alpha_bar.sqrt() * x0 + (1 - alpha_bar).sqrt() * noise

    def level_of(self, sigma: Tensor) -> Tensor:
        """The level at which a value observed with standard error `sigma` (normalised units) must be fed.

        Solves sqrt((1 - alpha_bar) / alpha_bar) = sigma. Observed y then enters as sqrt(alpha_bar) y. An infinite
        sigma is level 1. Raises ValueError if sigma is negative or NaN.
        """
        if not bool((sigma >= 0).all()):
            raise ValueError(f"sigma must be at least 0, got {sigma.min().item()}")
        if self.kind == "cosine":
            return torch.atan(sigma) * (2 / math.pi)
        if self.kind == "sigmoid":
            half = SIGMOID_SPAN / 2
            level = (torch.atanh((1 - 2 / (1 + sigma.square())) * math.tanh(half)) / half + 1) / 2
            return torch.where(torch.isinf(sigma), torch.ones_like(sigma), level.clamp(0, 1))
        decay = torch.log1p(sigma.square())
        # The quadratic's root in the form that does not cancel when sigma is small.
        root = torch.sqrt(BETA_MIN**2 + 2 * (BETA_MAX - BETA_MIN) * decay)
        return torch.where(torch.isinf(sigma), torch.ones_like(sigma), 2 * decay / (root + BETA_MIN)).clamp(max=1.0)


def ddim_step(x: Tensor, x0_hat: Tensor, level: Tensor, next_level: Tensor, schedule: NoiseSchedule) -> Tensor:
    """Values moved from `level` to `next_level`; entries whose level does not fall are returned as they are.

    All four of one shape, normalised units; levels from 0 clean to 1 pure noise.
    Raises ValueError if a level rises. Song et al. (2021), arXiv:2010.02502, Eq. 12, eta = 0.
    """
    if bool((next_level > level).any()):
        raise ValueError("next_level must not exceed level anywhere")
    alpha_bar, next_alpha_bar = schedule.alpha_bar(level), schedule.alpha_bar(next_level)
    # At level 0 there is no noise to divide by; such entries cannot fall further, so their value is never used.
    eps_hat = (x - alpha_bar.sqrt() * x0_hat) / (1 - alpha_bar).sqrt().clamp(min=1e-6)
    moved = next_alpha_bar.sqrt() * x0_hat + (1 - next_alpha_bar).sqrt() * eps_hat
    return torch.where(next_level < level, moved, x)
