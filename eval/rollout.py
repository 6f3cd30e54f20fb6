"""Episodes of a task under a driver, in worker processes side by side, recorded step by step.

An episode depends on its seed alone: neither on how many workers there are nor on what ran before it.
"""

import os
import signal
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing import active_children, get_context
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from forcing.envs.faults import truth_of, with_faults
from forcing.eval.drivers import CloneDriver, Driver, ExpertDriver, PolicyDriver, ServerDriver, StraightDriver, Trace
from forcing.eval.fronts import Front
from forcing.eval.mpc_driver import MpcDriver
from forcing.eval.tasks import Env, Task, find_task
from forcing.policy.clone import is_clone, load_clone
from forcing.policy.controller import Controller
from forcing.policy.planner import PlanRequest
from forcing.policy.policy import Policy, load_policy

BASELINES = ("straight", "expert", "mpc")


@dataclass(frozen=True, slots=True, kw_only=True)
class DriverSpec:
    """What drives: a policy by name or folder in this process, the same at `url`, or a baseline.

    policy: name or folder, or one of `BASELINES`. adjust: changes the loaded policy before it drives, for ablations;
    must be picklable. data: the recording that the baseline `mpc` stands on, and no other needs. faults: of the sensors
    between the simulator and the driver, see `parse_faults`. front: between them and a policy in this process.
    """

    policy: str
    url: str | None = None
    adjust: Callable[[Policy], Policy] | None = None
    data: str | None = None
    faults: str = ""
    front: Front | None = None

    def __post_init__(self) -> None:
        if self.faults and (self.policy in BASELINES or (self.url is None and is_clone(self.policy))):
            raise ValueError(f"faults lose readings, and {self.policy} needs them all; name a planner's policy")
        if self.policy == "mpc" and self.data is None:
            raise ValueError("policy mpc finds its dynamics and places in a recording; name one with --data")
        if self.data is not None and (self.policy != "mpc" or self.url is not None):
            raise ValueError("data is what policy mpc stands on, in this process; leave out --data with any other")

    def build(self, task: Task) -> Driver:
        """Raises ValueError if the policy is unknown."""
        if self.url is not None:
            return ServerDriver(self.url, self.policy, task)
        if self.policy == "straight":
            return StraightDriver(task)
        if self.policy == "expert":
            return ExpertDriver(task)
        if self.data is not None:
            return MpcDriver(self.data, task)
        if is_clone(self.policy):
            return CloneDriver(load_clone(self.policy), task)
        policy = load_policy(self.policy)
        return PolicyDriver(self.adjust(policy) if self.adjust else policy, task, self.front)


@dataclass(frozen=True, slots=True, kw_only=True)
class Episode:
    """One finished episode.

    positions: [T + 1, 2] in m. actions: [T, 2]. success: the goal was reached at some step; steps_to_goal: the first
    such step, None if never. goal_number: which of the task's numbered goals it was, None if it has none.
    """

    index: int
    seed: int
    episode_return: float
    normalized: float
    success: bool
    steps_to_goal: int | None
    goal: NDArray[np.float64]
    positions: NDArray[np.float64]
    actions: NDArray[np.float32]
    trace: Trace
    goal_number: int | None = None


def run_episode(task: Task, driver: Driver, index: int, seed: int, faults: str = "") -> Episode:
    """Episode `index` of a run, from environment and session seed `seed + index`; ended with the driver as well.

    faults: of the sensors, see `parse_faults`; the episode's positions are the true ones.
    """
    env = with_faults(task.make(), task.sensors, faults)
    try:
        return drive_episode(env, task, driver, index, seed)
    finally:
        env.close()


def drive_episode(env: Env, task: Task, driver: Driver, index: int, seed: int) -> Episode:
    """`run_episode` in an environment of the task that may have had other episodes; the caller closes it."""
    try:
        observation = task.reset(env, index, seed + index)
        trace, goal = driver.begin(observation, seed + index), task.goal(observation)
        positions, actions, rewards = [task.observe(truth_of(env, observation))["position"]], [], []
        done = False
        while not done:
            action = driver.act(observation)
            observation, reward, terminated, truncated, _ = env.step(action)
            positions.append(task.observe(truth_of(env, observation))["position"])
            actions.append(action)
            rewards.append(float(reward))
            done = terminated or truncated
    finally:
        driver.end()
    reached = np.flatnonzero(np.array(rewards) > 0)
    return Episode(
        index=index,
        seed=seed + index,
        episode_return=float(sum(rewards)),
        normalized=task.normalized(sum(rewards)),
        success=len(reached) > 0,
        steps_to_goal=int(reached[0]) + 1 if len(reached) else None,
        goal=goal,
        positions=np.array(positions),
        actions=np.array(actions, dtype=np.float32),
        trace=trace,
        goal_number=task.goal_number(index),
    )


def first_request(task: Task, policy: Policy, seed: int) -> PlanRequest:
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
    others = set(active_children())
    pool = ProcessPoolExecutor(min(workers, episodes), get_context("spawn"), _initialise, (task.name, driver))
    with _deaf_children():
        finished = pool.map(_run_one, range(episodes), [seed] * episodes)
    try:
        yield from finished
    except BaseException:
        for process in set(active_children()) - others:
            process.terminate()
        raise
    finally:
        pool.shutdown(cancel_futures=True)


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
    task = find_task(task_name)
    _worker.update(task=task, driver=driver.build(task), faults=driver.faults)


def _run_one(index: int, seed: int) -> Episode:
    return run_episode(_worker["task"], _worker["driver"], index, seed, _worker["faults"])


def _run_range(task_name: str, spec: DriverSpec, indices: range, seed: int) -> Iterator[Episode]:
    task = find_task(task_name)
    driver = spec.build(task)
    try:
        for index in indices:
            yield run_episode(task, driver, index, seed, spec.faults)
    finally:
        driver.close()
