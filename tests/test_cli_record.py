"""`forcing record`: what the robot did is kept, whatever ends the command, and a second run goes on."""

import io
import itertools
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
import torch
from rich.console import Console

import forcing.cli as cli
from forcing.datasets.pointmaze import pointmaze_spec
from forcing.datasets.recording import open_recording, read_recording
from forcing.eval.record import record
from forcing.eval.rollout import DriverSpec, rollout
from forcing.eval.tasks import find_task
from forcing.policy.policy import load_policy
from forcing.server.serve import serving

TASK = find_task("maze2d-umaze-multi")
STEPS = 300


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """An empty folder, in which commands run, on one thread."""
    monkeypatch.chdir(tmp_path)
    before = torch.get_num_threads()
    yield tmp_path
    torch.set_num_threads(before)


def call(line: str, capsys: pytest.CaptureFixture[str]) -> tuple[int, str, str]:
    """Exit code, stdout and stderr of `forcing LINE`."""
    with pytest.raises(SystemExit) as left:
        cli.main(line.split())
    said = capsys.readouterr()
    assert isinstance(left.value.code, int)
    return left.value.code, said.out, said.err


@contextmanager
def recording(folder: Path) -> Iterator["subprocess.Popen[str]"]:
    """`forcing record` in a process of its own, which has made a step."""
    command = [sys.executable, "-m", "forcing", "record", TASK.name, "--out", str(folder), "--episodes", "1000"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        try:
            while not any(folder.glob("*.journal")):
                assert process.poll() is None, process.communicate()
                time.sleep(0.01)
            yield process
        finally:
            process.kill()


def test_a_recording_is_what_the_robot_did_is_gone_on_with_and_trains(
    here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code, out, err = call(f"record {TASK.name} --out driven --episodes 1 --seed 11", capsys)
    assert (code, err) == (0, "")
    assert f"episode 0 (1 of 1): {STEPS} steps, goal in " in out
    assert "forcing train --data driven --out runs/recorded" in out
    with serving([load_policy(TASK.policy)]) as url:
        code, out, err = call(f"record {TASK.name} --out driven --episodes 1 --seed 11 --url {url}", capsys)
    assert (code, err) == (0, "")
    assert "episode 1 (1 of 1)" in out
    found = read_recording("driven")
    assert found.spec == pointmaze_spec(), "as other recordings of the maze"
    assert found.lengths.tolist() == [STEPS, STEPS]
    assert found.provenance["seeds"] == [11, 12]
    driven = rollout(TASK, DriverSpec(policy=TASK.policy), episodes=2, seed=11, workers=1)
    for episode, recorded in zip(driven, open_recording("driven").episodes(), strict=True):
        np.testing.assert_array_equal(recorded.streams["position"], episode.positions)
        np.testing.assert_array_equal(recorded.streams["action"].astype(np.float32), episode.actions)
        assert recorded.streams["reward"].sum() == episode.episode_return
    for line, said in (
        ("info driven", f"2 episodes, {2 * STEPS} steps"),
        ("check driven", "driven: 0 errors"),
        ("convert driven --out driven.zarr", "wrote "),
        ("minari driven --out data --dataset-id me/driven-v0", "wrote "),
    ):
        code, out, err = call(f"data {line}", capsys)
        assert (code, err) == (0, "")
        assert said in out
    for copy in ("driven.zarr", "data/me/driven-v0"):
        np.testing.assert_array_equal(read_recording(copy).streams["position"], found.streams["position"])
    code, out, err = call("train --data driven --out runs/recorded --steps 2", capsys)
    assert code == 0, err
    assert load_policy(str(here / "runs/recorded")).spec == found.spec


def test_kill_9_and_ctrl_c_lose_no_step_and_the_next_run_goes_on(
    here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with recording(here / "driven") as process:
        assert process.stdout is not None
        assert process.stdout.readline().startswith("  episode 0 (1 of 1000): ")
        process.kill()
    before = list(open_recording("driven").episodes())
    assert len(before[0].streams["action"]) == STEPS
    files = len(list((here / "driven").iterdir()))
    with recording(here / "driven") as process:
        assert process.stdout is not None
        assert process.stdout.readline().startswith(f"  episode {files} (1 of 1000): ")
        time.sleep(0.05)
        os.kill(process.pid, signal.SIGINT)
        out, err = process.communicate(timeout=30)
    assert process.returncode == 1
    assert err == "forcing: stopped\n"
    assert "look at it: forcing data info" in out
    after = open_recording("driven")
    episodes = list(after.episodes())
    for one, other in zip(before, episodes, strict=False):
        np.testing.assert_array_equal(one.streams["position"], other.streams["position"])
    assert after.provenance()["ends"]["truncated"] >= 2
    assert len(set(after.provenance()["seeds"])) == len(episodes) > len(before)


@pytest.mark.parametrize(
    ("line", "code", "message"),
    [
        ("maze2d-umase-multi --out x", 2, "unknown task 'maze2d-umase-multi'; did you mean 'maze2d-umaze-multi'?"),
        ("maze2d-umaze-multi --out x --episodes 0", 2, "episodes must be at least 1, got 0"),
        ("maze2d-umaze-multi --out x --seed -1", 2, "seed must be at least 0, got -1"),
        ("maze2d-umaze-multi --out notes.txt", 2, "out notes.txt must be a folder, and is a file"),
        ("maze2d-umaze-multi --out notes.txt/x", 2, "out notes.txt/x must lie in a folder, and "),
        ("maze2d-umaze-multi --out mine", 1, "mine holds diary.txt, which no recorder wrote; name another folder"),
        ("maze2d-umaze-multi --out x --policy maze2d-umase", 2, "unknown policy 'maze2d-umase'; did you mean "),
        ("maze2d-umaze-multi --out x --url http://127.0.0.1:1", 1, "127.0.0.1:1"),
    ],
)
def test_what_stands_in_the_way_is_said_in_one_line_and_left_as_it_is(
    here: Path, capsys: pytest.CaptureFixture[str], line: str, code: int, message: str
) -> None:
    (here / "notes.txt").write_text("mine")
    (here / "mine").mkdir()
    (here / "mine" / "diary.txt").write_text("mine")
    found, _, err = call(f"record {line}", capsys)
    assert (found, err.count("\n")) == (code, 1), err
    assert message in err
    assert [path.name for path in here.rglob("*.journal")] == []


def test_a_stop_that_was_asked_for_comes_before_the_next_step(here: Path) -> None:
    steps = itertools.count()
    with pytest.raises(KeyboardInterrupt):
        record(
            TASK,
            policy=None,
            url=None,
            out=here / "driven",
            episodes=5,
            seed=0,
            console=Console(file=io.StringIO()),
            stop=lambda: next(steps) >= 7,
        )
    (episode,) = open_recording("driven").episodes()
    assert len(episode.streams["action"]) == 7
