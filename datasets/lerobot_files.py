"""Recordings out of LeRobot datasets of versions 3.0 and 2.1, read from their files. Knows nothing of the package.

`observation.state` becomes the stream state, `observation.images.front` becomes front, `action` action and
`next.reward` reward. A row holds an observation and the action after it; what the last action of an episode led to was
not recorded, so N rows give N - 1 steps.
"""

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from itertools import groupby
from pathlib import Path
from typing import Any

import pyarrow as pa

from forcing.datasets.columns import identifier
from forcing.datasets.episodes import Episode
from forcing.datasets.lerobot_meta import AGAIN, CAMERAS, INFO, OWN, Feature, Listed, Meta, read_meta
from forcing.datasets.lerobot_table import frames, numbers, tables
from forcing.datasets.lerobot_video import video_frames
from forcing.policy.types import Array, EpisodeNote, Role, StreamSpec, TrajectorySpec

# What says which row it is and how it ended, not what the robot sensed or did.
BOOKKEEPING = re.compile(r"timestamp|(\w+_)?index|is_(first|last|terminal)|(next|annotation|complementary_info)\..*")
REWARD = "next.reward"
PREFIXES = ("observation.images.", "observation.")


@dataclass(frozen=True, slots=True)
class LeRobotFiles:
    """A `Recording` of a LeRobot dataset. features: stream -> the feature it is read from. left_out: feature -> why it
    is no stream. own: what our export kept besides, nothing of other datasets."""

    meta: Meta
    spec: TrajectorySpec
    features: Mapping[str, Feature]
    left_out: Mapping[str, str]
    own: Mapping[str, Any]

    def episodes(self) -> Iterator[Episode]:
        """From the first to the last, one in memory at a time. Raises ValueError at a file that is missing, broken or
        contradicts meta/."""
        for path, listed in groupby(self.meta.episodes, key=lambda episode: episode.data):
            for episode, table in tables(path, list(listed), self._columns()):
                yield self._episode(episode, table)

    def provenance(self) -> Mapping[str, Any]:
        converted = {"converted_from": self.own["provenance"]} if "provenance" in self.own else {}
        return {
            "source": "lerobot",
            "file": self.meta.folder.name,
            "codebase_version": self.meta.version,
            "robot_type": self.meta.robot,
            "features": {
                stream: {"feature": feature.key, "names": feature.names} for stream, feature in self.features.items()
            },
            "source_names": {stream: feature.key for stream, feature in self.features.items()},
            "last_actions_left_out": len(self.meta.episodes),
            **({"left_out": dict(self.left_out)} if self.left_out else {}),
            **converted,
        }

    def _columns(self) -> list[str]:
        stored = [feature.key for feature in self.features.values() if feature.dtype != "video"]
        return ["episode_index", "task_index", "timestamp", *stored]

    def _episode(self, episode: Listed, table: pa.Table) -> Episode:
        streams: dict[str, Array] = {}
        for stream in self.spec.streams:
            rows = self._rows(self.features[stream.name], episode, table)
            kept = len(rows) if stream.role == "observation" else len(rows) - 1
            streams[stream.name] = rows[:kept].reshape(kept, *stream.shape)
        note = EpisodeNote(task=self._task(episode, table), subsets=self._subsets(episode.index))
        return Episode(streams, f"{self.meta.folder}: episode {episode.index}", note)

    def _rows(self, feature: Feature, episode: Listed, table: pa.Table) -> Array:
        where = f"{episode.data}: episode {episode.index}, feature {feature.key!r}"
        if feature.dtype == "image":
            return frames(table[feature.key], feature.shape, where)
        if feature.dtype != "video":
            return numbers(table[feature.key], feature.shape, where)
        part = episode.videos[feature.key]
        where = f"episode {episode.index}, feature {feature.key!r}"
        if part.end_s is not None and (part.end_s - part.start_s) * self.meta.fps < episode.rows - 0.5:
            raise ValueError(
                f"{part.path}: {where} is {part.end_s - part.start_s:.4g} s long after meta/episodes, which is shorter "
                f"than its table of {episode.rows} rows at {self.meta.fps:g} Hz; {AGAIN}"
            )
        times = numbers(table["timestamp"], (1,), f"{episode.data}: episode {episode.index}, 'timestamp'")[:, 0]
        return video_frames(part.path, part.start_s + times.astype(float), feature.shape, self.meta.fps, where)

    def _task(self, episode: Listed, table: pa.Table) -> str:
        """The words of every task that rows name, in their order."""
        where = f"{episode.data}: episode {episode.index}, 'task_index'"
        indices = dict.fromkeys(numbers(table["task_index"], (1,), where)[:, 0].tolist())
        unknown = [index for index in indices if index not in self.meta.tasks]
        if unknown:
            raise ValueError(f"{where} must be one of the {len(self.meta.tasks)} of meta/, got {unknown[0]}; {AGAIN}")
        return "; ".join(self.meta.tasks[index] for index in indices)

    def _subsets(self, index: int) -> tuple[str, ...]:
        """Of splits, unless there is only one and it holds everything."""
        if "subsets" in self.own:
            return tuple(self.own["subsets"].get(str(index), ()))
        if list(self.meta.splits.values()) == [(0, len(self.meta.episodes))]:
            return ()
        return tuple(name for name, (first, end) in self.meta.splits.items() if first <= index < end)


