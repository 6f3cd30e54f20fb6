"""Plans made off the event loop: in a process of its own as in a thread, killed, replaced, together or alone."""

import asyncio
import os
import signal
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from forcing.policy.controller import Controller
from forcing.policy.planner import PlanRequest
from forcing.policy.policy import Policy
from forcing.policy.rolling import RollingConfig
from forcing.server.engine import Engine, Planned, PlannerLost

HERE = {"position": np.zeros(2), "velocity": np.zeros(2)}


def _request(policy: Policy, seed: int = 0) -> PlanRequest:
    controller = Controller(policy, goal=np.array([1.0, 1.0]), seed=seed)
    controller.observe(HERE)
    request = controller.request()
    assert request is not None
    return request


def _with(engine_of: Callable[[], Engine], do: Callable[[Engine], Awaitable[Any]]) -> Any:
    async def run() -> Any:
        engine = engine_of()
        try:
            return await do(engine)
        finally:
            engine.close()

    return asyncio.run(run())


def _in_process() -> Engine:
    return Engine(workers=1, queue_limit=8, processes=True)


def test_a_process_makes_the_plan_that_a_thread_makes(policy: Policy) -> None:
    async def planned(engine: Engine) -> Planned:
        return await engine.submit("a", policy, _request(policy), due=0.0)

    there, here = _with(_in_process, planned), _with(lambda: Engine(1, 8), planned)
    for name, values in there.plan.streams.items():
        np.testing.assert_array_equal(values, here.plan.streams[name])
    assert there.batch == here.batch == 1
    assert there.plan_ms > 0


def test_a_process_that_is_killed_costs_its_plan_and_another_takes_its_place(policy: Policy) -> None:
    async def killed(engine: Engine) -> Planned:
        first = await engine.submit("a", policy, _request(policy), due=0.0)
        (child,) = _children(os.getpid())
        os.kill(child, signal.SIGSTOP)
        lost = engine.submit("a", policy, _request(policy, seed=1), due=0.0)
        await asyncio.sleep(0.05)
        os.kill(child, signal.SIGKILL)
        with pytest.raises(PlannerLost, match="lost while it made this plan"):
            await lost
        again = await engine.submit("a", policy, _request(policy), due=0.0)
        np.testing.assert_array_equal(again.plan.streams["position"], first.plan.streams["position"])
        return first

    _with(_in_process, killed)


