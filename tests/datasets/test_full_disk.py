"""Commands that write to a disk on which there is no room: a line that says so, nothing partial, nothing lost."""

import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from forcing.datasets.atomic import require_room, told_if_full
from forcing.datasets.recording import read_recording
from forcing.datasets.store import write_store
from forcing.policy.types import StreamSpec, Trajectories, TrajectorySpec

ROOM_MB = 3  # of which an earlier, small recording takes one
Command = Callable[..., Any]
# What each command writes to the disk, first a small recording, then a large one. Stores alone are replaced.
SMALL = {
    "convert": ("arm.zarr", ""),
    "minari": ("datasets", "--dataset-id lab/arm-v0"),
    "lerobot": ("small", ""),
}
LARGE = {**SMALL, "minari": ("datasets", "--dataset-id lab/arm-v1"), "lerobot": ("large", "")}


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
    """At 10 Hz, frames and numbers that no compression makes smaller: 0.2 MB of each in an episode."""
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


def folders(folder: Path) -> set[Path]:
    return {path for path in folder.rglob("*") if path.is_dir()}


def test_room_is_there_or_the_disk_is_full(disk: Path) -> None:
    require_room(disk, (ROOM_MB - 1) << 20)
    with pytest.raises(OSError, match="No space left on device") as full:
        require_room(disk, (ROOM_MB + 1) << 20)
    said = r"arm: no room for a film \(No space.*\), 3.1 MB are free; what was there before is untouched"
    with pytest.raises(ValueError, match=said), told_if_full(disk / "not yet" / "arm", "a film"):
        raise full.value
    with pytest.raises(PermissionError), told_if_full(disk, "a film"):
        raise PermissionError


@pytest.mark.parametrize("command", LARGE)
@pytest.mark.parametrize("episodes", [6, 40])
def test_no_room_is_one_line_and_leaves_all_as_it_was(
    tmp_path: Path, disk: Path, forcing: Command, command: str, episodes: int
) -> None:
    """Of a recording that nearly fits, which fails at its end, and of one that fails early."""
    small, large = write_store(noise(3, 0), tmp_path / "s.zarr"), write_store(noise(episodes, 1), tmp_path / "l.zarr")
    there, options = SMALL[command]
    assert forcing(f"data {command}", small, "--out", disk / there, options).code == 0
    files, below = contents(disk), folders(disk)
    out, options = LARGE[command]
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
    assert (contents(disk), folders(disk)) == (files, below)
    read, expected = read_recording(disk / there), read_recording(small)
    assert np.array_equal(read.episode(2)["touch"], expected.episode(2)["touch"])


def test_no_room_for_what_is_said_of_many_short_episodes_is_one_line_too(tmp_path: Path, disk: Path) -> None:
    """HDF5 keeps that for the end, where it does not survive a full disk: 3 kB of each array, here 4 MB in all."""
    spec = TrajectorySpec(
        streams=(
            *(StreamSpec(name=f"finger_{index}", role="observation", shape=(2,)) for index in range(8)),
            StreamSpec(name="action", role="action", shape=(2,)),
        ),
        control_hz=10,
    )
    rows = {stream.name: np.ones((120 * (4 if stream.role == "observation" else 3), 2)) for stream in spec.streams}
    source = write_store(Trajectories(spec=spec, streams=rows, lengths=np.full(120, 3)), tmp_path / "short.zarr")
    words = ["data", "minari", str(source), "--out", str(disk), "--dataset-id", "lab/short-v0"]
    said = subprocess.run([sys.executable, "-m", "forcing", *words], capture_output=True, text=True)
    assert said.returncode == 1
    (line,) = said.stderr.splitlines()
    assert line.startswith(f"forcing: {disk}/lab/short-v0: no room for the dataset (No space left on device)")
    assert contents(disk) == {}
