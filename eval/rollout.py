"""Episodes of a task under a driver, in worker processes side by side, recorded step by step.

An episode depends on its seed alone: neither on how many workers there are nor on what ran before it.
"""

import os
import signal
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from forcing.envs.faults import truth_of, with_faults
from forcing.envs.shards import process_pool
from forcing.eval.adjust import Adjusted
from forcing.eval.arm_tasks import ArmTask
from forcing.eval.conditions import Conditions
from forcing.eval.drivers import CloneDriver, Driver, ExpertDriver, PolicyDriver, ServerDriver, StraightDriver, Trace
from forcing.eval.film import Shot, shot
from forcing.eval.fronts import Front
from forcing.eval.maze_tasks import MazeTask
from forcing.eval.mpc_driver import MpcDriver
from forcing.eval.task import Env, Info, Observation, Task
from forcing.eval.tasks import find_task
from forcing.policy.clone import is_clone, load_clone
from forcing.policy.controller import Controller
from forcing.policy.planner import PlanRequest
from forcing.policy.policy import Policy, load_policy

BASELINES = ("straight", "expert", "mpc")
OF_MAZES = ("straight", "mpc")


@dataclass(frozen=True, slots=True, kw_only=True)
class DriverSpec:
    """What drives: a policy by name or folder in this process, the same at `url`, or a baseline.

    policy: name or folder, or one of `BASELINES`. adjust: changes the loaded policy before it drives, for ablations;
    must be picklable. data: the recording that the baseline `mpc` stands on, and no other needs. front: between sensors
    and a policy in this process. under: of the episodes; what they ask of a policy is done to one in this process.
    """

    policy: str
    url: str | None = None
    adjust: Callable[[Policy], Policy] | None = None
    data: str | None = None
    front: Front | None = None
    under: Conditions = field(default_factory=Conditions)

    def __post_init__(self) -> None:
        if self.under.faults and (self.policy in BASELINES or (self.url is None and is_clone(self.policy))):
            raise ValueError(f"faults lose readings, and {self.policy} needs them all; name a planner's policy")
        if self.policy == "mpc" and self.data is None:
            raise ValueError("policy mpc finds its dynamics and places in a recording; name one with --data")
        if self.data is not None and (self.policy != "mpc" or self.url is not None):
            raise ValueError("data is what policy mpc stands on, in this process; leave out --data with any other")
        if self.under.settings and (self.url is not None or self.policy in BASELINES or is_clone(self.policy)):
            raise ValueError(
                f"handling {self.under.handling} changes a policy in this process; leave out --url, and yardsticks, or "
                f"serve with --set {' --set '.join(self.under.settings)} and leave out --handling"
            )

    def check(self, task: Task) -> None:
        """Raises ValueError if the task lacks what this needs."""
        self.under.check(task)
        if isinstance(task, MazeTask):
            return
        if self.url is None and (self.policy in OF_MAZES or is_clone(self.policy)):
            raise ValueError(
                f"policy {self.policy} is a yardstick of mazes, which {task.name} is not; expert is of all"
            )

    def changed(self, policy: Policy) -> Policy:
        """As it drives. Raises as `Adjusted` if that cannot be."""
        policy = Adjusted(self.under.settings)(policy)
        return self.adjust(policy) if self.adjust else policy

    def build(self, task: Task) -> Driver:
        """Raises ValueError if the policy is unknown, or does not fit the task."""
        self.check(task)
        if self.url is not None:
            return ServerDriver(self.url, self.policy, task)
        if self.policy == "expert":
            return ExpertDriver(task)
        if isinstance(task, MazeTask):
            if self.policy == "straight":
                return StraightDriver(task)
            if self.data is not None:
                return MpcDriver(self.data, task)
            if is_clone(self.policy):
                return CloneDriver(load_clone(self.policy), task)
        return PolicyDriver(self.changed(load_policy(self.policy)), task, self.front)


@dataclass(frozen=True, slots=True, kw_only=True)
class Episode:
    """One finished episode.

    positions: [T + 1, d] of the robot, in m. actions: [T, A]. success: as the task counts it. steps_to_goal: the first
    step at which it was at hand, None if never. goal: [d] that was told, None if none was. goal_number: which of the
    task's numbered goals it was, None if it has none. layout: how the environment says that it laid things out.
    distracted: the cameras that were disturbed, of each of T + 1 observations. shots: the film of it, if one was made.
    """

    index: int
    seed: int
    episode_return: float
    normalized: float
    success: bool
    steps_to_goal: int | None
    goal: NDArray[np.float64] | None
    positions: NDArray[np.float64]
    actions: NDArray[np.float32]
    trace: Trace
    goal_number: int | None = None
    layout: Sequence[int] | None = None
    distracted: Sequence[tuple[str, ...]] = ()
    shots: Sequence[Shot] = ()


