"""Requests against a policy's streams: names, shapes and finite numbers, or an InvalidRequest naming every fault."""

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from forcing.policy.policy import FARTHEST, GREY_LEVELS, Policy
from forcing.policy.types import Array, Obstacles, StreamSpec, TrajectorySpec
from forcing.server.errors import FieldError, InvalidRequest, did_you_mean
from forcing.server.schemas import MOST_PLAYED, ActionLimits, ActRequest, Ball, OpenRequest

_IN_REACH = f"within {FARTHEST:g} standard deviations of the recordings"


@dataclass(frozen=True, slots=True)
class Limits:
    """Of a flat action, [A] each. change: by how much an entry may differ from that of the step before."""

    low: NDArray[np.float64]
    high: NDArray[np.float64]
    change: NDArray[np.float64]


def check_act(policy: Policy, request: ActRequest) -> None:
    """Raises InvalidRequest, naming every field of an act that does not fit the policy.

    Numbers of an observation may be anything: a wild sensor is nothing that a robot must stop for. What is no frame was
    sent by a program, not by a camera.
    """
    errors = observation_errors(policy, request.observation, request.missing, field="observation")
    names = [stream.name for stream in policy.spec.of_role("observation")]
    for field, given in (
        ("missing", request.missing),
        ("noise", request.noise or {}),
        ("age_ms", request.age_ms or {}),
    ):
        errors += [
            FieldError(f"{field}.{name}", "an observation stream", f"{name!r}{did_you_mean(name, names)}")
            for name in given
            if name not in names
        ]
    errors += _camera_errors(policy, request.observation, field="observation")
    errors += [
        FieldError(f"noise.{name}", "nothing: it is a camera, whose frames have no standard error", f"{number:g}")
        for name, number in (request.noise or {}).items()
        if name in policy.cameras
    ]
    errors += _played_errors(policy, request)
    _raise(errors + goal_errors(policy, request.goal) + obstacle_errors(policy, request.obstacles or ()))


def _played_errors(policy: Policy, request: ActRequest) -> list[FieldError]:
    if request.played is None:
        return []
    action, shape = policy.spec.action, request.played.shape
    if len(shape) != 2 or shape[1] != action.size or shape[0] > MOST_PLAYED:
        expected = f"shape [K, {action.size}], one row a control step, at most {MOST_PLAYED}"
        return [FieldError("played", expected, f"shape {list(shape)}")]
    if not np.isfinite(request.played).all():
        return [FieldError("played", "finite numbers", "numbers that are not")]
    extremes = (request.played.min(axis=0), request.played.max(axis=0)) if shape[0] else ()
    if any(policy.away(action.name, row) > FARTHEST for row in extremes):
        return [FieldError("played", f"actions {_IN_REACH}", f"up to {np.abs(request.played).max():.3g}")]
    return []


def check_open(policy: Policy, request: OpenRequest) -> None:
    """Raises InvalidRequest, naming every fault of an opening session's goal and obstacles."""
    _raise(goal_errors(policy, request.goal) + obstacle_errors(policy, request.obstacles))


def check_goal(policy: Policy, goal: Array | None) -> None:
    """Raises InvalidRequest if the goal does not fit the policy's goal stream."""
    _raise(goal_errors(policy, goal))


def check_history(policy: Policy, history: list[dict[str, Array]], goal: Array | None) -> None:
    """Raises InvalidRequest, naming every field of a one-shot request that does not fit the policy."""
    errors = goal_errors(policy, goal)
    for index, observation in enumerate(history):
        field = f"history.{index}"
        errors += observation_errors(policy, observation, None, field=field)
        errors += _camera_errors(policy, observation, field=field)
        for stream in policy.spec.of_role("observation"):
            if stream.name in policy.cameras:
                continue
            if stream.name in observation and observation[stream.name].shape == stream.shape:
                errors += _number_errors(f"{field}.{stream.name}", policy, stream, observation[stream.name])
    _raise(errors)


def observation_errors(
    policy: Policy, observation: Mapping[str, Array], missing: Collection[str] | None, *, field: str
) -> list[FieldError]:
    """Every fault of one observation: unknown streams, absent ones, wrong shapes.

    missing: streams that are lost, None where none may be.
    """
    advice = "" if missing is None else "; list it in missing if it is lost"
    wanted = {stream.name: stream for stream in policy.spec.of_role("observation")}
    errors = []
    for name in observation:
        if name not in wanted:
            errors.append(
                FieldError(f"{field}.{name}", "an observation stream", f"{name!r}{did_you_mean(name, wanted)}")
            )
        elif name in (missing or ()):
            errors.append(FieldError(f"{field}.{name}", "no value, as it is listed in missing", "a value"))
    for name, stream in wanted.items():
        if name in observation:
            errors += _shape_errors(f"{field}.{name}", stream, observation[name])
        elif name not in (missing or ()):
            errors.append(FieldError(f"{field}.{name}", _described(stream), f"nothing{advice}"))
    return errors


