"""One checked zarr store for recordings: written whole or not at all, verified byte by byte when opened.

The layout is drawn in docs/store.md. Knows nothing of where recordings come from or what they are used for.
"""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import zarr

from forcing.datasets.atomic import place, staged, whereabouts
from forcing.policy.types import Array, Trajectories, TrajectorySpec

FORMAT = "forcing-trajectories"
VERSION = 1
LENGTHS = "lengths"
CHUNK_BYTES = 1 << 20
REMEDY = "restore it from a copy or convert the recording again (forcing data convert)"


class StoreError(ValueError):
    """A store that is absent, incomplete, altered or of a format this version does not know."""


def check_target(path: str | Path, source: str | Path | None = None) -> None:
    """Raises StoreError if a store must not be written to `path`: something that is no store stands there, or `source`,
    which it is made of."""
    target = Path(path).expanduser().resolve()
    if target.exists() and not is_store(target) and not (target.is_dir() and not any(target.iterdir())):
        raise StoreError(f"{target}: exists and is not a {FORMAT} store; remove it or choose another path")
    if source is not None and target == Path(source).expanduser().resolve():
        raise StoreError(f"{target}: is the recording that is read, and would be replaced; choose another path")


def write_store(trajectories: Trajectories, path: str | Path) -> Path:
    """The store's path, once it is complete and on disk; an earlier store there is replaced in one go.

    Raises StoreError if something that is no store stands at `path`: it is left alone.
    """
    check_target(path)
    target = Path(path).expanduser().resolve()
    every = {**trajectories.streams, **{name: frames[:] for name, frames in trajectories.frames.items()}}
    arrays = {f"streams/{stream.name}": every[stream.name] for stream in trajectories.spec.streams}
    arrays[LENGTHS] = trajectories.lengths
    with staged(target) as folder:
        group = zarr.create_group(zarr.storage.LocalStore(folder), attributes=_header(trajectories, arrays))
        for name, array in arrays.items():
            # Compression (zstd) is zarr's default; its own checksum of each chunk would say nothing new.
            group.create_array(name, data=np.ascontiguousarray(array), chunks=_chunks(array))
        place(folder, target)
    return target


def open_store(path: str | Path) -> Trajectories:
    """The recordings in the store, in memory, exactly as they were written.

    Raises StoreError if the store is absent, was written by a newer version, or if a single byte of its contents
    differs from what was written.
    """
    folder = whereabouts(Path(path).expanduser().resolve())
    header = _read_header(folder)
    arrays = {name: _read_array(folder, name, expected) for name, expected in header["arrays"].items()}
    try:
        spec = TrajectorySpec.from_json(header["spec"])
        streams = {stream.name: arrays[f"streams/{stream.name}"] for stream in spec.streams if not stream.image}
        frames = {stream.name: arrays[f"streams/{stream.name}"] for stream in spec.streams if stream.image}
        return Trajectories(
            spec=spec, streams=streams, lengths=arrays[LENGTHS], provenance=header["provenance"], frames=frames
        )
    except (KeyError, ValueError) as error:
        raise StoreError(f"{folder}: spec and arrays contradict each other ({error}); {REMEDY}") from error


def is_store(path: Path) -> bool:
    """Whether a store of ours stands at `path`, whole or broken."""
    document = whereabouts(path) / "zarr.json"
    return document.is_file() and FORMAT.encode() in document.read_bytes()


def _header(trajectories: Trajectories, arrays: Mapping[str, Array]) -> dict[str, Any]:
    header = {
        "format": FORMAT,
        "version": VERSION,
        "spec": trajectories.spec.to_json(),
        "provenance": dict(trajectories.provenance),
        "arrays": {name: _signature(array) for name, array in arrays.items()},
    }
    try:
        header = json.loads(json.dumps(header, allow_nan=False))
    except (TypeError, ValueError) as error:
        raise StoreError(f"provenance and limits must be plain finite JSON: {error}") from error
    return {**header, "header_sha256": _header_sha256(header)}


def _header_sha256(header: Mapping[str, Any]) -> str:
    text = json.dumps({key: header[key] for key in header if key != "header_sha256"}, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()


def _signature(array: Array) -> dict[str, Any]:
    contents = np.ascontiguousarray(array)
    return {
        "shape": list(array.shape),
        "dtype": array.dtype.str,
        "sha256": hashlib.sha256(contents.reshape(-1).view(np.uint8).data).hexdigest(),
    }


def _chunks(array: Array) -> tuple[int, ...]:
    """About a mebibyte a chunk: tens of thousands of steps of numbers, a window of small frames."""
    row_bytes = max(array.nbytes // max(len(array), 1), 1)
    return (min(max(CHUNK_BYTES // row_bytes, 1), max(len(array), 1)), *array.shape[1:])


def _read_header(folder: Path) -> dict[str, Any]:
    document = folder / "zarr.json"
    if not document.is_file():
        found = "an unfinished or foreign folder" if folder.is_dir() else "nothing"
        raise StoreError(f"{folder}: a store needs the file zarr.json, found {found}; {REMEDY}")
    try:
        header = dict(json.loads(document.read_text())["attributes"])
        named, version = header["format"], header["version"]
    except (ValueError, KeyError, TypeError) as error:
        raise StoreError(f"{document}: must be the JSON that write_store writes ({error!r}); {REMEDY}") from error
    if named != FORMAT:
        raise StoreError(f"{document}: format must be {FORMAT!r}, got {named!r}; {REMEDY}")
    if isinstance(version, int) and version > VERSION:
        raise StoreError(f"{document}: format version must be at most {VERSION}, got {version}; update forcing")
    if header.get("header_sha256") != _header_sha256(header):
        raise StoreError(f"{document}: contents differ from their checksum; {REMEDY}")
    return header


def _read_array(folder: Path, name: str, expected: Mapping[str, Any]) -> Array:
    where = f"{folder / name}: {'array' if name == LENGTHS else 'stream'} {name.removeprefix('streams/')!r}"
    if not (folder / name / "zarr.json").is_file():
        raise StoreError(f"{where} is missing; {REMEDY}")
    try:
        array = np.asarray(zarr.open_array(zarr.storage.LocalStore(folder / name, read_only=True), mode="r")[...])
    except Exception as error:  # whatever the decoders raise on altered bytes; re-raised with the stream's name
        raise StoreError(f"{where} cannot be decoded ({type(error).__name__}: {error}); {REMEDY}") from error
    found = _signature(array)
    for key in ("shape", "dtype", "sha256"):
        if found[key] != expected[key]:
            raise StoreError(f"{where} must have {key} {expected[key]}, found {found[key]}; {REMEDY}")
    return array
