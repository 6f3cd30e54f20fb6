"""Scripted experts of Meta-World's eight tasks, after its own (`metaworld.policies`), told from the observation alone.

An action is where the hand shall be at the end of a phase, however far. Unlike Meta-World's, they hold what they have
done, start a grasp again that failed, and look at where the object is while they carry it. Knows nothing of files.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from forcing.envs.metaworld import ACTION, TASKS, Observation, Task

OPEN, CLOSED = 0.0, 1.0
GRASPED = 0.25  # of the way to closed, and there is something between the fingers
TIPS_M = 0.045  # below the hand
FINGERS_M = np.array([0.005, 0.0, 0.0])  # from where the hand grasps best to the middle of a puck
HINGE_M = np.array([0.113, 0.354, 0.0])  # of the door, from where its handle shall be

Vector = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class _Seen:
    """hand, thing, goal: [3] in m. closed: 0 to 1."""

    hand: Vector
    closed: float
    thing: Vector
    goal: Vector

    def beside(self, thing: Vector) -> float:
        """How far the hand is from a place, seen from above."""
        return float(np.linalg.norm((self.hand - thing)[:2]))


class MetaWorldExpert:
    """Of whichever task is asked for."""

    def reset(self, observation: Observation, seed: int = 0) -> None:
        """Nothing is kept from step to step, and nothing drawn."""

    def act(self, observation: Observation) -> NDArray[np.float32]:
        """[4], for `MetaWorld.step`."""
        seen = _Seen(
            hand=observation["effector_position"].astype(np.float64),
            closed=float(observation["gripper"][0]),
            thing=observation["object_position"].astype(np.float64),
            goal=observation["target"].astype(np.float64),
        )
        place, gripper = _SCRIPTS[TASKS[int(observation["task"].argmax())]](seen)
        return np.clip(np.append(place, gripper).astype(np.float32), ACTION.low, ACTION.high)


def _up(height: float) -> Vector:
    return np.array([0.0, 0.0, height])


def _reach(seen: _Seen) -> tuple[Vector, float]:
    return seen.goal + _up(TIPS_M), CLOSED


def _carry(seen: _Seen) -> tuple[Vector, float]:
    puck = seen.thing - FINGERS_M
    beside, above = seen.beside(puck), seen.hand[2] - puck[2]
    if seen.closed > GRASPED and beside < 0.035 and above < 0.08:
        return seen.goal + seen.hand - seen.thing, CLOSED
    if beside > 0.02:
        return puck + _up(0.15 if beside > 0.04 else 0.1), OPEN
    if above > 0.06:
        return puck + _up(TIPS_M), OPEN
    return puck + _up(TIPS_M), CLOSED if beside < 0.012 or seen.closed > 0.1 else OPEN


def _open_drawer(seen: _Seen) -> tuple[Vector, float]:
    handle = seen.thing - _up(0.02)
    if seen.beside(handle) > 0.06:
        return handle + _up(0.3), OPEN
    if abs(seen.hand[2] - handle[2]) > 0.04:
        return handle, OPEN
    return handle - (0, 0.06, 0), OPEN


def _press(seen: _Seen) -> tuple[Vector, float]:
    if seen.beside(seen.thing) > 0.04:
        return seen.thing + _up(0.1), CLOSED
    return seen.thing - _up(0.05), CLOSED


def _open_door(seen: _Seen) -> tuple[Vector, float]:
    outwards = seen.thing - (seen.goal + HINGE_M)
    ahead = np.array([outwards[1], -outwards[0], 0.0]) / np.linalg.norm(outwards[:2])  # where the handle goes next
    behind = seen.thing - 0.03 * ahead
    if seen.beside(behind) > 0.06:
        return behind + _up(0.2), CLOSED
    if seen.hand[2] - behind[2] > 0.03:
        return behind, CLOSED
    if seen.thing[0] <= seen.goal[0] + 0.02:
        return behind, CLOSED
    return seen.thing + 0.05 * ahead, CLOSED


def _insert(seen: _Seen) -> tuple[Vector, float]:
    along, beside, above = np.abs(seen.hand - seen.thing) * (1, 1, np.sign(seen.hand[2] - seen.thing[2]))
    if seen.closed > GRASPED and along < 0.06 and beside < 0.02 and above < 0.05:
        ahead = np.array([_ahead_of_the_hole(seen.thing - seen.goal), 0, 0])
        return seen.goal + ahead + seen.hand - seen.thing, CLOSED
    if along > 0.03 or beside > 0.02:
        return seen.thing + _up(0.2 if max(along, beside) > 0.06 else 0.1), OPEN
    return seen.thing + _up(0.02), OPEN if above > 0.035 else CLOSED


def _ahead_of_the_hole(peg: Vector) -> float:
    """How far ahead of it the peg's middle shall be, whose head is 10 cm nearer: inside once it is straight before it.

    peg: from where it shall be.
    """
    off = np.linalg.norm(peg[1:])
    if off <= 0.01 or (peg[0] < 0.14 and off <= 0.025):
        return 0.08
    return 0.17 if off <= 0.03 else max(0.35, float(peg[0]))


def _open_window(seen: _Seen) -> tuple[Vector, float]:
    handle = seen.thing - (0.03, 0.03, 0.08)
    if seen.beside(handle) > 0.04:
        return handle + _up(0.3), CLOSED
    if abs(seen.hand[2] - handle[2]) > 0.02:
        return handle, CLOSED
    return np.array([handle[0] + 0.1, *handle[1:]]), CLOSED


_SCRIPTS: Mapping[Task, Callable[[_Seen], tuple[Vector, float]]] = {
    "reach": _reach,
    "push": _carry,
    "pick-place": _carry,
    "drawer-open": _open_drawer,
    "button-press-topdown": _press,
    "door-open": _open_door,
    "peg-insert-side": _insert,
    "window-open": _open_window,
}
