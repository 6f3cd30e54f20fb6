"""Sessions that outlive their server: servers killed and begun anew, journals cut off, disks that fail."""

import logging
import resource
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import minari
import numpy as np
import pytest

from forcing.datasets.episodes import InMemory
from forcing.datasets.journal import packed, read_entries
from forcing.datasets.minari_export import export_minari
from forcing.datasets.recording import read_recording
from forcing.policy.planner import PlanRequest
from forcing.policy.policy import Policy, load_policy
from forcing.policy.types import Plan
from forcing.server.errors import NotFound, NotReady
from forcing.server.keeping import Diary, Keeper
from forcing.server.serve import serving
from forcing.server.service import ServerSettings, Service

GOAL = [1.0, 1.0]


class Robot:
    """One session, driven by hand along a line."""

    def __init__(self, url: str, policy: str = "tiny", **fields: Any) -> None:
        self.url, self.step, self.actions = url, 0, list[list[float]]()
        opened = httpx.post(f"{url}/v1/sessions", json={"policy": policy, "goal": GOAL, "seed": 5, **fields})
        self.id = opened.raise_for_status().json()["session_id"]

    def act(self, steps: int = 1, **fields: Any) -> httpx.Response:
        for _ in range(steps):
            answer = httpx.post(f"{self.url}/v1/sessions/{self.id}/act", json=self.request(self.step) | fields)
            self.actions.append(answer.raise_for_status().json()["action"])
            self.step += 1
        return answer

    @staticmethod
    def request(step: int) -> dict[str, Any]:
        at = {"position": [0.01 * step, 0.02], "velocity": [0.1, 0.0]}
        return {"request_id": f"r{step}", "step": step, "observation": at}


