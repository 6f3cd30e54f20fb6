"""What a store's files and attributes look like: names, sizes of chunks, header and episode table.

Drawn in docs/store.md. Knows nothing of how stores are written or read.
"""

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from forcing.policy.types import EpisodeNote

FORMAT = "forcing-trajectories"
VERSION = 2
LENGTHS = "lengths"
REMEDY = "restore it from a copy or convert the recording again (forcing data convert)"

CHUNK_BYTES = 1 << 20  # of numbers
CHUNK_FRAMES = 32  # about a window
CHUNK_FRAMES_BYTES = 4 << 20  # unless frames are large
SHARD_FRAMES = 1024
SHARD_BYTES = 32 << 20  # decoded; a writer holds one shard of each camera


class StoreError(ValueError):
    """A store that is absent, incomplete, altered or of a format this version does not know, or cannot be written."""


def number_chunk(row_bytes: int) -> int:
    """Rows of numbers in a chunk of about a mebibyte."""
    return max(CHUNK_BYTES // max(row_bytes, 1), 1)


def frame_chunk(row_bytes: int) -> int:
    """Frames in a chunk: a window of small ones, some mebibytes of large ones."""
    return max(min(CHUNK_FRAMES, CHUNK_FRAMES_BYTES // row_bytes), 1)


def frame_shard(row_bytes: int) -> int:
    """Frames in a shard, which is one file of many chunks."""
    chunk = frame_chunk(row_bytes)
    return max(min(SHARD_FRAMES, SHARD_BYTES // row_bytes) // chunk, 1) * chunk


def shard_file(folder: Path, name: str, shard: int, axes: int) -> Path:
    """Where zarr keeps a shard of an array that is cut along its first of `axes` axes alone."""
    return folder / name / "c" / str(shard) / Path(*["0"] * (axes - 1))


def sealed(header: Mapping[str, Any]) -> dict[str, Any]:
    """The header as JSON gives it back, with its own checksum. Raises StoreError if it is no plain finite JSON."""
    try:
        plain: dict[str, Any] = json.loads(json.dumps(dict(header), allow_nan=False))
    except (TypeError, ValueError) as error:
        raise StoreError(f"provenance and limits must be plain finite JSON: {error}") from error
    return {**plain, "header_sha256": _header_sha256(plain)}


def read_header(folder: Path) -> dict[str, Any]:
    """The attributes of the store in `folder`. Raises StoreError if they are absent, altered or of a newer version."""
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


def episode_table(notes: Sequence[EpisodeNote]) -> dict[str, Any]:
    """Notes as JSON: each task in words once, and its number for each episode; for each subset its episodes."""
    if not any(note != EpisodeNote() for note in notes):
        return {}
    tasks = list(dict.fromkeys(note.task for note in notes))
    numbers = {task: number for number, task in enumerate(tasks)}
    subsets: dict[str, list[int]] = {}
    for index, note in enumerate(notes):
        for subset in note.subsets:
            subsets.setdefault(subset, []).append(index)
    return {"tasks": tasks, "task": [numbers[note.task] for note in notes], "subsets": subsets}


def episode_notes(table: Mapping[str, Any]) -> tuple[EpisodeNote, ...]:
    """What `episode_table` was made of; the subsets of an episode in the table's order."""
    subsets: list[list[str]] = [[] for _ in table.get("task", ())]
    for name, episodes in table.get("subsets", {}).items():
        for index in episodes:
            subsets[index].append(name)
    tasks = table.get("tasks", ())
    return tuple(
        EpisodeNote(task=tasks[number], subsets=tuple(names))
        for number, names in zip(table.get("task", ()), subsets, strict=True)
    )


def _header_sha256(header: Mapping[str, Any]) -> str:
    text = json.dumps({key: header[key] for key in header if key != "header_sha256"}, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()
