"""The tables of what each part of planning is worth, and of ways to spend network passes."""

from collections.abc import Sequence
from pathlib import Path

from forcing.eval.bench_obstacles import HEADER, obstacles_row
from forcing.eval.plan_rows import GROUPS, ROWS
from forcing.eval.report import Report, plus_minus
from forcing.eval.result_files import NOTHING, markdown_table, missing, number, read_entries

COMMAND = "forcing bench plan --task maze2d-medium-multi --episodes 16 --report docs/results/bench-plan.json"
SEARCH, ROLLING = "search", "rolling"
ROLLING_COMMAND = (
    "forcing bench plan --rows rolling --task maze2d-medium-multi --report docs/results/bench-rolling-medium.json"
)
PICTURE = "![Scores of search, sampling and refining by network passes](pictures/search.png)"


def planning_table(results: Path) -> list[str]:
    """Markdown: a table for each task, from every bench-plan*.json."""
    lines: list[str] = []
    for path in sorted(results.glob("bench-plan*.json")):
        entries = [entry for entry in read_entries(path) if entry["group"] != SEARCH]
        if entries:
            absent = {row.group for row in ROWS} - {entry["group"] for entry in read_entries(path)} - {SEARCH, ROLLING}
            lines += [*_table(entries), "", *missing(*(f"{COMMAND} --rows {group}" for group in sorted(absent)))]
    return lines or missing(COMMAND)


def search_table(results: Path) -> list[str]:
    """Markdown: scores against network passes, searched, sampled and refined, for each task."""
    lines: list[str] = []
    for path in sorted(results.glob("bench-plan*.json")):
        curves = search_curves(read_entries(path))
        if curves:
            header = ["passes a horizon", *(f"{way}: {what}" for way in curves for what in ("score", "cost", "ms"))]
            budgets = sorted({budget for curve in curves.values() for budget in curve})
            rows = [
                [str(budget), *(cell for curve in curves.values() for cell in _point(curve.get(budget)))]
                for budget in budgets
            ]
            entry = next(entry for curve in curves.values() for entry in curve.values())
            lines += [_about(entry), "", *markdown_table(header, rows), ""]
    return [*lines, PICTURE] if lines else missing(f"{COMMAND} --rows {SEARCH}")


def rolling_table(results: Path) -> list[str]:
    """Markdown: plans kept up beside plans from noise, for each task, from every bench-rolling*.json."""
    lines: list[str] = []
    for path in sorted(results.glob("bench-rolling*.json")):
        entries = read_entries(path)
        if entries:
            header = ["row", "score", "success", "passes an episode", "plans an episode", "ms a plan"]
            rows = [
                [
                    entry["row"],
                    plus_minus(entry["normalized_mean"], entry["normalized_sem"]),
                    f"{entry['success_rate']:.2f}",
                    number(entry["passes"] * entry["plans_per_episode"]),
                    number(entry["plans_per_episode"], 1),
                    number(entry["plan_ms_p50"]),
                ]
                for entry in entries
            ]
            lines += [_about(entries[0]), "", *markdown_table(header, rows), ""]
    return lines[:-1] or missing(ROLLING_COMMAND)


def obstacles_table(results: Path) -> list[str]:
    """Markdown: plans past a disc, for each task, from every bench-obstacles*.json."""
    lines: list[str] = []
    for path in sorted(results.glob("bench-obstacles*.json")):
        entries = read_entries(path)
        if entries:
            about = f"{_about(entries[0]).removesuffix(':')}, discs of {entries[0]['radius_m']:g} m:"
            lines += [about, "", *markdown_table(HEADER, [obstacles_row(entry) for entry in entries]), ""]
    return lines[:-1] or missing("forcing bench obstacles --report docs/results/bench-obstacles.json")


def search_curves(entries: Sequence[Report]) -> dict[str, dict[int, Report]]:
    """`search`, `sampling` and `refining`, those that were measured: passes that could be spent -> entry."""
    curves: dict[str, dict[int, Report]] = {}
    for entry in entries:
        if entry["group"] == SEARCH:
            curves.setdefault(entry["row"].partition(",")[0], {})[entry["budget"]] = entry
    return curves


def _point(entry: Report | None) -> list[str]:
    if entry is None:
        return [NOTHING] * 3
    cost = entry["plan_metrics"]["first"]["cost_mean"]
    return [plus_minus(entry["normalized_mean"], entry["normalized_sem"]), number(cost), number(entry["plan_ms_p50"])]


def _table(entries: Sequence[Report]) -> list[str]:
    header = ["row", "score", "success", "steps", "predicted", "jump, m", "walls cut", "passes", "plans a pass", "ms"]
    rows, group = [], None
    known = list(GROUPS)
    for entry in sorted(entries, key=lambda one: known.index(one["group"]) if one["group"] in known else len(known)):
        if entry["group"] != group:
            group = entry["group"]
            rows.append([f"*{group}*", *[""] * (len(header) - 1)])
        first = (entry["plan_metrics"] or {}).get("first", {})
        jump = (first.get("joint_jump_m") or {}).get("mean")
        rows.append(
            [
                entry["row"] + (f" (= {entry['same_as']})" if entry["same_as"] else ""),
                plus_minus(entry["normalized_mean"], entry["normalized_sem"]),
                f"{entry['success_rate']:.2f}",
                number(entry["steps_to_goal_mean"]),
                number(first.get("predicted_steps_mean")),
                number(jump, 2),
                number(first.get("crossing_share"), 2),
                number(entry["passes"]),
                number(entry["rows_a_pass"]),
                number(entry["plan_ms_p50"]),
            ]
        )
    return [_about(entries[0]), "", *markdown_table(header, rows)]


def _about(entry: Report) -> str:
    return f"{entry['task']}, {entry['episodes']} episodes from seed {entry['seed']}, weights {entry['weights']}:"
