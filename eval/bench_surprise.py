"""`forcing bench surprise`: whether a policy that doubts what it sees finds the frames that are disturbed, and no
others."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from rich.console import Console

from forcing.eval.arm_tasks import ArmTask
from forcing.eval.bench_records import Records
from forcing.eval.conditions import Conditions
from forcing.eval.console import rows_table
from forcing.eval.detection import beyond, counted, detection, recorded
from forcing.eval.evaluate import watch
from forcing.eval.report import Report, build_report
from forcing.eval.result_files import number
from forcing.eval.rollout import DriverSpec, Episode
from forcing.policy.policy import Policy, load_policy

UNDISTURBED = "undisturbed"
HEADER = (
    "cameras", "held", "disturbed frames", "recall", "precision", "runs found", "frames until", "false alarms a minute",
)  # fmt: skip
THRESHOLDS = (2.0, 3.0, 4.0)  # decades
OTHERS = (
    "cameras",
    *(f"disturbed beyond {decades:g}" for decades in THRESHOLDS),
    *(f"others beyond {decades:g}" for decades in THRESHOLDS),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class SurpriseBench:
    """Episodes `seed`, `seed` + 1, ... of a task, of each kind of distractor. policy: name or folder, None for that of
    the task. workers: processes, None for one a core. command: as typed."""

    task: ArmTask
    policy: str | None
    episodes: int
    seed: int
    workers: int | None
    command: str
    console: Console


def run_bench(bench: SurpriseBench, *, report: Path | None) -> None:
    """Episodes under each distractor and under none, of the policy that leaves aside what surprises it.

    What the report has already, with the same weights and episodes, is not measured again. Raises UnknownPolicy, and
    ValueError if the policy does not know what is usual, or the task has no cameras to be disturbed.
    """
    name = bench.policy or bench.task.policy
    loaded = load_policy(name)
    if not bench.task.distractors:
        raise ValueError(f"task {bench.task.name} has no cameras that could be disturbed; try swap-cameras")
    if loaded.surprise is None:
        raise ValueError(
            f"policy {name} does not know what is usual; measure that with: forcing calibrate {name} --data DATA"
        )
    wanted = {
        "task": bench.task.name,
        "control_hz": bench.task.control_hz,
        "weights": loaded.revision,
        "episodes": bench.episodes,
        "seed": bench.seed,
        "false_alarms": _false_alarms(loaded),
    }
    records = Records(report, wanted, bench.console.print, needs="flags")
    for row in (UNDISTURBED, *bench.task.distractors):
        if records.find(row) is None:
            records.add(_entry(bench, name, loaded, row) | wanted)
    bench.console.print(rows_table(title_of(records.entries[0]), HEADER, map(surprise_row, records.entries)))


def title_of(entry: Report) -> str:
    share = f"{entry['false_alarms']:g} of recorded frames"
    return f"{entry['task']}, {entry['episodes']} episodes from seed {entry['seed']}, flagged beyond {share}"


def surprise_row(entry: Report) -> list[str]:
    """Under `HEADER`."""
    flags = [record["streams"] for record in entry["flags"]]
    counts = counted(flags, [record["steps"] for record in entry["flags"]])
    held = sum(record["success"] for record in entry["flags"])
    return [
        entry["row"],
        f"{held} of {len(flags)}",
        str(counts.disturbed),
        number(counts.recall, 3),
        number(counts.precision, 3),
        f"{len(counts.delays)} of {counts.spans}" if counts.spans else "",
        number(float(np.median(counts.delays)), 0) if counts.delays else "",
        number(counts.alarms_a_minute(entry["control_hz"]), 2),
    ]


def threshold_row(entry: Report) -> list[str]:
    """Under `OTHERS`: shares of frames beyond other thresholds, of the same scores."""
    flags = [record["streams"] for record in entry["flags"]]
    shares = [beyond(flags, kind, decades) for kind in ("disturbed", "undisturbed") for decades in THRESHOLDS]
    digits = [3] * len(THRESHOLDS) + [4] * len(THRESHOLDS)
    return [entry["row"], *(number(share, places) for share, places in zip(shares, digits, strict=True))]


def _entry(bench: SurpriseBench, name: str, policy: Policy, row: str) -> Report:
    under = Conditions(distractor="" if row == UNDISTURBED else row, handling="detected")
    spec = DriverSpec(policy=name, under=under)
    episodes = watch(bench.task, spec, bench.episodes, bench.seed, bench.workers, bench.console)
    share = _false_alarms(policy)
    report = build_report(bench.task, name, policy.revision, bench.seed, episodes, bench.command)
    flags = [
        {
            "seed": episode.seed,
            "success": episode.success,
            "steps": len(episode.actions),
            "streams": recorded(episode, share),
        }
        for episode in episodes
    ]
    return report | {
        "row": row,
        "settings": list(under.settings),
        "detection": detection(episodes, share),
        "flags": flags,
        "example": _example(bench.task, episodes),
    }


def _example(task: ArmTask, episodes: Sequence[Episode]) -> Report:
    """Surprise of each camera at each step of the first episode, to a hundredth of a decade."""
    first = episodes[0]
    surprise = {
        name: [None if (one := sensors[name].surprise) is None else round(one, 2) for sensors in first.trace.sensors]
        for name in task.cameras
    }
    return {"seed": first.seed, "surprise": surprise}


def _false_alarms(policy: Policy) -> float:
    assert policy.preset.memory is not None
    return policy.preset.memory.false_alarms
