"""Rows of LeRobot's parquet files, an episode at a time, as numpy. Knows no streams."""

import io
import itertools
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from PIL import Image, UnidentifiedImageError

from forcing.datasets.lerobot_meta import AGAIN, UNREADABLE, Listed, unreadable
from forcing.policy.types import Array

# Rows that are decompressed at once.
BATCH = 64


def tables(path: Path, listed: Sequence[Listed], columns: Sequence[str]) -> Iterator[tuple[Listed, pa.Table]]:
    """Each episode of the file with its rows, images still compressed; one episode is in memory at a time.

    listed: the file's episodes, in order. columns: to be read, `episode_index` among them. Raises ValueError naming the
    file if it cannot be read, a column is missing, or its rows are others than those of the episodes.
    """
    waiting = list(listed)
    for index, table in _runs(path, columns):
        if not waiting or waiting[0].index != index:
            expected = f"of episode {waiting[0].index}" if waiting else "no more"
            raise ValueError(f"{path}: there must be {expected} rows, found some of episode {index}; {AGAIN}")
        episode = waiting.pop(0)
        if table.num_rows != episode.rows:
            raise ValueError(
                f"{path}: episode {index} must have {episode.rows} rows, its length in meta/, found {table.num_rows}; "
                f"{AGAIN}"
            )
        yield episode, table
    if waiting:
        raise ValueError(f"{path}: episode {waiting[0].index} must have {waiting[0].rows} rows, found none; {AGAIN}")


def numbers(column: pa.ChunkedArray, shape: tuple[int, ...], where: str) -> Array:
    """[N, *shape] as stored. Missing floats are NaN, which is how pandas writes one.

    Raises ValueError naming `where` if the column has another shape, no numbers, or gaps that cannot be told.
    """
    array: Any = column.combine_chunks()
    rows, found = len(array), []
    while pa.types.is_list(array.type) or pa.types.is_large_list(array.type) or pa.types.is_fixed_size_list(array.type):
        if array.null_count:
            raise ValueError(f"{where} has {array.null_count} rows without values; {AGAIN}")
        low, high = pc.min_max(pc.list_value_length(array)).as_py().values()
        if low != high:
            raise ValueError(f"{where} must have as many values in each row, got {low} to {high}; {AGAIN}")
        found.append(high)
        array = array.flatten()
    if tuple(found or [1]) != (shape or (1,)):
        raise ValueError(f"{where} has shape {found or [1]}, meta/info.json says {list(shape)}; {AGAIN}")
    kind = array.type
    if not (pa.types.is_floating(kind) or pa.types.is_integer(kind) or pa.types.is_boolean(kind)):
        raise ValueError(f"{where} must hold numbers, found {kind}; {AGAIN}")
    if array.null_count and not pa.types.is_floating(kind):
        raise ValueError(f"{where} has {array.null_count} missing values, which only floats may; {AGAIN}")
    return np.array(array.to_numpy(zero_copy_only=False)).reshape(rows, *shape)


def frames(column: pa.ChunkedArray, shape: tuple[int, ...], where: str) -> Array:
    """[N, h, w, c] uint8, exactly the pixels of the compressed images. Raises ValueError if one is broken or of
    another shape."""
    if not pa.types.is_struct(column.type) or "bytes" not in [field.name for field in column.type]:
        raise ValueError(f"{where} must hold images {{bytes, path}}, found {column.type}; {AGAIN}")
    result = np.empty((len(column), *shape), np.uint8)
    for row, cell in enumerate(cell for chunk in column.chunks for cell in chunk.field("bytes")):
        if not cell.is_valid:
            raise ValueError(f"{where}, row {row}: has no image in the file; write it with the images inside")
        try:
            pixels = np.asarray(Image.open(io.BytesIO(cell.as_py())))
        except (UnidentifiedImageError, OSError, ValueError, SyntaxError) as error:
            raise ValueError(f"{where}, row {row}: not a readable image ({error}); {AGAIN}") from error
        if pixels.dtype != np.uint8 or (*pixels.shape, 1)[:3] != shape:
            raise ValueError(
                f"{where}, row {row}: is an image of shape {pixels.shape} and {pixels.dtype}, must be {shape} and "
                f"uint8 after meta/info.json; {AGAIN}"
            )
        result[row] = pixels.reshape(shape)
    return result


def _runs(path: Path, columns: Sequence[str]) -> Iterator[tuple[int, pa.Table]]:
    """(episode, its rows) for each run of rows of one episode."""
    current: int | None = None
    parts: list[pa.RecordBatch] = []
    for batch in _batches(path, columns):
        index = batch.column("episode_index").to_numpy(zero_copy_only=False)
        cuts = [0, *(np.flatnonzero(index[1:] != index[:-1]) + 1).tolist(), len(index)]
        for first, end in itertools.pairwise(cuts):
            if parts and index[first] != current:
                yield int(current or 0), pa.Table.from_batches(parts)
                parts = []
            current = index[first]
            parts.append(batch.slice(first, end - first))
    if parts:
        yield int(current or 0), pa.Table.from_batches(parts)


def _batches(path: Path, columns: Sequence[str]) -> Iterator[pa.RecordBatch]:
    if not path.is_file():
        raise ValueError(f"{path}: is missing; {AGAIN}")
    try:
        with pq.ParquetFile(path, pre_buffer=False, buffer_size=1 << 20) as file:
            missing = [name for name in columns if name not in file.schema_arrow.names]
            if missing:
                raise ValueError(
                    f"{path}: column {missing[0]!r} of meta/info.json is missing, found {file.schema_arrow.names}; "
                    f"{AGAIN}"
                )
            for batch in file.iter_batches(BATCH, columns=list(columns), use_threads=False):
                if batch.num_rows:
                    yield batch
    except UNREADABLE as error:
        unreadable(path, error)
