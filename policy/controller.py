"""One robot's episode: what it observed, the plan it follows, the next action.

Splits a control step into its slow and its quick part, so that a server can plan elsewhere: `observe`, then `request`
-> `Policy.plan` -> `install` when a plan is due, then `decide`. Knows no clock, no socket, no simulator.
"""

from collections import deque
from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from itertools import takewhile

import numpy as np

from forcing.policy.objectives import Obstacles
from forcing.policy.planner import PlanRequest
from forcing.policy.policy import FARTHEST, Policy
from forcing.policy.tracker import Tracker
from forcing.policy.types import Array, Decision, Plan, Source


@dataclass(frozen=True, slots=True)
class Sensed:
    """One observation: stream -> [*shape] in its units, and its standard error; what is missing is left out."""

    values: dict[str, Array]
    noise: dict[str, float]


class Controller:
    """History, plan and tracker of one episode. Not thread safe."""

    def __init__(self, policy: Policy, *, goal: Array | None, seed: int) -> None:
        """goal: [*goal shape] in physical units. Raises ValueError on a goal that does not fit the policy."""
        self.policy, self.seed, self.step = policy, seed, 0
        self.plan: Plan | None = None
        self._history: deque[Sensed] = deque(maxlen=policy.preset.layout.past_steps)
        self._observed = -1
        self._tracker: Tracker | None = None
        self._open: PlanRequest | None = None
        self._planned_goal: Array | None = None
        self._fresh = False
        self.goal: Array | None = None
        self.obstacles: Obstacles | None = None
        self._planned_obstacles: Obstacles | None = None
        self.set_goal(goal)

    def set_goal(self, goal: Array | None) -> None:
        """Raises ValueError naming the stream, what is expected and what came."""
        spec = self.policy.spec
        if goal is not None:
            if spec.goal is None:
                raise ValueError(f"goal must be absent: policy {self.policy.name!r} has no goal stream")
            goal = _checked(goal, spec.goal, "goal", self.policy)
        self.goal = goal

    def set_obstacles(self, obstacles: Obstacles | None) -> None:
        """What plans stay out of from now on, in the stream that `Selector.name` says; None for nothing.

        Raises ValueError if the centres have not as many numbers as that stream.
        """
        name = self.policy.planner.selector.name
        if obstacles is not None and np.shape(obstacles.centres)[1] != self.policy.spec[name].size:
            expected = self.policy.spec[name].size
            raise ValueError(f"centres must have {expected} numbers each, as {name!r} has, got {obstacles.centres}")
        self.obstacles = obstacles

    def observe(
        self,
        observation: Mapping[str, Array],
        *,
        noise: Mapping[str, float] | None = None,
        missing: Collection[str] = (),
    ) -> None:
        """Takes in what was sensed at this step; called again before `decide`, it replaces what it took.

        noise: stream -> standard error in its own units. missing: streams that were not sensed. Raises ValueError
        naming stream, expected and got.
        """
        streams = self.policy.spec.of_role("observation")
        names = [stream.name for stream in streams]
        for label, given in (("observation", observation), ("noise", noise or {}), ("missing", missing)):
            unknown = sorted(set(given) - set(names))
            if unknown:
                raise ValueError(f"{label} {unknown[0]!r} is unknown; policy {self.policy.name!r} has {names}")
        values, error = {}, {}
        for stream in streams:
            if stream.name in missing:
                continue
            if stream.name not in observation:
                raise ValueError(f"observation {stream.name!r} is missing; send it or name it in 'missing'")
            value = observation[stream.name]
            values[stream.name] = _checked(value, stream.name, "observation", self.policy)
            error[stream.name] = float((noise or {}).get(stream.name, 0.0))
            if not (np.isfinite(error[stream.name]) and error[stream.name] >= 0):
                raise ValueError(f"noise {stream.name!r} must be finite and at least 0, got {error[stream.name]}")
        if self._observed == self.step:
            self._history.pop()  # the same step again: the newer observation counts
        self._history.append(Sensed(values, error))
        self._observed = self.step

    def request(self) -> PlanRequest | None:
        """What to plan now, or None if the present plan still serves, or nobody knows where the robot is.

        Raises ValueError if nothing was observed at this step.
        """
        self._fresh = False
        now = self._now()
        if not self._plan_due(now):
            return None
        frames = {name: self._frames(name) for name in now.values}
        self._open = PlanRequest(
            step=self.step,
            frames=frames,
            noise=now.noise,
            goal=self.goal,
            seed=self.seed,
            obstacles=self.obstacles,
            current=self.plan,
        )
        return self._open

    def _now(self) -> Sensed:
        if self._observed != self.step:
            raise ValueError(f"observe must be called first at step {self.step}")
        return self._history[-1]

    def _frames(self, name: str) -> Array:
        """[frames of a history token, *shape], newest last: as many of the past as the planner is shown and as were
        sensed as well as now (a token's stream has one level), the oldest of them repeated before."""
        layout = self.policy.preset.layout
        newest = len(self._history) - 1
        entries = [
            self._history[max(0, newest - layout.stride * back)]
            for back in range(self.policy.preset.planner.history_frames)
        ]
        alike = takewhile(lambda entry: entry.noise.get(name) == entries[0].noise[name], entries)
        shown = [entry.values[name] for entry in alike]
        shown += [shown[-1]] * (layout.history * layout.frames - len(shown))
        return np.stack(shown[::-1])

    def install(self, plan: Plan) -> None:
        """Follows `plan` from now on. Raises ValueError if it does not answer the last request."""
        if self._open is None or self._open.step != plan.made_at_step:
            raise ValueError(f"plan must answer the last request, it was made at step {plan.made_at_step}")
        self._fresh = plan.made_at_step == self.step
        if self.plan is None:
            plan = replace(plan, made_at_step=self.step)  # the robot held its place until now
        self._tracker = Tracker(self.policy.preset.tracker, self.policy.spec, plan, self.policy.feedback)
        self.plan, self._planned_goal, self._planned_obstacles = plan, self._open.goal, self._open.obstacles
        self._open = None

    def decide(self) -> Decision:
        """The action for the observation just given; the episode moves on one step.

        Without a plan the action is zero, cut to its limits. Raises ValueError if nothing was observed at this step,
        FloatingPointError if the action is not finite; it is never handed out.
        """
        now = self._now()
        action_stream = self.policy.spec.action
        chunk, level, spread, feasible = np.zeros((1, action_stream.size)), 1.0, 0.0, False
        if self._tracker is not None and self.plan is not None:
            chunk, frame = self._tracker.chunk(now.values, self.step)
            level, feasible = float(self.plan.level[frame].max()), self.plan.feasible
            spread = float(np.linalg.norm(self.plan.spread[self.policy.spec.goal or action_stream.name][frame]))
        if not np.isfinite(chunk).all():
            raise FloatingPointError(f"policy {self.policy.name!r} produced a non-finite action at step {self.step}")
        low = np.full(action_stream.size, -np.inf) if action_stream.low is None else np.asarray(action_stream.low)
        high = np.full(action_stream.size, np.inf) if action_stream.high is None else np.asarray(action_stream.high)
        limited = np.clip(chunk, low, high).astype(np.float32)
        step, self.step = self.step, self.step + 1
        source: Source = "hold" if self.plan is None else "fresh" if self._fresh else "plan"
        return Decision(
            step=step,
            action=limited[0],
            action_chunk=limited,
            source=source,
            valid_until_step=step + len(limited) - 1,
            noise_level=level,
            spread=spread,
            feasible=feasible,
            clipped=bool((limited[0] != chunk[0].astype(np.float32)).any()),
        )

    def _plan_due(self, now: Sensed) -> bool:
        goal = self.policy.spec.goal
        if goal is not None and goal not in now.values:
            return False  # nobody knows where the robot is: follow the plan there is, or hold
        if self.plan is None or not _same(self._planned_goal, self.goal):
            return True
        if self._planned_obstacles is not self.obstacles:
            return True
        planner = self.policy.preset.planner
        if self.step - self.plan.made_at_step < planner.replan_steps and not self._strayed(now):
            return False
        if self.goal is None or goal is None or self.policy.preset.tracker.kind == "actions":
            return True
        # Arrived, by a plan that leads to the goal: its end is held. Played actions cannot hold anything.
        enough = self.policy.planner.hold_distance
        ends = (now.values[goal], self.plan.streams[goal][-1])
        return any(np.linalg.norm(place - self.goal) > enough for place in ends)

    def _strayed(self, now: Sensed) -> bool:
        error, goal = self.policy.preset.planner.replan_error, self.policy.spec.goal
        if error is None or goal is None or self._tracker is None:
            return False
        believable = error + 3 * now.noise.get(goal, 0.0)  # a sensor's own error is no reason for another plan
        return self._tracker.strayed(np.asarray(now.values[goal]), self.step) > believable


def _checked(value: Array, name: str, label: str, policy: Policy) -> Array:
    shape = policy.spec[name].shape
    try:
        array = np.asarray(value, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise ValueError(f"{label} {name!r} must be numbers of shape {shape}: {error}") from error
    if array.shape != shape:
        raise ValueError(f"{label} {name!r} has shape {array.shape}, the policy {policy.name!r} expects {shape}")
    if not np.isfinite(array).all():
        raise ValueError(f"{label} {name!r} must be finite, got {array.tolist()}")
    far = policy.away(name, array)
    if far > FARTHEST:
        raise ValueError(
            f"{label} {name!r} must be within {FARTHEST:g} standard deviations of the recordings, "
            f"got {array.tolist()}, {far:.3g} away; check its units"
        )
    return array


def _same(a: Array | None, b: Array | None) -> bool:
    return a is b or (a is not None and b is not None and np.array_equal(a, b))
