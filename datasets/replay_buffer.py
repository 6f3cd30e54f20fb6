"""Recordings out of Diffusion Policy's replay buffers and UMI's, in zarr, episode by episode. Knows no robot.

    data/action               [R, ...] one row a step, all episodes one after another
    data/NAME                 [R, ...] what was observed before each action
    meta/episode_ends         [E] row after the last of each episode

An episode of N rows is one of N - 1 steps: what came of its last action nobody saw. UMI records no action: there it is
where each gripper was brought next, which is the pose and the width of the row after.
"""

import math
import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from forcing.datasets.columns import Column, column, numbers, observation_columns
from forcing.datasets.episodes import CUT_SHORT, Episode
from forcing.datasets.zarr_files import UNREADABLE, ZarrFiles, is_zarr_folder, root_in_zip
from forcing.policy.types import Array, Role, StreamSpec, TrajectorySpec

ENDS = "meta/episode_ends"
ACTIONS, REWARDS = ("action", "actions"), ("reward", "rewards")
RATES = ("control_hz", "fps")
UMI_POSE = ("eef_pos", "eef_rot_axis_angle", "gripper_width")


class ReplayBufferRecording:
    """A `Recording` of a replay buffer, a folder or a zip, of which one episode is in memory at a time.

    Images become uint8 [h, w, c], whatever the order of their axes and their numbers. Rows after the last episode, and
    episodes of one row, are left out and counted in the provenance.
    """

    def __init__(self, path: str | Path, *, control_hz: float | None = None) -> None:
        """Raises ValueError naming the file, the array, the rule and the remedy if it is no such buffer, is broken, or
        control_hz, steps a second, is neither among its attributes nor given."""
        self._path = Path(path).expanduser()
        self._files = ZarrFiles(self._path, inside=(ENDS, "data"))
        self._arrays = self._opened()
        self._rows = int(next(iter(self._arrays.values())).shape[0])
        self._ends = self._read_ends()
        self._columns, self._left_out, self._brought = self._understood()
        hz = self._recorded_hz() if control_hz is None else control_hz
        if hz is None:
            raise ValueError(
                f"{self._path}: control_hz is not recorded and must be passed (steps a second, for example "
                "--control-hz 10)"
            )
        streams = [found.stream for found in self._columns]
        if self._brought:
            streams.append(self._umi_action())
        self._spec = TrajectorySpec(streams=tuple(streams), control_hz=float(hz))

    @property
    def spec(self) -> TrajectorySpec:
        return self._spec

    def episodes(self) -> Iterator[Episode]:
        for index, (first, end) in enumerate(self._bounds()):
            if end - first > 1:
                yield Episode(self._streams(first, end), f"{self._path}: episode {index}, rows {first} to {end - 1}")
        if self._single_rows() == len(self._ends):
            raise ValueError(f"{self._path}: every episode has a single row; no step is left; {CUT_SHORT}")

    def provenance(self) -> Mapping[str, Any]:
        single = self._single_rows()
        result: dict[str, Any] = {
            "source": "replay buffer",
            "file": self._path.name,
            "last_actions_left_out": 0 if self._brought else len(self._ends) - single,
            "single_rows_left_out": single,
            "rows_after_the_last_episode": self._rows - int(self._ends[-1]),
            "chunks_that_are_not_there": self._absent_chunks(),
            "source_names": {found.stream.name: found.source for found in self._columns},
        }
        if self._brought:
            result["action"] = f"{', '.join(self._brought)} of the next row, as no action is recorded"
        return {**result, "left_out": self._left_out} if self._left_out else result

    def _opened(self) -> dict[str, Any]:
        """The arrays below data. Raises ValueError if there are none, or not all have as many rows."""
        names = self._files.children("data")
        if not names:
            raise ValueError(f"{self._path}: data must hold arrays, such as data/action, found none; {CUT_SHORT}")
        arrays = {name: self._files.array(f"data/{name}") for name in names}
        for name, array in arrays.items():
            numbers(np.empty((0,) * array.ndim, array.dtype), f"{self._path}: data/{name}")
        rows = {name: array.shape[0] for name, array in arrays.items()}
        if len(set(rows.values())) > 1:
            raise ValueError(f"{self._path}: all arrays below data must have as many rows, got {rows}; {CUT_SHORT}")
        return arrays

    def _recorded_hz(self) -> float | None:
        for group in ("", "data", "meta"):
            attributes = self._files.attributes(group)
            rates = [attributes.get(key) for key in RATES]
            found = [float(rate) for rate in rates if isinstance(rate, int | float) and 0 < rate < math.inf]
            if found:
                return found[0]
        return None

    def _absent_chunks(self) -> dict[str, int]:
        """Of arrays in format 2, which read as zeros: a writer may leave out zeros, and a copy may have been broken
        off."""
        old = {name: array for name, array in self._arrays.items() if array.metadata.zarr_format == 2}
        counted = {name: array.nchunks - array.nchunks_initialized for name, array in old.items()}
        return {name: absent for name, absent in counted.items() if absent}

    def _read_ends(self) -> NDArray[np.int64]:
        """[E] rising, none past the arrays."""
        where = f"{self._path}: {ENDS}"
        array = self._files.array(ENDS)
        if array.ndim != 1 or array.dtype.kind not in "iu":
            raise ValueError(
                f"{where} must be [episodes] whole numbers, got {array.dtype} of shape {array.shape}; {CUT_SHORT}"
            )
        ends = self._files.rows(ENDS, array, 0, array.shape[0]).astype(np.int64)
        if not len(ends):
            raise ValueError(f"{where} must name at least 1 episode, got 0; {CUT_SHORT}")
        falls = np.flatnonzero(np.diff(ends, prepend=0) <= 0)
        if falls.size:
            at = int(falls[0])
            before = int(ends[at - 1]) if at else 0
            raise ValueError(f"{where} must rise, got {int(ends[at])} after {before} at entry {at}; {CUT_SHORT}")
        if ends[-1] > self._rows:
            raise ValueError(
                f"{where} must not exceed the {self._rows} rows of the arrays below data, got {int(ends[-1])}; "
                f"{CUT_SHORT}"
            )
        return ends

    def _understood(self) -> tuple[list[Column], dict[str, str], list[str]]:
        """What becomes a stream, why each other array does not, and of which arrays the action is made if none is."""
        actions = [name for name in ACTIONS if name in self._arrays]
        rewards = [name for name in REWARDS if name in self._arrays]
        brought = [] if actions else self._umi_poses()
        if not actions and not brought:
            raise ValueError(f"{self._path}: data/action is missing, found {sorted(self._arrays)}; {CUT_SHORT}")
        first, end = next((pair for pair in self._bounds() if pair[1] - pair[0] > 1), (0, int(self._ends[0])))
        others = [name for name in self._arrays if name not in ACTIONS + REWARDS]
        read = ((name, f"data/{name}", self._read(name, first, end), self._where(name)) for name in others)
        found, left_out = observation_columns(read, taken=("action", "reward"))
        if not found:
            raise ValueError(f"{self._path}: data has no observation beside {sorted(self._arrays)}; {CUT_SHORT}")
        roles: tuple[tuple[Role, list[str]], ...] = (("action", actions), ("reward", rewards))
        for role, names in roles:
            for source in names[:1]:
                found.append(
                    column(role, f"data/{source}", role, self._read(source, first, first + 1), self._where(source))
                )
            left_out |= {f"data/{second}": f"data/{names[0]} is the {role}" for second in names[1:]}
        return found, left_out, brought

    def _umi_poses(self) -> list[str]:
        robots = sorted({name.partition("_")[0] for name in self._arrays if name.startswith("robot")})
        return [name for robot in robots for part in UMI_POSE if (name := f"{robot}_{part}") in self._arrays]

    def _umi_action(self) -> StreamSpec:
        size = sum(int(np.prod(self._arrays[name].shape[1:])) for name in self._brought)
        return StreamSpec(name="action", role="action", shape=(size,))

    def _streams(self, first: int, end: int) -> dict[str, Array]:
        streams = {}
        for found in self._columns:
            name = found.source.removeprefix("data/")
            stop = end if found.stream.role == "observation" else end - 1
            streams[found.stream.name] = found.rows(self._read(name, first, stop), self._where(name))
        if self._brought:
            after = [self._read(name, first + 1, end).reshape(end - first - 1, -1) for name in self._brought]
            streams["action"] = np.concatenate(after, axis=1)
        return streams

    def _read(self, name: str, first: int, end: int) -> Array:
        return self._files.rows(f"data/{name}", self._arrays[name], first, end)

    def _where(self, name: str) -> str:
        return f"{self._path}: data/{name}"

    def _bounds(self) -> list[tuple[int, int]]:
        """(first row, row after the last) of each episode."""
        return list(zip([0, *self._ends[:-1].tolist()], self._ends.tolist(), strict=True))

    def _single_rows(self) -> int:
        return sum(end - first == 1 for first, end in self._bounds())


def is_replay_buffer(path: Path) -> bool:
    """Whether a replay buffer stands at `path`, whole or broken: a zarr folder with data or meta, or a zip of one.

    A zip that is too broken to tell is taken for one.
    """
    if path.is_dir():
        return is_zarr_folder(path) and any((path / name).is_dir() for name in ("data", "meta"))
    if not path.is_file() or path.suffix != ".zip":
        return False
    try:
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
    except UNREADABLE:
        return True
    return root_in_zip(names, (ENDS, "data")) is not None
