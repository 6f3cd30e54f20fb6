"""One control step: observe, plan within the deadline, decide; nothing leaves that is not finite and within limits."""

import asyncio
import logging
import math
import time
from dataclasses import dataclass, replace
from typing import NoReturn

import numpy as np

from forcing.policy.controller import NoPlan
from forcing.policy.types import Array, Decision
from forcing.server import entries
from forcing.server.engine import Engine, Planned
from forcing.server.errors import NonFiniteAction, NoPlanYet, NotFound, Overloaded, PlanningFailed
from forcing.server.metrics import Metrics
from forcing.server.schemas import ActRequest
from forcing.server.sessions import Session
from forcing.server.validation import Limits, obstacles_of

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Answer:
    """A decision that may be sent, and where its time went."""

    decision: Decision
    queue_ms: float = 0.0
    plan_ms: float = 0.0


class Actor:
    """Takes control steps with the engine's plans and counts what happens. For the event loop."""

    def __init__(self, engine: Engine, metrics: Metrics) -> None:
        self._engine = engine
        self._metrics = metrics

    async def act(self, session: Session, request: ActRequest, *, new: bool, received: float) -> Answer:
        """The answer to a checked act that `session.begin` let in. new: the observation has not been given yet.

        received: when the request came, by time.perf_counter. Raises PlanningFailed, NonFiniteAction, Overloaded;
        NoPlanYet where the deadline is over before the first plan of a policy that has no other way to hold.
        """
        if new:
            # A thread costs more than a quick belief: it takes turns with the event loop all the while.
            if session.controller.slow or request.steps_played or session.missed:
                await asyncio.to_thread(take_in, session, request)
            else:
                take_in(session, request)
            if session.diary is not None:
                session.diary.add(entries.observed(request, session.missed))
        deadline = None if request.deadline_ms is None else received + request.deadline_ms / 1000
        planned = await self._plan_in_time(session, received, deadline)
        return self._decide(session, planned)

    async def act_once(self, session: Session) -> Answer:
        """The answer for a session whose controller has just observed; waits for the plan."""
        planned = await self._plan_in_time(session, time.perf_counter(), None)
        return self._decide(session, planned)

    async def _plan_in_time(self, session: Session, received: float, deadline: float | None) -> Planned | None:
        """The plan installed for this step; None if none was needed, or it is late: then a later step installs it."""
        # Nobody began the plan that an earlier step asked for: what was observed since is planned from instead, and
        # it keeps its turn.
        due = self._engine.withdraw(session)
        if due is not None:
            session.pending = None
        if session.pending is not None:  # an earlier step did not wait for it
            if not await self._in_time(session, deadline):
                return None
            self._install(session)
        request, spare = session.controller.request(), False
        if request is None and deadline is not None and self._may_refine(session):
            request, spare, due = session.controller.request(spare=True), True, math.inf
        if request is None:
            return None
        if session.diary is not None:
            session.diary.add(entries.asked(spare))
        if due is None:
            due = self._due(session, received, deadline)
        try:
            session.pending = self._engine.submit(session, session.policy, request, due)
        except Overloaded:
            if deadline is None:
                raise
            self._metrics.deadline_misses.inc()
            return None
        if spare:  # there is a plan that serves: this one comes with a later step
            return None
        return self._install(session) if await self._in_time(session, deadline) else None

    def _may_refine(self, session: Session) -> bool:
        """Whether the plan that is followed may be kept up although none is due yet: nobody wants another one."""
        rolling = session.policy.preset.rolling
        return rolling is not None and rolling.spare and session.controller.plan is not None and self._engine.spare

    @staticmethod
    def _due(session: Session, received: float, deadline: float | None) -> float:
        """When a plan is wanted: at once by a robot that has none or waits; by when the next one would be due by one
        that can follow the plan it has."""
        if deadline is None or session.controller.plan is None:
            return received
        return received + session.policy.preset.planner.replan_steps / session.policy.spec.control_hz

    async def _in_time(self, session: Session, deadline: float | None) -> bool:
        """Whether the plan being made for the session is done by the deadline; one that cannot be is not waited for."""
        pending, left_s = session.pending, None if deadline is None else deadline - time.perf_counter()
        assert pending is not None
        if left_s is None or self._engine.expected_s(session) < left_s:
            await asyncio.wait([pending], timeout=None if left_s is None else max(0.0, left_s))
        if session.closed:
            raise NotFound("the session was closed while this act was answered")
        if not pending.done():
            self._metrics.deadline_misses.inc()
        return pending.done()

    def _install(self, session: Session) -> Planned:
        pending, session.pending = session.pending, None
        assert pending is not None
        try:
            planned = pending.result()
        except FloatingPointError as error:
            self._refuse(str(error), error)
        except Exception as error:
            logger.exception("policy %r could not plan", session.policy.name)
            raise PlanningFailed(f"policy {session.policy.name!r} could not plan; the server's log says why") from error
        self._metrics.plan_seconds.labels(session.policy.name).observe(planned.plan_ms / 1000)
        self._metrics.queue_seconds.observe(planned.queue_ms / 1000)
        self._metrics.batch.observe(planned.batch)
        self._metrics.passes.observe(planned.plan.passes)
        for name, stream in planned.plan.streams.items():
            if not np.isfinite(stream).all():
                self._refuse(f"the plan of policy {session.policy.name!r} has non-finite numbers in stream {name!r}")
        session.controller.install(planned.plan)
        if session.diary is not None:
            session.diary.add(entries.planned(planned.plan))
        return planned

    def _decide(self, session: Session, planned: Planned | None) -> Answer:
        policy, controller = session.policy.name, session.controller
        try:
            decision = controller.decide()
        except NoPlan as error:
            raise NoPlanYet(f"{error}; hold your place and send what is sensed then, for this step again") from error
        except FloatingPointError as error:
            self._refuse(str(error), error)
        if not (np.isfinite(decision.action).all() and np.isfinite(decision.action_chunk).all()):
            self._refuse(f"policy {policy!r} decided on a non-finite action at step {decision.step}")
        decision = within(decision, session.limits, session.last_action)
        controller.correct(decision.action)
        session.last_action = decision.action
        self._metrics.sources.labels(decision.source).inc()
        self._metrics.clipped.inc(int(decision.clipped))
        for name, report in decision.sensors.items():
            self._metrics.rejected.labels(policy, name).inc(int(report.rejected))
            self._metrics.stuck.labels(policy, name).inc(int(report.stuck))
            self._metrics.unheard.labels(policy, name).inc(int(report.unheard_steps > 0))
        return Answer(decision) if planned is None else Answer(decision, planned.queue_ms, planned.plan_ms)

    def _refuse(self, detail: str, cause: Exception | None = None) -> NoReturn:
        self._metrics.nonfinite.inc()
        raise NonFiniteAction(f"{detail}; no action was sent") from cause


