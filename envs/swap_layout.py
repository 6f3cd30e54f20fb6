"""Where things are in `swap`: slots, cubes, cameras. Numbers alone; knows no simulator."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

IMAGE_SIZE = 64
CUBE_HALF_M = 0.02
SLOT_RADIUS_M = 0.03
CENTRE = np.array([0.425, 0.0])
# Cubes are put down within this of a slot's middle, along x and along y.
PLACE_SPREAD_M = 0.01
# The gripper starts and ends around here, at random, turned by as much to either side.
HOME = np.array([CENTRE[0], CENTRE[1], 0.24])
HOME_SPREAD_M = np.array([0.06, 0.06, 0.04])
HOME_YAW_RAD = np.pi / 4
# An equilateral triangle with sides of 0.12 m: apart enough for an open gripper, together enough for close cameras.
SLOTS: NDArray[np.float64] = CENTRE + 0.12 / np.sqrt(3) * np.array(
    [[-1.0, 0.0], [0.5, -np.sqrt(3) / 2], [0.5, np.sqrt(3) / 2]]
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Camera:
    """position, target: in m. fovy: degrees from the lower to the upper edge."""

    position: tuple[float, float, float]
    target: tuple[float, float, float]
    fovy: float

    def axes(self) -> tuple[float, ...]:
        """To the right and up in the image, in the world's coordinates, as MuJoCo's xyaxes."""
        back = np.subtract(self.position, self.target)
        right = np.cross((0, 0, 1), back)
        up = np.cross(back, right)
        return (*(right / np.linalg.norm(right)).tolist(), *(up / np.linalg.norm(up)).tolist())


CAMERAS = {
    # From low in front, how high the gripper is; from above at the side, which slot is which.
    "front": Camera(position=(1.515, 0.0, 0.52), target=(0.425, 0.0, 0.06), fovy=9.9),
    "side": Camera(position=(0.41, -0.90, 0.785), target=(0.41, 0.0, 0.025), fovy=10.0),
}
