"""The heat map's cells against matrices drawn by hand."""

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from numpy.typing import NDArray

from forcing.eval.figures import draw_matrix

CLEAN, NOISE = (13, 8, 135), (253, 191, 41)


def is_color(pixels: NDArray[np.uint8], color: tuple[int, int, int]) -> NDArray[np.bool_]:
    near: NDArray[np.bool_] = np.abs(pixels[..., :3].astype(int) - color).max(axis=-1) <= 8
    return near


def test_row_zero_is_on_top_and_the_near_future_on_the_left() -> None:
    figure = Figure(figsize=(4, 4), dpi=100)
    axes = figure.add_axes((0.2, 0.2, 0.7, 0.7))
    draw_matrix(axes, np.array([[1.0, 1.0, 1.0], [0.0, 1.0, 1.0], [0.0, 0.0, 1.0], [0.0, 0.0, 0.0]]))
    canvas = FigureCanvasAgg(figure)
    canvas.draw()  # type: ignore[no-untyped-call]
    pixels = np.asarray(canvas.buffer_rgba())  # type: ignore[no-untyped-call]
    seen = []
    for row in range(4):
        top = round(40 + 280 * (row + 0.3) / 4)
        cells = pixels[top, [round(80 + 280 * (token + 0.3) / 3) for token in range(3)]]
        kinds = zip(is_color(cells, NOISE), is_color(cells, CLEAN), strict=True)
        seen.append("".join("#" if noise else "." if clean else "?" for noise, clean in kinds))
    assert seen == ["###", ".##", "..#", "..."]
