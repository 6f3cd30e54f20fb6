"""One robot's episode: what it observed, the plan it follows, the next action.

Splits a control step into its slow and its quick part, so that a server can plan elsewhere: `observe`, then `request`
-> `Policy.plan` -> `install` when a plan is due, then `decide`. What is observed is evidence: plans and actions stand
on what the policy's `Believer` makes of it. Knows no clock, no socket, no simulator.
"""

from collections import deque
from collections.abc import Collection, Mapping
from dataclasses import replace

import numpy as np

from forcing.policy.belief import OLDEST_S, Belief
from forcing.policy.planner import PlanRequest
from forcing.policy.policy import FARTHEST, Policy
from forcing.policy.readings import checked, shaped, unbelievable
from forcing.policy.recalling import frames_of, recalled
from forcing.policy.tracker import Tracker
from forcing.policy.types import Array, Believed, Decision, Obstacles, Plan, Reading, SensorReport, Source
from forcing.policy.waiting import Waiting
from forcing.policy.watching import surprises, with_surprises

SILENT_S = 0.5  # of a robot that acts of its own; following a belief through more would take longer than to begin anew


class NoPlan(RuntimeError):
    """There is no plan yet, and no action is known that keeps such a robot where it is."""


class Controller:
    """History, plan and tracker of one episode. Not thread safe."""

    def __init__(self, policy: Policy, *, goal: Array | None, seed: int, doubting: bool = True) -> None:
        """goal: [*goal shape] in physical units. doubting: whether the policy's belief stands between readings and
        plans, if it has one; not where nobody knows what was sent between them. Raises ValueError on a goal that does
        not fit the policy, CheckpointError for one that cannot act."""
        policy.check_acts()
        self.policy, self.seed, self.step = policy, seed, 0
        self._believer = policy.believer if doubting else None
        self.plan: Plan | None = None
        self._history: deque[Believed] = deque(maxlen=policy.preset.layout.past_steps)
        memory = policy.preset.memory
        self._remembers = memory is not None
        self._incredible = -np.log10(memory.false_alarms) if memory is not None and memory.doubt else np.inf
        self._waiting = Waiting(policy)
        self._waited = False  # at the step just decided on
        self._readings: dict[str, Reading] | None = None
        self._unheard = {stream.name: 0 for stream in policy.spec.of_role("observation")}
        self._belief = self._believing = Belief()
        sent = 1 + int(OLDEST_S * policy.spec.control_hz)
        if self._remembers:
            sent = policy.preset.layout.past_steps
        self._sent: deque[Array] = deque(maxlen=sent if self._believer is None else self._believer.memory)
        self._asked_at = self._planned_at = 0
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
            goal = checked(goal, spec.goal, "goal", self.policy)
        self.goal = goal

    def set_obstacles(self, obstacles: Obstacles | None) -> None:
        """What plans stay out of from now on, in the stream that `Policy.obstacle_stream` says; None for nothing.

        Raises ValueError if the centres have not as many numbers as that stream, or there is none.
        """
        name = self.policy.obstacle_stream
        if obstacles is not None and name is None:
            raise ValueError(f"obstacles must be absent: policy {self.policy.name!r} knows no places to stay out of")
        if obstacles is not None and name is not None and np.shape(obstacles.centres)[1] != self.policy.spec[name].size:
            expected = self.policy.spec[name].size
            raise ValueError(f"centres must have {expected} numbers each, as {name!r} has, got {obstacles.centres}")
        self.obstacles = obstacles

    def observe(
        self,
        observation: Mapping[str, Array],
        *,
        noise: Mapping[str, float] | None = None,
        missing: Collection[str] = (),
        age_s: Mapping[str, float] | None = None,
    ) -> None:
        """Takes in what was sensed at this step; called again before `decide`, it replaces what it took.

        noise: stream -> standard error in its own units, of streams whose sensor is known. missing: streams that were
        not sensed. age_s: stream -> seconds since it was read. A reading that is not finite, farther than `FARTHEST`
        from the recordings, older than `OLDEST_S` or, where the policy doubts (`memory.doubt`), too surprising is left
        aside and reported as rejected. Raises ValueError naming stream, expected and got.
        """
        streams = self.policy.spec.of_role("observation")
        names = [stream.name for stream in streams]
        told = (("observation", observation), ("noise", noise or {}), ("missing", missing), ("age_s", age_s or {}))
        for label, given in told:
            unknown = sorted(set(given) - set(names))
            if unknown:
                raise ValueError(f"{label} {unknown[0]!r} is unknown; policy {self.policy.name!r} has {names}")
        readings, wild, misfits = dict[str, Reading](), set[str](), dict[str, float]()
        for name in names:
            error, age = (noise or {}).get(name), (age_s or {}).get(name)
            if error is not None and name in self.policy.cameras:
                raise ValueError(
                    f"noise {name!r} must be left out: it is a camera, whose frames have no standard error"
                )
            for label, number in (("noise", error), ("age_s", age)):
                if number is not None and not (np.isfinite(number) and number >= 0):
                    raise ValueError(f"{label} {name!r} must be finite and at least 0, got {number}")
            if name in missing:
                continue
            if name not in observation:
                raise ValueError(f"observation {name!r} is missing; send it or name it in 'missing'")
            # Frames end here: what is kept of them are latents.
            sensed = shaped(observation[name], name, "observation", self.policy)
            value = self.policy.seen(name, sensed)
            if self.policy.surprise is not None and name in self.policy.cameras:
                misfits[name] = self.policy.misfit(name, sensed)
            if error is not None:  # more says no more, and its square might be too much for a float
                error = min(error, FARTHEST * float(np.max(self.policy.normaliser.std[name])))
            if unbelievable(value, name, self.policy) is None and (age or 0.0) <= OLDEST_S:
                steps = None if age is None else round(age * self.policy.spec.control_hz)
                readings[name] = Reading(value, error, steps)
            else:
                wild.add(name)
        surprises = self._surprises(readings, misfits)
        for name in [name for name, surprise in surprises.items() if surprise > self._incredible]:
            del readings[name]
            wild.add(name)
        now = with_surprises(self._believed(readings, wild), surprises)
        if self._readings is not None:
            self._history[-1] = now  # the same step again: the newer observation counts
        else:
            self._history.append(now)
        self._readings = readings
        self._waiting.look(readings, self.plan is not None and bool(np.isfinite(self._last_sent).all()))

    def _surprises(self, readings: Mapping[str, Reading], misfits: Mapping[str, float]) -> dict[str, float]:
        """How surprising each reading of this step is, where the policy knows what is usual."""
        if self.policy.surprise is None:
            return {}
        before = list(self._history)[: -1 if self._readings is not None else None]
        return surprises(self.policy, self.plan, before, self.step, readings, misfits)

    @property
    def lacks_plan(self) -> bool:
        """Whether the robot must hold its place by itself until there is a plan: a policy that remembers plays what it
        learned as it is, and where that is places, zero is one of them."""
        return self._remembers and self.plan is None

    @property
    def _last_sent(self) -> Array:
        """[A], not finite where nobody knows."""
        return self._sent[-1] if self._sent else np.full(self.policy.spec.action.size, np.nan)

    @property
    def slow(self) -> bool:
        """Whether `observe` may take tens of milliseconds at this step."""
        return self._believer is not None and self._belief.slow

    def played(self, actions: Array) -> None:
        """The episode moves on by the steps, [K, A], at which the robot acted of its own, and nothing was sensed but
        what was observed before the first. After more than `SILENT_S` of that nothing is believed any more."""
        if len(actions) > SILENT_S * self.policy.spec.control_hz and not self._remembers:
            self._belief, self._readings = Belief(step=self.step + len(actions) - 1), None
            self._history.clear()
        elif self._believer is None:
            names = [stream.name for stream in self.policy.spec.of_role("observation")]
            for action in actions:
                if self._readings is None:
                    self.observe({}, missing=names)
                self._move_on(self._now(), action)
            return
        else:
            if self._readings is not None and len(actions):
                self._move_on(self._now(), actions[0])
                actions = actions[1:]
            self._belief = self._believer.silent(self._belief, actions)
            self._history.extend([Believed({}, {}, {}, 0.0)] * len(actions))
        self.step += len(actions)
        self._sent.extend(actions)
        self._unheard = {name: steps + len(actions) for name, steps in self._unheard.items()}

    def request(self, *, spare: bool = False) -> PlanRequest | None:
        """What to plan now, or None if the present plan still serves, the robot waits, or nobody knows where it is.

        spare: a plan costs nothing now, so that one serves for a frame and no longer.
        What is believed is planned from as it is: the network's own guess of a present that is declared noisy is worse
        (docs/experiments.md). Without a belief declared noise sets its level.

        Raises ValueError if nothing was observed at this step.
        """
        self._fresh = False
        now = self._now()
        if self._waiting.due or not self._plan_due(now, spare):
            return None
        if self._remembers:
            self._asked_at = self.step
            self._open = PlanRequest(
                step=self.step,
                frames={},
                noise={},
                goal=None,
                seed=self.seed,
                recalled=recalled(self.policy, self._history, self._sent),
            )
            return self._open
        age = self._age()
        assert self._readings is not None
        frames = frames_of(self.policy, self._history, self._readings, age)
        self._asked_at = self.step
        self._open = PlanRequest(
            step=self.step - age,
            frames=frames,
            sent=np.array(list(self._sent)[len(self._sent) - age :]),
            noise={} if self._believer is not None else {name: now.noise[name] for name in frames},
            goal=self.goal,
            seed=self.seed,
            obstacles=self.obstacles,
            current=self.plan,
            doubt=self._doubt(now),
        )
        return self._open

    def _doubt(self, now: Believed) -> dict[str, float]:
        """What the present may be off by, for a spread that was measured by it; nothing where nobody asks."""
        if self.policy.spread is None:
            return {}
        return now.noise if self._believer is None else self._believer.doubt(self._believing, now)

    def _now(self) -> Believed:
        if self._readings is None:
            raise ValueError(f"observe must be called first at step {self.step}")
        return self._history[-1]

    def _age(self) -> int:
        """Control steps since what is known now was so: none where a belief looks ahead from old readings itself."""
        assert self._readings is not None
        if self._believer is not None:
            return 0
        return min(len(self._sent), max((reading.age_steps or 0 for reading in self._readings.values()), default=0))

    def _believed(self, readings: dict[str, Reading], wild: set[str]) -> Believed:
        """What this step's readings come to; without dynamics, what they say. wild: streams that were left aside."""
        if self._believer is not None:
            self._believing, now = self._believer.take(self._belief, readings, self._sent, self.seed)
        else:
            unheard = {name: 0 if name in readings else steps + 1 for name, steps in self._unheard.items()}
            now = Believed(
                values={name: reading.value for name, reading in readings.items()},
                noise={name: reading.noise or 0.0 for name, reading in readings.items()},
                sensors={
                    name: SensorReport(readings[name].noise if name in readings else None, False, False, steps)
                    for name, steps in unheard.items()
                },
                late=0.0,
            )
        rejected = {name: replace(now.sensors[name], rejected=True) for name in wild}
        return replace(now, sensors={**now.sensors, **rejected})

    def install(self, plan: Plan) -> None:
        """Follows `plan` from now on. Raises ValueError if it does not answer the last request."""
        if self._open is None or self._open.step != plan.made_at_step:
            raise ValueError(f"plan must answer the last request, it was made at step {plan.made_at_step}")
        late = self.step - self._asked_at
        self._fresh = late == 0
        if self.plan is None:
            plan = replace(plan, made_at_step=plan.made_at_step + late)  # the robot held its place until now
        elif self._remembers:
            plan = replace(plan, made_at_step=self._asked_at)  # what was waited since is none of the episode
        self._follow(plan)
        self._planned_goal, self._planned_obstacles = self._open.goal, self._open.obstacles
        self._open, self._planned_at = None, self._asked_at

    def _follow(self, plan: Plan) -> None:
        self._tracker = Tracker(self.policy.preset.tracker, self.policy.spec, plan, self.policy.feedback)
        self.plan = plan

    def decide(self) -> Decision:
        """The action for the observation just given; the episode moves on one step.

        Without a plan the action is zero, cut to its limits, or where that is no way to hold (`lacks_plan`) NoPlan is
        raised. Who waits is held where it was last sent. Raises ValueError if nothing was observed at this step,
        FloatingPointError if the action is not finite; it is never handed out.
        """
        now = self._now()
        if self.lacks_plan:
            raise NoPlan(f"policy {self.policy.name!r} has no plan at step {self.step}, and no action to hold with")
        action_stream = self.policy.spec.action
        chunk, level, spread, feasible = np.zeros((1, action_stream.size)), 1.0, np.nan, False
        held = self._waiting.due
        if held:
            steps = min(self.policy.preset.tracker.chunk_steps, self._waiting.left)
            chunk = np.tile(np.asarray(self._last_sent, dtype=np.float64), (steps, 1))
        elif self._tracker is not None and self.plan is not None:
            # What is old tells nothing of where on its plan the robot is now.
            chunk, frame = self._tracker.chunk(now.values if self._age() == 0 else {}, self.step)
            level, feasible = float(self.plan.level[frame].max()), self.plan.feasible
            spread = float(np.linalg.norm(self.plan.spread[self.policy.spec.goal or action_stream.name][frame]))
        if not np.isfinite(chunk).all():
            raise FloatingPointError(f"policy {self.policy.name!r} produced a non-finite action at step {self.step}")
        low = np.full(action_stream.size, -np.inf) if action_stream.low is None else np.asarray(action_stream.low)
        high = np.full(action_stream.size, np.inf) if action_stream.high is None else np.asarray(action_stream.high)
        limited = np.clip(chunk, low, high).astype(np.float32)
        step = self.step
        if held:
            self._wait(now)
        else:
            self._move_on(now, limited[0])
        source: Source = "hold" if self.plan is None or held else "fresh" if self._fresh else "plan"
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
            sensors=now.sensors,
            late_steps=now.late,
        )

    def _move_on(self, now: Believed, action: Array) -> None:
        self._waited = False
        self._tick(now)
        self._sent.append(action)

    def _wait(self, now: Believed) -> None:
        """A step of the clock that is none of the episode: it is not remembered, and the plan is put off by it."""
        assert self.plan is not None
        self._waited = True
        self._tick(now)
        self._history.pop()
        self._asked_at, self._planned_at = self._asked_at + 1, self._planned_at + 1
        self._follow(replace(self.plan, made_at_step=self.plan.made_at_step + 1))

    def _tick(self, now: Believed) -> None:
        self.step += 1
        self._waiting.passed(self._waited)
        self._belief, self._readings = self._believing, None
        self._unheard = {name: report.unheard_steps for name, report in now.sensors.items()}

    def passed(self) -> None:
        """The episode moves on by the step just observed, at which nobody says what was done."""
        self._move_on(self._now(), np.full(self.policy.spec.action.size, np.nan))

    def correct(self, action: Array) -> None:
        """Says what was really sent at the step just decided on, [A]: a server may cut actions further."""
        if not self._waited:
            self._sent[-1] = np.asarray(action)

    def _plan_due(self, now: Believed, spare: bool) -> bool:
        goal = self.policy.spec.goal
        if goal is not None and goal not in now.values:
            return False  # nobody knows where the robot is: follow the plan there is, or hold
        if self.plan is None or not _same(self._planned_goal, self.goal):
            return True
        if self._planned_obstacles is not self.obstacles:
            return True
        serves = self.policy.preset.planner.replan_steps
        if spare:
            serves = min(serves, self.policy.preset.layout.stride)
        if self.step - self._planned_at < serves and not self._strayed(now):
            return False
        if self.goal is None or goal is None or self.policy.preset.tracker.kind == "actions":
            return True
        # Arrived, by a plan that leads to the goal: its end is held. Played actions cannot hold anything.
        enough = self.policy.planner.hold_distance
        ends = (now.values[goal], self.plan.streams[goal][-1])
        return any(np.linalg.norm(place - self.goal) > enough for place in ends)

    def _strayed(self, now: Believed) -> bool:
        error, goal = self.policy.preset.planner.replan_error, self.policy.spec.goal
        if error is None or goal is None or self._tracker is None:
            return False
        believable = error + 3 * now.noise.get(goal, 0.0)  # a sensor's own error is no reason for another plan
        return self._tracker.strayed(np.asarray(now.values[goal]), self.step) > believable


def _same(a: Array | None, b: Array | None) -> bool:
    return a is b or (a is not None and b is not None and np.array_equal(a, b))