def goal_errors(policy: Policy, goal: Array | None) -> list[FieldError]:
    """Every fault of a goal; None is always right."""
    if goal is None:
        return []
    if policy.spec.goal is None:
        return [FieldError("goal", "nothing: this policy takes no goal", f"shape {list(goal.shape)}")]
    return _array_errors("goal", policy, policy.spec[policy.spec.goal], goal)


def obstacle_errors(policy: Policy, obstacles: Sequence[Ball]) -> list[FieldError]:
    """Every fault of the obstacles' centres."""
    if policy.obstacle_stream is None:
        expected = "nothing: this policy knows no places to stay out of"
        return [FieldError("obstacles", expected, f"{len(obstacles)} of them")] if obstacles else []
    stream, errors = policy.spec[policy.obstacle_stream], list[FieldError]()
    for index, ball in enumerate(obstacles):
        errors += _array_errors(f"obstacles.{index}.centre", policy, stream, ball.centre)
        far = ball.radius / min(policy.normaliser.std[stream.name])
        if far > FARTHEST:
            errors.append(FieldError(f"obstacles.{index}.radius", f"{_IN_REACH}; check its units", f"{ball.radius:g}"))
    return errors


def obstacles_of(balls: Sequence[Ball]) -> Obstacles | None:
    """As planners take them, None if there are none."""
    if not balls:
        return None
    centres = np.stack([ball.centre.reshape(-1) for ball in balls])
    return Obstacles(centres=centres, radii=np.array([ball.radius for ball in balls]))


def action_limits(spec: TrajectorySpec, limits: ActionLimits | None) -> Limits:
    """The policy's, tightened by `limits`.

    Raises InvalidRequest if those have another length, would widen the policy's, or allow no change.
    """
    low = _filled(spec.action.low, spec.action.size, -math.inf)
    high = _filled(spec.action.high, spec.action.size, math.inf)
    change = np.full(len(low), math.inf)
    if limits is None:
        return Limits(low, high, change)
    errors, tight_low, tight_high = [], low, high
    for field, given in (("limits.low", limits.low), ("limits.high", limits.high)):
        if given is not None and len(given) != len(low):
            errors.append(FieldError(field, f"{len(low)} numbers, one an action entry", f"{len(given)}"))
        elif given is not None and any(not a <= g <= b for a, g, b in zip(low, given, high, strict=True)):
            errors.append(FieldError(field, f"numbers within {low.tolist()} and {high.tolist()}", f"{given}"))
        elif given is not None and field == "limits.low":
            tight_low = np.array(given)
        elif given is not None:
            tight_high = np.array(given)
    if not errors and (tight_low > tight_high).any():
        errors.append(FieldError("limits.low", f"at most limits.high {tight_high.tolist()}", f"{tight_low.tolist()}"))
    if limits.change is not None and len(limits.change) != len(low):
        errors.append(FieldError("limits.change", f"{len(low)} numbers, one an action entry", f"{len(limits.change)}"))
    elif limits.change is not None:
        change = np.array(limits.change)
    _raise(errors)
    return Limits(tight_low, tight_high, change)


def _array_errors(field: str, policy: Policy, stream: StreamSpec, array: Array) -> list[FieldError]:
    return _shape_errors(field, stream, array) or _number_errors(field, policy, stream, array)


def _camera_errors(policy: Policy, observation: Mapping[str, Array], *, field: str) -> list[FieldError]:
    """Frames of the right shape whose numbers are none of a camera's; the schema made uint8 of those that are."""
    errors = []
    for name in policy.cameras:
        frame = observation.get(name)
        if frame is None or frame.shape != policy.spec[name].shape or frame.dtype == np.uint8:
            continue
        wrong = np.argwhere(~((frame >= 0) & (frame <= 255) & (np.rint(frame) == frame)))[0].tolist()
        errors.append(FieldError(f"{field}.{name}", GREY_LEVELS, f"{frame[tuple(wrong)]:g} at index {wrong}"))
    return errors


def _shape_errors(field: str, stream: StreamSpec, array: Array) -> list[FieldError]:
    if array.shape != stream.shape:
        got = "null" if array.ndim == 0 and np.isnan(array) else f"shape {list(array.shape)}"
        return [FieldError(field, _described(stream), got)]
    return []


def _number_errors(field: str, policy: Policy, stream: StreamSpec, array: Array) -> list[FieldError]:
    bad = np.argwhere(~np.isfinite(array))
    if len(bad):
        index = tuple(bad[0].tolist())
        return [FieldError(field, "finite numbers", f"{array[index]} at index {list(index)}")]
    far = policy.away(stream.name, array)
    if far > FARTHEST:
        return [FieldError(field, f"{_IN_REACH}; check its units", f"{array.tolist()}, {far:.3g} away")]
    return []


def _described(stream: StreamSpec) -> str:
    return f"shape {list(stream.shape)}" + (f" in {stream.units}" if stream.units else "")


def _filled(limit: tuple[float, ...] | None, size: int, default: float) -> NDArray[np.float64]:
    return np.full(size, default) if limit is None else np.array(limit, dtype=np.float64)


def _raise(errors: list[FieldError]) -> None:
    if errors:
        raise InvalidRequest(errors)
