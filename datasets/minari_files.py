"""Recordings out of Minari datasets, by path or by id. Knows Minari's files and D4RL's pointmaze schema, no simulator.

D4RL's pointmaze gives position and velocity in one vector, and the position once more as the achieved goal: it becomes
the streams position, velocity, action and reward. Every other dataset keeps its own names, those of nested observations
joined by an underscore. The desired goal is no stream (a goal is given in the stream that can reach it); how far it can
be trusted is written to the provenance. So is what cannot be a stream: whatever is no Box.
"""

import json
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from gymnasium import spaces
from minari.dataset.minari_storage import MinariStorage

from forcing.datasets.columns import Column, observation_columns
from forcing.datasets.episodes import Episode
from forcing.datasets.goals import GoalLog
from forcing.datasets.minari_places import locate_minari
from forcing.datasets.minari_rows import INFOS, Leaf, minari_rows
from forcing.datasets.pointmaze import CONTROL_HZ, pointmaze_spec, pointmaze_streams
from forcing.datasets.rows import check_rows
from forcing.datasets.space_streams import leaves, limits
from forcing.datasets.store_layout import episode_notes
from forcing.policy.types import Array, EpisodeNote, StreamSpec, TrajectorySpec

KEPT_METADATA = ("dataset_id", "algorithm_name", "description", "code_permalink", "author", "minari_version")
OWN = "forcing"  # metadata of `minari_export`, which says what Minari has no place for
ACTIONS: Leaf = ("actions",)
REWARDS: Leaf = ("rewards",)
DESIRED: Leaf = ("observations", "desired_goal")


