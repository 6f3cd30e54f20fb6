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

from forcing.envs.arm_control import CUBES, observed, step_towards
from forcing.envs.rendering import render_fast
from forcing.envs.swap_layout import (
    CAMERAS,
    CUBE_HALF_M,
    HOME,
    HOME_SPREAD_M,
    HOME_YAW_RAD,
    IMAGE_SIZE,
    PLACE_SPREAD_M,
    SLOT_RADIUS_M,
    SLOTS,
)

Bag = tuple[NDArray[np.float64], NDArray[np.float64]]
# Ellipsoids: half axes and offset in m, colour; a belly, two crumpled corners and two handles.
BAG: tuple[tuple[tuple[float, ...], tuple[float, ...], tuple[float, ...]], ...] = (
    ((0.075, 0.045, 0.085), (0, 0, 0), (1, 1, 1, 1)),
    ((0.04, 0.045, 0.06), (0.045, 0.02, 0.03), (0.85, 0.87, 0.9, 1)),
    ((0.05, 0.04, 0.04), (-0.04, -0.01, -0.055), (0.9, 0.9, 0.88, 1)),
    ((0.012, 0.006, 0.028), (0.03, 0, 0.095), (0.8, 0.82, 0.85, 1)),
    ((0.012, 0.006, 0.028), (-0.03, 0, 0.095), (0.8, 0.82, 0.85, 1)),
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
        arena_mjcf.asset.add(
            "texture", name="bag", type="cube", builtin="checker", rgb1=(0.95, 0.95, 0.92), rgb2=(0.7, 0.72, 0.75),
            mark="random", markrgb=(0.25, 0.3, 0.35), random=0.03, width=16, height=16,
        )  # fmt: skip
        arena_mjcf.asset.add("material", name="bag", texture="bag", texrepeat=(1, 1))
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
        """action: [6], see `swap.Swap`."""
        found = self.compute_ob_info()
        yaw, gripper = found["proprio/effector_yaw"][0], found["proprio/gripper_opening"][0]
        super().set_control(step_towards(action, found["proprio/effector_pos"], yaw, gripper))

    def post_step(self) -> None:
        """ogbench colours cubes by its own success here."""

    def post_compilation_objects(self) -> None:
        super().post_compilation_objects()
        self._bag_material = self._model.material("bag").id
        render_fast(self._model)
        # Collision shapes have far fewer vertices than what they stand for.
        self._scene_option.geomgroup[_COLLISION_GROUP], self._scene_option.geomgroup[_VISUAL_GROUP] = 1, 0

    def compute_observation(self) -> dict[str, NDArray[np.float32]]:
        """State by name; see `swap.Swap`."""
        return observed(self.compute_ob_info(), len(CUBES))

    def frame(self, camera: str, *, bag: Bag | None = None, light: tuple[float, ...] = (1, 1, 1)) -> NDArray[np.uint8]:
        """[64, 64, 3]. bag: its position [3] in m and rotation [3, 3]; light: what all light is scaled by."""

        def disturb(scene: mujoco.MjvScene) -> None:
            for index in range(scene.nlight):
                lamp = scene.lights[index]
                for part in (lamp.ambient, lamp.diffuse, lamp.specular):
                    part *= light
            for size, offset, colour in BAG if bag is not None else ():
                assert bag is not None
                geom = scene.geoms[scene.ngeom]
                place = bag[0] + bag[1] @ offset
                mujoco.mjv_initGeom(
                    geom,
                    mujoco.mjtGeom.mjGEOM_ELLIPSOID,
                    np.array(size),
                    place,
                    bag[1].ravel(),
                    np.array(colour, np.float32),
                )
                geom.matid = self._bag_material
                scene.ngeom += 1

        return np.asarray(self.render(camera=camera, scene_callback=disturb))

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
