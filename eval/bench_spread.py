"""`forcing bench spread`: how often a robot is as near to its plans as their spread says."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from scipy.special import ndtri

from forcing.eval.bench_records import Records
from forcing.eval.conditions import Conditions
from forcing.eval.console import rows_table
from forcing.eval.evaluate import watch
from forcing.eval.report import Report, build_report
from forcing.eval.rollout import DriverSpec, Episode
from forcing.eval.trial import Trial
from forcing.policy.policy import load_policy

# Name -> the fault of the sensors as `forcing eval --faults` takes it.
FAULTS = {"clean": "", "noise 0.2": "noise=0.2"}
SHARES = (0.5, 0.8, 0.95)  # that the intervals ought to cover
STREAM = "position"  # the one whose true values an episode keeps
# Steps ahead at which one row of a table ends: a frame each at first, then more, as outcomes become rarer.
ENDS = (4, 8, 12, 16, 20, 24, 28, 32, 40, 48, 56, 64, 80, 96, 128, 160, 192, 256, 320, 416)
HEADER = ("steps ahead", *(f"{fault}, {what}" for fault in FAULTS for what in ("episodes", "50 %", "80 %", "95 %")))


def run_bench(trial: Trial, *, policy: str | None, report: Path | None) -> None:
    """Episodes with perfect and with noisy sensors, every plan held against where the robot was then.

    What the report has already, with the same weights and episodes, is not measured again. Raises UnknownPolicy, and
    ValueError if the policy has no spread.
    """
    name = policy or trial.task.policy
    loaded = load_policy(name)
    if loaded.spread is None:
        raise ValueError(f"policy {name} has no spread that was measured; do that with: forcing calibrate {name}")
    wanted = trial.wanted(loaded)
    records = Records(report, wanted, trial.console.print, needs="coverage")
    for row, faults in FAULTS.items():
        if records.find(row, faults=faults, calibration=loaded.card["spread"]) is not None:
            continue
        spec = DriverSpec(policy=name, under=Conditions(faults=faults))
        episodes = watch(trial.task, spec, trial.episodes, trial.seed, trial.workers, trial.console)
        entry = build_report(trial.task, name, loaded.revision, trial.seed, episodes, trial.command)
        measured = {"coverage": [counted(episode) for episode in episodes], "calibration": loaded.card["spread"]}
        records.add(entry | wanted | measured | {"row": row, "faults": faults, "settings": []})
    title = f"{trial.task.name}, {name}: {trial.episodes} episodes from {trial.seed}"
    trial.console.print(rows_table(title, HEADER, spread_rows(records.entries)))


def counted(episode: Episode) -> list[list[int]]:
    """For each of `ENDS`: coordinates of planned frames up to there whose outcome was seen, and how many of them lay
    within the interval of each of `SHARES`."""
    counts = np.zeros((len(ENDS), 1 + len(SHARES)), dtype=np.int64)
    for plan in episode.trace.plans:
        seen = plan.made_at_step + plan.steps < len(episode.positions)
        outcome = episode.positions[plan.made_at_step + plan.steps[seen]]
        error = np.abs(outcome - plan.streams[STREAM][seen])
        widths = ndtri((1 + np.array(SHARES)) / 2)  # a normal error is within so many standard deviations
        within = error[..., None] <= widths * plan.spread[STREAM][seen][..., None]
        row = np.searchsorted(ENDS, plan.steps[seen])
        found = np.insert(within.sum(axis=1), 0, error.shape[1], axis=1)
        np.add.at(counts, row[row < len(ENDS)], found[row < len(ENDS)])
    return [[int(value) for value in row] for row in counts]


def coverages(entry: Report) -> list[tuple[int, list[float]]]:
    """For each of `ENDS`: episodes that saw outcomes, and the share of all outcomes within the interval of each of
    `SHARES`; no shares where there were none."""
    counts = np.array(entry["coverage"])
    result = []
    for row in range(len(ENDS)):
        episodes, total = int((counts[:, row, 0] > 0).sum()), counts[:, row].sum(axis=0)
        result.append((episodes, [float(within / total[0]) for within in total[1:]] if episodes else []))
    return result


def spread_rows(entries: Sequence[Report]) -> list[list[str]]:
    """A row for each of `ENDS` that was seen, under `HEADER`."""
    found = {entry["row"]: coverages(entry) for entry in entries}
    rows = []
    for index, end in enumerate(ENDS):
        cells = []
        for fault in FAULTS:
            episodes, shares = found[fault][index] if fault in found else (0, [])
            cells += [str(episodes), *(f"{100 * share:.0f}" for share in shares or ())]
            cells += [""] * (len(SHARES) - len(shares))
        first = 1 if index == 0 else ENDS[index - 1] + 1
        if any(cell not in ("", "0") for cell in cells):
            rows.append([f"{first} to {end}", *cells])
    return rows
