"""The table of OGBench's point mazes: success by goal, with its interval."""

from pathlib import Path

from forcing.eval.published import PUBLISHED
from forcing.eval.report import Report
from forcing.eval.result_files import markdown_table, missing, number, read_report
from forcing.eval.tasks import TASKS

OGBENCH = tuple(name for name in TASKS if name.startswith("ogbench-"))


def ogbench_table(results: Path) -> list[str]:
    """Markdown: tasks by goals, percentages with their 95 % interval by Wilson; below it what is missing."""
    found = {task: report for task in OGBENCH if (report := read_report(results / f"{task}.json")) is not None}
    lines = []
    if found:
        header = [
            "task",
            *(f"goal {goal}" for goal in TASKS[next(iter(found))].goals),
            "all",
            "steps",
            "plan ms",
            "best published",
        ]
        rows = [
            [
                task.removeprefix("ogbench-"),
                *(_success(goal) for goal in report["goals"]),
                f"**{_success(report)}**",
                number(report["steps_to_goal_mean"]),
                number(report["plan_ms_p50"]),
                f"{PUBLISHED[task].best:g} ({PUBLISHED[task].source})",
            ]
            for task, report in found.items()
        ]
        lines = [*markdown_table(header, rows), ""]
        lines.append(f"Episodes: {', '.join(sorted({_episodes(report) for report in found.values()}))}.")
    absent = [task for task in OGBENCH if task not in found]
    command = "forcing eval {0} --episodes 250 --seed 1000 --report docs/results/{0}.json"
    return [*lines, *(f"- {line}" for task in absent for line in missing(command.format(task)))]


def _success(report: Report) -> str:
    low, high = report["success_interval"]
    return f"{100 * report['success_rate']:.1f} ({100 * low:.1f} to {100 * high:.1f})"


def _episodes(report: Report) -> str:
    return f"{report['episodes']} from seed {report['seed']}"