class MinariRecording:
    """A `Recording` of a Minari dataset, in any of Minari's file formats, of which one episode is in memory at a time.

    Images become uint8 [h, w, c]. What is no Box is left out and named in the provenance.
    """

    def __init__(
        self,
        id_or_path: str | Path,
        *,
        control_hz: float | None = None,
        download: bool = False,
        executed: str | None = None,
    ) -> None:
        """id_or_path: the folder that holds `data/`, a folder with one such folder in it, or an id in Minari's local
        root. control_hz: steps a second; overrides what the dataset records, needed if it records nothing. download:
        fetch an id that is not here. executed: the info whose rows are read in place of the actions. Raises ValueError
        naming the dataset, the rule and the remedy if it is absent, broken or of another schema."""
        self._folder = locate_minari(id_or_path, download=download)
        storage = _storage(self._folder)
        action, observation = storage.action_space, storage.observation_space
        self._metadata = MinariStorage.read_raw_metadata(storage.data_path)
        self._environment = _environment(self._metadata, self._folder)
        self._count = self._metadata.get("total_episodes")
        if not isinstance(self._count, int) or self._count < 1:
            raise ValueError(
                f"{self._folder}: a dataset must have at least 1 episode, got {self._count}; record it again"
            )
        if not isinstance(action, spaces.Box):
            raise ValueError(f"{self._folder}: the action space must be a Box, got {action}")
        every = dict(leaves(observation, ("observations",)))
        boxes = {leaf: space for leaf, space in every.items() if isinstance(space, spaces.Box)}
        self._actions: Leaf = ACTIONS if executed is None else (INFOS, executed)
        self._boxes = {self._actions: action, **boxes}
        self._leaf_of = {"/".join(leaf): leaf for leaf in self._boxes}  # a name may have a slash of its own
        first = self._first(executed, action.shape)
        self._goals, self._columns, self._left_out = GoalLog(), list[Column](), dict[str, str]()
        self._pointmaze = _is_pointmaze(observation, action, first)
        if not self._pointmaze:
            self._columns, self._left_out = self._understood(first)
            self._left_out |= {_name(leaf): f"{each} is no Box" for leaf, each in every.items() if leaf not in boxes}
        self._spec = self._specified(
            action, _recorded_hz(self._metadata, self._environment) if control_hz is None else control_hz
        )
        self._notes: tuple[EpisodeNote, ...] = ()
        if OWN in self._metadata:
            self._spec, self._notes = self._as_exported(self._metadata[OWN], control_hz)

    @property
    def spec(self) -> TrajectorySpec:
        return self._spec

    def episodes(self) -> Iterator[Episode]:
        self._goals = GoalLog()
        for index, rows in enumerate(self._rows(self._count)):
            where = f"{self._folder}: episode {index}"
            if DESIRED in rows:
                self._goals.add(index, rows[DESIRED])
            observed = pointmaze_streams(rows["observations", "observation"]) if self._pointmaze else {}
            for found in self._columns:
                values = rows[self._leaf_of[found.source]]
                observed[found.stream.name] = found.rows(values, f"{where}: {found.source}")
            # Of infos there is one row more, of the state that the last action led to.
            done = {"action": rows[self._actions][: len(rows[REWARDS])], "reward": rows[REWARDS]}
            streams = {
                s.name: observed[s.name] if s.role == "observation" else done[s.role] for s in self._spec.streams
            }
            check_rows(self._spec, streams, len(rows[REWARDS]), where)
            yield Episode(streams, where, self._notes[index] if self._notes else EpisodeNote())

    def provenance(self) -> Mapping[str, Any]:
        kept = {key: self._metadata[key] for key in KEPT_METADATA if key in self._metadata}
        result = {"source": "minari", **kept, "env_id": self._environment.get("id"), "goals": self._goals.to_json()}
        if self._columns:
            result["source_names"] = {each.stream.name: _name(self._leaf_of[each.source]) for each in self._columns}
        if self._actions != ACTIONS:
            result["source_names"] = {**result.get("source_names", {}), "action": "/".join(self._actions)}
        return {**result, "left_out": self._left_out} if self._left_out else result

    def _first(self, executed: str | None, shape: tuple[int, ...]) -> dict[Leaf, Array]:
        """Of the first episode. Raises ValueError if the info of executed actions is not there or of another shape."""
        if executed is None:
            return next(self._rows(1))
        try:
            first = next(self._rows(1))
        except ValueError as error:
            raise ValueError(f"{self._folder}: no actions can be read from {INFOS}/{executed} ({error})") from error
        if (got := first[self._actions].shape[1:]) != shape:
            raise ValueError(
                f"{self._folder}: {INFOS}/{executed} must have a row of shape {shape} a step, as actions have, to be "
                f"read in their place, got {got}"
            )
        return first

    def _rows(self, count: int) -> Iterator[dict[Leaf, Array]]:
        return minari_rows(self._folder, self._metadata["data_format"], count, self._boxes)

    def _understood(self, first: Mapping[Leaf, Array]) -> tuple[list[Column], dict[str, str]]:
        """The streams of the observations, with units and their spaces' limits, and why each other Box is none."""
        observed = [leaf for leaf in self._boxes if leaf[0] == "observations" and leaf[:2] != DESIRED]
        arrays = ((_name(leaf), "/".join(leaf), first[leaf], f"{self._folder}: {'/'.join(leaf)}") for leaf in observed)
        columns, left_out = observation_columns(arrays, taken=("action", "reward"))
        units, result = self._units(), []
        for found in columns:
            low, high = limits(self._boxes[self._leaf_of[found.source]]) if found.pixels is None else (None, None)
            stream = replace(found.stream, low=low, high=high, units=units.get(found.stream.name, ""))
            result.append(replace(found, stream=stream))
        return result, {_name(self._leaf_of[source]): reason for source, reason in left_out.items()}

    def _units(self) -> Mapping[str, str]:
        """Of the observations by their streams' names, as `write_minari` recorded them."""
        units = self._metadata.get("units") or {}
        if not isinstance(units, dict) or not all(isinstance(unit, str) for unit in units.values()):
            raise ValueError(
                f"{self._folder}: units in metadata.json must be an object of streams and their units, got {units!r}; "
                "correct it"
            )
        return units

    def _specified(self, action_space: spaces.Box, hz: float | None) -> TrajectorySpec:
        low, high = limits(action_space)
        if self._pointmaze:
            return pointmaze_spec(control_hz=CONTROL_HZ if hz is None else hz, low=low, high=high)
        if hz is None:
            raise ValueError(
                f"{self._folder}: control_hz is not recorded and must be passed (steps a second, for example "
                "--control-hz 20)"
            )
        observed = [found.stream for found in self._columns]
        if not observed:
            raise ValueError(f"{self._folder}: no observation can be a stream ({self._left_out}); record numbers")
        action = StreamSpec(name="action", role="action", shape=tuple(action_space.shape), low=low, high=high)
        wanted = str(self._metadata.get("goal") or "achieved_goal")
        return TrajectorySpec(
            streams=(*observed, action, StreamSpec(name="reward", role="reward", shape=())),
            control_hz=hz,
            goal=wanted if wanted in {stream.name for stream in observed} else None,
        )

    def _as_exported(
        self, own: Mapping[str, Any], control_hz: float | None
    ) -> tuple[TrajectorySpec, tuple[EpisodeNote, ...]]:
        """What `minari_export` wrote beside Minari's own metadata."""
        try:
            spec, notes = TrajectorySpec.from_json(own["spec"]), episode_notes(own["episodes"])
        except (KeyError, ValueError, TypeError, IndexError) as error:
            raise ValueError(f"{self._folder}: metadata {OWN!r} is altered ({error}); export it again") from error
        named = {stream.name: stream.shape for stream in spec.of_role("observation")}
        found = {stream.name: stream.shape for stream in self._spec.of_role("observation")}
        if named != found or spec.action.shape != self._spec.action.shape or len(notes) not in (0, self._count):
            raise ValueError(
                f"{self._folder}: metadata {OWN!r} speaks of {named} and {len(notes)} episodes, the dataset has "
                f"{found} and {self._count}; export it again"
            )
        return spec if control_hz is None else replace(spec, control_hz=control_hz), notes


