"""One sampling step: tokens at their levels in, tokens at the next levels out.

`PlanState` is all the state there is; rows of different plans, lengths and levels may share a step. Knows nothing of
scheduling matrices, goals or units.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from forcing.policy.noise import NoiseSchedule, ddim_step

Denoise = Callable[[Tensor, Tensor, Tensor], Tensor]


@dataclass(frozen=True, slots=True)
class Model:
    """A denoiser `(x [B, L, D], levels [B, L, S], lengths [B]) -> x0_hat` with what its levels mean.

    features: [D] index of each feature's stream.
    """

    denoise: Denoise
    schedule: NoiseSchedule
    features: Tensor


@dataclass(frozen=True, slots=True)
class PlanState:
    """tokens: [B, L, D], normalised. levels: [B, L, S], 0 clean to 1 pure noise. lengths: [B] tokens in use.

    generator: source of all further randomness. x0_hat: [B, L, D] the last guess of the clean tokens, None before the
    first step.
    """

    tokens: Tensor
    levels: Tensor
    lengths: Tensor
    generator: torch.Generator
    x0_hat: Tensor | None = None

    def rows(self, index: Tensor) -> "PlanState":
        """Some of the rows, in the order of `index`, int64 [N]; the generator is shared."""
        x0_hat = None if self.x0_hat is None else self.x0_hat[index]
        return replace(
            self, tokens=self.tokens[index], levels=self.levels[index], lengths=self.lengths[index], x0_hat=x0_hat
        )

    def joined(self, other: "PlanState") -> "PlanState":
        """These rows and then the other's, both after a step; the generator is this state's."""
        assert self.x0_hat is not None
        assert other.x0_hat is not None
        return replace(
            self,
            tokens=torch.cat([self.tokens, other.tokens]),
            levels=torch.cat([self.levels, other.levels]),
            lengths=torch.cat([self.lengths, other.lengths]),
            x0_hat=torch.cat([self.x0_hat, other.x0_hat]),
        )


Guide = Callable[[Model, PlanState, Tensor], Tensor]
"""(model, state, moving [B, L, S]) -> gradient of a log return with respect to the tokens, [B, L, D]."""


def stabilised(levels: Tensor, generated: Tensor, stabilisation: float) -> Tensor:
    """[B, L, S] levels to declare: `stabilisation` where a token is clean because the sampler made it, else its own.

    generated: bool, broadcast to `levels`, what the sampler made itself; what was observed stays declared as it is.
    Chen et al. (2024), arXiv:2407.01392, section 3.3: taken for slightly noisy, errors of its own guesses are partly
    disbelieved and do not pile up.
    """
    return torch.where(generated & (levels == 0), stabilisation, levels)


def denoise_step(
    model: Model, state: PlanState, next_levels: Tensor, guide: Guide | None = None, declared: Tensor | None = None
) -> PlanState:
    """The state with every stream moved from its level to `next_levels` [B, L, S] by DDIM.

    declared: [B, L, S] levels that the network is told instead of the state's own, none below it (see `stabilised`).
    Values that are declared noisier are shrunk to what is left of the signal there, as a noisy observation is, but get
    no noise.

    With `guide`, the score of each moving token is shifted by the guide's gradient (Dhariwal and Nichol 2021,
    arXiv:2105.05233, Algorithm 2, written for x0: x0' = x0 + (1 - alpha_bar) / sqrt(alpha_bar) grad). Raises
    ValueError if a level rises, or is declared lower than it is.
    """
    level, next_level = state.levels[..., model.features], next_levels[..., model.features]
    with torch.no_grad():
        if declared is None:
            x0_hat = model.denoise(state.tokens, state.levels, state.lengths)
        else:
            x0_hat = model.denoise(_shrunk(model, state, declared), declared, state.lengths)
    # What is known is not guessed anew.
    x0_hat = torch.where(level > 0, x0_hat, state.tokens)
    if guide is not None:
        gradient = guide(model, state, next_levels < state.levels)
        alpha_bar = model.schedule.alpha_bar(level)
        # Pure noise has no gradient to follow: nothing of the trajectory is in it yet.
        scale = torch.where(alpha_bar > 0, (1 - alpha_bar) / alpha_bar.clamp(min=1e-8).sqrt(), 0.0)
        x0_hat = x0_hat + scale * gradient
    tokens = ddim_step(state.tokens, x0_hat, level, next_level, model.schedule)
    return replace(state, tokens=tokens, levels=next_levels, x0_hat=x0_hat)


def _shrunk(model: Model, state: PlanState, declared: Tensor) -> Tensor:
    """[B, L, D] the tokens with as much signal as there is at the levels `declared`."""
    if bool((declared < state.levels).any()):
        raise ValueError("declared levels must not be below the state's own anywhere")
    ratio = model.schedule.alpha_bar(declared) / model.schedule.alpha_bar(state.levels)
    scale = torch.where(declared > state.levels, ratio.sqrt(), 1.0)
    return state.tokens * scale[..., model.features]
