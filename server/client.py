"""A robot's side of the service: `Client` and `Session`, on httpx, websockets and numpy, without torch and FastAPI.

with Client("http://127.0.0.1:8000") as client, client.open("maze2d-medium", goal=[1.0, 2.0]) as session:
    reply = session.act({"position": position_m, "velocity": velocity_m_s})
    robot.do(reply.action)

ServerProblem                the server refused or failed, and said why
ServerUnreachable            no answer came, retries included
"""

import os
import ssl
import time
import uuid
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, Self

import httpx
import numpy as np
from numpy.typing import ArrayLike, NDArray
from websockets.sync.client import ClientConnection, connect

from forcing.policy.types import Plan, Source
from forcing.server import codec
from forcing.server.connection import Broken, ServerProblem, ServerUnreachable, Stream, answer_of

__all__ = ["ActResult", "Client", "Encoding", "ServerProblem", "ServerUnreachable", "Session"]

Encoding = Literal["msgpack", "json"]
Ball = Mapping[str, ArrayLike]
"""An obstacle: `centre` and `radius`, in the shape and units of goals."""
_MEDIA = {"msgpack": codec.MSGPACK, "json": codec.JSON}
_FIRST_PAUSE_S = 0.05
_BROKEN = (httpx.NetworkError, httpx.RemoteProtocolError, httpx.ConnectTimeout)


@dataclass(frozen=True, slots=True, kw_only=True)
class ActResult:
    """What to do at one control step, as in the server's reply.

    action: [A] float64. action_chunk: [H, A], `action` first; may be played until step valid_until_step if no further
    answer comes. source: fresh, plan or hold. noise_level, spread: of the planned frame being followed. feasible:
    whether that plan keeps all the planner's rules. sensors: stream -> noise, noise_level, rejected, stuck,
    unheard_steps and surprise, as the server sees them; late_steps: that readings seem to be late. timing: queue_ms,
    plan_ms, total_ms. What was not wanted is None. answered: False where no answer came in time, see `Session.drive`.
    """

    request_id: str
    step: int
    action: NDArray[np.float64]
    action_chunk: NDArray[np.float64] | None
    source: Source
    valid_until_step: int
    noise_level: float | None
    spread: float | None
    feasible: bool
    clipped: bool
    sensors: Mapping[str, Mapping[str, Any]]
    late_steps: float
    timing: Mapping[str, float] | None
    revision: str
    answered: bool = True


