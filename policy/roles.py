"""One network, many uses: what is known of a trajectory is given, what is wanted is guessed, the rest stays noise.

Which streams of which tokens are known decides whether the network is a policy, a forward or an inverse model of the
dynamics, or a filter. The planner is another such use, with a goal and candidates. Knows no recordings and no files.
"""

from collections.abc import Mapping
from typing import Literal, get_args

import numpy as np
import torch

from forcing.policy.policy import Policy
from forcing.policy.sampler import PlanState, denoise_step
from forcing.policy.types import Array

NetworkRole = Literal["policy", "forward", "inverse", "filter"]
STEPS = 8  # network passes from pure noise to a guess; a filter takes one


def guess(
    policy: Policy,
    role: NetworkRole,
    history: Mapping[str, Array],
    *,
    future: Mapping[str, Array] | None = None,
    noise: Mapping[str, float] | None = None,
    goal: Array | None = None,
    tokens: int = 1,
    seed: int = 0,
) -> dict[str, Array]:
    """Stream -> [frames, *shape], physical units: what the role is about.

    policy: the next actions, of so many `tokens`, from the past and a goal. forward: where the actions in `future`
    lead. inverse: which actions lead along the observations in `future`. filter: the past itself, less its noise.

    history: stream -> [frames of the history, *shape], newest last; streams that are left out are unknown. future: the
    same of the time after that, whole tokens. noise: stream -> standard error of its history in its own units, 0 if not
    told. An action frame is the mean of the actions since the frame before. Raises ValueError if the future has not
    what the role needs, or is not made of whole tokens.
    """
    if role not in get_args(NetworkRole):
        raise ValueError(f"role must be {', '.join(get_args(NetworkRole))}, got {role!r}")
    tokenizer, planner = policy.planner.tokenizer, policy.planner
    layout = tokenizer.layout
    actions = {policy.spec.action.name}
    observations = {stream.name for stream in policy.spec.of_role("observation")}
    known = {"policy": set[str](), "forward": actions, "inverse": observations, "filter": set[str]()}[role]
    wanted = {"policy": actions, "forward": observations, "inverse": actions, "filter": observations | actions}[role]
    given = {name: np.asarray(values) for name, values in (future or {}).items()}
    if given.keys() != known:
        raise ValueError(f"future must have {sorted(known)} for role {role!r}, got {sorted(given)}")
    names = [stream.name for stream in tokenizer.streams]
    for label, table in (("history", history), ("noise", noise or {})):
        unknown = sorted(set(table) - set(names))
        if unknown:
            raise ValueError(f"{label} {unknown[0]!r} is unknown; this policy has {names}")
    for name, values in history.items():
        if len(values) != layout.history * layout.frames:
            raise ValueError(f"history {name!r} must be {layout.history * layout.frames} frames, got {len(values)}")
    lengths = {len(values) for values in given.values()} or {tokens * layout.frames}
    tokens, rest = divmod(next(iter(lengths)), layout.frames)
    if len(lengths) > 1 or rest or not 1 <= tokens <= layout.horizon:
        raise ValueError(
            f"future must be 1 to {layout.horizon} tokens of {layout.frames} frames, the same of every stream, "
            f"got {sorted(lengths)} frames"
        )
    tokens = 1 if role == "filter" else tokens
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(1, layout.history + tokens + 1, tokenizer.width, generator=generator)
    levels = torch.ones(1, x.shape[1], len(tokenizer.streams))
    falls = torch.zeros(levels.shape, dtype=torch.bool)
    past, ahead = slice(0, layout.history), slice(layout.history, layout.history + tokens)
    for index, stream in enumerate(tokenizer.streams):
        where = tokenizer.slices[stream.name]
        if stream.name in history:
            level = torch.tensor(planner.level_of(stream.name, (noise or {}).get(stream.name, 0.0)))
            signal = planner.model.schedule.alpha_bar(level).sqrt()
            x[0, past, where] = signal * tokenizer.encode_frames(stream.name, history[stream.name])
            levels[0, past, index] = level
        if stream.name in given:
            x[0, ahead, where] = tokenizer.encode_frames(stream.name, given[stream.name])
            levels[0, ahead, index] = 0.0
        falls[0, past if role == "filter" else ahead, index] = stream.name in wanted
    if goal is not None and policy.spec.goal is not None:
        x[0, -1, tokenizer.slices[policy.spec.goal]] = planner.goal_token(np.asarray(goal))
        levels[0, -1, names.index(policy.spec.goal)] = 0.0
    state = PlanState(x, levels, torch.tensor([x.shape[1]]), generator)
    passes = 1 if role == "filter" else STEPS
    with torch.no_grad():
        for left in range(passes - 1, -1, -1):
            state = denoise_step(planner.model, state, torch.where(falls, levels * left / passes, levels))
    assert state.x0_hat is not None
    decoded = tokenizer.decode(state.x0_hat[0, past if role == "filter" else ahead])
    return {name: decoded[name] for name in sorted(wanted)}
