"""`swap`: an arm exchanges two cubes by way of a third slot, on ogbench's manipspace (arXiv:2410.20092).

Three slots; a red and a blue cube lie in two of them. Each shall end in the other's slot, and one must have lain in the
free one meanwhile. A layout on the way is another episode's start: no single observation tells the stage. ogbench is an
extra, imported when it is first needed. Knows nothing of policies or recordings.
"""

from dataclasses import dataclass, field
from itertools import permutations
from typing import Any

import gymnasium
import numpy as np
from gymnasium import spaces
from gymnasium.envs.registration import EnvSpec
from numpy.typing import NDArray

from forcing.envs.arm_control import ACTION, CUBES, state_spaces
from forcing.envs.extras import extra_needed
from forcing.envs.rendering import use_headless
from forcing.envs.reset_options import asked
from forcing.envs.swap_distractors import Distractor, Disturbance
from forcing.envs.swap_layout import CAMERAS, CUBE_HALF_M, IMAGE_SIZE, SLOT_RADIUS_M, SLOTS

CONTROL_HZ = 20.0
MAX_STEPS = 300
LAYOUTS: tuple[tuple[int, int], ...] = tuple((red, blue) for red, blue in permutations(range(3), 2))
# A cube rests on the table, in a slot, away from the gripper.
LIFTED_M = 0.005
RELEASED_M = 0.05
STILL_M_S = 0.05

STATE: dict[str, spaces.Space[Any]] = {**state_spaces(len(CUBES))}
UNITS = {name: "m" for name in STATE if name.endswith("position")}

Observation = dict[str, NDArray[Any]]


@dataclass(slots=True)
class Progress:
    """How far an exchange has come, told from which cube rests in which slot.

    start: slots of the red and of the blue cube. swapped holds while both rest in each other's slots, once one has
    rested in the free slot: it is lost again if a cube is.
    """

    start: tuple[int, int]
    by_the_free_slot: bool = field(default=False, init=False)
    swapped: bool = field(default=False, init=False)

    def see(self, resting: tuple[int | None, int | None]) -> None:
        """resting: the slot in which the red and in which the blue cube rests now, None if in none."""
        (free,) = {0, 1, 2} - set(self.start)
        self.by_the_free_slot |= free in resting
        self.swapped = self.by_the_free_slot and resting == self.start[::-1]


