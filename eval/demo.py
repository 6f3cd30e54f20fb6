"""`forcing demo`: serve a shipped policy, drive a simulated robot over HTTP, score it, draw it, all in one go."""

import contextlib
from dataclasses import replace
from pathlib import Path

from rich.console import Console

from forcing.eval.animation import animate_denoising
from forcing.eval.drivers import ServerDriver
from forcing.eval.maze_picture import draw_episode, draw_run
from forcing.eval.maze_tasks import MazeTask
from forcing.eval.report import build_report, table_of, write_report
from forcing.eval.rollout import DriverSpec, Episode, first_request, rollout, run_episode
from forcing.policy.policy import Policy, load_policy
from forcing.policy.schedules import Schedule
from forcing.server.serve import serving


def run_demo(task: MazeTask, *, episodes: int, seed: int, out: Path, command: str, console: Console) -> None:
    """Writes report.json, a picture of each episode, a contact sheet and an animation of sampling to `out`."""
    policy = load_policy(task.policy)
    out.mkdir(parents=True, exist_ok=True)
    driven: list[Episode] = []
    with serving([policy]) as url:
        console.print(f"serving [bold]{policy.name}[/bold] (revision {policy.revision}) at {url}")
        with contextlib.closing(ServerDriver(url, policy.name, task)) as driver:
            for index in range(episodes):
                driven.append(run_episode(task, driver, index, seed))
                console.print(_line(driven[-1], episodes))
    straight = list(rollout(task, DriverSpec(policy="straight"), episodes, seed, workers=1))
    reports = [
        build_report(task, policy.name, policy.revision, seed, driven, command),
        build_report(task, "straight", None, seed, straight, command),
    ]
    console.print(table_of(reports))
    console.print("drawing ...")
    write_report(reports[0], out / "report.json")
    pictures = _draw(task, policy, driven, seed, out)
    for what, path in {"report": out / "report.json", **pictures}.items():
        console.print(f"{what}: {path}", soft_wrap=True)


def _line(episode: Episode, episodes: int) -> str:
    reached = "never reached the goal" if episode.steps_to_goal is None else f"goal in {episode.steps_to_goal} steps"
    return f"  episode {episode.index + 1} of {episodes}: {reached}, normalised score {episode.normalized:.1f}"


def _draw(task: MazeTask, policy: Policy, episodes: list[Episode], seed: int, out: Path) -> dict[str, Path]:
    for episode in episodes[:12]:
        draw_episode(task, episode, out / f"episode-{episode.index:03d}.png")
    draw_run(task, episodes[:12], out / "episodes.png")
    # Drawn in slow motion: one token a pass, more steps each, and all of them to the end.
    slow = Schedule(kind="pyramid", sampling_steps=6, uncertainty_scale=1.0)
    patient = policy.using(planner=replace(policy.preset.planner.sampling_alone(), schedule=slow, passes=None))
    animate_denoising(patient, first_request(task, patient, seed), task, out / "denoising.gif")
    return {
        "pictures": out / "episode-000.png",
        "all episodes": out / "episodes.png",
        "animation of the denoising": out / "denoising.gif",
    }