def run_episode(task: Task, driver: Driver, index: int, seed: int, under: Conditions | None = None) -> Episode:
    """Episode `index` of a run, from environment and session seed `seed + index`; ended with the driver as well.

    The episode's positions are the true ones, whatever is wrong with sensors.
    """
    under = under or Conditions()
    env = task.make("rgb_array" if index < under.filmed else None)
    if isinstance(task, MazeTask):
        env = with_faults(env, task.sensors, under.faults)
    try:
        return drive_episode(env, task, driver, index, seed, under)
    finally:
        env.close()


def drive_episode(
    env: Env, task: Task, driver: Driver, index: int, seed: int, under: Conditions | None = None
) -> Episode:
    """`run_episode` in an environment of the task that may have had other episodes; the caller closes it."""
    under = under or Conditions()
    seen = _Seen(env, task, filmed=index < under.filmed)
    try:
        observation, info = task.begin(env, index, seed + index, under.options(task, seed + index))
        trace, goal, layout = driver.begin(observation, seed + index), task.goal(observation), info.get("layout")
        seen.add(observation, info)
        actions, rewards, successes = [], [], []
        done = False
        while not done:
            action = driver.act(under.told(observation, info))
            observation, reward, terminated, truncated, info = env.step(action)
            seen.add(observation, info)
            actions.append(action)
            rewards.append(float(reward))
            successes.append(bool(info.get("success", False)))
            done = terminated or truncated or len(actions) == under.most_steps
    finally:
        driver.end()
    outcome = task.outcome(np.array(rewards), np.array(successes))
    return Episode(
        index=index,
        seed=seed + index,
        episode_return=float(sum(rewards)),
        normalized=outcome.normalized,
        success=outcome.success,
        steps_to_goal=outcome.first,
        goal=goal,
        positions=np.array(seen.positions),
        actions=np.array(actions, dtype=np.float32),
        trace=trace,
        goal_number=task.goal_number(index),
        layout=None if layout is None else tuple(layout),
        distracted=tuple(seen.distracted),
        shots=tuple(seen.shots),
    )


@dataclass(slots=True)
class _Seen:
    """What is kept of an episode's observations."""

    env: Env
    task: Task
    filmed: bool
    positions: list[NDArray[np.float64]] = field(default_factory=list)
    shots: list[Shot] = field(default_factory=list)
    distracted: list[tuple[str, ...]] = field(default_factory=list)

    def add(self, observation: Observation, info: Info) -> None:
        self.positions.append(self.task.position(truth_of(self.env, observation)))
        self.distracted.append(tuple(info.get("distracted", ())))
        if self.filmed:
            assert isinstance(self.task, ArmTask)
            self.shots.append(shot(self.task, self.env, observation, info))


def first_request(task: MazeTask, policy: Policy, seed: int) -> PlanRequest:
    """What the policy is asked to plan at the first step of the task's episode `seed`."""
    env = task.make()
    try:
        observation = task.reset(env, 0, seed)
    finally:
        env.close()
    controller = Controller(policy, goal=task.goal(observation), seed=seed)
    controller.observe(task.observe(observation))
    request = controller.request()
    assert request is not None, "the first step of an episode always asks for a plan"
    return request


def rollout(task: Task, driver: DriverSpec, episodes: int, seed: int, workers: int | None = None) -> Iterator[Episode]:
    """Finished episodes, in order. workers: processes, None for one a core; none is left when the iterator ends, by an
    error or Ctrl-C in the midst of it either.

    Raises ValueError if episodes or workers is below 1.
    """
    workers = (os.cpu_count() or 1) if workers is None else workers
    for name, value in (("episodes", episodes), ("workers", workers)):
        if value < 1:
            raise ValueError(f"{name} must be at least 1, got {value}")
    if workers == 1:
        yield from _run_range(task.name, driver, range(episodes), seed)
        return
    with process_pool(min(workers, episodes), _initialise, (task.name, driver)) as pool:
        with _deaf_children():
            finished = pool.map(_run_one, range(episodes), [seed] * episodes)
        yield from finished


@contextmanager
def _deaf_children() -> Iterator[None]:
    """Processes started in here never see Ctrl-C: their parent does, and says so once."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


_worker: dict[str, Any] = {}


def _initialise(task_name: str, driver: DriverSpec) -> None:
    torch.set_num_threads(1)
    os.environ.setdefault("LP_NUM_THREADS", "0")  # Mesa's renderer draws the same in this thread
    task = find_task(task_name)
    _worker.update(task=task, driver=driver.build(task), under=driver.under)


def _run_one(index: int, seed: int) -> Episode:
    return run_episode(_worker["task"], _worker["driver"], index, seed, _worker["under"])


def _run_range(task_name: str, spec: DriverSpec, indices: range, seed: int) -> Iterator[Episode]:
    task = find_task(task_name)
    driver = spec.build(task)
    try:
        for index in indices:
            yield run_episode(task, driver, index, seed, spec.under)
    finally:
        driver.close()
