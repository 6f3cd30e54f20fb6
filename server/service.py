"""What the server does, one method an endpoint: sessions, acts, plans, policies. Knows nothing of FastAPI and bytes.

Everything here runs on the event loop but plans, which the engine's workers make, and slow beliefs, in a thread of
their own for each act: a session is busy meanwhile and nobody else touches it.
"""

import asyncio
import logging
import secrets
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Literal

import numpy as np

from forcing.policy.controller import Controller
from forcing.policy.policy import Policy
from forcing.policy.types import Array, TrajectorySpec
from forcing.server import entries, views
from forcing.server.acting import Actor
from forcing.server.engine import Engine
from forcing.server.errors import FieldError, InvalidRequest, NotFound, NotReady, NotSupported, Overloaded, did_you_mean
from forcing.server.keeping import Diary, Keeper
from forcing.server.logs import about
from forcing.server.metrics import Metrics
from forcing.server.restoring import NotRestored, restored
from forcing.server.schemas import (
    ActReply,
    ActRequest,
    OneShotReply,
    OneShotRequest,
    OpenRequest,
    PlanReply,
    PoliciesReply,
    PolicyReply,
    ResetRequest,
    SessionReply,
)
from forcing.server.sessions import Session, SessionTable
from forcing.server.validation import action_limits, check_act, check_goal, check_history, check_open, obstacles_of

logger = logging.getLogger(__name__)
State = Literal["warming up", "ready", "failed", "shutting down"]


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerSettings:
    """How much the server takes.

    max_body_bytes: of a request. max_sessions: open at once. workers: that plan. processes: they are processes of their
    own, else threads. batch: plans that are kept up in the same passes, at the most. queue_limit: plans that may wait
    for a worker. state_dir: where sessions are kept, so that they outlive the server; None to forget them.
    requests_per_s: from one address, None for any number. token: that requests must carry, None for none.
    """

    max_body_bytes: int = 8 * 2**20
    max_sessions: int = 64
    workers: int = 1
    processes: bool = False
    batch: int = 4
    queue_limit: int = 64
    state_dir: Path | None = None
    requests_per_s: float | None = None
    token: str | None = field(default=None, repr=False)

    def __post_init__(self) -> None:
        for name, least in (
            ("max_body_bytes", 1),
            ("max_sessions", 1),
            ("workers", 1),
            ("batch", 1),
            ("queue_limit", 0),
        ):
            if getattr(self, name) < least:
                raise ValueError(f"{name} must be at least {least}, got {getattr(self, name)}")
        if self.requests_per_s is not None and not 0 < self.requests_per_s < np.inf:
            raise ValueError(f"requests_per_s must be finite and positive, got {self.requests_per_s}")


