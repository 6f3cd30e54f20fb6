"""`forcing eval`: episodes with progress, the yardstick beside them, a table, a report, pictures."""

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from pathlib import Path

from rich.console import Console
from rich.progress import Progress, TimeRemainingColumn

from forcing.eval.adjust import Adjusted
from forcing.eval.console import LINE_EVERY_S
from forcing.eval.drivers import served_streams
from forcing.eval.film import Take, write_film
from forcing.eval.maze_tasks import MazeTask
from forcing.eval.report import Report, arm_table, build_report, goals_table, table_of, write_report
from forcing.eval.rollout import BASELINES, DriverSpec, Episode, rollout
from forcing.eval.task import Task
from forcing.eval.tasks import TASKS
from forcing.policy.clone import is_clone, load_clone
from forcing.policy.policy import load_policy
from forcing.server.client import Client
from forcing.server.serve import serving
from forcing.server.service import ServerSettings


class Stopped(KeyboardInterrupt):
    """Ctrl-C when some episodes, but not all, had finished. finished: these, in order. report: of these, by `score`."""

    def __init__(self, finished: Sequence[Episode]) -> None:
        super().__init__()
        self.finished, self.report = finished, Report()


def evaluate_policy(
    task: Task,
    driver: DriverSpec,
    *,
    served: bool = False,
    episodes: int,
    seed: int,
    report: Path | None,
    pictures: Path | None = None,
    film: Path | None = None,
    workers: int | None,
    command: str,
    console: Console,
) -> list[Report]:
    """The driver's report, then, in mazes, that of driving straight at the goal on the same episodes; printed.

    served: by a server of our own, over HTTP. pictures: folder, of mazes alone. film: of the episodes that the driver's
    conditions say. With faults nothing is driven straight, which needs all readings. Raises ValueError on what does not
    fit together, CheckpointError on an unknown policy, ServerUnreachable or ServerProblem from a server, and Stopped
    once what had finished is printed and its report written.
    """
    driver.check(task)  # says here what a worker process could only die of
    _note_what_is_odd(driver, task, console)
    try:
        scored, finished = score(
            task, driver, served=served, episodes=episodes, seed=seed, workers=workers, command=command, console=console
        )
    except Stopped as stopped:
        console.print(f"stopped after {len(stopped.finished)} of {episodes} episodes; what follows is of these")
        _tell(task, [stopped.report], report, console)
        raise
    reports = [scored]
    if isinstance(task, MazeTask) and driver.policy not in BASELINES and not driver.under.faults:
        straight = DriverSpec(policy="straight", under=driver.under)
        driven = list(rollout(task, straight, episodes, seed, workers))
        reports.append(build_report(task, "straight", None, seed, driven, command))
    _tell(task, reports, report, console)
    if pictures is not None and isinstance(task, MazeTask):
        _draw(task, finished[:12], pictures, console)
    if film is not None:
        takes = [Take(f"seed {episode.seed}", episode.shots, episode.success) for episode in finished if episode.shots]
        write_film(takes, task.control_hz, film)
        console.print(f"film: {film}")
    return reports


def score(
    task: Task,
    driver: DriverSpec,
    *,
    served: bool,
    episodes: int,
    seed: int,
    workers: int | None,
    command: str,
    console: Console,
) -> tuple[Report, list[Episode]]:
    """The driver's report, and its episodes. Raises as `evaluate_policy`."""

    def report(finished: Sequence[Episode]) -> Report:
        how = _how(driver) | {"served": driving.url is not None}
        return build_report(task, driver.policy, revision, seed, finished, command) | how

    with _at_its_server(driver, console) if served else nullcontext(driver) as driving:
        revision = _revision(driving, task)
        _check_streams(driving, task)
        try:
            finished = watch(task, driving, episodes, seed, workers, console)
        except Stopped as stopped:
            stopped.report = report(stopped.finished) | {"stopped_of": episodes}
            raise
    return report(finished), finished


def _how(driver: DriverSpec) -> Report:
    """How the policy was changed, and under what it drove."""
    under, adjust = driver.under, driver.adjust
    changed = [*under.settings, *(adjust.settings if isinstance(adjust, Adjusted) else ())]
    return {
        "changed": changed,
        "faults": under.faults,
        "distractor": under.distractor,
        "handling": under.handling,
        "most_steps": under.most_steps,
    }


