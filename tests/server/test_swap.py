"""Policies read again while robots drive: a server process, its files changed under it, SIGHUP."""

import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import numpy as np
import pytest
import torch

from forcing.policy.checkpoint import load_policy_file, save_policy
from forcing.server.client import Client

HERE = {"position": np.zeros(2), "velocity": np.zeros(2)}


@pytest.fixture
def folder(policy_dir: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(policy_dir, tmp_path / "tiny"))


@pytest.fixture
def server(folder: Path) -> Iterator[subprocess.Popen[str]]:
    command = [sys.executable, "-m", "forcing", "serve", "--policy", str(folder), "--port", "0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        yield process
        process.kill()


def _url(server: subprocess.Popen[str]) -> str:
    assert server.stdout is not None
    return server.stdout.readline().split()[-1]


def _retrain(folder: Path) -> None:
    """Other weights in the same file."""
    path = folder / "policy.safetensors"
    file = load_policy_file(path)
    weights = {name: weight + 0.01 * torch.ones_like(weight) for name, weight in file.weights.items()}
    save_policy(path, file.preset, file.spec, file.normaliser, weights, {"minutes": 1})


def _until(condition: Callable[[], bool]) -> None:
    give_up = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < give_up
        time.sleep(0.02)


def test_new_sessions_get_the_new_revision_open_ones_keep_theirs_and_no_act_fails(
    server: subprocess.Popen[str], folder: Path
) -> None:
    url, done, failures, revisions = _url(server), threading.Event(), list[Exception](), set[str]()

    def drive() -> None:
        try:
            with Client(url) as client, client.open("tiny", goal=[1.0, 1.0]) as session:
                while not done.is_set():
                    revisions.add(session.act(HERE).revision)
        except Exception as error:
            failures.append(error)

    def served() -> str:
        return str(httpx.get(f"{url}/v1/policies/tiny").json()["revision"])

    robot, before = threading.Thread(target=drive), served()
    robot.start()
    _until(lambda: bool(revisions))
    _retrain(folder)
    server.send_signal(signal.SIGHUP)
    _until(lambda: served() != before)
    with Client(url) as client, client.open("tiny", goal=[1.0, 1.0]) as session:
        assert session.act(HERE).revision == served()
    time.sleep(0.1)
    done.set()
    robot.join()
    assert failures == []
    assert revisions == {before}
    assert 'forcing_policy_swaps_total{policy="tiny"} 1.0' in httpx.get(f"{url}/metrics").text


def test_a_file_that_is_damaged_changes_nothing(server: subprocess.Popen[str], folder: Path) -> None:
    url = _url(server)
    before = httpx.get(f"{url}/v1/policies/tiny").json()["revision"]
    (folder / "policy.safetensors").write_bytes(b"half a file")
    server.send_signal(signal.SIGHUP)
    assert server.stderr is not None
    while "policies could not be read again; what is served stays" not in server.stderr.readline():
        assert server.poll() is None
    assert httpx.get(f"{url}/v1/policies/tiny").json()["revision"] == before
    with Client(url) as client, client.open("tiny", goal=[1.0, 1.0]) as session:
        assert session.act(HERE).source == "fresh"
