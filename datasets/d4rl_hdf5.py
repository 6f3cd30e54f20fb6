"""Recordings out of D4RL's flat HDF5 files: one long stream of rows, cut into episodes here. Knows no simulator.

An episode ends where `terminals` or `timeouts` says so, and where the position jumps farther than physics allows (a
reset that nobody flagged; `motion.jumps` derives the limit from the file). A new goal is no end: the robot goes on. The
last row of an episode has no successor, so n rows give n - 1 steps.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from forcing.datasets.columns import numbers
from forcing.datasets.hdf5_files import opened_hdf5
from forcing.datasets.motion import jumps
from forcing.datasets.pointmaze import CONTROL_HZ, pointmaze_spec, pointmaze_streams
from forcing.datasets.rows import EpisodeRows
from forcing.policy.types import Array, StreamSpec, Trajectories, TrajectorySpec

REQUIRED = ("observations", "actions", "rewards", "terminals")
SOURCE_NAMES = {"observation": "observations", "action": "actions", "reward": "rewards"}


def read_d4rl_hdf5(path: str | Path, *, control_hz: float | None = None) -> Trajectories:
    """The recordings of a D4RL file, floats as float32.

    Files with observations [R, 4] and infos/qpos, infos/qvel [R, 2] are maze2d: position, velocity, action, reward at
    100 Hz. Others keep `observation`, and control_hz must be passed. Segments of a single row are left out and
    counted in the provenance. Raises ValueError naming the file, the array, the rule and the remedy.
    """
    source = Path(path).expanduser()
    columns = _columns(source)
    rows = len(columns["rewards"])
    maze = _is_maze2d(columns)
    if not maze and control_hz is None:
        raise ValueError(f"{source}: control_hz is not recorded and must be passed (for example --control-hz 20)")
    spec = pointmaze_spec(control_hz=control_hz or CONTROL_HZ) if maze else _generic_spec(columns, control_hz or 0.0)
    observed = pointmaze_streams(columns["observations"]) if maze else {"observation": columns["observations"]}
    unflagged = jumps(observed["position"], observed["velocity"]) if maze else np.zeros(0, np.int64)
    gathered, episodes, single_rows = EpisodeRows(spec), 0, 0
    for first, end in _segments(_flagged(columns), unflagged, rows):
        if end - first < 2:
            single_rows += 1
            continue
        episodes += 1
        streams = {name: values[first:end] for name, values in observed.items()}
        streams["action"] = columns["actions"][first : end - 1]
        streams["reward"] = columns["rewards"][first : end - 1]
        gathered.add(streams, end - first - 1, f"{source}: rows {first} to {end - 1}")
    if single_rows == rows:
        raise ValueError(f"{source}: every row is flagged as the end of an episode; no step is left")
    flagged = _flagged(columns)
    return gathered.trajectories(
        {
            "source": "d4rl",
            "file": source.name,
            "rows": rows,
            "cut_at_flags": int(flagged.sum()),
            "cut_at_jumps": int((~flagged[unflagged]).sum()),
            "last_actions_left_out": episodes,
            "single_rows_left_out": single_rows,
            "source_names": SOURCE_NAMES if not maze else {name: SOURCE_NAMES[name] for name in ("action", "reward")},
            "goals": None,
        }
    )


def is_d4rl_hdf5(path: Path) -> bool:
    """Whether `path` is an HDF5 file with D4RL's columns, or one too broken to tell."""
    if not path.is_file() or not h5py.is_hdf5(path):
        return False
    try:
        with h5py.File(path, "r") as file:
            return all(isinstance(file.get(name), h5py.Dataset) for name in REQUIRED)
    except (OSError, RuntimeError):
        return True  # reading it says what is wrong


def _columns(source: Path) -> dict[str, Array]:
    with opened_hdf5(source) as file:
        missing = [name for name in REQUIRED if not isinstance(file.get(name), h5py.Dataset)]
        if missing:
            raise ValueError(f"{source}: D4RL's arrays {missing} are missing, found {sorted(file)}")
        names = [*REQUIRED, "timeouts", "infos/qpos", "infos/qvel"]
        columns = {name: np.asarray(file[name][()]) for name in names if isinstance(file.get(name), h5py.Dataset)}
    for name, values in columns.items():
        numbers(values, f"{source}: {name!r}")
    for name, values in columns.items():
        if len(values) != len(columns["rewards"]):
            raise ValueError(
                f"{source}: {name!r} must have {len(columns['rewards'])} rows as 'rewards' has, got {len(values)}; "
                "download it again"
            )
    if len(columns["rewards"]) < 2:
        raise ValueError(f"{source}: must have at least 2 rows, got {len(columns['rewards'])}")
    return columns


def _is_maze2d(columns: Mapping[str, Array]) -> bool:
    planar = all(
        name in columns and columns[name].shape[1:] == (2,) for name in ("infos/qpos", "infos/qvel", "actions")
    )
    return planar and columns["observations"].shape[1:] == (4,)


def _generic_spec(columns: Mapping[str, Array], control_hz: float) -> TrajectorySpec:
    streams = (
        StreamSpec(name="observation", role="observation", shape=columns["observations"].shape[1:]),
        StreamSpec(name="action", role="action", shape=columns["actions"].shape[1:]),
        StreamSpec(name="reward", role="reward", shape=()),
    )
    return TrajectorySpec(streams=streams, control_hz=control_hz)


def _flagged(columns: Mapping[str, Array]) -> NDArray[np.bool_]:
    ends: Any = columns["terminals"].reshape(-1).astype(bool)
    if "timeouts" in columns:
        ends = ends | columns["timeouts"].reshape(-1).astype(bool)
    return np.asarray(ends)


def _segments(flagged: NDArray[np.bool_], unflagged: NDArray[np.int64], rows: int) -> list[tuple[int, int]]:
    """(first row, row after the last) of each episode."""
    last = np.union1d(np.flatnonzero(flagged), np.append(unflagged, rows - 1))
    first = np.concatenate([[0], last[:-1] + 1])
    return list(zip(first.tolist(), (last + 1).tolist(), strict=True))
