"""The curves of how often a robot is as near to its plans as their spread says, as a picture."""

from pathlib import Path

from matplotlib.axes import Axes

from forcing.eval.bench_spread import ENDS, FAULTS, SHARES, coverages
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
from forcing.eval.spread_table import RESULTS

COLORS = dict(zip(SHARES, ("#1d4ed8", "#15803d", "#c2410c"), strict=True))
FEWEST = 20  # episodes that a point of a curve is drawn of
PLOT_IN, LEFT_IN, BELOW_IN = 1.9, 0.4, 0.55


def draw_spread(results: Path, path: Path) -> bool:
    """Writes a PNG: for each bench-spread*.json the shares covered, by steps ahead; False, and nothing done, if there
    is none."""
    found = [entries for file in sorted(results.glob(RESULTS)) if (entries := read_entries(file))]
    if not found:
        return False
    panel = CAPTION_IN + PLOT_IN + BELOW_IN
    figure = new_figure(HEADING_IN + len(found) * panel)
    add_heading(figure, "How sure plans are", "share of outcomes within intervals, in %, by steps ahead")
    width = (WIDTH_IN - 2 * EDGE_IN - (len(FAULTS) - 1) * GAP_IN) / len(FAULTS) - LEFT_IN
    for row, entries in enumerate(found):
        bottom = (len(found) - 1 - row) * panel + BELOW_IN
        for column, fault in enumerate(FAULTS):
            left = EDGE_IN + column * (width + GAP_IN + LEFT_IN) + LEFT_IN
            axes = inch_axes(figure, left, bottom, width, PLOT_IN)
            for entry in (entry for entry in entries if entry["row"] == fault):
                _draw(axes, entry)
            add_caption(axes, f"{entries[0]['task']}, {fault}")
            axes.set_xlabel("steps ahead", fontsize=9, color=MUTED)
            if row == column == 0:
                handles, labels = axes.get_legend_handles_labels()
                figure.legend(handles, labels, loc="upper right", ncols=3, frameon=False, fontsize=9, labelcolor=INK)
    save_png(figure, path)
    return True


def _draw(axes: Axes, entry: Report) -> None:
    told = zip(ENDS, coverages(entry), strict=True)
    known = [(end, shares) for end, (episodes, shares) in told if episodes >= FEWEST]
    ends = [end for end, _ in known]
    for index, share in enumerate(SHARES):
        covered = [100 * shares[index] for _, shares in known]
        axes.plot(ends, covered, color=COLORS[share], marker="o", markersize=3.5, label=f"{100 * share:.0f} %")
        axes.axhline(100 * share, color=COLORS[share], linestyle="--", linewidth=1)
    axes.axhspan(100 * (SHARES[1] - 0.1), 100 * (SHARES[1] + 0.1), color=COLORS[0.8], alpha=0.08, linewidth=0)
    axes.set_xscale("log", base=2)
    axes.set_xlim(ENDS[0] / 1.2, ENDS[-1])
    axes.set_xticks([4, 8, 16, 32, 64, 128, 256], labels=["4", "8", "16", "32", "64", "128", "256"])
    axes.set_ylim(0, 102)
    axes.tick_params(labelsize=8, labelcolor=INK, length=0)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
