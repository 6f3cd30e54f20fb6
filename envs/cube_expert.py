"""The scripted expert of `cube`: ogbench's cube oracle, one cube after another, told from the observation alone.

A cube is carried to its target once that is free; where none is free, as in an exchange, what is in the way is put
aside first. What is displaced meanwhile is put back. Actions are where the effector shall be at the end of a phase,
however far. Knows nothing of files.
"""

import numpy as np
from numpy.typing import NDArray

from forcing.envs.arm_control import ACTION, CUBES
from forcing.envs.cube import Observation

# As ogbench's oracle has them.
ABOVE_M, HOVER_M, LIFT_M = 0.16, 0.20, 0.34
NEAR_M, ALIGNED_M, STACKED_M = 0.04, 0.02, 0.012
# It goes down at an angle; what is pushed about had better come from straight above, and from where it touches nothing.
STRAIGHT_M, CLEAR_M = 0.015, 0.06
PLACED_M = 0.03  # and not more displaced than this
OPEN_CONTACT, CLOSED_CONTACT = 0.1, 0.5
OPEN, CLOSED = 0.0, 1.0
SQUARE = (1.0, 0.0)  # the heading of targets
# Cubes closer than this are in each other's way; one that is put aside goes where it is further from everything.
FREE_M, TIGHT_M, ASIDE_M = 0.07, 0.05, 0.11
ON_TABLE_M = 0.03
_PLACES = [np.array([x, y, 0.02]) for x in (0.35, 0.425, 0.5) for y in np.linspace(-0.25, 0.25, 11)]

Place = NDArray[np.float64]


class CubeExpert:
    """Keeps in mind which cube it is about to place, and where: an observation does not always tell."""

    def __init__(self) -> None:
        self._leg: tuple[int, Place] | None = None

    def reset(self, observation: Observation, seed: int = 0) -> None:
        """observation: an episode's first. seed: unused, as nothing is drawn."""
        self._leg = None

    def act(self, observation: Observation) -> NDArray[np.float32]:
        """[6], for `Cube.step`; once every cube is in its place, the effector waits above the last."""
        cubes, targets = _cubes(observation), observation["target"].astype(np.float64).reshape(-1, 3)
        if self._leg is None or _is_over(observation, cubes, *self._leg):
            self._leg = _next_leg(observation, cubes, targets) or self._leg or (0, targets[0])
        cube, place = self._leg
        if place[2] > ON_TABLE_M:
            place = _on_top(place, [other for n, other in enumerate(cubes) if n != cube])
        return np.clip(_target(observation, CUBES[cube], place).astype(np.float32), ACTION.low, ACTION.high)


def _cubes(observation: Observation) -> list[Place]:
    return [observation[f"{name}_position"].astype(np.float64) for name in CUBES if f"{name}_position" in observation]


def _is_over(observation: Observation, cubes: list[Place], cube: int, place: Place) -> bool:
    """Done, or not to be done any more."""
    risen = observation["effector_position"][2] > ABOVE_M and observation["gripper"][1] < OPEN_CONTACT
    placed = _distance(cubes[cube], place) <= PLACED_M
    return bool(risen and placed) or not (placed or _fits(cube, place, cubes, TIGHT_M))


def _next_leg(observation: Observation, cubes: list[Place], targets: NDArray[np.float64]) -> tuple[int, Place] | None:
    """Which cube to carry where, None if all are in their places. The lower target first: others may stand on it."""
    left = [int(n) for n in np.argsort(targets[:, 2], kind="stable") if _distance(cubes[n], targets[n]) > PLACED_M]
    if not left:
        return None
    ready = [cube for cube in left if _fits(cube, targets[cube], cubes, FREE_M)]
    gripped = observation["gripper"][1] > CLOSED_CONTACT
    held = [cube for cube in left if gripped and _distance(cubes[cube], observation["effector_position"]) <= ALIGNED_M]
    if ready and (not held or ready[0] in held):
        return ready[0], targets[ready[0]]
    aside = (
        held[0] if held else min(set(range(len(cubes))) - {left[0]}, key=lambda n: _apart(cubes[n], targets[left[0]]))
    )
    free = [place for place in _PLACES if min(_apart(place, other) for other in (*cubes, *targets)) > ASIDE_M]
    return aside, min(free, key=lambda place: _apart(place, cubes[aside]))


def _fits(cube: int, place: Place, cubes: list[Place], room_m: float) -> bool:
    """Whether no other cube is in the way there, and one is below if it is not on the table."""
    others = [_apart(other, place) for n, other in enumerate(cubes) if n != cube]
    if place[2] > ON_TABLE_M:
        return any(distance <= PLACED_M for distance in others)
    return all(distance > room_m for distance in others)


def _on_top(place: Place, others: list[Place]) -> Place:
    """Of the cube that is there already, wherever exactly."""
    below = min(others, key=lambda other: _apart(other, place))
    return np.array([*below[:2], place[2]])


def _target(observation: Observation, name: str, place: Place) -> NDArray[np.float64]:
    """[6]: where the effector shall be next, so that the cube comes to its place and the effector above it."""
    cube, facing = observation[f"{name}_position"].astype(np.float64), observation[f"{name}_heading"]
    effector, contact = observation["effector_position"].astype(np.float64), observation["gripper"][1]
    risen, to_place = effector[2] > ABOVE_M, place - cube
    if contact < OPEN_CONTACT and np.linalg.norm(to_place) <= PLACED_M:
        return np.array([*cube[:2], HOVER_M if risen else LIFT_M, *facing, OPEN])
    if np.linalg.norm(to_place) <= (STACKED_M if place[2] > ON_TABLE_M else ALIGNED_M):
        return np.array([*effector + to_place, *SQUARE, OPEN])
    if _apart(cube, effector) > NEAR_M:
        return np.array([*cube[:2], max(HOVER_M, cube[2] + ABOVE_M), *facing, OPEN])
    if _distance(cube, effector) > ALIGNED_M:
        return np.array([*cube[:2], cube[2] + _clearance(cube, effector), *facing, OPEN])
    if contact <= CLOSED_CONTACT:
        return np.array([*cube, *facing, CLOSED])
    # The cube is in the gripper: what counts from here on is where it is, and not where the effector is.
    if _apart(cube, place) <= NEAR_M:
        return np.array([*effector + to_place + (0, 0, _clearance(place, cube)), *SQUARE, CLOSED])
    if not risen:
        return np.array([*cube[:2], LIFT_M, *SQUARE, CLOSED])
    return np.array([*effector[:2] + to_place[:2], max(HOVER_M, place[2] + ABOVE_M), *SQUARE, CLOSED])


def _clearance(below: Place, above: Place) -> float:
    """How much higher than there it shall be: it goes all the way down only when it is straight above."""
    return 0.0 if _apart(below, above) <= STRAIGHT_M else min(CLEAR_M, max(0.0, float(above[2] - below[2])))


def _distance(one: NDArray[np.floating], other: NDArray[np.floating]) -> float:
    return float(np.linalg.norm(one - other))


def _apart(one: NDArray[np.floating], other: NDArray[np.floating]) -> float:
    """Seen from above."""
    return float(np.linalg.norm(one[:2] - other[:2]))
