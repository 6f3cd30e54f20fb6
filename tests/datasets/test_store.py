"""The store: exact round trips, and no altered byte that goes unnoticed."""

import errno
import hashlib
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest
import zarr

from forcing.datasets import store_layout
from forcing.datasets.episodes import Episode, gathered
from forcing.datasets.store import check_target, is_store, open_store, verify_frames, write_store
from forcing.datasets.store_layout import StoreError
from forcing.policy.types import Array, EpisodeNote, StreamSpec, Trajectories, TrajectorySpec

Recorder = Callable[..., Trajectories]


def assert_same(first: Trajectories, second: Trajectories) -> None:
    assert first.spec == second.spec
    assert first.provenance == second.provenance
    assert np.array_equal(first.lengths, second.lengths)
    for name, values in first.streams.items():
        assert values.dtype == second.streams[name].dtype
        assert values.tobytes() == second.streams[name].tobytes()
    assert first.notes == second.notes
    for name, frames in first.frames.items():
        assert frames.dtype == second.frames[name].dtype
        assert np.array_equal(frames[:], second.frames[name][:])


@pytest.fixture
def recording(point_mass: Recorder) -> Trajectories:
    return point_mass([7, 1, 12])


@pytest.fixture
def store(tmp_path: Path, recording: Trajectories) -> Path:
    return write_store(recording, tmp_path / "maze.zarr")


def test_what_is_opened_is_what_was_written(store: Path, recording: Trajectories) -> None:
    assert_same(open_store(store), recording)
    assert [path.name for path in store.parent.iterdir()] == ["maze.zarr"]


CAMERA = TrajectorySpec(
    streams=(
        StreamSpec(name="camera", role="observation", shape=(96, 96, 3)),
        StreamSpec(name="joint", role="observation", shape=()),
        StreamSpec(name="lengths", role="action", shape=(3,)),
    ),
    control_hz=12.5,
)


def filmed(lengths: list[int], seed: int = 0, notes: tuple[EpisodeNote, ...] = ()) -> Trajectories:
    """Frames of noise, but for the first forty, which are black."""
    rng, rows = np.random.default_rng(seed), sum(lengths) + len(lengths)
    camera = rng.integers(0, 256, (rows, 96, 96, 3), dtype=np.uint8)
    camera[:40] = 0
    streams: dict[str, Array] = {
        "joint": rng.integers(0, 9, rows),
        "lengths": np.zeros((sum(lengths), 3), np.float32),
    }
    return Trajectories(
        spec=CAMERA,
        streams=streams,
        lengths=np.array(lengths),
        provenance={"goals": None},
        frames={"camera": camera},
        notes=notes,
    )


def test_frames_integers_zeros_notes_and_many_chunks_come_back_exactly(tmp_path: Path) -> None:
    notes = (EpisodeNote(task="pick", subsets=("train", "clean")), EpisodeNote(), EpisodeNote(task="pick"))
    written = filmed([40, 60, 1], notes=notes)
    found = open_store(write_store(written, tmp_path / "frames.zarr"))
    assert_same(found, written)
    assert found.frames["camera"].shape == (104, 96, 96, 3)
    assert not isinstance(found.frames["camera"], np.ndarray)
    verify_frames(tmp_path / "frames.zarr")


def test_frames_fill_more_than_one_shard(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store_layout, "SHARD_FRAMES", 64)
    written = filmed([40, 60, 80])
    path = write_store(written, tmp_path / "frames.zarr")
    assert_same(open_store(path), written)
    assert len([file for file in (path / "streams" / "camera" / "c").rglob("*") if file.is_file()]) == 3


def test_the_header_tells_episodes_and_statistics_to_any_program(tmp_path: Path) -> None:
    notes = (EpisodeNote(task="pick", subsets=("train",)), EpisodeNote(task="place", subsets=("train", "valid")))
    path = write_store(filmed([40, 60], notes=notes), tmp_path / "frames.zarr")
    header = json.loads((path / "zarr.json").read_text())["attributes"]
    subsets = {"train": [0, 1], "valid": [1]}
    assert header["episodes"] == {"tasks": ["pick", "place"], "task": [0, 1], "subsets": subsets}
    assert sorted(header["statistics"]) == ["joint", "lengths"]


