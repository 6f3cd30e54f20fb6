"""What an action of `swap` means: where the effector and the gripper shall be, and ogbench's step towards there.

Numbers alone; knows no simulator.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
from gymnasium import spaces
from numpy.typing import NDArray

# ogbench's: where its effector may be, and how far a step's target may lie from it along x, y, z, in yaw and gripper.
WORKSPACE_M = np.array([[0.25, -0.35, 0.02], [0.6, 0.35, 0.35]])
STEP = np.array([0.05, 0.05, 0.05, 0.3, 1.0])
ACTION = spaces.Box(
    np.array([*WORKSPACE_M[0], -np.pi, 0.0], np.float32), np.array([*WORKSPACE_M[1], np.pi, 1.0], np.float32)
)


def wrapped(angle: float) -> float:
    """The same angle, -pi to below pi."""
    return float((angle + np.pi) % (2 * np.pi) - np.pi)


def pose(observation: Mapping[str, NDArray[Any]]) -> NDArray[np.float64]:
    """[5]: where effector and gripper are, in the terms of an action. observation: see `swap.Swap`."""
    cosine, sine = observation["effector_heading"]
    place = observation["effector_position"].astype(np.float64)
    return np.array([*place, np.arctan2(sine, cosine), observation["gripper"][0]])


def step_towards(target: NDArray[Any], at: NDArray[np.float64]) -> NDArray[np.float64]:
    """[5], -1 to 1: ogbench's relative action from the pose `at` to `target` or as far as a step goes. Both [5]."""
    away = np.asarray(target, np.float64) - at
    away[3] = wrapped(away[3])
    step: NDArray[np.float64] = np.clip(away / STEP, -1.0, 1.0)
    return step


def target_of(step: NDArray[np.float64], at: NDArray[np.float64]) -> NDArray[np.float32]:
    """[5]: the action whose step from the pose `at` is `step`, cut to `ACTION`'s limits."""
    target = at + np.clip(step, -1.0, 1.0) * STEP
    target[3] = wrapped(target[3])
    return within_limits(target)


def within_limits(target: NDArray[Any]) -> NDArray[np.float32]:
    """[5]: a target cut to `ACTION`'s limits."""
    cut: NDArray[np.float32] = np.clip(target.astype(np.float32), ACTION.low, ACTION.high)
    return cut
