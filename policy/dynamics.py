"""One-step dynamics fitted to a recording: where a state and an action lead.

Plain numpy. Knows no simulator; what the recording does not show it cannot know.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from forcing.policy.types import Array, Trajectories, TrajectorySpec

MOST_ROWS = 200_000  # transitions that a fit looks at: coefficients are settled long before
# What a fit may miss, as shares of the median distance moved meanwhile. Contacts make the tail: a tenth of the recorded
# windows may touch what no linear map knows.
MEDIAN_ERROR, ERROR_90 = 0.05, 0.5
TRIM_ROUNDS = 8
SATURATED = 0.99  # quantile from which on an entry's transitions must show a saturation, if there is one
INNER = 0.8  # share of an entry's range in which nothing saturates yet
TRIM_SCALE = 4.0  # residuals of more than so many median residuals are contacts or glitches, not dynamics


@dataclass(frozen=True, slots=True, kw_only=True)
class LinearDynamics:
    """next state = s + [s, action, 1] @ weights, with s = clip(state, low, high).

    A state is every observation stream of the spec, flattened, one after another. weights: [n + m + 1, n]. low, high:
    [n] where the recording shows that an entry saturates, such as a speed limit; infinite where it does not.
    """

    streams: Mapping[str, slice]
    weights: NDArray[np.float64]
    low: NDArray[np.float64]
    high: NDArray[np.float64]

    def step(self, state: NDArray[np.float64], action: NDArray[np.float64]) -> NDArray[np.float64]:
        """[..., n] states after one step, from states [..., n] and actions [..., m], in physical units."""
        n = state.shape[-1]
        state = np.clip(state, self.low, self.high)
        return np.asarray(state + state @ self.weights[:n] + action @ self.weights[n:-1] + self.weights[-1])

    def state(self, observation: Mapping[str, Array]) -> NDArray[np.float64]:
        """[n] from observation stream -> [*shape]. Raises KeyError if one is missing."""
        return np.concatenate([np.asarray(observation[name], dtype=np.float64).reshape(-1) for name in self.streams])


def state_slices(spec: TrajectorySpec) -> dict[str, slice]:
    """Where each observation stream lies in a state."""
    slices, start = {}, 0
    for stream in spec.of_role("observation"):
        slices[stream.name] = slice(start, start + stream.size)
        start += stream.size
    return slices


def states_of(trajectories: Trajectories) -> NDArray[np.float64]:
    """[sum(lengths) + E, n] every recorded state, one episode after another."""
    streams = trajectories.spec.of_role("observation")
    columns = [trajectories.streams[s.name].reshape(-1, s.size).astype(np.float64) for s in streams]
    return np.concatenate(columns, axis=1)


def fit_dynamics(trajectories: Trajectories, rng: np.random.Generator) -> LinearDynamics:
    """Trimmed least squares on recorded transitions: contacts, which no linear map explains, drop out.

    Raises ValueError if the recording has fewer transitions than coefficients.
    """
    before, action, after = _transitions(trajectories, rng)
    inputs = np.concatenate([before, action, np.ones((len(before), 1))], axis=1)
    if len(inputs) < 2 * inputs.shape[1]:
        raise ValueError(f"the recording has {len(inputs)} transitions, a fit needs {2 * inputs.shape[1]}")
    change = after - before
    scale = np.maximum(change.std(axis=0), 1e-12)
    streams = state_slices(trajectories.spec)
    # Saturated transitions would bend the fit, so its first round leaves out what is near the ends of its range; but
    # not the goal stream's, which covers them.
    inner = np.abs(before - np.median(before, axis=0)) <= INNER * np.abs(before - np.median(before, axis=0)).max(axis=0)
    if trajectories.spec.goal is not None:
        inner[:, streams[trajectories.spec.goal]] = True
    candidates = inner.all(axis=1)
    if candidates.sum() < 2 * inputs.shape[1]:
        candidates[:] = True
    kept = candidates
    for _ in range(TRIM_ROUNDS):
        weights = np.linalg.lstsq(inputs[kept], change[kept], rcond=None)[0]
        residual = (np.abs(inputs @ weights - change) / scale).max(axis=1)
        # The floor keeps exact data from being trimmed for its rounding.
        worst = max(TRIM_SCALE * float(np.median(residual[candidates])), 1e-4)
        kept = candidates & (residual <= worst)
    low, high = np.full(before.shape[1], -np.inf), np.full(before.shape[1], np.inf)
    for entry in range(before.shape[1]):
        high[entry] = _saturation(inputs, after, weights, entry, 1.0, worst)
        low[entry] = -_saturation(inputs, after, weights, entry, -1.0, worst)
    return LinearDynamics(streams=streams, weights=weights, low=low, high=high)


def _saturation(
    inputs: NDArray[np.float64],
    after: NDArray[np.float64],
    weights: NDArray[np.float64],
    entry: int,
    sign: float,
    worst: float,
) -> float:
    """Where an entry stops to count, looking along `sign`; infinite if it does not.

    The bound that best explains the transitions from its hundredth farthest out, if it halves their error. Contacts do
    not count: what is predicted worse than `worst`, and not even half as badly by any bound.
    """
    values = sign * inputs[:, entry]
    outer = values >= np.quantile(values, SATURATED)
    rows, ends, reached = inputs[outer], after[outer], values[outer]
    scale = np.maximum((after - inputs[:, : after.shape[1]]).std(axis=0), 1e-12)

    def errors(bound: float) -> NDArray[np.float64]:
        clipped = rows.copy()
        clipped[:, entry] = sign * np.minimum(reached, bound)
        predicted = clipped[:, : ends.shape[1]] + clipped @ weights
        return np.asarray((np.abs(predicted - ends) / scale).max(axis=1))

    bounds, step = np.linspace(INNER * values.max(), values.max(), 100, retstep=True)
    found, unbounded = np.array([errors(bound) for bound in bounds]), errors(np.inf)
    explained = (unbounded <= worst) | (found.min(axis=0) < 0.5 * unbounded)
    if not explained.any():
        return np.inf

    def error(bound: float) -> float:
        return float(errors(bound)[explained].mean())

    best = bounds[np.argmin(found[:, explained].mean(axis=1))]
    best = min(np.linspace(best - step, best + step, 100), key=error)
    return float(best) if error(best) < 0.5 * error(np.inf) else np.inf


@dataclass(frozen=True, slots=True, kw_only=True)
class Prediction:
    """How well fitted dynamics predict recorded episodes, open loop.

    steps: predicted ahead. moved: median distance the goal stream (all observations without one) really moved.
    median_error, error_90: distance between predicted and recorded at the end, in the same units.
    """

    steps: int
    moved: float
    median_error: float
    error_90: float

    def refusal(self) -> str | None:
        """Why these dynamics must not be relied on; None if they may."""
        for label, missed, share in (
            ("median", self.median_error, MEDIAN_ERROR),
            ("90 % quantile of the", self.error_90, ERROR_90),
        ):
            if not missed <= share * self.moved:
                return (
                    f"the fitted dynamics predict badly: {self.steps} steps ahead the {label} error is {missed:.3g}, "
                    f"and must be at most {share:g} of the {self.moved:.3g} moved meanwhile; these dynamics are not "
                    "linear, or an observation that they depend on is missing"
                )
        return None


def predict_recorded(
    dynamics: LinearDynamics, trajectories: Trajectories, rng: np.random.Generator, *, steps: int, count: int = 2000
) -> Prediction:
    """Replays recorded actions from recorded states, `steps` ahead, and compares.

    Raises ValueError if no episode is as long.
    """
    spec = trajectories.spec
    long = np.flatnonzero(trajectories.lengths >= steps)
    if not len(long):
        raise ValueError(
            f"no episode has {steps} steps to test the dynamics on; the longest has {trajectories.lengths.max()}"
        )
    room = trajectories.lengths[long] - steps + 1
    episode = rng.choice(long, size=count, p=room / room.sum())
    offset = rng.integers(0, trajectories.lengths[episode] - steps + 1)
    row = trajectories.starts("observation")[episode] + offset
    action_row = trajectories.starts("action")[episode] + offset
    states = states_of(trajectories)
    actions = trajectories.streams[spec.action.name].reshape(-1, spec.action.size).astype(np.float64)
    state = states[row]
    for step in range(steps):
        state = dynamics.step(state, actions[action_row + step])
    compared = slice(None) if spec.goal is None else dynamics.streams[spec.goal]
    moved = np.linalg.norm((states[row + steps] - states[row])[:, compared], axis=1)
    error = np.linalg.norm((state - states[row + steps])[:, compared], axis=1)
    return Prediction(
        steps=steps,
        moved=float(np.median(moved)),
        median_error=float(np.median(error)),
        error_90=float(np.quantile(error, 0.9)),
    )


def _transitions(
    trajectories: Trajectories, rng: np.random.Generator
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """State before, action, state after, of at most `MOST_ROWS` recorded steps, drawn uniformly."""
    steps = int(trajectories.lengths.sum())
    chosen = np.sort(rng.choice(steps, size=min(steps, MOST_ROWS), replace=False))
    row = trajectories.before_steps()[chosen]
    states = states_of(trajectories)
    action = trajectories.spec.action
    actions = trajectories.streams[action.name].reshape(-1, action.size)[chosen].astype(np.float64)
    return states[row], actions, states[row + 1]
