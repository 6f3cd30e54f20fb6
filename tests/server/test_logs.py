"""What a server says on stderr while robots drive."""

import json
import subprocess
import sys
from pathlib import Path

import httpx
import pytest

BROKEN_SERVER = """
import sys
from forcing.policy.policy import Policy, load_policy
from forcing.server.logs import configure
from forcing.server.serve import run_server

class Broken(Policy):
    plans = 0

    def plan(self, request):
        self.plans += 1
        if self.plans > 1:
            raise RuntimeError("the motor of thought")
        return super().plan(request)

configure(sys.argv[2])
run_server([Broken("broken", load_policy(sys.argv[1])._file)], port=0, announce=lambda line: print(line, flush=True))
"""
ACT = {"request_id": "step-0", "step": 0, "observation": {"position": [0, 0], "velocity": [0, 0]}}


def _said(policy_dir: Path, kind: str) -> tuple[str, list[str]]:
    """A session's id, and the lines that were logged while it was opened, failed an act and was closed."""
    command = [sys.executable, "-c", BROKEN_SERVER, str(policy_dir), kind]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as server:
        try:
            assert server.stdout is not None
            url = server.stdout.readline().split()[-1]
            session = httpx.post(f"{url}/v1/sessions", json={"policy": "broken"}).json()["session_id"]
            assert httpx.post(f"{url}/v1/sessions/{session}/act", json=ACT).status_code == 500
            assert httpx.delete(f"{url}/v1/sessions/{session}").status_code == 204
        finally:
            server.terminate()
            _, said = server.communicate(timeout=20)
    return session, said.splitlines()


def test_json_lines_say_whose_act_failed_and_keep_most_of_the_sessions_id_to_themselves(policy_dir: Path) -> None:
    session, lines = _said(policy_dir, "json")
    said = [json.loads(line) for line in lines]
    assert [line["message"] for line in said if line.get("session") == session[:6] and "request" not in line] == [
        f"opened, policy 'broken', revision {said[0]['message'].split()[-1]}",
        "closed",
    ]
    (failed,) = [line for line in said if line.get("request") == "step-0"]
    assert failed["level"] == "ERROR"
    assert "the motor of thought" in failed["error"]
    assert not any(session in line for line in lines)


def test_text_lines_say_so_too(policy_dir: Path) -> None:
    session, lines = _said(policy_dir, "text")
    (failed,) = [line for line in lines if "could not plan" in line and "ERROR" in line]
    assert failed.endswith(f"session='{session[:6]}' request='step-0'")


@pytest.mark.parametrize("kind", ["xml"])
def test_other_kinds_are_refused(policy_dir: Path, kind: str) -> None:
    command = [sys.executable, "-m", "forcing", "serve", "--policy", str(policy_dir), "--log", kind]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "json" in done.stderr