def _tell(task: Task, reports: Sequence[Report], path: Path | None, console: Console) -> None:
    """Prints all reports and writes the first."""
    console.print(table_of(reports) if isinstance(task, MazeTask) else arm_table(reports))
    first = reports[0]
    if first["faults"]:
        console.print(f"sensors with faults: {first['faults']}")
    if first["distractor"]:
        console.print(f"cameras disturbed: {first['distractor']}, {first['handling']}")
    if first["goals"]:
        console.print(goals_table(task, first))
    if path is not None:
        write_report(first, path)
        console.print(f"report: {path}")


def watch(
    task: Task, driver: DriverSpec, episodes: int, seed: int, workers: int | None, console: Console
) -> list[Episode]:
    """All episodes, with a progress bar and the time left, or a line now and then where nobody watches. Raises Stopped,
    or KeyboardInterrupt before any has finished."""
    finished: list[Episode] = []
    name = f"{task.name}: {Path(driver.policy).name}"
    started = printed = time.monotonic()
    with Progress(*Progress.get_default_columns()[:-1], TimeRemainingColumn(), console=console, transient=True) as bar:
        progress = bar.add_task(name, total=episodes)
        try:
            for episode in rollout(task, driver, episodes, seed, workers):
                finished.append(episode)
                bar.advance(progress)
                now = time.monotonic()
                if not console.is_terminal and now - printed >= LINE_EVERY_S:
                    printed = now
                    left = (now - started) / len(finished) * (episodes - len(finished)) / 60
                    succeeded = sum(episode.success for episode in finished)
                    console.print(f"{name}: {len(finished)} of {episodes}, {succeeded} succeeded, {left:.1f} min left")
        except KeyboardInterrupt:
            if finished:
                raise Stopped(finished) from None
            raise
    return finished


def _note_what_is_odd(spec: DriverSpec, task: Task, console: Console) -> None:
    """Tells if the policy was trained for another task, or not to the end of its run."""
    if spec.url is None and spec.policy not in BASELINES and not is_clone(spec.policy):
        policy = load_policy(spec.policy)
        if policy.unfinished is not None:
            console.print(f"note: {policy.unfinished}")
        trained_for = policy.card.get("task")
        if trained_for in {other.policy for other in TASKS.values()} - {task.policy}:
            console.print(f"note: {spec.policy} was trained for {trained_for}, {task.name} wants {task.policy}")


@contextmanager
def _at_its_server(spec: DriverSpec, console: Console) -> Iterator[DriverSpec]:
    """The same driver as a client of a server of its own, which plans in a process as `forcing serve` does."""
    policy = spec.changed(load_policy(spec.policy))
    with serving([policy], settings=ServerSettings(processes=True)) as url:
        console.print(f"serving {policy.name} (revision {policy.revision}) at {url}")
        # All that the policy must do of its own is done: what is left is to send it frames as they are.
        trusting = spec.under if not spec.under.settings else replace(spec.under, handling="trusted")
        yield replace(spec, policy=policy.name, url=url, adjust=None, under=trusting)


def _check_streams(spec: DriverSpec, task: Task) -> None:
    """Raises ValueError if the task lacks what the policy observes."""
    if spec.url is not None:
        with Client(spec.url) as client:
            needed = served_streams(client, spec.policy)
    elif spec.policy in BASELINES or is_clone(spec.policy):
        return
    else:
        needed = [stream.name for stream in load_policy(spec.policy).spec.of_role("observation")]
    if not set(needed) <= set(task.streams):
        raise ValueError(f"policy {spec.policy} needs {', '.join(needed)}; {task.name} has {', '.join(task.streams)}")


def _revision(spec: DriverSpec, task: Task) -> str | None:
    """Raises here what a worker process could only die of."""
    if spec.url is not None:
        with Client(spec.url) as client:
            return str(client.policy(spec.policy)["revision"])
    if is_clone(spec.policy):
        return load_clone(spec.policy).revision
    if spec.policy in BASELINES:
        spec.build(task).close()
        return None
    policy = load_policy(spec.policy)
    policy.check_acts()
    return policy.revision


def _draw(task: MazeTask, episodes: list[Episode], folder: Path, console: Console) -> None:
    from forcing.eval.maze_picture import draw_episode  # matplotlib takes a second to import

    folder.mkdir(parents=True, exist_ok=True)
    for episode in episodes:
        draw_episode(task, episode, folder / f"episode-{episode.index:03d}.png")
    console.print(f"pictures: {folder}")