def test_statistics_are_those_of_all_rows(tmp_path: Path, point_mass: Recorder) -> None:
    recording = point_mass([7, 1, 120])
    shifted = {**recording.streams, "position": recording.streams["position"] + np.float32(1e4)}
    shifted["velocity"] = recording.streams["velocity"].copy()
    shifted["velocity"][3, 0], shifted["velocity"][:, 1] = np.inf, np.nan
    path = write_store(replace(recording, streams=shifted), tmp_path / "maze.zarr")
    found = json.loads((path / "zarr.json").read_text())["attributes"]["statistics"]
    position = shifted["position"].astype(np.float64)
    assert found["position"]["count"] == [131, 131]
    for name, expected in (("mean", position.mean(0)), ("std", position.std(0))):
        assert found["position"][name] == pytest.approx(expected, rel=1e-9)
    assert found["position"]["min"] == position.min(0).tolist()
    assert found["position"]["max"] == position.max(0).tolist()
    finite = np.delete(shifted["velocity"][:, 0].astype(np.float64), 3)
    assert found["velocity"]["count"] == [130, 0]
    assert found["velocity"]["mean"] == [pytest.approx(finite.mean()), None]


def test_floats_are_kept_as_float32_and_numbers_of_other_kinds_as_they_are(tmp_path: Path) -> None:
    written = filmed([3])
    doubles = replace(written, streams={**written.streams, "joint": np.array([1 / 3, 2 / 3, 1, 0])})
    found = open_store(write_store(doubles, tmp_path / "a.zarr"))
    assert found.streams["joint"].tolist() == np.array([1 / 3, 2 / 3, 1, 0], np.float32).tolist()
    switches = replace(written, streams={**written.streams, "joint": np.array([True, False, True, True])})
    assert open_store(write_store(switches, tmp_path / "b.zarr")).streams["joint"].dtype == np.bool_


@dataclass(frozen=True)
class Streamed:
    """A recording whose episodes are made when they are asked for."""

    made: tuple[Episode, ...]
    spec: TrajectorySpec = CAMERA

    def episodes(self) -> Iterator[Episode]:
        yield from self.made

    def provenance(self) -> dict[str, str]:
        return {"source": "streamed"}


