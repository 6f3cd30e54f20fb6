"""What disturbs the cameras of `swap`: a bag flies through, something covers a lens, light changes, a camera dies.

Frames alone are disturbed, as they are rendered: the same actions lead to the same states with and without. Numbers
alone; knows no simulator.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from forcing.envs.arm_control import CUBES
from forcing.envs.swap_layout import CAMERAS, IMAGE_SIZE

Kind = Literal["bag", "cover", "light", "dead"]
KINDS: tuple[Kind, ...] = ("bag", "cover", "light", "dead")

# A grasp: the gripper has closed so far around a cube on the table; it is another one after a cube was in the air.
CLOSING, OPENED = 0.2, 0.1
NEAR_M, ON_TABLE_M, IN_THE_AIR_M = 0.04, 0.03, 0.05
# The bag crosses a camera's axis this part of the way from what it looks at to the lens; it begins and ends so far off.
CROSSING, BEYOND_M, SAG_M = 0.3, 0.3, 0.35
TURNS = 1.5
GREY, GRAIN = (96.0, 84.0, 70.0), 4.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Distractor:
    """What disturbs which cameras, and when.

    kind: "bag": a bag flies through their views, on one path through both where both are named. "cover": something
    opaque right before their lenses. "light": all light is scaled by `light`, red, green, blue; seen by both cameras.
    "dead": their frames are black, zeros, as those of cameras that have failed. start: the first observation disturbed,
    0 for the one that reset returns, counted from the observation at the grasp of number `grasp` (1 for the first)
    where that is given. steps: how many, None for the rest of the episode; a bag needs its number, and takes so many to
    fly.
    """

    kind: Kind
    cameras: tuple[str, ...] = tuple(CAMERAS)
    start: int = 0
    steps: int | None = None
    grasp: int | None = None
    light: tuple[float, float, float] = (0.5, 0.38, 0.25)

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise ValueError(f"kind must be one of {', '.join(KINDS)}, got {self.kind!r}")
        if not self.cameras or len(set(self.cameras)) < len(self.cameras) or not set(self.cameras) <= set(CAMERAS):
            raise ValueError(f"cameras must be one or more of {', '.join(CAMERAS)}, got {self.cameras}")
        if self.kind == "light" and set(self.cameras) != set(CAMERAS):
            raise ValueError(f"light changes for {' and '.join(CAMERAS)} alike, got {self.cameras}")
        if self.kind == "bag" and self.steps is None:
            raise ValueError("steps must be given for a bag: how many it takes to fly through")
        least = {"start": (self.start, 0), "steps": (self.steps, 1), "grasp": (self.grasp, 1)}
        for name, (value, bound) in least.items():
            if value is not None and value < bound:
                raise ValueError(f"{name} must be at least {bound}, got {value}")
        if min(self.light) < 0:
            raise ValueError(f"light must be at least 0, got {self.light}")


@dataclass(slots=True)
class Grasps:
    """How many grasps there were; a second attempt at one that lifted nothing is the same."""

    count: int = field(default=0, init=False)
    _armed: bool = field(default=True, init=False)
    _lifted: bool = field(default=False, init=False)

    def see(self, state: Mapping[str, NDArray[Any]]) -> None:
        """state: what `Swap` tells of effector, gripper and cubes."""
        cubes = [state[f"{cube}_position"] for cube in CUBES]
        closed = float(state["gripper"][0])
        self._lifted |= max(cube[2] for cube in cubes) > IN_THE_AIR_M
        if self._lifted and closed < OPENED:
            self._armed, self._lifted = True, False
        around = any(
            cube[2] < ON_TABLE_M and np.linalg.norm(cube - state["effector_position"]) < NEAR_M for cube in cubes
        )
        if self._armed and closed > CLOSING and around:
            self.count += 1
            self._armed = False


class Disturbance:
    """One episode's distractor, told of every state in turn, the one at reset first."""

    def __init__(self, distractor: Distractor) -> None:
        self.distractor = distractor
        self._grasps = Grasps()
        self._since: int | None = None  # states seen since it was due

    def see(self, state: Mapping[str, NDArray[Any]]) -> None:
        """state: what `Swap` tells of effector, gripper and cubes."""
        self._grasps.see(state)
        if self._since is not None:
            self._since += 1
        elif self.distractor.grasp is None or self._grasps.count >= self.distractor.grasp:
            self._since = 0

    @property
    def at(self) -> int | None:
        """The number of the disturbed observation that is due now, from 0; None before and after."""
        if self._since is None or self._since < self.distractor.start:
            return None
        at = self._since - self.distractor.start
        return at if self.distractor.steps is None or at < self.distractor.steps else None

    def frame_instead(self, camera: str) -> NDArray[np.uint8] | None:
        """[64, 64, 3]: what this camera gives now in place of a picture; None where it gives one."""
        if self.at is None or camera not in self.distractor.cameras:
            return None
        if self.distractor.kind == "dead":
            return np.zeros((IMAGE_SIZE, IMAGE_SIZE, 3), np.uint8)
        return cover(camera) if self.distractor.kind == "cover" else None

    def light(self) -> tuple[float, float, float]:
        """What light is scaled by now."""
        return self.distractor.light if self.distractor.kind == "light" and self.at is not None else (1, 1, 1)

    def bag(self) -> tuple[NDArray[np.float64], NDArray[np.float64]] | None:
        """Position [3] in m and rotation [3, 3] of the bag now, None while there is none."""
        if self.distractor.kind != "bag" or self.at is None:
            return None
        assert self.distractor.steps is not None
        along = (self.at + 0.5) / self.distractor.steps
        return flight(self.distractor.cameras, along), _turned(2 * np.pi * TURNS * along)


