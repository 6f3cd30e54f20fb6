"""Which plans are made next: nothing but lists of jobs and times."""

from collections.abc import Hashable

import pytest

from forcing.server.errors import Overloaded
from forcing.server.scheduler import Job, Scheduler


def _job(owner: str, due: float, kind: Hashable | None = None, asked: float = 0.0) -> Job[str]:
    return Job(owner, kind, due, asked, work=f"{owner} at {due:g}")


def _taken(scheduler: Scheduler[str]) -> list[str]:
    return [job.work for job in scheduler.take()]


def test_the_job_that_is_due_first_is_taken_first_and_of_those_due_at_once_the_one_asked_for_first() -> None:
    scheduler = Scheduler[str](limit=9, batch=4)
    for job in (_job("a", 3), _job("b", 1, asked=2), _job("c", 1, asked=1), _job("d", 2)):
        scheduler.add(job)
    assert [_taken(scheduler) for _ in range(5)] == [["c at 1"], ["b at 1"], ["d at 2"], ["a at 3"], []]


def test_jobs_of_the_kind_of_the_first_go_with_it_in_their_order_as_many_as_a_batch_holds() -> None:
    scheduler = Scheduler[str](limit=9, batch=3)
    for job in (_job("a", 4, "p"), _job("b", 2, "q"), _job("c", 1, "p"), _job("d", 3, "p"), _job("e", 5, "p")):
        scheduler.add(job)
    assert _taken(scheduler) == ["c at 1", "d at 3", "a at 4"]
    assert _taken(scheduler) == ["b at 2"]
    assert _taken(scheduler) == ["e at 5"]


def test_a_job_without_a_kind_is_made_alone() -> None:
    scheduler = Scheduler[str](limit=9, batch=3)
    for owner in "ab":
        scheduler.add(_job(owner, 1))
    assert _taken(scheduler) == ["a at 1"]


def test_a_newer_job_of_the_same_owner_takes_the_place_of_the_one_that_waits() -> None:
    scheduler = Scheduler[str](limit=1, batch=1)
    first = _job("a", 5)
    assert scheduler.add(first) is None
    assert scheduler.add(_job("a", 2)) is first, "and is no second one, for which there were no room"
    assert (len(scheduler), _taken(scheduler), len(scheduler)) == (1, ["a at 2"], 0)


def test_there_is_room_for_so_many_and_for_one_more_by_each_worker_that_is_free() -> None:
    scheduler = Scheduler[str](limit=1, batch=1)
    scheduler.add(_job("a", 1))
    with pytest.raises(Overloaded, match="1 plans are waiting"):
        scheduler.add(_job("b", 0))
    assert len(scheduler) == 1
    scheduler.add(_job("b", 0), free=1)
    assert len(scheduler) == 2


def test_it_tells_what_is_taken_up_to_one() -> None:
    scheduler = Scheduler[str](limit=4, batch=1)
    for owner, due in (("a", 3), ("b", 1), ("c", 2)):
        scheduler.add(_job(owner, due))
    assert [[job.owner for job in scheduler.until(owner)] for owner in "abcd"] == [
        ["b", "c", "a"],
        ["b"],
        ["b", "c"],
        [],
    ]


def test_what_is_dropped_is_not_taken() -> None:
    scheduler = Scheduler[str](limit=4, batch=1)
    job = _job("a", 1)
    scheduler.add(job)
    assert scheduler.drop("a") is job
    assert scheduler.drop("a") is None
    scheduler.add(job)
    assert scheduler.clear() == [job]
    assert _taken(scheduler) == []


@pytest.mark.parametrize(("limit", "batch"), [(-1, 1), (1, 0)])
def test_senseless_sizes_are_refused(limit: int, batch: int) -> None:
    with pytest.raises(ValueError, match="limit must be at least 0 and batch at least 1"):
        Scheduler[str](limit, batch)
