"""What a recording shows of the world besides trajectories: where actions lead, and which places were visited.

A policy carries it along, so that its plans can be rehearsed and followed; knows no network.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from forcing.policy.dynamics import LinearDynamics, fit_dynamics, predict_recorded, state_slices
from forcing.policy.rehearsal import Feedback
from forcing.policy.support import Support, visited_cells
from forcing.policy.tokens import Tokenizer
from forcing.policy.types import Trajectories, TrajectorySpec

PREDICTED_STEPS = 30
CELL_STEPS = 1 / 3  # side of the cells that plans keep to, in fastest recorded steps: plans lead along their edges


@dataclass(frozen=True, slots=True, kw_only=True)
class World:
    """dynamics: fitted to the recording, which they predict well. support: places its goal stream visited."""

    dynamics: LinearDynamics
    support: Support

    def feedback(self, tokenizer: Tokenizer) -> Feedback:
        """What keeps a robot on a planned trajectory."""
        return Feedback(self.dynamics, tokenizer.normaliser, tokenizer.spec.action)

    def tensors(self) -> dict[str, Tensor]:
        """As a checkpoint keeps it."""
        return {
            "weights": torch.from_numpy(self.dynamics.weights),
            "bounds": torch.from_numpy(np.stack([self.dynamics.low, self.dynamics.high])),
            "origin": torch.from_numpy(self.support.origin),
            "cell": torch.tensor([self.support.cell], dtype=torch.float64),
            "visited": torch.from_numpy(self.support.visited.astype(np.uint8)),
        }

    @classmethod
    def from_tensors(cls, tensors: Mapping[str, Tensor], spec: TrajectorySpec) -> "World":
        """Raises KeyError if one is missing."""
        values = {name: value.numpy() for name, value in tensors.items()}
        low, high = values["bounds"]
        dynamics = LinearDynamics(streams=state_slices(spec), weights=values["weights"], low=low, high=high)
        visited = values["visited"].astype(np.bool_)
        support = Support(origin=values["origin"], cell=float(values["cell"][0]), visited=visited)
        return cls(dynamics=dynamics, support=support)


class NoWorld(ValueError):
    """The recording does not show where actions lead; the message says why."""


def fit_world(trajectories: Trajectories) -> World:
    """Raises NoWorld as `trusted_dynamics` does, and if the goal stream is none of up to 3 numbers."""
    dynamics = trusted_dynamics(trajectories)
    try:
        return World(dynamics=dynamics, support=visited_cells(trajectories, CELL_STEPS))
    except ValueError as error:
        raise NoWorld(str(error)) from error


def trusted_dynamics(trajectories: Trajectories) -> LinearDynamics:
    """Dynamics fitted to the recording. Raises NoWorld if the action has no limits, or they predict it badly;
    ValueError if a number is not finite."""
    trajectories.require_finite()
    action = trajectories.spec.action
    if action.low is None or action.high is None or not np.isfinite([*action.low, *action.high]).all():
        raise NoWorld(f"action {action.name!r} has no finite limits")
    rng = np.random.default_rng(0)
    try:
        dynamics = fit_dynamics(trajectories, rng)
        refusal = predict_recorded(dynamics, trajectories, rng, steps=PREDICTED_STEPS).refusal()
    except ValueError as error:
        raise NoWorld(str(error)) from error
    if refusal is not None:
        goal = trajectories.spec.goal
        raise NoWorld(f"{refusal} ({'there is no goal stream' if goal is None else f'the goal stream is {goal}'})")
    return dynamics
