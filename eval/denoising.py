"""The chosen plan while it is being sampled: positions and noise levels after each network pass.

Numbers only. Knows nothing of mazes or pictures.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from forcing.policy.planner import PlannerConfig, PlanRequest
from forcing.policy.policy import Policy
from forcing.policy.sampler import PlanState
from forcing.policy.tokens import Tokenizer


@dataclass(frozen=True, slots=True, kw_only=True)
class Pass:
    """The state of one plan of T tokens and F frames between two network passes.

    token_level: [T] noise level of each token, that of its noisiest stream. level: [F] the same for each frame.
    positions: [F, 2] what is there, signal and noise, in m. guess: [F, 2] what the network takes the
    clean positions for, None before the first pass.
    """

    token_level: NDArray[np.float64]
    level: NDArray[np.float64]
    positions: NDArray[np.float64]
    guess: NDArray[np.float64] | None


def refuse_improved(config: PlannerConfig) -> None:
    """Raises ValueError if plans are not samples as they come."""
    if config != config.sampling_alone():
        raise ValueError(
            "planner.search, refine and polish must be None, keep False and attempts 1, to show how a plan was "
            "sampled; PlannerConfig.sampling_alone has it so"
        )


def denoising_passes(policy: Policy, request: PlanRequest) -> list[Pass]:
    """The plan that `policy.plan(request)` chooses: pure noise first, then its state after each pass that changed it.

    Raises ValueError if the policy has no goal stream, if that is not a position in the plane, or if samples are
    improved on: then none of them is the plan.
    """
    refuse_improved(policy.preset.planner)
    name = policy.spec.goal
    if name is None or policy.spec[name].shape != (2,):
        shape = None if name is None else policy.spec[name].shape
        raise ValueError(f"the goal stream must be a position of shape (2,) to be drawn, got {name!r} of shape {shape}")
    chosen = policy.plan(request).chosen
    tokens = int(policy.planner.horizons(request)[chosen])
    with torch.no_grad():
        states = policy.planner.sampling(request)
        passes = list(_of_row(states, policy.planner.tokenizer, name, chosen, tokens))
    # Shorter candidates are finished while longer ones still move.
    while len(passes) > 2 and np.array_equal(passes[-1].token_level, passes[-2].token_level):
        passes.pop()
    return passes


def _of_row(states: Iterator[PlanState], tokenizer: Tokenizer, name: str, row: int, tokens: int) -> Iterator[Pass]:
    plan = slice(tokenizer.layout.history, tokenizer.layout.history + tokens)
    for state in states:
        level = state.levels[row, plan].amax(dim=-1).numpy().astype(np.float64)
        yield Pass(
            token_level=level,
            level=np.repeat(level, tokenizer.layout.frames),
            positions=tokenizer.decode(state.tokens[row, plan])[name],
            guess=None if state.x0_hat is None else tokenizer.decode(state.x0_hat[row, plan])[name],
        )
