"""Frames of a camera that stay in their store: chunks are decoded when they are asked for, and checked.

Reads what zarr's sharding, blosc and crc32c codecs write, straight into the caller's memory: zarr's own reader takes
several times as long for a chunk of frames as its decoding does (docs/decisions/0018-the-store-streams.md).
"""

import os
from io import FileIO
from pathlib import Path

import google_crc32c
import numpy as np
from numcodecs import blosc
from numpy.typing import NDArray

from forcing.datasets.store_layout import REMEDY, StoreError, shard_file
from forcing.policy.types import Array

CRC_BYTES = 4
BLOSC_SIZE = slice(4, 8)  # of blosc's header, where it keeps how many bytes it was given
NO_CHUNK = 2**64 - 1  # in an index, where a chunk was left out


class StoredFrames:
    """`Frames` of one stream of a store.

    chunk_rows: frames that are compressed together. shard_rows: frames in one file, whole chunks.
    """

    def __init__(
        self, folder: Path, name: str, *, shape: tuple[int, ...], dtype: str, chunk_rows: int, shard_rows: int
    ) -> None:
        """folder: of the store. name: of the array, such as streams/camera. Raises StoreError if a shard is missing."""
        self.shape, self.dtype = shape, np.dtype(dtype)
        self.chunk_rows, self.shard_rows = chunk_rows, shard_rows
        self._folder, self._name = folder, name
        self._indices: dict[int, NDArray[np.uint64]] = {}
        self._encoded = np.empty(0, np.uint8)
        for shard in range(-(-shape[0] // shard_rows)):
            if not self._file(shard).is_file():
                raise StoreError(f"{self._file(shard)}: {self._stream} has lost this shard; {REMEDY}")

    def __len__(self) -> int:
        return self.shape[0]

    @property
    def chunks(self) -> int:
        return -(-self.shape[0] // self.chunk_rows)

    def new_chunks(self, count: int) -> Array:
        """Memory for as many chunks: [count, chunk_rows, *shape of a frame]."""
        return np.empty((count, self.chunk_rows, *self.shape[1:]), self.dtype)

    def decode(self, chunk: int, out: Array) -> None:
        """Writes one chunk to `out`, [chunk_rows, *shape of a frame]; past the last frame there are zeros.

        Raises StoreError naming stream and file if a byte of it was altered.
        """
        per_shard = self.shard_rows // self.chunk_rows
        shard, place = divmod(chunk, per_shard)
        file = self._file(shard)
        try:
            with file.open("rb", buffering=0) as opened:
                offset, size = (int(number) for number in self._index(opened, shard, per_shard)[place])
                encoded = self._read(opened, offset, size, f"chunk {chunk}")
            decoded = int.from_bytes(encoded[BLOSC_SIZE].tobytes(), "little")
            if decoded != out.nbytes:
                raise ValueError(f"chunk {chunk} is of {decoded} bytes, {out.nbytes} are expected")
            blosc.decompress(encoded, out)
        except (OSError, ValueError, RuntimeError) as error:
            raise StoreError(f"{file}: {self._stream} cannot be decoded ({error}); {REMEDY}") from error

    def __getitem__(self, rows: slice, /) -> Array:
        """Frames of a slice of step 1, in memory. Raises StoreError naming stream and file if a byte was altered."""
        start, stop, step = rows.indices(self.shape[0])
        if step != 1:
            raise ValueError(f"frames are read by slices of step 1, got {step}")
        result = np.empty((max(stop - start, 0), *self.shape[1:]), self.dtype)
        scratch = self.new_chunks(1)[0]
        for chunk in range(start // self.chunk_rows, -(-stop // self.chunk_rows) if stop > start else 0):
            first = chunk * self.chunk_rows
            self.decode(chunk, scratch)
            low, high = max(start, first), min(stop, first + self.chunk_rows)
            result[low - start : high - start] = scratch[low - first : high - first]
        return result

    @property
    def _stream(self) -> str:
        return f"stream {self._name.removeprefix('streams/')!r}"

    def _file(self, shard: int) -> Path:
        return shard_file(self._folder, self._name, shard, len(self.shape))

    def _index(self, opened: FileIO, shard: int, per_shard: int) -> NDArray[np.uint64]:
        """[per_shard, 2] offset and size in bytes of each chunk of a shard, which end its file."""
        if shard not in self._indices:
            size = per_shard * 16 + CRC_BYTES
            contents = self._read(opened, opened.seek(0, os.SEEK_END) - size, size, "the index of its chunks")
            index = contents.view("<u8").reshape(-1, 2).copy()
            if (index[: self.chunks - shard * per_shard] == NO_CHUNK).any():
                raise ValueError("the index of its chunks leaves some out")
            self._indices[shard] = index
        return self._indices[shard]

    def _read(self, opened: FileIO, offset: int, size: int, what: str) -> NDArray[np.uint8]:
        """What stands there without the checksum behind it, until the next call. Raises ValueError if they differ."""
        if offset < 0 or size <= CRC_BYTES:
            raise ValueError(f"{what} is cut short")
        if len(self._encoded) < size:
            self._encoded = np.empty(size, np.uint8)
        opened.seek(offset)
        contents = self._encoded[:size]
        if opened.readinto(contents.data) != size:
            raise ValueError(f"{what} is cut short")
        if google_crc32c.value(contents[:-CRC_BYTES]) != int.from_bytes(contents[-CRC_BYTES:].tobytes(), "little"):
            raise ValueError(f"{what} differs from its checksum")
        return contents[:-CRC_BYTES]
