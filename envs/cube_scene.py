"""ogbench's cubes on a table, whose episodes begin where they are told to, and as their seed says.

ogbench itself also draws from numpy's global generator and from one of its own that cannot be seeded. Imports ogbench,
which is an extra: import it through `cube`. Knows nothing of steps' limits and of experts.
"""

from typing import Any

import mujoco
import numpy as np
from numpy.typing import NDArray
from ogbench.manipspace import lie
from ogbench.manipspace.envs.cube_env import CubeEnv

from forcing.envs.arm_control import observed, step_towards

Places = NDArray[np.float64]


class CubeScene(CubeEnv):  # type: ignore[misc]  # ogbench has no types
    """starts, goals: [n, 3] in m, of the cubes in their order, to be set before `reset`."""

    def __init__(self, kind: str) -> None:
        super().__init__(kind, visualize_info=False, terminate_at_goal=False)
        self.starts: Places = self.task_infos[0]["init_xyzs"]
        self.goals: Places = self.task_infos[0]["goal_xyzs"]

    def official(self, task_id: int, rng: np.random.Generator) -> tuple[Places, Places]:
        """Starts and goals of one of ogbench's five tasks: cubes are shuffled, and start up to 1 cm off."""
        task = self.task_infos[task_id - 1]
        order = rng.permutation(self._num_cubes)
        starts, goals = task["init_xyzs"][order], task["goal_xyzs"][order]
        return starts + np.append(rng.uniform(-0.01, 0.01, (len(order), 2)), np.zeros((len(order), 1)), 1), goals

    def initialize_episode(self) -> None:
        self._data.qpos[self._arm_joint_ids] = self._home_qpos
        mujoco.mj_kinematics(self._model, self._data)
        self.initialize_arm()
        for index, (start, goal) in enumerate(zip(self.starts, self.goals, strict=True)):
            turned = lie.SO3.from_z_radians(self.np_random.uniform(0, 2 * np.pi))
            self._data.joint(f"object_joint_{index}").qpos[:] = [*start, *turned.wxyz]
            self._data.mocap_pos[self._cube_target_mocap_ids[index]] = goal
            self._data.mocap_quat[self._cube_target_mocap_ids[index]] = (1, 0, 0, 0)
        mujoco.mj_forward(self._model, self._data)
        self.pre_step()
        self.post_step()

    def step_to(self, target: NDArray[np.float64]) -> dict[str, NDArray[np.float32]]:
        """State by name after one control step. target: [6], see `cube.Cube`."""
        at = self.compute_ob_info()
        place, yaw = at["proprio/effector_pos"], float(at["proprio/effector_yaw"][0])
        state, *_ = self.step(step_towards(target, place, yaw, float(at["proprio/gripper_opening"][0])))
        return state  # type: ignore[no-any-return]

    @property
    def success(self) -> bool:
        """ogbench's: every cube is within 4 cm of its goal."""
        return bool(self._success)

    def pre_step(self) -> None:
        """ogbench also informs itself here."""
        self._prev_qpos, self._prev_qvel = self._data.qpos.copy(), self._data.qvel.copy()

    def post_step(self) -> None:
        """ogbench also colours cubes here."""
        self._success = all(self._compute_successes())

    def get_reset_info(self) -> dict[str, Any]:
        return {}

    def get_step_info(self) -> dict[str, Any]:
        return {}

    def compute_observation(self) -> dict[str, NDArray[np.float32]]:
        """State by name; see `cube.Cube`."""
        state = observed(self.compute_ob_info(), self._num_cubes)
        return {**state, "target": self.goals.ravel().astype(np.float32)}
