"""The curves of how what networks imagine drifts from what happened, as a picture."""

from pathlib import Path

import numpy as np
from matplotlib.axes import Axes

from forcing.eval.bench_imagine import DF, FULL, SEEN, STILL, TEACHER, told_as
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
from forcing.eval.imagine_table import RESULTS
from forcing.eval.palette import INK, MUTED
from forcing.eval.report import Report
from forcing.eval.result_files import read_entries

COLORS = {DF: "#15803d", FULL: "#1d4ed8", TEACHER: "#b91c1c", STILL: "#7d8794", SEEN: "#1c2430"}
DASHED = (STILL, SEEN)
CURVES = {"object_mm": "cubes, mm", "pixel": "pixels, grey levels", "latent": "latents, standard deviations"}
PLOT_IN, LEFT_IN, BELOW_IN, LEGEND_IN = 1.9, 0.35, 0.55, 0.3


def draw_imagine(results: Path, path: Path) -> bool:
    """Writes a PNG: for each bench-imagine*.json every error by steps, mean and standard error over the episodes, a
    line a network; False, and nothing done, if there is none."""
    found = [entries for file in sorted(results.glob(RESULTS)) if (entries := read_entries(file))]
    if not found:
        return False
    panel = CAPTION_IN + PLOT_IN + BELOW_IN
    figure = new_figure(HEADING_IN + LEGEND_IN + len(found) * panel)
    add_heading(
        figure, "What is imagined, and what happened", "errors by control steps; the mark is where training ends"
    )
    for row, entries in enumerate(found):
        curves = [curve for curve in CURVES if entries[0]["curves"][curve] is not None]
        width = (WIDTH_IN - 2 * EDGE_IN - (len(curves) - 1) * GAP_IN) / len(curves) - LEFT_IN
        bottom = (len(found) - 1 - row) * panel + BELOW_IN
        for column, curve in enumerate(curves):
            axes = inch_axes(figure, EDGE_IN + column * (width + GAP_IN + LEFT_IN) + LEFT_IN, bottom, width, PLOT_IN)
            for entry in entries:
                _draw(axes, entry, curve)
            _finish(axes, entries[0])
            add_caption(axes, f"{CURVES[curve]}{'' if column else f' (told {told_as(entries[0])})'}")
        if row == 0:
            handles, labels = axes.get_legend_handles_labels()
            known = dict(zip(labels, handles, strict=True))  # several networks of a method are one line of it
            height = (HEADING_IN - 0.02) / figure.get_size_inches()[1]
            figure.legend(
                known.values(),
                known.keys(),
                loc="upper left",
                bbox_to_anchor=(0.005, 1 - height),
                ncols=len(known),
                frameon=False,
                fontsize=8,
                labelcolor=INK,
                columnspacing=1.0,
                handlelength=1.6,
            )
    save_png(figure, path)
    return True


def _draw(axes: Axes, entry: Report, curve: str) -> None:
    values, method = np.asarray(entry["curves"][curve]), entry["method"]
    steps = entry["token_steps"] * np.arange(values.shape[1])
    mean, error = values.mean(axis=0), values.std(axis=0, ddof=1 if len(values) > 1 else 0) / np.sqrt(len(values))
    style = "--" if method in DASHED else "-"
    axes.plot(steps, mean, style, color=COLORS[method], linewidth=1.1 if method in DASHED else 1.6, label=method)
    axes.fill_between(steps, mean - error, mean + error, color=COLORS[method], alpha=0.15, linewidth=0)


def _finish(axes: Axes, entry: Report) -> None:
    steps, end = entry["token_steps"], entry["length"] * entry["times"]
    axes.axvline(steps * (entry["length"] - 1), color=MUTED, linewidth=1, linestyle=":")
    axes.set_xlim(0, steps * (end - 1))
    axes.set_ylim(bottom=0)
    axes.set_xlabel("control steps", fontsize=9, color=MUTED)
    axes.tick_params(labelsize=8, labelcolor=INK, length=0)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
