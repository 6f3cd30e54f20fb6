"""What is kept of a session, and the session that comes of it: what happened, gone through once more.

Entries are plain maps, see `datasets.journal`. Beliefs draw from the session's seed and the step, so that the same
readings make the same ones; plans are kept, and not made again.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np

from forcing.policy.controller import Controller
from forcing.policy.policy import Policy
from forcing.policy.types import Array, Plan
from forcing.server.acting import take_in
from forcing.server.keeping import Kept
from forcing.server.schemas import ActReply, ActRequest, Ball
from forcing.server.sessions import Session
from forcing.server.validation import Limits, obstacles_of


class NotRestored(ValueError):
    """A session that cannot go on; the message says why."""


def opened_entry(session: Session) -> dict[str, Any]:
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


def journal_of(session: Session) -> str:
    """The name of its journal."""
    return f"{session.id}.{session.episode}"


def act_entry(session: Session, request: ActRequest, reply: ActReply) -> dict[str, Any]:
    """An act that was answered, and what happened since the one before."""
    return {
        "kind": "act",
        "step": reply.step,
        "action": reply.action,
        "request": _plain(request.model_dump(exclude_unset=True)),
        "reply": reply.model_dump(exclude_unset=True),
        "happened": [None if plan is None else _plan_entry(plan) for plan in session.happened],
    }


def restored(kept: Kept, policies: Mapping[str, Policy], now: float) -> Session:
    """The session as it was after its last act. Raises NotRestored."""
    opened = kept.opened
    policy = policies.get(opened["policy"])
    if policy is None or policy.revision != opened["revision"]:
        has = "none" if policy is None else f"revision {policy.revision}"
        raise NotRestored(f"needs revision {opened['revision']} of policy {opened['policy']!r}, and {has} is served")
    goal = None if opened["goal"] is None else np.array(opened["goal"])
    controller = Controller(policy, goal=goal, seed=opened["seed"])
    controller.set_obstacles(obstacles_of([Ball.model_validate(ball) for ball in opened["obstacles"]]))
    session_id, _, episode = kept.name.partition(".")
    session = Session(
        id=session_id,
        policy=policy,
        controller=controller,
        limits=Limits(*(np.array(bound) for bound in opened["limits"])),
        goal=goal,
        seed=opened["seed"],
        lease_s=opened["lease_s"],
        expires_at=now + opened["lease_s"],
        record=opened["record"],
        episode=int(episode),
    )
    for entry in kept.entries:
        session.restored = True  # as it was if the server that wrote this had been begun anew before
        _again(session, entry, now)
    session.restored = True
    return session


def _again(session: Session, entry: Mapping[str, Any], now: float) -> None:
    """One act, as it went."""
    request, reply = ActRequest.model_validate(entry["request"]), ActReply.model_validate(entry["reply"])
    controller = session.controller
    session.bridge(request)
    take_in(session, request)
    for plan in entry["happened"]:
        if plan is None:
            controller.request()
        else:
            controller.install(_plan_of(plan))
    controller.decide()
    session.last_action = np.array(entry["action"], dtype=np.float32)
    controller.correct(session.last_action)
    session.finish(request, reply, now)


def _plan_entry(plan: Plan) -> dict[str, Any]:
    """Of its candidates the plan itself alone: the others are for pictures."""
    return {
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


def _plan_of(entry: Mapping[str, Any]) -> Plan:
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


def _arrays(entry: Mapping[str, Any]) -> dict[str, Array]:
    return {name: np.array(values) for name, values in entry.items()}


def _plain(value: Any) -> Any:
    """With lists in place of arrays."""
    if isinstance(value, np.ndarray):
        return value.tolist()
    if isinstance(value, Mapping):
        return {key: _plain(inner) for key, inner in value.items()}
    return [_plain(inner) for inner in value] if isinstance(value, (list, tuple)) else value
