"""The server as a process: signals, addresses, failed starts."""

import asyncio
import math
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest

from forcing.policy.planner import PlanRequest
from forcing.policy.policy import Policy
from forcing.policy.types import Plan
from forcing.server.app import create_app
from forcing.server.serve import run_server, serving
from forcing.server.service import ServerSettings

SLOW_SERVER = """
import sys, time
from forcing.policy.policy import Policy, load_policy
from forcing.server.serve import run_server

class Slow(Policy):
    def plan(self, request):
        time.sleep(0.5)
        return super().plan(request)

run_server([Slow("slow", load_policy(sys.argv[1])._file)], port=0, announce=lambda line: print(line, flush=True))
print("ended", flush=True)
"""


@pytest.fixture
def process(policy_dir: Path) -> Iterator[subprocess.Popen[str]]:
    command = [sys.executable, "-c", SLOW_SERVER, str(policy_dir)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as server:
        yield server
        server.kill()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_lets_the_request_in_flight_finish_and_exits_with_0(
    process: subprocess.Popen[str], number: signal.Signals
) -> None:
    assert process.stdout is not None
    assert process.stderr is not None
    line = process.stdout.readline()
    assert line.startswith("forcing serves slow at http://127.0.0.1:")
    url = line.split()[-1]
    assert httpx.get(f"{url}/readyz").status_code == 200
    session = httpx.post(f"{url}/v1/sessions", json={"policy": "slow"}).json()["session_id"]
    body = {"request_id": "r", "step": 0, "observation": {"position": [0, 0], "velocity": [0, 0]}}
    with ThreadPoolExecutor(1) as pool:
        act = pool.submit(httpx.post, f"{url}/v1/sessions/{session}/act", json=body)
        time.sleep(0.2)
        process.send_signal(number)
        assert act.result().json()["source"] == "fresh"
    assert process.wait(10) == 0
    assert process.stdout.read() == "ended\n"
    assert process.stderr.read() == ""
    with pytest.raises(httpx.ConnectError):
        httpx.get(f"{url}/healthz")


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.0.2.1", "example.org"])
def test_a_host_other_than_loopback_needs_permission(policy: Policy, host: str) -> None:
    with pytest.raises(ValueError, match="not loopback"):
        run_server([policy], host)


def test_a_taken_port_says_what_to_do(policy: Policy) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken, pytest.raises(OSError, match="port 0 takes a free one"):
        run_server([policy], port=taken.getsockname()[1])


def test_a_failed_warm_up_fails_the_start(policy: Policy, caplog: pytest.LogCaptureFixture) -> None:
    class Damaged(Policy):
        def plan(self, request: PlanRequest) -> Plan:
            raise FloatingPointError("weights are damaged")

    with pytest.raises(RuntimeError, match="could not make its first plan"), serving([Damaged("d", policy._file)]):
        pass
    assert "weights are damaged" in caplog.text


def test_an_unforeseen_error_is_a_problem_without_a_traceback(policy: Policy) -> None:
    unprintable = Policy("odd", policy._file)
    unprintable.card = {"minutes": math.nan}
    with serving([unprintable]) as url:
        answer = httpx.get(f"{url}/v1/policies/odd")
        assert (answer.status_code, answer.json()["type"]) == (500, "urn:forcing:problem:internal-error")
        assert "Traceback" not in answer.text
        assert httpx.get(f"{url}/healthz").status_code == 200


def test_two_policies_of_one_name_cannot_be_served(policy: Policy) -> None:
    with pytest.raises(ValueError, match="each name once"):
        create_app([policy, policy])
    with pytest.raises(ValueError, match="each name once"):
        create_app([])


def test_settings_out_of_range_are_refused() -> None:
    with pytest.raises(ValueError, match="workers must be at least 1, got 0"):
        ServerSettings(workers=0)


def test_a_service_that_shuts_down_is_not_ready_and_takes_no_sessions(policy: Policy) -> None:
    app = create_app([policy])
    transport = httpx.ASGITransport(app)

    async def ask() -> tuple[int, int, int]:
        async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
            await app.state.service.warm_up()
            ready = (await client.get("/readyz")).status_code
            app.state.service.shut_down()
            unready = (await client.get("/readyz")).status_code
            return ready, unready, (await client.post("/v1/sessions", json={"policy": "tiny"})).status_code

    assert asyncio.run(ask()) == (200, 503, 503)
