"""Journals: episodes written as they happen, entry by entry, readable to the last one after a crash.

A file holds the entries of one episode, each as its length and its CRC-32 (4 bytes each, big-endian) and a msgpack map.
The first says by which of two writers (`journal_recording` reads both):

    of a server              open      spec, policy, ...: what the episode began with
                             observed  step, request: what was read at a control step, under `observation`
                             answered  step, reply: what was done then, under `action`
    of `recorder.Recorder`   recorded  spec, name, env, left_out, seed, options: what the episode began with
                             reset     observation
                             stepped   action, reward, terminated, truncated, observation: what the step came to

An array of a Recorder is a pair of numpy's name of its type and its bytes in C order; a frame of a camera in a server's
is a map: {__frame__: bytes, shape: [h, w, c]}. A file that was cut off ends with its last whole entry. What else
entries of a server hold, and of which other kinds there are, is the server's business.
"""

import struct
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgpack
import numpy as np

from forcing.policy.types import Array

SUFFIX = ".journal"
_HEAD = struct.Struct(">II")


@dataclass(frozen=True, slots=True)
class Entries:
    """Those of a file that are whole, and how many bytes they are."""

    entries: list[dict[str, Any]]
    size: int


def packed(entry: Mapping[str, Any]) -> bytes:
    """An entry as it stands in a file. Arrays in it must be of uint8."""
    body = bytes(msgpack.packb(entry, default=_frame_map))
    return _HEAD.pack(len(body), zlib.crc32(body)) + body


def whole_entries(path: Path) -> Iterator[tuple[dict[str, Any], int]]:
    """Each entry of a file up to the first that is not whole, and the byte where it ends; one in memory at a time."""
    with path.open("rb") as file:
        left, at = path.stat().st_size, 0
        while left > _HEAD.size:
            length, checksum = _HEAD.unpack(file.read(_HEAD.size))
            left -= _HEAD.size + length
            body = file.read(length) if left >= 0 else b""
            if not body or zlib.crc32(body) != checksum:
                break
            at += _HEAD.size + length
            yield msgpack.unpackb(body, object_hook=_frame_or_map), at


def _frame_map(array: Array) -> dict[str, Any]:
    assert isinstance(array, np.ndarray)
    assert array.dtype == np.uint8
    return {"__frame__": array.tobytes(), "shape": list(array.shape)}


def _frame_or_map(value: dict[str, Any]) -> Any:
    if "__frame__" not in value:
        return value
    return np.frombuffer(value["__frame__"], dtype=np.uint8).reshape(value["shape"])


def read_entries(path: Path) -> Entries:
    """The entries of a file, up to the first that is not whole."""
    found, size = list[dict[str, Any]](), 0
    for entry, end in whole_entries(path):
        found.append(entry)
        size = end
    return Entries(found, size)


def number_of(path: Path) -> int:
    """Which episode of its session, or of its folder if a Recorder's, a journal holds; -1 if its name says none."""
    number = path.stem.rpartition(".")[2]
    return int(number) if number.isdecimal() else -1


def holds_journals(path: Path) -> bool:
    """Whether this is a journal, or a folder of some."""
    return any(path.glob(f"*{SUFFIX}")) if path.is_dir() else path.is_file() and path.suffix == SUFFIX
