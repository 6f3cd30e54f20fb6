"""Planning off the event loop: workers, one batch each at a time, and the scheduler that says what they do next.

Knows nothing of sessions and HTTP. A worker is a thread, or a process of its own: a thread shares the interpreter with
the event loop, and every reply waits for it a little (docs/decisions/0015-planning-in-a-process.md).
"""

import asyncio
import contextlib
import logging
import multiprocessing
import os
import signal
import time
from collections.abc import Callable, Hashable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextvars import Context
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from typing import Any, Protocol
from weakref import WeakKeyDictionary

import torch

from forcing.policy.planner import PlanRequest
from forcing.policy.policy import Policy
from forcing.policy.types import Plan
from forcing.server.scheduler import Job, Scheduler

logger = logging.getLogger(__name__)
NICE = 10  # answers go before plans where both want the same core
RECENT = 0.5  # weight of the last batch in how long one usually takes
PATIENCE_S = 60.0  # a batch that takes longer is given up, and its worker replaced


class PlannerLost(RuntimeError):
    """The worker died or did not come back while it made a plan."""


@dataclass(frozen=True, slots=True)
class Planned:
    """A plan, how long it waited for a worker, how long its batch took, and how many were made in it."""

    plan: Plan
    queue_ms: float
    plan_ms: float
    batch: int


@dataclass(frozen=True, slots=True)
class _Work:
    policy: Policy
    request: PlanRequest
    plan: asyncio.Future[Planned] = field(compare=False)


class Engine:
    """`workers` that plan, and at most `queue_limit` plans that wait for one. For one event loop."""

    def __init__(self, workers: int, queue_limit: int, *, batch: int = 4, processes: bool = False) -> None:
        """batch: plans that are kept up in the same passes at the most. processes: workers are processes."""
        if workers < 1:
            raise ValueError(f"workers must be at least 1, got {workers}")
        self._scheduler: Scheduler[_Work] = Scheduler(queue_limit, batch)
        self._idle = [_Worker(processes) for _ in range(workers)]
        self._workers = list(self._idle)
        self._running: set[asyncio.Task[None]] = set()
        self._closed = False
        self._usual_s = {True: 0.0, False: 0.0}  # of a batch of plans that are kept up, and of one from noise

    def submit(self, owner: Hashable, policy: Policy, request: PlanRequest, due: float) -> asyncio.Future[Planned]:
        """The plan to come; cancelling it drops a request that still waits. due: by time.perf_counter.

        Raises Overloaded if too many wait.
        """
        plan: asyncio.Future[Planned] = asyncio.get_running_loop().create_future()
        # Those that are kept up share passes; the others take many of their own. Of one policy, not of one revision:
        # read again it may tell another spread.
        shares = policy.preset.rolling is not None and request.current is not None
        work = _Work(policy, request, plan)
        before = self._scheduler.add(
            Job(owner, policy if shares else None, due, time.perf_counter(), work), free=len(self._idle)
        )
        if before is not None:
            before.work.plan.cancel()
        plan.add_done_callback(_seen)
        plan.add_done_callback(lambda done: self._forget(owner, work) if done.cancelled() else None)
        self._pump()
        return plan

    @property
    def spare(self) -> bool:
        """Whether a worker has nothing to do."""
        return bool(self._idle) and not len(self._scheduler)

    def expected_s(self, owner: Hashable) -> float:
        """How long the plan that waits for this owner will take from now on, if others take as long as lately; 0 if it
        is being made or none waits."""
        usual_s = [self._usual_s[job.kind is not None] for job in self._scheduler.until(owner)]
        return sum(usual_s[:-1]) / len(self._workers) + usual_s[-1] if usual_s else 0.0

    def withdraw(self, owner: Hashable) -> float | None:
        """When the plan was due that still waited for this owner, and now does not; None if none waited."""
        job = self._scheduler.drop(owner)
        if job is None or not job.work.plan.cancel():  # nobody wants what was cancelled before
            return None
        return job.due

    def _forget(self, owner: Hashable, work: _Work) -> None:
        """What was cancelled takes no room."""
        if any(job.work is work for job in self._scheduler.until(owner)[-1:]):
            self._scheduler.drop(owner)

    def close(self) -> None:
        """Drops what waits, and what is being made."""
        self._closed = True
        for job in self._scheduler.clear():
            job.work.plan.cancel()
        for worker in self._workers:
            worker.close()

    def _pump(self) -> None:
        while self._idle and not self._closed:
            jobs = [job for job in self._scheduler.take() if not job.work.plan.done()]
            if not jobs and not len(self._scheduler):
                return
            if jobs:
                # Of nobody's context: it is the next robot's as much as that of the one that asked.
                task = asyncio.create_task(self._run(self._idle.pop(), jobs), context=Context())
                self._running.add(task)
                task.add_done_callback(self._running.discard)

    async def _run(self, worker: "_Worker", jobs: Sequence[Job[_Work]]) -> None:
        started = time.perf_counter()
        try:
            plans = await worker.plan(jobs[0].work.policy, [job.work.request for job in jobs])
        except Exception as error:
            plans = [error] * len(jobs)
        plan_ms, kept_up = (time.perf_counter() - started) * 1000, jobs[0].kind is not None
        if not isinstance(plans[0], Exception):
            self._usual_s[kept_up] += RECENT * (plan_ms / 1000 - self._usual_s[kept_up])
        for job, plan in zip(jobs, plans, strict=True):
            future = job.work.plan
            if future.done():
                continue
            if isinstance(plan, Exception):
                future.set_exception(plan)
            else:
                future.set_result(Planned(plan, (started - job.asked) * 1000, plan_ms, len(jobs)))
        self._idle.append(worker)
        self._pump()