def take_in(session: Session, request: ActRequest) -> None:
    """What a checked act says: what is wanted from now on, what the robot did of its own since the last one, and what
    it senses now."""
    controller = session.controller
    if request.goal is not None:
        controller.set_goal(request.goal)
    if request.obstacles is not None:
        controller.set_obstacles(obstacles_of(request.obstacles))
    if session.missed:  # nobody knows what was done then; it is supposed to be what was done before
        controller.played(np.tile(session.last_action, (session.missed, 1)))
    if request.played is not None and len(request.played):
        controller.played(request.played)
        session.last_action = request.played[-1]
    controller.observe(
        request.observation,
        noise=request.noise,
        missing=request.missing,
        age_s={name: age / 1000 for name, age in (request.age_ms or {}).items()},
    )


def within(decision: Decision, limits: Limits, last: Array) -> Decision:
    """The decision with every action cut to limits, in float64; `clipped` says if that changed any.

    last: [A] the action of the step before, NaN if nobody knows it: then the first may be any. Where low and high ask
    for a greater change than is allowed, they win.
    """
    planned = np.asarray(decision.action_chunk, dtype=np.float64)
    chunk = np.clip(planned, limits.low, limits.high)
    if np.isfinite(limits.change).any():
        first = np.where(np.isfinite(last), last, chunk[0])
        for row, before in zip(chunk, [first, *chunk[:-1]], strict=True):  # each row is cut before the next looks at it
            row[:] = np.clip(np.clip(row, before - limits.change, before + limits.change), limits.low, limits.high)
    clipped = decision.clipped or bool((chunk != planned).any())
    return replace(decision, action=chunk[0], action_chunk=chunk, clipped=clipped)
