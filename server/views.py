"""What the domain knows, as replies: numpy to lists, non-finite numbers to null where the schema says so."""

import math
from typing import Any

import numpy as np

from forcing.policy.policy import Policy
from forcing.policy.types import Array, Plan, SensorReport, StreamSpec
from forcing.server.acting import Answer
from forcing.server.schemas import (
    ActReply,
    ActRequest,
    OneShotReply,
    PlanBody,
    PolicyReply,
    PolicySummary,
    SensorReply,
    SessionReply,
    StreamReply,
    Timing,
)
from forcing.server.sessions import Session


def act_reply(request: ActRequest, answer: Answer, policy: Policy, total_ms: float) -> ActReply:
    """The reply to an act; optional parts that the request does not want are left unset."""
    decision = answer.decision
    optional: dict[str, Any] = {
        "action_chunk": decision.action_chunk.tolist(),
        "spread": finite_or_none(decision.spread),
        "timing": Timing(queue_ms=answer.queue_ms, plan_ms=answer.plan_ms, total_ms=total_ms),
    }
    return ActReply(
        request_id=request.request_id,
        step=decision.step,
        action=decision.action.tolist(),
        source=decision.source,
        valid_until_step=decision.valid_until_step,
        noise_level=finite_or_none(decision.noise_level),
        feasible=decision.feasible,
        clipped=decision.clipped,
        sensors={name: _sensor_reply(name, report, policy) for name, report in decision.sensors.items()},
        late_steps=decision.late_steps,
        revision=policy.revision,
        **{name: optional[name] for name in request.want},
    )


def _sensor_reply(name: str, report: SensorReport, policy: Policy) -> SensorReply:
    return SensorReply(
        noise=report.noise,
        noise_level=None if report.noise is None else policy.level_of(name, report.noise),
        rejected=report.rejected,
        stuck=report.stuck,
        unheard_steps=report.unheard_steps,
        surprise=report.surprise,
    )


def one_shot_reply(policy: Policy, answer: Answer, total_ms: float) -> OneShotReply:
    decision = answer.decision
    return OneShotReply(
        policy=policy.name,
        revision=policy.revision,
        action=decision.action.tolist(),
        action_chunk=decision.action_chunk.tolist(),
        source=decision.source,
        noise_level=finite_or_none(decision.noise_level),
        spread=finite_or_none(decision.spread),
        feasible=decision.feasible,
        clipped=decision.clipped,
        timing=Timing(queue_ms=answer.queue_ms, plan_ms=answer.plan_ms, total_ms=total_ms),
    )


def session_reply(session: Session, now: float) -> SessionReply:
    return SessionReply(
        session_id=session.id,
        policy=session.policy.name,
        revision=session.policy.revision,
        step=session.controller.step,
        control_hz=session.policy.spec.control_hz,
        goal=None if session.goal is None else session.goal.tolist(),
        seed=session.seed,
        lease_s=session.lease_s,
        expires_in_s=max(0.0, session.expires_at - now),
    )


def plan_body(plan: Plan) -> PlanBody:
    return PlanBody(
        made_at_step=plan.made_at_step,
        start={name: value.tolist() for name, value in plan.start.items()},
        steps=plan.steps.tolist(),
        streams={name: stream.tolist() for name, stream in plan.streams.items()},
        level=plan.level.tolist(),
        spread={name: nested(stream) for name, stream in plan.spread.items()},
        candidates=nested(plan.candidates),
        costs=[finite_or_none(cost) for cost in plan.costs],
        chosen=plan.chosen,
        feasible=plan.feasible,
        passes=plan.passes,
    )


def policy_summary(policy: Policy) -> PolicySummary:
    return PolicySummary(id=policy.name, revision=policy.revision, control_hz=policy.spec.control_hz)


def policy_reply(policy: Policy) -> PolicyReply:
    return PolicyReply(
        id=policy.name,
        revision=policy.revision,
        control_hz=policy.spec.control_hz,
        goal=policy.spec.goal,
        streams=[_stream_reply(stream) for stream in policy.spec.streams],
        normaliser_hash=policy.normaliser_hash,
        card=dict(policy.card),
    )


def _stream_reply(stream: StreamSpec) -> StreamReply:
    return StreamReply(
        name=stream.name,
        role=stream.role,
        shape=list(stream.shape),
        units=stream.units,
        low=None if stream.low is None else [finite_or_none(number) for number in stream.low],
        high=None if stream.high is None else [finite_or_none(number) for number in stream.high],
        rate_of=stream.rate_of,
    )


def finite_or_none(number: float) -> float | None:
    """The number, None if it is NaN or infinite: JSON has no word for those."""
    return float(number) if math.isfinite(number) else None


def nested(array: Array) -> Any:
    """Nested lists of the array, with None for what is not finite."""
    holes = ~np.isfinite(array)
    if not holes.any():
        return array.tolist()
    boxed = array.astype(object)
    boxed[holes] = None
    return boxed.tolist()
