"""Gymnasium's spaces as streams: what of an observation can be recorded, under which name and in which shape."""

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import gymnasium
import numpy as np
from gymnasium import spaces

from forcing.policy.types import Array, Role, StreamSpec, TrajectorySpec

CHANNELS = (1, 3, 4)
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
    """One Box of an observation. keys: the way to it. turned: channels come first, and are put last."""

    name: str
    keys: tuple[str, ...]
    box: spaces.Box
    turned: bool


def streams_of(env: gymnasium.Env[Any, Any], control_hz: float | None = None) -> Streams:
    """Every Box of the observation as a stream under its name, nested ones as outer_inner; the action; the reward.

    Pictures [c, h, w] of uint8 become [h, w, c]. Limits are those of boxes that are bounded; integers have none but
    their type's. A stream `achieved_goal` is the one in which goals are given. control_hz: steps a second; the
    environment's render_fps if None. Raises ValueError if neither says, the action is no Box, nothing observed is one,
    or two names become the same.
    """
    action, rate = env.action_space, env.metadata.get("render_fps") if control_hz is None else control_hz
    if not isinstance(action, spaces.Box):
        raise ValueError(f"the action space must be a Box, got {action}; wrap the environment so that it is one")
    if rate is None:
        raise ValueError("control_hz must be given, steps a second: the environment's metadata has no render_fps")
    every = list(_leaves((), env.observation_space))
    fields = [_field(keys, leaf) for keys, leaf in every if isinstance(leaf, spaces.Box)]
    observed = [field for field in fields if field.keys != (GIVEN,)]
    names = [field.name for field in fields]
    if not observed:
        raise ValueError(f"the observation space must be a Box, or hold one, got {env.observation_space}")
    if len(set(names)) < len(names):
        raise ValueError(f"observations must have names that differ in more than punctuation, got {sorted(names)}")
    streams = [_stream(field.name, "observation", field.box, field.turned) for field in observed]
    streams += [_stream("action", "action", action), StreamSpec(name="reward", role="reward", shape=())]
    goal = "achieved_goal" if ("achieved_goal",) in [field.keys for field in observed] else None
    return Streams(
        spec=TrajectorySpec(streams=tuple(streams), control_hz=float(rate), goal=goal),
        read=partial(_read, fields),
        left_out=tuple("/".join(keys) for keys, leaf in every if not isinstance(leaf, spaces.Box)),
    )


def _leaves(keys: tuple[str, ...], space: spaces.Space[Any]) -> Iterator[tuple[tuple[str, ...], spaces.Space[Any]]]:
    if isinstance(space, spaces.Dict):
        for key, inner in space.spaces.items():
            yield from _leaves((*keys, str(key)), inner)
    else:
        yield keys, space


def _field(keys: tuple[str, ...], box: spaces.Box) -> _Field:
    name = re.sub(r"\W", "_", "_".join(keys)) if keys else "observation"
    if not name.isidentifier() or name in ("action", "reward"):
        name = f"observed_{name}"
    picture = box.dtype == np.uint8 and len(box.shape) == 3
    turned = picture and box.shape[0] in CHANNELS and box.shape[2] not in CHANNELS
    return _Field(name, keys, box, turned)


def _read(fields: list[_Field], observation: Any) -> dict[str, Array]:
    """Raises ValueError at one that does not have the shape that its space promises."""
    found = {}
    for field in fields:
        value = observation
        for key in field.keys:
            value = value[key]
        array = np.asarray(value)
        if array.shape != field.box.shape:
            raise ValueError(
                f"observation {'/'.join(field.keys) or 'of the environment'!r} must have the shape of its space, "
                f"{field.box.shape}, got {array.shape}; correct the environment's observation_space"
            )
        found[field.name] = array.transpose(1, 2, 0) if field.turned else array
    return found


def _stream(name: str, role: Role, box: spaces.Box, turned: bool = False) -> StreamSpec:
    low, high = (_limit(side, box) for side in (box.low, box.high))
    shape = (*box.shape[1:], box.shape[0]) if turned else box.shape
    return StreamSpec(name=name, role=role, shape=shape, low=low, high=high)


def _limit(side: Array, box: spaces.Box) -> tuple[float, ...] | None:
    if not np.issubdtype(box.dtype, np.floating) or not np.isfinite(side).all():
        return None
    return tuple(side.reshape(-1).tolist())
