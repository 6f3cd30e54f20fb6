"""Recordings out of Minari datasets, by path or by id. Knows Minari's files and D4RL's pointmaze schema, no simulator.

D4RL's pointmaze gives position and velocity in one vector, and the position once more as the achieved goal: it becomes
the streams position, velocity, action and reward. Every other dataset keeps its own names. The desired goal is no
stream (a goal is given in the stream that can reach it); how far it can be trusted is written to the provenance.
"""

import difflib
import json
import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from gymnasium import spaces
from minari.dataset.minari_storage import MinariStorage

from forcing.datasets.goals import GoalLog
from forcing.datasets.pointmaze import CONTROL_HZ, pointmaze_spec, pointmaze_streams
from forcing.datasets.rows import EpisodeRows
from forcing.policy.types import Array, Role, StreamSpec, Trajectories, TrajectorySpec

IDENTIFIER = re.compile(r"[-\w]+(/[-\w]+)*-v\d+")
KEPT_METADATA = ("dataset_id", "algorithm_name", "description", "code_permalink", "author", "minari_version")


@dataclass(frozen=True, slots=True, kw_only=True)
class _Layout:
    """How a dataset's observations become streams; `left_out` names those that cannot."""

    spec: TrajectorySpec
    pointmaze: bool
    left_out: tuple[str, ...]


def read_minari(id_or_path: str | Path, *, control_hz: float | None = None, download: bool = False) -> Trajectories:
    """The recordings of a Minari dataset, floats as float32.

    id_or_path: the folder that holds `data/`, a folder with one such folder in it, or an id in Minari's local root.
    control_hz: steps a second; overrides what the dataset records, needed if it records nothing. download: fetch an
    id that is not here over the network. Raises ValueError naming the dataset, the rule and the remedy if it is
    absent, broken, of another schema, or an episode has a wrong number of rows.
    """
    folder = locate_minari(id_or_path, download=download)
    storage = _storage(folder)
    metadata = MinariStorage.read_raw_metadata(storage.data_path)
    layout: _Layout | None = None
    goals = GoalLog()
    for index, episode in enumerate(_episodes(storage, folder)):
        if layout is None:
            layout = _layout(storage, metadata, episode, control_hz, folder)
            rows = EpisodeRows(layout.spec)
        observations = episode["observations"]
        rows.add(_streams(layout, observations, episode), len(episode["rewards"]), f"{folder}: episode {index}")
        if isinstance(observations, Mapping) and isinstance(observations.get("desired_goal"), np.ndarray):
            goals.add(index, observations["desired_goal"])
    if layout is None:
        raise ValueError(f"{folder}: a dataset must have at least 1 episode, got 0; record it again")
    return rows.trajectories(_provenance(metadata, layout, goals))


def locate_minari(id_or_path: str | Path, *, download: bool = False) -> Path:
    """The folder that holds the dataset's `data/`; see `read_minari`."""
    path = Path(id_or_path).expanduser()
    if path.exists():
        return _inside(path.resolve())
    dataset_id = str(id_or_path)
    if not is_minari_id(dataset_id):
        raise ValueError(f"{dataset_id!r}: neither an existing path nor a Minari id such as D4RL/pointmaze/medium-v2")
    folder = local_root() / dataset_id
    if not (folder / "data").is_dir() and download:
        _download(dataset_id)
    if (folder / "data").is_dir():
        return folder
    close = difflib.get_close_matches(dataset_id, local_ids(), n=1)
    hint = f"did you mean {close[0]!r}? " if close else ""
    raise ValueError(
        f"Minari dataset {dataset_id!r} is not in {local_root()}: {hint}fetch it with `minari download {dataset_id}`, "
        "set MINARI_DATASETS_PATH to the folder that has it, or give a path"
    )


def holds_minari(path: Path) -> bool:
    """Whether at least one Minari dataset is at `path` or below."""
    return path.exists() and bool(_candidates(path.resolve()))


def is_minari_id(name: str) -> bool:
    """Whether `name` reads (namespace/)name-v0."""
    return IDENTIFIER.fullmatch(name) is not None


def local_root() -> Path:
    """Where Minari keeps its datasets on this machine."""
    return Path(os.environ.get("MINARI_DATASETS_PATH", Path.home() / ".minari" / "datasets"))


def local_ids() -> list[str]:
    """The ids of the datasets in Minari's local root."""
    return [folder.relative_to(local_root()).as_posix() for folder in _datasets_below(local_root())]


def _datasets_below(path: Path) -> list[Path]:
    """Those in no hidden folder: there a writer works, or left what it had when it was killed."""
    depths = ("*", "*/*", "*/*/*", "*/*/*/*")
    every = sorted(found.parent.parent for depth in depths for found in path.glob(f"{depth}/data/metadata.json"))
    return [folder for folder in every if not any(part.startswith(".") for part in folder.relative_to(path).parts)]


def _candidates(path: Path) -> list[Path]:
    """The dataset that `path` is, or whose data/ or main_data.hdf5 it is; else those below it."""
    for folder in (path, path.parent, path.parent.parent):
        if (folder / "data" / "metadata.json").is_file() and path in (folder, folder / "data", _main_file(folder)):
            return [folder]
    return _datasets_below(path)


def _inside(path: Path) -> Path:
    found = _candidates(path)
    if not found:
        raise ValueError(f"{path}: must hold a Minari dataset (data/metadata.json), found none; choose another path")
    if len(found) > 1:
        names = [str(folder.relative_to(path)) for folder in found]
        raise ValueError(f"{path}: must hold one Minari dataset, found {names}; name one of them")
    return found[0]


def _main_file(folder: Path) -> Path:
    return folder / "data" / "main_data.hdf5"


