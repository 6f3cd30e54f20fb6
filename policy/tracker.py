"""From a plan and the present observation to an action, at every control step.

Plain numpy. Knows no goal: when a plan ends, its own last frame is held.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray

from forcing.policy.rehearsal import Feedback
from forcing.policy.types import Array, Plan, TrajectorySpec

Kind = Literal["pursuit", "pd", "feedback", "actions"]


@dataclass(frozen=True, slots=True, kw_only=True)
class TrackerConfig:
    """How a plan becomes actions.

    kind: `pursuit` steers to the point of the planned path that lies `lookahead_steps` after the nearest one and lets
    the plan's timing go; `pd` follows planned positions and velocities at the planned times; `feedback` plays the
    planned actions and corrects them by the gain that the policy's fitted dynamics call for; `actions` plays the
    planned actions. position_gain, velocity_gain: action per unit of error, of pursuit and pd. chunk_steps: actions
    handed out at a time.
    """

    kind: Kind = "pursuit"
    lookahead_steps: int = 30
    position_gain: float = 10.0
    velocity_gain: float = 1.0
    chunk_steps: int = 8

    def __post_init__(self) -> None:
        if self.kind not in get_args(Kind):
            raise ValueError(f"kind must be {', '.join(get_args(Kind))}, got {self.kind!r}")
        for name in ("lookahead_steps", "chunk_steps"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, got {getattr(self, name)}")
        for name in ("position_gain", "velocity_gain"):
            if not 0 <= getattr(self, name) < math.inf:
                raise ValueError(f"{name} must be finite and at least 0, got {getattr(self, name)}")


class Tracker:
    """Follows one plan. Planned positions are of the spec's goal stream, velocities of its rate."""

    def __init__(
        self, config: TrackerConfig, spec: TrajectorySpec, plan: Plan, feedback: Feedback | None = None
    ) -> None:
        """feedback: of the policy's dynamics. Raises ValueError if the kind of tracker does not fit the spec, or needs
        feedback and has none."""
        self.config, self.plan, self.feedback = config, plan, feedback
        if config.kind == "feedback" and feedback is None:
            raise ValueError("a feedback tracker needs dynamics, and this policy carries none; use kind 'pursuit'")
        self.action = spec.action
        self.position = spec.goal
        self.velocity = spec.rate(spec.goal)
        if config.kind in ("pursuit", "pd"):
            if self.position is None:
                raise ValueError(f"a {config.kind} tracker needs a goal stream to follow; use kind 'actions'")
            size = spec[self.position].size
            if self.action.size != size:
                raise ValueError(
                    f"a {config.kind} tracker needs an action of the goal stream's size {size}, "
                    f"got {self.action.size}; use kind 'actions'"
                )
        self.times = np.concatenate([[0], plan.steps]).astype(np.float64)
        self.path = self._from_start(self.position)
        self.speed = np.zeros_like(self.path) if self.velocity is None else self._from_start(self.velocity)
        self.progress = 0.0

    def _from_start(self, name: str | None) -> NDArray[np.float64]:
        if name is None:
            return np.zeros((len(self.times), 1))
        planned = self.plan.streams[name].reshape(len(self.plan.steps), -1)
        return np.concatenate([np.asarray(self.plan.start[name], dtype=np.float64).reshape(1, -1), planned])

    def chunk(self, observation: Mapping[str, Array], step: int) -> tuple[NDArray[np.float64], int]:
        """[chunk_steps, A] unclipped actions from this step on, and the index of the planned frame that is being
        followed.

        The first answers `observation`; the others suppose that the robot moves as planned, and so does the first
        about a stream that is missing.
        """
        elapsed = float(step - self.plan.made_at_step)
        ahead = np.arange(self.config.chunk_steps, dtype=np.float64)
        if self.config.kind == "actions":
            return self._planned_actions(elapsed + ahead)
        if self.feedback is not None and self.config.kind == "feedback":
            return self._corrected(self.feedback, observation, elapsed + ahead)
        sensed = {name: np.asarray(value, dtype=np.float64).reshape(1, -1) for name, value in observation.items()}
        where = np.array([elapsed])
        if self.config.kind == "pursuit":
            where = self._advance(sensed.get(self.position or ""))
        position = sensed.get(self.position or "", _interpolate(where, self.times, self.path))
        velocity = sensed.get(self.velocity or "", self._speed_at(where))
        at = where + ahead
        target = at + (1 if self.config.kind == "pd" else self.config.lookahead_steps)
        positions = np.concatenate([position, _interpolate(at[1:], self.times, self.path)])
        velocities = np.concatenate([velocity, self._speed_at(at[1:])])
        wanted = self._speed_at(target) if self.config.kind == "pd" else np.zeros_like(velocities)
        actions = self.config.position_gain * (_interpolate(target, self.times, self.path) - positions)
        actions = actions + self.config.velocity_gain * (wanted - velocities)
        frame = int(np.searchsorted(self.plan.steps, at[0]).clip(max=len(self.plan.steps) - 1))
        return actions, frame

    def _planned_actions(self, at: NDArray[np.float64]) -> tuple[NDArray[np.float64], int]:
        """[H, A] planned actions at times `at`, and the frame of the first; the last one once the plan is over."""
        index = np.searchsorted(self.plan.steps, at, side="right").clip(max=len(self.plan.steps) - 1)
        planned = self.plan.streams[self.action.name].reshape(len(self.plan.steps), -1)
        return planned[index].astype(np.float64), int(index[0])

    def _corrected(
        self, feedback: Feedback, observation: Mapping[str, Array], at: NDArray[np.float64]
    ) -> tuple[NDArray[np.float64], int]:
        """Planned actions, corrected where the robot is not where it should be; the plan's end is held."""
        actions, frame = self._planned_actions(at)
        over = at >= self.times[-1]
        actions[over] = 0.0
        planned = np.empty((len(at), len(feedback.dynamics.low)))
        sensed = np.empty_like(planned)
        for name, where in feedback.dynamics.streams.items():
            planned[:, where] = _interpolate(at, self.times, self._from_start(name))
            if name == self.velocity:
                planned[over, where] = 0.0
            sensed[:, where] = planned[:, where]
            if name in observation:
                sensed[0, where] = np.asarray(observation[name], dtype=np.float64).reshape(-1)
        return feedback.action(sensed, planned, actions), frame

    def strayed(self, position: NDArray[np.float64], step: int) -> float:
        """Distance of `position` from where the plan is at this step, in the goal stream's units."""
        at = np.array([float(step - self.plan.made_at_step)])
        return float(np.linalg.norm(position.reshape(-1) - _interpolate(at, self.times, self.path)[0]))

    def _speed_at(self, at: NDArray[np.float64]) -> NDArray[np.float64]:
        """[H, size] planned velocities; none when the plan is over and its end is held."""
        return np.where((at > self.times[-1])[:, None], 0.0, _interpolate(at, self.times, self.speed))

    def _advance(self, position: NDArray[np.float64] | None) -> NDArray[np.float64]:
        """[1] time on the path, in steps, of the point nearest to `position` [1, size]; never goes back.

        A step further on if the position is missing.
        """
        if position is None:
            self.progress = min(self.progress + 1, float(self.times[-1]))
            return np.array([self.progress])
        start, end = self.path[:-1], self.path[1:]
        along = end - start
        share = ((position - start) * along).sum(axis=1) / np.maximum((along * along).sum(axis=1), 1e-12)
        share = share.clip(0, 1)
        distance = np.linalg.norm(start + share[:, None] * along - position, axis=1)
        times = self.times[:-1] + share * np.diff(self.times)
        # A path may pass near itself: only what lies within reach of the last progress can be where the robot is.
        reachable = (times >= self.progress) & (times <= self.progress + 2 * self.config.lookahead_steps)
        if reachable.any():
            self.progress = float(times[np.argmin(np.where(reachable, distance, np.inf))])
        return np.array([self.progress])


def _interpolate(
    at: NDArray[np.float64], times: NDArray[np.float64], values: NDArray[np.float64]
) -> NDArray[np.float64]:
    """[H, size] values at times `at`, held beyond both ends."""
    return np.stack([np.interp(at, times, column) for column in values.T], axis=-1)
