"""`forcing eval`: episodes with progress, the yardstick beside them, a table, a report, pictures."""

import time
from pathlib import Path

from rich.console import Console
from rich.progress import Progress, TimeRemainingColumn

from forcing.envs.faults import parse_faults
from forcing.eval.adjust import Adjusted
from forcing.eval.console import LINE_EVERY_S
from forcing.eval.report import Report, build_report, goals_table, table_of, write_report
from forcing.eval.rollout import BASELINES, DriverSpec, Episode, rollout
from forcing.eval.tasks import TASKS, Task
from forcing.policy.clone import is_clone, load_clone
from forcing.policy.policy import load_policy
from forcing.server.client import Client


def evaluate_policy(
    task: Task,
    *,
    policy: str | None,
    url: str | None,
    settings: tuple[str, ...] = (),
    data: str | None = None,
    faults: str = "",
    episodes: int,
    seed: int,
    report: Path | None,
    pictures: Path | None,
    workers: int | None,
    command: str,
    console: Console,
) -> list[Report]:
    """The policy's report, then that of driving straight at the goal on the same episodes; printed as a table.

    settings: changes of the policy's planner and tracker, see `Adjusted`; the report lists them as `changed`. data: the
    recording that policy mpc stands on. faults: of the sensors, see `parse_faults`; nothing is driven straight then,
    which needs all readings. Raises ValueError on settings, faults or a recording that do not fit, CheckpointError
    on an unknown policy, ServerUnreachable or ServerProblem from a server.
    """
    name = policy or task.policy
    spec = DriverSpec(policy=name, url=url, adjust=Adjusted(settings) if settings else None, data=data, faults=faults)
    revision = _revision(spec, task)
    _check_sensors(spec, task)
    _warn_of_another_task(spec, task, console)
    parse_faults(task.sensors, faults)  # says here what a worker process could only die of
    finished = watch(task, spec, episodes, seed, workers, console)
    reports = [
        build_report(task, name, revision, seed, finished, command) | {"changed": list(settings), "faults": faults}
    ]
    if name not in BASELINES and not faults:
        straight = list(rollout(task, DriverSpec(policy="straight"), episodes, seed, workers))
        reports.append(build_report(task, "straight", None, seed, straight, command))
    console.print(table_of(reports))
    if faults:
        console.print(f"sensors with faults: {faults}")
    if reports[0]["goals"]:
        console.print(goals_table(reports[0]))
    if report is not None:
        write_report(reports[0], report)
        console.print(f"report: {report}")
    if pictures is not None:
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
                arrived = sum(episode.success for episode in finished)
                console.print(f"{name}: {len(finished)} of {episodes}, {arrived} at the goal, {left:.1f} min left")
    return finished


def _warn_of_another_task(spec: DriverSpec, task: Task, console: Console) -> None:
    if spec.url is None and spec.policy not in BASELINES and not is_clone(spec.policy):
        trained_for = load_policy(spec.policy).card.get("task")
        if trained_for in {other.policy for other in TASKS.values()} - {task.policy}:
            console.print(f"note: {spec.policy} was trained for {trained_for}, {task.name} wants {task.policy}")


def _check_sensors(spec: DriverSpec, task: Task) -> None:
    """Raises ValueError if the task lacks a sensor that a policy in this process needs."""
    if spec.url is None and spec.policy not in BASELINES and not is_clone(spec.policy):
        needed = [stream.name for stream in load_policy(spec.policy).spec.of_role("observation")]
        if not set(needed) <= set(task.sensors):
            raise ValueError(
                f"policy {spec.policy} needs {', '.join(needed)}; {task.name} has {', '.join(task.sensors)}"
            )


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


def _draw(task: Task, episodes: list[Episode], folder: Path, console: Console) -> None:
    from forcing.eval.maze_picture import draw_episode  # matplotlib takes a second to import

    folder.mkdir(parents=True, exist_ok=True)
    for episode in episodes:
        draw_episode(task, episode, folder / f"episode-{episode.index:03d}.png")
    console.print(f"pictures: {folder}")
