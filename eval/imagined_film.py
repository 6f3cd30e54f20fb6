"""A film of one episode, what happened beside what networks imagined, from all cameras, as an animated GIF."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from forcing.eval.gif import save_gif, side_by_side
from forcing.eval.palette import GOOD, INK, MUTED, PAPER

SCALE, GAP, LINE = 2, 8, 16  # pixels of the film to one of a camera; between things; a line of text
LAST_MS = 2000


@dataclass(frozen=True, slots=True)
class Reel:
    """A column. frames: camera -> [T, h, w, 3] uint8. object_mm: [T] how far cubes are from where they were, None for
    what happened."""

    title: str
    frames: Mapping[str, NDArray[np.uint8]]
    object_mm: NDArray[np.float64] | None


def write_imagined_film(reels: Sequence[Reel], token_s: float, observed: int, path: Path) -> None:
    """Writes a GIF at the robot's speed, a picture a token; what was observed is framed.

    token_s: seconds of a token. observed: tokens that were.
    """
    total = len(next(iter(reels[0].frames.values())))
    pictures = [
        side_by_side([_column(reel, token, token * token_s, token < observed) for reel in reels])
        for token in range(total)
    ]
    save_gif(pictures, [round(1000 * token_s)] * (total - 1) + [LAST_MS], path)


def _column(reel: Reel, token: int, time_s: float, observed: bool) -> Image.Image:
    views = [
        Image.fromarray(frames[token]).resize(
            (SCALE * frames.shape[2], SCALE * frames.shape[1]), Image.Resampling.NEAREST
        )
        for frames in reel.frames.values()
    ]
    size = max(view.width for view in views) + 2 * GAP, GAP + 2 * LINE + sum(view.height + GAP for view in views)
    column = Image.new("RGB", size, PAPER)
    draw, font = ImageDraw.Draw(column), ImageFont.load_default(12)
    draw.text((GAP, GAP), reel.title, INK, font)
    said = f"{time_s:4.1f} s" if reel.object_mm is None else f"{reel.object_mm[token]:.0f} mm off"
    draw.text((GAP, GAP + LINE), "observed" if observed else said, GOOD if observed else MUTED, font)
    top = GAP + 2 * LINE + 2
    for view in views:
        column.paste(view, (GAP, top))
        if observed:
            draw.rectangle((GAP, top, GAP + view.width - 1, top + view.height - 1), outline=GOOD, width=2)
        top += view.height + GAP
    return column
