"""Who drives an episode: a policy in this process, a server, or a yardstick without any learned plan.

Every driver answers one observation with one action. Knows no scores and no files.
"""

import contextlib
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import Any, Protocol

from forcing.eval.fronts import Front
from forcing.eval.maze_tasks import MazeTask
from forcing.eval.task import Task
from forcing.policy.clone import Clone
from forcing.policy.controller import Controller
from forcing.policy.policy import Policy
from forcing.policy.types import Array, Plan, SensorReport
from forcing.server.client import Client, ServerUnreachable, Session


@dataclass(slots=True)
class Trace:
    """What a driver did, one after another. plans: those followed; plan_ms: how long each took to make; act_ms: how
    long each action took, from observation to decision, a plan included; sources: of each action; sensors: what the
    policy thought of each observed stream's sensor at each act. token_steps: control steps of a token of the plans,
    None where the driver does not know."""

    plans: list[Plan] = field(default_factory=list)
    plan_ms: list[float] = field(default_factory=list)
    act_ms: list[float] = field(default_factory=list)
    sources: list[str] = field(default_factory=list)
    sensors: list[Mapping[str, SensorReport]] = field(default_factory=list)
    token_steps: int | None = None


class Driver(Protocol):
    """Drives one episode after another."""

    name: str

    def begin(self, observation: Mapping[str, Array], seed: int) -> Trace:
        """Starts an episode whose first observation this is; the trace fills up as it goes on."""
        ...

    def act(self, observation: Mapping[str, Array]) -> Array:
        """[A] the action for this observation."""
        ...

    def end(self) -> None:
        """Ends the episode, if there is one; another may begin."""
        ...

    def close(self) -> None: ...


class PolicyDriver:
    """A policy in this process. front: what stands between the sensors and it, None for nothing."""

    def __init__(self, policy: Policy, task: Task, front: Front | None = None) -> None:
        self.name, self._policy, self._task, self._front = policy.name, policy, task, front
        self._streams = [stream.name for stream in policy.spec.of_role("observation")]

    def begin(self, observation: Mapping[str, Array], seed: int) -> Trace:
        if self._front is not None:
            self._front.begin()
        self._controller = Controller(self._policy, goal=self._task.goal(observation), seed=seed)
        self._trace = Trace(token_steps=self._policy.preset.layout.token_steps)
        return self._trace

    def act(self, observation: Mapping[str, Array]) -> Array:
        began = time.perf_counter()
        read, missing = sensed(self._task, observation, self._streams)
        if self._front is None:
            self._controller.observe(read, missing=missing)
        else:
            self._controller.observe(**self._front.told(read))
        request = self._controller.request()
        if request is not None:
            asked = time.perf_counter()
            plan = self._policy.plan(request)
            self._trace.plan_ms.append(_ms_since(asked))
            if self._task.keeps_plans:
                self._trace.plans.append(plan)
            self._controller.install(plan)
        decision = self._controller.decide()
        self._trace.act_ms.append(_ms_since(began))
        self._trace.sources.append(decision.source)
        self._trace.sensors.append(decision.sensors)
        return decision.action

    def end(self) -> None:
        """Nothing to end."""

    def close(self) -> None:
        """Nothing to let go of."""


class ServerDriver:
    """A policy behind a URL; one session an episode. stream: acts go over a WebSocket."""

    def __init__(self, url: str, policy: str, task: Task, *, stream: bool = False) -> None:
        self.name, self._policy, self._task, self._streamed = policy, policy, task, stream
        self._client = Client(url)
        self._streams: list[str] | None = None
        self._session: Session | None = None

    def begin(self, observation: Mapping[str, Array], seed: int) -> Trace:
        self.end()
        if self._streams is None:
            self._streams = served_streams(self._client, self._policy)
        goal = self._task.goal(observation)
        self._session = self._client.open(self._policy, goal=goal, seed=seed, stream=self._streamed)
        self._trace = Trace()
        return self._trace

    def act(self, observation: Mapping[str, Array]) -> Array:
        assert self._session is not None
        assert self._streams is not None
        began = time.perf_counter()
        read, missing = sensed(self._task, observation, self._streams)
        reply = self._session.act(read, missing=missing)
        self._trace.act_ms.append(_ms_since(began))
        self._trace.sources.append(reply.source)
        self._trace.sensors.append({name: _report(told) for name, told in reply.sensors.items()})
        if reply.source == "fresh" and reply.timing is not None:
            self._trace.plan_ms.append(reply.timing["plan_ms"])
            plan = self._session.plan() if self._task.keeps_plans else None
            if plan is not None:
                self._trace.plans.append(plan)
        return reply.action

    def end(self) -> None:
        session, self._session = self._session, None
        if session is not None:
            with contextlib.suppress(ServerUnreachable):  # then its lease ends it
                session.close()

    def close(self) -> None:
        self.end()
        self._client.close()


class StraightDriver:
    """No plan at all: straight at the goal. What any planner must beat."""

    name = "straight"

    def __init__(self, task: MazeTask) -> None:
        self._task = task

    def begin(self, observation: Mapping[str, Array], seed: int) -> Trace:
        return Trace()

    def act(self, observation: Mapping[str, Array]) -> Array:
        return self._task.straight(observation)

    def end(self) -> None:
        """Nothing to end."""

    def close(self) -> None:
        """Nothing to let go of."""


class ExpertDriver:
    """The scripted expert that made the data, without its noise; it knows more than policies do."""

    name = "expert"

    def __init__(self, task: Task) -> None:
        self._expert = task.expert()

    def begin(self, observation: Mapping[str, Array], seed: int) -> Trace:
        self._expert.reset(observation, seed)
        self._trace = Trace()
        return self._trace

    def act(self, observation: Mapping[str, Array]) -> Array:
        began = time.perf_counter()
        action = self._expert.act(observation)
        self._trace.act_ms.append(_ms_since(began))
        return action

    def end(self) -> None:
        """Nothing to end."""

    def close(self) -> None:
        """Nothing to let go of."""


class CloneDriver:
    """A network that was cloned from a recording, without any plan."""

    def __init__(self, clone: Clone, task: MazeTask) -> None:
        self.name, self._clone, self._task = clone.name, clone, task

    def begin(self, observation: Mapping[str, Array], seed: int) -> Trace:
        self._goal, self._trace = self._task.goal(observation), Trace()
        return self._trace

    def act(self, observation: Mapping[str, Array]) -> Array:
        began = time.perf_counter()
        action = self._clone.action(self._task.observe(observation), self._goal)
        self._trace.act_ms.append(_ms_since(began))
        return action

    def end(self) -> None:
        """Nothing to end."""

    def close(self) -> None:
        """Nothing to let go of."""


def sensed(task: Task, observation: Mapping[str, Array], streams: Sequence[str]) -> tuple[dict[str, Array], list[str]]:
    """What a policy that observes these streams is told: those that were sensed, and the names of those that were
    not."""
    read = task.observe(observation)
    return {name: read[name] for name in streams if name in read}, [name for name in streams if name not in read]


def served_streams(client: Client, policy: str) -> list[str]:
    """What a served policy observes. Raises ServerProblem, ServerUnreachable."""
    return [stream["name"] for stream in client.policy(policy)["streams"] if stream["role"] == "observation"]


def _report(told: Mapping[str, Any]) -> SensorReport:
    """As the server's own controller has it."""
    return SensorReport(**{field.name: told[field.name] for field in fields(SensorReport)})


def _ms_since(began: float) -> float:
    return 1000 * (time.perf_counter() - began)