def an_episode(where: str, steps: int, **changes: Array) -> Episode:
    streams: dict[str, Array] = {
        "camera": np.zeros((steps + 1, 96, 96, 3), np.uint8),
        "joint": np.zeros(steps + 1),
        "lengths": np.zeros((steps, 3)),
    }
    return Episode({**streams, **changes}, where)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (an_episode("b.h5: demo_1", 0), "b.h5: demo_1: must have at least 1 step, got 0"),
        (
            an_episode("demo_1", 4, joint=np.zeros(4)),
            r"demo_1: stream 'joint' must have shape \(5,\) for 4 steps, got \(4,\)",
        ),
        (
            an_episode("demo_1", 4, camera=np.zeros((5, 96, 95, 3), np.uint8)),
            r"demo_1: stream 'camera' must have shape \(5, 96, 96, 3\)",
        ),
        (an_episode("demo_1", 4, joint=np.array([None] * 5)), "demo_1: stream 'joint' must be of numbers, got object"),
        (an_episode("demo_1", 4, joint=np.zeros(5, np.int8)), "'joint' must have type float32 as in the .* got int8"),
    ],
)
def test_an_episode_that_does_not_fit_is_named_and_no_store_is_left(
    tmp_path: Path, wrong: Episode, message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        write_store(Streamed((an_episode("demo_0", 3), wrong)), tmp_path / "new.zarr")
    assert list(tmp_path.iterdir()) == []


def test_frames_of_another_type_than_before_are_refused_in_memory_too(tmp_path: Path) -> None:
    bytes_, floats = an_episode("episode 0", 2), an_episode("a.h5: episode 1", 2)
    floats = replace(floats, streams={**floats.streams, "camera": np.full((3, 96, 96, 3), 300, np.float32)})
    said = "a.h5: episode 1: stream 'camera' must have type uint8 as in the episodes before, got float32"
    with pytest.raises(ValueError, match=said):
        gathered(Streamed((bytes_, floats)))
    with pytest.raises(ValueError, match=said):
        write_store(Streamed((bytes_, floats)), tmp_path / "frames.zarr")


def test_a_number_too_large_for_float32_is_kept_as_infinite(tmp_path: Path) -> None:
    large = an_episode("episode 0", 2, joint=np.array([0, 1e300, -1e300]))
    found = open_store(write_store(Streamed((large,)), tmp_path / "frames.zarr"))
    assert found.streams["joint"].tolist() == [0, np.inf, -np.inf]


def test_a_recording_without_episodes_is_refused(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="must have at least 1 episode, got 0"):
        write_store(Streamed(()), tmp_path / "new.zarr")
    assert list(tmp_path.iterdir()) == []


def test_a_store_of_version_1_still_opens_with_all_its_checks(tmp_path: Path) -> None:
    """Written here as version 1 was: arrays whole, frames among them, no episode table."""
    camera = np.random.default_rng(0).integers(0, 256, (5, 96, 96, 3), dtype=np.uint8)
    arrays: dict[str, Array] = {
        "streams/camera": camera,
        "streams/joint": np.arange(5.0),
        "streams/lengths": np.ones((4, 3), np.float32),
        "lengths": np.array([4]),
    }
    header = {
        "format": "forcing-trajectories",
        "version": 1,
        "spec": json.loads(json.dumps(CAMERA.to_json())),
        "provenance": {"source": "old"},
        "arrays": {
            name: {
                "shape": list(rows.shape),
                "dtype": rows.dtype.str,
                "sha256": hashlib.sha256(rows.tobytes()).hexdigest(),
            }
            for name, rows in arrays.items()
        },
    }
    seal = hashlib.sha256(json.dumps(header, sort_keys=True).encode()).hexdigest()
    path = tmp_path / "old.zarr"
    group = zarr.create_group(zarr.storage.LocalStore(path), attributes={**header, "header_sha256": seal})
    for name, rows in arrays.items():
        group.create_array(name, data=rows, chunks=rows.shape)
    found = open_store(path)
    assert found.streams["joint"].tolist() == [0.0, 1.0, 2.0, 3.0, 4.0]
    assert found.streams["joint"].dtype == np.float64
    assert np.array_equal(found.frames["camera"][1:3], camera[1:3])
    verify_frames(path)
    flip(next(file for file in (path / "streams" / "camera" / "c").rglob("*") if file.is_file()))
    with pytest.raises(StoreError, match="stream 'camera'"):
        open_store(path)


def flip(path: Path, position: float = 0.5) -> None:
    """Alters one byte, at this share of the file."""
    contents = bytearray(path.read_bytes())
    contents[int(position * len(contents))] ^= 0x10
    path.write_bytes(contents)


def test_any_zarr_reader_can_open_the_arrays(store: Path, recording: Trajectories) -> None:
    velocity = np.asarray(zarr.open_array(store / "streams" / "velocity", mode="r"))
    assert np.array_equal(velocity, recording.streams["velocity"])
    assert np.asarray(zarr.open_array(store / "lengths", mode="r")).tolist() == [7, 1, 12]
    written = filmed([40, 60])
    path = write_store(written, store.parent / "frames.zarr")
    camera = np.asarray(zarr.open_array(path / "streams" / "camera", mode="r"))
    assert np.array_equal(camera, written.frames["camera"][:])


def test_writing_again_replaces_the_store(store: Path, point_mass: Recorder) -> None:
    other = point_mass([3, 3], seed=1)
    write_store(other, store)
    assert_same(open_store(store), other)
    assert [path.name for path in store.parent.iterdir()] == ["maze.zarr"]


def test_a_store_is_not_made_of_itself_and_takes_no_strangers_place(store: Path, tmp_path: Path) -> None:
    check_target(store)
    check_target(tmp_path / "new.zarr", store)
    with pytest.raises(StoreError, match="is the recording that is read, and would be replaced"):
        check_target(store.parent / "." / store.name, store)
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "notes.txt").write_text("mine")
    with pytest.raises(StoreError, match="exists and is not a"):
        check_target(tmp_path / "mine")


