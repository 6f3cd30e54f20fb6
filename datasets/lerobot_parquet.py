"""numpy to parquet as LeRobot lays it out: types, schemas and files of a limited size. Knows no recording."""

import io
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

from forcing.policy.types import Array

FILES_IN_A_CHUNK = 1000
FILE_MB = 100
FILE = "chunk-{chunk_index:03d}/file-{file_index:03d}"
IMAGE = pa.struct([("bytes", pa.binary()), ("path", pa.string())])


@dataclass(slots=True)
class RollingTable:
    """Parquet files below a folder that tables are added to, a new one when the last is full."""

    folder: Path
    schema: pa.Schema
    number: int = 0
    file: BinaryIO | None = None
    writer: pq.ParquetWriter | None = None

    def next_place(self) -> dict[str, int]:
        """Which file the next table goes to."""
        if self.file is not None and self.file.tell() >= FILE_MB << 20:
            self.close()
            self.number += 1
        return {"chunk_index": self.number // FILES_IN_A_CHUNK, "file_index": self.number % FILES_IN_A_CHUNK}

    def add(self, table: pa.Table) -> None:
        place = self.next_place()
        if self.writer is None:
            path = self.folder / f"{FILE.format(**place)}.parquet"
            path.parent.mkdir(parents=True, exist_ok=True)
            self.file = path.open("wb")
            self.writer = pq.ParquetWriter(self.file, self.schema, compression="snappy")
        self.writer.write_table(table)

    def close(self) -> None:
        try:
            if self.writer is not None:
                self.writer.close()
        finally:
            if self.file is not None:
                self.file.close()
            self.writer, self.file = None, None


def column_type(dtype: np.dtype[Any], shape: tuple[int, ...]) -> pa.DataType:
    """Of numbers of this shape a row: [1] are plain, vectors lists of fixed size, the rest lists of lists."""
    scalar = pa.from_numpy_dtype(dtype)
    if shape == (1,):
        return scalar
    return pa.list_(scalar, shape[0]) if len(shape) == 1 else nested(scalar, len(shape))


def nested(scalar: pa.DataType, depth: int) -> pa.DataType:
    """Lists of lists, `depth` of them."""
    return scalar if depth == 0 else pa.list_(nested(scalar, depth - 1))


def column(values: Array, shape: tuple[int, ...]) -> pa.Array:
    """Of values [N, *shape], typed as `column_type` says."""
    array = pa.array(np.ascontiguousarray(values).reshape(-1))
    if shape == (1,):
        return array
    if len(shape) == 1:
        return pa.FixedSizeListArray.from_arrays(array, shape[0])
    for size in reversed(shape):
        array = pa.ListArray.from_arrays(pa.array(np.arange(0, len(array) + 1, size, dtype=np.int32)), array)
    return array


def images(frames: Array) -> pa.Array:
    """PNG of frames [N, h, w, c] uint8, which keeps every pixel."""
    cells = []
    for row, frame in enumerate(frames):
        buffer = io.BytesIO()
        Image.fromarray(frame[..., 0] if frame.shape[2] == 1 else frame).save(buffer, "PNG")
        cells.append({"bytes": buffer.getvalue(), "path": f"frame-{row:06d}.png"})
    return pa.array(cells, IMAGE)


def hub_feature(dtype: str, shape: tuple[int, ...]) -> dict[str, Any]:
    """A feature as Hugging Face's datasets write it beside a schema. dtype: numpy's, or image."""
    if dtype == "image":
        return {"_type": "Image"}
    value = {"dtype": dtype, "_type": "Value"}
    if shape == (1,):
        return value
    if len(shape) == 1:
        return {"feature": value, "length": shape[0], "_type": "List"}
    return {"shape": list(shape), "dtype": dtype, "_type": f"Array{len(shape)}D"}


def with_hub_features(schema: pa.Schema, features: Mapping[str, Any]) -> pa.Schema:
    """The schema with what makes Hugging Face's datasets give out images rather than bytes."""
    return schema.with_metadata({"huggingface": json.dumps({"info": {"features": features}})})


def write_tasks(tasks: list[str], path: Path) -> None:
    """The table of tasks, whose words are its index to pandas, as LeRobot expects."""
    text = {"pandas_type": "unicode", "numpy_type": "object"}
    number = {"pandas_type": "int64", "numpy_type": "int64", "metadata": None}
    pandas = {
        "index_columns": ["task"],
        "column_indexes": [{"name": None, "field_name": None, **text, "metadata": {"encoding": "UTF-8"}}],
        "columns": [
            {"name": "task_index", "field_name": "task_index", **number},
            {"name": "task", "field_name": "task", **text, "metadata": None},
        ],
        "attributes": {},
        "creator": {"library": "pyarrow", "version": pa.__version__},
        "pandas_version": "2.3.3",
    }
    schema = pa.schema([("task_index", pa.int64()), ("task", pa.string())], {"pandas": json.dumps(pandas)})
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.table({"task_index": range(len(tasks)), "task": tasks}, schema=schema), path)
