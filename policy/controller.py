"""One robot's episode: what it observed, the plan it follows, the next action.

Splits a control step into its slow and its quick part, so that a server can plan elsewhere: `observe`, then `request`
-> `Policy.plan` -> `install` when a plan is due, then `decide`. Knows no clock, no socket, no simulator.
"""

from collections import deque
from collections.abc import Collection, Mapping

import numpy as np

from forcing.policy.planner import PlanRequest
from forcing.policy.policy import Policy
from forcing.policy.tracker import Tracker
from forcing.policy.types import Array, Decision, Plan, Source


class Controller:
    """History, plan and tracker of one episode. Not thread safe."""

    def __init__(self, policy: Policy, *, goal: Array | None, seed: int) -> None:
        """goal: [*goal shape] in physical units. Raises ValueError on a goal that does not fit the policy."""
        self.policy, self.seed, self.step = policy, seed, 0
        self.plan: Plan | None = None
        self._history: deque[dict[str, Array]] = deque(maxlen=policy.preset.layout.past_steps)
        self._noise: dict[str, float] = {}
        self._observed = -1
        self._tracker: Tracker | None = None
        self._open: tuple[PlanRequest, dict[str, Array]] | None = None
        self._planned_goal: Array | None = None
        self._fresh = False
        self.goal: Array | None = None
        self.set_goal(goal)

    def set_goal(self, goal: Array | None) -> None:
        """Raises ValueError naming the stream, what is expected and what came."""
        spec = self.policy.spec
        if goal is not None:
            if spec.goal is None:
                raise ValueError(f"goal must be absent: policy {self.policy.name!r} has no goal stream")
            goal = _checked(goal, spec.goal, spec[spec.goal].shape, "goal", self.policy.name)
        self.goal = goal

    def observe(
        self,
        observation: Mapping[str, Array],
        *,
        noise: Mapping[str, float] | None = None,
        missing: Collection[str] = (),
    ) -> None:
        """Takes in what was sensed at this step; called again before `decide`, it replaces what it took.

        noise: stream -> standard error in its own units. missing: streams that were not sensed; the last value, or
        the data's mean, stands in for them at the level of pure noise. Raises ValueError naming stream, expected and
        got.
        """
        streams = self.policy.spec.of_role("observation")
        names = [stream.name for stream in streams]
        for label, given in (("observation", observation), ("noise", noise or {}), ("missing", missing)):
            unknown = sorted(set(given) - set(names))
            if unknown:
                raise ValueError(f"{label} {unknown[0]!r} is unknown; policy {self.policy.name!r} has {names}")
        seen, error = {}, {}
        for stream in streams:
            if stream.name in missing:
                seen[stream.name] = self._stand_in(stream.name)
                error[stream.name] = float("inf")
                continue
            if stream.name not in observation:
                raise ValueError(f"observation {stream.name!r} is missing; send it or name it in 'missing'")
            value = observation[stream.name]
            seen[stream.name] = _checked(value, stream.name, stream.shape, "observation", self.policy.name)
            sigma = float((noise or {}).get(stream.name, 0.0))
            if not (np.isfinite(sigma) and sigma >= 0):
                raise ValueError(f"noise {stream.name!r} must be finite and at least 0, got {sigma}")
            error[stream.name] = sigma
        if self._observed == self.step:
            self._history.pop()  # the same step again: the newer observation counts
        self._history.append(seen)
        self._noise, self._observed = error, self.step

    def request(self) -> PlanRequest | None:
        """What to plan now, or None if the present plan still serves."""
        self._fresh = False
        if not self._history:
            raise ValueError("observe must be called before request")
        if not self._plan_due():
            return None
        layout = self.policy.preset.layout
        history = list(self._history)
        picked = [
            history[max(0, len(history) - 1 - layout.stride * back)]
            for back in range(layout.past_steps // layout.stride)
        ]
        picked = picked[: self.policy.preset.planner.history_frames]
        picked += [picked[-1]] * (layout.past_steps // layout.stride - len(picked))
        names = [stream.name for stream in self.policy.spec.of_role("observation")]
        frames = {name: np.stack([entry[name] for entry in reversed(picked)]) for name in names}
        request = PlanRequest(step=self.step, frames=frames, noise=dict(self._noise), goal=self.goal, seed=self.seed)
        self._open = (request, history[-1])
        return request

    def install(self, plan: Plan) -> None:
        """Follows `plan` from now on. Raises ValueError if it does not answer the last request."""
        if self._open is None or self._open[0].step != plan.made_at_step:
            raise ValueError(f"plan must answer the last request, it was made at step {plan.made_at_step}")
        request, now = self._open
        self._tracker = Tracker(self.policy.preset.tracker, self.policy.spec, plan, now)
        self.plan, self._planned_goal, self._open = plan, request.goal, None
        self._fresh = plan.made_at_step == self.step

    def decide(self) -> Decision:
        """The action for the observation just given; the episode moves on one step.

        Raises FloatingPointError if the action is not finite; it is never handed out.
        """
        action_stream = next(stream for stream in self.policy.spec.streams if stream.role == "action")
        chunk, level, spread = np.zeros((1, action_stream.size)), 1.0, 0.0
        if self._tracker is not None and self.plan is not None:
            chunk, frame = self._tracker.chunk(self._history[-1], self.step)
            level = float(self.plan.level[frame].max())
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
            clipped=bool((limited[0] != chunk[0].astype(np.float32)).any()),
        )

    def _plan_due(self) -> bool:
        if self.plan is None or not _same(self._planned_goal, self.goal):
            return True
        if self.step - self.plan.made_at_step < self.policy.preset.planner.replan_steps:
            return False
        if self.goal is None or self.policy.spec.goal is None:
            return True
        # Arrived, by a plan that leads to the goal: its end is held.
        here, end = self._history[-1][self.policy.spec.goal], self.plan.streams[self.policy.spec.goal][-1]
        enough = self.policy.planner.hold_distance
        return not (np.linalg.norm(here - self.goal) <= enough and np.linalg.norm(end - self.goal) <= enough)

    def _stand_in(self, name: str) -> Array:
        if self._history:
            return self._history[-1][name]
        return np.asarray(self.policy.normaliser.mean[name]).reshape(self.policy.spec[name].shape)


def _checked(value: Array, name: str, shape: tuple[int, ...], label: str, policy: str) -> Array:
    try:
        array = np.asarray(value, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise ValueError(f"{label} {name!r} must be numbers of shape {shape}: {error}") from error
    if array.shape != shape:
        raise ValueError(f"{label} {name!r} has shape {array.shape}, the policy {policy!r} expects {shape}")
    if not np.isfinite(array).all():
        raise ValueError(f"{label} {name!r} must be finite, got {array.tolist()}")
    return array


def _same(a: Array | None, b: Array | None) -> bool:
    return a is b or (a is not None and b is not None and np.array_equal(a, b))
