"""Model-predictive control by sampling: try action sequences on fitted dynamics, keep the cheapest, shift, repeat.

Plain numpy, any number of robots at once. Knows no task: what is cheap, a cost function says.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from forcing.policy.dynamics import LinearDynamics

Array32 = NDArray[np.float32]
Cost = Callable[[Array32], Array32]
"""States [E, N, H, n] that N action sequences of E robots lead through -> cost [E, N]."""


@dataclass(frozen=True, slots=True, kw_only=True)
class MpcConfig:
    """sequences: tried a step, at least 4. steps: looked ahead. knots: random numbers a sequence and actuator; between
    them it is linear. rounds: of sampling a control step, each around the best of the one before."""

    sequences: int = 64
    steps: int = 30
    knots: int = 6
    rounds: int = 1

    def __post_init__(self) -> None:
        for name, least in (("sequences", 4), ("steps", 2), ("knots", 2), ("rounds", 1)):
            if getattr(self, name) < least:
                raise ValueError(f"{name} must be at least {least}, got {getattr(self, name)}")


class SamplingMpc:
    """The best action sequence of each of E robots, improved at every control step."""

    def __init__(
        self, dynamics: LinearDynamics, low: NDArray[np.float64], high: NDArray[np.float64], config: MpcConfig
    ):
        """low, high: [m] limits of the action."""
        self.config = config
        self._dynamics = dynamics
        self._low, self._high = low.astype(np.float32), high.astype(np.float32)
        self._from_state = dynamics.weights[: len(dynamics.low)].astype(np.float32)
        self._from_action = dynamics.weights[len(dynamics.low) : -1].astype(np.float32)
        self._constant = dynamics.weights[-1].astype(np.float32)
        self._bounds = dynamics.low.astype(np.float32), dynamics.high.astype(np.float32)
        place = np.linspace(0, config.knots - 1, config.steps)
        left = np.minimum(place.astype(int), config.knots - 2)
        self._spread_knots = np.zeros((config.steps, config.knots), dtype=np.float32)
        self._spread_knots[np.arange(config.steps), left] = 1 - (place - left)
        self._spread_knots[np.arange(config.steps), left + 1] = place - left

    def idle(self, robots: int) -> Array32:
        """[E, H, m] the sequences to begin with: the middle of the limits."""
        middle = np.asarray((self._low + self._high) / 2, dtype=np.float32)
        return np.broadcast_to(middle, (robots, self.config.steps, len(self._low))).copy()

    def improve(self, state: NDArray[np.float64], plan: Array32, cost: Cost, rng: np.random.Generator) -> Array32:
        """[E, H, m] better sequences for robots in states [E, n]; `plan` [E, H, m] is what the last step left, shifted
        with `shifted`."""
        start = state.astype(np.float32)
        for _ in range(self.config.rounds):
            tried = self._candidates(plan, rng)
            costs = cost(self.predict(start, tried))
            plan = tried[np.arange(len(tried)), np.argmin(costs, axis=1)]
        return plan

    @staticmethod
    def shifted(plan: Array32) -> Array32:
        """The same sequences a step later, their last action repeated."""
        return np.concatenate([plan[:, 1:], plan[:, -1:]], axis=1)

    def predict(self, state: Array32, actions: Array32) -> Array32:
        """[E, N, H, n] states after each of the actions [E, N, H, m], from [E, n]."""
        robots, tried, steps, _ = actions.shape
        pushes = actions @ self._from_action + self._constant
        now = np.repeat(state[:, None], tried, axis=1)
        result = np.empty((robots, tried, steps, state.shape[-1]), dtype=np.float32)
        for step in range(steps):
            now = np.clip(now, *self._bounds)
            now = now + now @ self._from_state + pushes[:, :, step]
            result[:, :, step] = now
        return result

    def _candidates(self, plan: Array32, rng: np.random.Generator) -> Array32:
        """[E, N, H, m]: the plan itself, small and large changes of it, and a quarter of fresh sequences."""
        robots, steps, size = plan.shape
        count = self.config.sequences
        half, middle = (self._high - self._low) / 2, (self._high + self._low) / 2
        noise = rng.standard_normal((robots, count, self.config.knots, size), dtype=np.float32)
        fresh = count - count // 4
        scale = np.full(count, 0.3, dtype=np.float32)
        scale[0], scale[count // 2 : fresh], scale[fresh:] = 0.0, 1.0, 1.5
        change = self._spread_knots @ (noise * scale[None, :, None, None]) * half
        base = np.broadcast_to(plan[:, None], (robots, count, steps, size)).copy()
        base[:, fresh:] = middle
        return np.clip(base + change, self._low, self._high)
