"""How far outcomes are from plans, found by driving a policy in its own world: from one visited place to another on
fitted dynamics, where places that were never visited are walls, and contacts that its belief reckons with happen.
Asks no simulator.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from forcing.policy.controller import Controller
from forcing.policy.particles import JOLTED, Motion, motion_of
from forcing.policy.policy import Policy
from forcing.policy.spread import COVERED, NORMAL, Spread
from forcing.policy.types import Plan
from forcing.policy.world import World

NOISE = (0.01, 0.3)  # of each sensor in noisy drives, in recorded standard deviations: least and most, log-uniform
FARTHER = 3  # goals of which the farthest is driven to, every other time: else far frames would have few outcomes
RESTED = 32  # control steps at the goal after which a drive is over
LONGEST = 3  # horizons after which it is given up
TRIES = 50  # pairs of places, for one between which a plan keeps the rules
FEWEST = 60  # outcomes that a scale is read off; beyond, it goes on growing as steps do
NEIGHBOURS = 8  # a frame's outcomes are taken together with those of one eighth as many frames to either side


class NoCalibration(ValueError):
    """The policy cannot drive in its own world; the message says why."""


@dataclass(frozen=True, slots=True)
class _Missed:
    """frame: [K] of a plan. error: [K, n] between the state planned and that which came of it. doubt: [K, n] of the
    state when the plan was made. Both in recorded standard deviations."""

    frame: NDArray[np.int64]
    error: NDArray[np.float64]
    doubt: NDArray[np.float64]


def calibrate(
    policy: Policy, *, drives: int = 64, seed: int = 0, report: Callable[[int], None] = lambda done: None
) -> Spread:
    """Half of the drives with perfect sensors, half with noisy ones, of which nothing is told.

    report: called with the drives done so far. Raises NoCalibration for a policy that has no dynamics or no goal, or
    finds no plan that keeps the rules.
    """
    if policy.world is None or policy.believer is None or policy.spec.goal is None:
        raise NoCalibration(f"policy {policy.name!r} has no dynamics to drive in, or no goal")
    driver, half = _Driver(policy, policy.world, np.random.default_rng(seed)), max(1, drives // 2)
    sharp: list[_Missed] = []
    blurred: list[_Missed] = []
    for index in range(half):
        goals = FARTHER if index % 2 else 1
        sharp += driver.drive(goals, noisy=False)
        blurred += driver.drive(goals, noisy=True)
        report(2 * index + 2)
    layout, places = policy.preset.layout, policy.world.dynamics.streams.values()
    frames, known, unknown = layout.horizon * layout.frames, _joined(sharp), _joined(blurred)
    clean = np.array([_scales(known.frame, np.abs(known.error[:, where]) / NORMAL, frames) for where in places])
    doubted = []
    for where, scale in zip(places, clean, strict=True):
        told = unknown.doubt[:, where].min(axis=1) > 0
        frame, error, doubt = unknown.frame[told], unknown.error[told, where], unknown.doubt[told, where]
        more = np.sqrt(np.maximum(0, np.square(error / NORMAL) - np.square(scale[frame, None])))
        doubted.append(_scales(frame, more / doubt, frames))
    return Spread(clean=clean, doubted=np.array(doubted))


def _scales(frame: NDArray[np.int64], values: NDArray[np.float64], frames: int) -> NDArray[np.float64]:
    """[frames] what the share `COVERED` of the values [K, size] of each frame and its neighbours stays below."""
    scales = np.zeros(frames)
    for index in range(frames):
        near = values[np.abs(frame - index) <= index // NEIGHBOURS]
        if near.size >= FEWEST:
            scales[index] = np.quantile(near, COVERED)
        elif index > 0:
            scales[index] = scales[index - 1] * (index + 1) / index
    return scales


def _joined(missed: Sequence[_Missed]) -> _Missed:
    return _Missed(
        frame=np.concatenate([one.frame for one in missed]),
        error=np.concatenate([one.error for one in missed]),
        doubt=np.concatenate([one.doubt for one in missed]),
    )


class _Driver:
    """Drives a policy through its own world."""

    def __init__(self, policy: Policy, world: World, rng: np.random.Generator) -> None:
        self._policy, self._world, self._rng = policy, world, rng
        self._motion: Motion = motion_of(world.dynamics, policy.spec, policy.normaliser)
        goal = policy.spec.goal
        assert goal is not None
        self._goal, self._place = policy.spec[goal], world.dynamics.streams[goal]
        self._visited = np.flatnonzero(world.support.visited)
        # What may stop of a move, the least first: nothing, one direction with its rate, all.
        n, directions = len(self._motion.mean), range(self._place.start, self._place.stop)
        entries, rate = np.arange(n), policy.spec.rate(goal)
        self._rates = np.zeros(n, dtype=np.bool_)
        stops = [np.isin(entries, at) for at in directions]
        if rate is not None:
            first = world.dynamics.streams[rate].start
            self._rates[world.dynamics.streams[rate]] = True
            stops = [np.isin(entries, (at, first + at - self._place.start)) for at in directions]
        self._stops = [np.zeros(n, dtype=np.bool_), *stops, np.any(stops, axis=0)]

    def drive(self, goals: int, *, noisy: bool) -> list[_Missed]:
        """What the plans of a drive missed, to the farthest of so many goals. noisy: whether sensors are."""
        for _ in range(TRIES):
            start, *others = (self._somewhere() for _ in range(1 + goals))
            goal = max(others, key=lambda place: float(np.linalg.norm(place - start)))
            noise = self._noise() if noisy else np.zeros(len(self._motion.mean))
            controller = Controller(
                self._policy, goal=goal.reshape(self._goal.shape), seed=int(self._rng.integers(2**31))
            )
            state = np.zeros(len(self._motion.mean))
            state[self._place] = start
            plans, states = self._driven(controller, state, goal, noise)
            if plans:
                return [self._missed(plan, doubt, states) for plan, doubt in plans]
        raise NoCalibration(f"policy {self._policy.name!r} finds no plan in its own world that keeps the rules")

    def _noise(self) -> NDArray[np.float64]:
        """[n] standard errors of readings, in physical units."""
        noise = np.zeros(len(self._motion.mean))
        for where in self._motion.places:
            noise[where] = np.exp(self._rng.uniform(*np.log(NOISE))) * self._motion.std[where]
        return noise

    def _somewhere(self) -> NDArray[np.float64]:
        support = self._world.support
        cell = support.centres(self._rng.choice(self._visited))
        return np.asarray(cell + self._rng.uniform(-0.5, 0.5, cell.shape) * support.cell)

    def _driven(
        self, controller: Controller, state: NDArray[np.float64], goal: NDArray[np.float64], noise: NDArray[np.float64]
    ) -> tuple[list[tuple[Plan, NDArray[np.float64]]], NDArray[np.float64]]:
        """Plans with what was doubted when they were made, [n], and [T + 1, n] true states; no plans where the first
        breaks a rule, as it does if no way leads there."""
        policy, n = self._policy, len(state)
        streams, layout = self._world.dynamics.streams, policy.preset.layout
        plans: list[tuple[Plan, NDArray[np.float64]]] = []
        states, rested = [state], 0
        while rested < RESTED and len(states) <= LONGEST * layout.horizon * layout.token_steps:
            read = state + noise * self._rng.standard_normal(n)
            controller.observe({name: read[at].reshape(policy.spec[name].shape) for name, at in streams.items()})
            request = controller.request()
            if request is not None:
                plan = policy.plan(request)
                controller.install(plan)
                if not plans and not plan.feasible:
                    return [], np.array(states)
                doubt = np.concatenate(
                    [np.full(at.stop - at.start, request.doubt.get(name, 0.0)) for name, at in streams.items()]
                )
                plans.append((plan, doubt))
            action = controller.decide().action.reshape(-1).astype(np.float64)
            state = self._moved(state, action)
            states.append(state)
            near = np.linalg.norm(state[self._place] - goal) <= policy.planner.hold_distance
            rested = rested + 1 if near else 0
        return plans, np.array(states)

    def _moved(self, state: NDArray[np.float64], action: NDArray[np.float64]) -> NDArray[np.float64]:
        """The state after a step: at a wall, what leads into it stops."""
        motion, n = self._motion, len(state)
        following = self._world.dynamics.step(state, action)
        if self._rng.random() < JOLTED:
            following = following + self._rng.multivariate_normal(np.zeros(n), motion.jolt[:n, :n])
        within = max(1.0, float(self._outside(state)))
        for stopped in self._stops:
            halted = np.where(stopped, np.where(self._rates, 0.0, state), following)
            if self._outside(halted) <= within:
                return halted
        return halted

    def _outside(self, state: NDArray[np.float64]) -> float:
        return float(self._policy.planner.selector.outside(state[self._place]))

    def _missed(self, plan: Plan, doubt: NDArray[np.float64], states: NDArray[np.float64]) -> _Missed:
        """What came of one plan, as far as the drive went."""
        at = plan.made_at_step + plan.steps
        frame = np.flatnonzero(at < len(states))
        streams = self._world.dynamics.streams
        planned = np.concatenate([plan.streams[name].reshape(len(at), -1) for name in streams], axis=1)
        error = (states[at[frame]] - planned[frame]) / self._motion.std
        return _Missed(frame=frame, error=error, doubt=np.tile(doubt / self._motion.std, (len(frame), 1)))