class Client:
    """A connection to one server; not thread safe. A broken connection is made anew, `retries` times a request.

    timeout_s: for an answer, where no call says otherwise.
    """

    def __init__(
        self,
        url: str,
        *,
        timeout_s: float = 30.0,
        retries: int = 3,
        encoding: Encoding = "msgpack",
        token: str | None = None,
        authorities: str | Path | None = None,
    ) -> None:
        """token: what the server asks for; that in the environment's FORCING_TOKEN if not given. authorities: a PEM
        file of those who may vouch for an https server; those that the system trusts if not given."""
        if encoding not in _MEDIA:
            raise ValueError(f"encoding must be one of {sorted(_MEDIA)}, got {encoding!r}")
        self._media = _MEDIA[encoding]
        self._retries = retries
        token = os.environ.get("FORCING_TOKEN") if token is None else token
        self._url, self.timeout_s = url.rstrip("/"), timeout_s
        self._identity = {} if token is None else {"Authorization": f"Bearer {token}"}
        self._trusted = ssl.create_default_context(cafile=authorities)
        headers = {"Accept": self._media} | self._identity
        self._http = httpx.Client(base_url=url, timeout=timeout_s, headers=headers, verify=self._trusted)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Closes the connections; sessions stay open on the server until their lease is over."""
        self._http.close()

    def ready(self) -> bool:
        """Whether the server takes work now. Raises ServerUnreachable."""
        try:
            self.call("GET", "/readyz")
        except ServerProblem as problem:
            if problem.status == 503:
                return False
            raise
        return True

    def policies(self) -> list[dict[str, Any]]:
        """id, revision and control_hz of each policy served."""
        found: list[dict[str, Any]] = self.call("GET", "/v1/policies")["policies"]
        return found

    def policy(self, policy: str) -> dict[str, Any]:
        """Streams, units, limits, rate, hashes and card of a policy. Raises ServerProblem (404) on an unknown one."""
        found: dict[str, Any] = self.call("GET", f"/v1/policies/{policy}")
        return found

    def open(
        self,
        policy: str,
        *,
        goal: ArrayLike | None = None,
        obstacles: Sequence[Ball] = (),
        seed: int = 0,
        control_hz: float | None = None,
        limits: Mapping[str, Sequence[float]] | None = None,
        lease_s: float = 60.0,
        record: bool = False,
        stream: bool = False,
    ) -> "Session":
        """A new session.

        goal: in the goal stream's units. obstacles: what plans stay out of. limits: low and high of the action, [A]
        each, and change. lease_s: the session ends after so long without an act. record: the server keeps its
        episodes. stream: acts go over a WebSocket of their own in place of a request each, which is quicker. Raises
        ServerProblem, ServerUnreachable.
        """
        body = {"policy": policy, "goal": self.array(goal), "seed": seed, "lease_s": lease_s}
        body |= {"obstacles": self.balls(obstacles)}
        body |= {"record": record or None, "control_hz": control_hz, "limits": None if limits is None else dict(limits)}
        change = None if limits is None else limits.get("change")
        return Session(self, self.call("POST", "/v1/sessions", body), stream=stream, change=change)

    def act_once(
        self, policy: str, history: Sequence[Mapping[str, ArrayLike]], *, goal: ArrayLike | None = None, seed: int = 0
    ) -> NDArray[np.float64]:
        """[H, A] actions for the newest observation of a history, without a session.

        history: oldest first, one a control step, stream -> value. Raises ServerProblem, ServerUnreachable.
        """
        observations = [{name: self.array(value) for name, value in entry.items()} for entry in history]
        body = {"policy": policy, "history": observations, "goal": self.array(goal), "seed": seed}
        return np.array(self.call("POST", "/v1/act", body)["action_chunk"], dtype=np.float64)

    def balls(self, obstacles: Sequence[Ball]) -> list[dict[str, Any]]:
        """Obstacles as they travel in this client's encoding."""
        return [
            {name: self.array(value) if name == "centre" else value for name, value in ball.items()}
            for ball in obstacles
        ]

    def array(self, value: ArrayLike | None) -> Any:
        """A value of a stream as it travels in this client's encoding."""
        if value is None:
            return None
        array = np.asarray(value)
        return codec.array_map(array) if self._media == codec.MSGPACK else array.tolist()

    def reading(self, value: ArrayLike) -> Any:
        """A sensor's value as it travels in this client's encoding; JSON has null for what is not finite."""
        array = np.asarray(value)
        if array.dtype == object:  # None for a number that is not there
            array = array.astype(np.float64)
        if self._media == codec.MSGPACK or array.dtype.kind != "f" or np.isfinite(array).all():
            return self.array(array)
        boxed = array.astype(object)
        boxed[~np.isfinite(array)] = None
        return boxed.tolist()

    def call(
        self, method: str, path: str, body: Mapping[str, Any] | None = None, *, within_s: float | None = None
    ) -> Any:
        """The decoded answer, None if empty. within_s: the only attempt may wait so long for each of connection and
        answer. Raises ServerProblem, ServerUnreachable; ValueError on NaN in JSON."""
        timeout = httpx.USE_CLIENT_DEFAULT if within_s is None else within_s
        content = None if body is None else codec.encode({k: v for k, v in body.items() if v is not None}, self._media)
        headers = {} if body is None else {"Content-Type": self._media}

        def ask() -> Any:
            try:
                return answer_of(self._http.request(method, path, content=content, headers=headers, timeout=timeout))
            except _BROKEN as error:
                raise Broken(f"{method} {path}: {error}") from error
            except httpx.TransportError as error:
                raise ServerUnreachable(f"{method} {path}: {type(error).__name__} {error}") from error

        return self.insist(ask, once=within_s is not None)

    def insist(self, ask: Callable[[], Any], *, once: bool) -> Any:
        """What `ask` returns, asked again as long as connections break, `retries` times. Raises ServerUnreachable."""
        retries = 0 if once else self._retries
        for attempt in range(retries + 1):
            try:
                return ask()
            except Broken as error:
                if attempt == retries:
                    attempts = f"{error} ({attempt + 1} attempts); is the server running?"
                    raise ServerUnreachable(f"no answer from {self._url}: {attempts}") from error
                time.sleep(_FIRST_PAUSE_S * 2**attempt)
        raise AssertionError("unreachable: the last attempt returns or raises")

    def stream(self, session_id: str) -> "Stream":
        """Where a session's acts may go, in place of a request each."""
        url = f"{self._url.replace('http', 'ws', 1)}/v1/sessions/{session_id}/stream"
        trusted = self._trusted if url.startswith("wss") else None

        def dial(within_s: float) -> ClientConnection:
            return connect(
                url,
                additional_headers=self._identity,
                ssl=trusted,
                compression=None,
                open_timeout=within_s,
                close_timeout=0,  # nobody waits for a server that may be frozen to say good-bye
            )

        return Stream(dial, self._media, self.timeout_s)


