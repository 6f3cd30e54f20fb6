"""What a LeRobot dataset says about itself: features, episodes, tasks. Versions 3.0 and 2.1; reads no step.

Version 3.0 keeps several episodes in a file and says in `meta/episodes/` which file and, of videos, from when on.
Version 2.1 has a file for each episode and names it by number.
"""

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

import pyarrow as pa
import pyarrow.parquet as pq

from forcing.datasets.pixels import channels_first

INFO = "meta/info.json"
EPISODES = "meta/episodes"
TASKS = "meta/tasks.parquet"
OLD_EPISODES = "meta/episodes.jsonl"
OLD_TASKS = "meta/tasks.jsonl"
OWN = "meta/forcing.json"
VERSIONS = ("v3.0", "v2.1")
CAMERAS = ("image", "video")
AGAIN = "copy or record the dataset again"
# What reading a parquet file raises that was cut short or altered.
UNREADABLE = (pa.ArrowException, OSError, UnicodeDecodeError)


@dataclass(frozen=True, slots=True, kw_only=True)
class Feature:
    """One signal as `meta/info.json` describes it.

    key: its name there. dtype: numpy's, or image or video. shape: of one step; of images [h, w, c], whichever way
    round it is written. names: of its entries, as written. depth: of a camera, that its pixels are distances.
    """

    key: str
    dtype: str
    shape: tuple[int, ...]
    names: Any = None
    depth: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class VideoPart:
    """Where an episode is in a video. end_s: None if nobody says."""

    path: Path
    start_s: float = 0.0
    end_s: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Listed:
    """One episode as the dataset lists it. rows: recorded. videos: feature -> part."""

    index: int
    rows: int
    data: Path
    videos: Mapping[str, VideoPart]


@dataclass(frozen=True, slots=True, kw_only=True)
class Meta:
    """tasks: number -> words. splits: name -> (first, end) of episodes. chunk: episodes or files in a folder."""

    folder: Path
    version: str
    fps: float
    features: tuple[Feature, ...]
    episodes: tuple[Listed, ...]
    tasks: Mapping[int, str]
    splits: Mapping[str, tuple[int, int]]
    robot: str | None


def read_meta(folder: Path) -> Meta:
    """What stands in the dataset's `meta/`.

    Raises ValueError naming file, field and remedy if the version is another than 3.0 or 2.1, a file is missing or
    broken, there is no episode, or an episode's entries contradict each other.
    """
    info = _json_object(folder / INFO)
    version = str(_field(info, "codebase_version", str, folder / INFO))
    _known(version, folder / INFO)
    fps = float(_field(info, "fps", (int, float), folder / INFO))
    if not 0 < fps < float("inf"):
        raise ValueError(f"{folder / INFO}: fps must be positive, got {fps}; {AGAIN}")
    features = _features(_field(info, "features", dict, folder / INFO), folder / INFO)
    videos = [feature.key for feature in features if feature.dtype == "video" and not feature.depth]
    listed = _episodes_v3(folder, info, videos) if version == "v3.0" else _episodes_v21(folder, info, videos)
    episodes = tuple(sorted(listed, key=lambda episode: episode.index))
    _consistent(episodes, info, folder)
    robot = info.get("robot_type")
    return Meta(
        folder=folder,
        version=version,
        fps=fps,
        features=features,
        episodes=episodes,
        tasks=_tasks_v3(folder) if version == "v3.0" else _tasks_v21(folder),
        splits=_splits(_object(info, "splits", folder / INFO)),
        robot=None if robot is None else str(robot),
    )


def unreadable(path: Path, error: Exception) -> NoReturn:
    """Raises ValueError that says in one line what a parquet file's reader said in several."""
    said = " ".join(str(error).split())
    raise ValueError(f"{path}: not a readable parquet file ({said}); it was cut short or altered: {AGAIN}") from error


def _known(version: str, where: Path) -> None:
    if version in VERSIONS:
        return
    remedy = (
        "convert it with the lerobot package, which has a script from each version to the next"
        if version.startswith(("v1", "v2"))
        else "update forcing, or export it as v3.0"
    )
    raise ValueError(f"{where}: codebase_version must be one of {list(VERSIONS)}, got {version!r}; {remedy}")


