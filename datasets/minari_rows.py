"""Arrays of a Minari dataset's episodes, read one episode at a time from its HDF5, Arrow or Parquet files.

Reads the leaves that are asked for and nothing else. Infos are seldom among them: a dataset may hold more of those than
of all the rest, and Minari's own Arrow reader cannot always read them back. Knows no streams.

    data/main_data.hdf5       episode_0/{observations/..., actions, rewards, ...}
    data/0/*.arrow            columns observations (nested), actions, rewards, ...; actions and rewards padded by a row
"""

import io
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from gymnasium import spaces
from PIL import Image

from forcing.datasets.episodes import CUT_SHORT
from forcing.datasets.hdf5_files import opened_hdf5
from forcing.policy.types import Array

Leaf = tuple[str, ...]
Leaves = Mapping[Leaf, spaces.Box | None]
INFOS = "infos"


def minari_rows(folder: Path, data_format: str, count: int, leaves: Leaves) -> Iterator[dict[Leaf, Array]]:
    """Of each of `count` episodes, the rows of each leaf [rows, *shape]; rewards [rows] are always among them.

    folder: has `data/`. leaves: such as ("observations", "camera", "left") or ("actions",), and their spaces; None
    where nobody has said one, as of infos, which have a row more than actions. JPEGs are decoded. Raises ValueError
    naming the file, the episode and the leaf if one is absent, objects, or unreadable.
    """
    read = _hdf5_episode if data_format == "hdf5" else _arrow_episode
    wanted = {("rewards",): spaces.Box(-np.inf, np.inf, ()), **leaves}
    for index in range(count):
        yield read(folder, data_format, index, wanted)


def _hdf5_episode(folder: Path, _: str, index: int, leaves: Leaves) -> dict[Leaf, Array]:
    path = folder / "data" / "main_data.hdf5"
    with opened_hdf5(path) as file:
        episode = file[f"episode_{index}"]
        return {leaf: _hdf5_leaf(episode, leaf, box, path) for leaf, box in leaves.items()}


def _hdf5_leaf(episode: h5py.Group, leaf: Leaf, box: spaces.Box | None, path: Path) -> Array:
    where = f"{path}: {episode.name[1:]}/{'/'.join(leaf)}"
    stored = episode.get("/".join(leaf))
    if not isinstance(stored, h5py.Dataset):
        if leaf[0] == INFOS:
            raise _no_info(where, leaf, list(episode.get(INFOS, {})))
        raise ValueError(f"{where} is missing; {CUT_SHORT}")
    encoded = h5py.check_vlen_dtype(stored.dtype) == np.uint8 or (
        box is not None and stored.dtype == np.uint8 and stored.shape[1:] != box.shape and stored.ndim == 2
    )
    return _decoded(stored[()], where) if encoded else _numbers(np.asarray(stored[()]), where)


def _arrow_episode(folder: Path, data_format: str, index: int, leaves: Leaves) -> dict[Leaf, Array]:
    import pyarrow
    import pyarrow.dataset

    path = folder / "data" / str(index)
    try:
        found = pyarrow.dataset.dataset(path, format=data_format, ignore_prefixes=["_", ".", "metadata.json"])
        table = found.to_table(columns=sorted({leaf[0] for leaf in leaves}))
        table.validate(full=True)  # of an altered file the offsets may point anywhere
        return {leaf: _arrow_leaf(table, leaf, box, path) for leaf, box in leaves.items()}
    except (OSError, KeyError, pyarrow.ArrowException) as error:
        raise ValueError(f"{path}: cannot be read to its end ({str(error).splitlines()[0]}); {CUT_SHORT}") from error


def _arrow_leaf(table: Any, leaf: Leaf, box: spaces.Box | None, path: Path) -> Array:
    import pyarrow

    where = f"{path}: {'/'.join(leaf)}"
    column = table.column(leaf[0]).combine_chunks()
    for name in leaf[1:]:
        if not pyarrow.types.is_struct(column.type) or column.type.get_field_index(name) < 0:
            if leaf[0] == INFOS:
                raise _no_info(where, leaf, [field.name for field in column.type])
            raise ValueError(f"{where} is missing; {CUT_SHORT}")
        column = column.field(name)
    if leaf[0] not in ("observations", INFOS):
        column = column[:-1]
    if pyarrow.types.is_binary(column.type):
        return _decoded([value.as_py() for value in column], where)
    if pyarrow.types.is_fixed_size_list(column.type):
        shape = (column.type.list_size,) if box is None else box.shape
        if column.type.list_size != int(np.prod(shape)):
            raise ValueError(
                f"{where} must have rows of {int(np.prod(shape))} numbers as its space has, got "
                f"{column.type.list_size}; {CUT_SHORT}"
            )
        return _numbers(column.flatten().to_numpy(zero_copy_only=False), where).reshape(len(column), *shape)
    return _numbers(column.to_numpy(zero_copy_only=False), where)


def _no_info(where: str, leaf: Leaf, known: Sequence[str]) -> ValueError:
    return ValueError(f"{where} is missing; there are {', '.join(known) or 'none'}")


def _numbers(values: Array, where: str) -> Array:
    if values.dtype.kind not in "biuf":
        raise ValueError(f"{where} must be an array of numbers, got dtype {values.dtype}; record it as numbers")
    return values


def _decoded(files: Any, where: str) -> Array:
    """[rows, height, width(, 3)] of JPEG files."""
    try:
        return np.stack([np.asarray(Image.open(io.BytesIO(bytes(file))), dtype=np.uint8) for file in files])
    except (OSError, ValueError) as error:
        raise ValueError(f"{where} holds a frame that is no readable JPEG ({error}); {CUT_SHORT}") from error
