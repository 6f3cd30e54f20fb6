"""Puts a trained policy into the package: scored on its tasks, with the scores in its card, and a card for people.

For maintainers: `scripts/ship runs/maze2d-medium`.
"""

import shlex
import sys
from pathlib import Path
from typing import Annotated, Any

import tyro
from rich.console import Console

from forcing.eval.evaluate import watch
from forcing.eval.report import Report, build_report, plus_minus, table_of, write_report
from forcing.eval.rollout import DriverSpec
from forcing.eval.tasks import TASKS
from forcing.policy.checkpoint import load_policy_file, save_policy
from forcing.policy.policy import FILE_NAME, SHIPPED, load_policy

RESULTS = Path("docs/results")


def ship(
    run: Annotated[Path, tyro.conf.Positional], episodes: int = 100, seed: int = 1000, workers: int | None = None
) -> None:
    """Scores the policy in folder `run` on every task it was trained for and installs it in the package.

    Args:
        run: folder of the trained policy.
        episodes: of each task.
        seed: of the first episode; nothing may have been tuned on these.
        workers: processes, one a core if not given.
    """
    console, command = Console(), shlex.join(["scripts/ship", *sys.argv[1:]])
    policy = load_policy(str(run))
    name = str(policy.card["task"])
    reports = []
    for task in (task for task in TASKS.values() if task.policy == name):
        finished = watch(task, DriverSpec(policy=str(run)), episodes, seed, workers, console)
        reports.append(build_report(task, name, policy.revision, seed, finished, command))
        write_report(reports[-1], RESULTS / f"{task.name}.json")
    console.print(table_of(reports))
    file = load_policy_file(run / FILE_NAME)
    card = {**file.card, "scores": {report["task"]: round(report["normalized_mean"], 1) for report in reports}}
    folder = SHIPPED / name
    folder.mkdir(parents=True, exist_ok=True)
    save_policy(folder / FILE_NAME, file.preset, file.spec, file.normaliser, file.weights, card)
    (folder / "README.md").write_text(_card(name, policy.revision, policy.parameters, card, reports))
    console.print(f"shipped: {folder}")


def _card(name: str, revision: str, parameters: int, card: dict[str, Any], reports: list[Report]) -> str:
    provenance = card["data_provenance"]
    rows = [
        f"| {report['task']} | {report['episodes']} from {report['seed']} "
        f"| {plus_minus(report['normalized_mean'], report['normalized_sem'])} | {report['success_rate']:.2f} "
        f"| {report['steps_to_goal_mean']:.0f} |"
        for report in reports
    ]
    lines = [
        f"# {name}",
        "",
        f"Diffusion Forcing planner, {parameters / 1e6:.2f} M parameters, revision {revision}.",
        "It learned from recorded trajectories alone and gets no map, at training or at test time.",
        "",
        f"- Data: {provenance.get('description', card['data'])} ({card['data_steps']} steps)",
        f"- Training: `{card['command']}`, seed {card['seed']}, {card['minutes']} minutes",
        f"  on one CPU core, {card['steps']} steps, {card['windows']} windows",
        "- Input: position (m) and velocity (m/s) at 100 Hz, goal as a position; output: force along x and y, -1 to 1",
        "- Not for: other mazes, other robots; it knows only the places that its recordings visited",
        "",
        "| task | episodes | normalised score | success | steps to goal |",
        "|---|---|---|---|---|",
        *rows,
        "",
        "Mean and standard error over episodes that nothing was tuned on; D4RL's score.",
    ]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    tyro.cli(ship)