def _features(document: Mapping[str, Any], where: Path) -> tuple[Feature, ...]:
    features = []
    for key, entry in document.items():
        label = f"{where}: feature {key!r}"
        if not isinstance(entry, dict):
            raise ValueError(f"{label} must be an object with dtype and shape, got {entry!r}; {AGAIN}")
        dtype, shape = _field(entry, "dtype", str, label), _field(entry, "shape", list, label)
        if not all(isinstance(size, int) and size > 0 for size in shape):
            raise ValueError(f"{label}: shape must be a list of positive integers, got {shape}; {AGAIN}")
        if dtype in CAMERAS:
            if len(shape) != 3:
                raise ValueError(f"{label}: an {dtype} must have a shape of 3 sizes, got {shape}; {AGAIN}")
            shape = _channels_last(shape, entry.get("names"))
        details = _object(entry, "info", label)
        depth = bool(details.get("is_depth_map") or details.get("video.is_depth_map"))
        features.append(Feature(key=key, dtype=dtype, shape=tuple(shape), names=entry.get("names"), depth=depth))
    return tuple(features)


def _channels_last(shape: list[int], names: Any) -> list[int]:
    named = isinstance(names, list) and len(names) == 3
    first = str(names[0]).startswith("channel") if named else channels_first(shape)
    return [*shape[1:], shape[0]] if first else shape


def _episodes_v3(folder: Path, info: Mapping[str, Any], videos: list[str]) -> Iterable[Listed]:
    paths = sorted((folder / EPISODES).glob("**/*.parquet"))
    if not paths:
        raise ValueError(f"{folder / EPISODES}: must hold at least 1 parquet file, found none; {AGAIN}")
    for path in paths:
        for row in _rows(path):
            index = int(_field(row, "episode_index", int, path))
            where = f"{path}: episode {index}"
            rows = int(_field(row, "length", int, where))
            first, end = (row.get(f"dataset_{side}_index") for side in ("from", "to"))
            if first is not None and end is not None and end - first != rows:
                raise ValueError(f"{where}: length is {rows}, but it goes from row {first} to row {end}; {AGAIN}")
            parts = {}
            for key in videos:
                start = float(_field(row, f"videos/{key}/from_timestamp", (int, float), where))
                end_s = row.get(f"videos/{key}/to_timestamp")
                file = _path(folder, info, "video_path", video_key=key, **_numbers(row, f"videos/{key}", where))
                parts[key] = VideoPart(path=file, start_s=start, end_s=end_s)
            data = _path(folder, info, "data_path", **_numbers(row, "data", where))
            yield Listed(index=index, rows=rows, data=data, videos=parts)


