"""Planning off the event loop: a few worker threads and a bounded queue in front of them.

Knows nothing of sessions and HTTP. Torch lets go of the interpreter lock in its kernels, so threads leave the loop
responsive, and they share one copy of the weights.
"""

import asyncio
import time
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

from forcing.policy.planner import PlanRequest
from forcing.policy.policy import Policy
from forcing.policy.types import Plan
from forcing.server.errors import Overloaded


@dataclass(frozen=True, slots=True)
class Planned:
    """A plan, how long it waited for a worker and how long it took."""

    plan: Plan
    queue_ms: float
    plan_ms: float


class Engine:
    """`workers` threads that plan, and at most `queue_limit` requests that wait for one."""

    def __init__(self, workers: int, queue_limit: int) -> None:
        if workers < 1 or queue_limit < 0:
            raise ValueError(f"workers must be at least 1 and queue_limit at least 0, got {workers} and {queue_limit}")
        self._pool = ThreadPoolExecutor(max_workers=workers, thread_name_prefix="planner")
        self._room = workers + queue_limit
        self._unfinished: set[Future[Planned]] = set()

    def submit(self, policy: Policy, request: PlanRequest) -> asyncio.Future[Planned]:
        """The plan to come; cancelling it drops a request that still waits. Raises Overloaded if the queue is full.

        Call on the event loop.
        """
        self._unfinished = {job for job in self._unfinished if not job.done()}
        if len(self._unfinished) >= self._room:
            raise Overloaded(f"{self._room} plans are being made or waiting; try again soon", retry_after_s=1)
        job = self._pool.submit(_plan, policy, request, time.perf_counter())
        self._unfinished.add(job)
        plan = asyncio.wrap_future(job)
        plan.add_done_callback(_seen)
        return plan

    def close(self) -> None:
        """Drops what waits; a plan being made is finished in its thread, for nobody."""
        self._pool.shutdown(wait=False, cancel_futures=True)


def _plan(policy: Policy, request: PlanRequest, submitted: float) -> Planned:
    started = time.perf_counter()
    plan = policy.plan(request)
    return Planned(plan, (started - submitted) * 1000, (time.perf_counter() - started) * 1000)


def _seen(plan: asyncio.Future[Planned]) -> None:
    """Marks a failure as seen, so that asyncio does not complain if its session is gone."""
    if not plan.cancelled():
        plan.exception()
