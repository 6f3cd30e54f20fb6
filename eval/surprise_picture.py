"""How surprising two cameras' frames were over an episode under each distractor, as a picture."""

from pathlib import Path

import numpy as np
from matplotlib.axes import Axes

from forcing.eval.bench_surprise import UNDISTURBED
from forcing.eval.figures import (
    CAPTION_IN,
    EDGE_IN,
    GAP_IN,
    HEADING_IN,
    WIDTH_IN,
    add_caption,
    add_heading,
    inch_axes,
    new_figure,
    save_png,
)
from forcing.eval.palette import INK, MUTED
from forcing.eval.report import Report
from forcing.eval.result_files import read_entries
from forcing.eval.surprise_table import RESULTS

COLORS = ("#1d4ed8", "#c2410c")
STRIP_IN, LEFT_IN, BELOW_IN = 0.72, 0.45, 0.34
MOST = 8.0  # decades that are shown


def draw_surprise(results: Path, path: Path) -> bool:
    """Writes a PNG of the first bench-surprise*.json: a row for each kind of distractor, a column for each camera; when
    the camera was disturbed is shaded. False, and nothing done, if there is none."""
    entries = next((read for file in sorted(results.glob(RESULTS)) if (read := read_entries(file))), [])
    if not entries:
        return False
    row_in = CAPTION_IN + STRIP_IN
    figure = new_figure(HEADING_IN + len(entries) * row_in + BELOW_IN)
    detail = "-log10 of the share of recorded frames as unlikely, over an episode; shaded: the camera was disturbed"
    add_heading(figure, "What surprises a policy that remembers", detail)
    cameras = list(entries[0]["example"]["surprise"])
    width = (WIDTH_IN - 2 * EDGE_IN - (len(cameras) - 1) * GAP_IN) / len(cameras) - LEFT_IN
    for row, entry in enumerate(entries):
        bottom = (len(entries) - 1 - row) * row_in + BELOW_IN
        for column, camera in enumerate(cameras):
            left = EDGE_IN + column * (width + GAP_IN + LEFT_IN) + LEFT_IN
            axes = inch_axes(figure, left, bottom, width, STRIP_IN)
            _draw(axes, entry, camera, COLORS[column % len(COLORS)])
            add_caption(axes, f"{camera}, {entry['row']}")
            last = row == len(entries) - 1
            axes.tick_params(labelbottom=last)
            if last:
                axes.set_xlabel("s", fontsize=9, color=MUTED)
    save_png(figure, path)
    return True


def _draw(axes: Axes, entry: Report, camera: str, color: str) -> None:
    hz = entry["control_hz"]
    surprise = np.array([np.nan if one is None else one for one in entry["example"]["surprise"][camera]])
    axes.plot(np.arange(len(surprise)) / hz, np.minimum(surprise, MOST), color=color, linewidth=1.0)
    axes.axhline(-np.log10(entry["false_alarms"]), color=MUTED, linewidth=0.8, linestyle="--")
    if entry["row"] != UNDISTURBED:
        for first, last in entry["flags"][0]["streams"][camera]["distracted"]:
            axes.axvspan(first / hz, last / hz, color=INK, alpha=0.12, linewidth=0)
    axes.set_xlim(0, len(surprise) / hz)
    axes.set_ylim(0, MOST + 0.3)
    axes.set_yticks([0, 3, 6])
    axes.tick_params(labelsize=8, labelcolor=INK, length=0)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
