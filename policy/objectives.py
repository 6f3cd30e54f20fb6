"""What a plan is steered towards: differentiable log returns of predicted clean plans, summed with weights.

An objective looks at planned frames in physical units. History, goal token and padding change nothing, with one
exception that `smooth` names. Knows nothing of levels, samplers or planners.
"""

from collections.abc import Callable, Mapping

import numpy as np
import torch
from torch import Tensor

from forcing.policy.tokens import Tokenizer
from forcing.policy.types import Array, Obstacles

Objective = Callable[[Tensor, Tensor], Tensor]
"""(clean tokens [B, N, L, D], normalised; lengths [B] of history, plan and goal) -> log return [B, N]."""


def weighted_sum(*terms: tuple[float, Objective]) -> Objective:
    """The sum of weight times objective; with the terms as log likelihoods, their product."""

    def objective(tokens: Tensor, lengths: Tensor) -> Tensor:
        return torch.stack([weight * term(tokens, lengths) for weight, term in terms]).sum(dim=0)

    return objective


def reach(tokenizer: Tokenizer, goal: Array) -> Objective:
    """Minus half the squared distance of the plan's last frame from `goal`, normalised, mean over its entries.

    goal: [*goal shape], physical. With weight w the log likelihood, up to a constant, of a Gaussian around the
    goal whose variance is its number of entries / w.
    """
    name = _goal_name(tokenizer)
    target = torch.from_numpy(tokenizer.normaliser.apply(name, np.asarray(goal, dtype=np.float64).reshape(-1)))
    stop = tokenizer.slices[name].stop
    where = slice(stop - tokenizer.spec[name].size, stop)

    def objective(tokens: Tensor, lengths: Tensor) -> Tensor:
        arrived = tokens[torch.arange(len(lengths)), :, lengths - 2][:, :, where]
        error: Tensor = (arrived - target.to(tokens)).square().mean(dim=-1)
        return -0.5 * error

    return objective


def sooner(tokenizer: Tokenizer, goal: Array, radius: float, discount: float = 1.0) -> Objective:
    """Minus the frames spent away from `goal`: sum over planned frames f of discount^f (1 - r / sqrt(d_f^2 + r^2)).

    d: distance to the goal; r: `radius`, both in the goal's units. A frame at the goal counts 0, a far one 1. What is
    far is hardly pulled: the straight way to the goal may lead through a wall, and those who arrive pull the others
    after them through the denoiser.
    """
    name = _goal_name(tokenizer)
    target = torch.as_tensor(np.array(goal, dtype=np.float64).reshape(-1))
    if not radius > 0:
        raise ValueError(f"radius must be positive, got {radius}")
    if not 0 < discount <= 1:
        raise ValueError(f"discount must be above 0 and at most 1, got {discount}")

    def objective(tokens: Tensor, lengths: Tensor) -> Tensor:
        frames, planned = plan_frames(tokenizer, tokens, lengths)
        square = (frames[name].flatten(3) - target.to(tokens)).square().sum(dim=-1)
        away = 1 - radius / (square + radius**2).sqrt()
        weight = discount ** torch.arange(away.shape[-1]).to(tokens)
        return -(away * weight * planned).sum(dim=-1)

    return objective


def reward(tokenizer: Tokenizer, function: Callable[[Mapping[str, Tensor]], Tensor]) -> Objective:
    """The sum over planned frames of `function`, which must be differentiable.

    function: stream -> [B, N, F, *shape] in physical units, to [B, N, F]. In frames that a row's plan does not have
    it is shown the recordings' mean, and its answer is not used.
    """

    def objective(tokens: Tensor, lengths: Tensor) -> Tensor:
        frames, planned = plan_frames(tokenizer, tokens, lengths)
        values = function(frames)
        expected = next(iter(frames.values())).shape[:3]
        if values.shape != expected:
            raise ValueError(f"reward must be [B, N, F] {tuple(expected)}, got {tuple(values.shape)}")
        return torch.where(planned, values, 0.0).sum(dim=-1)

    return objective


