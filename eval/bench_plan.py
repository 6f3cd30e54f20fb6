"""`forcing bench plan`: what each part of planning is worth, on the same episodes with the same weights."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from rich.console import Console

from forcing.eval.adjust import Adjusted
from forcing.eval.bench_records import Records
from forcing.eval.console import rows_table
from forcing.eval.plan_rows import Row, rows_of
from forcing.eval.report import Report, plus_minus
from forcing.eval.trial import Trial
from forcing.policy.policy import Policy, load_policy
from forcing.policy.preset import Preset

COLUMNS = ("row", "n", "score", "succ", "steps", "jump m", "wall", "passes", "plan ms")


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
    wanted = trial.wanted(loaded)
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
        return {"planner": None, "tracker": None, "rolling": None, "rows_a_pass": None}
    return {
        "planner": asdict(preset.planner),
        "tracker": asdict(preset.tracker),
        "rolling": None if preset.rolling is None else asdict(preset.rolling),
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
