"""Recordings out of robomimic's HDF5 files, demonstration by demonstration. Knows that layout, no simulator.

    data/                     attributes: env_args, JSON, with env_kwargs.control_freq
      demo_0/                 attribute: num_samples
        actions, rewards      [N, ...]
        obs/NAME              [N, ...] before each action
        next_obs/NAME         [N, ...] after each action; not in every file
    mask/SUBSET               names of demonstrations

Where the observations after each action are recorded, N rows are N steps; else N - 1, for nobody saw what came of the
last action. What LIBERO adds to the layout, the task in words, is read too.
"""

import json
import math
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from forcing.datasets.columns import Column, column, observation_columns
from forcing.datasets.episodes import Episode
from forcing.datasets.hdf5_files import REMEDY, opened_hdf5
from forcing.policy.types import Array, EpisodeNote, Role, TrajectorySpec

READ = ("actions", "rewards", "obs", "next_obs", "dones")


class RobomimicRecording:
    """A `Recording` of a robomimic file, of which one demonstration is in memory at a time.

    Images become uint8 [h, w, c], whatever the order of their axes and their numbers. Masks become subsets.
    Demonstrations without a single step are left out and counted in the provenance.
    """

    def __init__(self, path: str | Path, *, control_hz: float | None = None) -> None:
        """Raises ValueError naming the file, the field, the rule and the remedy if it is no such file, is broken, or
        control_hz, steps a second, is neither recorded nor given."""
        self._path = Path(path).expanduser()
        with opened_hdf5(self._path) as file:
            self._demos = _demos(file, self._path)
            self._subsets = _subsets(file, self._demos, self._path)
            attributes = dict(file["data"].attrs)
            first = self._group(
                file, next((demo for demo in self._demos if self._rows(file, demo) > 0), self._demos[0])
            )
            self._columns, self._left_out, self._ends_seen = _columns(first, self._path)
        self._environment = _document(attributes.get("env_args"))
        self._task = str(_document(attributes.get("problem_info")).get("language_instruction", ""))
        hz = _recorded_hz(self._environment) if control_hz is None else control_hz
        if hz is None:
            raise ValueError(
                f"{self._path}: env_args has no env_kwargs.control_freq, so control_hz must be passed (steps a second, "
                "for example --control-hz 20)"
            )
        self._spec = TrajectorySpec(streams=tuple(found.stream for found in self._columns), control_hz=float(hz))
        self._last_actions, self._empty = 0, list[str]()

    @property
    def spec(self) -> TrajectorySpec:
        return self._spec

    def episodes(self) -> Iterator[Episode]:
        self._last_actions, self._empty = 0, []
        for demo in self._demos:
            where = f"{self._path}: data/{demo}"
            with opened_hdf5(self._path) as file:
                group = self._group(file, demo)
                rows = self._rows(file, demo)
                steps = rows if self._ends_seen else rows - 1
                if steps < 1:
                    self._empty.append(demo)
                    continue
                streams = {found.stream.name: self._stream(group, found, rows) for found in self._columns}
                note = EpisodeNote(task=_task(group) or self._task, subsets=self._subsets_of(demo))
            self._last_actions += rows - steps
            yield Episode(streams, where, note)
        if len(self._empty) == len(self._demos):
            raise ValueError(f"{self._path}: no demonstration has a step, each has a row at most; {REMEDY}")

    def provenance(self) -> Mapping[str, Any]:
        result: dict[str, Any] = {
            "source": "robomimic",
            "file": self._path.name,
            "env_name": self._environment.get("env_name"),
            "demonstrations": len(self._demos),
            "subsets": {name: len(demos) for name, demos in self._subsets.items()},
            "last_actions_left_out": self._last_actions,
            "demonstrations_left_out": list(self._empty),
            "source_names": {found.stream.name: found.source for found in self._columns},
        }
        return {**result, "left_out": self._left_out} if self._left_out else result

    def _group(self, file: h5py.File, demo: str) -> h5py.Group:
        group = file["data"][demo]
        if not isinstance(group, h5py.Group):
            raise ValueError(f"{self._path}: data/{demo} must be a group of arrays, and is one array; {REMEDY}")
        return group

    def _rows(self, file: h5py.File, demo: str) -> int:
        """Of the demonstration's actions. Raises ValueError if they are not as many as it says."""
        group = self._group(file, demo)
        rows = len(_array(group, "actions", self._path))
        said = group.attrs.get("num_samples")
        if said is not None and int(said) != rows:
            raise ValueError(
                f"{self._path}: data/{demo}/actions must have {int(said)} rows as num_samples says, got {rows}; the "
                f"demonstration was cut short: {REMEDY}"
            )
        return rows

    def _stream(self, group: h5py.Group, found: Column, rows: int) -> Array:
        """Rows of a demonstration: as many as steps, and of observations one more."""
        where = f"{self._path}: {group.name[1:]}/{found.source}"
        stored = _array(group, found.source, self._path)
        if len(stored) != rows:
            raise ValueError(f"{where} must have {rows} rows as 'actions' has, got {len(stored)}; {REMEDY}")
        observed = found.stream.role == "observation"
        values = found.rows(np.asarray(stored[()] if observed or self._ends_seen else stored[:-1]), where)
        if not (observed and self._ends_seen):
            return values
        after = _array(group, f"next_{found.source}", self._path)
        if len(after) != rows:
            raise ValueError(
                f"{self._path}: {group.name[1:]}/next_{found.source} must have {rows} rows as 'actions' has, got "
                f"{len(after)}; {REMEDY}"
            )
        return np.concatenate([values, found.rows(np.asarray(after[-1:]), where)])

    def _subsets_of(self, demo: str) -> tuple[str, ...]:
        return tuple(name for name, demos in self._subsets.items() if demo in demos)


