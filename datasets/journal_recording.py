"""Journals as recordings, an episode at a time: those of a server, and those of a `recorder.Recorder`.

Files that are still written, and files that a killed writer left, are read up to their last whole entry.
"""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from forcing.datasets.episodes import FIRST_FEW, Episode
from forcing.datasets.journal import SUFFIX, number_of, whole_entries
from forcing.policy.types import Array, StreamSpec, TrajectorySpec


class Journals:
    """The `Recording` in a journal or a folder of them: episodes of servers, session by session, then those of
    Recorders; of each in the order of their numbers.

    A server's episode is one for as long as every step is known: what a robot did of its own between two acts divides
    it, and one of a single act is left out. A stream that was not read at a step, or left aside, keeps what it was
    before; how many of all readings that were is in the provenance (`not_read`). A Recorder's is all that was recorded
    of it, numbers as they came, with seeds, options and ends (terminated, truncated, cut) in the provenance, and how
    many bytes were no whole entry (`torn`). Files of a folder that have bytes and no whole entry are among those too.
    """

    def __init__(self, path: str | Path) -> None:
        """Raises ValueError if a file is no journal, or they are of different robots, or nothing was written yet."""
        self._path = Path(path).expanduser()
        self._spec, self._files, self._torn = _opened_files(self._path)
        self._log = _Log(self._torn)

    @property
    def spec(self) -> TrajectorySpec:
        return self._spec

    def episodes(self) -> Iterator[Episode]:
        """Raises ValueError if there is none."""
        self._log = _Log(self._torn)
        for file in self._files:
            read = _recorded if file.recorded else _served
            yield from read(file.path, self._spec, self._log)
        if self._log.episodes == 0:
            raise ValueError(f"{self._path}: holds no episode of a step, or of two acts, yet")

    def provenance(self) -> Mapping[str, Any]:
        return {"source": "journal", "file": self._path.resolve().name, **self._log.to_json()}


@dataclass(frozen=True, slots=True)
class _File:
    """recorded: by a Recorder, else by a server."""

    path: Path
    recorded: bool


class _Log:
    """What the provenance says, gathered as episodes are read. torn: bytes of files without a whole entry."""

    def __init__(self, torn: Mapping[str, int]) -> None:
        self.episodes = self.wanted = self.missed = self.last_actions = 0
        self.policies, self.sources, self.left_out = set[str](), set[str](), set[str]()
        self.resets: list[tuple[Any, Any]] = []
        self.ends: Counter[str] = Counter()
        self.torn = dict(torn)

    def to_json(self) -> dict[str, Any]:
        result: dict[str, Any] = {}
        if self.policies:
            read = f"{self.missed} of {self.wanted} readings"
            result |= {"policies": sorted(self.policies), "not_read": read}
            result["last_actions_left_out"] = self.last_actions
        if self.sources:
            result |= {"recorded": sorted(self.sources), "ends": dict(sorted(self.ends.items()))}
            result["seeds"] = [seed for seed, _ in self.resets]
        if any(options is not None for _, options in self.resets):
            result["options"] = [options for _, options in self.resets]
        if self.left_out:
            result["left_out"] = dict.fromkeys(sorted(self.left_out), "it is no Box")
        if self.torn:
            first = dict(list(self.torn.items())[:FIRST_FEW])
            result["torn"] = {"files": len(self.torn), "bytes": sum(self.torn.values()), "first": first}
        return result


def _opened_files(path: Path) -> tuple[TrajectorySpec, list[_File], dict[str, int]]:
    """The spec that all have, they, in their order, and the bytes of those that have no whole entry."""
    found, torn, first, spec = list[_File](), dict[str, int](), None, None
    for file in sorted(path.glob(f"*{SUFFIX}")) if path.is_dir() else [path]:
        opened = next((entry for entry, _ in whole_entries(file)), None)
        if opened is None and path.is_dir():
            if size := file.stat().st_size:
                torn[file.name] = size
            continue  # begun, and nothing was written yet
        if not isinstance(opened, dict) or opened.get("kind") not in ("open", "recorded"):
            raise ValueError(f"{file}: does not begin with what was opened; it is no journal of a server or a Recorder")
        if spec is None:
            first, spec = opened["spec"], TrajectorySpec.from_json(opened["spec"])
        elif opened["spec"] != first:
            raise ValueError(f"{file}: is of another robot than those before it; read each by itself")
        found.append(_File(file, opened["kind"] == "recorded"))
    if spec is None:
        raise ValueError(f"{path}: holds no episode yet")
    return spec, sorted(found, key=_place), torn


def _place(file: _File) -> tuple[bool, str, int]:
    """Recorders number their episodes; servers do so for each session alone, and no entry says when it was."""
    session = "" if file.recorded else file.path.stem.rpartition(".")[0]
    return file.recorded, session, number_of(file.path)


def _recorded(path: Path, spec: TrajectorySpec, log: _Log) -> Iterator[Episode]:
    """The one episode of a Recorder's journal; none if no step of it was recorded."""
    opened = dict[str, Any]()
    rows = {stream.name: _Rows() for stream in spec.streams if stream.role != "reward"}
    rewards, end, at = list[float](), "cut", 0
    size = path.stat().st_size  # before it is read: it may still grow
    for entry, whole in whole_entries(path):
        opened, at = opened or entry, whole
        if entry["kind"] in ("reset", "stepped"):
            for stream in spec.of_role("observation"):
                rows[stream.name].add(entry["observation"][stream.name])
        if entry["kind"] == "stepped":
            rows[spec.action.name].add(entry["action"])
            rewards.append(entry["reward"])
            end = "terminated" if entry["terminated"] else "truncated" if entry["truncated"] else "cut"
    if size > at:
        log.torn[path.name] = size - at
    if not rewards:
        return
    log.episodes += 1
    log.sources.add(f"{opened['name']} ({opened['env']})")
    log.left_out |= set(opened["left_out"])
    log.resets.append((opened["seed"], opened["options"]))
    log.ends[end] += 1
    reward = np.array(rewards)
    streams = {
        stream.name: reward if stream.role == "reward" else rows[stream.name].joined(stream.shape)
        for stream in spec.streams
    }
    yield Episode(streams, str(path))


class _Rows:
    """One stream's arrays, gathered as they stand in entries."""

    def __init__(self) -> None:
        self._runs: list[tuple[str, bytearray]] = []  # of one type each

    def add(self, array: tuple[str, bytes]) -> None:
        kind, data = array
        if not self._runs or self._runs[-1][0] != kind:
            self._runs.append((kind, bytearray()))
        self._runs[-1][1].extend(data)

    def joined(self, shape: tuple[int, ...]) -> Array:
        """[rows, *shape], of the one type that holds all of theirs."""
        runs = [np.frombuffer(data, kind).reshape(-1, *shape) for kind, data in self._runs]
        return runs[0] if len(runs) == 1 else np.concatenate(runs)


def _served(path: Path, spec: TrajectorySpec, log: _Log) -> Iterator[Episode]:
    """The episodes of a server's journal."""
    entries = (entry for entry, _ in whole_entries(path))
    opened = next(entries)
    for part in _parts(_acts(entries)):
        streams, holes = _streams(part, spec)
        log.episodes, log.missed = log.episodes + 1, log.missed + holes
        log.last_actions += 1
        log.wanted += len(part) * len(spec.of_role("observation"))
        log.policies.add(opened["policy"])
        yield Episode(streams, str(path))


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
