"""The scripted expert of `swap`: what ogbench's cube oracle does three times over, red first, and its demonstrations.

It says where effector and gripper shall be, which changes as a phase of the work ends and hardly within one. Red goes
to the free slot, blue to red's slot, red to blue's; whatever is displaced meanwhile is put back at the end. Sees what
policies see, and remembers the stage. Knows nothing of files.
"""

from functools import partial

import numpy as np
from numpy.typing import NDArray

from forcing.envs.arm_control import CUBES, after_step, pose, step_towards, target_at, yaw_of
from forcing.envs.held_episodes import Episode, Push, drive
from forcing.envs.swap import Observation, Swap, resting_slot
from forcing.envs.swap_layout import CUBE_HALF_M, HOME, HOME_SPREAD_M, HOME_YAW_RAD, SLOTS
from forcing.envs.swap_pushes import Bursts, Pushes

# As ogbench's oracle has them, but for placing, which is a little closer.
ABOVE_M, HOVER_M, CARRIED_M = 0.16, 0.20, 0.35
NEAR_M, ALIGNED_M = 0.04, 0.02
OPEN_CONTACT, CLOSED_CONTACT = 0.1, 0.5
OPEN, CLOSED = 0.0, 1.0
LIFTED_M = 0.04
LOW_M = 0.06  # an open gripper below this shoves cubes that it is pushed against
# It aims well within a slot, and puts a cube again that lies nearer to the edge than this: who learns from it errs by
# more.
AIMED_M, PLACED_M, WELL_PLACED_M = 0.005, 0.014, 0.022


class SwapExpert:
    """Where cubes go within a slot and how they are turned is drawn as episodes begin, so that they tell no stage."""

    def __init__(self) -> None:
        self._rng = np.random.default_rng(0)
        self._legs: list[tuple[int, int]] = []
        self._goals: tuple[tuple[int, int], ...] = ()
        self._leg: tuple[int, int] | None = None
        self.done = False

    def reset(self, observation: Observation, seed: int) -> None:
        """observation: an episode's first, both cubes in slots. seed: of where they are put."""
        self._rng = np.random.default_rng(seed)
        red, blue = (_slot(observation, cube) for cube in CUBES)
        (free,) = {0, 1, 2} - {red, blue}
        self._legs = [(0, free), (1, red), (0, blue)]
        self._goals = ((0, blue), (1, red))
        self._leg, self.done = None, False

    def act(self, observation: Observation) -> NDArray[np.float32]:
        """[6], for `Swap.step`. `done` tells whether both cubes are where they shall be, and the gripper above."""
        if self._leg is None or self._is_over(observation):
            self._begin_next(observation)
        return target_at(self._target(observation))

    def _begin_next(self, observation: Observation) -> None:
        displaced = [(cube, slot) for cube, slot in self._goals if not _lies(observation, cube, slot)]
        if not self._legs and not displaced:
            self.done = True
            return
        self._leg = self._legs.pop(0) if self._legs else displaced[0]
        self._away = HOME + self._rng.uniform(-HOME_SPREAD_M, HOME_SPREAD_M)
        self._away_yaw = self._rng.uniform(-HOME_YAW_RAD, HOME_YAW_RAD)
        place = SLOTS[self._leg[1]] + self._rng.uniform(-AIMED_M, AIMED_M, 2)
        self._place = np.array([*place, CUBE_HALF_M])
        self._place_yaw = self._rng.uniform(-np.pi / 4, np.pi / 4)

    def _is_over(self, observation: Observation) -> bool:
        assert self._leg is not None
        risen = observation["effector_position"][2] > ABOVE_M and observation["gripper"][1] < OPEN_CONTACT
        return bool(risen) and _lies(observation, *self._leg)

    def _target(self, observation: Observation) -> NDArray[np.float64]:
        """[5], a pose: the phases of ogbench's cube oracle, told from the observation; it retries what failed."""
        assert self._leg is not None
        effector = pose(observation)
        cube, turned = _cube(observation, CUBES[self._leg[0]])
        turned = _nearest_turn(turned, effector[3])
        contact, risen = observation["gripper"][1], effector[2] > ABOVE_M
        to_place = self._place - cube
        if np.linalg.norm(to_place) <= PLACED_M:
            if contact >= OPEN_CONTACT:
                return np.array([*effector[:3] + to_place, effector[3], OPEN])
            if not risen:
                return np.array([*cube[:2], CARRIED_M, self._away_yaw, OPEN])
            return np.array([*self._away, self._away_yaw, OPEN])
        if np.linalg.norm(cube[:2] - effector[:2]) > NEAR_M:
            return np.array([*cube[:2], HOVER_M, turned, OPEN])
        if np.linalg.norm(cube - effector[:3]) > ALIGNED_M:
            return np.array([*cube, turned, OPEN])
        if contact <= CLOSED_CONTACT:
            return np.array([*cube, turned, CLOSED])
        # From here the cube is in the gripper: what counts is where it is, not where the gripper is.
        yaw = _nearest_turn(self._place_yaw, effector[3]) + effector[3] - turned
        if np.linalg.norm(to_place[:2]) <= NEAR_M:
            return np.array([*effector[:3] + to_place, yaw, CLOSED])
        if not risen:
            return np.array([*cube[:2], CARRIED_M, yaw, CLOSED])
        return np.array([*effector[:2] + to_place[:2], HOVER_M, yaw, CLOSED])


