"""`forcing data` on recordings of other people's: what is shown, how streams are named, and one line for what fails."""

import json
from pathlib import Path

import h5py
import numpy as np
import pytest

from forcing.cli import main
from forcing.datasets.recording import read_recording


@pytest.fixture
def lift(tmp_path: Path) -> str:
    """A robomimic file of three demonstrations of 8 rows."""
    path, rng = tmp_path / "lift.hdf5", np.random.default_rng(0)
    with h5py.File(path, "w") as file:
        data = file.create_group("data")
        for number in range(3):
            demo = data.create_group(f"demo_{number}")
            demo["actions"] = rng.uniform(-1, 1, (8, 4))
            demo["rewards"] = np.zeros(8)
            demo["obs/robot0_eef_pos"] = rng.standard_normal((8, 3))
            demo["obs/wrist_image"] = rng.integers(0, 256, (8, 24, 24, 3), dtype=np.uint8)
        data.attrs["env_args"] = json.dumps({"env_name": "Lift", "env_kwargs": {"control_freq": 20}})
        data.attrs["problem_info"] = json.dumps({"language_instruction": "lift the cube"})
        file["mask/train"] = np.array([b"demo_0", b"demo_2"])
    return str(path)


def call(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    with pytest.raises(SystemExit) as left:
        main(["data", *arguments])
    code = left.value.code
    assert isinstance(code, int)
    said = capsys.readouterr()
    return code, said.out, said.err


def test_info_shows_streams_images_tasks_subsets_and_the_format(capsys: pytest.CaptureFixture[str], lift: str) -> None:
    code, out, _ = call(capsys, "info", lift)
    assert code == 0
    assert "3 episodes, 21 steps, 0.000292 hours at 20 Hz" in out
    assert "format: robomimic" in out
    (image,) = [line for line in out.splitlines() if line.startswith("wrist_image")]
    assert image.split()[1:4] == ["image", "24×24×3", "uint8"]
    assert "task: lift the cube (3 episodes)" in out
    assert "subset: train (2 episodes)" in out


def test_streams_are_named_and_left_out_by_options(
    capsys: pytest.CaptureFixture[str], lift: str, tmp_path: Path
) -> None:
    out = str(tmp_path / "lift.zarr")
    options = ["--stream", "observation=obs/robot0_eef_pos, command=action", "--stream", "wrist_image=,reward="]
    code, said, err = call(capsys, "convert", lift, "--out", out, *options, "--subset", "train")
    assert code == 0, (said, err)
    read = read_recording(out)
    assert [stream.name for stream in read.spec.streams] == ["observation", "command"]
    assert len(read.lengths) == 2
    assert read.provenance["source_names"] == {"observation": "obs/robot0_eef_pos", "command": "actions"}
    assert read.provenance["subset"] == "train"


@pytest.mark.parametrize("command", ["info", "check"])
@pytest.mark.parametrize(
    ("options", "expected", "message"),
    [
        (["--stream", "observation"], 2, "stream must read NAME=SOURCE, or NAME= to leave it out, got 'observation'"),
        (["--stream", "=wrist_image"], 2, "stream must read NAME=SOURCE, or NAME= to leave it out, got '=wrist_image'"),
        (["--stream", "a=action", "--stream", "a=reward"], 2, "stream 'a' must be named once, got 'action' and"),
        (["--stream", "wrist=wrist_imag"], 1, "unknown stream 'wrist_imag'; did you mean 'wrist_image'?"),
        (["--subset", "valid"], 1, "subset 'valid' has no episode; there are ['train']"),
    ],
)
def test_options_that_cannot_be_are_told_in_one_line(
    capsys: pytest.CaptureFixture[str], lift: str, command: str, options: list[str], expected: int, message: str
) -> None:
    code, out, err = call(capsys, command, lift, *options)
    assert code == expected
    if expected == 2 or command == "info":
        assert message in err
        assert err.count("\n") == 1
    else:  # check tells it as a finding
        assert message.partition(";")[0] in out


@pytest.mark.parametrize("name", ["absent", "notes.csv", "empty", "half.hdf5", "half.zarr.zip", "lab/arm-v0"])
def test_what_is_no_recording_fails_in_one_line(
    capsys: pytest.CaptureFixture[str], lift: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path / "none"))
    (tmp_path / "notes.csv").write_text("a,b\n")
    (tmp_path / "empty").mkdir()
    (tmp_path / "half.hdf5").write_bytes(Path(lift).read_bytes()[:5000])
    (tmp_path / "half.zarr.zip").write_bytes(b"PK\x03\x04 and no more")
    source = name if name == "lab/arm-v0" else str(tmp_path / name)
    code, _, err = call(capsys, "convert", source, "--out", str(tmp_path / "out.zarr"))
    assert code == 1
    assert err.startswith("forcing: ")
    assert err.count("\n") == 1
    assert name in err
    assert not (tmp_path / "out.zarr").exists()
