"""Writers that are killed, for real, at moments of our choosing."""

import fcntl
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from forcing.datasets.atomic import aside, staged
from forcing.datasets.store import open_store, write_store
from forcing.datasets.store_layout import StoreError
from forcing.policy.types import Trajectories

Recorder = Callable[..., Trajectories]

# Writes stores whose every number is 1, then 2, and so on, over and over at the same path.
WRITER = """
import sys
import numpy as np
from forcing.datasets.store import write_store
from forcing.policy.types import StreamSpec, Trajectories, TrajectorySpec

spec = TrajectorySpec(
    streams=tuple(StreamSpec(name=f"s{i}", role="reward" if i else "action", shape=(9,)) for i in range(8)),
    control_hz=10,
)
noise = np.random.default_rng(0).standard_normal((20_000, 9)).astype(np.float32)
for version in range(1, 1_000_000):
    streams = {f"s{i}": noise + np.float32(version) for i in range(8)}
    write_store(
        Trajectories(
            spec=spec, streams=streams, lengths=np.array([20_000]), provenance={"version": version}
        ),
        sys.argv[1],
    )
    print(version, flush=True)
"""


def start_writer(path: Path) -> "subprocess.Popen[str]":
    return subprocess.Popen([sys.executable, "-c", WRITER, str(path)], stdout=subprocess.PIPE, text=True)


def kill(writer: "subprocess.Popen[str]") -> None:
    assert writer.poll() is None
    writer.kill()
    writer.wait()
    assert writer.stdout is not None
    writer.stdout.close()


def leftovers(path: Path) -> list[str]:
    return [entry.name for entry in path.parent.iterdir() if entry != path]


def test_a_writer_killed_before_its_first_store_leaves_none_and_the_next_cleans_up(
    tmp_path: Path, point_mass: Recorder
) -> None:
    path = tmp_path / "first.zarr"
    writer = start_writer(path)
    while not list(tmp_path.glob(".first.zarr.tmp-*/streams/s2")):
        assert writer.poll() is None, "the writer ended by itself"
        time.sleep(0.001)
    kill(writer)
    if not path.exists():  # as good as always: five streams and the syncing were still to come
        assert len(leftovers(path)) == 1
        with pytest.raises(StoreError, match="found nothing"):
            open_store(path)
    write_store(point_mass([5]), path)
    assert len(open_store(path).lengths) == 1
    assert leftovers(path) == []


@pytest.mark.parametrize("delay_s", [0.003, 0.021, 0.055])
def test_a_writer_killed_while_replacing_leaves_one_whole_store(tmp_path: Path, delay_s: float) -> None:
    path = tmp_path / "again.zarr"
    writer = start_writer(path)
    assert writer.stdout is not None
    finished = [int(writer.stdout.readline()) for _ in range(3)][-1]
    time.sleep(delay_s)
    kill(writer)
    found = open_store(path)
    version = found.provenance["version"]
    assert version >= finished
    noise = np.random.default_rng(0).standard_normal((20_000, 9)).astype(np.float32)
    for values in found.streams.values():
        assert np.array_equal(values, noise + np.float32(version))


@pytest.mark.parametrize("left_aside", [False, True])
def test_at_every_file_system_step_of_a_replacement_one_whole_store_is_readable(
    tmp_path: Path, point_mass: Recorder, monkeypatch: pytest.MonkeyPatch, left_aside: bool
) -> None:
    path = write_store(point_mass([5, 6]), tmp_path / "maze.zarr")
    if left_aside:  # by a writer that died between the two renames
        path.rename(aside(path))
    seen: list[list[int]] = []

    def looking(step: Callable[..., object]) -> Callable[..., object]:
        def wrapped(*args: object, **kwargs: object) -> object:
            seen.append(open_store(path).lengths.tolist())
            result = step(*args, **kwargs)
            seen.append(open_store(path).lengths.tolist())
            return result

        return wrapped

    monkeypatch.setattr(Path, "rename", looking(Path.rename))
    monkeypatch.setattr(shutil, "rmtree", looking(shutil.rmtree))
    write_store(point_mass([4]), path)
    assert seen[0] == [5, 6]
    assert seen[-1] == [4]
    assert len(seen) == (4 if left_aside else 8)


def test_a_writer_that_died_between_the_two_renames_leaves_the_old_store_readable(
    tmp_path: Path, point_mass: Recorder
) -> None:
    path = write_store(point_mass([5, 6]), tmp_path / "maze.zarr")
    path.rename(aside(path))
    assert open_store(path).lengths.tolist() == [5, 6]
    write_store(point_mass([4]), path)
    assert open_store(path).lengths.tolist() == [4]
    assert leftovers(path) == []


def test_the_folder_of_a_living_writer_is_not_touched(tmp_path: Path, point_mass: Recorder) -> None:
    path = tmp_path / "shared.zarr"
    with staged(path) as folder:
        (folder / "half").write_text("still writing")
        write_store(point_mass([5]), path)
        assert (folder / "half").read_text() == "still writing"
    assert leftovers(path) == []


def test_a_folder_that_another_writer_took_for_a_leftover_is_made_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    target, lock, taken = tmp_path / "maze.zarr", fcntl.flock, list[Path]()

    def late(descriptor: int, how: int) -> None:
        if not taken:  # the other came between the folder and its lock
            taken.extend(tmp_path.iterdir())
            taken[0].rmdir()
        lock(descriptor, how)

    monkeypatch.setattr(fcntl, "flock", late)
    with staged(target) as folder:
        assert len(taken) == 1
        assert folder.is_dir()
        assert folder != taken[0]
    assert leftovers(target) == []
