"""The curves of what faulty sensors cost, by severity, as a picture."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes

from forcing.eval.bench_faults import CLEAN, DOUBTED, FILTERED, FIXED, TRUST
from forcing.eval.faults_tables import FAULTS
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

COLORS = {TRUST: "#b91c1c", FIXED: "#a16207", FILTERED: "#1d4ed8", DOUBTED: "#15803d"}
# What is drawn in a panel: faults of rising severity, and how they are called below it.
PANELS = {
    "noise, m and m/s": {CLEAN: "0", "noise 0.1": "0.1", "noise 0.2": "0.2", "noise 0.5": "0.5"},
    "delay, steps": {CLEAN: "0", "delay 5": "5", "delay 15": "15"},
    "spikes": {CLEAN: "0", "10 % spikes": "10 %", "30 % spikes": "30 %"},
    "freezes of 50, of all steps": {CLEAN: "0", "freezes of 50": "50 %", "freezes of 50, harsher": "80 %"},
}
PLOT_IN, LEFT_IN, BELOW_IN = 1.7, 0.35, 0.55


def draw_faults(results: Path, path: Path) -> bool:
    """Writes a PNG: for each bench-faults*.json the median score of every way, and the middle half of the episodes;
    False, and nothing done, if there is none."""
    found = [entries for file in sorted(results.glob(FAULTS)) if (entries := read_entries(file))]
    if not found:
        return False
    panel = CAPTION_IN + PLOT_IN + BELOW_IN
    figure = new_figure(HEADING_IN + len(found) * panel)
    add_heading(figure, "What faulty sensors cost", "score by severity: median and middle half of the episodes")
    width = (WIDTH_IN - 2 * EDGE_IN - (len(PANELS) - 1) * GAP_IN) / len(PANELS) - LEFT_IN
    for row, entries in enumerate(found):
        bottom = (len(found) - 1 - row) * panel + BELOW_IN
        for column, (what, severities) in enumerate(PANELS.items()):
            left = EDGE_IN + column * (width + GAP_IN + LEFT_IN) + LEFT_IN
            axes = inch_axes(figure, left, bottom, width, PLOT_IN)
            _draw(axes, entries, severities)
            add_caption(axes, f"{entries[0]['task']}" if column == 0 else "")
            axes.set_xlabel(what, fontsize=9, color=MUTED)
            if row == len(found) - 1 and column == 0:
                figure.legend(
                    *axes.get_legend_handles_labels(),
                    loc="upper right",
                    ncols=len(COLORS),
                    frameon=False,
                    fontsize=9,
                    labelcolor=INK,
                )
    save_png(figure, path)
    return True


def _draw(axes: Axes, entries: Sequence[Report], severities: dict[str, str]) -> None:
    at = np.arange(len(severities))
    for way, color in COLORS.items():
        scores = [
            [
                episode["normalized"]
                for entry in entries
                if entry["fault"] == fault and entry["way"] == way
                for episode in entry["episodes_detail"]
            ]
            for fault in severities
        ]
        known = [index for index, values in enumerate(scores) if values]
        if not known:
            continue
        low, middle, high = np.array([np.percentile(scores[index], (25, 50, 75)) for index in known]).T
        axes.plot(at[known], middle, color=color, marker="o", markersize=3.5, label=way)
        axes.fill_between(at[known], low, high, color=color, alpha=0.12, linewidth=0)
    axes.set_xticks(at, labels=list(severities.values()))
    axes.tick_params(labelsize=8, labelcolor=INK, length=0)
    axes.set_ylim(bottom=0)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
