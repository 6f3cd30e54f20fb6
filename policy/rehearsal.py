"""Plans rehearsed on fitted dynamics: what the robot would really do if it followed them.

A sampled plan jumps where tokens join, and its positions, velocities and actions disagree by a little. Followed under
the dynamics and the limits of the action, it becomes a trajectory that can be driven. Plain numpy; knows no network.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from forcing.policy.dynamics import LinearDynamics
from forcing.policy.tokens import Normaliser
from forcing.policy.types import Array, StreamSpec

# An error of this share of a stream's standard deviation is worth the whole action.
WORTH_ALL = 0.05
RICCATI_STEPS = 1000


class Feedback:
    """The linear feedback that brings a state back to a planned one: u = planned action + gain (planned - state)."""

    def __init__(self, dynamics: LinearDynamics, normaliser: Normaliser, action: StreamSpec) -> None:
        """Raises ValueError if the action has no finite limits."""
        if action.low is None or action.high is None or not np.isfinite([*action.low, *action.high]).all():
            raise ValueError(f"feedback needs finite limits of the action, stream {action.name!r} has none")
        self.dynamics = dynamics
        self.low, self.high = np.array(action.low), np.array(action.high)
        scale = WORTH_ALL * np.concatenate([normaliser.std[name] for name in dynamics.streams])
        self.gain = lqr_gain(dynamics, scale, np.maximum((self.high - self.low) / 2, 1e-9))

    def action(
        self, state: NDArray[np.float64], planned: NDArray[np.float64], action: NDArray[np.float64]
    ) -> NDArray[np.float64]:
        """[..., m] unclipped actions, from states and planned states [..., n] and planned actions [..., m]."""
        return action + (planned - state) @ self.gain.T


def lqr_gain(
    dynamics: LinearDynamics, state_scale: NDArray[np.float64], action_scale: NDArray[np.float64]
) -> NDArray[np.float64]:
    """[m, n] gain K of u = K (planned - state) that minimises the sum over time of squared errors and actions, each in
    units of its scale. The discrete Riccati recursion (Bertsekas, Dynamic Programming, section 3.1), run until it
    stands still or `RICCATI_STEPS` are over."""
    n = len(dynamics.low)
    drift = np.eye(n) + dynamics.weights[:n].T
    push = dynamics.weights[n:-1].T
    state_cost, action_cost = np.diag(state_scale**-2.0), np.diag(action_scale**-2.0)
    value = state_cost
    gain: NDArray[np.float64] = np.zeros((push.shape[1], n))
    for _ in range(RICCATI_STEPS):
        before = gain
        gain = np.asarray(np.linalg.solve(action_cost + push.T @ value @ push, push.T @ value @ drift))
        value = state_cost + drift.T @ value @ (drift - push @ gain)
        if np.abs(gain - before).max() < 1e-9 * np.abs(gain).max():
            break
    return gain


@dataclass(frozen=True, slots=True)
class Rehearsal:
    """streams: stream -> [C, F, *shape] at the frames of the plans; an action frame is the mean since the frame before.
    states: [C, T, n] after every control step up to the last frame."""

    streams: dict[str, Array]
    states: NDArray[np.float64]


def rehearse(
    feedback: Feedback,
    start: Mapping[str, Array],
    steps: NDArray[np.int64],
    streams: Mapping[str, Array],
    action: StreamSpec,
) -> Rehearsal:
    """The trajectories that following the plans leads through.

    start: observation stream -> [C, *shape] before the first frame. steps: [F] control steps to each frame, rising.
    streams: [C, F, *shape]; action frames are means since the frame before.
    """
    names = list(feedback.dynamics.streams)
    count, frames = len(start[names[0]]), len(steps)
    first = np.concatenate([np.asarray(start[name]).reshape(count, 1, -1) for name in names], axis=-1)
    planned = np.concatenate([streams[name].reshape(count, frames, -1) for name in names], axis=-1)
    knots, times = np.concatenate([first, planned], axis=1), np.concatenate([[0], steps])
    pushes = streams[action.name].reshape(count, frames, -1)
    # Everything that does not depend on the state is worked out for all steps at once.
    ticks = np.arange(times[-1])
    frame = np.searchsorted(times, ticks, side="right") - 1
    share = ((ticks - times[frame]) / (times[frame + 1] - times[frame]))[:, None, None]
    by_time = knots.swapaxes(0, 1)
    target = (1 - share) * by_time[frame] + share * by_time[frame + 1]
    wanted = pushes.swapaxes(0, 1)[frame] + target @ feedback.gain.T
    driven, pushed = _drive(feedback, first[:, 0], wanted)
    states = driven[times[1:] - 1].swapaxes(0, 1)
    actions = (np.add.reduceat(pushed, times[:-1], axis=0) / np.diff(times)[:, None, None]).swapaxes(0, 1)
    result: dict[str, Array] = {action.name: actions.reshape(count, frames, *action.shape)}
    for name, where in feedback.dynamics.streams.items():
        result[name] = states[..., where].reshape(streams[name].shape)
    return Rehearsal(result, driven.swapaxes(0, 1))


def _drive(
    feedback: Feedback, state: NDArray[np.float64], wanted: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """[T, C, n] states after each step and [T, C, m] actions of it, from `state` [C, n]. wanted: [T, C, m] what the
    feedback asks for, less gain times state. Into arrays that are there already: plans wait for this loop."""
    dynamics, size = feedback.dynamics, state.shape[-1]
    drift, push_in = np.eye(size) + dynamics.weights[:size], dynamics.weights[size:-1]
    gain, still = np.ascontiguousarray(feedback.gain.T), dynamics.weights[-1]
    driven, pushed = np.empty((*wanted.shape[:2], size)), np.empty_like(wanted)
    state = np.ascontiguousarray(state)
    answer, within, pulled = np.empty_like(pushed[0]), np.empty_like(state), np.empty_like(state)
    for wish, push, following in zip(wanted, pushed, driven, strict=True):
        np.matmul(state, gain, out=answer)
        np.subtract(wish, answer, out=push)
        np.maximum(push, feedback.low, out=push)
        np.minimum(push, feedback.high, out=push)
        np.maximum(state, dynamics.low, out=within)
        np.minimum(within, dynamics.high, out=within)
        np.matmul(within, drift, out=following)
        np.matmul(push, push_in, out=pulled)
        following += pulled
        following += still
        state = following
    return driven, pushed
