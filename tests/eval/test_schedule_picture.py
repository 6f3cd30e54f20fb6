"""The heat map's cells against matrices drawn by hand."""

from pathlib import Path

import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from numpy.typing import NDArray
from PIL import Image

from forcing.eval.schedule_picture import draw_matrix, draw_schedule
from forcing.policy.schedules import Schedule

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


@pytest.mark.parametrize("horizon", [1, 12])
def test_a_schedule_is_drawn_1600_pixels_wide_in_its_own_colours(tmp_path: Path, horizon: int) -> None:
    draw_schedule(Schedule(kind="autoregressive", sampling_steps=1), horizon, tmp_path / "schedule.png")
    with Image.open(tmp_path / "schedule.png") as image:
        pixels = np.asarray(image.convert("RGB"))
    assert pixels.shape[1] == 1600
    clean, noise = (is_color(pixels, color).sum() for color in (CLEAN, NOISE))
    # One token after another: T (T + 1) / 2 cells of each kind.
    assert noise == pytest.approx(clean, rel=0.05)


def test_a_schedule_for_no_token_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="horizon must be at least 1 token, got 0"):
        draw_schedule(Schedule(), 0, tmp_path / "schedule.png")
