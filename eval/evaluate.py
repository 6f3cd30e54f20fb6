"""`forcing eval`: episodes with progress, the yardstick beside them, a table, a report, pictures."""

import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from pathlib import Path

from rich.console import Console
from rich.progress import Progress, TimeRemainingColumn

from forcing.envs.faults import parse_faults
from forcing.eval.adjust import Adjusted
from forcing.eval.console import LINE_EVERY_S
from forcing.eval.drivers import served_streams
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


def evaluate_policy(
    task: Task,
    *,
    policy: str | None,
    url: str | None,
    served: bool = False,
    settings: tuple[str, ...] = (),
    data: str | None = None,
    faults: str = "",
    most_steps: int | None = None,
    episodes: int,
    seed: int,
    report: Path | None,
    pictures: Path | None,
    workers: int | None,
    command: str,
    console: Console,
) -> list[Report]:
    """The policy's report, then, in mazes, that of driving straight at the goal on the same episodes; printed.

    url: of a server that has the policy. served: by a server of our own, over HTTP as well. settings: changes of the
    policy's planner and tracker, see `Adjusted`; the report lists them as `changed`. data: the recording that policy
    mpc stands on. faults: of the sensors, see `parse_faults`; nothing is driven straight then, which needs all
    readings. most_steps: at which episodes are cut. Raises ValueError on settings, faults, a recording or a policy that
    do not fit, CheckpointError on an unknown policy, ServerUnreachable or ServerProblem from a server.
    """
    name = policy or task.policy
    spec = DriverSpec(
        policy=name,
        url=url,
        adjust=Adjusted(settings) if settings else None,
        data=data,
        faults=faults,
        most_steps=most_steps,
    )
    spec.check(task)
    if isinstance(task, MazeTask):
        parse_faults(task.sensors, faults)  # says here what a worker process could only die of
    _warn_of_another_task(spec, task, console)
    with _at_its_server(spec, console) if served else nullcontext(spec) as driver:
        revision = _revision(driver, task)
        _check_streams(driver, task)
        finished = watch(task, driver, episodes, seed, workers, console)
    how = {"changed": list(settings), "faults": faults, "served": driver.url is not None, "most_steps": most_steps}
    reports = [build_report(task, name, revision, seed, finished, command) | how]
    if isinstance(task, MazeTask) and name not in BASELINES and not faults:
        straight = list(rollout(task, DriverSpec(policy="straight", most_steps=most_steps), episodes, seed, workers))
        reports.append(build_report(task, "straight", None, seed, straight, command))
    console.print(table_of(reports) if isinstance(task, MazeTask) else arm_table(reports))
    if faults:
        console.print(f"sensors with faults: {faults}")
    if reports[0]["goals"]:
        console.print(goals_table(reports[0]))
    if report is not None:
        write_report(reports[0], report)
        console.print(f"report: {report}")
    if pictures is not None and isinstance(task, MazeTask):
        _draw(task, finished[:12], pictures, console)
    return reports


def watch(
    task: Task, driver: DriverSpec, episodes: int, seed: int, workers: int | None, console: Console
) -> list[Episode]:
    """All episodes, with a progress bar and the time left, or a line now and then where nobody watches."""
    finished: list[Episode] = []
    name = f"{task.name}: {Path(driver.policy).name}"
    started = printed = time.monotonic()
    with Progress(*Progress.get_default_columns()[:-1], TimeRemainingColumn(), console=console, transient=True) as bar:
        progress = bar.add_task(name, total=episodes)
        for episode in rollout(task, driver, episodes, seed, workers):
            finished.append(episode)
            bar.advance(progress)
            now = time.monotonic()
            if not console.is_terminal and now - printed >= LINE_EVERY_S:
                printed = now
                left = (now - started) / len(finished) * (episodes - len(finished)) / 60
                succeeded = sum(episode.success for episode in finished)
                console.print(f"{name}: {len(finished)} of {episodes}, {succeeded} succeeded, {left:.1f} min left")
    return finished


def _warn_of_another_task(spec: DriverSpec, task: Task, console: Console) -> None:
    if spec.url is None and spec.policy not in BASELINES and not is_clone(spec.policy):
        trained_for = load_policy(spec.policy).card.get("task")
        if trained_for in {other.policy for other in TASKS.values()} - {task.policy}:
            console.print(f"note: {spec.policy} was trained for {trained_for}, {task.name} wants {task.policy}")


@contextmanager
def _at_its_server(spec: DriverSpec, console: Console) -> Iterator[DriverSpec]:
    """The same driver as a client of a server of its own, which plans in a process as `forcing serve` does."""
    policy = load_policy(spec.policy)
    if spec.adjust is not None:
        policy = spec.adjust(policy)
    with serving([policy], settings=ServerSettings(processes=True)) as url:
        console.print(f"serving {policy.name} (revision {policy.revision}) at {url}")
        yield replace(spec, policy=policy.name, url=url, adjust=None)


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
    return load_policy(spec.policy).revision


def _draw(task: MazeTask, episodes: list[Episode], folder: Path, console: Console) -> None:
    from forcing.eval.maze_picture import draw_episode  # matplotlib takes a second to import

    folder.mkdir(parents=True, exist_ok=True)
    for episode in episodes:
        draw_episode(task, episode, folder / f"episode-{episode.index:03d}.png")
    console.print(f"pictures: {folder}")