def _episodes_v21(folder: Path, info: Mapping[str, Any], videos: list[str]) -> Iterable[Listed]:
    chunk = int(_field(info, "chunks_size", int, folder / INFO))
    for where, row in _lines(folder / OLD_EPISODES):
        index, rows = int(_field(row, "episode_index", int, where)), int(_field(row, "length", int, where))
        numbers = {"episode_chunk": index // max(chunk, 1), "episode_index": index}
        yield Listed(
            index=index,
            rows=rows,
            data=_path(folder, info, "data_path", **numbers),
            videos={key: VideoPart(path=_path(folder, info, "video_path", video_key=key, **numbers)) for key in videos},
        )


def _consistent(episodes: tuple[Listed, ...], info: Mapping[str, Any], folder: Path) -> None:
    if not episodes:
        raise ValueError(f"{folder / 'meta'}: must list at least 1 episode, got 0; {AGAIN}")
    indices = [episode.index for episode in episodes]
    if len(set(indices)) != len(indices):
        twice = next(index for index in indices if indices.count(index) > 1)
        raise ValueError(f"{folder / 'meta'}: episode_index must differ, got {twice} more than once; {AGAIN}")
    total = info.get("total_episodes", len(episodes))
    if total != len(episodes):
        raise ValueError(f"{folder / INFO}: total_episodes is {total}, but {len(episodes)} are listed; {AGAIN}")
    for episode in episodes:
        if episode.rows < 2:
            raise ValueError(
                f"{folder / 'meta'}: episode {episode.index} must have at least 2 rows (1 step), its length is "
                f"{episode.rows}; remove it with lerobot's edit_dataset"
            )


def _tasks_v3(folder: Path) -> dict[int, str]:
    """The words are the table's index, whose column has been named in two ways."""
    path = folder / TASKS
    tasks = {}
    for row in _rows(path):
        words = row.get("task", row.get("__index_level_0__"))
        if not isinstance(words, str):
            raise ValueError(f"{path}: column 'task' must hold strings, found {sorted(row)}; {AGAIN}")
        tasks[int(_field(row, "task_index", int, path))] = words
    return tasks


def _tasks_v21(folder: Path) -> dict[int, str]:
    return {
        int(_field(row, "task_index", int, where)): str(_field(row, "task", str, where))
        for where, row in _lines(folder / OLD_TASKS)
    }


def _splits(written: Mapping[str, Any]) -> dict[str, tuple[int, int]]:
    """Those written as "first:end", which is how LeRobot writes them; it reads none of them itself."""
    splits = {}
    for name, rows in written.items():
        first, _, end = str(rows).partition(":")
        if first.isdecimal() and end.isdecimal():
            splits[str(name)] = (int(first), int(end))
    return splits


def _numbers(row: Mapping[str, Any], prefix: str, where: str) -> dict[str, int]:
    return {name: int(_field(row, f"{prefix}/{name}", int, where)) for name in ("chunk_index", "file_index")}


def _path(folder: Path, info: Mapping[str, Any], field: str, **numbers: Any) -> Path:
    pattern = _field(info, field, str, folder / INFO)
    try:
        return folder / str(pattern).format(**numbers)
    except (KeyError, IndexError, ValueError, AttributeError) as error:
        raise ValueError(
            f"{folder / INFO}: {field} must be made of {sorted(numbers)}, got {pattern!r}; {AGAIN}"
        ) from error


def _json_object(path: Path) -> dict[str, Any]:
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ValueError(f"{path}: must be a JSON object ({error}); {AGAIN}") from error
    if not isinstance(document, dict):
        raise ValueError(f"{path}: must be a JSON object, got {type(document).__name__}; {AGAIN}")
    return document


def _lines(path: Path) -> Iterable[tuple[str, dict[str, Any]]]:
    """(place, object) of each line."""
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, ValueError) as error:
        raise ValueError(f"{path}: must be a file of JSON lines ({error}); {AGAIN}") from error
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            document = json.loads(line)
        except ValueError as error:
            raise ValueError(f"{path}: line {number} must be JSON ({error}); {AGAIN}") from error
        if not isinstance(document, dict):
            raise ValueError(f"{path}: line {number} must be a JSON object, got {line[:40]!r}; {AGAIN}")
        yield f"{path}: line {number}", document


def _rows(path: Path) -> list[dict[str, Any]]:
    """Statistics, which are most of the table, are not read."""
    if not path.is_file():
        raise ValueError(f"{path}: is missing; {AGAIN}")
    try:
        names = [name for name in pq.read_schema(path).names if not name.startswith("stats/")]
        return list(pq.ParquetFile(path).read(columns=names, use_threads=False).to_pylist())
    except UNREADABLE as error:
        unreadable(path, error)


def _object(document: Mapping[str, Any], key: str, where: str | Path) -> dict[str, Any]:
    """A field that is an object; an empty one where there is none."""
    return dict(_field(document, key, dict, where)) if document.get(key) else {}


def _field(document: Mapping[str, Any], key: str, kind: type | tuple[type, ...], where: str | Path) -> Any:
    if key not in document:
        raise ValueError(f"{where}: {key!r} is missing, found {sorted(document)}; {AGAIN}")
    value = document[key]
    if not isinstance(value, kind) or isinstance(value, bool):
        wanted = " or ".join(one.__name__ for one in (kind if isinstance(kind, tuple) else (kind,)))
        raise ValueError(f"{where}: {key!r} must be of type {wanted}, got {value!r}; {AGAIN}")
    return value
