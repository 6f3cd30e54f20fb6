"""Puts a trained policy into the package: scored on its tasks, with the scores in its card, and a card for people.

For maintainers: `scripts/ship runs/maze2d-medium`.
"""

import shlex
from collections.abc import Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated, Any

import tyro

from forcing.eval.arm_tasks import ArmTask
from forcing.eval.console import new_console
from forcing.eval.evaluate import score
from forcing.eval.report import Report, arm_table, plus_minus, table_of, write_report
from forcing.eval.rollout import DriverSpec
from forcing.eval.tasks import TASKS
from forcing.policy.checkpoint import load_policy_file, save_policy, save_surprise
from forcing.policy.policy import FILE_NAME, SHIPPED, Policy, load_policy
from forcing.policy.types import StreamSpec, TrajectorySpec

RESULTS = Path("docs/results")


def ship(
    run: Annotated[Path, tyro.conf.Positional], episodes: int = 100, seed: int = 1000, workers: int | None = None
) -> None:
    """Scores the policy in folder `run`, as it will be installed, on every task of its own and installs it.

    Raises ValueError if the folder is not below the working directory, CheckpointError if it holds no whole policy.

    Args:
        run: folder of the trained policy.
        episodes: of each task.
        seed: of the first episode; nothing may have been tuned on these.
        workers: processes, one a core if not given.
    """
    if not run.resolve().is_relative_to(Path.cwd()):
        raise ValueError(f"run must lie below the working directory, so that its path means something, got {run}")
    run = run.resolve().relative_to(Path.cwd())
    command = shlex.join(["scripts/ship", str(run), "--episodes", str(episodes), "--seed", str(seed)])
    console, file = new_console(), load_policy_file(run / FILE_NAME)
    name, reports = str(file.card["task"]), list[Report]()

    def install(folder: Path, card: Mapping[str, Any]) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        path, known = folder / FILE_NAME, (file.preset, file.spec, file.normaliser, file.weights)
        save_policy(path, *known, dict(card), file.world, file.spread, file.cameras)
        if file.surprise is not None:
            save_surprise(path, file.surprise, card["surprise"])

    # A run that an older version saved lacks settings that are spelled out now, which makes it another revision.
    with TemporaryDirectory() as scratch:
        install(Path(scratch) / name, file.card)
        policy = load_policy(str(Path(scratch) / name))
        for task in (task for task in TASKS.values() if task.policy == name):
            report, _ = score(
                task,
                DriverSpec(policy=str(Path(scratch) / name)),
                served=isinstance(task, ArmTask),
                episodes=episodes,
                seed=seed,
                workers=workers,
                command=command,
                console=console,
            )
            reports.append(report | {"policy": name})
            write_report(reports[-1], RESULTS / f"{task.name}.json")
    console.print((table_of if policy.history_planner is None else arm_table)(reports))
    card = {**file.card, "scores": {report["task"]: round(report["normalized_mean"], 1) for report in reports}}
    folder = SHIPPED / name
    install(folder, card)
    (folder / "README.md").write_text(_readme(policy, card, reports, _scores(name)))
    console.print(f"shipped: {folder}")


_OF_PLACES = (
    "It learned from recorded trajectories alone and gets no map, at training or at test time; what the file holds",
    "besides weights, dynamics and a grid of visited places, is read off the same data.",
)
_OF_MEMORY = (
    "It learned from recorded demonstrations alone and acts from all that an episode has shown of the streams below;",
    "what the file holds besides weights, codecs of cameras and what is usual of readings, is read off the same data.",
)


def _scores(name: str) -> str:
    return " and ".join(sorted({task.score for task in TASKS.values() if task.policy == name}))


def _readme(policy: Policy, card: dict[str, Any], reports: list[Report], score: str) -> str:
    provenance = card["data_provenance"]
    device = f"on {card['device'].upper()}, " if "device" in card else ""
    rows = [
        f"| {report['task']} | {report['episodes']} from {report['seed']} "
        f"| {plus_minus(report['normalized_mean'], report['normalized_sem'])} | {report['success_rate']:.2f} "
        f"| {'-' if report['steps_to_goal_mean'] is None else round(report['steps_to_goal_mean'])} |"
        for report in reports
    ]
    lines = [
        f"# {card['task']}",
        "",
        f"Diffusion Forcing planner, {policy.parameters / 1e6:.2f} M parameters, revision {policy.revision}.",
        *(_OF_PLACES if policy.history_planner is None else _OF_MEMORY),
        "",
        f"- Data: {_data(provenance, card['data'])} ({card['data_steps']} steps)",
        f"- Training: `{card['command']}`, seed {card['seed']}, {card['minutes']} minutes",
        f"  {device}{card['steps']} steps, {card['windows']} windows",
        *([_spread(card["spread"])] if "spread" in card else []),
        _signature(policy.spec),
        "- Not for: other tasks and places, other robots; it knows only what its recordings show",
        "",
        "| task | episodes | normalised score | success | steps to goal |",
        "|---|---|---|---|---|",
        *rows,
        "",
        f"Mean and standard error over episodes; {score}.",
    ]
    return "\n".join(lines) + "\n"


def _spread(how: Mapping[str, Any]) -> str:
    return f"- Spread: `{how['command']}`, seed {how['seed']}, {how['minutes']} minutes"


def _data(provenance: Mapping[str, Any], path: str) -> str:
    """What the training data is, in the recorder's words where it left some."""
    if "dreamed_from" in provenance:
        settings = provenance["dream"]
        size = f"--steps {settings['steps']} --sequences {settings['controller']['sequences']}"
        return (
            f"dreamed (`forcing data dream {size} --seed {settings['seed']}`) "
            f"from: {_data(provenance['dreamed_from'], path)}"
        )
    return str(provenance.get("description", path))


def _signature(spec: TrajectorySpec) -> str:
    sensed = ", ".join(_stream(stream) for stream in spec.of_role("observation"))
    goal = "" if spec.goal is None else f"; goal: a {spec.goal}"
    done = ", ".join(_stream(stream) for stream in spec.of_role("action"))
    return f"- Input at {spec.control_hz:g} Hz: {sensed}{goal}; output: {done}"


def _stream(stream: StreamSpec) -> str:
    """Name, size, units and limits: `action [2] from -1 to 1`."""
    units = f" {stream.units}" if stream.units else ""
    limits = ""
    if stream.low is not None and stream.high is not None:
        limits = f" from {min(stream.low):g} to {max(stream.high):g}"
    return f"{stream.name} [{stream.size}]{units}{limits}"


if __name__ == "__main__":
    try:
        tyro.cli(ship)
    except (ValueError, OSError) as error:
        raise SystemExit(f"ship: {error}") from error