def is_robomimic_hdf5(path: Path) -> bool:
    """Whether `path` is an HDF5 file that keeps its recordings below the group `data`."""
    if not path.is_file() or not h5py.is_hdf5(path):
        return False
    try:
        with h5py.File(path, "r") as file:
            return isinstance(file.get("data"), h5py.Group)
    except (OSError, RuntimeError):
        return False


def _demos(file: h5py.File, path: Path) -> list[str]:
    """Names of the demonstrations, in the order of their numbers."""
    data = file.get("data")
    if not isinstance(data, h5py.Group):
        raise ValueError(f"{path}: robomimic's group 'data' is missing, found {sorted(file)}; {REMEDY}")
    if not len(data):
        raise ValueError(f"{path}: data must hold at least 1 demonstration, got 0; {REMEDY}")
    return sorted(data, key=lambda name: [int(part) if part.isdigit() else part for part in re.split(r"(\d+)", name)])


def _subsets(file: h5py.File, demos: list[str], path: Path) -> dict[str, frozenset[str]]:
    masks, known, found = file.get("mask"), set(demos), dict[str, frozenset[str]]()
    for name in masks if isinstance(masks, h5py.Group) else ():
        listed = np.asarray(_array(masks, name, path)[()]).reshape(-1)
        members = [item.decode() if isinstance(item, bytes) else str(item) for item in listed]
        absent = [member for member in members if member not in known]
        if absent:
            raise ValueError(
                f"{path}: mask/{name} must name demonstrations below data, {absent[0]!r} is none; correct the mask or "
                "restore the demonstration"
            )
        found[name] = frozenset(members)
    return found


def _columns(first: h5py.Group, path: Path) -> tuple[list[Column], dict[str, str], bool]:
    """What becomes a stream, why each other array does not, and whether every observation has one after the last
    action."""
    observed = first.get("obs")
    if not isinstance(observed, h5py.Group) or not len(observed):
        raise ValueError(
            f"{path}: {first.name[1:]}/obs is missing, found {sorted(first)}; a file of simulator states alone gets "
            "its observations from robomimic's dataset_states_to_obs.py"
        )
    found, left_out = observation_columns(_read_each(first, observed, path), taken=("action", "reward"))
    if not found:
        raise ValueError(f"{path}: {first.name[1:]}/obs has nothing that can be a stream ({left_out}); {REMEDY}")
    roles: tuple[tuple[Role, str], ...] = (("action", "actions"), ("reward", "rewards"))
    for role, source in roles:
        if source in first or role == "action":
            values = np.asarray(_array(first, source, path)[()])
            found.append(column(role, source, role, values, f"{path}: {first.name[1:]}/{source}"))
    left_out |= {name: "no observation, action or reward of robomimic's" for name in first if name not in READ}
    seen = all(f"next_{each.source}" in first for each in found if each.stream.role == "observation")
    return found, left_out, seen


def _read_each(first: h5py.Group, observed: h5py.Group, path: Path) -> Iterator[tuple[str, str, Array, str]]:
    for name in observed:
        source = f"obs/{name}"
        yield name, source, np.asarray(_array(first, source, path)[()]), f"{path}: {first.name[1:]}/{source}"


def _array(group: h5py.Group, name: str, path: Path) -> h5py.Dataset:
    """Raises ValueError if it is not there, or is one number, or objects."""
    found = group.get(name)
    where = f"{path}: {group.name[1:]}/{name}"
    if not isinstance(found, h5py.Dataset):
        raise ValueError(f"{where} is missing, found {sorted(group)}; {REMEDY}")
    if found.ndim == 0:
        raise ValueError(f"{where} must have one row a step, got a single value; {REMEDY}")
    return found


def _document(text: Any) -> dict[str, Any]:
    """The JSON object in an attribute; none if it is absent or something else."""
    try:
        found = json.loads(text) if isinstance(text, str | bytes) else {}
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}


def _recorded_hz(environment: Mapping[str, Any]) -> float | None:
    """control_freq of the environment that it was recorded in."""
    options = environment.get("env_kwargs")
    found = options.get("control_freq") if isinstance(options, dict) else None
    return float(found) if isinstance(found, int | float) and 0 < found < math.inf else None


def _task(group: h5py.Group) -> str:
    """What the demonstration itself says that was to be done."""
    return str(_document(group.attrs.get("ep_meta")).get("lang", ""))
