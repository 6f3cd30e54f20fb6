"""How likely a policy's model finds what a recording goes on with: the bound of `policy/elbo.py` on windows of it."""

from dataclasses import replace

import numpy as np
import torch

from forcing.policy.elbo import elbo
from forcing.policy.policy import Policy
from forcing.policy.types import WindowSource

SAMPLING_STEPS = 20  # a token, from pure noise; more of them tighten the bound


def nats_per_number(policy: Policy, windows: WindowSource, *, steps: int, count: int, seed: int) -> float:
    """A lower bound on log p(the next `steps` control steps | observation now, goal), mean over `count` windows and
    over the numbers in a plan of that length, in normalised units; down the policy's own kind of schedule.

    Policies compare whose streams, normaliser and stride are the same. Raises ValueError if steps are not whole tokens
    that a plan may have, or no episode is that long.
    """
    planner, layout = policy.planner, policy.preset.layout
    tokenizer, (horizon, left) = planner.tokenizer, divmod(steps, layout.token_steps)
    if left or not 1 <= horizon <= layout.horizon:
        longest = layout.horizon * layout.token_steps
        raise ValueError(f"steps must be a multiple of {layout.token_steps} from there to {longest}, got {steps}")
    rng, generator = np.random.default_rng(seed), torch.Generator().manual_seed(seed)
    found = windows.sample(rng, count, layout.past_steps, steps)
    tokens = tokenizer.encode(found, np.zeros(count, dtype=np.int64))
    matrix = torch.from_numpy(replace(policy.preset.planner.schedule, sampling_steps=SAMPLING_STEPS).matrix(horizon))
    rows = torch.ones(len(matrix), tokens.shape[1], len(tokenizer.streams))
    for index, stream in enumerate(tokenizer.streams):
        if stream.role == "observation":
            rows[:, : layout.history, index] = 0.0
    rows[:, layout.history : -1] = matrix[..., None]
    if tokenizer.goal_index is not None:
        rows[:, -1, tokenizer.goal_index] = 0.0
    lengths = torch.full((count,), tokens.shape[1])
    bound = elbo(planner.model, tokens, lengths, rows, generator)
    return float(bound.mean()) / (horizon * tokenizer.width)
