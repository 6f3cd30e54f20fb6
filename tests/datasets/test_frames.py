"""Frames that stay in a store: what is read is what was written, every altered byte is noticed, memory is bounded."""

import tracemalloc
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from forcing.datasets import store_layout
from forcing.datasets.batch_memory import BatchMemory
from forcing.datasets.chunk_cache import ChunkCache
from forcing.datasets.episodes import Episode
from forcing.datasets.store import open_store, verify_frames, write_store
from forcing.datasets.store_layout import StoreError, frame_chunk, frame_shard
from forcing.datasets.stored_frames import StoredFrames
from forcing.datasets.windows import TrajectoryWindows
from forcing.policy.types import Array, StreamSpec, Trajectories, TrajectorySpec

SIDE = 16
ROWS = 330  # 11 chunks of 32 in 6 shards of 64, the last of which is not full


def film(rows: int, side: int = SIDE) -> Trajectories:
    """One episode whose every pixel is random, but black from frame 64 to 160."""
    camera = np.random.default_rng(1).integers(0, 256, (rows, side, side, 3), dtype=np.uint8)
    camera[64:160] = 0
    spec = TrajectorySpec(
        streams=(
            StreamSpec(name="camera", role="observation", shape=(side, side, 3)),
            StreamSpec(name="action", role="action", shape=()),
        ),
        control_hz=10,
    )
    action = {"action": np.zeros(rows - 1, np.float32)}
    return Trajectories(spec=spec, streams=action, lengths=np.array([rows - 1]), frames={"camera": camera})


@pytest.fixture(scope="module")
def written() -> Array:
    return film(ROWS).frames["camera"][:]


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(store_layout, "SHARD_FRAMES", 64)
        return write_store(film(ROWS), tmp_path_factory.mktemp("frames") / "film.zarr")


@pytest.fixture
def store(tmp_path: Path) -> Path:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(store_layout, "SHARD_FRAMES", 64)
        return write_store(film(ROWS), tmp_path / "film.zarr")


def stored(path: Path) -> StoredFrames:
    frames = open_store(path).frames["camera"]
    assert isinstance(frames, StoredFrames)
    return frames


def shards(path: Path) -> list[Path]:
    found = (path / "streams" / "camera" / "c").rglob("*")
    return sorted((file for file in found if file.is_file()), key=lambda file: int(file.parts[-4]))


@given(start=st.integers(-ROWS - 9, ROWS + 9), stop=st.integers(-ROWS - 9, ROWS + 9))
def test_any_slice_is_that_of_the_frames_written(shared: Path, written: Array, start: int, stop: int) -> None:
    found = stored(shared)[start:stop]
    assert found.dtype == np.uint8
    assert np.array_equal(found, written[start:stop])


def test_a_slice_with_gaps_is_refused(shared: Path) -> None:
    with pytest.raises(ValueError, match="slices of step 1, got 2"):
        stored(shared)[0:9:2]


@pytest.mark.parametrize(
    ("frame", "chunk", "shard"),
    [(96 * 96 * 3, 32, 1024), (480 * 640 * 3, 4, 36), (4000 * 4000 * 3, 1, 1), (8 * 8, 32, 1024)],
)
def test_chunks_are_a_window_of_small_frames_and_few_large_ones(frame: int, chunk: int, shard: int) -> None:
    assert (frame_chunk(frame), frame_shard(frame)) == (chunk, shard)


def test_an_altered_byte_anywhere_in_a_shard_names_stream_and_file(store: Path, written: Array) -> None:
    rng, said = np.random.default_rng(0), list[str]()
    file = shards(store)[5]  # of 10 frames and an index of two chunks
    whole = file.read_bytes()
    for position in (*rng.choice(len(whole), 40, replace=False), *range(len(whole) - 36, len(whole))):
        altered = bytearray(whole)
        altered[position] ^= 1 << int(rng.integers(8))
        file.write_bytes(altered)
        try:
            assert np.array_equal(stored(store)[:], written)
        except StoreError as error:
            said.append(str(error))
    assert {line.partition(" (")[0] for line in said} == {f"{file}: stream 'camera' cannot be decoded"}
    assert len(said) >= 60  # the rest are of the chunk behind the last frame, which nobody reads
    file.write_bytes(whole)
    verify_frames(store)


@pytest.mark.parametrize("kept", [0, 3, 30, -1, -40])
def test_a_shard_that_was_cut_short_is_named(store: Path, kept: int) -> None:
    file = shards(store)[1]
    file.write_bytes(file.read_bytes()[:kept])
    frames = stored(store)
    assert len(frames[:64]) == 64
    with pytest.raises(StoreError, match=r"camera/c/1/0/0/0: stream 'camera' cannot be decoded .*(cut short|checksum)"):
        frames[64:128]
    with pytest.raises(StoreError, match="camera/c/1/0/0/0"):
        verify_frames(store)


def test_a_missing_shard_is_no_black_frames(store: Path) -> None:
    file = shards(store)[1]  # all of it black
    frames = stored(store)
    file.unlink()
    with pytest.raises(StoreError, match="camera/c/1/0/0/0: stream 'camera' cannot be decoded"):
        frames[64:128]
    with pytest.raises(StoreError, match="camera/c/1/0/0/0: stream 'camera' has lost this shard"):
        open_store(store)


