"""`forcing record`: a task's simulated robot driven by a served policy, and recorded step by step."""

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
from gymnasium import spaces
from rich.console import Console

from forcing.datasets.recorder import Recorder
from forcing.datasets.space_streams import Streams
from forcing.eval.arm_tasks import ArmTask
from forcing.eval.drivers import ServerDriver
from forcing.eval.maze_tasks import MazeTask
from forcing.eval.rollout import Episode, drive_episode
from forcing.eval.task import Env, Task
from forcing.policy.policy import load_policy
from forcing.policy.types import StreamSpec, TrajectorySpec
from forcing.server.serve import serving

UNITS = {"position": "m", "velocity": "m/s"}


def record(
    task: Task,
    *,
    policy: str | None,
    url: str | None,
    out: Path,
    episodes: int,
    seed: int,
    console: Console,
    stop: Callable[[], bool] = lambda: False,
) -> None:
    """Adds so many episodes to the recording in `out`, as the streams that policies of the task know.

    The episode of number i, those that were there before counted, has seed + i, so that a recording that is gone on
    with has none twice. policy: that of the task if None. url: of a server that has it; one of our own if None. stop:
    asked before each step, and KeyboardInterrupt raised if so. Raises OSError or ValueError if `out` cannot be recorded
    to, CheckpointError on an unknown policy, ServerUnreachable or ServerProblem from a server; whatever it is, what was
    recorded stays.
    """
    env = _Stoppable(task.make(), stop)
    with contextlib.closing(env), _driver(task, policy or task.policy, url) as driver:
        recorder = Recorder(env, out, name=task.name, streams=task_streams(task, env))
        with contextlib.closing(recorder):
            try:
                for done in range(episodes):
                    number = recorder.next_episode
                    episode = drive_episode(recorder, task, driver, number, seed)
                    line = (
                        f"  episode {number} ({done + 1} of {episodes}): {len(episode.actions)} steps, {_said(episode)}"
                    )
                    console.print(line, soft_wrap=True)
            finally:
                if recorder.next_episode > 0:
                    _say_where(out, console)


class _Stoppable(gymnasium.Wrapper[Any, Any, Any, Any]):
    """An environment in which no step is begun once a stop was asked for."""

    def __init__(self, env: Env, stop: Callable[[], bool]) -> None:
        super().__init__(env)
        self._stop = stop

    def step(self, action: Any) -> tuple[Any, Any, bool, bool, dict[str, Any]]:
        if self._stop():
            raise KeyboardInterrupt
        return super().step(action)


def task_streams(task: Task, env: Env) -> Streams:
    """What policies of the task may observe, the action and the reward; in mazes goals are positions."""
    observed, action = env.observation_space, env.action_space
    assert isinstance(observed, spaces.Dict)
    assert isinstance(action, spaces.Box)
    maze, units = isinstance(task, MazeTask), task.units if isinstance(task, ArmTask) else UNITS
    read = task.observe(observed.sample())
    streams = [
        StreamSpec(
            name=name,
            role="observation",
            shape=values.shape,
            units=units.get(name, ""),
            rate_of="position" if maze and name == "velocity" else None,
        )
        for name, values in read.items()
    ]
    low, high = (tuple(float(bound) for bound in side) for side in (action.low, action.high))
    assert np.isfinite([*low, *high]).all()
    streams.append(StreamSpec(name="action", role="action", shape=action.shape, low=low, high=high))
    streams.append(StreamSpec(name="reward", role="reward", shape=()))
    spec = TrajectorySpec(streams=tuple(streams), control_hz=task.control_hz, goal="position" if maze else None)
    return Streams(spec, task.observe)


@contextlib.contextmanager
def _driver(task: Task, policy: str, url: str | None) -> Iterator[ServerDriver]:
    """A client of the server at `url`, or of one that serves as long as the block lasts."""
    with contextlib.ExitStack() as stack:
        name = policy
        if url is None:
            loaded = load_policy(policy)
            name, url = loaded.name, stack.enter_context(serving([loaded]))
        yield stack.enter_context(contextlib.closing(ServerDriver(url, name, task)))


def _said(episode: Episode) -> str:
    if episode.goal is None:
        return "success" if episode.success else "no success"
    return "no goal" if episode.steps_to_goal is None else f"goal in {episode.steps_to_goal} steps"


def _say_where(out: Path, console: Console) -> None:
    console.print(f"recording: {out}", soft_wrap=True)
    console.print(f"look at it: forcing data info {out}", soft_wrap=True)
    console.print(f"train from it: forcing train --data {out} --out runs/recorded", soft_wrap=True)