@contextmanager
def _server(policy_dir: Path, state: Path) -> Iterator[tuple[str, subprocess.Popen[str]]]:
    command = [sys.executable, "-m", "forcing", "serve", "--policy", str(policy_dir), "--port", "0"]
    command += ["--state-dir", str(state)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as server:
        try:
            assert server.stdout is not None
            yield server.stdout.readline().split()[-1], server
        finally:
            server.kill()


def test_after_kill_9_every_session_goes_on_as_if_nothing_had_been(policy_dir: Path, tmp_path: Path) -> None:
    with _server(policy_dir, tmp_path / "undisturbed") as (url, _):
        expected = [Robot(url, seed=seed) for seed in range(4)]
        for robot in expected:
            robot.act(20)
    with _server(policy_dir, tmp_path / "state") as (url, server):
        robots = [Robot(url, seed=seed) for seed in range(4)]
        for number, robot in enumerate(robots):
            robot.act(8 + number)
        time.sleep(0.3)
        server.kill()
    with _server(policy_dir, tmp_path / "state") as (url, _):
        for robot in robots:
            robot.url = url
            # The last answer was lost with the server: the same request gets the same answer.
            lost = httpx.post(f"{url}/v1/sessions/{robot.id}/act", json=robot.request(robot.step - 1)).json()
            assert lost["action"] == robot.actions[-1]
            robot.act(20 - robot.step)
    assert [robot.actions for robot in robots] == [robot.actions for robot in expected]
    assert len({str(robot.actions) for robot in robots}) == 4, "nobody got another's"


def test_what_was_believed_is_believed_again(tmp_path: Path) -> None:
    umaze = load_policy("maze2d-umaze")

    def driven(state: Path, stops: tuple[int, ...]) -> list[list[float]]:
        rng, robot = np.random.default_rng(0), None
        for steps in stops:
            with serving([umaze], settings=ServerSettings(state_dir=state)) as url:
                if robot is None:
                    robot = Robot(url, "maze2d-umaze")
                robot.url = url
                for _ in range(steps):
                    read = [1.0, 1.0] + 0.05 * rng.standard_normal(2)
                    robot.act(observation={"position": read.tolist()}, missing=["velocity"])
        assert robot is not None
        return robot.actions

    assert driven(tmp_path / "a", (24,)) == driven(tmp_path / "b", (9, 15))


def test_acts_that_were_answered_and_not_kept_are_bridged(policy: Policy, tmp_path: Path) -> None:
    with serving([policy], settings=ServerSettings(state_dir=tmp_path)) as url:
        robot = Robot(url)
        robot.act(10)
    (journal,) = (tmp_path / "sessions").glob("*.journal")
    kept = read_entries(journal).entries
    # The last act and a half: what was observed of one was written, its answer in part.
    journal.write_bytes(b"".join(packed(entry) for entry in kept[:-3]) + packed(kept[-3])[:-3])
    with serving([policy], settings=ServerSettings(state_dir=tmp_path)) as url:
        robot.url = url
        far = httpx.post(f"{url}/v1/sessions/{robot.id}/act", json=robot.request(900))
        assert far.status_code == 409, "not by more than can have been lost"
        assert robot.act().json()["step"] == 10
        assert robot.act(3).json()["step"] == 13
        far = httpx.post(f"{url}/v1/sessions/{robot.id}/act", json=robot.request(20))
        assert far.status_code == 409, "later on every step is expected again"
    with serving([policy], settings=ServerSettings(state_dir=tmp_path)) as url:
        robot.url = url
        assert robot.act().json()["step"] == 14, "what was written behind the tear is read"


def test_episodes_that_are_recorded_are_a_recording_also_after_kill_9(policy_dir: Path, tmp_path: Path) -> None:
    with _server(policy_dir, tmp_path / "state") as (url, server):
        robot, other = Robot(url, record=True), Robot(url)
        robot.act(12)
        other.act(3)
        httpx.post(f"{url}/v1/sessions/{robot.id}/reset", json={}).raise_for_status()
        first, robot.step = robot.actions, 0
        robot.actions = []
        robot.act(7)
        time.sleep(0.3)
        server.kill()
    assert len(list((tmp_path / "state" / "episodes").glob("*.journal"))) == 1
    with _server(policy_dir, tmp_path / "state") as (url, _):
        for session in (robot, other):
            httpx.delete(f"{url}/v1/sessions/{session.id}").raise_for_status()
        time.sleep(0.3)
    recorded = read_recording(tmp_path / "state" / "episodes")
    # What an action came to is known once the next observation came; who was not recorded left nothing.
    assert recorded.lengths.tolist() == [11, 6]
    np.testing.assert_allclose(recorded.streams["action"], first[:11] + robot.actions[:6])
    np.testing.assert_allclose(recorded.episode(1)["position"][:, 0], 0.01 * np.arange(7), atol=1e-6)

    folder = export_minari(InMemory(recorded), tmp_path / "minari", "test/driven-v0")
    dataset = minari.MinariDataset(folder / "data")
    assert [len(episode) for episode in dataset.iterate_episodes()] == [11, 6]
    again = read_recording(folder)
    assert (again.spec.control_hz, again.spec.goal) == (recorded.spec.control_hz, recorded.spec.goal)
    for name in ("position", "velocity", "action"):
        np.testing.assert_array_equal(again.streams[name], recorded.streams[name])


def test_a_session_of_another_revision_does_not_go_on_until_that_is_served_again(
    policy: Policy, policy_dir: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with serving([policy], settings=ServerSettings(state_dir=tmp_path)) as url:
        robot = Robot(url)
        robot.act(3)
    other = policy.using(planner=policy.preset.planner)
    with caplog.at_level(logging.WARNING), serving([other], settings=ServerSettings(state_dir=tmp_path)) as url:
        assert httpx.get(f"{url}/v1/sessions/{robot.id}/plan").status_code == 404
    assert f"needs revision {policy.revision} of policy 'tiny', and revision {other.revision} is served" in caplog.text
    with serving([policy], settings=ServerSettings(state_dir=tmp_path)) as url:
        robot.url = url
        assert robot.act().json()["step"] == 3, "the right one takes it up after all"


def test_a_disk_that_fails_stops_no_robot_and_is_said_once(
    policy: Policy, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with serving([policy], settings=ServerSettings(state_dir=tmp_path)) as url:
        shutil.rmtree(tmp_path / "sessions")
        Robot(url).act(5)
        assert "forcing_episodes_not_kept_total 1.0" in httpx.get(f"{url}/metrics").text
    assert caplog.text.count("is no longer kept") == 1


def test_a_disk_that_fills_up_leaves_no_session_to_go_on_with(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Of a file that may not grow any more: the write fails, and so does every later attempt to flush what is left."""
    keeper, before = Keeper(tmp_path), resource.getrlimit(resource.RLIMIT_FSIZE)
    diary = Diary(keeper, "a", 0)
    diary.add({"kind": "open"})
    _until(lambda: (tmp_path / "sessions" / "a.0.journal").exists())
    resource.setrlimit(resource.RLIMIT_FSIZE, (40, before[1]))
    try:
        diary.add({"kind": "observed", "read": [0.5] * 100})
        _until(lambda: (tmp_path / "episodes" / "a.0.journal").exists())
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    keeper.close()
    assert caplog.text.count("is no longer kept") == 1
    assert [entry["kind"] for entry in read_entries(tmp_path / "episodes" / "a.0.journal").entries] == ["open"]
    again = Keeper(tmp_path)
    assert list(again.found()) == []
    again.close()


def test_a_file_that_is_no_episode_is_set_aside(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    keeper = Keeper(tmp_path)
    Diary(keeper, "a", 3).add({"kind": "open"})
    keeper.close()
    (tmp_path / "sessions" / "stray.journal").write_bytes(b"")
    again = Keeper(tmp_path)
    assert [(kept.session, kept.episode) for kept in again.found()] == [("a", 3)]
    again.close()
    assert "session stray cannot be read: its name says no episode" in caplog.text
    assert (tmp_path / "episodes" / "stray.journal.unreadable").exists()


def _until(true: Callable[[], bool]) -> None:
    give_up = time.monotonic() + 10
    while not true():
        assert time.monotonic() < give_up
        time.sleep(0.01)


def test_a_slow_disk_loses_entries_of_a_session_and_never_makes_anybody_wait(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("forcing.server.keeping.MOST_WAITING", 2)
    gate = threading.Event()
    keeper = Keeper(tmp_path)
    monkeypatch.setattr(keeper, "_write", lambda name, what: gate.wait(10))
    diary, started = Diary(keeper, "a", 0), time.perf_counter()
    for step in range(10):
        diary.add({"kind": "observed", "step": step})
    assert time.perf_counter() - started < 1
    gate.set()
    keeper.close()
    assert caplog.text.count("the disk is too slow") == 1


def test_a_folder_that_cannot_be_written_is_refused_before_anything_is_served(policy_dir: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("no folder")
    command = [sys.executable, "-m", "forcing", "serve", "--policy", str(policy_dir)]
    done = subprocess.run(
        [*command, "--state-dir", str(tmp_path / "file")], capture_output=True, text=True, check=False, timeout=60
    )
    assert done.returncode in (1, 2)
    assert "file" in done.stderr
    assert "Traceback" not in done.stderr


def test_while_sessions_are_taken_up_again_nobody_is_told_that_his_is_unknown(policy: Policy, tmp_path: Path) -> None:
    keeping = Service([policy], ServerSettings(state_dir=tmp_path))
    forgetting = Service([policy], ServerSettings())
    try:
        with pytest.raises(NotReady, match="warming up"):
            keeping.plan("of-a-server-before")
        with pytest.raises(NotFound):
            forgetting.plan("of-a-server-before")
    finally:
        keeping.close()
        forgetting.close()


def test_limits_obstacles_a_failed_plan_what_was_played_and_a_reset_come_out_the_same(
    policy: Policy, tmp_path: Path
) -> None:
    class OnceBroken(Policy):
        plans = 0

        def plan(self, request: PlanRequest) -> Plan:
            self.plans += 1
            if self.plans == 5:  # one is the warm-up's
                raise RuntimeError("once")
            return super().plan(request)

    def driven(state: Path, stops: tuple[int, ...]) -> list[list[float]]:
        served, robot, asked = OnceBroken("tiny", policy._file), None, 0
        for stop in stops:
            served.plans = min(served.plans, 1) if robot is None else served.plans - 1  # each server warms up
            with serving([served], settings=ServerSettings(state_dir=state)) as url:
                if robot is None:
                    ball = {"centre": [5.0, 5.0], "radius": 0.5}
                    limits = {"low": [-0.5, -0.4], "change": [0.07, 0.11]}
                    robot = Robot(url, limits=limits, obstacles=[ball])
                robot.url = url
                while asked < stop:
                    asked += 1
                    path = f"{url}/v1/sessions/{robot.id}"
                    if asked == 20:
                        httpx.post(f"{path}/reset", json={"goal": [0.5, -1.0], "seed": 8}).raise_for_status()
                        robot.step = 0
                    body = robot.request(robot.step) | {"request_id": f"a{asked}"}
                    answer = httpx.post(f"{path}/act", json=body)
                    if answer.status_code == 500:
                        body |= {"step": robot.step + 2, "request_id": "b", "played": [[0.1, 0.1], [0.0, 0.05]]}
                        robot.step += 2
                        answer = httpx.post(f"{path}/act", json=body)
                    robot.actions.append(answer.raise_for_status().json()["action"])
                    robot.step += 1
        assert robot is not None
        assert served.plans > 5
        return robot.actions

    assert driven(tmp_path / "a", (30,)) == driven(tmp_path / "b", (3, 15, 19, 24, 30))


def test_two_servers_do_not_share_a_folder(policy: Policy, tmp_path: Path) -> None:
    settings = ServerSettings(state_dir=tmp_path)
    with (
        serving([policy], settings=settings),
        pytest.raises(OSError, match="another server's; name another --state-dir"),
    ):
        Service([policy], settings)


def test_journals_that_cannot_be_read_stop_nobody_and_are_left_aside(
    policy: Policy, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with serving([policy], settings=ServerSettings(state_dir=tmp_path)) as url:
        robots = [Robot(url) for _ in range(3)]
        for robot in robots:
            robot.act(4)
    journals = {robot.id: tmp_path / "sessions" / f"{robot.id}.0.journal" for robot in robots}
    journals[robots[0].id].write_bytes(b"")
    journals[robots[1].id].write_bytes(journals[robots[1].id].read_bytes() + bytes(64))  # as a power cut may leave it
    with serving([policy], settings=ServerSettings(state_dir=tmp_path)) as url:
        status = [httpx.get(f"{url}/v1/sessions/{robot.id}/plan").status_code for robot in robots]
    assert status == [404, 200, 200]
    assert "does not begin with what was opened" in caplog.text
    assert [path.suffix for path in (tmp_path / "episodes").iterdir()] == [".unreadable"]


def test_a_session_that_is_closed_while_it_waits_for_a_plan_answers_404_and_leaves_nothing(
    gated: Any, tmp_path: Path
) -> None:
    with serving([gated], settings=ServerSettings(state_dir=tmp_path)) as url, ThreadPoolExecutor(1) as pool:
        robot = Robot(url, "gated")
        gated.gate.clear()
        waiting = pool.submit(httpx.post, f"{url}/v1/sessions/{robot.id}/act", json=robot.request(0), timeout=20)
        time.sleep(0.2)
        assert httpx.delete(f"{url}/v1/sessions/{robot.id}").status_code == 204
        gated.gate.set()
        assert waiting.result().status_code == 404
    assert list((tmp_path / "sessions").iterdir()) == []
