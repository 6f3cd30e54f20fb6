"""The report of an evaluation: JSON for programs, a table for people. Every figure comes from the per-episode
records."""

import json
import platform
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from rich.table import Table

from forcing import __version__
from forcing.eval.files import replacing
from forcing.eval.rollout import Episode
from forcing.eval.tasks import Task

Report = dict[str, Any]


def build_report(
    task: Task, policy: str, revision: str | None, seed: int, episodes: Sequence[Episode], command: str
) -> Report:
    """Means with their standard errors over episodes, and a record of each episode.

    Raises ValueError without episodes.
    """
    if not episodes:
        raise ValueError("a report needs at least 1 episode, got 0")
    returns = [episode.episode_return for episode in episodes]
    normalized = [episode.normalized for episode in episodes]
    reached = [episode.steps_to_goal for episode in episodes if episode.steps_to_goal is not None]
    plan_ms = [ms for episode in episodes for ms in episode.trace.plan_ms]
    return {
        "task": task.name,
        "policy": policy,
        "revision": revision,
        "episodes": len(episodes),
        "seed": seed,
        "return_mean": float(np.mean(returns)),
        "return_sem": _sem(returns),
        "normalized_mean": float(np.mean(normalized)),
        "normalized_sem": _sem(normalized),
        "success_rate": float(np.mean([episode.success for episode in episodes])),
        "steps_to_goal_mean": float(np.mean(reached)) if reached else None,
        "plans_per_episode": len(plan_ms) / len(episodes),
        "plan_ms_p50": float(np.percentile(plan_ms, 50)) if plan_ms else None,
        "plan_ms_p99": float(np.percentile(plan_ms, 99)) if plan_ms else None,
        "command": command,
        "forcing": __version__,
        "python": platform.python_version(),
        "episodes_detail": [_record(episode) for episode in episodes],
    }


def _sem(values: Sequence[float]) -> float | None:
    return float(np.std(values, ddof=1) / np.sqrt(len(values))) if len(values) > 1 else None


def _record(episode: Episode) -> dict[str, Any]:
    return {
        "episode": episode.index,
        "seed": episode.seed,
        "return": episode.episode_return,
        "normalized": episode.normalized,
        "success": episode.success,
        "steps_to_goal": episode.steps_to_goal,
        "start": episode.positions[0].tolist(),
        "goal": episode.goal.tolist(),
        "plans": len(episode.trace.plan_ms),
    }


def write_report(report: Report | Sequence[Report], path: Path) -> None:
    """One report or several as JSON; missing folders are made."""
    with replacing(path) as beside:
        beside.write_text(json.dumps(report, indent=1) + "\n")


def table_of(reports: Sequence[Report]) -> Table:
    """One row a report, 80 columns wide: episodes, return and D4RL's score ± standard error, success rate, steps to the
    goal, plan ms p50/p99."""
    table = Table(box=None, padding=(0, 1, 0, 0))
    for column in ("task", "policy", "n", "return", "score", "succ", "steps", "plan ms"):
        table.add_column(column, justify="left" if column in ("task", "policy") else "right", no_wrap=True)
    for row in reports:
        table.add_row(
            row["task"],
            row["policy"],
            str(row["episodes"]),
            plus_minus(row["return_mean"], row["return_sem"], digits=0),
            plus_minus(row["normalized_mean"], row["normalized_sem"]),
            f"{row['success_rate']:.2f}",
            "-" if row["steps_to_goal_mean"] is None else f"{row['steps_to_goal_mean']:.0f}",
            "-" if row["plan_ms_p50"] is None else f"{row['plan_ms_p50']:.0f}/{row['plan_ms_p99']:.0f}",
        )
    return table


def plus_minus(mean: float, sem: float | None, digits: int = 1) -> str:
    """A mean with its standard error, if there is one."""
    return f"{mean:.{digits}f}" if sem is None else f"{mean:.{digits}f} ± {sem:.{digits}f}"
