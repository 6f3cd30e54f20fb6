"""The report of an evaluation: JSON for programs, a table for people. Every figure comes from the per-episode
records."""

import json
import platform
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from rich.table import Table
from scipy.special import stdtrit

from forcing import __version__
from forcing.eval.arm_tasks import ArmTask
from forcing.eval.detection import detection
from forcing.eval.files import replacing
from forcing.eval.maze_tasks import MazeTask
from forcing.eval.plan_metrics import measure_plans
from forcing.eval.rollout import Episode
from forcing.eval.task import Task

Report = dict[str, Any]


def build_report(
    task: Task, policy: str, revision: str | None, seed: int, episodes: Sequence[Episode], command: str
) -> Report:
    """Means with their standard errors over episodes, and a record of each episode.

    normalized_interval: 95 % over episodes, by Student's t. plan_metrics: of the plans themselves, see `measure_plans`,
    None where there are none. detection: of disturbed cameras, see `detection`, None if the task has none that could
    be. success_rate: over episodes, which is the mean over goals of fixed number if each had as many episodes;
    success_interval: 95 % by Wilson. goals: the same for each goal of fixed number, none if the task has none.
    reached_rate: of episodes that had success at hand at some step, whether it lasted or not. act_ms: from an
    observation to its action, a plan included. Raises ValueError without episodes.
    """
    if not episodes:
        raise ValueError("a report needs at least 1 episode, got 0")
    returns = [episode.episode_return for episode in episodes]
    normalized = [episode.normalized for episode in episodes]
    reached = [episode.steps_to_goal for episode in episodes if episode.steps_to_goal is not None]
    plan_ms = [ms for episode in episodes for ms in episode.trace.plan_ms]
    act_ms = [ms for episode in episodes for ms in episode.trace.act_ms]
    return {
        "task": task.name,
        "policy": policy,
        "revision": revision,
        "episodes": len(episodes),
        "seed": seed,
        "return_mean": float(np.mean(returns)),
        "return_sem": standard_error(returns),
        "normalized_mean": float(np.mean(normalized)),
        "normalized_sem": standard_error(normalized),
        "normalized_interval": mean_interval(normalized),
        **_successes(episodes),
        "reached_rate": len(reached) / len(episodes),
        "steps_to_goal_mean": float(np.mean(reached)) if reached else None,
        "goals": _by_goal(episodes),
        "plans_per_episode": len(plan_ms) / len(episodes),
        **_quantiles("plan_ms", plan_ms),
        **_quantiles("act_ms", act_ms),
        "plan_metrics": measure_plans(task, episodes) if isinstance(task, MazeTask) else None,
        "detection": detection(episodes) if isinstance(task, ArmTask) and task.distractors else None,
        "command": command,
        "forcing": __version__,
        "python": platform.python_version(),
        "episodes_detail": [_record(episode) for episode in episodes],
    }


def standard_error(values: Sequence[float]) -> float | None:
    """Of the mean; None for a single value."""
    return float(np.std(values, ddof=1) / np.sqrt(len(values))) if len(values) > 1 else None


def mean_interval(values: Sequence[float]) -> list[float] | None:
    """Between which limits the mean lies, at 95 % confidence: Student's t. None for a single value."""
    error = standard_error(values)
    if error is None:
        return None
    half = float(stdtrit(len(values) - 1, 0.975)) * error
    return [float(np.mean(values)) - half, float(np.mean(values)) + half]


def _successes(episodes: Sequence[Episode]) -> Report:
    reached = sum(episode.success for episode in episodes)
    return {
        "success_rate": reached / len(episodes),
        "success_sem": standard_error([float(episode.success) for episode in episodes]),
        "success_interval": list(wilson_interval(reached, len(episodes))),
    }


def _by_goal(episodes: Sequence[Episode]) -> list[Report]:
    numbers = sorted({episode.goal_number for episode in episodes if episode.goal_number is not None})
    found = []
    for number in numbers:
        of_goal = [episode for episode in episodes if episode.goal_number == number]
        found.append({"goal": number, "episodes": len(of_goal), **_successes(of_goal)})
    return found


def wilson_interval(successes: int, trials: int, z: float = 1.959964) -> tuple[float, float]:
    """Limits between which the probability of success lies, at 95 % confidence for the z given.

    Wilson (1927), Journal of the American Statistical Association 22, Eq. 10. Raises ValueError without trials.
    """
    if not 0 <= successes <= trials or trials < 1:
        raise ValueError(f"successes must be between 0 and trials, which must be at least 1, got {successes}, {trials}")
    share, weight = successes / trials, z * z / trials
    centre = (share + weight / 2) / (1 + weight)
    half = float(np.sqrt(weight * share * (1 - share) + weight * weight / 4)) / (1 + weight)
    return max(0.0, centre - half), min(1.0, centre + half)


def _quantiles(name: str, values: Sequence[float]) -> Report:
    return {f"{name}_p{share}": float(np.percentile(values, share)) if values else None for share in (50, 99)}