class Swap(gymnasium.Env[Observation, NDArray[Any]]):
    """The exchange of two cubes; an episode is cut after 300 steps of 0.05 s and never ends before.

    Observation, float32: effector_position [3] in m; effector_heading [2], cosine and sine of four times its yaw, as
    cubes and grasps are the same after a quarter of a turn; gripper [2], 0 open to 1 closed, and 0 to 1 for the force
    on a finger; red_position, blue_position [3] in m; red_heading, blue_heading [2], as the effector's. With cameras
    also front and side, [64, 64, 3] uint8. Action: [6], where the effector and the gripper shall be: x, y, z in m, the
    heading [2], and 0 open to 1 closed; cut to the space's limits. A step goes towards there, as far as ogbench lets
    it (0.05 m along an axis, 0.3 rad), so that a held action holds the arm. Reward: 1 while swapped, else 0.
    Info: success, whether swapped now; at an episode's last step, whether it held; with cameras also distracted, the
    names of those whose present frame is disturbed, for scoring alone. reset takes options={"layout": (red's slot,
    blue's slot)}, of `LAYOUTS`, and {"distractor": a `Distractor` or None}; everything else follows from the seed.
    """

    metadata = {"render_modes": [], "render_fps": int(CONTROL_HZ)}  # noqa: RUF012  # as Gymnasium has it

    def __init__(self, cameras: bool = False, distractor: Distractor | None = None) -> None:
        """distractor: of every episode whose reset names none.

        Raises RuntimeError if ogbench is not installed, or if frames are wanted and nothing renders here; ValueError
        for a distractor without cameras.
        """
        self._distractor = _checked(distractor, cameras)
        self._disturbance: Disturbance | None = None
        self._distracted: list[str] = []
        if cameras:
            use_headless()
        self._scene = _scene()
        self._cameras = tuple(CAMERAS) if cameras else ()
        image = spaces.Box(0, 255, (IMAGE_SIZE, IMAGE_SIZE, 3), np.uint8)
        self.observation_space = spaces.Dict({**STATE, **dict.fromkeys(self._cameras, image)})  # type: ignore[assignment]
        self.action_space = ACTION
        self._progress = Progress(LAYOUTS[0])
        self._steps = 0

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Observation, dict[str, Any]]:
        super().reset(seed=seed)
        drawn = LAYOUTS[int(self.np_random.integers(len(LAYOUTS)))]
        wanted = asked(options, "layout", "distractor")
        layout = tuple(wanted.get("layout", drawn))
        if layout not in LAYOUTS:
            raise ValueError(f"layout must be two different slots of 0, 1 and 2, got {layout}")
        self._scene.slots = layout
        state, _ = self._scene.reset(seed=int(self.np_random.integers(2**31)))
        self._progress, self._steps = Progress(layout), 0
        distractor = _checked(wanted.get("distractor", self._distractor), bool(self._cameras))
        self._disturbance = Disturbance(distractor) if distractor else None
        observation = self._observed(state)
        return observation, self._info()

    def step(self, action: NDArray[Any]) -> tuple[Observation, float, bool, bool, dict[str, Any]]:
        state, *_ = self._scene.step(np.clip(np.asarray(action, np.float64), ACTION.low, ACTION.high))
        self._steps += 1
        self._progress.see(self._resting(state))
        observation = self._observed(state)
        info = self._info()
        return observation, float(info["success"]), False, self._steps >= MAX_STEPS, info

    def close(self) -> None:
        self._scene.close()

    def _observed(self, state: Observation) -> Observation:
        self._distracted = []
        if self._disturbance is None:
            return {**state, **{name: self._scene.frame(name) for name in self._cameras}}
        self._disturbance.see(state)
        return {**state, **{name: self._disturbed(self._disturbance, name) for name in self._cameras}}

    def _disturbed(self, disturbance: Disturbance, camera: str) -> NDArray[np.uint8]:
        """This camera's frame with what disturbs it, which is noted."""
        instead, bag, light = disturbance.frame_instead(camera), disturbance.bag(), disturbance.light()
        frame = self._scene.frame(camera, bag=bag, light=light) if instead is None else instead
        # A bag may be out of view, or behind the arm.
        in_view = bag is not None and (frame != self._scene.frame(camera)).any()
        if instead is not None or light != (1, 1, 1) or in_view:
            self._distracted.append(camera)
        return frame

    def _info(self) -> dict[str, Any]:
        info = {"success": self._progress.swapped, "layout": self._progress.start}
        return {**info, "distracted": tuple(self._distracted)} if self._cameras else info

    def _resting(self, state: Observation) -> tuple[int | None, int | None]:
        red, blue = (
            resting_slot(state[f"{cube}_position"], state["effector_position"]) if speed < STILL_M_S else None
            for cube, speed in zip(CUBES, self._scene.speeds(), strict=True)
        )
        return red, blue


def resting_slot(cube: NDArray[Any], effector: NDArray[Any]) -> int | None:
    """The slot in which a cube at this position lies, None in none, or in the gripper. cube, effector: [3] in m."""
    if abs(cube[2] - CUBE_HALF_M) > LIFTED_M or np.linalg.norm(cube - effector) < RELEASED_M:
        return None
    distances = np.linalg.norm(SLOTS - cube[:2], axis=1)
    nearest = int(distances.argmin())
    return nearest if distances[nearest] <= SLOT_RADIUS_M else None


def _checked(distractor: Distractor | None, cameras: bool) -> Distractor | None:
    if distractor is not None and not cameras:
        raise ValueError("a distractor disturbs frames: it needs cameras=True")
    return distractor


def environment_spec(*, cameras: bool = False) -> EnvSpec:
    """What `gymnasium.make` takes, and recordings name as their environment."""
    return EnvSpec(id="swap-v0", entry_point="forcing.envs.swap:Swap", kwargs={"cameras": cameras})


def _scene() -> Any:
    with extra_needed("swap", "ogbench"):
        from forcing.envs.swap_scene import SwapScene
    return SwapScene()
