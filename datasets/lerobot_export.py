"""Recordings of any format as LeRobot datasets of version 3.0, which the lerobot package opens. Written in one pass.

Every observation is a row, with the action after it; the last observation of an episode has none, and repeats the one
before. Frames are PNG inside parquet, so none is altered. What LeRobot has no place for (units, limits, the goal's
stream, names of streams) is kept in `meta/forcing.json`, which our reader alone looks at.
"""

import json
from collections.abc import Mapping
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from forcing.datasets.atomic import place, staged, told_if_full
from forcing.datasets.episodes import Episode, Recording
from forcing.datasets.lerobot_meta import EPISODES, INFO, OWN, TASKS
from forcing.datasets.lerobot_parquet import (
    FILE,
    FILE_MB,
    FILES_IN_A_CHUNK,
    IMAGE,
    RollingTable,
    column,
    column_type,
    hub_feature,
    images,
    nested,
    with_hub_features,
    write_tasks,
)
from forcing.datasets.lerobot_stats import MOMENTS, QUANTILES, Stats, image_stats, joined, number_stats
from forcing.datasets.rows import check_rows
from forcing.policy.types import Array, StreamSpec, TrajectorySpec

VERSION = 1
MOST_AXES = 5
# Episodes whose entries are written at once.
ENTRIES = 100
BOOKKEEPING = {
    "timestamp": "float32",
    "frame_index": "int64",
    "episode_index": "int64",
    "index": "int64",
    "task_index": "int64",
}
PLACES = ("data/chunk_index", "data/file_index", "dataset_from_index", "dataset_to_index")


@dataclass(frozen=True, slots=True, kw_only=True)
class _Feature:
    """A column of the table. stream: whose it is, None of bookkeeping. dtype: numpy's name, or image."""

    key: str
    dtype: str
    shape: tuple[int, ...] = (1,)
    stream: StreamSpec | None = None

    def to_json(self, provenance: Mapping[str, Any]) -> dict[str, Any]:
        """As `meta/info.json` has it; entries are named as where the recording came from, else numbered."""
        names = None
        if self.dtype == "image":
            names = ["height", "width", "channels"]
        elif self.stream is not None and len(self.shape) == 1:
            names = [f"{self.stream.name}_{entry}" for entry in range(self.shape[0])]
            source = (provenance.get("features") or {}).get(self.stream.name, {})
            recorded = source.get("names") if isinstance(source, Mapping) else None
            names = recorded if isinstance(recorded, list) and len(recorded) == len(names) else names
        return {"dtype": self.dtype, "shape": list(self.shape), "names": names}

    @property
    def type(self) -> pa.DataType:
        return IMAGE if self.dtype == "image" else column_type(np.dtype(self.dtype), self.shape)

    def cells(self, rows: Array) -> pa.Array:
        return images(rows) if self.dtype == "image" else column(rows, self.shape)

    def stats(self, rows: Array) -> Stats:
        return image_stats(rows) if self.dtype == "image" else number_stats(rows)


def export_lerobot(recording: Recording, out_dir: str | Path) -> Path:
    """The folder of the dataset, once it is complete and on disk.

    Streams of numbers go out as `observation.NAME` (`observation.state` if there is only one, as LeRobot's policies
    want it), cameras as `observation.images.NAME`, the action as `action`, the reward as `next.reward`. One episode is
    in memory at a time. Raises ValueError if something other than an empty folder is at `out_dir`, there is no episode,
    a stream changes its type between episodes or has one that LeRobot has not, or the disk is full.
    """
    target = Path(out_dir).expanduser().resolve()
    if target.exists() and not (target.is_dir() and not any(target.iterdir())):
        raise ValueError(f"{target}: exists already; remove it or choose another folder")
    with told_if_full(target, "the dataset"), staged(target) as folder:
        with closing(_Writer(folder, recording.spec)) as writer:
            for episode in recording.episodes():
                writer.add(episode)
            if not writer.episodes:
                raise ValueError(f"{target}: there must be at least 1 episode to export, got 0")
            writer.finish(recording.provenance())
        place(folder, target)
    return target


