"""The command line: every command is a function, its options are the function's parameters.

Exit codes: 0 done, 1 failed, 2 wrong usage. What a command needs is imported when it runs, so that help comes at once.
"""

import logging
import shlex
import shutil
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

from tyro.conf import Positional, UseAppendAction, arg
from tyro.extras import SubcommandApp

from forcing.eval.console import new_console
from forcing.usage import UsageError, at_least, command, known, run, typed

app = SubcommandApp()
data_app = SubcommandApp()
bench_app = SubcommandApp()
console = new_console()
BYTES_A_STEP = 500  # of a Minari dataset of a maze, generously
TaskName = Annotated[Positional[str], arg(metavar="TASK")]
PresetName = Annotated[Positional[str], arg(metavar="PRESET")]
Source = Annotated[Positional[str], arg(metavar="SOURCE")]
Settings = Annotated[UseAppendAction[tuple[str, ...]], arg(name="set", metavar="KEY=VALUE")]


@command(app)
def demo(task: str = "maze2d-large-multi", episodes: int = 4, seed: int = 0, out: Path = Path("demo-output")) -> None:
    """Serve a shipped policy, drive a simulated robot over HTTP, score it, draw it.

    Args:
        task: what the robot must do.
        episodes: how many times.
        seed: of the first episode.
        out: folder for the report and the pictures.
    """
    from forcing.eval.demo import run_demo

    _one_thread()
    run_demo(
        _task(task),
        episodes=at_least(1, episodes=episodes),
        seed=at_least(0, seed=seed),
        out=out,
        command=typed(),
        console=console,
    )


@command(app)
def generate(task: TaskName, out: Path, steps: int = 1_000_000, seed: int = 0, workers: int | None = None) -> None:
    """Record demonstrations by a scripted expert, as a Minari dataset.

    Args:
        task: what is demonstrated: maze2d-umaze, -medium, -large, or ogbench-pointmaze-medium-navigate, -medium-stitch,
            -large-navigate and so on to -giant-stitch.
        out: folder of Minari datasets; the new one appears below it, under its id.
        steps: control steps to record.
        seed: of everything random; the same seed gives the same recording.
        workers: processes, one a core if not given; the recording does not depend on it.
    """
    from forcing.datasets.minari_writer import write_minari
    from forcing.envs.recipes import RECIPES
    from forcing.progress import progress_bar

    recipe = known(task, RECIPES, "task")
    # HDF5 does not survive a disk that fills up under it.
    existing = next(folder for folder in (out, *out.absolute().parents) if folder.exists())
    needed, free = steps * BYTES_A_STEP, shutil.disk_usage(existing).free
    if free < needed:
        raise OSError(f"{out} needs about {needed / 1e6:.0f} MB for {steps} steps, {free / 1e6:.0f} MB are free there")
    shards = recipe.collect(steps=at_least(1, steps=steps), seed=at_least(0, seed=seed), workers=_workers(workers))

    def episodes(progress: Any) -> Iterator[Mapping[str, Any]]:
        bar = progress.add_task(f"driving {task}", total=steps)
        for shard in shards:
            for episode in shard:
                progress.advance(bar, len(episode["actions"]))
                yield episode

    with progress_bar() as progress:
        path = write_minari(
            out,
            f"forcing/{task}-v0",
            episodes(progress),
            description=f"{recipe.expert} with action noise 0.5 on {task}: {steps} steps, seed {seed}.",
            env=recipe.env(),
            observation_space=recipe.observation_space,
            action_space=recipe.action_space,
            control_hz=recipe.control_hz,
            algorithm_name=recipe.expert,
            goal=recipe.goal,
            units=recipe.units,
        )
    print(f"wrote {path}")


@command(data_app)
def info(source: Source, control_hz: float | None = None) -> None:
    """Describe a recording: a store, a Minari dataset by folder or id, or a D4RL HDF5 file.

    Args:
        source: the recording.
        control_hz: steps a second, where the recording does not say.
    """
    from forcing.datasets.checks import describe
    from forcing.datasets.recording import read_recording

    print(describe(read_recording(source, control_hz=control_hz)))


