"""The table of `swap`, in ogbench's manipspace: a UR5e with a gripper, three slots, a red and a blue cube, two cameras.

Imports ogbench, which is an extra: import it through `swap`. Knows nothing of the task and its success.
"""

import atexit
from typing import Any

import mujoco
import numpy as np
from numpy.typing import NDArray
from ogbench.manipspace import lie
from ogbench.manipspace.envs.cube_env import CubeEnv

from forcing.envs.rendering import render_fast
from forcing.envs.swap_control import step_towards
from forcing.envs.swap_layout import (
    CAMERAS,
    CUBE_HALF_M,
    CUBES,
    HOME,
    HOME_SPREAD_M,
    HOME_YAW_RAD,
    IMAGE_SIZE,
    PLACE_SPREAD_M,
    SLOT_RADIUS_M,
    SLOTS,
)

_COLLISION_GROUP, _VISUAL_GROUP = 3, 2


class SwapScene(CubeEnv):  # type: ignore[misc]  # ogbench has no types
    """ogbench's cube scene with two cubes, whose episodes begin at given slots; all else at random from the seed."""

    def __init__(self) -> None:
        super().__init__("double", mode="data_collection", visualize_info=False, width=IMAGE_SIZE, height=IMAGE_SIZE)
        self._renderer: Any
        self.slots = (0, 1)  # of the red and of the blue cube when an episode begins

    def add_objects(self, arena_mjcf: Any) -> None:
        super().add_objects(arena_mjcf)
        for camera in arena_mjcf.worldbody.find_all("camera", immediate_children_only=True):
            camera.remove()
        for name, camera in CAMERAS.items():
            arena_mjcf.worldbody.add("camera", name=name, pos=camera.position, xyaxes=camera.axes(), fovy=camera.fovy)
        for index, (x, y) in enumerate(SLOTS):
            arena_mjcf.worldbody.add(
                "geom", name=f"slot_{index}", type="cylinder", size=(SLOT_RADIUS_M, 0.0005), pos=(x, y, 0.0005),
                rgba=(0.75, 0.75, 0.7, 1.0), contype=0, conaffinity=0, group=1,
            )  # fmt: skip
        for wall in range(4):  # they show where the workspace ends, and would stand before the cameras
            arena_mjcf.find("geom", f"wall_{wall}").rgba = (0, 0, 0, 0)

    def initialize_episode(self) -> None:
        for index in range(2):
            self._model.geom_rgba[self._cube_geom_ids_list[index]] = self._cube_colors[index]
            self._model.geom_rgba[self._cube_target_geom_ids_list[index]] = 0
            self._data.mocap_pos[self._cube_target_mocap_ids[index]] = (0, 0, -0.3)
        self._data.qpos[self._arm_joint_ids] = self._home_qpos
        mujoco.mj_kinematics(self._model, self._data)
        self._place_arm()
        for index, slot in enumerate(self.slots):
            place = SLOTS[slot] + self.np_random.uniform(-PLACE_SPREAD_M, PLACE_SPREAD_M, 2)
            turn = lie.SO3.from_z_radians(self.np_random.uniform(-np.pi, np.pi))
            self._data.joint(f"object_joint_{index}").qpos[:] = [*place, CUBE_HALF_M, *turn.wxyz]
        mujoco.mj_forward(self._model, self._data)
        self.pre_step()
        self.post_step()

    def set_control(self, action: NDArray[np.float64]) -> None:
        """action: [5], see `swap.Swap`."""
        found = self.compute_ob_info()
        at = [found[f"proprio/{name}"] for name in ("effector_pos", "effector_yaw", "gripper_opening")]
        super().set_control(step_towards(action, np.concatenate(at)))

    def post_step(self) -> None:
        """ogbench colours cubes by its own success here."""

    def post_compilation_objects(self) -> None:
        super().post_compilation_objects()
        render_fast(self._model)
        # Collision shapes have far fewer vertices than what they stand for.
        self._scene_option.geomgroup[_COLLISION_GROUP], self._scene_option.geomgroup[_VISUAL_GROUP] = 1, 0

    def compute_observation(self) -> dict[str, NDArray[np.float32]]:
        """State by name; see `swap.Swap`."""
        found = self.compute_ob_info()
        yaw = found["proprio/effector_yaw"][0]
        observed = {
            "effector_position": found["proprio/effector_pos"],
            "effector_heading": (np.cos(yaw), np.sin(yaw)),
            "gripper": (found["proprio/gripper_opening"][0], found["proprio/gripper_contact"][0]),
        }
        for index, cube in enumerate(CUBES):
            turns = 4 * found[f"privileged/block_{index}_yaw"][0]  # a cube looks the same after a quarter of a turn
            observed[f"{cube}_position"] = found[f"privileged/block_{index}_pos"]
            observed[f"{cube}_heading"] = (np.cos(turns), np.sin(turns))
        return {name: np.array(value, np.float32) for name, value in observed.items()}

    def speeds(self) -> tuple[float, float]:
        """Of the two cubes, in m/s."""
        red, blue = (float(np.linalg.norm(self._data.joint(f"object_joint_{i}").qvel[:3])) for i in range(2))
        return red, blue

    def _initialize_renderer(self) -> None:
        super()._initialize_renderer()
        atexit.register(self.close)  # OpenGL ends with the process, and renderers left then complain

    def close(self) -> None:
        """Ends rendering."""
        atexit.unregister(self.close)
        if self._renderer is not None:
            self._renderer.close()
            self._renderer = None

    def _place_arm(self) -> None:
        position = HOME + self.np_random.uniform(-HOME_SPREAD_M, HOME_SPREAD_M)
        turn = lie.SO3.from_z_radians(self.np_random.uniform(-HOME_YAW_RAD, HOME_YAW_RAD))
        pose = lie.SE3.from_rotation_and_translation(turn @ self._effector_down_rotation, position) @ self._T_pa
        self._data.qpos[self._arm_joint_ids] = self._ik.solve(
            pos=pose.translation(), quat=pose.rotation().wxyz, curr_qpos=self._home_qpos
        )
        mujoco.mj_forward(self._model, self._data)
