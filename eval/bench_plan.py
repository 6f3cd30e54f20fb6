"""`forcing bench plan`: what each part of planning is worth, on the same episodes with the same weights."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console

from forcing.eval.adjust import Adjusted
from forcing.eval.bench_records import Records
from forcing.eval.console import rows_table
from forcing.eval.evaluate import watch
from forcing.eval.fronts import Front
from forcing.eval.plan_rows import Row, rows_of
from forcing.eval.report import Report, build_report, plus_minus
from forcing.eval.rollout import DriverSpec
from forcing.eval.tasks import Task
from forcing.policy.policy import Policy, load_policy
from forcing.policy.preset import Preset

COLUMNS = ("row", "n", "score", "succ", "steps", "jump m", "wall", "passes", "plan ms")


@dataclass(frozen=True, slots=True, kw_only=True)
class Trial:
    """How rows are measured: episodes `seed`, `seed` + 1, ... of a task. workers: processes, None for one a core.
    command: as typed."""

    task: Task
    episodes: int
    seed: int
    workers: int | None
    command: str
    console: Console

    def run(
        self,
        name: str,
        policy: Policy | None,
        settings: Sequence[str] = (),
        *,
        faults: str = "",
        front: Front | None = None,
    ) -> Report:
        """The report of a yardstick by its name, or of a policy, found by this name, with these settings; under faults
        of the sensors, and with something between them and the policy."""
        adjust = Adjusted(tuple(settings)) if settings else None
        spec = DriverSpec(policy=name, adjust=adjust, faults=faults, front=front)
        episodes = watch(self.task, spec, self.episodes, self.seed, self.workers, self.console)
        revision = None if policy is None else policy.revision
        report = build_report(self.task, name, revision, self.seed, episodes, self.command)
        plans = [plan for episode in episodes for plan in episode.trace.plans]
        return report | {"passes": float(np.mean([plan.passes for plan in plans])) if plans else None}


def run_bench(
    trial: Trial, *, policy: str | None, groups: Sequence[str], report: Path | None, console: Console
) -> None:
    """Every row of `groups`, all if none is named, printed as a table.

    Rows that the report has already, with the same settings, are not measured again; rows that plan and track alike are
    measured once. Raises UnknownPolicy, UnknownName if there are no such rows, ValueError if the report is of other
    weights or episodes.
    """
    rows, name = rows_of(groups), policy or trial.task.policy
    loaded = load_policy(name)
    wanted = {"task": trial.task.name, "weights": loaded.revision, "episodes": trial.episodes, "seed": trial.seed}
    records = Records(report, wanted, console.print, needs="plan_metrics")
    for row, preset in _planned(rows, loaded, console):
        if records.find(row.name, settings=row.settings) is not None:
            continue
        described, same_as = _described(preset), None
        same = None if preset is None else records.measured(**described)
        if same is not None:
            entry, same_as = {key: value for key, value in same.items() if key != "episodes_detail"}, same["row"]
        elif preset is None:
            entry = trial.run(row.driver or "", None)
        else:
            entry = trial.run(name, loaded, row.settings)
        entry |= wanted | {"row": row.name, "group": row.group, "settings": list(row.settings), "budget": row.passes}
        records.add(entry | {"same_as": same_as} | described)
        console.print(f"{row.name}: {', '.join(_cells(entry))}")
    title = f"{trial.task.name}, {name}: {trial.episodes} episodes from {trial.seed}"
    console.print(rows_table(title, COLUMNS, ([entry["row"], *_cells(entry)] for entry in records.entries)))


def _planned(rows: Sequence[Row], policy: Policy, console: Console) -> Iterator[tuple[Row, Preset | None]]:
    """Rows that mean something for this policy, and what they plan and track with, None for yardsticks."""
    for row in rows:
        if row.driver is not None:
            yield row, None
        elif row.needs_world and policy.world is None:
            console.print(
                f"{row.name}: left out, the policy carries no dynamics; train it on a recording that has them"
            )
        else:
            yield row, Adjusted(row.settings)(policy).preset


def _described(preset: Preset | None) -> Report:
    """All that a row plans and tracks with. rows_a_pass: plans that each network pass works on."""
    if preset is None:
        return {"planner": None, "tracker": None, "rows_a_pass": None}
    return {
        "planner": asdict(preset.planner),
        "tracker": asdict(preset.tracker),
        "rows_a_pass": preset.planner.samples * preset.layout.horizon,
    }


def _cells(entry: Mapping[str, Any]) -> list[str]:
    def shown(value: float | None, digits: int = 0) -> str:
        return "-" if value is None else f"{value:.{digits}f}"

    first = (entry["plan_metrics"] or {}).get("first", {})
    jump = (first.get("joint_jump_m") or {}).get("mean")
    return [
        str(entry["episodes"]),
        plus_minus(entry["normalized_mean"], entry["normalized_sem"]),
        f"{entry['success_rate']:.2f}",
        shown(entry["steps_to_goal_mean"]),
        shown(jump, 2),
        shown(first.get("crossing_share"), 2),
        shown(entry["passes"]),
        shown(entry["plan_ms_p50"]),
    ]
