"""Frames as recordings hold them, turned into ours: uint8, [height, width, channels]. Knows no file."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from forcing.policy.types import CHANNELS, Array

Layout = Literal["hwc", "chw", "hw"]
SMALLEST = 8  # pixels a side of frames that are no bytes and whose channels come first
SMALLEST_GREY = 32  # of frames without channels


@dataclass(frozen=True, slots=True)
class Pixels:
    """How the frames of one camera are recorded.

    layout: order of a frame's axes. scale: 1 where they are numbers of 0 to 255, 255 where they are of 0 to 1.
    """

    layout: Layout
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
    layout = layout_of(values.shape[1:], values.dtype)
    if layout is None:
        return None
    fractions = np.issubdtype(values.dtype, np.floating) and values.size > 0 and bool(values.max() <= 1)
    found = Pixels(layout, 255 if fractions else 1)
    found.frames(values, where)
    return found


def layout_of(shape: Sequence[int], kind: np.dtype[Any]) -> Layout | None:
    """The order of a frame's axes, by the shape and the type of one step; None if such is no frame."""
    if len(shape) == 3 and shape[2] in CHANNELS:
        return "hwc"
    if channels_first(shape) and (kind == np.uint8 or min(shape[1:]) >= SMALLEST):
        return "chw"
    if len(shape) == 2 and kind == np.uint8 and min(shape) >= SMALLEST_GREY:
        return "hw"
    return None


def channels_first(shape: Sequence[int]) -> bool:
    """Whether a frame of this shape is [channels, height, width]."""
    return len(shape) == 3 and shape[0] in CHANNELS and shape[2] not in CHANNELS
