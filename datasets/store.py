"""One checked zarr store for recordings: written whole or not at all, verified when opened or read.

The layout is drawn in docs/store.md. Knows nothing of where recordings come from or what they are used for.
"""

import errno
import hashlib
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import zarr

from forcing.datasets.atomic import place, staged, whereabouts
from forcing.datasets.episodes import InMemory, Recording
from forcing.datasets.store_layout import FORMAT, LENGTHS, REMEDY, StoreError, episode_notes, read_header
from forcing.datasets.store_writer import WrittenSoFar, write_arrays
from forcing.datasets.stored_frames import StoredFrames
from forcing.policy.types import Array, Frames, Trajectories, TrajectorySpec

FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


def check_target(path: str | Path, source: str | Path | None = None) -> None:
    """Raises StoreError if a store must not be written to `path`: something that is no store stands there, or `source`,
    which it is made of."""
    target = Path(path).expanduser().resolve()
    if target.exists() and not is_store(target) and not (target.is_dir() and not any(target.iterdir())):
        raise StoreError(f"{target}: exists and is not a {FORMAT} store; remove it or choose another path")
    if source is not None and target == Path(source).expanduser().resolve():
        raise StoreError(f"{target}: is the recording that is read, and would be replaced; choose another path")


def write_store(
    recording: Recording | Trajectories,
    path: str | Path,
    *,
    accept: Callable[[Trajectories], None] = lambda written: None,
) -> Path:
    """The store's path, once it is complete and on disk; an earlier store there is replaced in one go.

    A `Recording` is read episode by episode, floats become float32. Memory holds one episode and one shard of each
    camera while it is written, then all its numbers: they are read back and checked before the store takes its place.
    accept: called with what was written before that; what it raises leaves nothing. Raises
    StoreError if something that is no store stands at `path`, or the disk is full: what is there is left
    alone. Raises ValueError naming the episode if one cannot be read or does not fit.
    """
    check_target(path)
    target = Path(path).expanduser().resolve()
    source = InMemory(recording) if isinstance(recording, Trajectories) else recording
    progress = WrittenSoFar()
    try:
        with staged(target) as folder:
            write_arrays(source, zarr.create_group(zarr.storage.LocalStore(folder)), progress)
            accept(open_store(folder))
            place(folder, target)
    except OSError as error:
        if error.errno not in FULL:
            raise
        raise StoreError(_full(target, recording, progress, error)) from error
    return target


def open_store(path: str | Path) -> Trajectories:
    """The recordings in the store, exactly as they were written: numbers in memory, frames of cameras where they are.

    Raises StoreError if the store is absent, was written by a newer version, or if a single byte of its numbers differs
    from what was written. Frames are checked when they are read, or all of them by `verify_frames`.
    """
    folder = whereabouts(Path(path).expanduser().resolve())
    header = read_header(folder)
    try:
        spec = TrajectorySpec.from_json(header["spec"])
        frames: dict[str, Frames] = {}
        arrays: dict[str, Array] = {}
        for name, expected in header["arrays"].items():
            if "shard_rows" in expected:
                frames[name.removeprefix("streams/")] = _stored_frames(folder, name, expected)
            else:
                arrays[name] = _read_array(folder, name, expected)
        images = {stream.name for stream in spec.streams if stream.image}
        numbers = {name.removeprefix("streams/"): rows for name, rows in arrays.items() if name != LENGTHS}
        # Version 1 kept frames like numbers.
        frames |= {name: rows for name, rows in numbers.items() if name in images}
        return Trajectories(
            spec=spec,
            streams={name: rows for name, rows in numbers.items() if name not in images},
            lengths=arrays[LENGTHS],
            provenance=header["provenance"],
            frames=frames,
            notes=episode_notes(header.get("episodes", {})),
        )
    except StoreError:
        raise
    except (KeyError, ValueError, IndexError) as error:
        raise StoreError(f"{folder}: spec and arrays contradict each other ({error}); {REMEDY}") from error


def verify_frames(path: str | Path) -> None:
    """Reads every frame. Raises StoreError, naming stream and file or checksum, at the first that was altered."""
    folder = whereabouts(Path(path).expanduser().resolve())
    for name, expected in read_header(folder)["arrays"].items():
        if "shard_rows" not in expected:
            continue
        frames, digest = _stored_frames(folder, name, expected), hashlib.sha256()
        scratch = frames.new_chunks(1)[0]
        for chunk in range(frames.chunks):
            frames.decode(chunk, scratch)
            digest.update(scratch[: len(frames) - chunk * frames.chunk_rows].reshape(-1).view(np.uint8).data)
        if digest.hexdigest() != expected["sha256"]:
            raise StoreError(
                f"{folder / name}: stream {name.removeprefix('streams/')!r} must have sha256 {expected['sha256']}, "
                f"found {digest.hexdigest()}; {REMEDY}"
            )


def is_store(path: Path) -> bool:
    """Whether a store of ours stands at `path`, whole or broken."""
    document = whereabouts(path) / "zarr.json"
    return document.is_file() and FORMAT.encode() in document.read_bytes()


def _full(target: Path, recording: Recording | Trajectories, progress: WrittenSoFar, error: OSError) -> str:
    free = shutil.disk_usage(target.parent).free / 1e6
    needed = f"{progress.read_bytes / 1e6:.1f} MB of the recording were read, uncompressed, when it was full"
    if isinstance(recording, Trajectories):
        arrays = [*recording.streams.values(), *recording.frames.values()]
        size = sum(float(np.prod(array.shape)) * array.dtype.itemsize for array in arrays)
        needed = f"up to {size / 1e6:.1f} MB are needed"
    return (
        f"{target}: no room for the store ({error.strerror}): {needed}, {free:.1f} MB are free; what was there before "
        "is untouched: free some space or choose another path"
    )


def _stored_frames(folder: Path, name: str, expected: Mapping[str, Any]) -> StoredFrames:
    return StoredFrames(
        folder,
        name,
        shape=tuple(expected["shape"]),
        dtype=expected["dtype"],
        chunk_rows=expected["chunk_rows"],
        shard_rows=expected["shard_rows"],
    )


def _read_array(folder: Path, name: str, expected: Mapping[str, Any]) -> Array:
    where = f"{folder / name}: {'array' if name == LENGTHS else 'stream'} {name.removeprefix('streams/')!r}"
    if not (folder / name / "zarr.json").is_file():
        raise StoreError(f"{where} is missing; {REMEDY}")
    try:
        array = np.asarray(zarr.open_array(zarr.storage.LocalStore(folder / name, read_only=True), mode="r")[...])
    except Exception as error:  # whatever the decoders raise on altered bytes; re-raised with the stream's name
        raise StoreError(f"{where} cannot be decoded ({type(error).__name__}: {error}); {REMEDY}") from error
    contents = np.ascontiguousarray(array).reshape(-1).view(np.uint8).data
    found = {"shape": list(array.shape), "dtype": array.dtype.str, "sha256": hashlib.sha256(contents).hexdigest()}
    for key in ("shape", "dtype", "sha256"):
        if found[key] != expected[key]:
            raise StoreError(f"{where} must have {key} {expected[key]}, found {found[key]}; {REMEDY}")
    return array
