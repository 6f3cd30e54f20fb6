"""`forcing data check --fix` and `forcing data picture` as they are typed."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from tests.command_line import call

from forcing.datasets.store import open_store, write_store
from forcing.policy.types import StreamSpec, Trajectories, TrajectorySpec


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder, in which commands run."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def recording() -> Trajectories:
    """Two swings at 20 Hz."""
    streams = (
        StreamSpec(name="angle", role="observation", shape=(2,)),
        StreamSpec(name="push", role="action", shape=(2,), low=(-1, -1), high=(1, 1)),
    )
    seconds = np.concatenate([np.arange(81), np.arange(200, 261)])[:, None] / 20
    angle = np.sin(seconds * np.array([1.0, 1.7])).astype(np.float32)
    push = np.cos(np.delete(seconds, [80, 141], axis=0) * np.array([1.0, 1.7])).astype(np.float32)
    spec = TrajectorySpec(streams=streams, control_hz=20)
    return Trajectories(spec=spec, streams={"angle": angle, "push": push}, lengths=np.array([80, 60]))


def broken(recording: Trajectories) -> Trajectories:
    """Observation 30 of episode 0 is none, and step 5 of episode 1 is pushed too hard."""
    angle, push = recording.streams["angle"].copy(), recording.streams["push"].copy()
    angle[30, 0], push[85, 1] = np.nan, 3
    return replace(recording, streams={"angle": angle, "push": push})


def test_a_broken_recording_is_mended_into_a_new_store_that_says_so(recording: Trajectories, here: Path) -> None:
    write_store(broken(recording), here / "raw.zarr")
    before = (here / "raw.zarr" / "zarr.json").read_bytes()
    refused = call("data convert raw.zarr --out clean.zarr")
    assert refused.code == 1
    assert "`forcing data check SOURCE --fix OUT.zarr` mends what it can" in refused.out
    answer = call("data check raw.zarr --fix clean.zarr")
    assert (answer.code, answer.err) == (0, "")
    assert "error: stream 'angle': must be finite (once at episode:step 0:30)" in answer.out
    assert "mended: stream 'push' clipped to its limits in stretches: 1, at episode:step 1:5" in answer.out
    assert "mended: stream 'angle', not finite: stretches cut out: 1, at episode:step 0:30" in answer.out
    assert "3 episodes, 138 of 140 steps" in answer.out
    assert answer.out.endswith("clean.zarr: 0 errors, 0 warnings\n")
    assert (here / "raw.zarr" / "zarr.json").read_bytes() == before
    mended = open_store(here / "clean.zarr")
    assert mended.lengths.tolist() == [29, 49, 60]
    assert [change["episode_first_end"] for change in mended.provenance["mended"]["changes"]] == [
        [[1, 5, 6]],
        [[0, 30, 31]],
    ]
    assert call("data check clean.zarr").code == 0
    assert "mended: {'changes'" in call("data info clean.zarr").out


def test_errors_that_cannot_be_mended_are_said_and_are_the_exit_code(recording: Trajectories, here: Path) -> None:
    stream = StreamSpec(name="rate", role="observation", shape=(2,), rate_of="angle")
    spec = replace(recording.spec, streams=(*recording.spec.streams, stream), control_hz=10)
    seconds = np.concatenate([np.arange(81), np.arange(200, 261)])[:, None] / 20
    rate = np.cos(seconds * np.array([1.0, 1.7])) * np.array([1.0, 1.7])
    write_store(replace(recording, spec=spec, streams={**recording.streams, "rate": rate}), here / "slow.zarr")
    answer = call("data check slow.zarr --fix mended.zarr")
    assert answer.code == 1
    assert "left as it is: stream 'rate', wrong rate: pass the right control_hz when reading" in answer.out
    assert "mended.zarr: 1 errors" in answer.out
    assert open_store(here / "mended.zarr").lengths.tolist() == [80, 60]


def test_a_recording_is_never_mended_in_place(recording: Trajectories, here: Path) -> None:
    write_store(broken(recording), here / "raw.zarr")
    answer = call("data check raw.zarr --fix ./raw.zarr")
    assert answer.code == 2
    assert "is the recording that is read, and would be replaced; choose another path" in answer.err
    (here / "notes").mkdir()
    (here / "notes" / "mine.txt").write_text("kept")
    answer = call("data check raw.zarr --fix notes")
    assert (answer.code, answer.err.count("\n")) == (2, 1)
    assert (here / "notes" / "mine.txt").read_text() == "kept"


def test_what_cannot_be_read_is_not_mended(recording: Trajectories, here: Path) -> None:
    path = write_store(recording, here / "raw.zarr")
    document = json.loads((path / "zarr.json").read_text())
    document["attributes"]["provenance"] = {"by": "another"}
    (path / "zarr.json").write_text(json.dumps(document))
    answer = call("data check raw.zarr --fix clean.zarr")
    assert answer.code == 1
    assert "contents differ from their checksum" in answer.out
    assert "nothing is mended of what cannot be read" in answer.out
    assert not (here / "clean.zarr").exists()


def test_a_recording_of_which_nothing_is_left_is_said_in_one_line(recording: Trajectories, here: Path) -> None:
    angle = np.full_like(recording.streams["angle"], np.nan)
    write_store(replace(recording, streams={**recording.streams, "angle": angle}), here / "raw.zarr")
    answer = call("data check raw.zarr --fix clean.zarr")
    assert (answer.code, answer.err) == (1, "forcing: nothing of the recording is left; record it again\n")
    assert not (here / "clean.zarr").exists()


def test_a_recording_is_drawn(recording: Trajectories, here: Path) -> None:
    write_store(recording, here / "raw.zarr")
    answer = call("data picture raw.zarr --out pictures/raw.png")
    assert (answer.code, answer.out) == (0, "wrote pictures/raw.png\n")
    assert (here / "pictures" / "raw.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize(
    ("line", "code", "message"),
    [
        ("data picture raw.zarr --out raw.jpg", 2, "out must be a PNG file, such as medium.png, got raw.jpg"),
        ("data picture raw.zarr", 2, "out"),
        ("data picture gone.zarr --out raw.png", 1, "found nothing"),
    ],
)
def test_what_cannot_be_drawn_is_said_in_one_line(line: str, code: int, message: str, here: Path) -> None:
    answer = call(line)
    assert answer.code == code
    assert message in answer.err
    assert answer.err.count("\n") == 1
    assert list(here.iterdir()) == []
