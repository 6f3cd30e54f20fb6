"""Scripted experts of Fetch's tasks, told from the observation alone.

An action is where the effector shall be at the end of a phase, however far. Knows nothing of files.
"""

import numpy as np
from numpy.typing import NDArray

from forcing.envs.fetch import ACTION, STEP_M, Kind, Observation

OPEN, CLOSED = 0.0, 1.0
GRASPED = 0.35  # of the way to closed; a block stops it half-way
LOW_M, OVER_M = 0.425, 0.5  # heights: of a block on the table; above one
DONE_M, STAYS_M = 0.02, 0.035  # pushed no further than the one, and left alone within the other
BEHIND_M, TOUCHING_M, NEAR_M = 0.07, 0.045, 0.08  # from the block's middle

Vector = NDArray[np.float64]


class FetchExpert:
    """Pushes where nothing can be grasped."""

    def reset(self, observation: Observation, seed: int = 0) -> None:
        """Nothing is kept from step to step, and nothing drawn."""

    def act(self, observation: Observation) -> NDArray[np.float32]:
        """[3] or [4], for `Fetch.step`."""
        hand, block, goal = (
            observation[name].astype(np.float64) for name in ("effector_position", "object_position", "target")
        )
        if "gripper" not in observation:
            return _cut("push", _push(hand, block, goal))
        return _cut("pick-and-place", np.append(*_carry(hand, float(observation["gripper"][0]), block, goal)))


def _carry(hand: Vector, closed: float, block: Vector, goal: Vector) -> tuple[Vector, float]:
    """Where the hand shall be, and the gripper."""
    away = hand - block
    beside, above = float(np.linalg.norm(away[:2])), float(away[2])
    if closed > GRASPED and beside < 0.03 and abs(above) < 0.03:
        return goal + away, CLOSED
    if beside > 0.02:
        return np.array([*block[:2], block[2] + 0.08]), OPEN
    if above > 0.01:
        return block, OPEN
    return block, CLOSED


def _push(hand: Vector, block: Vector, goal: Vector) -> Vector:
    """Where the hand shall be: straight behind the block, then ahead, the slower the nearer, for it slides on."""
    left = (goal - block)[:2]
    distance, low = float(np.linalg.norm(left)), hand[2] < LOW_M + 0.025
    if distance < (DONE_M if low else STAYS_M):
        return np.array([*hand[:2], OVER_M])
    ahead = left / distance
    away = (hand - block)[:2]
    along, beside = float(away @ ahead), float(abs(away @ (-ahead[1], ahead[0])))
    if along < -0.02 and beside < 0.025 and low:
        lead = min(STEP_M, 0.3 * distance) - TOUCHING_M
        return np.array([*block[:2] + lead * ahead, LOW_M])
    behind = block[:2] - BEHIND_M * ahead
    if np.linalg.norm(hand[:2] - behind) < 0.02:
        return np.array([*behind, LOW_M])
    if hand[2] < OVER_M - 0.03 and np.linalg.norm(away) < NEAR_M:
        return np.array([*hand[:2], OVER_M])
    return np.array([*behind, OVER_M])


def _cut(kind: Kind, action: Vector) -> NDArray[np.float32]:
    return np.clip(action.astype(np.float32), ACTION[kind].low, ACTION[kind].high)