def _record(episode: Episode) -> Report:
    return {
        "episode": episode.index,
        "seed": episode.seed,
        **({} if episode.goal_number is None else {"goal_number": episode.goal_number}),
        **({} if episode.layout is None else {"layout": list(episode.layout)}),
        "return": episode.episode_return,
        "normalized": episode.normalized,
        "success": episode.success,
        "reached": episode.steps_to_goal is not None,
        "steps": len(episode.actions),
        "steps_to_goal": episode.steps_to_goal,
        "start": episode.positions[0].tolist(),
        **({} if episode.goal is None else {"goal": episode.goal.tolist()}),
        "distracted_steps": sum(map(bool, episode.distracted)),
        "plans": len(episode.trace.plan_ms),
        **_quantiles("plan_ms", episode.trace.plan_ms),
        **_quantiles("act_ms", episode.trace.act_ms),
    }


def over_seeds(reports: Sequence[Report]) -> Report:
    """Of one setting trained from several seeds: the mean score of each, their mean and its standard error."""
    means = [float(report["normalized_mean"]) for report in reports]
    return {"seed_means": means, "seeds_mean": float(np.mean(means)), "seeds_sem": standard_error(means)}


def write_report(report: Report | Sequence[Report], path: Path) -> None:
    """One report or several as JSON; missing folders are made."""
    with replacing(path) as beside:
        beside.write_text(json.dumps(report, indent=1) + "\n")


def table_of(reports: Sequence[Report]) -> Table:
    """One row a report, 80 columns wide: episodes, return and the task's score ± standard error, success rate, steps to
    the goal, plan ms p50/p99. A task that all of them share is the title."""
    tasks = {row["task"] for row in reports}
    table = Table(title=tasks.pop() if len(tasks) == 1 else None, title_justify="left", box=None, padding=(0, 1, 0, 0))
    names = ("task", "policy") if tasks else ("policy",)
    for column in (*names, "n", "return", "score", "succ", "steps", "plan ms"):
        table.add_column(column, justify="left" if column in names else "right", no_wrap=True)
    for row in reports:
        table.add_row(
            *(row[name] for name in names),
            str(row["episodes"]),
            plus_minus(row["return_mean"], row["return_sem"], digits=0),
            plus_minus(row["normalized_mean"], row["normalized_sem"]),
            f"{row['success_rate']:.2f}",
            "-" if row["steps_to_goal_mean"] is None else f"{row['steps_to_goal_mean']:.0f}",
            "-" if row["plan_ms_p50"] is None else f"{row['plan_ms_p50']:.0f}/{row['plan_ms_p99']:.0f}",
        )
    return table


def arm_table(reports: Sequence[Report]) -> Table:
    """One row a report of an arm's task: episodes, success ± standard error and its 95 % interval, how many had it at
    some step, steps until then, ms from observation to action p50/p99."""
    table = Table(title=reports[0]["task"], title_justify="left", box=None, padding=(0, 1, 0, 0))
    for column in ("policy", "n", "success", "95 %", "reached", "steps", "act ms"):
        table.add_column(column, justify="left" if column == "policy" else "right", no_wrap=True)
    for row in reports:
        table.add_row(row["policy"], str(row["episodes"]), *success_cells(row), *time_cells(row))
    return table


def success_cells(row: Report) -> tuple[str, str, str]:
    """Success that held ± standard error, its 95 % interval, and what had it at some step."""
    low, high = row["success_interval"]
    held = plus_minus(row["success_rate"], row["success_sem"], digits=2)
    return held, f"{low:.2f} to {high:.2f}", f"{row['reached_rate']:.2f}"


def time_cells(row: Report) -> tuple[str, str]:
    """Steps until success was first at hand, and ms from observation to action, p50/p99."""
    steps, p50, p99 = row["steps_to_goal_mean"], row["act_ms_p50"], row["act_ms_p99"]
    return "-" if steps is None else f"{steps:.0f}", "-" if p50 is None else f"{p50:.1f}/{p99:.1f}"


def goals_table(task: Task, report: Report) -> Table:
    """One row for each goal of fixed number, one for all: episodes, success rate, its 95 % interval."""
    table = Table(title=f"{report['policy']}, by goal", title_justify="left", box=None, padding=(0, 1, 0, 0))
    for column in ("goal", "n", "succ", "95 %"):
        table.add_column(column, justify="left" if column == "goal" else "right")
    for name, row in [*by_goal(task, report), ("all", report)]:
        low, high = row["success_interval"]
        table.add_row(name, str(row["episodes"]), f"{row['success_rate']:.3f}", f"{low:.3f} to {high:.3f}")
    return table


def by_goal(task: Task, report: Report) -> list[tuple[str, Report]]:
    """What the task calls each goal of fixed number, and the report's row of it."""
    return [(task.goals[row["goal"] - 1], row) for row in report["goals"]]


def plus_minus(mean: float, sem: float | None, digits: int = 1) -> str:
    """A mean with its standard error, if there is one."""
    return f"{mean:.{digits}f}" if sem is None else f"{mean:.{digits}f} ± {sem:.{digits}f}"
