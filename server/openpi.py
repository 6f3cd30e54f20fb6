"""openpi's protocol over a WebSocket, so that its stock client drives a robot with a policy of ours.

One connection is one robot. The server speaks first: the policy's description with an example observation. Then a
binary message with an observation is answered by one with `actions` [H, A], or by text that says what was wrong. Maps
travel in msgpack, arrays as maps with the keys b"__ndarray__", b"data", b"dtype" and b"shape"
(github.com/Physical-Intelligence/openpi, packages/openpi-client).
"""

import contextlib
import logging
import uuid
from typing import Any

import numpy as np
from fastapi import APIRouter, WebSocket, WebSocketDisconnect
from pydantic import BaseModel, ConfigDict, Field

from forcing.policy.types import Array
from forcing.server import codec
from forcing.server.errors import InvalidRequest, NotFound, ServiceError, SessionExpired, unforeseen
from forcing.server.schemas import ActRequest, OneShotRequest, OpenRequest
from forcing.server.service import Service
from forcing.server.wire import checked, decoded, received

_OF_A_SESSION = {"noise", "missing", "age_ms", "obstacles", "deadline_ms", "reset"}
_TIMES = (("policy", "plan_ms"), ("server", "total_ms"))
logger = logging.getLogger(__name__)
MOST_MISSED = 1000  # control steps between two messages; more must be a mistake
router = APIRouter()


class Extras(BaseModel):
    """What a message may hold besides observation streams.

    goal: from now on. step: of the control loop, rising; without it every message is planned for afresh, and nothing is
    known of the messages before. reset: a new episode begins with this observation. The others as in `ActRequest`.
    """

    model_config = ConfigDict(extra="forbid", strict=True, arbitrary_types_allowed=True)

    goal: Any = None
    step: int | None = Field(default=None, ge=0)
    reset: bool = False
    noise: dict[str, float] | None = None
    missing: list[str] = Field(default_factory=list)
    age_ms: dict[str, float] | None = None
    obstacles: list[dict[str, Any]] | None = None
    deadline_ms: float | None = None
    seed: int = 0


@router.websocket("/")
async def only_policy(socket: WebSocket) -> None:
    """The policy that was named first when the server was started."""
    await _serve(socket, _service(socket).policies().policies[0].id)


@router.websocket("/v1/openpi/{policy}")
async def named_policy(socket: WebSocket, policy: str) -> None:
    """A policy by its id."""
    await _serve(socket, policy)


def _service(socket: WebSocket) -> Service:
    service = socket.app.state.service
    assert isinstance(service, Service)
    return service


async def _serve(socket: WebSocket, policy: str) -> None:
    robot = _Robot(_service(socket), policy)
    await socket.accept()
    try:
        await socket.send_bytes(_packed(robot.description()))
        while True:
            answer = await _answer(robot, *await received(socket))
            await (socket.send_text(answer) if isinstance(answer, str) else socket.send_bytes(answer))
    except ServiceError as error:
        await socket.send_text(_told(error))
        await socket.close(code=1008)
    except WebSocketDisconnect:
        pass
    finally:
        robot.leave()


async def _answer(robot: "_Robot", media: str, data: bytes) -> bytes | str:
    """What the client unpacks, or text, which it raises."""
    try:
        if media != codec.MSGPACK:
            raise InvalidRequest.one("message", "msgpack in a binary message", "text")
        value = decoded(data, media)
        if not isinstance(value, dict) or not all(isinstance(name, str) for name in value):
            raise InvalidRequest.one("message", "a map of names to values", type(value).__name__)
        return _packed(await robot.infer(value))
    except ServiceError as error:
        return _told(error)
    except Exception:
        logger.exception("a message of openpi's client could not be answered")
        return _told(unforeseen())


def _told(error: ServiceError) -> str:
    return f"{error.status} {error.title}: {error.detail}"


