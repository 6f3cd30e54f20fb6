"""Journals: episodes written by a server as they happen, entry by entry, readable to the last one after a crash.

A file holds the entries of one episode, each as its length and its CRC-32 (4 bytes each, big-endian) and a msgpack map:

    open     spec, policy, revision, ...: what the episode began with
    act      step, request (with the observation), action, ...: a control step that was answered

A file that was cut off ends with its last whole entry. What else entries hold is the server's business.
"""

import struct
import zlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import msgpack
import numpy as np

from forcing.datasets.rows import EpisodeRows
from forcing.policy.types import Array, Trajectories, TrajectorySpec

SUFFIX = ".journal"
_HEAD = struct.Struct(">II")


def packed(entry: Mapping[str, Any]) -> bytes:
    """An entry as it stands in a file."""
    body = bytes(msgpack.packb(entry))
    return _HEAD.pack(len(body), zlib.crc32(body)) + body


def entries(path: Path) -> Iterator[dict[str, Any]]:
    """The entries of a file, up to the first that is not whole."""
    with path.open("rb") as file:
        while len(head := file.read(_HEAD.size)) == _HEAD.size:
            length, checksum = _HEAD.unpack(head)
            body = file.read(length)
            if len(body) < length or zlib.crc32(body) != checksum:
                return
            yield msgpack.unpackb(body)


def holds_journals(path: Path) -> bool:
    """Whether this is a journal, or a folder of some."""
    return path.is_file() and path.suffix == SUFFIX if not path.is_dir() else any(path.glob(f"*{SUFFIX}"))


def read_journals(path: str | Path) -> Trajectories:
    """The episodes in a journal or a folder of them, oldest first; floats as float32.

    A stream that was not read keeps what it was before. An episode is one for as long as every step is known: what a
    robot did of its own between two acts divides it, and one of a single act is left out. Raises ValueError if there is
    none, or they are of different robots.
    """
    path = Path(path).expanduser()
    files = sorted(path.glob(f"*{SUFFIX}"), key=lambda file: file.stat().st_mtime_ns) if path.is_dir() else [path]
    rows, spec, policies = None, None, set[str]()
    for file in files:
        found = list(entries(file))
        if not found:
            continue
        if found[0]["kind"] != "open":
            raise ValueError(f"{file}: does not begin with what was opened; it is no journal of a server")
        own = TrajectorySpec.from_json(found[0]["spec"])
        if spec is not None and own != spec:
            raise ValueError(f"{file}: is of another robot than those before it; read each by itself")
        spec, policies = own, policies | {found[0]["policy"]}
        rows = EpisodeRows(spec) if rows is None else rows
        for part in _parts([entry for entry in found if entry["kind"] == "act"]):
            streams = _streams(part, spec)
            rows.add(streams, len(part) - 1, str(file))
    if rows is None or spec is None:
        raise ValueError(f"{path}: holds no episode yet")
    return rows.trajectories({"source": str(path), "format": "journal", "policies": sorted(policies)})


def _parts(acts: Sequence[Mapping[str, Any]]) -> Iterator[list[Mapping[str, Any]]]:
    """Runs of acts at one step after another, of two at least."""
    part: list[Mapping[str, Any]] = []
    for act in acts:
        if part and act["step"] != part[-1]["step"] + 1:
            if len(part) > 1:
                yield part
            part = []
        part.append(act)
    if len(part) > 1:
        yield part


def _streams(part: Sequence[Mapping[str, Any]], spec: TrajectorySpec) -> dict[str, Array]:
    """Of one run of acts: observations at each, actions and rewards of all but the last, whose outcome nobody saw."""
    streams: dict[str, Array] = {}
    for stream in spec.streams:
        if stream.role == "observation":
            read = [_reading(act, stream.name) for act in part]
            kept = [next((value for value in read if value is not None), np.zeros(stream.shape))]
            for value in read:
                kept.append(kept[-1] if value is None else value)
            streams[stream.name] = np.array(kept[1:]).reshape(len(part), *stream.shape)
        elif stream.role == "action":
            actions = [act["action"] for act in part[:-1]]
            streams[stream.name] = np.array(actions, dtype=np.float64).reshape(len(part) - 1, *stream.shape)
        else:
            streams[stream.name] = np.zeros((len(part) - 1, *stream.shape))
    return streams


def _reading(act: Mapping[str, Any], name: str) -> Array | None:
    """What was read of a stream; None if nothing was, or something that is no number."""
    value = np.array(act["request"]["observation"].get(name, np.nan), dtype=np.float64)
    return value if np.isfinite(value).all() else None
