"""The table of arms' tasks: every policy that was scored, undisturbed and disturbed, and what disturbing it cost."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from forcing.eval.arm_tasks import ArmTask, arm_tasks
from forcing.eval.report import Report, by_goal, over_seeds, plus_minus, standard_error, success_cells, time_cells
from forcing.eval.result_files import NOTHING, markdown_table, missing, read_reports

HEADER = (
    "task", "policy", "cameras", "episodes", "success", "95 %", "reached", "drop", "steps", "act ms p50/p99", "command",
)  # fmt: skip
SEEDS = ("", "-seed1", "-seed2")
COMMAND = "forcing eval {0} --policy runs/{0} --served --episodes 100 --seed 1000 --report docs/results/{0}.json"


def manipulation_table(results: Path) -> list[str]:
    """Markdown: a row for each report of an arm's task; below it success by goal, where goals have numbers, means over
    training seeds, and tasks without a report.

    drop: what success fell by against the same policy on the same episodes, undisturbed; mean ± standard error over
    pairs of episodes.
    """
    tasks = {task.name: task for task in arm_tasks()}
    names = list(tasks)
    found = {path.stem: report for path, report in read_reports(results, names)}
    found = dict(sorted(found.items(), key=lambda entry: names.index(entry[1]["task"])))
    reports = list(found.values())
    rows = [_row(report, reports) for report in reports]
    lines = [*markdown_table(HEADER, rows), ""] if rows else []
    lines += [_goals(stem, tasks[report["task"]], report) for stem, report in found.items() if report["goals"]]
    lines += [said for name in names if (said := _over_seeds(found, name))]
    done = {report["task"] for report in reports}
    return [*lines, *(f"- {line}" for name in names if name not in done for line in missing(COMMAND.format(name)))]


def drop(disturbed: Report, reports: Sequence[Report]) -> list[float] | None:
    """[episodes] by how much success fell, 1, 0 or -1, in a report whose cameras were disturbed; None for another, or
    if none of `reports` is of the same policy on the same episodes undisturbed."""
    if not disturbed.get("distractor"):
        return None
    for report in reports:
        alike = all(_of(report, key) == _of(disturbed, key) for key in ("task", "revision", "seed", "most_steps"))
        if alike and _undisturbed(report):
            held = {record["seed"]: float(record["success"]) for record in report["episodes_detail"]}
            pairs = [(held.get(record["seed"]), record["success"]) for record in disturbed["episodes_detail"]]
            return [before - float(after) for before, after in pairs if before is not None] or None
    return None


def _of(report: Report, key: str) -> object:
    """Of a revision the weights', however they are used."""
    return str(report[key]).partition("-adjusted")[0] if key == "revision" else report.get(key)


def _undisturbed(report: Report) -> bool:
    return not report.get("distractor") and report.get("handling", "trusted") == "trusted"


def _row(report: Report, reports: Sequence[Report]) -> list[str]:
    fell = drop(report, reports)
    cameras = (
        "undisturbed" if _undisturbed(report) else f"{report['distractor'] or 'undisturbed'}, {report['handling']}"
    )
    return [
        report["task"],
        Path(report["policy"]).name,
        cameras,
        str(report["episodes"]) + ("" if report.get("served") else ", in process"),
        *success_cells(report),
        NOTHING if fell is None else plus_minus(float(np.mean(fell)), standard_error(fell), digits=2),
        *time_cells(report),
        f"`{report['command']}`",
    ]


def _goals(stem: str, task: ArmTask, report: Report) -> str:
    rates = ", ".join(f"{name} {row['success_rate']:.2f}" for name, row in by_goal(task, report))
    return f"{stem}: {rates}\n"


def _over_seeds(found: dict[str, Report], name: str) -> str:
    reports = [found[f"{name}{seed}"] for seed in SEEDS if f"{name}{seed}" in found]
    if len(reports) < 2:
        return ""
    summary = over_seeds(reports)
    rate = plus_minus(summary["seeds_mean"], summary["seeds_sem"])
    return f"{name}: {rate} % over {len(reports)} training seeds.\n"