class Session:
    """One robot's session; as a context manager it is deleted at the end. Counts steps and names requests by itself."""

    def __init__(
        self,
        client: Client,
        opened: Mapping[str, Any],
        *,
        stream: bool = False,
        change: Sequence[float] | None = None,
    ) -> None:
        self.id: str = opened["session_id"]
        self.policy: str = opened["policy"]
        self.revision: str = opened["revision"]
        self.control_hz: float = opened["control_hz"]
        self.step: int = opened["step"]
        self._client = client
        self._stream = client.stream(self.id) if stream else None
        self._in_doubt = False
        self._change = np.inf if change is None else np.array(change)
        self._played: list[NDArray[np.float64]] = []  # actions of its own, one a control step since the last answer
        self._last: ActResult | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            self.close()
        except ServerUnreachable:
            if error is None:
                raise

    def act(
        self,
        observation: Mapping[str, ArrayLike],
        *,
        noise: Mapping[str, float] | None = None,
        missing: Collection[str] = (),
        age_ms: Mapping[str, float] | None = None,
        goal: ArrayLike | None = None,
        obstacles: Sequence[Ball] | None = None,
        deadline_ms: float | None = None,
        want: Sequence[str] | None = None,
    ) -> ActResult:
        """The action for what was sensed at this control step.

        observation: stream -> value in its units; one that is not finite is left aside. noise: stream -> standard
        error; the server estimates it where it is not told. missing: streams that were not sensed; a value given for
        one is not sent. age_ms: stream -> milliseconds since it was read. goal, obstacles: from now on, an empty list
        for none of them left.
        deadline_ms: answer by then, if need be from the plan at hand. want: optional parts of the reply, all by
        default. A repetition after a broken connection carries the same request id, so it is not acted on twice. Raises
        ServerProblem, ServerUnreachable.
        """
        if self._in_doubt:  # the last answer was lost: it may have been acted on
            self.step, self._in_doubt = self._fetch_plan()["step"], False
        body = self._body(
            observation, noise=noise, missing=missing, age_ms=age_ms, goal=goal, obstacles=obstacles, want=want
        )
        try:
            return self._asked(body | {"deadline_ms": deadline_ms})
        except ServerUnreachable:
            self._in_doubt = True
            raise

    def drive(
        self,
        observation: Mapping[str, ArrayLike],
        *,
        within_s: float,
        stop_steps: int = 20,
        noise: Mapping[str, float] | None = None,
        missing: Collection[str] = (),
        age_ms: Mapping[str, float] | None = None,
        goal: ArrayLike | None = None,
        obstacles: Sequence[Ball] | None = None,
    ) -> ActResult:
        """As `act`, but a robot always has an action: once every control step, for as long as it moves.

        within_s: how long to wait for a connection, if there is none, and as long for an answer; half of it is the
        server's deadline. When no answer comes, or one that says that the server could not plan or that it should be
        asked later, the result is not `answered`: its action is the next of the last chunk until `valid_until_step`,
        then the last one, made smaller in `stop_steps` equal steps, as fast as `limits.change` allows, and then 0.
        That lets what is driven by forces or velocities come to rest; a robot that is sent positions must hold its
        place by itself from `valid_until_step` on. The next request tells the server what was done. The first call of
        an episode waits for a plan where there is nothing to do before (`no-plan-yet`): it asks every within_s, as long
        as the client's timeout_s. Raises ValueError if stop_steps is below 1, ServerProblem on refusals that will not
        pass, such as an expired session or a wrong observation, and before the first answer what `act` raises.
        """
        if stop_steps < 1:
            raise ValueError(f"stop_steps must be at least 1, got {stop_steps}")
        body = self._body(observation, noise=noise, missing=missing, age_ms=age_ms, goal=goal, obstacles=obstacles)
        body["deadline_ms"] = 500 * within_s
        try:
            return self._begun(body, within_s) if self._last is None else self._asked(body, within_s=within_s)
        except (ServerUnreachable, ServerProblem) as error:
            if self._last is None or (isinstance(error, ServerProblem) and not _passes(error)):
                raise
        return self._without_answer(self._last, stop_steps)

    def _begun(self, body: dict[str, Any], within_s: float) -> ActResult:
        """The first answer. A robot that was told nothing yet is where it was: what it sensed stays true."""
        give_up = time.monotonic() + self._client.timeout_s
        while True:
            try:
                return self._asked(body, within_s=within_s)
            except ServerProblem as problem:
                if not problem.type.endswith("no-plan-yet") or time.monotonic() > give_up:
                    raise
            time.sleep(within_s)

    def _without_answer(self, last: ActResult, stop_steps: int) -> ActResult:
        """What the robot does at this step, of its own; the next request says so."""
        chunk = last.action[None] if last.action_chunk is None else last.action_chunk
        since, over = self.step - last.step, max(0, self.step - last.valid_until_step)
        rest = chunk[since:]
        if not len(rest):
            before = self._played[-1] if self._played else last.action
            slower = chunk[-1] * max(0.0, 1 - over / stop_steps)
            rest = np.clip(slower, before - self._change, before + self._change)[None]
        source: Source = "plan" if over == 0 else "hold"
        own = {"action": rest[0], "action_chunk": rest, "source": source, "timing": None, "answered": False}
        result = replace(last, step=self.step, **own)
        self._played.append(rest[0])
        self.step += 1
        return result

    def _body(
        self,
        observation: Mapping[str, ArrayLike],
        *,
        noise: Mapping[str, float] | None,
        missing: Collection[str],
        age_ms: Mapping[str, float] | None,
        goal: ArrayLike | None,
        obstacles: Sequence[Ball] | None,
        want: Sequence[str] | None = None,
    ) -> dict[str, Any]:
        if isinstance(missing, str):
            raise ValueError(f"missing must be a list of streams, got {missing!r}")
        sensed = {name: self._client.reading(value) for name, value in observation.items() if name not in missing}
        body: dict[str, Any] = {"observation": sensed, "missing": sorted(missing), "age_ms": _floats(age_ms)}
        body |= {"noise": _floats(noise), "goal": self._client.array(goal)}
        body |= {"obstacles": None if obstacles is None else self._client.balls(obstacles)}
        return body | {"want": None if want is None else list(want)}

    def _asked(self, body: dict[str, Any], *, within_s: float | None = None) -> ActResult:
        """The server's answer to an act at this step."""
        for attempt in range(2):
            played = self._client.array(np.array(self._played)) if self._played else None
            at = {"request_id": uuid.uuid4().hex, "step": self.step, "played": played}
            try:
                reply = self._posted(body | at, within_s)
            except ServerProblem as problem:
                # An answer was lost on its way: the server has taken that step, and needs not hear of it again.
                expected = _expected_step(problem)
                if attempt or expected is None:
                    raise
                taken = expected - len(self._played)
                self._played = self._played[max(0, len(self._played) - (self.step - taken)) :]
                self.step = max(self.step, taken)
                if self.step - len(self._played) != taken:
                    raise
                continue
            self.step, self._played, self._last = reply["step"] + 1, [], _act_result(reply)
            return self._last
        raise AssertionError("unreachable: the second attempt returns or raises")

    def _posted(self, body: Mapping[str, Any], within_s: float | None) -> Any:
        if self._stream is None:
            return self._client.call("POST", f"/v1/sessions/{self.id}/act", body, within_s=within_s)
        stream = self._stream
        return self._client.insist(lambda: stream.ask(body, within_s), once=within_s is not None)

    def plan(self) -> Plan | None:
        """The plan that is followed now, None before the first."""
        plan = self._fetch_plan()["plan"]
        return None if plan is None else _plan(plan)

    def reset(self, *, goal: ArrayLike | None = None, seed: int | None = None) -> None:
        """Begins a new episode; goal and seed stay as they were if not given."""
        body = {"goal": self._client.array(goal), "seed": seed}
        self.step = self._client.call("POST", f"/v1/sessions/{self.id}/reset", body)["step"]
        self._in_doubt, self._played, self._last = False, [], None

    def close(self) -> None:
        """Ends the session; if it is already gone, that is as good."""
        if self._stream is not None:
            self._stream.close()
        try:
            self._client.call("DELETE", f"/v1/sessions/{self.id}")
        except ServerProblem as problem:
            if problem.status not in (404, 410):
                raise

    def _fetch_plan(self) -> dict[str, Any]:
        reply: dict[str, Any] = self._client.call("GET", f"/v1/sessions/{self.id}/plan")
        return reply


