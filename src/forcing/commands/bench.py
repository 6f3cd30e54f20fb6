"""`forcing bench`: what parts of planning, training and serving are worth and cost."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from tyro.conf import UseAppendAction, arg
from tyro.extras import SubcommandApp

from forcing.commands.shared import TaskName, checked_report, checked_workers, one_thread, world_for, writable
from forcing.eval.console import new_console
from forcing.usage import UsageError, at_least, command, known, typed

if TYPE_CHECKING:
    from forcing.eval.trial import Trial

app = SubcommandApp()
Policies = Annotated[UseAppendAction[tuple[str, ...]], arg(metavar="FOLDER")]


@command(app)
def serve(policy: str = "maze2d-medium", seconds: float = 20.0, report: Path | None = None) -> None:
    """One control step: in process, through sockets for one robot and for fleets, and from a naive server.

    Args:
        policy: which to serve.
        seconds: of each row; the largest fleet has three times that.
        report: where to write the figures as JSON.
    """
    from forcing.eval.bench_serve import run_bench

    one_thread()
    if not 1 <= seconds <= 3600:
        raise UsageError(f"seconds must be from 1 to 3600, got {seconds:g}")
    run_bench(policy, seconds=seconds, report=checked_report(report, "rows"), command=typed(), console=new_console())


@command(app)
def plan(
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
        rows: groups of rows: shipped, improved, tracker, world, schedule, samples, steps, search, guidance,
            rolling, yardsticks; all if not given.
        episodes: of each row.
        seed: of the first episode.
        report: where to write the figures as JSON, row by row; rows that it has already are not measured again.
        workers: processes, one a core if not given.
    """
    from forcing.eval.bench_plan import run_bench

    one_thread()
    trial = _trial(task, episodes, seed, workers)
    run_bench(trial, policy=policy, groups=rows, report=writable(report=report), console=trial.console)


@command(app)
def obstacles(
    task: str = "maze2d-medium-multi",
    policy: str | None = None,
    radius_m: float = 0.2,
    episodes: int = 40,
    seed: int = 2000,
    report: Path | None = None,
) -> None:
    """First plans past a disc that stands in their way, told of it by selection, by guidance, or not at all.

    Args:
        task: such as maze2d-medium-multi.
        policy: shipped policy or folder; the one shipped for the task if not given.
        radius_m: of the disc.
        episodes: whose first plans are made.
        seed: of the first episode.
        report: where to write the figures as JSON, row by row; rows that it has already are not measured again.
    """
    from forcing.eval.bench_obstacles import run_bench

    one_thread()
    run_bench(_trial(task, episodes, seed, workers=1), policy=policy, radius_m=radius_m, report=writable(report=report))


@command(app)
def faults(
    task: str = "maze2d-medium-multi",
    policy: str | None = None,
    only: tuple[str, ...] = (),
    episodes: int = 100,
    seed: int = 3000,
    report: Path | None = None,
    workers: int | None = None,
) -> None:
    """What faulty sensors cost, whether they are believed, declared noisy, filtered, or doubted by the policy itself.

    Args:
        task: such as maze2d-medium-multi.
        policy: shipped policy or folder; the one shipped for the task if not given.
        only: names of faults, such as 'noise 0.2'; all if not given.
        episodes: of each fault and way.
        seed: of the first episode.
        report: where to write the figures as JSON, row by row; rows that it has already are not measured again.
        workers: processes, one a core if not given.
    """
    from forcing.eval.bench_faults import run_bench

    one_thread()
    run_bench(_trial(task, episodes, seed, workers), policy=policy, faults=only, report=writable(report=report))


@command(app, name="filter")
def filter_(
    task: str = "maze2d-medium-multi",
    policy: str | None = None,
    episodes: int = 20,
    seed: int = 3000,
    report: Path | None = None,
) -> None:
    """How well the state of a driven robot is known from doubtful readings: read, filtered, guessed and believed.

    Args:
        task: such as maze2d-medium-multi.
        policy: shipped policy or folder; the one shipped for the task if not given.
        episodes: driven with perfect sensors, whose readings are spoiled then.
        seed: of the first episode.
        report: where to write the figures as JSON, row by row; rows that it has already are not measured again.
    """
    from forcing.eval.bench_filter import run_bench

    one_thread()
    run_bench(_trial(task, episodes, seed, workers=1), policy=policy, report=writable(report=report))


@command(app)
def spread(
    task: str = "maze2d-medium-multi",
    policy: str | None = None,
    episodes: int = 100,
    seed: int = 3000,
    report: Path | None = None,
    workers: int | None = None,
) -> None:
    """How often a robot is as near to its plans as their spread says, with perfect and with noisy sensors.

    Args:
        task: such as maze2d-medium-multi.
        policy: shipped policy or folder that `forcing calibrate` has measured; the one shipped for the task if not
            given.
        episodes: with each kind of sensors.
        seed: of the first episode.
        report: where to write the figures as JSON, row by row; rows that it has already are not measured again.
        workers: processes, one a core if not given.
    """
    from forcing.eval.bench_spread import run_bench

    one_thread()
    run_bench(_trial(task, episodes, seed, workers), policy=policy, report=writable(report=report))


