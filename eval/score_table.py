"""The main table of Maze2D: every controller on every task; and how good the planner's plans are in themselves."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from forcing.eval.plan_rows import ACTIONS, PD, WITHOUT_GRID
from forcing.eval.published import PUBLISHED
from forcing.eval.report import Report, mean_interval, over_seeds, plus_minus
from forcing.eval.result_files import NOTHING, markdown_table, missing, number, read_report
from forcing.eval.tasks import TASKS

MAZE2D = tuple(name for name in TASKS if name.startswith("maze2d-"))
EPISODES = "--episodes 100 --seed 1000"
SEEDS = ("", "-seed1", "-seed2")


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """A controller. suffix: of its records, after the task's name. options: of the `forcing eval` that makes them."""

    name: str
    suffix: str
    options: str


def _sets(settings: Sequence[str]) -> str:
    return " ".join(f"--set {setting}" for setting in settings)


YARDSTICKS = (
    Row(name="no planner: straight at the goal", suffix="-straight", options="--policy straight"),
    Row(name="waypoint expert, knows the map", suffix="-expert", options="--policy expert"),
    Row(name="MPC on visited places, no learned plan", suffix="-mpc", options="--policy mpc --data STORE"),
    Row(name="network cloned from the same data", suffix="-clone", options="--policy CLONE"),
)
OURS = (
    Row(name="**forcing**, as shipped", suffix="", options=""),
    Row(name="forcing, PD on the timed plan", suffix="-pd", options=_sets(PD)),
    Row(name="forcing, diffused actions as sampled", suffix="-actions", options=_sets(ACTIONS)),
    Row(name="forcing, without the grid of visited places", suffix="-nogrid", options=_sets(WITHOUT_GRID)),
    Row(name="forcing, its network trained for one step", suffix="-untrained", options="--policy UNTRAINED"),
)


def score_table(results: Path) -> list[str]:
    """Markdown: controllers by tasks, mean ± standard error over episodes; below it what is missing."""
    rows = [[row.name, *(_score(_report(results, task, row)) for task in MAZE2D)] for row in YARDSTICKS]
    rows.append(["best published", *(number(PUBLISHED[task].best, 1) for task in MAZE2D)])
    rows += [[row.name, *(_score(_report(results, task, row)) for task in MAZE2D)] for row in OURS]
    rows.append(["… as shipped, 95 % over episodes", *(_interval(_shipped(results, task)) for task in MAZE2D)])
    rows.append(["**forcing**, mean ± s.e. over training seeds", *(_seeds(results, task) for task in MAZE2D)])
    rows.append(["**physical limit**", *(number(PUBLISHED[task].limit, 1) for task in MAZE2D)])
    for row in (OURS[0], OURS[1]):
        shares = [_share(_report(results, task, row), task) for task in MAZE2D]
        rows.append(
            [f"share of the limit, {row.name.removeprefix('**forcing**, ').removeprefix('forcing, ')}", *shares]
        )
    rows.append(["success, as shipped", *(_of(_shipped(results, task), _success) for task in MAZE2D)])
    rows.append(["steps to goal, as shipped / limit", *(_steps(_shipped(results, task), task) for task in MAZE2D)])
    kept = [row for row in rows if set(row[1:]) != {NOTHING}]
    lines = markdown_table(["", *(name.removeprefix("maze2d-").replace("-", " ") for name in MAZE2D)], kept)
    return [*lines, "", *_measured_on(results), *_missing(results)]


