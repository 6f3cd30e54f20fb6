"""One control step: observe, plan within the deadline, decide; nothing leaves that is not finite and within limits."""

import asyncio
import logging
import time
from dataclasses import dataclass, replace
from typing import NoReturn

import numpy as np

from forcing.policy.controller import Controller
from forcing.policy.types import Array, Decision
from forcing.server.engine import Engine, Planned
from forcing.server.errors import NonFiniteAction, PlanningFailed
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

        received: when the request came, by time.perf_counter. Raises PlanningFailed, NonFiniteAction, Overloaded.
        """
        controller = session.controller
        if new:
            if request.goal is not None:
                controller.set_goal(request.goal)
            if request.obstacles is not None:
                controller.set_obstacles(obstacles_of(request.obstacles))
            # Beliefs take milliseconds, and tens of them while nobody can tell how late readings are.
            await asyncio.to_thread(_take_in, controller, request)
            if request.played is not None and len(request.played):
                session.last_action = request.played[-1]
        deadline = None if request.deadline_ms is None else received + request.deadline_ms / 1000
        planned = await self._plan_in_time(session, deadline)
        return self._decide(session, planned)

    async def act_once(self, session: Session) -> Answer:
        """The answer for a session whose controller has just observed; waits for the plan."""
        planned = await self._plan_in_time(session, None)
        return self._decide(session, planned)

    async def _plan_in_time(self, session: Session, deadline: float | None) -> Planned | None:
        """The plan installed for this step; None if none was needed, or it is late: then a later step installs it."""
        if session.pending is not None:  # an earlier step did not wait for it
            if not await self._in_time(session.pending, deadline):
                return None
            self._install(session)
        request = session.controller.request()
        if request is None:
            return None
        session.pending = self._engine.submit(session.policy, request)
        return self._install(session) if await self._in_time(session.pending, deadline) else None

    async def _in_time(self, pending: asyncio.Future[Planned], deadline: float | None) -> bool:
        timeout_s = None if deadline is None else max(0.0, deadline - time.perf_counter())
        await asyncio.wait([pending], timeout=timeout_s)
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
        for name, stream in planned.plan.streams.items():
            if not np.isfinite(stream).all():
                self._refuse(f"the plan of policy {session.policy.name!r} has non-finite numbers in stream {name!r}")
        session.controller.install(planned.plan)
        return planned

    def _decide(self, session: Session, planned: Planned | None) -> Answer:
        policy, controller = session.policy.name, session.controller
        try:
            decision = controller.decide()
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


def _take_in(controller: Controller, request: ActRequest) -> None:
    """What the robot did of its own since the last act, then what it senses now."""
    if request.played is not None:
        controller.played(request.played)
    controller.observe(
        request.observation,
        noise=request.noise,
        missing=request.missing,
        age_s={name: age / 1000 for name, age in (request.age_ms or {}).items()},
    )


def within(decision: Decision, limits: Limits, last: Array) -> Decision:
    """The decision with every action cut to limits, in float64; `clipped` says if that changed any.

    last: [A] the action of the step before. Where low and high ask for a greater change than is allowed, they win.
    """
    planned = np.asarray(decision.action_chunk, dtype=np.float64)
    chunk = planned.copy()
    for row, before in zip(chunk, [last, *chunk[:-1]], strict=True):  # each row is cut before the next looks at it
        row[:] = np.clip(np.clip(row, before - limits.change, before + limits.change), limits.low, limits.high)
    clipped = decision.clipped or bool((chunk != planned).any())
    return replace(decision, action=chunk[0], action_chunk=chunk, clipped=clipped)
