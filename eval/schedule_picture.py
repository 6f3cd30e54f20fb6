"""Scheduling matrices as heat maps: one column a plan token, one row a network pass, coloured by noise level."""

from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.image import AxesImage
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray

from forcing.eval.figures import (
    EDGE_IN,
    HEADING_IN,
    KEY_IN,
    WIDTH_IN,
    add_heading,
    add_key,
    inch_axes,
    new_figure,
    save_png,
)
from forcing.eval.maze_axes import INK, MUTED, NOISE_COLORS, NOISE_NORM
from forcing.policy.schedules import Schedule

_LABELS_IN = 0.5


def draw_schedule(schedule: Schedule, horizon: int, path: Path) -> None:
    """Writes a PNG, 1600 pixels wide, of the schedule's matrix for `horizon` plan tokens.

    Raises ValueError if horizon is below 1.
    """
    matrix = schedule.matrix(horizon)
    width = WIDTH_IN - 2 * EDGE_IN - _LABELS_IN
    height = float(np.clip(len(matrix) * width / horizon, 1.5, 4.0))
    figure = new_figure(HEADING_IN + height + _LABELS_IN + KEY_IN)
    detail = f"{schedule.sampling_steps} steps a token, {len(matrix) - 1} network passes for {horizon} tokens"
    add_heading(figure, schedule.kind.replace("_", " "), detail)
    draw_matrix(inch_axes(figure, EDGE_IN + _LABELS_IN, KEY_IN + _LABELS_IN, width, height), matrix)
    add_key(figure, [])
    save_png(figure, path)


def draw_matrix(axes: Axes, matrix: NDArray[np.floating]) -> AxesImage:
    """The matrix [M, T], row 0 (pure noise) on top; the image, for further changes."""
    rows, tokens = matrix.shape
    image = axes.imshow(
        NOISE_COLORS(NOISE_NORM(matrix)),
        extent=(0.5, tokens + 0.5, rows - 0.5, -0.5),
        aspect="auto",
        interpolation="nearest",
    )
    axes.vlines(np.arange(1, tokens) + 0.5, -0.5, rows - 0.5, colors="white", linewidths=1.0)
    axes.hlines(np.arange(1, rows) - 0.5, 0.5, tokens + 0.5, colors="white", linewidths=1.0)
    axes.set_xlabel("plan token, near to far future", fontsize=9, color=MUTED)
    axes.set_ylabel("network passes done", fontsize=9, color=MUTED)
    axes.xaxis.set_major_locator(MaxNLocator(nbins=12, integer=True, min_n_ticks=1))
    axes.yaxis.set_major_locator(MaxNLocator(nbins=12, integer=True, min_n_ticks=1))
    axes.tick_params(labelsize=9, labelcolor=INK, length=0)
    axes.set_xlim(0.5, tokens + 0.5)
    axes.set_ylim(rows - 0.5, -0.5)
    for spine in axes.spines.values():
        spine.set_visible(False)
    return image