def plans_table(results: Path) -> list[str]:
    """Markdown: each episode's first plan, by tasks."""
    found = [(task, report) for task in MAZE2D if (report := _shipped(results, task)) and report.get("plan_metrics")]
    if not found:
        return missing(f"forcing eval TASK {EPISODES} --report docs/results/TASK.json")
    rows = []
    for task, report in found:
        first, every = report["plan_metrics"]["first"], report["plan_metrics"]["all"]
        jump, inner, depth = first["joint_jump_m"], first["inner_jump_m"], every["wall_depth_m"]
        rows.append(
            [
                task,
                _mean_and_95(jump),
                _mean_and_95(inner),
                f"{first['crossing_share']:.2f} / {every['crossing_share']:.2f}",
                number(depth["max"], 2),
                f"{first['arriving_share']:.2f}",
                number(first["predicted_steps_mean"]),
                number(report["steps_to_goal_mean"]),
                number(report["plan_metrics"]["limit_steps"]),
                number(first["prediction_error_abs_mean"]),
            ]
        )
    header = ["task", "jump at joints, m", "jump elsewhere, m", "walls cut, first / all", "deepest, m", "arriving"]
    return markdown_table([*header, "steps predicted", "taken", "limit", "off by"], rows)


def _report(results: Path, task: str, row: Row) -> Report | None:
    return read_report(results / f"{task}{row.suffix}.json")


def _shipped(results: Path, task: str) -> Report | None:
    return _report(results, task, OURS[0])


def _of(report: Report | None, cell: Callable[[Report], str]) -> str:
    return NOTHING if report is None else cell(report)


def _score(report: Report | None) -> str:
    return _of(report, lambda found: plus_minus(found["normalized_mean"], found["normalized_sem"]))


def _success(report: Report) -> str:
    return f"{report['success_rate']:.2f}"


def _interval(report: Report | None) -> str:
    if report is None:
        return NOTHING
    limits = mean_interval([episode["normalized"] for episode in report["episodes_detail"]])
    return NOTHING if limits is None else f"{limits[0]:.1f} to {limits[1]:.1f}"


def _seeds(results: Path, task: str) -> str:
    reports = [report for seed in SEEDS if (report := read_report(results / f"{task}{seed}.json")) is not None]
    if len(reports) < 2:
        return NOTHING
    summary = over_seeds(reports)
    return f"{plus_minus(summary['seeds_mean'], summary['seeds_sem'])} ({len(reports)})"


def _share(report: Report | None, task: str) -> str:
    limit = PUBLISHED[task].limit
    return NOTHING if report is None or limit is None else f"{report['normalized_mean'] / limit:.3f}"


def _steps(report: Report | None, task: str) -> str:
    return _of(report, lambda found: f"{number(found['steps_to_goal_mean'])} / {number(PUBLISHED[task].limit_steps)}")


def _mean_and_95(spread: dict[str, float] | None) -> str:
    return NOTHING if spread is None else f"{spread['mean']:.2f} ({spread['p95']:.2f})"


def _measured_on(results: Path) -> list[str]:
    reports = [_report(results, task, row) for task in MAZE2D for row in (*YARDSTICKS, *OURS)]
    reports += [read_report(results / f"{task}{seed}.json") for task in MAZE2D for seed in SEEDS]
    episodes = sorted({f"{report['episodes']} from seed {report['seed']}" for report in reports if report is not None})
    return [f"Episodes: {', '.join(episodes)}."] if episodes else []


def _missing(results: Path) -> list[str]:
    wanted: Sequence[Row] = (
        *YARDSTICKS,
        *OURS,
        *(Row(name="", suffix=seed, options=f"--policy RUN{seed}") for seed in SEEDS[1:]),
    )
    lines: list[str] = []
    for row in wanted:
        tasks = [task for task in MAZE2D if _report(results, task, row) is None]
        if tasks:
            options = f"{row.options} " if row.options else ""
            of = "TASK" if len(tasks) > 1 else tasks[0]
            command = f"forcing eval {of} {options}{EPISODES} --report docs/results/{of}{row.suffix}.json"
            where = "" if len(tasks) in (1, len(MAZE2D)) else f" (TASK: {', '.join(tasks)})"
            lines += [f"- {line}{where}" for line in missing(command)]
    return ["", *lines] if lines else []
