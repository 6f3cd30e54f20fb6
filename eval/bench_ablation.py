"""`forcing bench ablation`: what each part of a recipe is worth, trained from scratch for as many optimiser steps."""

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from rich.console import Console

from forcing.datasets.windows import TrajectoryWindows
from forcing.eval.ablation_rows import Variant
from forcing.eval.bench_records import Records
from forcing.eval.console import rows_table
from forcing.eval.likelihood import nats_per_number
from forcing.eval.plan_rows import ALONE
from forcing.eval.report import Report, over_seeds, plus_minus
from forcing.eval.trial import Trial
from forcing.policy.config import override
from forcing.policy.policy import load_policy
from forcing.policy.preset import Preset
from forcing.policy.tokens import Normaliser
from forcing.policy.training import Budget, Trainer
from forcing.policy.types import Trajectories
from forcing.policy.world import World

LIKELIHOOD_WINDOWS = 256
COLUMNS = ("row", "seeds", "score", "succ", "jump m", "wall", "minutes", "windows", "M")


class Train(Protocol):
    """Trains to the end of the budget and shows progress."""

    def __call__(self, trainer: Trainer, budget: Budget, out: Path, card: dict[str, object], *, resume: bool) -> Path:
        """The trained policy's file, in the folder `out`."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    """What all variants share. data: as typed. world: fitted to the recording once, None if it shows none. steps:
    optimiser steps. out: folder of the runs. train: how, with which progress."""

    preset: Preset
    data: str
    recording: Trajectories
    world: World | None
    steps: int
    out: Path
    train: Train

    def run(self, variant: Variant, seed: int) -> Path:
        """The folder of the variant's trained policy; a run that was broken off goes on, one that is over is kept.

        Raises ValueError if the folder holds a run of other settings or data.
        """
        folder = self.out / self.preset.name / f"{variant.weights_of or variant.key}-seed{seed}"
        settings = ALONE if variant.weights_of else variant.settings(self.preset)
        changed = override(self.preset, *settings)
        windows, normaliser = TrajectoryWindows(self.recording), Normaliser.fit(self.recording)
        trainer = Trainer(changed, windows, normaliser, seed=seed, world=self.world)
        options = "".join(f" --set {shlex.quote(setting)}" for setting in settings)
        started = f"forcing train {self.preset.name} --data {self.data} --out {folder} --steps {self.steps}"
        card: dict[str, object] = {
            "task": self.preset.name,
            "data": self.data,
            "data_steps": int(self.recording.lengths.sum()),
            "data_provenance": dict(self.recording.provenance),
            "seed": seed,
            "command": f"{started} --seed {seed}{options}",
        }
        resume = (folder / "resume.safetensors").exists()
        return self.train(trainer, Budget(steps=self.steps), folder, card, resume=resume).parent


def run_bench(
    trial: Trial,
    recipe: Recipe,
    *,
    seeds: Sequence[int],
    variants: Sequence[Variant],
    report: Path | None,
    console: Console,
) -> None:
    """Every variant trained from each seed and scored; printed as a table.

    The first seed of all variants comes first. What the report has already is neither trained nor scored again.
    """
    wanted = {"task": trial.task.name, "episodes": trial.episodes, "seed": trial.seed}
    records = Records(report, wanted | {"steps": recipe.steps, "data": recipe.data}, console.print, needs="runs")
    for seed in seeds:
        for variant in variants:
            settings = variant.settings(recipe.preset)
            before = records.find(variant.name, settings=settings)
            runs = [] if before is None else before["runs"]
            if any(run["training_seed"] == seed for run in runs):
                continue
            console.print(f"{variant.name}, seed {seed}")
            runs = [*runs, _scored(trial, recipe.run(variant, seed), variant, recipe, seed)]
            entry = _row(variant, settings, sorted(runs, key=lambda run: int(run["training_seed"])), trial.command)
            records.add(entry | wanted | {"steps": recipe.steps, "data": recipe.data})
            console.print(f"{variant.name}: {', '.join(_cells(entry))}")
    title = f"{trial.task.name}: {trial.episodes} episodes from {trial.seed}"
    console.print(rows_table(title, COLUMNS, ([entry["row"], *_cells(entry)] for entry in records.entries)))


def _scored(trial: Trial, folder: Path, variant: Variant, recipe: Recipe, seed: int) -> Report:
    """One run's report, with what its training took and how likely it finds the recording."""
    policy = load_policy(str(folder))
    report = trial.run(str(folder), policy, variant.planned)
    facts = {name: policy.card[name] for name in ("minutes", "windows")}
    layout, windows = recipe.preset.layout, TrajectoryWindows(recipe.recording)
    steps = layout.token_steps * -(-layout.horizon // 2)
    likely = nats_per_number(policy, windows, steps=steps, count=LIKELIHOOD_WINDOWS, seed=trial.seed)
    return report | facts | {"nats_per_number": likely, "training_seed": seed, "parameters": policy.parameters}


def _row(variant: Variant, settings: Sequence[str], runs: Sequence[Report], command: str) -> Report:
    """All runs of a variant. minutes, windows: mean over them."""
    taken = {name: float(np.mean([run[name] for run in runs])) for name in ("minutes", "windows")}
    return {
        "row": variant.name,
        "settings": list(settings),
        "seeds": [run["training_seed"] for run in runs],
        **over_seeds(runs),
        **taken,
        "parameters": runs[0]["parameters"],
        "command": command,
        "runs": list(runs),
    }


def _cells(entry: Mapping[str, Any]) -> list[str]:
    firsts = [run["plan_metrics"]["first"] for run in entry["runs"]]
    jumps = [first["joint_jump_m"]["mean"] for first in firsts]
    return [
        str(len(entry["seeds"])),
        plus_minus(entry["seeds_mean"], entry["seeds_sem"]),
        f"{np.mean([run['success_rate'] for run in entry['runs']]):.2f}",
        f"{np.mean(jumps):.2f}",
        f"{np.mean([first['crossing_share'] for first in firsts]):.2f}",
        f"{entry['minutes']:.1f}",
        f"{entry['windows']:,.0f}",
        f"{entry['parameters'] / 1e6:.2f}",
    ]
