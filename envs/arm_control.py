"""What an action of `swap` and `cube` means, where the effector and the gripper shall be, and ogbench's step there; and
what they observe.

Numbers alone; knows no simulator.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
from gymnasium import spaces
from numpy.typing import NDArray

CUBES = ("red", "blue")
# ogbench's: where its effector may be, and how far a step leads along x, y, z, in yaw and gripper.
WORKSPACE_M = np.array([[0.25, -0.35, 0.02], [0.6, 0.35, 0.35]])
STEP_M, STEP_RAD = 0.05, 0.3
_STEP = np.array([STEP_M, STEP_M, STEP_M, STEP_RAD, 1.0])
ACTION = spaces.Box(
    np.array([*WORKSPACE_M[0], -1.0, -1.0, 0.0], np.float32), np.array([*WORKSPACE_M[1], 1.0, 1.0, 1.0], np.float32)
)


def heading(yaw: float) -> NDArray[np.float64]:
    """[2] cosine and sine of four times the yaw: a cube looks the same after a quarter of a turn, and is grasped so."""
    return np.array([np.cos(4 * yaw), np.sin(4 * yaw)])


def yaw_of(heading: NDArray[Any]) -> float:
    """Rad, -pi / 4 to pi / 4. heading: [2], of any length but 0."""
    return float(np.arctan2(heading[1], heading[0])) / 4


def state_spaces(cubes: int) -> dict[str, spaces.Box]:
    """Of what `observed` says."""
    place, turned = spaces.Box(-np.inf, np.inf, (3,), np.float32), spaces.Box(-1.0, 1.0, (2,), np.float32)
    return {
        "effector_position": place,
        "effector_heading": turned,
        "gripper": spaces.Box(0.0, 1.0, (2,), np.float32),
        **{
            f"{cube}_{part}": space
            for cube in CUBES[:cubes]
            for part, space in (("position", place), ("heading", turned))
        },
    }


def observed(found: Mapping[str, NDArray[Any]], cubes: int) -> dict[str, NDArray[np.float32]]:
    """What ogbench says of the effector and of the first `cubes` of `CUBES`, by stream; see `swap.Swap`."""
    parts: dict[str, Any] = {
        "effector_position": found["proprio/effector_pos"],
        "effector_heading": heading(found["proprio/effector_yaw"][0]),
        "gripper": (found["proprio/gripper_opening"][0], found["proprio/gripper_contact"][0]),
    }
    for index, cube in enumerate(CUBES[:cubes]):
        parts[f"{cube}_position"] = found[f"privileged/block_{index}_pos"]
        parts[f"{cube}_heading"] = heading(found[f"privileged/block_{index}_yaw"][0])
    return {name: np.array(value, np.float32) for name, value in parts.items()}


def turn(wanted: NDArray[Any], now: NDArray[Any]) -> float:
    """The smallest turn, in rad, that leads from one heading to the other; both [2], of any length but 0."""
    cosine = wanted[0] * now[0] + wanted[1] * now[1]
    sine = wanted[1] * now[0] - wanted[0] * now[1]
    return float(np.arctan2(sine, cosine)) / 4


def step_towards(target: NDArray[Any], position: NDArray[Any], yaw: float, gripper: float) -> NDArray[np.float64]:
    """[5], -1 to 1: ogbench's relative action from where the effector and the gripper are, as far as a step goes.

    target: [6], see `cube.Cube`. position: [3] in m. yaw: rad. gripper: 0 open to 1 closed.
    """
    away = np.append(target[:3] - position, (turn(target[3:5], heading(yaw)), target[5] - gripper))
    step: NDArray[np.float64] = np.clip(away / _STEP, -1.0, 1.0)
    return step


def pose(observation: Mapping[str, NDArray[Any]]) -> NDArray[np.float64]:
    """[5]: where effector and gripper are: x, y, z in m, yaw in rad, -pi / 4 to pi / 4, as quarters of a turn are all
    the same, and the gripper. observation: see `swap.Swap`."""
    place = observation["effector_position"].astype(np.float64)
    return np.array([*place, yaw_of(observation["effector_heading"]), observation["gripper"][0]])


def target_at(pose: NDArray[np.float64]) -> NDArray[np.float32]:
    """[6]: the action that leads to a pose [5], cut to `ACTION`'s limits."""
    target = np.array([*pose[:3], *heading(pose[3]), pose[4]], np.float32)
    return np.clip(target, ACTION.low, ACTION.high)


def after_step(step: NDArray[np.float64], at: NDArray[np.float64]) -> NDArray[np.float64]:
    """[5]: the pose that ogbench's relative action `step`, -1 to 1, leads to from the pose `at`."""
    pose: NDArray[np.float64] = at + np.clip(step, -1.0, 1.0) * _STEP
    return pose


def within_reach(target: NDArray[Any], observation: Mapping[str, NDArray[Any]]) -> NDArray[np.float64]:
    """[6]: the target that a single step can come to; the same step leads to both. target: [6]."""
    cut = np.asarray(target, np.float64).copy()
    place, facing = observation["effector_position"], observation["effector_heading"]
    cut[:3] = np.clip(cut[:3], place - STEP_M, place + STEP_M)
    cut[3:5] = heading(yaw_of(facing) + float(np.clip(turn(cut[3:5], facing), -STEP_RAD, STEP_RAD)))
    return cut
