"""Which plans are made next, as pure state: times are given; knows no clock, socket, network or plan.

Earliest due first. Jobs of one kind may be made together; one that waits gives way to a newer one of the same owner.
"""

from collections.abc import Hashable
from dataclasses import dataclass
from typing import Generic, TypeVar

from forcing.server.errors import Overloaded

Work = TypeVar("Work")


@dataclass(frozen=True, slots=True)
class Job(Generic[Work]):
    """A plan to make.

    owner: whose it is. kind: jobs of the same kind may be made together, None for one that is made alone. due: when it
    is wanted [s]. asked: when it was asked for [s].
    """

    owner: Hashable
    kind: Hashable | None
    due: float
    asked: float
    work: Work


class Scheduler(Generic[Work]):
    """Jobs that wait, at most `limit`; taken in batches of at most `batch`."""

    def __init__(self, limit: int, batch: int) -> None:
        if limit < 0 or batch < 1:
            raise ValueError(f"limit must be at least 0 and batch at least 1, got {limit} and {batch}")
        self._limit, self._batch = limit, batch
        self._waiting: dict[Hashable, Job[Work]] = {}

    def __len__(self) -> int:
        return len(self._waiting)

    def add(self, job: Job[Work], *, free: int = 0) -> Job[Work] | None:
        """The job waits from now on, in place of the one that its owner had waiting, which is returned.

        free: workers that have nothing to do, who leave as much room. Raises Overloaded if there is none, and changes
        nothing.
        """
        before = self._waiting.get(job.owner)
        if before is None and len(self._waiting) >= self._limit + free:
            raise Overloaded(f"{len(self._waiting)} plans are waiting; try again soon", retry_after_s=1)
        self._waiting[job.owner] = job
        return before

    def until(self, owner: Hashable) -> list[Job[Work]]:
        """The jobs that are taken up to that of this owner, which is the last; none if it waits for nothing."""
        if owner not in self._waiting:
            return []
        order = self._in_order()
        return order[: order.index(self._waiting[owner]) + 1]

    def drop(self, owner: Hashable) -> Job[Work] | None:
        """The job that the owner had waiting, which nobody waits for any more."""
        return self._waiting.pop(owner, None)

    def take(self) -> list[Job[Work]]:
        """The job that is due first, and those of its kind that are due next; they wait no more. None if none waits."""
        order = self._in_order()
        if not order:
            return []
        first = order[0]
        taken = [first]
        if first.kind is not None:
            taken += [job for job in order[1:] if job.kind == first.kind][: self._batch - 1]
        for job in taken:
            del self._waiting[job.owner]
        return taken

    def clear(self) -> list[Job[Work]]:
        """All that waited; nothing does any more."""
        jobs = list(self._waiting.values())
        self._waiting.clear()
        return jobs

    def _in_order(self) -> list[Job[Work]]:
        return sorted(self._waiting.values(), key=lambda job: (job.due, job.asked))