def flight(cameras: tuple[str, ...], along: float) -> NDArray[np.float64]:
    """[3] in m: where the bag is on its way through these cameras' views. along: 0 to 1 of its time."""
    crossings = [
        (1 - CROSSING) * np.array(CAMERAS[name].target) + CROSSING * np.array(CAMERAS[name].position)
        for name in cameras
    ]
    middle = np.mean(crossings, axis=0)
    if len(crossings) > 1:
        across = crossings[-1] - crossings[0]
        half = float(np.linalg.norm(across)) / 2
        across /= 2 * half
    else:
        across, half = np.array(CAMERAS[cameras[0]].axes()[:3]), 0.0
    reach = half + BEYOND_M
    way = (2 * along - 1) * reach
    # Thrown: highest half way, at the height of the cameras' axes where it crosses them.
    sag = SAG_M * (way**2 - half**2)
    return np.asarray(middle + way * across - np.array([0.0, 0.0, sag]))


def cover(camera: str) -> NDArray[np.uint8]:
    """[64, 64, 3]: something brown, out of focus, right before this camera's lens."""
    rng = np.random.default_rng(tuple(CAMERAS).index(camera))
    rows, columns = np.mgrid[-1 : 1 : IMAGE_SIZE * 1j, -1 : 1 : IMAGE_SIZE * 1j]
    shade = 1 - 0.15 * np.hypot(rows - rng.uniform(-0.5, 0.5), columns - rng.uniform(-0.5, 0.5))
    frame = np.multiply.outer(shade, GREY) + rng.normal(0.0, GRAIN, (IMAGE_SIZE, IMAGE_SIZE, 1))
    return np.asarray(np.clip(frame, 1, 255), np.uint8)


def _turned(angle: float) -> NDArray[np.float64]:
    """[3, 3]: turned about an axis that is none of the world's."""
    axis = np.array([0.6, 0.5, 0.62])
    x, y, z = axis / np.linalg.norm(axis)
    cross = np.array([[0, -z, y], [z, 0, -x], [-y, x, 0]])
    return np.asarray(np.eye(3) + np.sin(angle) * cross + (1 - np.cos(angle)) * cross @ cross)