def demonstrate(
    env: Swap,
    *,
    seed: int,
    noise: float = 0.0,
    bursts: Bursts | None = None,
    layout: tuple[int, int] | None = None,
    after: int = 10,
) -> Episode:
    """One episode of the expert, until `after` steps past the end of its work, or cut by the environment.

    noise: standard deviation of what is added to executed steps, in ogbench's; it fades over a few steps. bursts:
    pushes besides that make it miss, drop or shove cubes (see `swap_pushes`). layout: of `LAYOUTS`, drawn if None.
    Depends on the seed alone. Raises ValueError for a negative noise.
    """
    if noise < 0:
        raise ValueError(f"noise must be at least 0, got {noise}")
    expert = SwapExpert()
    return drive(
        env,
        expert,
        seed=seed,
        options=None if layout is None else {"layout": layout},
        pushed=partial(_push, noise, bursts) if noise or bursts is not None else None,
        at_rest=lambda info: expert.done,
        after=after,
    )


def _push(noise: float, bursts: Bursts | None, rng: np.random.Generator) -> Push:
    pushes = Pushes(rng, noise=noise, bursts=bursts)
    return lambda action, observation: _pushed(action, observation, pushes)


def _pushed(action: NDArray[np.float32], observation: Observation, pushes: Pushes) -> NDArray[np.float32]:
    at = pose(observation)
    highest = max(observation[f"{cube}_position"][2] for cube in CUBES)
    closes = bool(action[5] > 0.5)
    carrying = closes and highest > LIFTED_M
    step = step_towards(action, at[:3], at[3], at[4])
    low = not closes and at[2] < LOW_M
    return target_at(after_step(pushes.next(step, grasping=closes and not carrying, carrying=carrying, low=low), at))


def _cube(observation: Observation, cube: str) -> tuple[NDArray[np.float64], float]:
    """Its position [3] in m and its yaw in rad, -pi / 4 to pi / 4."""
    return observation[f"{cube}_position"].astype(np.float64), yaw_of(observation[f"{cube}_heading"])


def _nearest_turn(yaw: float, to: float) -> float:
    """yaw or as many quarters of a turn from there as bring it nearest to the other."""
    return yaw + np.pi / 2 * round((to - yaw) / (np.pi / 2))


def _slot(observation: Observation, cube: str) -> int:
    slot = resting_slot(observation[f"{cube}_position"], observation["effector_position"])
    if slot is None:
        raise ValueError(f"the {cube} cube must rest in a slot, got position {observation[f'{cube}_position']}")
    return slot


def _lies(observation: Observation, cube: int, slot: int) -> bool:
    place = observation[f"{CUBES[cube]}_position"]
    near = bool(np.linalg.norm(SLOTS[slot] - place[:2]) <= WELL_PLACED_M)
    return near and resting_slot(place, observation["effector_position"]) == slot