@command(data_app)
def check(source: Source, control_hz: float | None = None) -> None:
    """Look for what would spoil training; exit code 1 if there are errors.

    Args:
        source: the recording.
        control_hz: steps a second, where the recording does not say.
    """
    from forcing.datasets.checks import check_source

    _refuse_errors(source, check_source(source, control_hz=control_hz))


@command(data_app)
def convert(source: Source, out: Path, control_hz: float | None = None) -> None:
    """Turn any supported recording into one checked zarr store.

    Args:
        source: the recording.
        out: the store, such as medium.zarr; one that is there is replaced.
        control_hz: steps a second, where the recording does not say.
    """
    from forcing.datasets.checks import check as find_faults
    from forcing.datasets.recording import read_recording
    from forcing.datasets.store import write_store

    trajectories = read_recording(source, control_hz=control_hz)
    _refuse_errors(source, find_faults(trajectories))
    print(f"wrote {write_store(trajectories, out)}")


@command(data_app)
def dream(
    source: Source,
    out: Path,
    steps: int = 300_000,
    room_steps: float = 2.0,
    seed: int = 0,
    control_hz: float | None = None,
) -> None:
    """Turn a recording into demonstrations as fast as the robot can go, from the recording alone.

    One-step dynamics are fitted to the recording, the places it visited are where one may go, and goals are driven to
    on both at full speed. For low-dimensional recordings with a goal stream; refuses, with the reason, where the
    fitted dynamics predict badly.

    Args:
        source: the recording.
        out: the store, such as medium-dreamed.zarr; one that is there is replaced.
        steps: control steps to dream.
        room_steps: how far, in fastest recorded steps, the dream may leave visited places where nothing was touched; 0
            keeps to them.
        seed: of everything random; the same seed gives the same dream.
        control_hz: steps a second, where the recording does not say.
    """
    from forcing.datasets.dream import DreamConfig
    from forcing.datasets.dream import dream as dream_from
    from forcing.datasets.recording import read_recording
    from forcing.datasets.store import write_store
    from forcing.progress import progress_bar

    _one_thread()
    config = DreamConfig(steps=at_least(1, steps=steps), room_steps=room_steps)
    recorded = read_recording(source, control_hz=control_hz)
    with progress_bar() as progress:
        bar = progress.add_task(f"dreaming from {Path(source).name}", total=steps)
        dreamed = dream_from(
            recorded, config, at_least(0, seed=seed), lambda done: progress.update(bar, completed=done)
        )
    print(f"wrote {write_store(dreamed, out)}: {int(dreamed.lengths.sum())} steps, {len(dreamed.lengths)} episodes")


@command(app)
def train(
    preset: PresetName,
    data: str,
    out: Path | None = None,
    minutes: float | None = None,
    steps: int | None = None,
    seed: int = 0,
    resume: bool = False,
    device: Literal["cpu", "cuda"] = "cpu",
    control_hz: float | None = None,
    set_: Settings = (),
) -> None:
    """Train a policy on a recording; Ctrl-C saves, --resume goes on.

    Args:
        preset: recipe: maze2d-umaze, maze2d-medium, maze2d-large, or generic for any other recording.
        data: a store, a Minari dataset by folder or id, or a D4RL HDF5 file.
        out: folder of the policy; runs/PRESET if not given.
        minutes: training time; 20, or as before with --resume, if neither minutes nor steps is given.
        steps: optimiser steps, instead of minutes.
        seed: of weights, windows and noise.
        resume: go on with the run in OUT, same budget, seed and data. It ends at the weights of an uninterrupted run,
            bit for bit: with steps always, with minutes if the learning rate had begun to fall.
        device: cpu or cuda.
        control_hz: steps a second, where the recording does not say.
        set_: a setting of the recipe, such as denoiser.kind=recurrent or optimiser.weight=fused_snr; several --set may
            follow.
    """
    import torch

    from forcing.datasets.recording import read_recording
    from forcing.datasets.windows import TrajectoryWindows
    from forcing.policy import training
    from forcing.policy.config import override
    from forcing.policy.preset import PRESETS
    from forcing.policy.tokens import Normaliser
    from forcing.progress import train_watched

    _one_thread()
    recipe = known(preset, PRESETS, "preset")
    if device == "cuda" and not torch.cuda.is_available():
        raise UsageError("device cuda is not available here; leave out --device")
    folder = out or Path("runs") / preset
    try:
        recipe = override(recipe, *set_)
        if minutes is None and steps is None:
            budget = (training.saved_budget(folder) if resume else None) or training.Budget(minutes=20.0)
        else:
            budget = training.Budget(steps=steps, minutes=minutes)
    except ValueError as error:
        raise UsageError(str(error)) from error
    if (folder / "resume.safetensors").exists() and not resume:
        raise UsageError(f"{folder} holds a run already; add --resume, or choose another --out")
    trajectories = read_recording(data, control_hz=control_hz)
    trainer = training.Trainer(
        recipe,
        TrajectoryWindows(trajectories),
        Normaliser.fit(trajectories),
        seed=seed,
        device=device,
        world=_world(trajectories, recipe),
    )
    changed = "".join(f" --set {shlex.quote(setting)}" for setting in set_)
    card = {
        "task": preset,
        "data": data,
        "data_steps": int(trajectories.lengths.sum()),
        "data_provenance": dict(trajectories.provenance),
        "seed": seed,
        "device": device,
        "command": f"forcing train {preset} --data {data} --out {folder} {budget} --seed {seed}{changed}",
    }
    path = train_watched(trainer, budget, folder, card, resume=resume)
    print(f"wrote {path}; serve it: forcing serve --policy {path.parent}")