def open_lerobot(folder: str | Path, *, control_hz: float | None = None) -> LeRobotFiles:
    """The dataset whose `meta/` and `data/` are in `folder`; no step is read yet.

    control_hz: overrides the dataset's fps. Raises ValueError naming file, field and remedy if `meta/` is broken, of
    another version, or its features cannot be streams.
    """
    meta = read_meta(Path(folder).expanduser().resolve())
    hz = meta.fps if control_hz is None else control_hz
    if (meta.folder / OWN).exists():
        return _exported(meta, hz)
    streams, features, left_out = _streams(meta)
    spec = TrajectorySpec(streams=tuple(streams), control_hz=hz)
    return LeRobotFiles(meta=meta, spec=spec, features=features, left_out=left_out, own={})


def holds_lerobot(path: Path) -> bool:
    """Whether a LeRobot dataset, whole or broken, is at `path`."""
    return (path / INFO).is_file()


def _streams(meta: Meta) -> tuple[list[StreamSpec], dict[str, Feature], dict[str, str]]:
    """Streams in the order of features, the feature of each, and why the other features became none."""
    action = _action(meta)
    streams: list[StreamSpec] = []
    features: dict[str, Feature] = {}
    left_out: dict[str, str] = {}
    for feature in meta.features:
        role = _role(feature, action)
        if role is None:
            if not BOOKKEEPING.fullmatch(feature.key):
                left_out[feature.key] = _why_none(feature)
            continue
        name = role if role != "observation" else _name(feature.key)
        if name in features:
            raise ValueError(
                f"{meta.folder / INFO}: features {features[name].key!r} and {feature.key!r} would both be stream "
                f"{name!r}; rename one of them"
            )
        shape = () if role == "reward" and feature.shape == (1,) else feature.shape
        streams.append(StreamSpec(name=name, role=role, shape=shape))
        features[name] = feature
    return streams, features, left_out


def _action(meta: Meta) -> str:
    """Its feature: `action`, or the only one whose name begins so."""
    keys = [feature.key for feature in meta.features]
    similar = [key for key in keys if re.fullmatch(r"actions?(\..*)?", key)]
    if "action" in similar:
        return "action"
    if len(similar) != 1:
        raise ValueError(
            f"{meta.folder / INFO}: features must have an 'action', found {similar or keys}; put all actuators into one"
        )
    return similar[0]


def _role(feature: Feature, action: str) -> Role | None:
    numeric = feature.dtype in ("float16", "float32", "float64", "bool") or re.fullmatch(r"u?int\d+", feature.dtype)
    if feature.depth or not (numeric or feature.dtype in CAMERAS):
        return None
    if feature.key == action:
        return "action"
    if feature.key == REWARD:
        return "reward"
    # Other actions, such as those that were asked for but not taken, are no observations.
    if feature.key.startswith("action") or BOOKKEEPING.fullmatch(feature.key):
        return None
    return "observation"


def _why_none(feature: Feature) -> str:
    if feature.depth:
        return "its pixels are distances"
    return "another action" if feature.key.startswith("action") else f"{feature.dtype} is no type of numbers"


def _name(key: str) -> str:
    prefix = next((prefix for prefix in PREFIXES if key.startswith(prefix)), "")
    return identifier(key.removeprefix(prefix))


def _exported(meta: Meta, hz: float) -> LeRobotFiles:
    """As our export says; raises ValueError if the dataset has become another since."""
    path = meta.folder / OWN
    remedy = "remove this file to read the dataset as LeRobot's"
    try:
        own = json.loads(path.read_text(encoding="utf-8"))
        spec = replace(TrajectorySpec.from_json(own["spec"]), control_hz=hz)
        named = {stream.name: str(own["features"][stream.name]) for stream in spec.streams}
        subsets = {episode: tuple(names) for episode, names in own.get("subsets", {}).items()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"{path}: must be the JSON that the export wrote ({error!r}); {remedy}") from error
    known = {feature.key: feature for feature in meta.features}
    for stream in spec.streams:
        key = named[stream.name]
        shape = known[key].shape if key in known else None
        if shape != (stream.shape or (1,)):
            raise ValueError(
                f"{path}: stream {stream.name!r} has shape {list(stream.shape)}, feature {key!r} of meta/info.json has "
                f"{None if shape is None else list(shape)}; {remedy}"
            )
    features = {name: known[key] for name, key in named.items()}
    return LeRobotFiles(meta=meta, spec=spec, features=features, left_out={}, own={**own, "subsets": subsets})