@command(app)
def imagine(
    policy: Policies,
    data: str,
    episodes: int = 40,
    times: int = 10,
    seed: int = 0,
    report: Path | None = None,
    film: Path | None = None,
) -> None:
    """What models of the world imagine beyond the length of their training, against held-out episodes of swap.

    Each is given how an episode began and all its actions. Train them alike: forcing train swap-world, or
    swap-cameras-world, and the baselines with the settings of docs/imagination.md.

    Args:
        policy: folder of a model of the world; several --policy, of sequences of one length, are compared.
        data: recording of swap or swap-cameras of another seed than training.
        episodes: at most; those that are too short are left out.
        times: how many lengths of training are imagined.
        seed: of the noise that imagination begins with.
        report: where to write every episode's errors as JSON.
        film: where to write the first episode as a GIF, what happened beside what was imagined; needs cameras.
    """
    from forcing.eval.bench_imagine import ImagineBench, run_bench

    one_thread()
    if not policy:
        raise UsageError("policy must name a folder at least; --policy FOLDER")
    if film is not None and film.suffix != ".gif":
        raise UsageError(f"film must end in .gif, got {str(film)!r}")
    bench = ImagineBench(
        policies=policy,
        data=data,
        episodes=at_least(1, episodes=episodes),
        times=at_least(2, times=times),
        seed=at_least(0, seed=seed),
        film=writable(film=film),
    )
    run_bench(bench, report=writable(report=report), command=typed(), console=new_console())


@command(app)
def surprise(
    task: str = "swap-cameras",
    policy: str | None = None,
    episodes: int = 20,
    seed: int = 4000,
    report: Path | None = None,
    workers: int | None = None,
) -> None:
    """Whether a policy that doubts what it sees finds the frames that are disturbed, and no others.

    Args:
        task: whose cameras can be disturbed, such as swap-cameras.
        policy: shipped policy or folder; the one shipped for the task if not given.
        episodes: under each distractor, and under none.
        seed: of the first episode.
        report: where to write the figures as JSON, row by row; rows that it has already are not measured again.
        workers: processes, one a core if not given.
    """
    from forcing.eval.bench_surprise import SurpriseBench, run_bench
    from forcing.eval.tasks import find_arm

    one_thread()
    bench = SurpriseBench(
        task=find_arm(task),
        policy=policy,
        episodes=at_least(1, episodes=episodes),
        seed=at_least(0, seed=seed),
        workers=checked_workers(workers),
        command=typed(),
        console=new_console(),
    )
    run_bench(bench, report=writable(report=report))


@command(app)
def ablation(
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
        data: any recording (docs/formats.md).
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

    one_thread()
    trial = _trial(task, episodes, seed, workers)
    preset, variants = known(trial.task.policy, PRESETS, "preset"), variants_of(rows)
    recording = read_recording(data, control_hz=control_hz)
    recipe = Recipe(
        preset=preset,
        data=data,
        recording=recording,
        world=world_for(preset, recording),
        steps=at_least(1, steps=steps),
        out=out,
        train=train_watched,
    )
    run_bench(trial, recipe, seeds=seeds, variants=variants, report=writable(report=report), console=trial.console)


@command(app)
def train(preset: str = "maze2d-medium", report: Path | None = None) -> None:
    """Windows a second in training and out of memory, on a synthetic recording.

    Args:
        preset: recipe.
        report: where to write the figures as JSON.
    """
    from forcing.eval.bench_train import run_bench
    from forcing.policy.preset import PRESETS

    one_thread()
    run_bench(
        known(preset, PRESETS, "preset"),
        report=checked_report(report, "windows_per_s"),
        command=typed(),
        console=new_console(),
    )


@command(app)
def data(
    frames: int = 16_000,
    steps: int = 200_000,
    repeats: int = 5,
    seconds: float = 1.0,
    seed: int = 0,
    cache_mb: int = 256,
    larger_mb: int = 0,
    report: Path | None = None,
) -> None:
    """Random windows a second and memory: our store, Minari's and zarr's plain readers, an uncompressed memory map.

    Args:
        frames: of the recording of 96 × 96 × 3 pictures, of which windows have 32.
        steps: of the recording of numbers, of which windows have 64.
        repeats: measurements of each reader, in turns.
        seconds: of each measurement.
        seed: of the recordings and of the windows.
        cache_mb: for frames that our reader keeps decoded.
        larger_mb: draws besides from a store three times as large as this limit of memory, such as 700; writing that
            store takes a minute or two. 0 does not.
        report: where to write the figures as JSON.
    """
    from forcing.eval.bench_data import DataBench, run_bench

    one_thread()
    bench = DataBench(
        frames=at_least(1, frames=frames),
        steps=at_least(1, steps=steps),
        repeats=at_least(1, repeats=repeats),
        seconds=seconds,
        seed=at_least(0, seed=seed),
        cache_mb=at_least(1, cache_mb=cache_mb),
        larger_mb=at_least(0, larger_mb=larger_mb),
    )
    if not 0 < seconds <= 3600:
        raise UsageError(f"seconds must be above 0 and at most 3600, got {seconds:g}")
    run_bench(bench, report=checked_report(report, "rows"), command=typed(), console=new_console())


@command(app)
def page(page: Path = Path("docs/benchmarks.md"), results: Path = Path("docs/results")) -> None:
    """Write the tables of the page of benchmarks anew from the reports there are; its prose stays.

    Args:
        page: a Markdown file with a pair of marks for each table.
        results: folder of the reports.
    """
    from forcing.eval.benchmark_page import write_page

    for line in write_page(page, results):
        print(line)


def _trial(task: str, episodes: int, seed: int, workers: int | None) -> "Trial":
    """How the rows of a bench are measured."""
    from forcing.eval.tasks import find_maze
    from forcing.eval.trial import Trial

    return Trial(
        task=find_maze(task),
        episodes=at_least(1, episodes=episodes),
        seed=at_least(0, seed=seed),
        workers=checked_workers(workers),
        command=typed(),
        console=new_console(),
    )