@command(app)
def clone(
    data: str,
    out: Path,
    minutes: float | None = None,
    steps: int | None = None,
    seed: int = 0,
    control_hz: float | None = None,
) -> None:
    """Clone a plain network from a recording: what was done there, given the state and a place reached later.

    A yardstick for planners: `forcing eval` takes its folder as a policy. Ctrl-C saves what there is.

    Args:
        data: a store, a Minari dataset by folder or id, or a D4RL HDF5 file.
        out: folder of the clone; one that is there is replaced.
        minutes: training time; 20 if neither minutes nor steps is given.
        steps: optimiser steps, instead of minutes.
        seed: of weights and goals.
        control_hz: steps a second, where the recording does not say.
    """
    from forcing.datasets.recording import read_recording
    from forcing.policy.clone import CloneConfig, train_clone
    from forcing.policy.training import Budget
    from forcing.progress import watched

    _one_thread()
    at_least(0, seed=seed)
    try:
        budget = Budget(minutes=20.0) if minutes is None and steps is None else Budget(steps=steps, minutes=minutes)
    except ValueError as error:
        raise UsageError(str(error)) from error
    trajectories = read_recording(data, control_hz=control_hz)
    card = {"data": data, "data_provenance": dict(trajectories.provenance), "seed": seed, "command": typed()}
    path = watched(
        "clone",
        lambda report, stop: train_clone(
            trajectories, CloneConfig(), budget, out, card, seed=seed, report=report, stop=stop
        ),
    )
    print(f"wrote {path}; score it: forcing eval TASK --policy {path.parent}")


@command(app)
def serve(policy: tuple[str, ...], host: str = "127.0.0.1", port: int = 8000, allow_remote: bool = False) -> None:
    """Answer controllers over HTTP until Ctrl-C or SIGTERM.

    Args:
        policy: names of shipped policies or folders of trained ones; several may follow.
        host: address to listen on.
        port: 0 takes a free one.
        allow_remote: listen on other addresses than loopback; anybody who reaches them can drive.
    """
    from forcing.policy.policy import load_policy
    from forcing.server.serve import run_server

    _one_thread()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    run_server(
        [load_policy(name) for name in policy],
        host,
        port,
        allow_remote=allow_remote,
        announce=lambda line: print(line, flush=True),
    )