def test_any_flipped_byte_is_noticed_or_changes_nothing(store: Path, recording: Trajectories) -> None:
    rng, refused = np.random.default_rng(0), 0
    for path in sorted(path for path in store.rglob("*") if path.is_file()):
        whole = path.read_bytes()
        for position in rng.choice(len(whole), size=min(len(whole), 12), replace=False):
            altered = bytearray(whole)
            altered[position] ^= 1 << int(rng.integers(8))
            path.write_bytes(altered)
            try:
                assert_same(open_store(store), recording)
            except StoreError:
                refused += 1
        path.write_bytes(whole)
    assert refused > 40  # of about 100: the rest are bytes of zarr's documents that decide nothing here
    assert_same(open_store(store), recording)


def chunk(store: Path, stream: str) -> Path:
    return next(path for path in (store / "streams" / stream / "c").rglob("*") if path.is_file())


def test_a_flipped_byte_in_a_chunk_names_the_stream(store: Path) -> None:
    path = chunk(store, "velocity")
    contents = bytearray(path.read_bytes())
    contents[len(contents) // 2] ^= 0xFF
    path.write_bytes(contents)
    with pytest.raises(StoreError, match=r"stream 'velocity' .*convert the recording again"):
        open_store(store)


def test_a_truncated_chunk_names_the_stream(store: Path) -> None:
    path = chunk(store, "position")
    path.write_bytes(path.read_bytes()[:-9])
    with pytest.raises(StoreError, match=r"stream 'position' .*convert the recording again"):
        open_store(store)


def test_a_chunk_that_is_gone_is_no_zeros(store: Path) -> None:
    chunk(store, "action").unlink()
    with pytest.raises(StoreError, match="stream 'action' must have sha256"):
        open_store(store)


@pytest.mark.parametrize(("folder", "named"), [("streams/reward", "stream 'reward'"), ("lengths", "array 'lengths'")])
def test_a_missing_array_is_named(store: Path, folder: str, named: str) -> None:
    shutil.rmtree(store / folder)
    with pytest.raises(StoreError, match=f"{named} is missing"):
        open_store(store)


def test_a_newer_format_version_asks_for_an_update(store: Path) -> None:
    document = store / "zarr.json"
    header = json.loads(document.read_text())
    header["attributes"]["version"] = 3
    document.write_text(json.dumps(header))
    with pytest.raises(StoreError, match="version must be at most 2, got 3; update forcing"):
        open_store(store)


def test_a_changed_attribute_is_noticed(store: Path) -> None:
    document = store / "zarr.json"
    document.write_text(document.read_text().replace('"m/s"', '"mm/s"'))
    with pytest.raises(StoreError, match="contents differ from their checksum"):
        open_store(store)


def test_half_a_document_is_refused(store: Path) -> None:
    document = store / "zarr.json"
    document.write_bytes(document.read_bytes()[:100])
    with pytest.raises(StoreError, match=r"zarr.json: must be the JSON that write_store writes"):
        open_store(store)


def test_nothing_and_an_unfinished_folder_are_told_apart(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match=r"needs the file zarr.json, found nothing"):
        open_store(tmp_path / "absent.zarr")
    with pytest.raises(StoreError, match="found an unfinished or foreign folder"):
        open_store(tmp_path)


def test_a_folder_that_is_no_store_is_left_alone(tmp_path: Path, recording: Trajectories) -> None:
    (tmp_path / "precious.txt").write_text("mine")
    with pytest.raises(StoreError, match=r"is not a forcing-trajectories store; remove it or choose another path"):
        write_store(recording, tmp_path)
    assert (tmp_path / "precious.txt").read_text() == "mine"
    assert not is_store(tmp_path)


def test_a_provenance_that_json_cannot_hold_is_refused_and_leaves_nothing(
    tmp_path: Path, recording: Trajectories
) -> None:
    odd = Trajectories(
        spec=recording.spec, streams=recording.streams, lengths=recording.lengths, provenance={"when": float("nan")}
    )
    with pytest.raises(StoreError, match="must be plain finite JSON"):
        write_store(odd, tmp_path / "odd.zarr")
    assert list(tmp_path.iterdir()) == []


SMALL_DISK = """
import sys
import numpy as np
from forcing.datasets.store import open_store, write_store
from forcing.policy.types import StreamSpec, Trajectories, TrajectorySpec

def recording(rows, seed):
    spec = TrajectorySpec(streams=(StreamSpec(name="action", role="action", shape=(64,)),), control_hz=10)
    noise = np.random.default_rng(seed).standard_normal((rows, 64)).astype(np.float32)
    return Trajectories(spec=spec, streams={"action": noise}, lengths=np.array([rows]))

path = sys.argv[1] + "/maze.zarr"
write_store(recording(4_000, 0), path)
if len(sys.argv) > 2:
    import resource, signal
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
try:
    write_store(recording(80_000, 1), path)
except ValueError as error:
    print(error)
assert np.array_equal(open_store(path).streams["action"], recording(4_000, 0).streams["action"])
import os
print(os.listdir(sys.argv[1]))
"""


def refused(*command: str) -> list[str]:
    run = subprocess.run(command, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    return run.stdout.splitlines()


def test_a_file_system_that_is_full_says_so_and_keeps_the_store_that_was_there(tmp_path: Path) -> None:
    """On one of 8 MB, in a namespace of its own."""
    mount = f"mount -t tmpfs -o size=8m tmpfs {tmp_path}"
    apart = ["unshare", "--map-root-user", "--mount", "sh", "-c"]
    if shutil.which("unshare") is None or subprocess.run([*apart, mount], capture_output=True).returncode != 0:
        pytest.skip("mounting needs Linux namespaces")
    said, left = refused(*apart, f'{mount} && exec "$0" -c "$1" {tmp_path}', sys.executable, SMALL_DISK)
    assert f"{tmp_path}/maze.zarr: no room for the store (No space left on device): up to 20.5 MB are needed" in said
    assert said.endswith("what was there before is untouched: free some space or choose another path")
    assert left == "['maze.zarr']"


def test_a_limit_on_the_size_of_files_says_so_and_keeps_the_store_that_was_there(tmp_path: Path) -> None:
    said, left = refused(sys.executable, "-c", SMALL_DISK, str(tmp_path), "limited")
    assert "no room for the store (File too large): up to 20.5 MB are needed" in said
    assert left == "['maze.zarr']"


@pytest.mark.parametrize("failing", ["fsync", "rename"])
@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT])
def test_a_disk_that_fills_at_the_last_moment_loses_nothing(
    store: Path, recording: Trajectories, monkeypatch: pytest.MonkeyPatch, failing: str, code: int
) -> None:
    rename = Path.rename

    def full(path: Path | int, *target: Path) -> Path:
        if isinstance(path, int) or ".tmp-" in path.name:
            raise OSError(code, os.strerror(code))
        return rename(path, *target)

    monkeypatch.setattr(os if failing == "fsync" else Path, failing, full)
    with pytest.raises(StoreError, match=r"no room for the store .* is untouched"):
        write_store(filmed([3]), store)
    monkeypatch.undo()
    assert_same(open_store(store), recording)
    assert [path.name for path in store.parent.iterdir()] == ["maze.zarr"]


def test_a_disk_that_fills_under_a_streamed_recording_tells_how_far_it_came(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    # 51 frames of 27,648 bytes, 51 and 50 rows of numbers of 4 and 12 bytes.
    with pytest.raises(
        StoreError, match=r"1\.4 MB of the recording were read, uncompressed, when it was full, .* free;"
    ):
        write_store(Streamed((an_episode("demo_0", 50),)), tmp_path / "new.zarr")
    assert list(tmp_path.iterdir()) == []


def test_other_faults_of_the_disk_are_not_called_a_full_one(store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(descriptor: int) -> None:
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(os, "fsync", broken)
    with pytest.raises(OSError, match="Input/output error") as caught:
        write_store(filmed([3]), store)
    assert not isinstance(caught.value, StoreError)
