"""The table of what each part of a recipe is worth."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from forcing.eval.ablation_rows import VARIANTS
from forcing.eval.report import Report, plus_minus, standard_error
from forcing.eval.result_files import NOTHING, markdown_table, missing, number, read_entries

REFERENCE = "as is"


def ablation_table(results: Path) -> list[str]:
    """Markdown: a table for each task, from every ablation*.json."""
    lines: list[str] = []
    for path in sorted(results.glob("ablation*.json")):
        entries = read_entries(path)
        if entries:
            absent = [variant.key for variant in VARIANTS if variant.name not in {entry["row"] for entry in entries}]
            lines += [*_table(entries), ""]
            lines += [f"Rows not measured yet: {', '.join(absent)}.", ""] if absent else []
    command = "forcing bench ablation maze2d-medium-multi --data STORE --report docs/results/ablation-medium.json"
    return lines[:-1] or missing(command)


def _table(entries: Sequence[Report]) -> list[str]:
    reference = next((entry for entry in entries if entry["row"] == REFERENCE), None)
    header = ["row", "score", "± episodes", "less than as is", "success", "arriving", "jump, m", "walls cut"]
    header += ["cost", "predicted", "nats a number, training data", "minutes", "windows", "M weights"]
    rows = [
        [
            entry["row"],
            plus_minus(entry["seeds_mean"], entry["seeds_sem"]),
            number(_over_episodes(entry), 1),
            _lost(entry, reference),
            number(_mean(entry, "success_rate"), 2),
            number(_first(entry, "arriving_share"), 2),
            number(float(np.mean([run["plan_metrics"]["first"]["joint_jump_m"]["mean"] for run in entry["runs"]])), 2),
            number(_first(entry, "crossing_share"), 2),
            number(_first(entry, "cost_mean")),
            number(_first(entry, "predicted_steps_mean")),
            number(_known_mean([run.get("nats_per_number") for run in entry["runs"]]), 2),
            number(entry["minutes"], 1),
            number(entry["windows"]),
            number(entry["parameters"] / 1e6, 2),
        ]
        for entry in entries
    ]
    first = entries[0]
    episodes = f"{first['episodes']} episodes from seed {first['seed']}"
    seeds = ", ".join(str(seed) for seed in sorted({seed for entry in entries for seed in entry["seeds"]}))
    about = f"{first['task']}: {first['steps']:,} optimiser steps each, training seeds {seeds}, {episodes}; "
    return [f"{about}`{first['command']}`", "", *markdown_table(header, rows)]


def _over_episodes(entry: Report) -> float | None:
    """Standard error over episodes of the mean over training seeds."""
    scores = [[episode["normalized"] for episode in run["episodes_detail"]] for run in entry["runs"]]
    return standard_error(np.mean(scores, axis=0).tolist())


def _lost(entry: Report, reference: Report | None) -> str:
    """What the row scores less than the reference, mean ± standard error over training seeds that both have."""
    if reference is None or entry is reference:
        return NOTHING
    ours, theirs = (dict(zip(row["seeds"], row["seed_means"], strict=True)) for row in (entry, reference))
    differences = [theirs[seed] - ours[seed] for seed in ours if seed in theirs]
    return plus_minus(float(np.mean(differences)), standard_error(differences)) if differences else NOTHING


def _mean(entry: Report, name: str) -> float:
    return float(np.mean([run[name] for run in entry["runs"]]))


def _first(entry: Report, name: str) -> float | None:
    """Mean over runs of a figure of first plans, of those that have it."""
    return _known_mean([run["plan_metrics"]["first"][name] for run in entry["runs"]])


def _known_mean(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return float(np.mean(known)) if known else None