class Service:
    """The action service for some policies. `state` says whether it takes work."""

    def __init__(self, policies: Sequence[Policy], settings: ServerSettings) -> None:
        self._policies = {policy.name: policy for policy in policies}
        if not policies or len(self._policies) != len(policies):
            raise ValueError(f"need policies, each name once, got {[policy.name for policy in policies]}")
        self.state: State = "warming up"
        self.metrics = Metrics()
        self._sessions = SessionTable(settings.max_sessions)
        self._keeper = None
        if settings.state_dir is not None:
            self._keeper = Keeper(settings.state_dir, self.metrics.not_kept.inc)
        self._engine = Engine(
            settings.workers, settings.queue_limit, batch=settings.batch, processes=settings.processes
        )
        self._workers = settings.workers
        self._actor = Actor(self._engine, self.metrics)
        self._running: dict[tuple[str, str], tuple[bytes, asyncio.Task[ActReply]]] = {}
        self.metrics.sessions.set_function(self._count_sessions)

    async def warm_up(self) -> None:
        """Every worker makes one plan with every policy; then the service is ready. Raises what a policy raises."""
        try:
            for policy in self._policies.values():
                await self._begin_with(policy)
            if self._keeper is not None:
                await self._restore_all(self._keeper)
        except Exception:
            self.state = "failed"
            raise
        if self.state == "warming up":
            self.state = "ready"

    async def _restore_all(self, keeper: Keeper) -> None:
        """Sessions of the server before go on, those that can; no lease runs until they all do."""
        found: list[tuple[Session, Diary]] = []
        for kept in keeper.found():
            diary = Diary(keeper, kept.session, kept.episode)
            try:
                found.append((await asyncio.to_thread(restored, kept, self._policies, time.monotonic()), diary))
            except Exception as error:  # its journal stays: another server may be able to go on with it
                with about(kept.session):
                    logger.warning("does not go on: %s", error, exc_info=not isinstance(error, NotRestored))
        for session, diary in found:
            session.renew(time.monotonic())
            try:
                self._sessions.add(time.monotonic(), partial(_itself, session))
            except Overloaded as error:
                with about(session.id):
                    logger.warning("does not go on: %s", error)
                continue
            session.diary = diary
            with about(session.id):
                logger.info("goes on at step %d", session.controller.step)

    def _keep(self, session: Session) -> None:
        """Its episode is written from now on."""
        if self._keeper is not None:
            session.diary = Diary(self._keeper, session.id, session.episode)
            session.diary.add(entries.opened(session))

    async def swap(self, policies: Sequence[Policy]) -> None:
        """New sessions get these policies from now on, in place of those of their names; open ones keep theirs.

        Raises ValueError if none of such a name is served, and what a policy raises at its first plans; then all stay.
        """
        for policy in policies:
            if policy.name not in self._policies:
                raise ValueError(f"no policy {policy.name!r} is served, only {', '.join(self._policies)}")
            await self._begin_with(policy)
        for policy in policies:
            before, self._policies[policy.name] = self._policies[policy.name], policy
            self.metrics.swaps.labels(policy.name).inc()
            logger.info("policy %r: revision %s in place of %s", policy.name, policy.revision, before.revision)

    async def _begin_with(self, policy: Policy) -> None:
        """Everything that takes long the first time. Every worker makes a plan, when robots leave room for it."""
        history, goal = example_of(policy)
        Controller(policy, goal=goal, seed=0).observe(history[0])
        throwaways = [self._throwaway(policy, history, goal, seed=0) for _ in range(self._workers)]
        await asyncio.gather(*(self._planned_some_time(session) for session in throwaways))

    async def _planned_some_time(self, session: Session) -> None:
        while True:
            try:
                await self._actor.act_once(session)
            except Overloaded:
                await asyncio.sleep(0.1)
            else:
                return

    def shut_down(self) -> None:
        """No new work from now on; acts being answered are finished."""
        if self.state != "failed":
            self.state = "shutting down"

    def close(self) -> None:
        """Shuts down and lets the worker threads go."""
        self.shut_down()
        self._engine.close()
        if self._keeper is not None:
            self._keeper.close()

    def policies(self) -> PoliciesReply:
        return PoliciesReply(policies=[views.policy_summary(policy) for policy in self._policies.values()])

    def policy(self, name: str) -> PolicyReply:
        if name not in self._policies:
            raise NotFound(f"unknown policy {name!r:.200}{did_you_mean(name, self._policies)}")
        return views.policy_reply(self._policies[name])

    def spec(self, name: str) -> TrajectorySpec:
        """A policy's streams. Raises NotFound."""
        self.policy(name)
        return self._policies[name].spec

    def example(self, name: str) -> dict[str, Array]:
        """A policy's streams, and its goal if it has one, as an observation that would be answered. Raises NotFound."""
        self.policy(name)
        history, goal = example_of(self._policies[name])
        return history[-1] | ({} if goal is None else {"goal": goal})

    def open_session(self, request: OpenRequest, *, kept: bool = True) -> SessionReply:
        """kept: it may outlive this server; not one that ends with its connection."""
        self._check_ready()
        policy = self._wanted(request.policy)
        if request.record and self._keeper is None:
            raise NotSupported("record needs a server that was begun with --state-dir; leave it out")
        if request.control_hz is not None and request.control_hz != policy.spec.control_hz:
            rule = f"{policy.spec.control_hz}, the rate that policy {policy.name!r} was trained for"
            raise InvalidRequest([FieldError("control_hz", rule, str(request.control_hz))])
        check_open(policy, request)
        limits = action_limits(policy.spec, request.limits)
        now = time.monotonic()

        def create() -> Session:
            controller = Controller(policy, goal=request.goal, seed=request.seed)
            controller.set_obstacles(obstacles_of(request.obstacles))
            return Session(
                id=secrets.token_urlsafe(16),
                policy=policy,
                controller=controller,
                limits=limits,
                goal=request.goal,
                seed=request.seed,
                lease_s=request.lease_s,
                expires_at=now + request.lease_s,
                record=request.record,
            )

        session = self._sessions.add(now, create)
        if kept:
            self._keep(session)
        with about(session.id):
            logger.info("opened, policy %r, revision %s", policy.name, policy.revision)
        return views.session_reply(session, now)

    async def act(self, session_id: str, request: ActRequest) -> ActReply:
        """The reply to one control step; a repeated request waits for, or gets, the reply of the first."""
        received = time.perf_counter()
        session = self._session(session_id)
        key = (session_id, request.request_id)
        if key in self._running and self._running[key][0] == request.fingerprint():
            return await asyncio.shield(self._running[key][1])
        if (reply := session.remembered(request)) is not None:
            session.renew(time.monotonic())
            return reply
        self._check_ready()
        check_act(session.policy, request)
        new = session.begin(request)
        # A task of its own: repetitions can wait for it, and no request that is cancelled takes it along.
        with about(session_id, request.request_id):
            task = asyncio.create_task(self._act(session, request, new, received))
        self._running[key] = (request.fingerprint(), task)
        task.add_done_callback(lambda done: self._finished(key, done))
        return await asyncio.shield(task)

    def check_session(self, session_id: str) -> None:
        """Raises NotFound or SessionExpired if there is no such session."""
        self._session(session_id)

    def plan(self, session_id: str) -> PlanReply:
        session = self._session(session_id)
        plan = session.controller.plan
        body = None if plan is None else views.plan_body(plan)
        return PlanReply(session_id=session.id, step=session.controller.step, plan=body)

    def reset_session(self, session_id: str, request: ResetRequest) -> SessionReply:
        now = time.monotonic()
        session = self._session(session_id)
        check_goal(session.policy, request.goal)
        goal = session.goal if request.goal is None else request.goal
        seed = session.seed if request.seed is None else request.seed
        controller = Controller(session.policy, goal=goal, seed=seed)
        controller.set_obstacles(session.controller.obstacles)
        session.reset(controller, goal, seed, now)
        if session.diary is not None:
            session.diary.end(keep=session.record)
            self._keep(session)
        with about(session.id):
            logger.info("reset")
        return views.session_reply(session, now)

    def close_session(self, session_id: str) -> None:
        self._session(session_id)
        self._sessions.remove(session_id, time.monotonic())
        with about(session_id):
            logger.info("closed")

    async def act_once(self, request: OneShotRequest) -> OneShotReply:
        received = time.perf_counter()
        self._check_ready()
        policy = self._wanted(request.policy)
        check_history(policy, request.history, request.goal)
        session = self._throwaway(policy, request.history, request.goal, request.seed)
        answer = await self._actor.act_once(session)
        return views.one_shot_reply(policy, answer, _ms_since(received))

    async def _act(self, session: Session, request: ActRequest, new: bool, received: float) -> ActReply:
        try:
            answer = await self._actor.act(session, request, new=new, received=received)
            reply = views.act_reply(request, answer, session.policy, _ms_since(received))
        except BaseException:
            session.abandon(time.monotonic())
            raise
        session.answered(reply, time.monotonic())
        if session.diary is not None:
            session.diary.add(entries.answered(reply))
        self.metrics.act_seconds.observe(time.perf_counter() - received)
        return reply

    def _finished(self, key: tuple[str, str], task: asyncio.Task[ActReply]) -> None:
        del self._running[key]
        if not task.cancelled():
            task.exception()  # marks it as seen when no client is left to hear it

    def _throwaway(self, policy: Policy, history: Sequence[dict[str, Array]], goal: Array | None, seed: int) -> Session:
        """A session outside the table, whose controller has taken all of `history` and not decided on its end. It
        believes what it reads: what was sent between the readings is known to nobody here."""
        controller = Controller(policy, goal=goal, seed=seed, doubting=False)
        for observation in history[:-1]:
            controller.observe(observation)
            controller.passed()
        controller.observe(history[-1])
        limits = action_limits(policy.spec, None)
        return Session("", policy, controller, limits, goal, seed, lease_s=0.0, expires_at=0.0)

    def _session(self, session_id: str) -> Session:
        """Raises NotFound or SessionExpired; NotReady for one that may yet be taken up again."""
        try:
            return self._sessions.get(session_id, time.monotonic())
        except NotFound:
            if self._keeper is not None and self.state == "warming up":
                self._check_ready()
            raise

    def _wanted(self, name: str) -> Policy:
        if name not in self._policies:
            known = f"a policy served here{did_you_mean(name, self._policies)}"
            raise InvalidRequest([FieldError("policy", known, repr(name))])
        return self._policies[name]

    def _check_ready(self) -> None:
        if self.state != "ready":
            raise NotReady(f"the server is {self.state}", retry_after_s=1 if self.state == "warming up" else None)

    def _count_sessions(self) -> float:
        self._sessions.expire(time.monotonic())
        return float(len(self._sessions))


def _itself(session: Session) -> Session:
    return session


def example_of(policy: Policy) -> tuple[list[dict[str, Array]], Array | None]:
    """An observation and a goal to warm up with: the middle of the limits, 0 where there are none, grey frames."""
    spec = policy.spec

    def middle(name: str) -> Array:
        stream = spec[name]
        if name in policy.cameras:
            return np.full(stream.shape, 128, dtype=np.uint8)
        if stream.low is None or stream.high is None:
            return np.zeros(stream.shape)
        low, high = np.array(stream.low), np.array(stream.high)
        return np.where(np.isfinite(low + high), (low + high) / 2, 0.0).reshape(stream.shape)

    observation = {stream.name: middle(stream.name) for stream in spec.of_role("observation")}
    return [observation], None if spec.goal is None else middle(spec.goal)


def _ms_since(start: float) -> float:
    return (time.perf_counter() - start) * 1000
