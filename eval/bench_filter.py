"""`forcing bench filter`: how well the state of a fast robot is known from doubtful readings, control aside.

A policy drives with perfect sensors; then its readings are spoiled, and whoever estimates is given them step by step.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from forcing.envs.faults import parse_faults
from forcing.eval.bench_records import Records
from forcing.eval.console import rows_table
from forcing.eval.drivers import PolicyDriver
from forcing.eval.fronts import ConstantVelocity
from forcing.eval.maze_tasks import MazeTask
from forcing.eval.report import Report
from forcing.eval.trial import Trial
from forcing.policy.belief import Belief, Believer
from forcing.policy.policy import Policy, load_policy
from forcing.policy.roles import guess
from forcing.policy.types import Array, Reading

Floats = NDArray[np.float64]
Readings = dict[str, Array]
WAYS = ("raw", "kalman", "network", "belief", "declared")
SHOWN = ("raw", "Kalman filter", "network", "belief", "declared")
HEADER = ("fault", "steps", *(f"{way}, m" for way in SHOWN), *(f"{way}, m/s" for way in SHOWN))
NAMES = ("position", "velocity")
SIGMAS_M = (0.1, 0.2, 0.5)
BURSTS = (20, 50)
MOVING_MPS = 0.5  # slower robots are easily found
# What Kalman's filter is tuned over, on the very drives that it is scored on: it cannot do better.
ACCELERATIONS = (1.0, 3.0, 10.0, 20.0, 30.0, 50.0, 100.0)
EXACT = 0.003  # standard error that it is told of readings without any


@dataclass(frozen=True, slots=True)
class Drive:
    """states: [T + 1, 4] position and velocity. actions: [T, 2]."""

    states: Floats
    actions: Floats


Estimate = Callable[[Drive, Sequence[Readings], int], Floats]
"""(drive, readings, its number) -> [T + 1, 4], NaN where nothing is known."""


def run_bench(trial: Trial, *, policy: str | None, report: Path | None) -> None:
    """Root mean squared errors of every estimate under noise, and at the last step of bursts without any reading.

    Raises UnknownPolicy, ValueError if the policy has no belief.
    """
    name = policy or trial.task.policy
    loaded = load_policy(name)
    if loaded.believer is None:
        raise ValueError(f"policy {name!r} carries no dynamics, so it believes what it reads")
    wanted = trial.wanted(loaded)
    records = Records(report, wanted, trial.console.print, needs="rmse")
    driver = PolicyDriver(loaded, trial.task)
    drives = [_drive(trial.task, driver, index, trial.seed + index) for index in range(trial.episodes)]
    ratio = float(np.mean(loaded.normaliser.std["velocity"]) / np.mean(loaded.normaliser.std["position"]))
    for sigma in SIGMAS_M:
        sigmas = (sigma, ratio * sigma)
        fault = f"noise={sigma:g}@position+noise={sigmas[1]:.3g}@velocity"
        estimates = {"network": _network(loaded, sigmas), "belief": _belief(loaded.believer)}
        estimates["declared"] = _belief(loaded.believer, sigmas)
        _measure(trial, records, wanted, drives, fault, sigmas, estimates, loaded)
    for steps in BURSTS:
        estimates = {"belief": _belief(loaded.believer)}
        _measure(trial, records, wanted, drives, f"dropout=0.5/{steps}", (EXACT, EXACT), estimates, loaded)
    title = f"{trial.task.name}, {name}: {trial.episodes} drives from {trial.seed}, RMSE"
    trial.console.print(rows_table(title, HEADER, [filter_row(entry) for entry in records.entries]))


def filter_row(entry: Report) -> list[str]:
    """A row's cells, under `HEADER`."""
    shown = [
        "" if (values := entry["rmse"].get(way)) is None else f"{values[name]:.3f}" for name in NAMES for way in WAYS
    ]
    return [entry["row"], str(entry["steps"]), *shown]


def _drive(task: MazeTask, driver: PolicyDriver, index: int, seed: int) -> Drive:
    env = task.make()
    try:
        observation = task.reset(env, index, seed)
        driver.begin(observation, seed)
        states, actions, done = [_state(task.observe(observation))], list[Floats](), False
        while not done:
            action = driver.act(observation)
            observation, _, terminated, truncated, _ = env.step(action)
            states.append(_state(task.observe(observation)))
            actions.append(np.asarray(action, dtype=np.float64))
            done = terminated or truncated
    finally:
        driver.end()
        env.close()
    return Drive(np.array(states), np.array(actions))


def _state(read: Readings) -> Floats:
    missing = np.full(2, np.nan)
    return np.concatenate([np.asarray(read.get(name, missing), dtype=np.float64) for name in NAMES])


def _spoiled(task: MazeTask, drive: Drive, fault: str, number: int) -> list[Readings]:
    """What is read of a drive."""
    readings: list[Readings] = [dict(zip(NAMES, (state[:2], state[2:]), strict=True)) for state in drive.states]
    for index, (kind, only) in enumerate(parse_faults(task.sensors, fault)):
        names = only or list(NAMES)
        kind.begin(np.random.default_rng([number, index]), dict.fromkeys(names, 2))
        readings = [{**read, **kind.spoil({name: read[name] for name in names})} for read in readings]
    return readings