def _download(dataset_id: str) -> None:
    import minari

    try:
        minari.download_dataset(dataset_id)
    except Exception as error:  # Minari lets the errors of its hosts' clients through, and they share no base
        raise ValueError(
            f"Minari dataset {dataset_id!r} could not be downloaded ({type(error).__name__}: {error}); check the "
            f"network and the id, or copy the dataset to {local_root() / dataset_id}"
        ) from error


def _storage(folder: Path) -> MinariStorage:
    try:
        return MinariStorage.read(folder / "data")
    except (ValueError, KeyError, AssertionError, TypeError, ImportError) as error:
        raise ValueError(f"{folder}: not a readable Minari dataset ({error!r}); download or record it again") from error


def _episodes(storage: MinariStorage, folder: Path) -> Iterator[dict[str, Any]]:
    try:
        yield from storage.get_episodes(range(storage.total_episodes))
    except (OSError, KeyError, RuntimeError) as error:
        raise ValueError(
            f"{_main_file(folder)}: cannot be read to its end ({error}); it was cut short or altered: "
            "download or record it again"
        ) from error


def _layout(
    storage: MinariStorage,
    metadata: Mapping[str, Any],
    episode: Mapping[str, Any],
    control_hz: float | None,
    folder: Path,
) -> _Layout:
    hz = control_hz or _recorded_hz(metadata)
    action_space = storage.action_space
    if not isinstance(action_space, spaces.Box):
        raise ValueError(f"{folder}: the action space must be a Box, got {action_space}")
    low, high = _limits(action_space)
    if _is_pointmaze(storage.observation_space, action_space, episode["observations"]):
        spec = pointmaze_spec(control_hz=hz or CONTROL_HZ, low=low, high=high)
        return _Layout(spec=spec, pointmaze=True, left_out=())
    if hz is None:
        raise ValueError(
            f"{folder}: control_hz is not recorded and must be passed (steps a second, for example --control-hz 20)"
        )
    boxes = _boxes(storage.observation_space)
    units = metadata.get("units") or {}
    streams = [_stream(name, "observation", box, units.get(name, "")) for name, box in boxes.items()]
    streams.append(_stream("action", "action", action_space))
    streams.append(StreamSpec(name="reward", role="reward", shape=()))
    goal = metadata.get("goal") or ("achieved_goal" if "achieved_goal" in boxes else None)
    left_out = tuple(key for key in _keys(storage.observation_space) if key not in boxes and key != "desired_goal")
    spec = TrajectorySpec(streams=tuple(streams), control_hz=hz, goal=goal)
    return _Layout(spec=spec, pointmaze=False, left_out=left_out)


def _recorded_hz(metadata: Mapping[str, Any]) -> float | None:
    """What `write_minari` recorded, else a render_fps that the environment was made with."""
    if metadata.get("control_hz") is not None:
        return float(metadata["control_hz"])
    environment = json.loads(metadata.get("env_spec") or "{}")
    fps = environment.get("kwargs", {}).get("render_fps")
    return None if fps is None else float(fps)


def _is_pointmaze(space: spaces.Space[Any], action_space: spaces.Box, observations: Any) -> bool:
    if not isinstance(space, spaces.Dict) or action_space.shape != (2,):
        return False
    shapes = {key: value.shape for key, value in space.spaces.items()}
    if shapes != {"observation": (4,), "achieved_goal": (2,), "desired_goal": (2,)}:
        return False
    return bool(np.array_equal(observations["observation"][:, :2], observations["achieved_goal"], equal_nan=True))


def _keys(space: spaces.Space[Any]) -> list[str]:
    return list(space.spaces) if isinstance(space, spaces.Dict) else ["observation"]


def _boxes(space: spaces.Space[Any]) -> dict[str, spaces.Box]:
    """The observation's Box spaces by name, without the desired goal."""
    named = space.spaces if isinstance(space, spaces.Dict) else {"observation": space}
    return {key: box for key, box in named.items() if isinstance(box, spaces.Box) and key != "desired_goal"}


def _stream(name: str, role: Role, box: spaces.Box, units: str = "") -> StreamSpec:
    low, high = _limits(box)
    return StreamSpec(name=name, role=role, shape=tuple(box.shape), units=units, low=low, high=high)


def _limits(box: spaces.Box) -> tuple[tuple[float, ...] | None, tuple[float, ...] | None]:
    """Flat limits; None for integers, whose type is their limit, and if any entry is unlimited."""
    if not np.issubdtype(box.dtype, np.floating):
        return None, None
    low, high = (
        tuple(float(x) for x in side.reshape(-1)) if np.isfinite(side).all() else None for side in (box.low, box.high)
    )
    return low, high


def _streams(layout: _Layout, observations: Any, episode: Mapping[str, Any]) -> dict[str, Array]:
    rest = {"action": np.asarray(episode["actions"]), "reward": np.asarray(episode["rewards"])}
    if layout.pointmaze:
        return {**pointmaze_streams(observations["observation"]), **rest}
    observed = observations if isinstance(observations, Mapping) else {"observation": observations}
    names = [stream.name for stream in layout.spec.of_role("observation")]
    return {**{name: np.asarray(observed[name]) for name in names}, **rest}


def _provenance(metadata: Mapping[str, Any], layout: _Layout, goals: GoalLog) -> dict[str, Any]:
    environment = json.loads(metadata.get("env_spec") or "{}")
    kept = {key: metadata[key] for key in KEPT_METADATA if key in metadata}
    result = {"source": "minari", **kept, "env_id": environment.get("id"), "goals": goals.to_json()}
    return {**result, "left_out": list(layout.left_out)} if layout.left_out else result