@command(app, "eval")
def evaluate(
    task: TaskName,
    policy: str | None = None,
    url: str | None = None,
    episodes: int = 100,
    seed: int = 0,
    report: Path | None = None,
    pictures: Path | None = None,
    workers: int | None = None,
    data: str | None = None,
    set_: Settings = (),
) -> None:
    """Score a policy on a task, beside the yardsticks that have no planner.

    Args:
        task: such as maze2d-medium-multi; ogbench-pointmaze-giant-stitch and its kin take their five goals in turn.
        policy: shipped policy, folder of a policy or clone, or yardstick (straight, expert, mpc); the one shipped for
            the task if not given.
        url: of a server that serves the policy; in this process if not given.
        episodes: how many.
        seed: of the first episode; episode i has seed + i.
        report: where to write the report as JSON.
        pictures: folder for a picture of each of the first 12 episodes.
        workers: processes, one a core if not given; scores do not depend on it.
        data: the recording that yardstick mpc stands on, and no other needs.
        set_: a setting of the policy's planner or tracker, such as tracker.kind=pd or planner.support_tolerance=0.1;
            several --set may follow.
    """
    from forcing.eval.evaluate import evaluate_policy
    from forcing.eval.rollout import DriverSpec

    _one_thread()
    chosen = _task(task)
    _check_settings(set_, policy or chosen.policy, url)
    try:
        DriverSpec(policy=policy or chosen.policy, url=url, data=data)
    except ValueError as error:
        raise UsageError(str(error)) from error
    evaluate_policy(
        chosen,
        policy=policy,
        url=url,
        settings=set_,
        data=data,
        episodes=at_least(1, episodes=episodes),
        seed=at_least(0, seed=seed),
        report=report,
        pictures=pictures,
        workers=_workers(workers),
        command=typed(),
        console=console,
    )


@command(bench_app, "serve")
def bench_serve(policy: str = "maze2d-medium", report: Path | None = None) -> None:
    """One control step: in process, through the socket with one controller, and with eight.

    Args:
        policy: which to serve.
        report: where to write the figures as JSON.
    """
    from forcing.eval.bench_serve import run_bench

    _one_thread()
    run_bench(policy, report=report, command=typed(), console=console)


@command(bench_app, "plan")
def bench_plan(
    task: str = "maze2d-medium-multi",
    policy: str | None = None,
    rows: tuple[str, ...] = (),
    episodes: int = 40,
    seed: int = 2000,
    report: Path | None = None,
    workers: int | None = None,
) -> None:
    """What each part of planning is worth, on the same episodes with the same weights: scores, plans, cost.

    Args:
        task: such as maze2d-medium-multi.
        policy: shipped policy or folder; the one shipped for the task if not given.
        rows: groups of rows: shipped, tracker, world, schedule, samples, steps, search, guidance, yardsticks; all if
            not given.
        episodes: of each row.
        seed: of the first episode.
        report: where to write the figures as JSON, row by row; rows that it has already are not measured again.
        workers: processes, one a core if not given.
    """
    from forcing.eval.bench_plan import run_bench

    _one_thread()
    trial = _trial(task, episodes, seed, workers)
    run_bench(trial, policy=policy, groups=rows, report=report, console=console)


@command(bench_app, "ablation")
def bench_ablation(
    task: TaskName,
    data: str,
    steps: int = 5000,
    seeds: tuple[int, ...] = (0, 1, 2),
    episodes: int = 40,
    seed: int = 2000,
    rows: tuple[str, ...] = (),
    report: Path | None = None,
    out: Path = Path("runs/ablation"),
    workers: int | None = None,
    control_hz: float | None = None,
) -> None:
    """What each part of a recipe is worth: variants trained from scratch for as many steps, on the same episodes.

    Args:
        task: such as maze2d-medium-multi; its policy's recipe is what is varied.
        data: a store, a Minari dataset by folder or id, or a D4RL HDF5 file.
        steps: optimiser steps of every run.
        seeds: of training, one run each.
        episodes: of each run.
        seed: of the first episode.
        rows: as-is, causal, recurrent, eps, v, cosine, sigmoid, min-snr, uniform, fused-snr, independent,
            full-sequence, teacher-forcing, half-tokens, history; all if not given.
        report: where to write the figures as JSON, run by run; what it has already is not done again.
        out: folder of the runs; one that was broken off goes on.
        workers: processes of the evaluation, one a core if not given.
        control_hz: steps a second, where the recording does not say.
    """
    from forcing.datasets.recording import read_recording
    from forcing.eval.ablation_rows import variants_of
    from forcing.eval.bench_ablation import Recipe, run_bench
    from forcing.policy.preset import PRESETS
    from forcing.progress import train_watched

    _one_thread()
    trial = _trial(task, episodes, seed, workers)
    preset, variants = known(trial.task.policy, PRESETS, "preset"), variants_of(rows)
    recording = read_recording(data, control_hz=control_hz)
    recipe = Recipe(
        preset=preset,
        data=data,
        recording=recording,
        world=_world(recording, preset),
        steps=at_least(1, steps=steps),
        out=out,
        train=train_watched,
    )
    run_bench(trial, recipe, seeds=seeds, variants=variants, report=report, console=console)


