"""Where the red and the blue cube are, seen in frames of `swap`: by colour in each view, and where the views agree.

A cube looks the same from opposite sides and the cameras are far away, so the middle of what is seen of it is the
middle of the cube, as long as nothing hides a part. For judging frames, rendered or imagined; knows no simulator.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from forcing.envs.arm_control import CUBES
from forcing.envs.swap_layout import CAMERAS, IMAGE_SIZE, Camera

# A pixel counts in full where its colour stands out by so much, of 255, and not at all below the first.
RED, BLUE = (20.0, 45.0), (32.0, 45.0)
ALONE = 0.3  # of the square of nine pixels around one
REACH = 12  # pixels from the middle of a cube to its furthest corners, and some more
AT_ONCE = 256  # frames of each camera, for memory's sake
LEAST_PIXELS = 6.0  # fewer are no cube
CUT = 0.02  # what a view tells along an axis on which its edge cuts the cube counts so much
END = 0.015  # so much of a cube may lie beyond what is taken for its ends: stray pixels do
HALF = 7.8  # pixels from there to the middle, on average


@dataclass(frozen=True, slots=True)
class Found:
    """Cubes in frames of any leading shape [...].

    position_m: [..., 2, 3] of the red and the blue cube, NaN unless both views show it. pixels: [..., 2, 2] of each
    cube in each camera, in the order of `CAMERAS`, 0 where there are too few to be one; a whole one has about 210.
    """

    position_m: NDArray[np.float64]
    pixels: NDArray[np.float64]


def find_cubes(frames: Mapping[str, NDArray[np.uint8]]) -> Found:
    """frames: [..., 64, 64, 3] of each of `CAMERAS`, 0 to 255."""
    lead = np.shape(frames[next(iter(CAMERAS))])[:-3]
    flat = {name: np.reshape(frames[name], (-1, IMAGE_SIZE, IMAGE_SIZE, 3)) for name in CAMERAS}
    count = int(np.prod(lead))
    parts = [
        _find({name: of[first : first + AT_ONCE] for name, of in flat.items()}) for first in range(0, count, AT_ONCE)
    ]
    position = np.concatenate([np.empty((0, len(CUBES), 3)), *(part.position_m for part in parts)])
    pixels = np.concatenate([np.empty((0, len(CUBES), len(CAMERAS))), *(part.pixels for part in parts)])
    return Found(position.reshape(*lead, *position.shape[1:]), pixels.reshape(*lead, *pixels.shape[1:]))


def _find(frames: Mapping[str, NDArray[np.uint8]]) -> Found:
    """Of n at once: [n, 64, 64, 3]."""
    count = len(frames[next(iter(CAMERAS))])
    normal, aim = np.zeros((count, len(CUBES), 3, 3)), np.zeros((count, len(CUBES), 3))
    pixels = np.zeros((count, len(CUBES), len(CAMERAS)))
    for index, (name, camera) in enumerate(CAMERAS.items()):
        shown = np.stack(_shown(frames[name]), axis=1)  # [n, 2, 64, 64]
        mass = shown.sum(axis=(-2, -1))
        mass[mass < LEAST_PIXELS] = 0
        pixels[..., index] = mass
        (across, beside), (up, above) = _middle(shown.sum(axis=-2)), _middle(shown.sum(axis=-1))
        rows, values = _rays(camera, across, -up)
        weight = mass[..., None] * np.where(np.stack([beside, above], axis=-1), CUT, 1.0)
        normal += np.swapaxes(rows, -1, -2) @ (weight[..., None] * rows)
        aim += ((weight * values)[..., None, :] @ rows)[..., 0, :]
    position = np.full((count, len(CUBES), 3), np.nan)
    seen = (pixels > 0).all(axis=-1)
    position[seen] = np.linalg.solve(normal[seen], aim[seen][..., None])[..., 0]
    return Found(position, pixels)


def _shown(frame: NDArray[np.uint8]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """How much each pixel is of the red and of the blue cube, 0 to 1: [..., 64, 64] each."""
    red, green, blue = np.moveaxis(frame.astype(np.float32), -1, 0)
    return _one(_ramp(red - np.maximum(green, blue), *RED)), _one(_ramp(blue - red, *BLUE))


def _ramp(value: NDArray[np.float64], low: float, high: float) -> NDArray[np.float64]:
    return np.asarray(np.clip((value - low) / (high - low), 0, 1))


def _one(shown: NDArray[np.float64]) -> NDArray[np.float64]:
    """[..., 64, 64]: of one cube, without pixels that stand alone, or further off than a cube reaches."""
    shown = shown * (_blurred(shown, 1) > ALONE)
    dense = _blurred(shown, REACH)
    peak = dense.reshape(*dense.shape[:-2], -1).argmax(axis=-1)[..., None]
    near = np.abs(np.arange(IMAGE_SIZE) - peak // IMAGE_SIZE) <= REACH
    beside = np.abs(np.arange(IMAGE_SIZE) - peak % IMAGE_SIZE) <= REACH
    return np.asarray(shown * near[..., :, None] * beside[..., None, :])


def _blurred(image: NDArray[np.float64], reach: int) -> NDArray[np.float64]:
    """[..., 64, 64]: means over squares of 2 * reach + 1 pixels; nothing lies beyond an edge."""
    sides = [*[(0, 0)] * (image.ndim - 2), (reach + 1, reach), (reach + 1, reach)]
    sums = np.pad(image, sides).cumsum(axis=-1).cumsum(axis=-2)
    far, width = sums[..., 2 * reach + 1 :, :], 2 * reach + 1
    rows = far - sums[..., : -2 * reach - 1, :]
    return np.asarray((rows[..., 2 * reach + 1 :] - rows[..., : -2 * reach - 1]) / width**2)


def _middle(profile: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """Half way between a cube's ends in parts of the image's size, from its middle; and whether an edge cuts it.

    profile: [..., 64], how much of it is in each column or row. Its ends, unlike its centre of mass, stay where they
    are when fingers hide something in between. Beyond an edge it is supposed to be as large as cubes are on average.
    """
    share = np.cumsum(profile, axis=-1) / np.maximum(profile.sum(axis=-1), LEAST_PIXELS)[..., None]
    low, high = (_reaches(share, each) for each in (END, 1 - END))
    first, last = profile[..., 0] >= 1, profile[..., -1] >= 1
    middle = np.where(first, high - HALF, np.where(last, low + HALF, (low + high) / 2))
    return middle / IMAGE_SIZE - 0.5, first | last


def _reaches(share: NDArray[np.float64], level: float) -> NDArray[np.float64]:
    """[...]: where a rising share [..., 64] reaches this level, in pixels from the image's edge."""
    after = np.minimum((share < level).sum(axis=-1), IMAGE_SIZE - 1)[..., None]
    there = np.take_along_axis(share, after, axis=-1)[..., 0]
    before = np.where(after[..., 0] > 0, np.take_along_axis(share, np.maximum(after - 1, 0), axis=-1)[..., 0], 0.0)
    return np.asarray(after[..., 0] + (level - before) / np.maximum(there - before, 1e-9))


def _rays(
    camera: Camera, across: NDArray[np.float64], up: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """rows [..., 2, 3] and values [..., 2]: rows @ place = values on the ray through this point of an image.

    across, up: [...] from the image's middle, in parts of its size.
    """
    axes = np.array(camera.axes()).reshape(2, 3)
    ahead = np.cross(axes[1], axes[0])
    size = 2 * np.tan(np.radians(camera.fovy) / 2)
    rows = axes - size * np.stack([across, up], axis=-1)[..., None] * ahead
    return rows, rows @ np.array(camera.position)