class _Writer:
    """What has been written so far."""

    def __init__(self, folder: Path, spec: TrajectorySpec) -> None:
        self.episodes = 0
        self._rows = 0
        self._folder, self._spec = folder, spec
        self._features: tuple[_Feature, ...] = ()
        self._tables: tuple[RollingTable, ...] = ()
        self._entries: list[dict[str, Any]] = []
        self._tasks: dict[str, int] = {}
        self._subsets: dict[str, list[str]] = {}
        self._stats: dict[str, Stats] = {}

    def add(self, episode: Episode) -> None:
        if not self._features:
            self._begin(episode)
        data, index = self._tables[0], self.episodes
        steps = len(episode.streams[self._spec.action.name])
        check_rows(self._spec, episode.streams, steps, episode.where)
        length = steps + 1
        columns = self._columns(episode, length)
        stats = {feature.key: feature.stats(columns[feature.key]) for feature in self._features}
        where = data.next_place()
        data.add(pa.Table.from_arrays([f.cells(columns[f.key]) for f in self._features], schema=data.schema))
        self._entries.append(
            {
                "episode_index": index,
                "tasks": [episode.note.task],
                "length": length,
                **{f"data/{name}": number for name, number in where.items()},
                "dataset_from_index": self._rows,
                "dataset_to_index": self._rows + length,
                **{f"stats/{key}/{name}": value.tolist() for key, s in stats.items() for name, value in s.items()},
            }
        )
        if len(self._entries) == ENTRIES:
            self._write_entries()
        self._stats = {key: joined(self._stats[key], s) if key in self._stats else s for key, s in stats.items()}
        if episode.note.subsets:
            self._subsets[str(index)] = list(episode.note.subsets)
        self.episodes += 1
        self._rows += length

    def finish(self, provenance: Mapping[str, Any]) -> None:
        """Everything but the rows."""
        self._write_entries()
        self.close()
        write_tasks(list(self._tasks), self._folder / TASKS)
        self._write_json("meta/stats.json", {k: {n: v.tolist() for n, v in s.items()} for k, s in self._stats.items()})
        self._write_json(INFO, self._info(provenance))
        own = {
            "version": VERSION,
            "spec": self._spec.to_json(),
            "features": {f.stream.name: f.key for f in self._features if f.stream is not None},
            "subsets": self._subsets,
            "provenance": dict(provenance),
        }
        self._write_json(OWN, own)

    def close(self) -> None:
        for table in self._tables:
            table.close()

    def _begin(self, first: Episode) -> None:
        self._features = (
            *_stream_features(self._spec, first),
            *(_Feature(key=k, dtype=d) for k, d in BOOKKEEPING.items()),
        )
        schema = pa.schema([(feature.key, feature.type) for feature in self._features])
        schema = with_hub_features(schema, {f.key: hub_feature(f.dtype, f.shape) for f in self._features})
        self._tables = (
            RollingTable(self._folder / "data", schema),
            RollingTable(self._folder / EPISODES, _entry_schema(self._features)),
        )

    def _columns(self, episode: Episode, length: int) -> dict[str, Array]:
        """Every feature's rows, [length, *shape]."""
        steps = np.arange(length)
        task = self._tasks.setdefault(episode.note.task, len(self._tasks))
        columns: dict[str, Array] = {
            "timestamp": (steps / self._spec.control_hz).astype(np.float32),
            "frame_index": steps,
            "episode_index": np.full(length, self.episodes),
            "index": self._rows + steps,
            "task_index": np.full(length, task),
        }
        for feature in self._features:
            if feature.stream is not None:
                columns[feature.key] = _rows(feature, feature.stream, episode)
        return columns

    def _write_entries(self) -> None:
        table = self._tables[1]
        where = {f"meta/episodes/{name}": number for name, number in table.next_place().items()}
        if self._entries:
            table.add(pa.Table.from_pylist([{**entry, **where} for entry in self._entries], schema=table.schema))
        self._entries = []

    def _info(self, provenance: Mapping[str, Any]) -> dict[str, Any]:
        hz = self._spec.control_hz
        return {
            "codebase_version": "v3.0",
            "robot_type": None,
            "total_episodes": self.episodes,
            "total_frames": self._rows,
            "total_tasks": len(self._tasks),
            "chunks_size": FILES_IN_A_CHUNK,
            "data_files_size_in_mb": FILE_MB,
            "video_files_size_in_mb": 2 * FILE_MB,
            "fps": int(hz) if hz == int(hz) else hz,
            "splits": {"train": f"0:{self.episodes}"},
            "data_path": f"data/{FILE}.parquet",
            "video_path": None,
            "features": {feature.key: feature.to_json(provenance) for feature in self._features},
        }

    def _write_json(self, name: str, document: Mapping[str, Any]) -> None:
        path = self._folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(document, indent=4, ensure_ascii=False), encoding="utf-8")


def _stream_features(spec: TrajectorySpec, first: Episode) -> list[_Feature]:
    """Of every stream, typed as the first episode has it."""
    rewards = [stream.name for stream in spec.of_role("reward")]
    numbers = [stream.name for stream in spec.of_role("observation") if not stream.image]
    features = []
    for stream in spec.streams:
        dtype = first.streams[stream.name].dtype
        if dtype.kind not in "biuf" or len(stream.shape) > MOST_AXES:
            raise ValueError(
                f"{first.where}: stream {stream.name!r} must be of numbers in at most {MOST_AXES} axes, got {dtype} of "
                f"shape {stream.shape}; leave it out"
            )
        image = stream.image and dtype == np.uint8
        if stream.role == "action":
            key = "action"
        elif stream.role == "reward":
            key = "next.reward" if stream.name == rewards[0] else f"next.{stream.name}"
        elif image:
            key = f"observation.images.{stream.name}"
        else:
            key = "observation.state" if numbers == [stream.name] else f"observation.{stream.name}"
        features.append(
            _Feature(key=key, dtype="image" if image else dtype.name, shape=stream.shape or (1,), stream=stream)
        )
    return features


def _rows(feature: _Feature, stream: StreamSpec, episode: Episode) -> Array:
    """One for each observation: after the last action it is repeated, after the last reward there is none (0)."""
    rows = episode.streams[stream.name]
    dtype = "uint8" if feature.dtype == "image" else feature.dtype
    if rows.dtype.name != dtype:
        raise ValueError(
            f"{episode.where}: stream {stream.name!r} must be {dtype} as in the first episode, got {rows.dtype}; "
            "convert the recording to a store and export that"
        )
    if stream.role == "action":
        rows = np.concatenate([rows, rows[-1:]])
    elif stream.role == "reward":
        rows = np.concatenate([rows, np.zeros_like(rows[:1])])
    return rows


def _entry_schema(features: tuple[_Feature, ...]) -> pa.Schema:
    fields = [("episode_index", pa.int64()), ("tasks", pa.list_(pa.string())), ("length", pa.int64())]
    fields += [(name, pa.int64()) for name in PLACES]
    for feature in features:
        depth = 3 if feature.dtype == "image" else len(feature.shape)
        fields += [(f"stats/{feature.key}/{name}", nested(pa.float64(), depth)) for name in (*MOMENTS, *QUANTILES)]
        fields.append((f"stats/{feature.key}/count", pa.list_(pa.int64())))
    fields += [("meta/episodes/chunk_index", pa.int64()), ("meta/episodes/file_index", pa.int64())]
    return pa.schema(fields)
