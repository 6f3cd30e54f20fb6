"""Slow plans: deadlines, a responsive loop, queues and repetitions, with a policy that plans when the test lets it."""

import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, cast

import httpx
import pytest

from forcing.policy.policy import Policy
from forcing.server.serve import serving
from forcing.server.service import ServerSettings

HERE = {"position": [0.0, 0.0], "velocity": [0.0, 0.0]}


class Robot:
    """One session of the gated policy, driven by hand."""

    def __init__(self, http: httpx.Client) -> None:
        self.http = http
        self.id = http.post("/v1/sessions", json={"policy": "gated", "goal": [1.0, 1.0]}).json()["session_id"]

    def act(self, step: int, **fields: Any) -> httpx.Response:
        body = {"request_id": f"r{step}", "step": step, "observation": HERE, **fields}
        return self.http.post(f"/v1/sessions/{self.id}/act", json=body)


@pytest.fixture
def http(gated: Policy) -> Iterator[httpx.Client]:
    settings = ServerSettings(max_sessions=4, workers=1, queue_limit=1)
    with serving([gated], settings=settings) as url, httpx.Client(base_url=url, timeout=20) as client:
        try:
            yield client
            assert client.get("/healthz").status_code == 200
        finally:
            gate(gated).set()


def gate(policy: Policy) -> threading.Event:
    return cast(threading.Event, policy.gate)  # type: ignore[attr-defined]


def plans(policy: Policy) -> int:
    return cast(int, policy.plans)  # type: ignore[attr-defined]


def until(condition: Callable[[], bool]) -> None:
    give_up = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < give_up
        time.sleep(0.005)


def test_without_a_plan_a_missed_deadline_holds_and_the_plan_serves_a_later_step(
    http: httpx.Client, gated: Policy
) -> None:
    robot = Robot(http)
    gate(gated).clear()
    started = time.perf_counter()
    held = robot.act(0, deadline_ms=40).json()
    assert 0.04 <= time.perf_counter() - started < 1
    assert (held["source"], held["action"]) == ("hold", [0.0, 0.0])
    assert robot.act(1, deadline_ms=10).json()["source"] == "hold"
    gate(gated).set()
    until(lambda: plans(gated) == 2)  # the warm-up's and the session's
    followed = robot.act(2, deadline_ms=1000).json()
    assert followed["source"] == "plan"
    # The robot held its place until the plan came, so it is followed from there on.
    assert http.get(f"/v1/sessions/{robot.id}/plan").json()["plan"]["made_at_step"] == 2
    assert "forcing_deadline_misses_total 2.0" in http.get("/metrics").text


def test_with_a_plan_a_missed_deadline_follows_it(http: httpx.Client, gated: Policy) -> None:
    robot = Robot(http)
    assert [robot.act(step).json()["source"] for step in range(4)] == ["fresh", "plan", "plan", "plan"]
    gate(gated).clear()
    assert robot.act(4, deadline_ms=20).json()["source"] == "plan"
    gate(gated).set()
    until(lambda: plans(gated) == 3)
    robot.act(5)
    assert http.get(f"/v1/sessions/{robot.id}/plan").json()["plan"]["made_at_step"] == 4


def test_the_loop_answers_while_a_plan_is_computed_and_other_robots_are_served(
    http: httpx.Client, gated: Policy
) -> None:
    planned, waiting = Robot(http), Robot(http)
    planned.act(0)
    gate(gated).clear()
    with ThreadPoolExecutor(1) as pool:
        slow = pool.submit(waiting.act, 0)
        time.sleep(0.05)
        started = time.perf_counter()
        assert http.get("/healthz").status_code == 200
        assert planned.act(1).json()["source"] == "plan"
        assert time.perf_counter() - started < 0.25
        assert not slow.done()
        gate(gated).set()
        assert slow.result().json()["source"] == "fresh"


def test_a_repetition_of_an_act_in_flight_waits_for_its_reply(http: httpx.Client, gated: Policy) -> None:
    robot = Robot(http)
    gate(gated).clear()
    with pytest.raises(httpx.ReadTimeout):
        robot.http.post(
            f"/v1/sessions/{robot.id}/act",
            json={"request_id": "r0", "step": 0, "observation": HERE},
            timeout=0.05,
        )
    with ThreadPoolExecutor(1) as pool:
        again = pool.submit(robot.act, 0)
        time.sleep(0.05)
        other = robot.act(0, request_id="another")
        assert (other.status_code, other.json()["type"]) == (409, "urn:forcing:problem:session-busy")
        assert robot.http.post(f"/v1/sessions/{robot.id}/reset").status_code == 409
        gate(gated).set()
        assert again.result().json()["source"] == "fresh"
    assert plans(gated) == 2, "the warm-up's and one for both requests"
    assert robot.act(1).status_code == 200


def test_a_full_queue_is_429_and_the_same_observation_may_come_again(http: httpx.Client, gated: Policy) -> None:
    robots = [Robot(http) for _ in range(3)]
    gate(gated).clear()
    with ThreadPoolExecutor(2) as pool:
        queued: list[Future[httpx.Response]] = []
        for robot in robots[:2]:
            queued.append(pool.submit(robot.act, 0))
            time.sleep(0.05)
        refused = robots[2].act(0)
        assert (refused.status_code, refused.headers["retry-after"]) == (429, "1")
        gate(gated).set()
        assert [answer.result().status_code for answer in queued] == [200, 200]
    again = robots[2].act(0)
    assert again.json()["action_chunk"] == queued[0].result().json()["action_chunk"], "observed once, not twice"


def test_too_many_sessions_are_429_until_one_is_deleted(http: httpx.Client) -> None:
    robots = [Robot(http) for _ in range(4)]
    refused = http.post("/v1/sessions", json={"policy": "gated"})
    assert refused.status_code == 429
    assert 1 <= int(refused.headers["retry-after"]) <= 60
    http.delete(f"/v1/sessions/{robots[0].id}")
    assert http.post("/v1/sessions", json={"policy": "gated"}).status_code == 201


def test_concurrent_sessions_get_what_they_would_get_alone(http: httpx.Client) -> None:
    robots = [Robot(http) for _ in range(4)]

    def drive(robot: Robot) -> list[Any]:
        chunks = []
        for step in range(9):
            answer = robot.act(step)
            while answer.status_code == 429:
                time.sleep(0.01)
                answer = robot.act(step)
            chunks.append(answer.json()["action_chunk"])
        return chunks

    with ThreadPoolExecutor(4) as pool:
        together = list(pool.map(drive, robots))
    http.delete(f"/v1/sessions/{robots[0].id}")
    assert together == [drive(Robot(http))] * 4


def test_ready_only_after_the_warm_up(gated: Policy) -> None:
    gate(gated).clear()
    opener = threading.Timer(0.3, gate(gated).set)
    opener.start()
    started = time.perf_counter()
    with serving([gated]) as url:
        assert time.perf_counter() - started >= 0.3
        assert httpx.get(f"{url}/readyz").status_code == 200
    opener.join()
    assert plans(gated) == 1
