"""Plans kept up in spare time: while nobody else wants one, and not for robots that wait for each answer."""

import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest

from forcing.policy.controller import Controller
from forcing.policy.policy import Policy
from forcing.policy.rolling import RollingConfig
from forcing.server.serve import serving
from forcing.server.service import ServerSettings

GOAL = [1.0, 1.0]
SELDOM = 100


def _seldom(policy: Policy, *, spare: bool) -> Policy:
    """Plans once, as far as it has to."""
    planner = replace(policy.preset.planner, replan_steps=SELDOM, replan_error=None)
    return policy.using(planner=planner, rolling=RollingConfig(variants=2, spare=spare))


@pytest.fixture
def idle(policy: Policy) -> Iterator[httpx.Client]:
    with serving([_seldom(policy, spare=True)]) as url, httpx.Client(base_url=url, timeout=20) as client:
        yield client


def _acts(http: httpx.Client, steps: range, session: str | None = None, **fields: Any) -> tuple[str, list[list[float]]]:
    if session is None:
        opened = http.post("/v1/sessions", json={"policy": "tiny", "goal": GOAL, "seed": 3})
        session = opened.raise_for_status().json()["session_id"]
    actions = []
    for step in steps:
        at = {"position": [0.001 * step, 0.0], "velocity": [0.1, 0.0]}
        body = {"request_id": f"r{step}", "step": step, "observation": at, **fields}
        actions.append(http.post(f"/v1/sessions/{session}/act", json=body).raise_for_status().json()["action"])
        time.sleep(0.02)
    return session, actions


def _plans(http: httpx.Client) -> int:
    (line,) = (line for line in http.get("/metrics").text.splitlines() if line.startswith("forcing_plan_batch_count"))
    return int(float(line.split()[-1]))


def test_a_plan_serves_for_a_frame_where_another_costs_nothing(policy: Policy) -> None:
    controller = Controller(_seldom(policy, spare=True), goal=np.array(GOAL), seed=0)
    asked = []
    for step in range(9):
        controller.observe({"position": np.zeros(2), "velocity": np.zeros(2)})
        assert (controller.request() is not None) == (step == 0)
        request = controller.request(spare=True)
        if request is not None:
            controller.install(controller.policy.plan(request))
            asked.append(step)
        controller.decide()
    assert asked == [0, 4, 8]  # the layout's stride is 4


def test_idle_planners_keep_up_the_plans_of_robots_with_deadlines_alone(idle: httpx.Client) -> None:
    before = _plans(idle)
    _acts(idle, range(13))
    assert _plans(idle) - before == 1
    _acts(idle, range(13), deadline_ms=1000)
    assert _plans(idle) - before >= 4  # its first one, and at two frames or more


def test_without_the_setting_nothing_is_planned_that_is_not_due(policy: Policy) -> None:
    with serving([_seldom(policy, spare=False)]) as url, httpx.Client(base_url=url, timeout=20) as client:
        before = _plans(client)
        _acts(client, range(13), deadline_ms=1000)
        assert _plans(client) - before == 1


def test_a_busy_planner_refines_nothing(policy: Policy, gated: Any) -> None:
    with serving([_seldom(policy, spare=True), gated]) as url, httpx.Client(base_url=url, timeout=20) as client:
        session, _ = _acts(client, range(2), deadline_ms=1000)
        gated.gate.clear()
        other = client.post("/v1/sessions", json={"policy": "gated", "goal": GOAL}).json()["session_id"]
        at = {"position": [0.0, 0.0], "velocity": [0.0, 0.0]}
        body = {"request_id": "a", "step": 0, "observation": at, "deadline_ms": 20}
        assert client.post(f"/v1/sessions/{other}/act", json=body).json()["source"] == "hold"
        plans = _plans(client)
        _acts(client, range(2, 12), session, deadline_ms=100)
        assert _plans(client) == plans
        gated.gate.set()


def test_a_session_whose_plan_was_kept_up_in_spare_time_goes_on_after_a_restart(policy: Policy, tmp_path: Path) -> None:
    refining, settings = _seldom(policy, spare=True), ServerSettings(state_dir=tmp_path)
    with serving([refining], settings=settings) as url, httpx.Client(base_url=url, timeout=20) as client:
        session, _ = _acts(client, range(13), deadline_ms=1000)
        assert _plans(client) >= 4
    with serving([refining], settings=settings) as url, httpx.Client(base_url=url, timeout=20) as client:
        _acts(client, range(13, 16), session, deadline_ms=1000)
