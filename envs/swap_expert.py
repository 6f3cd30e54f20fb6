"""The scripted expert of `swap`: ogbench's cube oracle three times over, red first, and its demonstrations.

Red goes to the free slot, blue to red's slot, red to blue's; whatever is displaced meanwhile is put back at the end.
Sees what policies see, and remembers the stage. Knows nothing of files.
"""

from typing import Any, TypedDict

import numpy as np
from numpy.typing import NDArray

from forcing.envs.rendering import without_display
from forcing.envs.swap import Observation, Swap, ogbench_needed, resting_slot
from forcing.envs.swap_layout import CUBE_HALF_M, CUBES, HOME, HOME_SPREAD_M, HOME_YAW_RAD, PLACE_SPREAD_M, SLOTS

ABOVE_M = 0.16
OPEN_CONTACT = 0.1
NOISE_KEPT = 0.8  # of the noise of the step before: pushes that last a few steps


class Episode(TypedDict):
    """T control steps.

    observations: [T + 1, ...] by name, see `Swap`. actions: [T, 5] float32, what the expert wanted; what was executed,
    noise added, is in infos. rewards: [T] float64. terminations: [T] all False. truncations: [T], the last is True.
    infos: executed [T + 1, 5], of which the last row is 0; success [T + 1].
    """

    observations: dict[str, NDArray[Any]]
    actions: NDArray[np.float32]
    rewards: NDArray[np.float64]
    terminations: NDArray[np.bool_]
    truncations: NDArray[np.bool_]
    infos: dict[str, NDArray[Any]]


class SwapExpert:
    """Where cubes go within a slot and how they are turned is drawn as episodes begin, so that they tell no stage."""

    def __init__(self) -> None:
        """Raises RuntimeError if ogbench is not installed."""
        self._oracle = _cube_oracle()
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
        """[5], for `Swap.step`. `done` tells whether both cubes are where they shall be, and the gripper above."""
        if self._leg is None or self._is_over(observation):
            self._begin_next(observation)
        return np.asarray(self._oracle.select_action(None, self._asked(observation)), np.float32)

    def _begin_next(self, observation: Observation) -> None:
        displaced = [(cube, slot) for cube, slot in self._goals if not _lies(observation, cube, slot)]
        if not self._legs and not displaced:
            self.done = True
            return
        self._leg = self._legs.pop(0) if self._legs else displaced[0]
        # As the oracle's own reset, which draws them from numpy's global generator, and over a larger space.
        self._oracle._step = 0
        self._oracle._final_pos = HOME + self._rng.uniform(-HOME_SPREAD_M, HOME_SPREAD_M)
        self._oracle._final_yaw = self._rng.uniform(-HOME_YAW_RAD, HOME_YAW_RAD)
        place = SLOTS[self._leg[1]] + self._rng.uniform(-PLACE_SPREAD_M, PLACE_SPREAD_M, 2)
        self._target = np.array([*place, CUBE_HALF_M])
        self._target_yaw = self._rng.uniform(-np.pi / 4, np.pi / 4)

    def _is_over(self, observation: Observation) -> bool:
        assert self._leg is not None
        risen = observation["effector_position"][2] > ABOVE_M and observation["gripper"][1] < OPEN_CONTACT
        return bool(risen) and _lies(observation, *self._leg)

    def _asked(self, observation: Observation) -> dict[str, Any]:
        """As ogbench's environments inform its oracles."""
        assert self._leg is not None
        cube = CUBES[self._leg[0]]
        cosine, sine = observation["effector_heading"]
        turned = observation[f"{cube}_heading"]
        return {
            "proprio/effector_pos": observation["effector_position"],
            "proprio/effector_yaw": np.array([np.arctan2(sine, cosine)]),
            "proprio/gripper_opening": observation["gripper"][:1],
            "proprio/gripper_contact": observation["gripper"][1:],
            "privileged/target_block": self._leg[0],
            f"privileged/block_{self._leg[0]}_pos": observation[f"{cube}_position"],
            f"privileged/block_{self._leg[0]}_yaw": np.array([np.arctan2(turned[1], turned[0]) / 4]),
            "privileged/target_block_pos": self._target,
            "privileged/target_block_yaw": np.array([self._target_yaw]),
        }


def demonstrate(
    env: Swap, *, seed: int, noise: float = 0.0, layout: tuple[int, int] | None = None, after: int = 10
) -> Episode:
    """One episode of the expert, until `after` steps past the end of its work, or cut by the environment.

    noise: standard deviation of what is added to executed actions, in units of the action; it fades over a few steps.
    layout: of `LAYOUTS`, drawn if None. Depends on the seed alone. Raises ValueError for a negative noise.
    """
    if noise < 0:
        raise ValueError(f"noise must be at least 0, got {noise}")
    observation, info = env.reset(seed=seed, options=None if layout is None else {"layout": layout})
    for_noise, for_expert = np.random.SeedSequence(seed, spawn_key=(1,)).generate_state(2)
    rng = np.random.default_rng(for_noise)
    expert = SwapExpert()
    expert.reset(observation, int(for_expert))
    observations, successes = [observation], [info["success"]]
    actions, executed, rewards = [], [], []
    push = np.zeros(5)
    left, truncated = after, False
    while left > 0 and not truncated:
        action = expert.act(observation)
        push = NOISE_KEPT * push + rng.normal(0.0, noise * np.sqrt(1 - NOISE_KEPT**2), 5)
        done = np.clip(action + push, -1.0, 1.0).astype(np.float32)
        observation, reward, _, truncated, info = env.step(done)
        observations.append(observation)
        successes.append(info["success"])
        actions.append(action)
        executed.append(done)
        rewards.append(reward)
        left -= expert.done
    steps = len(actions)
    return Episode(
        observations={name: np.stack([each[name] for each in observations]) for name in observation},
        actions=np.stack(actions),
        rewards=np.array(rewards),
        terminations=np.zeros(steps, dtype=np.bool_),
        truncations=np.arange(steps) == steps - 1,
        infos={"executed": np.stack([*executed, np.zeros(5, np.float32)]), "success": np.array(successes)},
    )


def _cube_oracle() -> Any:
    with ogbench_needed(), without_display():
        from ogbench.manipspace.oracles.markov.cube_markov import CubeMarkovOracle
    return CubeMarkovOracle(env=None)  # which its reset alone looks at


def _slot(observation: Observation, cube: str) -> int:
    slot = resting_slot(observation[f"{cube}_position"], observation["effector_position"])
    if slot is None:
        raise ValueError(f"the {cube} cube must rest in a slot, got position {observation[f'{cube}_position']}")
    return slot


def _lies(observation: Observation, cube: int, slot: int) -> bool:
    return resting_slot(observation[f"{CUBES[cube]}_position"], observation["effector_position"]) == slot
