"""`forcing bench plan`: what each part of planning is worth, on the same episodes with the same weights."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

from forcing.eval.evaluate import watch
from forcing.eval.report import build_report, plus_minus, write_report
from forcing.eval.rollout import DriverSpec
from forcing.eval.tasks import Task
from forcing.policy.policy import Policy, load_policy
from forcing.policy.schedules import Schedule

PYRAMID = Schedule(kind="pyramid", sampling_steps=3, uncertainty_scale=0.5)


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """A line of the table: what is changed against the policy's own planner and tracker."""

    name: str
    planner: Mapping[str, Any] = field(default_factory=dict)
    tracker: Mapping[str, Any] = field(default_factory=dict)

    def adjust(self, policy: Policy) -> Policy:
        return policy.using(
            planner=replace(policy.preset.planner, **self.planner),
            tracker=replace(policy.preset.tracker, **self.tracker),
        )


def _schedule(name: str, **schedule: Any) -> Row:
    return Row(name=name, planner={"schedule": Schedule(**schedule), "passes": None})


def _guided(name: str, futures: int, scale: float) -> Row:
    planner = {"goal_by": "guidance", "futures": futures, "guidance_scale": scale, "samples": 1}
    return Row(name=name, planner={**planner, "schedule": PYRAMID, "passes": None})


YARDSTICKS = {
    "straight": Row(name="no planner: straight at the goal"),
    "expert": Row(name="waypoint expert, knows the map"),
}
# Tuned with MCG off on maze2d-umaze-multi, seed 5000 on: 0, 3, 10, 30, 100 score 125, 164, 169, 165, 140.
SCALE = 10.0
ROWS = (
    Row(name="as shipped"),
    Row(name="pyramid, u = 0.5, 3 steps, to the end", planner={"schedule": PYRAMID, "passes": None}),
    _schedule("pyramid, u = 1, 3 steps", kind="pyramid", sampling_steps=3, uncertainty_scale=1.0),
    _schedule("full sequence, 3 steps", kind="full_sequence", sampling_steps=3),
    _schedule("autoregressive, 3 steps", kind="autoregressive", sampling_steps=3),
    _schedule("trapezoid, u = 0.5, 3 steps", kind="trapezoid", sampling_steps=3, uncertainty_scale=0.5),
    Row(name="goal clamped, 1 sample", planner={"samples": 1, "schedule": PYRAMID, "passes": None}),
    _guided("goal by selection alone, 1 sample", 0, 0.0),
    _guided("goal by guidance, MCG off, 1 sample", 0, SCALE),
    _guided("goal by guidance, MCG N = 1, 1 sample", 1, SCALE),
    _guided("goal by guidance, MCG N = 4, 1 sample", 4, SCALE),
    _guided("goal by guidance, MCG N = 16, 1 sample", 16, SCALE),
    Row(name="tracker: PD on the timed plan", tracker={"kind": "pd"}),
    Row(name="tracker: diffused actions", tracker={"kind": "actions"}),
)


def run_bench(
    task: Task,
    *,
    policy: str | None,
    episodes: int,
    seed: int,
    report: Path | None,
    workers: int | None,
    command: str,
    console: Console,
) -> None:
    """Every row on episodes `seed`, `seed` + 1, ...; printed as a table, per-episode records in the report.

    Raises UnknownPolicy.
    """
    name = policy or task.policy
    revision = load_policy(name).revision
    rows = [(row, DriverSpec(policy=name, adjust=row.adjust)) for row in ROWS]
    rows += [(row, DriverSpec(policy=baseline)) for baseline, row in YARDSTICKS.items()]
    table = Table(title=f"{task.name}, {name}: {episodes} episodes from seed {seed}", box=None, padding=(0, 1, 0, 0))
    for column in ("row", "n", "score", "succ", "steps", "passes", "plan ms"):
        table.add_column(column, justify="left" if column == "row" else "right")
    reports = []
    for row, spec in rows:
        finished = watch(task, spec, episodes, seed, workers, console)
        plans = [plan for episode in finished for plan in episode.trace.plans]
        learned = spec.policy not in YARDSTICKS
        entry = build_report(task, spec.policy, revision if learned else None, seed, finished, command)
        entry |= {"row": row.name, "changed": {"planner": asdict(row)["planner"], "tracker": dict(row.tracker)}}
        entry |= {"passes": float(np.mean([plan.passes for plan in plans])) if plans else None}
        reports.append(entry)
        table.add_row(row.name, *_cells(entry))
        console.print(f"{row.name}: {', '.join(_cells(entry))}")
        if report is not None:
            write_report(reports, report)
    console.print(table)


def _cells(entry: Mapping[str, Any]) -> list[str]:
    def shown(value: float | None) -> str:
        return "-" if value is None else f"{value:.0f}"

    score = plus_minus(entry["normalized_mean"], entry["normalized_sem"])
    success, steps = f"{entry['success_rate']:.2f}", shown(entry["steps_to_goal_mean"])
    return [str(entry["episodes"]), score, success, steps, shown(entry["passes"]), shown(entry["plan_ms_p50"])]