def avoid(tokenizer: Tokenizer, obstacles: Obstacles, stream: str) -> Objective:
    """Minus half the squared depth by which each planned frame of `stream` enters each obstacle or its margin, summed.

    Depth in standard deviations of the stream. A frame exactly at a centre has no gradient: every way out is as long.
    """
    size, unit = tokenizer.spec[stream].size, tokenizer.normaliser.scale(stream)
    centres = torch.from_numpy(np.asarray(obstacles.centres, dtype=np.float64))
    reach_of = torch.from_numpy(np.asarray(obstacles.radii, dtype=np.float64) + obstacles.margin)
    if centres.shape[1] != size:
        raise ValueError(f"centres must have {size} entries each, as stream {stream!r} has, got {centres.shape[1]}")

    def objective(tokens: Tensor, lengths: Tensor) -> Tensor:
        frames, planned = plan_frames(tokenizer, tokens, lengths)
        apart = frames[stream].flatten(3)[..., None, :] - centres.to(tokens)
        depth = (reach_of.to(tokens) - torch.linalg.vector_norm(apart, dim=-1)).clamp(min=0) / unit
        square: Tensor = depth.square().sum(dim=-1)
        return -0.5 * (square * planned).sum(dim=-1)

    return objective


def smooth(tokenizer: Tokenizer, stream: str) -> Objective:
    """Minus half the squared jumps of `stream` from frame to frame, in its standard deviations, summed over the plan.

    Two kinds of jumps count, inside tokens and where they join: between each frame and where the stream that is its
    rate leads from the frame before (trapezoid rule), if it has a rate, and second differences. The newest frame of
    the history is where the plan starts: its value counts, it gets no gradient.
    """
    spec, unit = tokenizer.spec, tokenizer.normaliser.scale(stream)
    rate = spec.rate(stream)
    dt_s = tokenizer.layout.stride / spec.control_hz

    def objective(tokens: Tensor, lengths: Tensor) -> Tensor:
        frames, planned = plan_frames(tokenizer, tokens, lengths)
        now = tokenizer.layout.history
        start = to_physical(tokenizer, tokens[:, :, now - 1 : now].detach())

        def path(name: str) -> Tensor:
            return torch.cat([start[name][:, :, -1:], frames[name]], dim=2).flatten(3)

        step = path(stream).diff(dim=2)
        jumps = (step.diff(dim=2).square().sum(dim=-1) * planned[..., 1:]).sum(dim=-1)
        if rate is not None:
            speed = path(rate)
            off = step - 0.5 * dt_s * (speed[:, :, 1:] + speed[:, :, :-1])
            jumps = jumps + (off.square().sum(dim=-1) * planned).sum(dim=-1)
        return -0.5 * jumps / unit**2

    return objective


def plan_frames(tokenizer: Tokenizer, tokens: Tensor, lengths: Tensor) -> tuple[dict[str, Tensor], Tensor]:
    """Stream -> [B, N, F, *shape] planned frames in physical units, and [B, 1, F] which of them the row's plan has.

    tokens: [B, N, L, D], normalised; F: frames of the longest plan that L has room for. A frame beyond a row's plan
    is the recordings' mean, so that nothing of padding or goal gets through, no NaN and no gradient.
    """
    history = tokenizer.layout.history
    index = torch.arange(history, tokens.shape[2] - 1)
    planned = index < lengths[:, None] - 1
    shown = torch.where(planned[:, None, :, None], tokens[:, :, history:-1], 0.0)
    return to_physical(tokenizer, shown), planned.repeat_interleave(tokenizer.layout.frames, dim=1)[:, None]


def to_physical(tokenizer: Tokenizer, tokens: Tensor) -> dict[str, Tensor]:
    """[..., T, D] to stream -> [..., T * frames, *shape] in physical units; `Tokenizer.decode` with a gradient."""
    result = {}
    for stream in tokenizer.streams:
        frames = tokens[..., tokenizer.slices[stream.name]].reshape(*tokens.shape[:-2], -1, stream.size)
        mean, std = (tokens.new_tensor(part[stream.name]) for part in _moments(tokenizer))
        result[stream.name] = (frames * std + mean).reshape(*frames.shape[:-1], *stream.shape)
    return result


def _moments(tokenizer: Tokenizer) -> tuple[Mapping[str, tuple[float, ...]], Mapping[str, tuple[float, ...]]]:
    return tokenizer.normaliser.mean, tokenizer.normaliser.std


def _goal_name(tokenizer: Tokenizer) -> str:
    if tokenizer.spec.goal is None:
        raise ValueError("an objective about a goal needs a goal stream, this trajectory has none")
    return tokenizer.spec.goal
