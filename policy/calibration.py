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
from forcing.policy.spread import Missed, Spread, arrival_of, spread_of
from forcing.policy.types import Plan
from forcing.policy.world import World

# Recorded standard deviations, log-uniform: from hardly anything to what hides how a robot moves.
NOISE = (0.01, 0.3)
FARTHER = 3  # goals of which the farthest is driven to, every other time: else far frames would have few outcomes
RESTED = 96  # control steps at the goal after which a drive is over: three tokens of Maze2D, for what rests in plans
LONGEST = 3  # horizons, of which one should do, after which a robot that is caught somewhere is given up
TRIES = 50  # pairs of places, for one between which a plan keeps the rules


@dataclass(frozen=True, slots=True, kw_only=True)
class Harshness:
    """What a policy's own world is like where its recording does not tell.

    contacts: how often something strikes the robot, a control step; by default as often as beliefs reckon with. room:
    between visited places and the walls, in the goal stream's units; None for what plans may leave visited places by.
    """

    contacts: float = JOLTED
    room: float | None = None

    def __post_init__(self) -> None:
        if not 0 <= self.contacts <= 1:
            raise ValueError(f"contacts must be between 0 and 1, got {self.contacts}")
        if self.room is not None and not 0 < self.room < np.inf:
            raise ValueError(f"room must be finite and positive, got {self.room}")


class NoCalibration(ValueError):
    """The policy cannot drive in its own world; the message says why."""


def calibrate(
    policy: Policy,
    *,
    drives: int = 128,
    seed: int = 0,
    harshness: Harshness | None = None,
    report: Callable[[int], None] = lambda done: None,
) -> Spread:
    """Half of the drives with perfect sensors, half with noisy ones, of which nothing is told.

    drives: an odd one is left out. report: called with the drives done so far. Raises NoCalibration for a policy that
    has no dynamics, no belief or no goal, or finds no plan that keeps the rules; ValueError if drives is below 2.
    """
    if drives < 2:
        raise ValueError(f"drives must be at least 2, got {drives}")
    for what, there in (("dynamics", policy.world), ("belief", policy.believer), ("goal", policy.spec.goal)):
        if there is None:
            raise NoCalibration(f"policy {policy.name!r} has no {what}, so it cannot be driven in its own world")
    assert policy.world is not None
    driver = _Driver(policy, policy.world, np.random.default_rng(seed), harshness or Harshness())
    layout = policy.preset.layout
    missed: list[Missed] = []
    for pair in range(drives // 2):
        for noisy in (False, True):
            missed.append(driver.drive(FARTHER if pair % 2 else 1, noisy=noisy))
            report(2 * pair + 1 + noisy)
    return spread_of(missed, list(policy.world.dynamics.streams.values()), layout.horizon * layout.frames)


class _Driver:
    """Drives a policy through its own world."""

    def __init__(self, policy: Policy, world: World, rng: np.random.Generator, harshness: Harshness) -> None:
        self._policy, self._world, self._rng = policy, world, rng
        self._contacts = harshness.contacts
        self._room = harshness.room or policy.preset.planner.support_tolerance or world.support.cell
        self._motion: Motion = motion_of(world.dynamics, policy.spec, policy.normaliser)
        goal = policy.spec.goal
        assert goal is not None
        self._goal, self._place = policy.spec[goal], world.dynamics.streams[goal]
        self._visited = np.flatnonzero(world.support.visited)
        self._away = world.support.distance(np.inf)
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

    def drive(self, goals: int, *, noisy: bool) -> Missed:
        """What the plans of a drive missed, to the farthest of so many goals. noisy: whether sensors are."""
        for _ in range(TRIES):
            start, *others = (self._somewhere() for _ in range(1 + goals))
            goal = max(others, key=lambda place: float(np.linalg.norm(place - start)))
            noise = self._noise() if noisy else np.zeros(len(self._motion.mean))
            controller = Controller(
                self._policy, goal=goal.reshape(self._goal.shape), seed=int(self._rng.integers(2**31))
            )
            state = np.where(self._rates, 0.0, self._motion.mean)
            state[self._place] = start
            plans, states = self._driven(controller, state, goal, noise)
            if plans:
                return self._missed(plans, noisy, goal, states)
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
        if self._rng.random() < self._contacts:
            following = following + self._rng.multivariate_normal(np.zeros(n), motion.jolt[:n, :n])
        within = max(1.0, float(self._outside(state)))
        for stopped in self._stops:
            halted = np.where(stopped, np.where(self._rates, 0.0, state), following)
            if self._outside(halted) <= within:
                return halted
        return halted

    def _outside(self, state: NDArray[np.float64]) -> float:
        """How far beside visited places, in what is still no wall."""
        return float(self._world.support.between(self._away, state[self._place]) / self._room)

    def _missed(
        self,
        plans: Sequence[tuple[Plan, NDArray[np.float64]]],
        noisy: bool,
        goal: NDArray[np.float64],
        states: NDArray[np.float64],
    ) -> Missed:
        """What came of each plan, as far as the drive went."""
        near, streams = self._policy.planner.hold_distance, self._world.dynamics.streams
        frame, since, error, doubts = [], [], [], []
        for plan, doubt in plans:
            at = plan.made_at_step + plan.steps
            seen = np.flatnonzero(at < len(states))
            path = plan.streams[self._goal.name].reshape(len(at), -1)
            planned = np.concatenate([plan.streams[name].reshape(len(at), -1) for name in streams], axis=1)
            frame.append(seen)
            since.append(seen - arrival_of(path, goal, near))
            error.append((states[at[seen]] - planned[seen]) / self._motion.std)
            doubts.append(np.tile(doubt / self._motion.std, (len(seen), 1)))
        return Missed(len(plans), noisy, *(np.concatenate(parts) for parts in (frame, since, error, doubts)))
