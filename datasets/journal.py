"""Journals: episodes written by a server as they happen, entry by entry, readable to the last one after a crash.

A file holds the entries of one episode, each as its length and its CRC-32 (4 bytes each, big-endian) and a msgpack map:

    open      spec, policy, ...: what the episode began with
    observed  step, request: what was read at a control step, under `observation`
    answered  step, reply: what was done then, under `action`

Frames of cameras are maps in there: {__frame__: bytes, shape: [h, w, c]}. A file that was cut off ends with its last
whole entry. What else entries hold, and of which other kinds there are, is the server's business.
"""

import struct
import zlib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgpack
import numpy as np

from forcing.datasets.rows import EpisodeRows
from forcing.policy.types import Array, StreamSpec, Trajectories, TrajectorySpec

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


def read_entries(path: Path) -> Entries:
    """The entries of a file, up to the first that is not whole."""
    data, found, at = path.read_bytes(), list[dict[str, Any]](), 0
    while len(data) - at > _HEAD.size:
        length, checksum = _HEAD.unpack_from(data, at)
        body = data[at + _HEAD.size : at + _HEAD.size + length]
        if not body or len(body) < length or zlib.crc32(body) != checksum:
            break
        found.append(msgpack.unpackb(body, object_hook=_frame_or_map))
        at += _HEAD.size + length
    return Entries(found, at)


def _frame_map(array: Array) -> dict[str, Any]:
    assert isinstance(array, np.ndarray)
    assert array.dtype == np.uint8
    return {"__frame__": array.tobytes(), "shape": list(array.shape)}


def _frame_or_map(value: dict[str, Any]) -> Any:
    if "__frame__" not in value:
        return value
    return np.frombuffer(value["__frame__"], dtype=np.uint8).reshape(value["shape"])


def holds_journals(path: Path) -> bool:
    """Whether this is a journal, or a folder of some."""
    return any(path.glob(f"*{SUFFIX}")) if path.is_dir() else path.is_file() and path.suffix == SUFFIX


def read_journals(path: str | Path) -> Trajectories:
    """The episodes in a journal or a folder of them, oldest first; floats as float32.

    An episode is one for as long as every step is known: what a robot did of its own between two acts divides it, and
    one of a single act is left out. A stream that was not read at a step, or left aside, keeps what it was before; how
    many of all readings that were is in the provenance (`not_read`). Raises ValueError if there is no episode, a file
    is no journal, or they are of different robots.
    """
    path = Path(path).expanduser()
    files = sorted(path.glob(f"*{SUFFIX}"), key=lambda file: file.stat().st_mtime_ns) if path.is_dir() else [path]
    rows, policies, missed, wanted = None, set[str](), 0, 0
    spec: TrajectorySpec | None = None
    for file in files:
        entries = read_entries(file).entries
        if not entries and path.is_dir():
            continue  # begun, and nothing was written yet
        if not entries or entries[0]["kind"] != "open":
            raise ValueError(f"{file}: does not begin with what was opened; it is no journal of a server")
        own = TrajectorySpec.from_json(entries[0]["spec"])
        if spec is not None and own != spec:
            raise ValueError(f"{file}: is of another robot than those before it; read each by itself")
        spec, policies = own, policies | {entries[0]["policy"]}
        rows = EpisodeRows(spec) if rows is None else rows
        for part in _parts(_acts(entries)):
            streams, holes = _streams(part, spec)
            missed, wanted = missed + holes, wanted + len(part) * len(spec.of_role("observation"))
            rows.add(streams, len(part) - 1, str(file))
    if rows is None or wanted == 0:
        raise ValueError(f"{path}: holds no episode of two acts or more yet")
    provenance = {"source": str(path), "format": "journal", "policies": sorted(policies)}
    return rows.trajectories(provenance | {"not_read": f"{missed} of {wanted} readings"})


@dataclass(frozen=True, slots=True)
class _Act:
    """observation: what was read and not left aside."""

    step: int
    observation: Mapping[str, Any]
    action: list[float]


def _acts(entries: Iterable[Mapping[str, Any]]) -> Iterator[_Act]:
    """Those that were answered."""
    observed: Mapping[str, Any] | None = None
    for entry in entries:
        if entry["kind"] == "observed":
            observed = entry
        elif entry["kind"] == "answered" and observed is not None and observed["step"] == entry["step"]:
            reply, read = entry["reply"], observed["request"]["observation"]
            aside = {name for name, sensor in reply.get("sensors", {}).items() if sensor["rejected"]}
            believed = {name: value for name, value in read.items() if name not in aside}
            yield _Act(entry["step"], believed, reply["action"])


def _parts(acts: Iterable[_Act]) -> Iterator[list[_Act]]:
    """Runs of acts at one step after another, of two at least."""
    part: list[_Act] = []
    for act in acts:
        if part and act.step != part[-1].step + 1:
            if len(part) > 1:
                yield part
            part = []
        part.append(act)
    if len(part) > 1:
        yield part


def _streams(part: list[_Act], spec: TrajectorySpec) -> tuple[dict[str, Array], int]:
    """Of one run of acts: observations at each, actions and rewards of all but the last, whose outcome nobody saw; and
    how many readings there were not."""
    streams, holes = dict[str, Array](), 0
    for stream in spec.streams:
        if stream.role == "observation":
            values, missing = _readings(part, stream)
            streams[stream.name], holes = values, holes + missing
        elif stream.role == "action":
            actions = np.array([act.action for act in part[:-1]], dtype=np.float64)
            streams[stream.name] = actions.reshape(len(part) - 1, *stream.shape)
        else:
            streams[stream.name] = np.zeros((len(part) - 1, *stream.shape))
    return streams, holes


def _readings(part: list[_Act], stream: StreamSpec) -> tuple[Array, int]:
    """[len(part), *shape] with the last reading, or before any the first, where there was none; and where that was."""
    kind = np.dtype(np.uint8 if stream.image else np.float64)
    read = [act.observation.get(stream.name) for act in part]
    values = [None if value is None else np.array(value, dtype=kind) for value in read]
    known = [None if value is None or not np.isfinite(value).all() else value for value in values]
    kept = [next((value for value in known if value is not None), np.zeros(stream.shape, dtype=kind))]
    for value in known:
        kept.append(kept[-1] if value is None else value)
    return np.array(kept[1:]).reshape(len(part), *stream.shape), sum(value is None for value in known)
