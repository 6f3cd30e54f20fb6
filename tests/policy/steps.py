"""Steps of the arm that remembers, with observations and plans written by hand."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from forcing.policy.controller import Controller
from forcing.policy.planner import PlanRequest
from forcing.policy.types import Array, Decision, Plan

ACTIONS = np.array([0.5, 0.3]) + np.arange(6)[:, None] * np.array([0.01, -0.01])  # within the arm's limits


def seen(step: int) -> dict[str, Array]:
    return {"hand": np.array([step / 100, 0.0]), "load": np.array(step / 10)}


def plan(request: PlanRequest, actions: NDArray[np.float64] = ACTIONS) -> Plan:
    return foreseeing(request, {"hand": np.zeros((6, 2)), "load": np.zeros(6), "action": actions})


def foreseeing(request: PlanRequest, streams: Mapping[str, NDArray[np.float64]]) -> Plan:
    """Six steps of these."""
    return Plan(
        made_at_step=request.step,
        start=seen(request.step),
        steps=np.arange(1, 7),
        streams=streams,
        level=np.zeros((6, 3)),
        spread={name: np.ones_like(values) for name, values in streams.items()},
        candidates=np.zeros((1, 6, 2)),
        costs=np.zeros(1),
        chosen=0,
        feasible=True,
        passes=1,
    )


def act(controller: Controller, observation: Mapping[str, Array] | None = None, **fields: Any) -> Decision:
    """A step, planned for at once where a plan is due."""
    controller.observe(seen(controller.step) if observation is None else observation, **fields)
    if (request := controller.request()) is not None:
        controller.install(plan(request))
    return controller.decide()