def test_a_worker_that_does_not_come_back_is_given_up(gated: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("forcing.server.engine.PATIENCE_S", 0.05)

    async def stuck(engine: Engine) -> None:
        gated.gate.clear()
        lost = engine.submit("a", gated, _request(gated), due=0.0)
        with pytest.raises(PlannerLost):
            await lost
        gated.gate.set()
        assert (await engine.submit("a", gated, _request(gated), due=0.0)).plan.made_at_step == 0

    _with(lambda: Engine(1, 8), stuck)


def test_plans_that_are_kept_up_are_made_together_and_those_from_noise_alone(policy: Policy) -> None:
    rolling = policy.using(rolling=RollingConfig(variants=2))

    async def many(engine: Engine) -> None:
        first = [await engine.submit(owner, rolling, _request(rolling, owner), due=0.0) for owner in range(4)]
        assert [planned.batch for planned in first] == [1] * 4
        controllers = [Controller(rolling, goal=np.array([1.0, 1.0]), seed=owner) for owner in range(4)]
        asked = []
        for owner, (controller, planned) in enumerate(zip(controllers, first, strict=True)):
            controller.observe(HERE)
            controller.request()
            controller.install(planned.plan)
            for _ in range(rolling.preset.planner.replan_steps):
                controller.decide()
                controller.observe(HERE)
            request = controller.request()
            assert request is not None
            asked.append(engine.submit(owner, rolling, request, due=float(owner)))
        # The worker took the first at once; the others waited together.
        assert [planned.batch for planned in await asyncio.gather(*asked)] == [1, 3, 3, 3]

    _with(lambda: Engine(1, 8, batch=4), many)


def test_policies_of_one_revision_that_were_read_at_different_times_do_not_share_a_batch(policy: Policy) -> None:
    before, after = (policy.using(rolling=RollingConfig(variants=2)) for _ in range(2))
    assert before.revision == after.revision

    async def both(engine: Engine) -> None:
        first = await engine.submit("a", before, _request(before), due=0.0)
        request = replace(_request(before), current=first.plan)
        asked = [engine.submit(owner, before, request, due=0.0) for owner in "abc"]
        asked.append(engine.submit("d", after, request, due=0.0))
        assert [planned.batch for planned in await asyncio.gather(*asked)] == [1, 2, 2, 1]

    _with(lambda: Engine(1, 8, batch=4), both)


def test_a_plan_that_waits_gives_way_to_a_newer_one_and_keeps_its_turn_if_withdrawn(gated: Any) -> None:
    async def newest(engine: Engine) -> None:
        gated.gate.clear()
        busy = engine.submit("busy", gated, _request(gated), due=0.0)
        old = engine.submit("a", gated, _request(gated), due=1.0)
        new = engine.submit("a", gated, _request(gated, seed=1), due=2.0)
        assert old.cancelled()
        assert engine.withdraw("a") == 2.0
        assert new.cancelled()
        assert engine.withdraw("a") is None
        assert engine.withdraw("busy") is None, "it is being made"
        gated.gate.set()
        assert (await busy).queue_ms < 1000

    _with(lambda: Engine(1, 8), newest)


def test_a_plan_that_nobody_wants_any_more_takes_no_room_and_gives_no_turn(gated: Any) -> None:
    async def cancelled(engine: Engine) -> None:
        gated.gate.clear()
        first = engine.submit("a", gated, _request(gated), due=0.0)
        await asyncio.sleep(0.05)
        for due in (1.0, 2.0, 3.0):  # the queue holds one
            engine.submit("b", gated, _request(gated), due=due).cancel()
            assert engine.withdraw("b") is None
            engine.submit("c", gated, _request(gated), due=due).cancel()
            await asyncio.sleep(0)
        waiting = engine.submit("d", gated, _request(gated), due=9.0)
        assert engine.withdraw("d") == 9.0
        assert waiting.cancelled()
        gated.gate.set()
        await first

    _with(lambda: Engine(1, 1), cancelled)


def test_one_plan_that_cannot_be_made_takes_no_other_along_and_the_process_stays(policy: Policy) -> None:
    rolling = policy.using(rolling=RollingConfig(variants=2))

    async def mixed(engine: Engine) -> None:
        first = await engine.submit("a", rolling, _request(rolling), due=0.0)
        (child,) = _children(os.getpid())
        good = replace(_request(rolling), current=first.plan)
        bad = replace(good, goal=np.zeros(3))  # nobody should get this far with a goal of three numbers
        busy = engine.submit("busy", rolling, _request(rolling), due=0.0)
        asked = [engine.submit(owner, rolling, request, due=1.0) for owner, request in enumerate((good, bad, good))]
        await busy
        one, failed, other = await asyncio.gather(*asked, return_exceptions=True)
        assert isinstance(failed, RuntimeError | ValueError)
        assert isinstance(one, Planned)
        assert isinstance(other, Planned)
        assert _children(os.getpid()) == [child]

    _with(_in_process, mixed)


def test_closing_in_the_midst_of_a_plan_leaves_no_process_and_says_nothing(
    policy: Policy, caplog: pytest.LogCaptureFixture
) -> None:
    async def closed(engine: Engine) -> asyncio.Future[Planned]:
        await engine.submit("a", policy, _request(policy), due=0.0)
        (child,) = _children(os.getpid())
        os.kill(child, signal.SIGSTOP)
        plan = engine.submit("a", policy, _request(policy), due=0.0)
        await asyncio.sleep(0.05)
        engine.close()
        await asyncio.wait([plan], timeout=5)
        return plan

    _with(_in_process, closed)
    assert _children(os.getpid()) == []
    assert caplog.text == ""


def test_a_planner_does_not_outlive_a_server_that_is_killed(policy_dir: Path) -> None:
    with _serving(policy_dir) as server:
        (planner,) = _children(server.pid)
        server.kill()
        server.wait()
    give_up = time.monotonic() + 10
    while _alive(planner):
        assert time.monotonic() < give_up
        time.sleep(0.02)


@contextmanager
def _serving(policy_dir: Path) -> Iterator[subprocess.Popen[str]]:
    """A server as in use, ready."""
    command = [sys.executable, "-m", "forcing", "serve", "--policy", str(policy_dir), "--port", "0"]
    server = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        assert server.stdout is not None
        assert " at http" in server.stdout.readline()
        yield server
    finally:
        server.kill()
        server.communicate()


def _children(pid: int) -> list[int]:
    """Processes that plan for this one."""
    listed = subprocess.run(
        ["ps", "-ww", "-o", "pid=,args=", "--ppid", str(pid)], capture_output=True, text=True, check=True
    )
    lines = [line.split(maxsplit=1) for line in listed.stdout.splitlines()]
    return [int(number) for number, command in lines if "spawn_main" in command]


def _alive(pid: int) -> bool:
    status = Path(f"/proc/{pid}/status")
    return status.exists() and "State:\tZ" not in status.read_text()
