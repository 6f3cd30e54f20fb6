"""The curves of search, sampling and refining, by network passes, as a picture."""

from collections.abc import Callable
from pathlib import Path

from matplotlib.axes import Axes

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
from forcing.eval.plan_tables import search_curves
from forcing.eval.published import PUBLISHED
from forcing.eval.report import Report
from forcing.eval.result_files import read_entries

COLORS = {"search": "#c2410c", "sampling": "#1d4ed8", "refining": "#15803d"}
ASIDE = {"search": 0.94, "sampling": 1.0, "refining": 1.06}  # so that error bars stand beside each other
PLOT_IN, LEFT_IN, BELOW_IN = 2.4, 0.5, 0.95


def draw_search(results: Path, path: Path) -> bool:
    """Writes a PNG: for each bench-plan*.json that has the curves, scores and what plans cost the planner; False, and
    nothing done, if none has."""
    files = sorted(results.glob("bench-plan*.json"))
    found = [curves for file in files if (curves := search_curves(read_entries(file)))]
    if not found:
        return False
    panel = CAPTION_IN + PLOT_IN + BELOW_IN
    figure = new_figure(HEADING_IN + len(found) * panel)
    add_heading(figure, "Search, sampling and refining", "by network passes that each horizon may take")
    width = (WIDTH_IN - 2 * EDGE_IN - GAP_IN) / 2 - LEFT_IN
    for index, curves in enumerate(found):
        bottom = (len(found) - 1 - index) * panel + BELOW_IN
        task = next(entry["task"] for curve in curves.values() for entry in curve.values())
        left = inch_axes(figure, EDGE_IN + LEFT_IN, bottom, width, PLOT_IN)
        _draw(left, curves, _score, f"{task}: score, mean and standard error")
        limit = PUBLISHED[task].limit if task in PUBLISHED else None
        if limit is not None:
            left.axhline(limit, color=MUTED, linestyle="--", linewidth=1, label="physical limit")
        left.legend(fontsize=9, frameon=False, labelcolor=INK, loc="upper left", bbox_to_anchor=(0, -0.17), ncols=3)
        right = inch_axes(figure, EDGE_IN + 2 * LEFT_IN + GAP_IN + width, bottom, width, PLOT_IN)
        _draw(right, curves, _cost, "cost of first plans to the planner, mean, in steps")
    save_png(figure, path)
    return True


def _score(entry: Report) -> tuple[float, float]:
    return entry["normalized_mean"], entry["normalized_sem"] or 0.0


def _cost(entry: Report) -> tuple[float, float]:
    return entry["plan_metrics"]["first"]["cost_mean"], 0.0


def _draw(
    axes: Axes, curves: dict[str, dict[int, Report]], value: Callable[[Report], tuple[float, float]], caption: str
) -> None:
    """value: of an entry, and its error."""
    budgets = sorted({budget for curve in curves.values() for budget in curve})
    for way, curve in curves.items():
        values, errors = zip(*(value(curve[budget]) for budget in sorted(curve)), strict=True)
        places = [ASIDE[way] * budget for budget in sorted(curve)]
        axes.errorbar(places, values, yerr=errors, color=COLORS[way], marker="o", markersize=4, capsize=2, label=way)
    axes.set_xscale("log")
    axes.set_xticks(budgets, labels=[str(budget) for budget in budgets])
    axes.set_xticks([], minor=True)
    add_caption(axes, caption)
    axes.tick_params(labelsize=9, labelcolor=INK)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