class _Robot:
    """One connection: with steps a session, without them one shot after another."""

    def __init__(self, service: Service, policy: str) -> None:
        self._service, self._policy = service, policy
        self._goal: Any = None
        self._session: str | None = None
        self._next = 0  # the session's own next step
        self._offset = 0  # of the robot's step before it
        self._chunk: Array | None = None  # [H, A] that was sent last

    def description(self) -> dict[str, Any]:
        """What `GET /v1/policies/{id}` says, and `example`: a message that would be answered. Raises NotFound."""
        described = self._service.policy(self._policy).model_dump()
        return described | {"example": self._service.example(self._policy)}

    async def infer(self, message: dict[str, Any]) -> dict[str, Any]:
        """`actions` [H, A] and where they come from. Raises ServiceError."""
        names = self._names()
        observation = {name: value for name, value in message.items() if name in names}
        rest = {name: value for name, value in message.items() if name not in names}
        extras = checked(Extras, rest, also=names)
        if extras.goal is not None:
            self._goal = extras.goal
        if extras.step is not None:
            return await self._in_session(observation, extras, extras.step)
        lost = sorted(rest.keys() & _OF_A_SESSION)
        if lost:
            raise InvalidRequest.one(
                lost[0], "a step beside it, since it means something in a session alone", "no step"
            )
        return await self._one_shot(observation, extras)

    async def _one_shot(self, observation: dict[str, Any], extras: Extras) -> dict[str, Any]:
        body = {"policy": self._policy, "history": [observation], "goal": self._goal, "seed": extras.seed}
        reply = await self._service.act_once(checked(OneShotRequest, body))
        return _reply(reply.model_dump(exclude_unset=True))

    async def _in_session(self, observation: dict[str, Any], extras: Extras, step: int) -> dict[str, Any]:
        if self._session is None or extras.reset:
            self.leave()
            body = {"policy": self._policy, "goal": self._goal, "seed": extras.seed, "lease_s": 3600.0}
            self._session = self._service.open_session(checked(OpenRequest, body), kept=False).session_id
            self._next, self._offset = 0, step
        missed = step - self._offset - self._next
        if not 0 <= missed <= MOST_MISSED:
            expected = f"from {self._offset + self._next} on, at most {MOST_MISSED} further; or reset"
            raise InvalidRequest.one("step", expected, str(step))
        body = {"observation": observation, "noise": extras.noise, "missing": extras.missing, "age_ms": extras.age_ms}
        body |= {"goal": extras.goal, "obstacles": extras.obstacles, "deadline_ms": extras.deadline_ms}
        body |= {"request_id": uuid.uuid4().hex, "step": self._next + missed, "played": self._played(missed)}
        try:
            reply = await self._service.act(self._session, checked(ActRequest, body))
        except (SessionExpired, NotFound):
            self._session = None  # the next message begins another
            raise
        self._next, self._chunk = reply.step + 1, np.array(reply.action_chunk)
        return _reply(reply.model_dump(exclude_unset=True))

    def _played(self, steps: int) -> Array | None:
        """[steps, A] what the client did since its last message: what it was sent, and then nothing."""
        if steps == 0:
            return None
        size = self._service.spec(self._policy).action.size
        chunk = np.zeros((0, size)) if self._chunk is None else self._chunk[1:]
        return np.concatenate([chunk, np.zeros((steps, size))])[:steps]

    def _names(self) -> list[str]:
        return [stream.name for stream in self._service.spec(self._policy).of_role("observation")]

    def leave(self) -> None:
        """Ends the session, if there is one."""
        if self._session is not None:
            with contextlib.suppress(ServiceError):
                self._service.close_session(self._session)
            self._session = None
        self._chunk = None


def _reply(said: dict[str, Any]) -> dict[str, Any]:
    """In openpi's words: `actions`, and times in `server_timing` and `policy_timing`."""
    timing = said.pop("timing", None) or {}
    actions = np.array(said.pop("action_chunk"), dtype=np.float64)
    del said["action"]  # the first of them
    times = {f"{where}_timing": {"infer_ms": timing.get(name, 0.0)} for where, name in _TIMES}
    return said | {"actions": actions} | times


def _packed(value: Any) -> bytes:
    return codec.encode(_openpi(value), codec.MSGPACK)


def _openpi(value: Any) -> Any:
    """Arrays as openpi's maps, whose keys are bytes."""
    if isinstance(value, dict):
        return {name: _openpi(entry) for name, entry in value.items()}
    if isinstance(value, np.ndarray):
        return {name.encode(): entry for name, entry in codec.array_map(value).items()}
    return value