def _measure(
    trial: Trial,
    records: Records,
    wanted: Report,
    drives: Sequence[Drive],
    fault: str,
    sigmas: tuple[float, float],
    estimates: dict[str, Estimate],
    policy: Policy,
) -> None:
    """Adds an entry to the records, unless it is there."""
    if records.find(fault) is not None:
        return
    read = [_spoiled(trial.task, drive, fault, number) for number, drive in enumerate(drives)]
    dt_s, back = 1 / policy.spec.control_hz, int(_looked_back(policy)[0])
    scored = [_scored(drive, readings, back) for drive, readings in zip(drives, read, strict=True)]
    kalmans = {
        acceleration: _errors(_kalman(*sigmas, acceleration, dt_s), drives, read, scored)
        for acceleration in ACCELERATIONS
    }
    best = min(kalmans, key=lambda acceleration: (_rmse(kalmans[acceleration]) or {"position": 0.0})["position"])
    errors = {"raw": _errors(_raw, drives, read, scored), "kalman": kalmans[best]}
    errors |= {way: _errors(estimate, drives, read, scored) for way, estimate in estimates.items()}
    records.add(
        wanted
        | {
            "row": fault,
            "settings": [],
            "steps": int(sum(mask.sum() for mask in scored)),
            "kalman_acceleration": best,
            "rmse": {way: _rmse(found) for way, found in errors.items()},
            "detail": {way: [_rmse([one]) for one in found] for way, found in errors.items()},
            "command": trial.command,
        }
    )


def _looked_back(policy: Policy) -> NDArray[np.int64]:
    """[frames] control steps before the present of each frame of the network's history, oldest first."""
    layout = policy.preset.layout
    return layout.stride * np.arange(layout.history * layout.frames)[::-1]


def _scored(drive: Drive, readings: Sequence[Readings], back: int) -> NDArray[np.bool_]:
    """[T + 1] steps that count: of a moving robot; where readings are lost, the last ones of each gap. back: steps that
    the network looks back on; those before count for nobody."""
    moving = np.linalg.norm(drive.states[:, 2:], axis=1) > MOVING_MPS
    lost = np.array([np.isnan(read["position"]).any() for read in readings])
    if lost.any():
        return np.asarray(moving & lost & ~np.append(lost[1:], True))
    moving[:back] = False
    return np.asarray(moving)


def _errors(
    estimate: Estimate,
    drives: Sequence[Drive],
    read: Sequence[Sequence[Readings]],
    scored: Sequence[NDArray[np.bool_]],
) -> list[Floats]:
    """[steps, 4] of each drive."""
    return [
        (estimate(drive, readings, number) - drive.states)[mask]
        for number, (drive, readings, mask) in enumerate(zip(drives, read, scored, strict=True))
    ]


def _rmse(errors: Sequence[Floats]) -> dict[str, float] | None:
    """Of every stream; None if there is no step that counts."""
    every = np.concatenate(errors)
    if not len(every):
        return None
    return {
        name: float(np.sqrt(np.mean(np.square(every[:, where]).sum(axis=1))))
        for name, where in zip(NAMES, (slice(0, 2), slice(2, 4)), strict=True)
    }


def _raw(drive: Drive, readings: Sequence[Readings], number: int) -> Floats:
    """The last reading."""
    found, last = [], dict.fromkeys(NAMES, np.full(2, np.nan))
    for read in readings:
        last = {name: last[name] if np.isnan(read[name]).any() else read[name] for name in NAMES}
        found.append(_state(last))
    return np.array(found)


def _kalman(position: float, velocity: float, acceleration: float, dt_s: float) -> Estimate:
    def estimate(drive: Drive, readings: Sequence[Readings], number: int) -> Floats:
        front = ConstantVelocity(position, velocity, acceleration, dt_s)
        front.begin()
        return np.array([_state(front.told(read)["observation"]) for read in readings])

    return estimate


def _belief(believer: Believer, sigmas: tuple[float | None, float | None] = (None, None)) -> Estimate:
    """sigmas: that it is told, None for what it has to guess. What is not believed to be known counts as read."""
    told = dict(zip(NAMES, sigmas, strict=True))

    def estimate(drive: Drive, readings: Sequence[Readings], number: int) -> Floats:
        belief, found = Belief(), []
        for step, read in enumerate(readings):
            came = {name: Reading(value, told[name]) for name, value in read.items() if not np.isnan(value).any()}
            belief, now = believer.take(belief, came, list(drive.actions[:step]), number)
            found.append(_state(read | now.values))
        return np.array(found)

    return estimate


def _network(policy: Policy, sigmas: tuple[float, float]) -> Estimate:
    """The network itself, told how noisy readings are, in one pass over its history."""
    noise, back = dict(zip(NAMES, sigmas, strict=True)), _looked_back(policy)

    def estimate(drive: Drive, readings: Sequence[Readings], number: int) -> Floats:
        found = np.full(drive.states.shape, np.nan)
        moving = np.linalg.norm(drive.states[:, 2:], axis=1) > MOVING_MPS
        for step in np.flatnonzero(moving & (np.arange(len(readings)) >= back[0])):
            history = {name: np.stack([readings[step - ago][name] for ago in back]) for name in NAMES}
            guessed = guess(policy, "filter", history, noise=noise)
            found[step] = np.concatenate([guessed[name][-1] for name in NAMES])
        return found

    return estimate