def _name(leaf: Leaf) -> str:
    """Of an observation: its names in nested spaces, joined by slashes."""
    return "/".join(leaf[1:]) or "observation"


def _storage(folder: Path) -> MinariStorage:
    try:
        return MinariStorage.read(folder / "data")
    except AssertionError as error:  # of Minari's own, without words
        raise ValueError(
            f"{folder}: data/metadata.json must name observation_space and action_space, or an env_spec that has them; "
            "download or record it again"
        ) from error
    except Exception as error:  # of spaces, and of the environment that has them if the dataset has none
        raise ValueError(
            f"{folder}: not a readable Minari dataset with its spaces ({error!r}); download or record it again"
        ) from error


def _environment(metadata: Mapping[str, Any], folder: Path) -> dict[str, Any]:
    """How it was made, as Gymnasium writes it; nothing if the dataset does not say."""
    try:
        return dict(json.loads(metadata.get("env_spec") or "{}"))
    except (ValueError, TypeError) as error:
        raise ValueError(f"{folder}: env_spec in metadata.json must be a JSON object ({error}); correct it") from error


def _recorded_hz(metadata: Mapping[str, Any], environment: Mapping[str, Any]) -> float | None:
    """What `write_minari` recorded, else a render_fps that the environment was made with."""
    options = environment.get("kwargs")
    rates = (metadata.get("control_hz"), options.get("render_fps") if isinstance(options, dict) else None)
    return next((float(rate) for rate in rates if isinstance(rate, int | float)), None)


def _is_pointmaze(space: spaces.Space[Any], action_space: spaces.Box, first: Mapping[Leaf, Array]) -> bool:
    if not isinstance(space, spaces.Dict) or action_space.shape != (2,):
        return False
    shapes = {key: value.shape for key, value in space.spaces.items()}
    if shapes != {"observation": (4,), "achieved_goal": (2,), "desired_goal": (2,)}:
        return False
    position = first["observations", "observation"][:, :2]
    return bool(np.array_equal(position, first["observations", "achieved_goal"], equal_nan=True))
