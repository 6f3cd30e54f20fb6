"""Recordings that the tests make themselves: a point mass, v' = v + a/20, x' = x + v'/100, and an arm with a
camera; and processes that are killed while they work."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
import pytest

from forcing.policy.types import EpisodeNote, StreamSpec, Trajectories, TrajectorySpec

SPEC = TrajectorySpec(
    streams=(
        StreamSpec(name="position", role="observation", shape=(2,), units="m"),
        StreamSpec(name="velocity", role="observation", shape=(2,), units="m/s", rate_of="position"),
        StreamSpec(name="action", role="action", shape=(2,), low=(-1, -1), high=(1, 1)),
        StreamSpec(name="reward", role="reward", shape=()),
    ),
    control_hz=100,
    goal="position",
)

Recorder = Callable[..., Trajectories]


@pytest.fixture(scope="session")
def point_mass() -> Recorder:
    """(lengths, seed=0) -> a clean recording of episodes of these lengths, each from a start of its own."""

    def record(lengths: Sequence[int], seed: int = 0) -> Trajectories:
        rng = np.random.default_rng(seed)
        parts: dict[str, list[np.ndarray]] = {stream.name: [] for stream in SPEC.streams}
        for length in lengths:
            action = rng.uniform(-1, 1, (length, 2))
            velocity = np.cumsum(np.concatenate([rng.uniform(-1, 1, (1, 2)), action / 20]), axis=0)
            moved = np.concatenate([rng.uniform(-4, 4, (1, 2)), velocity[1:] / 100])
            parts["position"].append(np.cumsum(moved, axis=0))
            parts["velocity"].append(velocity)
            parts["action"].append(action)
            parts["reward"].append(rng.uniform(0, 1, length))
        streams = {name: np.concatenate(rows).astype(np.float32) for name, rows in parts.items()}
        return Trajectories(spec=SPEC, streams=streams, lengths=np.array(lengths), provenance={"source": "test"})

    return record


class Victims:
    """Processes that run a function over and over, each until it is killed.

    They are forked from one that has imported what they need, so that each begins within a millisecond.
    """

    LOOP = """
import os, sys
for line in sys.stdin:
    report, *arguments = line.split()
    child = os.fork()
    if child == 0:
        os.dup2(os.open(report, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), 1)
        work(*arguments)
        os._exit(0)
    print(child, flush=True)
    print(os.waitpid(child, 0)[1], flush=True)
"""

    def __init__(self, source: str, report: Path) -> None:
        """source: of a module that defines `work`, a function of words. report: where what it prints goes."""
        command = [sys.executable, "-c", source + self.LOOP]
        self._parent = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self._report = report

    def killed(self, after_s: float, *words: str | Path) -> list[str]:
        """The lines that `work(*words)` printed, and flushed, before it was killed so many seconds after it began."""
        assert self._parent.stdin is not None
        assert self._parent.stdout is not None
        self._report.unlink(missing_ok=True)
        print(self._report, *words, file=self._parent.stdin, flush=True)
        child = int(self._parent.stdout.readline())
        time.sleep(after_s)
        os.kill(child, signal.SIGKILL)
        assert int(self._parent.stdout.readline()) == signal.SIGKILL, "it ended by itself"
        lines = self._report.read_text() if self._report.exists() else ""
        return lines[: lines.rfind("\n") + 1].splitlines()

    def close(self) -> None:
        self._parent.communicate()


@pytest.fixture
def victims(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[str], Victims]]:
    """(source) -> victims of its function `work`."""
    parents: list[Victims] = []

    def start(source: str) -> Victims:
        parents.append(Victims(source, tmp_path_factory.mktemp("victims") / "report"))
        return parents[-1]

    yield start
    for parent in parents:
        parent.close()


ARM_HZ = 20
ARM = TrajectorySpec(
    streams=(
        StreamSpec(name="joints", role="observation", shape=(6,), units="rad"),
        StreamSpec(name="gripper", role="observation", shape=(1,)),
        StreamSpec(name="timestamp", role="observation", shape=(), units="s"),
        StreamSpec(name="front", role="observation", shape=(24, 32, 3)),
        StreamSpec(name="action", role="action", shape=(7,)),
    ),
    control_hz=ARM_HZ,
)


@pytest.fixture(scope="session")
def arm() -> Recorder:
    """(lengths, seed=0, resting=0) -> a clean recording of an arm at 20 Hz: joints swing with encoder noise, a gripper
    is open or closed for long, a clock, a camera with pixel noise that sees a bright square move with the first joint.

    resting: the last steps of each episode, in which the arm stands still to the last bit.
    """

    def record(lengths: Sequence[int], seed: int = 0, resting: int = 0) -> Trajectories:
        rng = np.random.default_rng(seed)
        parts: dict[str, list[np.ndarray]] = {stream.name: [] for stream in ARM.streams}
        for length in lengths:
            seconds = np.arange(length + 1) / ARM_HZ
            swing = np.sin(seconds[:, None] * rng.uniform(0.5, 2, 6) + rng.uniform(0, 6, 6))
            joints = swing * rng.uniform(0.5, 1.5, 6) + rng.normal(0, 1e-4, (length + 1, 6))
            gripper = (np.sin(seconds + rng.uniform(0, 6)) > 0).astype(float)[:, None]
            if resting:
                joints[-resting - 1 :], gripper[-resting - 1 :] = joints[-resting - 1], gripper[-resting - 1]
            film = rng.integers(40, 60, (length + 1, 24, 32, 3))
            for frame, place in zip(film, (12 + 5 * joints[:, 0]).astype(int), strict=True):
                frame[8:16, place : place + 8] += 150
            parts["joints"].append(joints)
            parts["gripper"].append(gripper)
            parts["timestamp"].append(seconds)
            parts["front"].append(film.astype(np.uint8))
            parts["action"].append(np.concatenate([joints[1:], gripper[1:]], axis=1))
        rows = {name: np.concatenate(each) for name, each in parts.items()}
        frames = {"front": rows.pop("front")}
        return Trajectories(
            spec=ARM,
            streams={name: values.astype(np.float32) for name, values in rows.items()},
            lengths=np.array(lengths),
            provenance={"source": "test"},
            frames=frames,
            notes=tuple(EpisodeNote(task="swing", subsets=("train",)) for _ in lengths),
        )

    return record
