"""What pictures share, laid out in inches: heading, axes, the key of colours and marks, levels as a heat map, the file.

Built on matplotlib's objects alone, without display or global state. Knows nothing of mazes or plans.
"""

from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.cm import ScalarMappable
from matplotlib.figure import Figure
from matplotlib.image import AxesImage
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray

from forcing.eval.files import replacing
from forcing.eval.palette import INK, MUTED, NOISE_COLORS, NOISE_NORM

WIDTH_IN, EDGE_IN, GAP_IN = 8.0, 0.16, 0.18
CAPTION_IN, HEADING_IN, KEY_IN = 0.26, 0.7, 0.66
DPI = 200


def new_figure(height_in: float, dpi: int = DPI) -> Figure:
    """A white figure of `WIDTH_IN` by about `height_in`: whole pixels."""
    return Figure(figsize=(WIDTH_IN, round(height_in * dpi) / dpi), dpi=dpi, facecolor="white")


def inch_axes(figure: Figure, left: float, bottom: float, width: float, height: float) -> Axes:
    """New axes at a place given in inches from the lower left corner."""
    across, up = figure.get_size_inches()
    return figure.add_axes((left / across, bottom / up, width / across, height / up))


def add_heading(figure: Figure, title: str, detail: str) -> None:
    """Two lines in the upper `HEADING_IN`."""
    across, up = figure.get_size_inches()
    figure.text(EDGE_IN / across, 1 - 0.33 / up, title, fontsize=14, fontweight="bold", color=INK)
    figure.text(EDGE_IN / across, 1 - 0.56 / up, detail, fontsize=10, color=MUTED)


def add_caption(axes: Axes, text: str) -> None:
    """A line in the `CAPTION_IN` above some axes."""
    axes.set_title(text, fontsize=9, color=MUTED, loc="left", pad=4)


def add_key(figure: Figure, marks: list[Line2D]) -> None:
    """The bar of noise levels and a legend of `marks`, in the lower `KEY_IN`."""
    bar = inch_axes(figure, EDGE_IN, 0.38, 2.35, 0.13)
    colorbar = figure.colorbar(ScalarMappable(NOISE_NORM, NOISE_COLORS), cax=bar, orientation="horizontal")
    colorbar.set_ticks([0, 0.44, 1], labels=["0 clean", "noise level", "1 pure noise"])
    bar.get_xticklabels()[0].set_horizontalalignment("left")
    bar.get_xticklabels()[-1].set_horizontalalignment("right")
    bar.tick_params(labelsize=9, labelcolor=INK, length=0, pad=4)
    colorbar.outline.set_visible(False)
    across, up = figure.get_size_inches()
    figure.legend(
        handles=marks,
        loc="lower right",
        bbox_to_anchor=(1 - EDGE_IN / across, 0.2 / up),
        ncols=len(marks),
        frameon=False,
        fontsize=9,
        labelcolor=INK,
        borderpad=0,
        borderaxespad=0,
        columnspacing=1.1,
        handletextpad=0.5,
    )


def draw_matrix(axes: Axes, matrix: NDArray[np.floating]) -> AxesImage:
    """The noise levels [M, T], row 0 (pure noise) on top; the image, for further changes."""
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


def save_png(figure: Figure, path: Path) -> None:
    """The picture as a file; missing folders are made."""
    with replacing(path) as beside:
        FigureCanvasAgg(figure).print_png(beside)  # type: ignore[no-untyped-call]
