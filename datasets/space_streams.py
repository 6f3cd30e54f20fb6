"""Gymnasium's spaces as streams: what of an observation can be recorded, under which name and in which shape."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import gymnasium
import numpy as np
from gymnasium import spaces

from forcing.datasets.columns import identifier
from forcing.datasets.pixels import Pixels, layout_of
from forcing.policy.types import Array, Role, StreamSpec, TrajectorySpec

GIVEN = "desired_goal"  # is recorded, but is no stream: a goal is given in the stream that can reach it


@dataclass(frozen=True, slots=True)
class Streams:
    """What is recorded of an environment. spec: its streams, each with role observation, action or reward. read: what
    they are of an observation, and maybe more under other names. left_out: parts of it that can be no stream."""

    spec: TrajectorySpec
    read: Callable[[Any], Mapping[str, Array]]
    left_out: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class _Field:
    """One Box of an observation. keys: the way to it. pixels: how it is frames, None if it is none."""

    name: str
    keys: tuple[str, ...]
    box: spaces.Box
    pixels: Pixels | None


def streams_of(env: gymnasium.Env[Any, Any], control_hz: float | None = None) -> Streams:
    """Every Box of the observation as a stream under its name, nested ones as outer_inner; the action; the reward.

    Pictures [c, h, w] and [h, w] of uint8 become [h, w, c], and names identifiers that differ, as those of a Minari
    dataset do. Limits are those of boxes that are bounded; integers have none but their type's. A stream
    `achieved_goal` is the one in which goals are given. control_hz: steps a second; the environment's render_fps if
    None. Raises ValueError if neither says, the action is no Box, or nothing observed is one.
    """
    action, rate = env.action_space, env.metadata.get("render_fps") if control_hz is None else control_hz
    if not isinstance(action, spaces.Box):
        raise ValueError(f"the action space must be a Box, got {action}; wrap the environment so that it is one")
    if rate is None:
        raise ValueError("control_hz must be given, steps a second: the environment's metadata has no render_fps")
    every = list(leaves(env.observation_space))
    fields = _fields({keys: leaf for keys, leaf in every if isinstance(leaf, spaces.Box)})
    observed = [field for field in fields if field.keys[:1] != (GIVEN,)]
    if not observed:
        raise ValueError(f"the observation space must be a Box, or hold one, got {env.observation_space}")
    streams = [_stream(field.name, "observation", field.box, field.pixels) for field in observed]
    streams += [_stream("action", "action", action), StreamSpec(name="reward", role="reward", shape=())]
    goal = "achieved_goal" if ("achieved_goal",) in [field.keys for field in observed] else None
    return Streams(
        spec=TrajectorySpec(streams=tuple(streams), control_hz=float(rate), goal=goal),
        read=partial(_read, fields),
        left_out=tuple("/".join(keys) for keys, leaf in every if not isinstance(leaf, spaces.Box)),
    )


def leaves(space: spaces.Space[Any], at: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], spaces.Space[Any]]]:
    """Every space that is no Dict, by the names that lead there."""
    if not isinstance(space, spaces.Dict):
        yield at, space
        return
    for key, inner in space.spaces.items():
        yield from leaves(inner, (*at, str(key)))


def limits(box: spaces.Box) -> tuple[tuple[float, ...] | None, tuple[float, ...] | None]:
    """Flat limits; None for integers, whose type is their limit, and if any entry is unlimited."""
    if not np.issubdtype(box.dtype, np.floating):
        return None, None
    low, high = (
        tuple(float(x) for x in side.reshape(-1)) if np.isfinite(side).all() else None for side in (box.low, box.high)
    )
    return low, high


def _fields(boxes: Mapping[tuple[str, ...], spaces.Box]) -> list[_Field]:
    """Named as a reader of Minari datasets names them; goals that were given last, whose names are no stream's."""
    fields, taken = list[_Field](), {"action", "reward"}
    for keys, box in sorted(boxes.items(), key=lambda each: each[0][:1] == (GIVEN,)):
        name = identifier("/".join(keys) or "observation", taken)
        layout = layout_of(box.shape, box.dtype) if box.dtype == np.uint8 else None
        fields.append(_Field(name, keys, box, layout and Pixels(layout, 1)))
        taken.add(name)
    return fields


def _read(fields: list[_Field], observation: Any) -> dict[str, Array]:
    """Raises ValueError at one that does not have the shape that its space promises."""
    found = {}
    for field in fields:
        value = observation
        for key in field.keys:
            value = value[key]
        array = np.asarray(value)
        where = f"observation {'/'.join(field.keys) or 'of the environment'!r}"
        if array.shape != field.box.shape:
            raise ValueError(
                f"{where} must have the shape of its space, {field.box.shape}, got {array.shape}; correct the "
                "environment's observation_space"
            )
        found[field.name] = array if field.pixels is None else field.pixels.frames(array[None], where)[0]
    return found


def _stream(name: str, role: Role, box: spaces.Box, pixels: Pixels | None = None) -> StreamSpec:
    low, high = limits(box)
    shape = box.shape if pixels is None else pixels.frames(np.zeros((1, *box.shape), np.uint8), name).shape[1:]
    return StreamSpec(name=name, role=role, shape=tuple(shape), low=low, high=high)