class _Worker:
    """Makes one batch of plans at a time, in a thread or in a process that a thread waits for."""

    def __init__(self, process: bool) -> None:
        self._begin: Callable[[], _Maker] = _Process if process else _Thread
        self._maker: _Maker | None = self._begin()
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="planner")
        self._closed = False

    async def plan(self, policy: Policy, requests: list[PlanRequest]) -> list[Plan | Exception]:
        """Raises PlannerLost."""
        try:
            if self._maker is None:
                self._maker, self._thread = self._begin(), ThreadPoolExecutor(1, thread_name_prefix="planner")
            async with asyncio.timeout(PATIENCE_S):
                return await asyncio.wrap_future(self._thread.submit(self._maker.plan, policy, requests))
        except (EOFError, OSError, TimeoutError) as error:
            if not self._closed:
                logger.exception("a planner was lost; another one takes its place")
                self._stop()
            raise PlannerLost("the planner was lost while it made this plan") from error

    def close(self) -> None:
        """For good; what is being made is for nobody."""
        self._closed = True
        self._stop()

    def _stop(self) -> None:
        maker, self._maker = self._maker, None
        if maker is not None:
            maker.close()
        self._thread.shutdown(wait=False, cancel_futures=True)


class _Maker(Protocol):
    def plan(self, policy: Policy, requests: list[PlanRequest]) -> list[Plan | Exception]: ...
    def close(self) -> None: ...


class _Thread:
    """Plans in the thread that asks."""

    def plan(self, policy: Policy, requests: list[PlanRequest]) -> list[Plan | Exception]:
        return policy.plan_many(requests)

    def close(self) -> None:
        pass


class _Process:
    """Plans in a process of its own, which ends when this one does: its pipe breaks."""

    def __init__(self) -> None:
        context = multiprocessing.get_context("spawn")
        self._pipe, theirs = context.Pipe()
        self._process = context.Process(target=_plan_for, args=(theirs,), name="forcing-planner", daemon=True)
        self._process.start()
        theirs.close()
        self._numbers: WeakKeyDictionary[Policy, int] = WeakKeyDictionary()
        self._numbered = 0

    def plan(self, policy: Policy, requests: list[PlanRequest]) -> list[Plan | Exception]:
        """Raises EOFError or OSError if the process is no more."""
        number = self._numbers.get(policy)
        if number is None:
            self._numbered += 1
            # Which numbers still mean anything goes along: those of policies that nobody holds do not.
            self._pipe.send((self._numbered, policy, set(self._numbers.values()), requests))
            self._numbers[policy] = self._numbered
        else:
            self._pipe.send((number, None, None, requests))
        plans: list[Plan | Exception] = self._pipe.recv()
        return plans

    def close(self) -> None:
        self._process.kill()
        self._process.join()
        self._pipe.close()


def _plan_for(pipe: "Connection[Any, Any]") -> None:
    """What a planning process does until its pipe breaks. Signals are for the server, which ends its processes."""
    for number in (signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    os.nice(NICE)
    torch.set_num_threads(1)
    policies: dict[int, Policy] = {}
    with contextlib.suppress(EOFError, OSError):
        while True:
            number, policy, held, requests = pipe.recv()
            if policy is not None:
                policies = {known: policies[known] for known in held} | {number: policy}
            pipe.send(_sendable(policies[number].plan_many(requests)))


def _sendable(plans: list[Plan | Exception]) -> list[Plan | Exception]:
    """Errors of classes of ours or a library's may not arrive as they were."""
    plain = (FloatingPointError, ValueError)
    return [
        RuntimeError(f"{type(plan).__name__}: {plan}")
        if isinstance(plan, Exception) and type(plan) not in plain
        else plan
        for plan in plans
    ]


def _seen(plan: asyncio.Future[Planned]) -> None:
    """Marks a failure as seen, so that asyncio does not complain if its session is gone."""
    if not plan.cancelled():
        plan.exception()
