"""What is kept of an episode, as entries of a journal (`datasets.journal`): plain maps, lists and numbers, and
frames of cameras as arrays of uint8."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from forcing.policy.types import Array, Plan
from forcing.server.schemas import ActReply, ActRequest
from forcing.server.sessions import Session


def opened(session: Session) -> dict[str, Any]:
    """The first of an episode."""
    obstacles = session.controller.obstacles
    balls = () if obstacles is None else zip(obstacles.centres, obstacles.radii, strict=True)
    return {
        "kind": "open",
        "spec": session.policy.spec.to_json(),
        "policy": session.policy.name,
        "revision": session.policy.revision,
        "goal": None if session.goal is None else session.goal.tolist(),
        "obstacles": [{"centre": centre.tolist(), "radius": float(radius)} for centre, radius in balls],
        "seed": session.seed,
        "limits": [bound.tolist() for bound in (session.limits.low, session.limits.high, session.limits.change)],
        "lease_s": session.lease_s,
        "record": session.record,
    }


def observed(request: ActRequest, missed: int) -> dict[str, Any]:
    """What an act said. missed: steps before it that nobody knows of, see `Session.missed`."""
    plain = _plain(request.model_dump(exclude_unset=True))
    return {"kind": "observed", "step": request.step, "request": plain, "missed": missed}


def asked(spare: bool) -> dict[str, Any]:
    """A plan was asked for. spare: before one was due, see `Controller.request`."""
    return {"kind": "asked", "spare": spare}


def planned(plan: Plan) -> dict[str, Any]:
    """A plan was installed. Of its candidates itself alone: the others are for pictures."""
    return {
        "kind": "planned",
        "made_at_step": plan.made_at_step,
        "start": _plain(plan.start),
        "steps": plan.steps.tolist(),
        "streams": _plain(plan.streams),
        "level": plan.level.tolist(),
        "spread": _plain(plan.spread),
        "candidates": plan.candidates[plan.chosen][None].tolist(),
        "costs": [float(plan.costs[plan.chosen])],
        "feasible": plan.feasible,
        "passes": plan.passes,
    }


def plan_of(entry: Mapping[str, Any]) -> Plan:
    """The plan that was installed."""
    return Plan(
        made_at_step=entry["made_at_step"],
        start=_arrays(entry["start"]),
        steps=np.array(entry["steps"], dtype=np.int64),
        streams=_arrays(entry["streams"]),
        level=np.array(entry["level"]),
        spread=_arrays(entry["spread"]),
        candidates=np.array(entry["candidates"]),
        costs=np.array(entry["costs"]),
        chosen=0,
        feasible=entry["feasible"],
        passes=entry["passes"],
    )


def answered(reply: ActReply) -> dict[str, Any]:
    """An act was answered."""
    return {"kind": "answered", "step": reply.step, "reply": reply.model_dump(exclude_unset=True)}


def _arrays(values: Mapping[str, Any]) -> dict[str, Array]:
    return {name: np.array(value) for name, value in values.items()}


def _plain(value: Any) -> Any:
    """With lists in place of arrays, but for frames."""
    if isinstance(value, np.ndarray):
        return value if value.dtype == np.uint8 else value.tolist()
    if isinstance(value, Mapping):
        return {key: _plain(inner) for key, inner in value.items()}
    return [_plain(inner) for inner in value] if isinstance(value, (list, tuple)) else value