def test_shards_that_changed_places_are_found_by_the_checksum_of_all_frames(store: Path) -> None:
    first, last = shards(store)[0], shards(store)[4]
    contents = first.read_bytes()
    first.write_bytes(last.read_bytes())
    last.write_bytes(contents)
    stored(store)[:]
    with pytest.raises(StoreError, match=r"stream 'camera' must have sha256 .* found"):
        verify_frames(store)


@given(
    firsts=st.lists(st.integers(0, ROWS - 40), min_size=1, max_size=12),
    budget=st.sampled_from([1, 30_000, 80_000, 10_000_000]),
    length=st.integers(1, 40),
    data=st.data(),
)
def test_windows_out_of_the_cache_are_the_frames_whatever_it_holds(
    shared: Path, written: Array, firsts: list[int], budget: int, length: int, data: st.DataObject
) -> None:
    cache = ChunkCache(stored(shared), budget)
    for _ in range(2):
        repeated = np.array([data.draw(st.integers(0, length - 1)) for _ in firsts])
        out = np.empty((len(firsts), length, SIDE, SIDE, 3), np.uint8)
        cache.gather(np.array(firsts), repeated, out)
        for window, first, times in zip(out, firsts, repeated, strict=True):
            rows = first + np.maximum(np.arange(length) - times, 0)
            assert np.array_equal(window, written[rows])


def test_a_chunk_is_decoded_once_while_there_is_room_and_the_one_used_last_stays(shared: Path) -> None:
    chunk_bytes = 32 * SIDE * SIDE * 3
    cache = ChunkCache(stored(shared), 2 * chunk_bytes)
    out = np.empty((1, 1, SIDE, SIDE, 3), np.uint8)
    decoded = []
    for chunk in (0, 1, 0, 2, 0, 1):
        cache.gather(np.array([32 * chunk]), np.array([0]), out)
        decoded.append(cache.decoded)
    assert decoded == [1, 2, 2, 3, 3, 4]


def test_a_chunk_that_cannot_be_decoded_leaves_the_cache_whole(store: Path, written: Array) -> None:
    cache = ChunkCache(stored(store), 1)
    out = np.empty((1, 1, SIDE, SIDE, 3), np.uint8)
    file = shards(store)[2]
    whole = file.read_bytes()
    file.write_bytes(bytes(len(whole)))
    for _ in range(3):
        with pytest.raises(StoreError, match="camera/c/2/0/0/0"):
            cache.gather(np.array([130]), np.array([0]), out)
    file.write_bytes(whole)
    cache.gather(np.array([170]), np.array([0]), out)
    assert np.array_equal(out[0, 0], written[170])


def test_memory_of_a_batch_that_is_held_in_any_way_is_not_used_again() -> None:
    memory = BatchMemory()
    holders: list[Callable[[Array], object]] = [
        lambda rows: rows,
        lambda rows: rows[1:, 0],
        lambda rows: rows.data,
    ]
    for hold in holders:
        held = hold(memory.array((2, 3), np.int64))
        for number in range(5):
            memory.array((2, 3), np.int64)[:] = number
        mine = np.asarray(held)
        mine[...] = -1
        memory.array((2, 3), np.int64)[:] = 7
        assert (np.asarray(held) == -1).all()


def test_memory_of_a_batch_that_is_gone_is_used_again_also_for_a_smaller_one() -> None:
    memory = BatchMemory()
    first = memory.array((64, 10), np.float32)
    place = first.__array_interface__["data"][0]
    del first
    again = memory.array((5,), np.float32)
    assert again.__array_interface__["data"][0] == place
    assert memory.array((64, 10), np.float32).__array_interface__["data"][0] != place


def test_writing_and_drawing_take_bounded_memory_whatever_the_recording(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """24 MB of frames through a cache of 2 MB, in shards of 1 MB."""
    monkeypatch.setattr(store_layout, "SHARD_BYTES", 1 << 20)
    written = film(2_000, side=64)
    tracemalloc.start()
    try:
        path = write_store(_Pieces(written), tmp_path / "film.zarr")
        writing = tracemalloc.get_traced_memory()[1]
        tracemalloc.reset_peak()
        windows = TrajectoryWindows(open_store(path), cache_bytes=2 << 20)
        rng = np.random.default_rng(0)
        peaks = []
        for _ in range(2):
            for _ in range(100):
                windows.sample(rng, 8, 0, 7)
            peaks.append(tracemalloc.get_traced_memory()[1])
    finally:
        tracemalloc.stop()
    assert writing < 8e6
    assert peaks[0] < 6e6  # the cache, and a batch or two of 0.8 MB
    assert peaks[1] == pytest.approx(peaks[0], rel=0.02)


class _Pieces:
    """A recording as episodes of 49 steps, copied out one at a time."""

    def __init__(self, whole: Trajectories) -> None:
        self._whole, self.spec = whole, whole.spec

    def episodes(self) -> Iterator[Episode]:
        for start in range(0, 2_000, 50):
            camera = self._whole.frames["camera"][start : start + 50].copy()
            yield Episode({"camera": camera, "action": np.zeros(49)}, f"episode at {start}")

    def provenance(self) -> dict[str, str]:
        return {}
