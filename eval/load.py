"""Simulated robots that ask a server at their control rate, all from one process: the other side of `forcing bench
serve`. Answers are measured as a robot feels them, from the observation to the action."""

import asyncio
import time
from collections import Counter
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

import httpx
import numpy as np
import websockets

from forcing.eval.maze_tasks import MazeTask
from forcing.eval.task import Env, Observation
from forcing.eval.tasks import find_maze
from forcing.server import codec

Transport = Literal["request", "stream", "naive"]
FIRST_STEPS = 600  # of the last robot's first episode; of the others' a share


@dataclass(frozen=True, slots=True, kw_only=True)
class Load:
    """robots at `hz` each for `seconds`. transport: a `request` each act, a WebSocket `stream` each robot, or a request
    to the `naive` server, which knows no sessions. deadline_ms: with every act, None for none."""

    robots: int
    hz: float
    transport: Transport
    seconds: float
    deadline_ms: float | None = None


@dataclass(slots=True)
class Felt:
    """ms: from each observation to its action. sources: of the actions. without: acts that got no action. skipped:
    control steps that were over before the last answer had come."""

    ms: list[float] = field(default_factory=list)
    sources: Counter[str] = field(default_factory=Counter)
    without: int = 0
    skipped: int = 0


class _Line(Protocol):
    async def begin(self, goal: list[float]) -> None: ...
    async def act(self, body: Mapping[str, Any]) -> Mapping[str, Any]: ...


def felt(url: str, policy: str, task_name: str, load: Load) -> Felt:
    """What all robots felt."""
    task, result = find_maze(task_name), Felt()
    envs = [task.make() for _ in range(load.robots)]  # which takes longer than any act

    async def all_robots() -> None:
        over = time.perf_counter() + load.seconds
        robots = (_robot(url, policy, task, env, number, load, over, result) for number, env in enumerate(envs))
        await asyncio.gather(*robots)

    asyncio.run(all_robots())
    for env in envs:
        env.close()
    return result


async def _robot(
    url: str, policy: str, task: MazeTask, env: Env, number: int, load: Load, over: float, result: Felt
) -> None:
    """Episode after episode from when its session is open until the time is over."""
    period_s, step = 1 / load.hz, 0
    observation = task.reset(env, number, number)
    async with _line(url, policy, number, load.transport) as line:
        await line.begin(task.goal(observation).tolist())
        # All begin at once, but their clocks are their own, and they end their first episodes one by one.
        due = time.perf_counter() + period_s * number / load.robots
        first = max(1, (number + 1) * FIRST_STEPS // load.robots)
        while due < over:
            await asyncio.sleep(max(0.0, due - time.perf_counter()))
            observation, step = await _step(line, task, env, observation, step, load, result)
            if step == first:
                observation, step, first = task.reset(env, number, number), 0, -1
            if step == 0:
                await line.begin(task.goal(observation).tolist())
            due += period_s
            while due < time.perf_counter() - period_s:
                result.skipped, due = result.skipped + 1, due + period_s


async def _step(
    line: _Line, task: MazeTask, env: Any, observation: Observation, step: int, load: Load, result: Felt
) -> tuple[Observation, int]:
    """What the robot sees next, and at which step of its episode."""
    body = {
        "request_id": str(step),
        "step": step,
        "observation": {name: np.asarray(value).tolist() for name, value in task.observe(observation).items()},
        "want": [],
    }
    asked = time.perf_counter()
    answer = await line.act(body if load.deadline_ms is None else body | {"deadline_ms": load.deadline_ms})
    result.ms.append((time.perf_counter() - asked) * 1000)
    if "action" not in answer:
        result.without += 1
        return observation, step
    result.sources[answer["source"]] += 1
    observation, _, _, truncated, _ = env.step(np.asarray(answer["action"], dtype=np.float32))
    return (task.reset(env, step, step), 0) if truncated else (observation, step + 1)


@asynccontextmanager
async def _line(url: str, policy: str, seed: int, transport: Transport) -> AsyncIterator[_Line]:
    headers = {"Content-Type": codec.MSGPACK, "Accept": codec.MSGPACK}
    # Plain HTTP: reading certificates takes 20 to 40 ms of each robot that begins, in which no other can act.
    async with httpx.AsyncClient(base_url=url, headers=headers, timeout=60, verify=False) as http:
        if transport == "naive":
            yield _Naive(http)
            return
        session = await _post(http, "/v1/sessions", {"policy": policy, "seed": seed})
        root = f"/v1/sessions/{session['session_id']}"
        if transport == "request":
            yield _Requests(http, root)
            return
        address = url.replace("http", "ws", 1) + f"{root}/stream"
        async with websockets.connect(address, compression=None) as socket:
            yield _Stream(http, root, socket)


@dataclass(slots=True)
class _Requests:
    http: httpx.AsyncClient
    root: str

    async def begin(self, goal: list[float]) -> None:
        await _post(self.http, f"{self.root}/reset", {"goal": goal})

    async def act(self, body: Mapping[str, Any]) -> Mapping[str, Any]:
        return await _post(self.http, f"{self.root}/act", body)


@dataclass(slots=True)
class _Stream(_Requests):
    socket: websockets.ClientConnection

    async def act(self, body: Mapping[str, Any]) -> Mapping[str, Any]:
        await self.socket.send(codec.encode(body, codec.MSGPACK))
        answer = await self.socket.recv()
        assert isinstance(answer, bytes)
        decoded: Mapping[str, Any] = codec.decode(answer, codec.MSGPACK)
        return decoded


@dataclass(slots=True)
class _Naive:
    http: httpx.AsyncClient
    goal: list[float] = field(default_factory=list)

    async def begin(self, goal: list[float]) -> None:
        self.goal = goal

    async def act(self, body: Mapping[str, Any]) -> Mapping[str, Any]:
        return await _post(self.http, "/act", {"observation": body["observation"], "goal": self.goal})


async def _post(http: httpx.AsyncClient, path: str, body: Mapping[str, Any]) -> Mapping[str, Any]:
    answer = await http.post(path, content=codec.encode(body, codec.MSGPACK))
    decoded: Mapping[str, Any] = codec.decode(answer.content, codec.MSGPACK) if answer.is_success else {}
    return decoded