def _passes(problem: ServerProblem) -> bool:
    """Whether the same request may be answered a little later."""
    return problem.status in (429, 500, 503) or problem.type.endswith("session-busy")


def _expected_step(problem: ServerProblem) -> int | None:
    """What a refusal for its step expects, None if it is no such refusal or does not say."""
    told = [error["expected"] for error in problem.errors if error["field"] == "step"]
    return int(told[0]) if problem.type.endswith("step-conflict") and told and told[0].isdigit() else None


def _floats(table: Mapping[str, float] | None) -> dict[str, float] | None:
    return None if table is None else {name: float(number) for name, number in table.items()}


def _act_result(reply: Mapping[str, Any]) -> ActResult:
    chunk = reply.get("action_chunk")
    return ActResult(
        request_id=reply["request_id"],
        step=reply["step"],
        action=np.array(reply["action"], dtype=np.float64),
        action_chunk=None if chunk is None else np.array(chunk, dtype=np.float64),
        source=reply["source"],
        valid_until_step=reply["valid_until_step"],
        noise_level=reply["noise_level"],
        spread=reply.get("spread"),
        feasible=reply["feasible"],
        clipped=reply["clipped"],
        sensors=reply["sensors"],
        late_steps=reply["late_steps"],
        timing=reply.get("timing"),
        revision=reply["revision"],
    )


def _plan(body: Mapping[str, Any]) -> Plan:
    def arrays(streams: Mapping[str, Any]) -> dict[str, NDArray[np.float64]]:
        return {name: np.array(values, dtype=np.float64) for name, values in streams.items()}

    return Plan(
        made_at_step=body["made_at_step"],
        start=arrays(body["start"]),
        steps=np.array(body["steps"], dtype=np.int64),
        streams=arrays(body["streams"]),
        level=np.array(body["level"], dtype=np.float64),
        spread=arrays(body["spread"]),
        candidates=np.array(body["candidates"], dtype=np.float64),
        costs=np.array(body["costs"], dtype=np.float64),
        chosen=body["chosen"],
        feasible=body["feasible"],
        passes=body["passes"],
    )
