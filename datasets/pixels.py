"""Frames as recordings hold them, turned into ours: uint8, [height, width, channels]. Knows no file."""

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from forcing.policy.types import Array

CHANNELS = (1, 3, 4)
SMALLEST = 8  # pixels a side of frames whose channels come first, and 32 of such without channels
SMALLEST_GREY = 32


@dataclass(frozen=True, slots=True)
class Pixels:
    """How the frames of one camera are recorded.

    layout: order of a frame's axes. scale: 1 where they are numbers of 0 to 255, 255 where they are of 0 to 1.
    """

    layout: Literal["hwc", "chw", "hw"]
    scale: int

    def frames(self, values: Array, where: str) -> NDArray[np.uint8]:
        """[N, h, w, c] of `values`. Raises ValueError naming `where` if a number is no byte, nor near one."""
        bytes_ = values if values.dtype == np.uint8 else self._bytes(values, where)
        if self.layout == "chw":
            return np.ascontiguousarray(np.moveaxis(bytes_, 1, -1))
        return bytes_[..., None] if self.layout == "hw" else bytes_

    def _bytes(self, values: Array, where: str) -> NDArray[np.uint8]:
        scaled = values * self.scale
        whole = np.rint(scaled) if np.issubdtype(values.dtype, np.floating) else scaled
        rounding = 0.15 if values.dtype == np.float16 else 1e-3
        # Written so that NaN fails.
        if not (
            whole.size == 0 or ((np.abs(scaled - whole) <= rounding).all() and 0 <= whole.min() <= whole.max() < 256)
        ):
            limits = f"{np.nanmin(values):g} to {np.nanmax(values):g}"
            asked = "whole numbers of 0 to 255" if self.scale == 1 else "of 0 to 1 in steps of 1/255"
            raise ValueError(f"{where}: frames must be {asked}, got {values.dtype} of {limits}; leave the stream out")
        return np.asarray(whole, dtype=np.uint8)


def pixels_of(values: Array, where: str) -> Pixels | None:
    """How `values` [N, *one step] are frames; None if by their shape they are none.

    Raises ValueError naming `where` if they have a frame's shape but are no bytes, such as depth in metres.
    """
    layout = _layout(values)
    if layout is None:
        return None
    fractions = np.issubdtype(values.dtype, np.floating) and values.size > 0 and bool(values.max() <= 1)
    found = Pixels(layout, 255 if fractions else 1)
    found.frames(values, where)
    return found


def _layout(values: Array) -> Literal["hwc", "chw", "hw"] | None:
    step = values.shape[1:]
    if len(step) == 3 and step[2] in CHANNELS:
        return "hwc"
    if len(step) == 3 and step[0] in CHANNELS and min(step[1:]) >= SMALLEST:
        return "chw"
    if len(step) == 2 and values.dtype == np.uint8 and min(step) >= SMALLEST_GREY:
        return "hw"
    return None
