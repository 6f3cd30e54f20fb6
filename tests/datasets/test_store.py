"""The store: exact round trips, and no altered byte that goes unnoticed."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import zarr

from forcing.datasets.store import check_target, is_store, open_store, write_store
from forcing.datasets.store_layout import StoreError
from forcing.policy.types import Array, StreamSpec, Trajectories, TrajectorySpec

Recorder = Callable[..., Trajectories]


def assert_same(first: Trajectories, second: Trajectories) -> None:
    assert first.spec == second.spec
    assert first.provenance == second.provenance
    assert np.array_equal(first.lengths, second.lengths)
    for name, values in first.streams.items():
        assert values.dtype == second.streams[name].dtype
        assert values.tobytes() == second.streams[name].tobytes()


@pytest.fixture
def recording(point_mass: Recorder) -> Trajectories:
    return point_mass([7, 1, 12])


@pytest.fixture
def store(tmp_path: Path, recording: Trajectories) -> Path:
    return write_store(recording, tmp_path / "maze.zarr")


def test_what_is_opened_is_what_was_written(store: Path, recording: Trajectories) -> None:
    assert_same(open_store(store), recording)
    assert [path.name for path in store.parent.iterdir()] == ["maze.zarr"]


def test_frames_doubles_zeros_and_many_chunks_come_back_exactly(tmp_path: Path) -> None:
    spec = TrajectorySpec(
        streams=(
            StreamSpec(name="camera", role="observation", shape=(96, 96, 3)),
            StreamSpec(name="joint", role="observation", shape=()),
            StreamSpec(name="lengths", role="action", shape=(3,)),
        ),
        control_hz=12.5,
    )
    rng = np.random.default_rng(0)
    frames = {"camera": rng.integers(0, 256, (102, 96, 96, 3), dtype=np.uint8)}
    streams: dict[str, Array] = {
        "joint": rng.standard_normal(102),
        "lengths": np.zeros((100, 3), np.float32),
    }
    written = Trajectories(
        spec=spec, streams=streams, lengths=np.array([40, 60]), provenance={"goals": None}, frames=frames
    )
    assert_same(open_store(write_store(written, tmp_path / "frames.zarr")), written)
    assert len(list((tmp_path / "frames.zarr" / "streams" / "camera" / "c").iterdir())) > 1


def test_any_zarr_reader_can_open_the_arrays(store: Path, recording: Trajectories) -> None:
    velocity = np.asarray(zarr.open_array(store / "streams" / "velocity", mode="r"))
    assert np.array_equal(velocity, recording.streams["velocity"])
    assert np.asarray(zarr.open_array(store / "lengths", mode="r")).tolist() == [7, 1, 12]


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
    header["attributes"]["version"] = 2
    document.write_text(json.dumps(header))
    with pytest.raises(StoreError, match="version must be at most 1, got 2; update forcing"):
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
