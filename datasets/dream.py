"""Demonstrations at the limit of speed, dreamed from a recording alone.

The recording's own transitions give one-step dynamics, its visited places and some room beside them say where one may
go (`drivable`); model-predictive control on both drives from goal to goal as fast as it can. Nothing but the recording
is asked: no simulator, no map.
"""

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from forcing.datasets.reaching import Reaching
from forcing.policy.dynamics import states_of
from forcing.policy.mpc import Array32, MpcConfig
from forcing.policy.types import Array, StreamSpec, Trajectories, TrajectorySpec

REACHED_STEPS = 2.0  # of the fastest recorded steps: as near to a goal counts as there
ROUNDS = 2  # of sampling a control step; measured in docs/experiments.md, "Room for dreams, again"


@dataclass(frozen=True, slots=True, kw_only=True)
class DreamConfig:
    """steps: control steps to dream. room_steps: how far the dream may leave visited places, in fastest recorded steps,
    see `drivable_places`. noise: standard deviation of the noise on executed actions, as a share of half their range.
    stops: share of goals at which the robot stays for up to `stay_steps` before it goes on; the others it passes at
    speed. longest: steps after which a goal is given up, and what was driven there thrown away. robots: dreamed side by
    side. controller: of the dream."""

    steps: int = 300_000
    room_steps: float = 2.0
    noise: float = 0.1
    stops: float = 0.6
    stay_steps: int = 48
    longest: int = 1000
    robots: int = 128
    controller: MpcConfig = field(default_factory=lambda: MpcConfig(rounds=ROUNDS))

    def __post_init__(self) -> None:
        for name in ("steps", "stay_steps", "longest", "robots"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, got {getattr(self, name)}")
        if not 0 <= self.room_steps < np.inf:
            raise ValueError(f"room_steps must be at least 0, got {self.room_steps}")
        for name in ("noise", "stops"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"{name} must be from 0 to 1, got {getattr(self, name)}")


def dream(
    recorded: Trajectories, config: DreamConfig, seed: int, report: Callable[[int], None] = lambda steps: None
) -> Trajectories:
    """Dreamed episodes, each from one goal to the next; the next begins where and as fast as it ended.

    report: called with the steps dreamed so far. Raises NoWorld if the recording does not show where actions lead,
    ValueError if steps that did not go as the dynamics say are everywhere, or if most goals are not reached.
    """
    dreamer = _Dreamer(recorded, config, np.random.default_rng(seed))
    episodes: list[tuple[Array32, Array32]] = []
    done = 0
    while done < config.steps:
        for states, actions in dreamer.step():
            episodes.append((states, actions))
            done += len(actions)
        if dreamer.given_up > max(len(episodes), config.robots):
            raise ValueError(
                f"{dreamer.given_up} of {dreamer.given_up + len(episodes)} dreamed goals were not reached within "
                f"{config.longest} steps; the action hardly moves {recorded.spec.goal!r}, or the visited places are "
                "too narrow to drive in: record more of them, or give more room beside them (room_steps)"
            )
        report(min(done, config.steps))
    return _trajectories(recorded, episodes, {"dreamed_from": dict(recorded.provenance), **_plain(config, seed)})


class _Dreamer:
    """Robots that drive from goal to goal side by side."""

    def __init__(self, recorded: Trajectories, config: DreamConfig, rng: np.random.Generator) -> None:
        self.config, self.rng, self.reaching = config, rng, Reaching(recorded, config.room_steps)
        self.mpc, self.distance = self.reaching.mpc(config.controller), self.reaching.distance
        self.places = self.distance.largest_part()
        goal = recorded.spec.goal
        assert goal is not None
        count, size = config.robots, recorded.spec[goal].size
        self.goals = np.zeros((count, size))
        self.fields = np.zeros((count, len(self.distance.nodes)), dtype=np.float32)
        self.stops, self.arrived = np.zeros(count, dtype=np.bool_), np.zeros(count, dtype=np.bool_)
        self.stay = np.zeros(count, dtype=np.int64)
        self.state = self._recorded_states(recorded, count)
        self.plan = self.mpc.idle(count)
        self.given_up = 0
        self.driven: list[list[tuple[Array32, Array32]]] = [[] for _ in range(count)]
        for robot in range(count):
            self._new_goal(robot)

    def step(self) -> list[tuple[Array32, Array32]]:
        """One control step of all robots; the episodes that it ended: states [L + 1, n], actions [L, m]."""
        low, high, reached = self.reaching.low, self.reaching.high, REACHED_STEPS * self.reaching.pace
        cost = self.reaching.cost(self.goals, self.fields, self.stops, reached)
        self.plan = self.mpc.improve(self.state, self.plan, cost, self.rng)
        noise = self.config.noise * (high - low) / 2 * self.rng.standard_normal(self.plan[:, 0].shape)
        actions = np.clip(self.plan[:, 0] + noise, low, high)
        following = self.reaching.dynamics.step(self.state, actions)
        for robot, driven in enumerate(self.driven):
            driven.append((self.state[robot].astype(np.float32), actions[robot].astype(np.float32)))
        self.state, self.plan = following, self.mpc.shifted(self.plan)
        self.arrived |= np.linalg.norm(following[:, self.reaching.position] - self.goals, axis=1) < reached
        self.stay -= self.arrived
        ended = []
        for robot, driven in enumerate(self.driven):
            if self.stay[robot] < 0:
                states = np.array([state for state, _ in driven] + [following[robot].astype(np.float32)])
                ended.append((states, np.array([action for _, action in driven])))
                self._new_goal(robot)
            elif len(driven) >= self.config.longest:
                self.given_up += 1
                self._new_goal(robot)
        return ended

    def _new_goal(self, robot: int) -> None:
        support = self.distance.support
        jitter = self.rng.uniform(-0.5, 0.5, self.goals.shape[1]) * support.cell
        self.goals[robot] = support.centres(self.rng.choice(self.places)) + jitter
        self.fields[robot] = self.distance.field(self.goals[robot])
        self.stops[robot] = self.rng.random() < self.config.stops
        self.stay[robot] = self.rng.integers(0, self.config.stay_steps) if self.stops[robot] else 0
        self.arrived[robot], self.driven[robot] = False, []

    def _recorded_states(self, recorded: Trajectories, count: int) -> NDArray[np.float64]:
        states = states_of(recorded)
        connected = np.isin(self.distance.support.cells(states[:, self.reaching.position]), self.places)
        return np.asarray(states[self.rng.choice(np.flatnonzero(connected), size=count)])


def _trajectories(
    recorded: Trajectories, episodes: list[tuple[Array32, Array32]], provenance: Mapping[str, Any]
) -> Trajectories:
    spec = recorded.spec
    kept: tuple[StreamSpec, ...] = tuple(stream for stream in spec.streams if stream.role != "reward")
    states = np.concatenate([states for states, _ in episodes])
    streams: dict[str, Array] = {}
    start = 0
    for stream in spec.of_role("observation"):
        streams[stream.name] = states[:, start : start + stream.size].reshape(-1, *stream.shape)
        start += stream.size
    actions = np.concatenate([actions for _, actions in episodes])
    streams[spec.action.name] = actions.reshape(-1, *spec.action.shape)
    return Trajectories(
        spec=TrajectorySpec(streams=kept, control_hz=spec.control_hz, goal=spec.goal),
        streams=streams,
        lengths=np.array([len(actions) for _, actions in episodes], dtype=np.int64),
        provenance=provenance,
    )


def _plain(config: DreamConfig, seed: int) -> dict[str, Any]:
    return {"dream": {**asdict(config), "seed": seed}}
