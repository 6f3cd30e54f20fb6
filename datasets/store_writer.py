"""Arrays of a store, appended to row by row with as much memory as one chunk or shard of each takes."""

import hashlib
from dataclasses import dataclass
from typing import Any

import numpy as np
import zarr
from zarr.codecs import BloscCodec, Crc32cCodec

from forcing.datasets.episodes import Episode, Recording
from forcing.datasets.rows import as_kept, check_rows
from forcing.datasets.statistics import RunningStatistics
from forcing.datasets.store_layout import (
    FORMAT,
    LENGTHS,
    VERSION,
    StoreError,
    episode_table,
    frame_chunk,
    frame_shard,
    number_chunk,
    sealed,
)
from forcing.policy.types import Array, EpisodeNote, StreamSpec

STORED_KINDS = "biuf"  # booleans, integers, floats


class ArrayWriter:
    """One zarr array that grows at its end by whole chunks, or whole shards where it has some."""

    def __init__(self, group: zarr.Group, name: str, first: Array, *, frames: bool) -> None:
        """first: some rows, for their shape and type; not written."""
        self.dtype = first.dtype
        self._group, self._name, self._frames = group, name, frames
        row = max(first[:1].nbytes, 1)
        self._chunk = frame_chunk(row) if frames else number_chunk(row)
        self._waiting = np.empty((frame_shard(row) if frames else self._chunk, *first.shape[1:]), first.dtype)
        self._filled = 0
        self._array: zarr.Array[Any] | None = None
        self._layout: dict[str, int] = {}
        self._sha256 = hashlib.sha256()

    def append(self, rows: Array) -> None:
        rows = np.ascontiguousarray(rows)
        self._sha256.update(rows.reshape(-1).view(np.uint8).data)
        while len(rows):
            taken = rows[: len(self._waiting) - self._filled]
            self._waiting[self._filled : self._filled + len(taken)] = taken
            self._filled += len(taken)
            rows = rows[len(taken) :]
            if self._filled == len(self._waiting):
                self._flush()

    def finish(self) -> dict[str, Any]:
        """All rows written; their shape, type and checksum as the header has them."""
        if self._filled:
            self._flush()
        assert self._array is not None, "an episode has rows"
        shape = list(self._array.shape)
        return {"shape": shape, "dtype": self.dtype.str, "sha256": self._sha256.hexdigest(), **self._layout}

    def _flush(self) -> None:
        if self._array is None:
            self._array = self._create(self._filled)
        start = self._array.shape[0]
        self._array.resize((start + self._filled, *self._array.shape[1:]))
        self._array[start:] = self._waiting[: self._filled]
        self._filled = 0

    def _create(self, rows: int) -> "zarr.Array[Any]":
        """An empty array; rows: of its first block, all there will be unless that is full."""
        shape = self._waiting.shape[1:]
        if not self._frames:
            return self._group.create_array(self._name, shape=(0, *shape), dtype=self.dtype, chunks=(rows, *shape))
        shard = -(-rows // self._chunk) * self._chunk
        self._layout = {"chunk_rows": self._chunk, "shard_rows": shard}
        # LZ4 without shuffling decodes frames ten times as fast as zstd (docs/decisions/0018-the-store-streams.md);
        # a chunk of zeros is written too, so that a missing one is never taken for zeros.
        return self._group.create_array(
            self._name,
            shape=(0, *shape),
            dtype=self.dtype,
            chunks=(self._chunk, *shape),
            shards=(shard, *shape),
            compressors=[BloscCodec(cname="lz4", clevel=5, shuffle="noshuffle"), Crc32cCodec()],
            config={"write_empty_chunks": True},
        )


@dataclass(slots=True)
class WrittenSoFar:
    """What a writer needs. read_bytes: of the recording, so far."""

    read_bytes: int = 0


def write_arrays(recording: Recording, group: zarr.Group, progress: WrittenSoFar) -> None:
    """All of the recording in the group, episode by episode; its attributes last.

    Raises ValueError naming the episode and the stream if its rows or their type do not fit, StoreError if there is no
    episode or the provenance is no JSON.
    """
    spec = recording.spec
    writers: dict[str, ArrayWriter] = {}
    statistics = {stream.name: RunningStatistics(stream.size) for stream in spec.streams if not stream.image}
    lengths: list[int] = []
    notes: list[EpisodeNote] = []
    for episode in recording.episodes():
        steps = len(episode.streams[spec.action.name])
        check_rows(spec, episode.streams, steps, episode.where)
        for stream in spec.streams:
            rows = _stored(episode, stream)
            if stream.name not in writers:
                name = f"streams/{stream.name}"
                writers[stream.name] = ArrayWriter(group, name, rows, frames=stream.image)
            if rows.dtype != writers[stream.name].dtype:
                raise ValueError(
                    f"{episode.where}: stream {stream.name!r} must have type {writers[stream.name].dtype} as in the "
                    f"episodes before, got {rows.dtype}; record it in one type"
                )
            writers[stream.name].append(rows)
            progress.read_bytes += rows.nbytes
            if not stream.image:
                statistics[stream.name].add(rows.reshape(len(rows), -1))
        lengths.append(steps)
        notes.append(episode.note)
    if not lengths:
        raise StoreError("a recording must have at least 1 episode, got 0; record it again")
    counts = np.array(lengths, np.int64)
    writers_by_path = {f"streams/{name}": writer for name, writer in writers.items()}
    writers_by_path[LENGTHS] = ArrayWriter(group, LENGTHS, counts, frames=False)
    writers_by_path[LENGTHS].append(counts)
    header = {
        "format": FORMAT,
        "version": VERSION,
        "spec": spec.to_json(),
        "provenance": dict(recording.provenance()),
        "arrays": {path: writer.finish() for path, writer in writers_by_path.items()},
        "episodes": episode_table(notes),
        "statistics": {name: found.to_json() for name, found in statistics.items()},
    }
    group.attrs.put(sealed(header))


def _stored(episode: Episode, stream: StreamSpec) -> Array:
    """The episode's rows of a stream as they are stored: little endian, floats as float32."""
    rows = episode.streams[stream.name]
    if rows.dtype.kind not in STORED_KINDS:
        raise ValueError(
            f"{episode.where}: stream {stream.name!r} must be of numbers, got {rows.dtype}; leave the stream out"
        )
    kept = as_kept(rows)
    return kept.astype(kept.dtype.newbyteorder("<"), copy=False)
