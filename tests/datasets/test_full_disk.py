"""Commands that write to a disk on which there is no room: a line that says so, nothing partial, nothing lost."""

import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from forcing.datasets.recording import read_recording
from forcing.datasets.store import write_store
from forcing.policy.types import StreamSpec, Trajectories, TrajectorySpec

ROOM_MB = 3  # of which an earlier, small recording takes one
Command = Callable[..., Any]
WRITERS = {  # command -> where it writes on the disk, and its other options
    "convert": ("arm.zarr", ""),
    "minari": ("datasets", "--dataset-id lab/arm-v1"),
    "lerobot": ("arm-lerobot", ""),
}


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    path = tmp_path / "disk"
    path.mkdir()
    mount = shutil.which("mount")
    options = ["-t", "tmpfs", "-o", f"size={ROOM_MB}m", "tmpfs", str(path)]
    if mount is None or subprocess.run([mount, *options], capture_output=True).returncode != 0:
        pytest.skip("a small disk can be mounted by root alone")
    try:
        yield path
    finally:
        subprocess.run(["umount", str(path)], check=True)


def noise(episodes: int, seed: int) -> Trajectories:
    """At 10 Hz, frames and numbers that no compression makes smaller: 0.2 MB of each an episode."""
    rng, steps = np.random.default_rng(seed), 50
    spec = TrajectorySpec(
        streams=(
            StreamSpec(name="camera", role="observation", shape=(36, 37, 3)),
            StreamSpec(name="touch", role="observation", shape=(1_000,)),
            StreamSpec(name="action", role="action", shape=(2,)),
        ),
        control_hz=10,
    )
    rows = episodes * (steps + 1)
    return Trajectories(
        spec=spec,
        streams={
            "touch": rng.standard_normal((rows, 1_000)).astype(np.float32),
            "action": rng.standard_normal((episodes * steps, 2)).astype(np.float32),
        },
        frames={"camera": rng.integers(0, 256, (rows, 36, 37, 3), dtype=np.uint8)},
        lengths=np.full(episodes, steps),
    )


def contents(folder: Path) -> dict[str, bytes]:
    """Every file below, hidden ones too."""
    return {
        path.relative_to(folder).as_posix(): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()
    }


def folders(folder: Path) -> Mapping[str, bool]:
    return {path.relative_to(folder).as_posix(): True for path in folder.rglob("*") if path.is_dir()}


@pytest.mark.parametrize("command", WRITERS)
@pytest.mark.parametrize("episodes", [12, 40])
def test_no_room_is_one_line_and_leaves_all_as_it_was(
    tmp_path: Path, disk: Path, forcing: Command, command: str, episodes: int
) -> None:
    """Of a recording that nearly fits, which fails at its end, and of one that fails early."""
    out, options = WRITERS[command]
    small, large = (
        write_store(noise(3, 0), tmp_path / "small.zarr"),
        write_store(noise(episodes, 1), tmp_path / "l.zarr"),
    )
    first = options.replace("-v1", "-v0")
    assert (
        forcing(f"data {command}", small, "--out", disk / (f"{out}-0" if command == "lerobot" else out), first).code
        == 0
    )
    before, there = contents(disk), folders(disk)
    # In a process of its own, for HDF5 may end the one that it runs in.
    words = ["data", command, str(large), "--out", str(disk / out), *options.split()]
    said = subprocess.run([sys.executable, "-m", "forcing", *words], capture_output=True, text=True)
    assert said.returncode == 1
    (line,) = said.stderr.splitlines()
    assert line.startswith("forcing: ")
    assert str(disk / out) in line
    assert "no room" in line
    assert "No space left on device" in line
    assert "free some space or choose another" in line
    assert "wrote" not in said.stdout
    assert contents(disk) == before
    assert folders(disk) == there
    read = read_recording(disk / (f"{out}-0" if command == "lerobot" else out))
    expected = read_recording(small)
    assert np.array_equal(read.episode(2)["touch"], expected.episode(2)["touch"])
