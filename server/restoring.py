"""A session as it was when its server ended: what happened in its episode, gone through once more.

Beliefs draw from the session's seed and the step, so that the same readings make the same ones; plans are kept, and not
made again. Every decision must come out as it was sent.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np

from forcing.policy.controller import Controller
from forcing.policy.policy import Policy
from forcing.server.acting import take_in, within
from forcing.server.entries import plan_of
from forcing.server.keeping import Kept
from forcing.server.schemas import ActReply, ActRequest, Ball
from forcing.server.sessions import Session
from forcing.server.validation import Limits, obstacles_of


class NotRestored(ValueError):
    """A session that cannot go on; the message says why."""


def restored(kept: Kept, policies: Mapping[str, Policy], now: float) -> Session:
    """The session after all that was kept of it. Raises NotRestored."""
    opened, *happened = kept.entries
    policy = policies.get(opened["policy"])
    if policy is None or policy.revision != opened["revision"]:
        has = "none" if policy is None else f"revision {policy.revision}"
        raise NotRestored(f"needs revision {opened['revision']} of policy {opened['policy']!r}, and {has} is served")
    goal = None if opened["goal"] is None else np.array(opened["goal"])
    controller = Controller(policy, goal=goal, seed=opened["seed"])
    controller.set_obstacles(obstacles_of([Ball.model_validate(ball) for ball in opened["obstacles"]]))
    session = Session(
        id=kept.session,
        policy=policy,
        controller=controller,
        limits=Limits(*(np.array(bound) for bound in opened["limits"])),
        goal=goal,
        seed=opened["seed"],
        lease_s=opened["lease_s"],
        expires_at=now + opened["lease_s"],
        record=opened["record"],
        episode=kept.episode,
    )
    for entry in happened:
        _replay(session, entry, now)
    session.restored = True
    return session


def _replay(session: Session, entry: Mapping[str, Any], now: float) -> None:
    """One thing that happened. Raises NotRestored if what was decided then comes out otherwise."""
    controller = session.controller
    match entry["kind"]:
        case "observed":
            request = ActRequest.model_validate(entry["request"])
            session.missed = entry["missed"]
            session.took(request)
            take_in(session, request)
        case "asked":
            controller.request(spare=entry.get("spare", False))
        case "planned":
            controller.install(plan_of(entry))
        case "answered":
            reply = ActReply.model_validate(entry["reply"])
            decision = within(controller.decide(), session.limits, session.last_action)
            if decision.step != reply.step or not np.allclose(decision.action, reply.action, atol=1e-6):
                raise NotRestored(
                    f"decides otherwise at step {reply.step} than it did, {decision.action} not {reply.action}"
                )
            session.last_action = np.array(reply.action, dtype=np.float64)
            controller.correct(session.last_action)
            session.answered(reply, now)