@command(bench_app, "train")
def bench_train(preset: str = "maze2d-medium", report: Path | None = None) -> None:
    """Windows a second in training and out of memory, on a synthetic recording.

    Args:
        preset: recipe.
        report: where to write the figures as JSON.
    """
    from forcing.eval.bench_train import run_bench
    from forcing.policy.preset import PRESETS

    _one_thread()
    run_bench(known(preset, PRESETS, "preset"), report=report, command=typed(), console=console)


@command(bench_app, "page")
def bench_page(page: Path = Path("docs/benchmarks.md"), results: Path = Path("docs/results")) -> None:
    """Write the tables of the page of benchmarks anew from the reports there are; its prose stays.

    Args:
        page: a Markdown file with a pair of marks for each table.
        results: folder of the reports.
    """
    from forcing.eval.benchmark_page import write_page

    for line in write_page(page, results):
        print(line)


@command(app)
def policies() -> None:
    """List the shipped policies and those under runs/: task, size, score, training data."""
    from forcing.eval.policy_table import policy_table

    console.print(policy_table(Path("runs")))


app.command(data_app, name="data")
app.command(bench_app, name="bench")


def main(arguments: Sequence[str] | None = None) -> None:
    """Runs the command that `arguments`, or the command line, name; leaves by SystemExit with 0, 1 or 2."""
    run(app, "A Diffusion Forcing planner behind an HTTP endpoint.", arguments)


def _task(name: str) -> Any:
    from forcing.eval.tasks import find_task

    return find_task(name)


def _trial(task: str, episodes: int, seed: int, workers: int | None) -> Any:
    """How the rows of a bench are measured."""
    from forcing.eval.bench_plan import Trial

    return Trial(
        task=_task(task),
        episodes=at_least(1, episodes=episodes),
        seed=at_least(0, seed=seed),
        workers=_workers(workers),
        command=typed(),
        console=console,
    )


def _check_settings(settings: tuple[str, ...], policy: str, url: str | None) -> None:
    """Raises UsageError if they are not for this policy, before any work is done."""
    from forcing.eval.adjust import Adjusted
    from forcing.eval.rollout import BASELINES
    from forcing.policy.clone import is_clone
    from forcing.policy.policy import load_policy

    if not settings:
        return
    if url is not None or policy in BASELINES or is_clone(policy):
        raise UsageError("set changes a policy in this process; leave out --url, and yardsticks, or leave out --set")
    try:
        Adjusted(settings)(load_policy(policy))
    except ValueError as error:
        raise UsageError(str(error)) from error


def _workers(workers: int | None) -> int | None:
    return None if workers is None else at_least(1, workers=workers)


def _world(trajectories: Any, recipe: Any) -> Any:
    """What the recording shows besides trajectories, None if nothing. Raises NoWorld if the recipe needs it."""
    from forcing.policy.world import NoWorld, fit_world

    try:
        world = fit_world(trajectories)
    except NoWorld as reason:
        if recipe.tracker.kind == "feedback":
            raise NoWorld(f"{reason}; a feedback tracker needs dynamics, add --set tracker.kind=actions") from reason
        print(f"plans will not be rehearsed: {reason}")
        return None
    print("dynamics fitted; plans will be rehearsed on them")
    return world


def _refuse_errors(source: str, findings: Sequence[Any]) -> None:
    for finding in findings:
        print(finding)
    errors = sum(finding.severity == "error" for finding in findings)
    print(f"{source}: {errors} errors, {len(findings) - errors} warnings")
    if errors:
        raise SystemExit(1)


def _one_thread() -> None:
    """Small networks on shared cores lose by more threads, and sums in another order would change results."""
    import torch

    torch.set_num_threads(1)
