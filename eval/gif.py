"""Animated GIFs with one palette for all pictures, so that still things do not flicker, and pictures side by side."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from forcing.eval.files import replacing
from forcing.eval.palette import PAPER

COLORS, SAMPLED = 128, 12  # of a palette that is not given; pictures that it is taken from


def save_gif(
    pictures: Sequence[Image.Image], durations_ms: Sequence[int], path: Path, palette: Image.Image | None = None
) -> None:
    """Writes it to be shown again and again. palette: a picture's; taken from pictures of the whole film if not given.
    Raises OSError if the disk refuses; an old file then stays."""
    if palette is None:
        some = np.linspace(0, len(pictures) - 1, min(SAMPLED, len(pictures))).astype(int)
        sample = np.concatenate([np.asarray(pictures[number]) for number in some])
        palette = Image.fromarray(sample).quantize(COLORS, method=Image.Quantize.MEDIANCUT)
    images = [picture.quantize(palette=palette, dither=Image.Dither.NONE) for picture in pictures]
    with replacing(path) as beside:
        images[0].save(
            beside, format="GIF", save_all=True, append_images=images[1:], duration=list(durations_ms), loop=0
        )


def side_by_side(columns: Sequence[Image.Image], multiple: int = 1) -> Image.Image:
    """On paper as high as the first column, width and height made whole numbers of `multiple` pixels."""
    across = sum(column.width for column in columns)
    width, height = (multiple * -(-size // multiple) for size in (across, columns[0].height))
    picture, left = Image.new("RGB", (width, height), PAPER), 0
    for column in columns:
        picture.paste(column, (left, 0))
        left += column.width
    return picture
