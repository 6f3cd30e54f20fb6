"""Actions told as moves: how far from where it is a robot is sent, in place of where to.

Arms of OGBench are commanded so, up to 0.05 m along each axis in a step (its `manipspace_env.py`). A model of the world
that is told moves must itself keep up where the robot is. Knows no network and no file.
"""

from dataclasses import replace

import numpy as np

from forcing.policy.types import Array, StreamSpec, Trajectories, TrajectorySpec

LONGEST_M = 0.05
AXES = 3


def moves(actions: Array, places: Array) -> Array:
    """[..., A] actions whose first three entries, x, y and z in m, are less `places` [..., 3], where the robot was, and
    cut to `LONGEST_M`."""
    way = np.clip(actions[..., :AXES] - places, -LONGEST_M, LONGEST_M)
    return np.concatenate([way, actions[..., AXES:]], axis=-1).astype(actions.dtype)


def told_as_moves(trajectories: Trajectories, observation: str) -> Trajectories:
    """The recording with its actions as moves. observation: where the robot is.

    Raises ValueError if that is no place, x, y, z in m, or the actions have no three entries.
    """
    spec = trajectories.spec
    check_moves(spec, observation)
    places = trajectories.streams[observation][trajectories.before_steps()]
    told = moves(trajectories.streams[spec.action.name], places)
    streams = tuple(_limited(stream) if stream.role == "action" else stream for stream in spec.streams)
    return replace(
        trajectories,
        spec=replace(spec, streams=streams),
        streams={**trajectories.streams, spec.action.name: told},
    )


def check_moves(spec: TrajectorySpec, observation: str) -> None:
    """Raises ValueError, as `told_as_moves` does."""
    places = [stream.name for stream in spec.of_role("observation") if stream.places == 1]
    if observation not in places:
        raise ValueError(
            f"memory.moves_from must be an observation of a place, x, y, z in m, one of {', '.join(places) or 'none'}, "
            f"got {observation!r}"
        )
    if spec.action.size < AXES:
        raise ValueError(f"actions must begin with x, y, z in m to be told as moves, got {spec.action.size} entries")


def _limited(action: StreamSpec) -> StreamSpec:
    def cut(limits: tuple[float, ...] | None, longest: float) -> tuple[float, ...] | None:
        return None if limits is None else (longest,) * AXES + limits[AXES:]

    return replace(action, low=cut(action.low, -LONGEST_M), high=cut(action.high, LONGEST_M))
