"""Where HTTP meets the codec: bodies read up to a limit and decoded, replies encoded as asked, errors as problems."""

import json
import math
from collections.abc import Callable, Coroutine, Iterable
from typing import Any, TypeVar

from fastapi import FastAPI, Request, Response, WebSocket, WebSocketDisconnect
from fastapi.exceptions import RequestValidationError
from fastapi.routing import APIRoute
from pydantic import BaseModel, ValidationError
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from forcing.server import codec
from forcing.server.errors import (
    PROBLEM_MEDIA_TYPE,
    BodyTooLarge,
    FieldError,
    InvalidRequest,
    MalformedBody,
    ServiceError,
    UnsupportedMediaType,
    did_you_mean,
    http_problem,
    problem_document,
    unforeseen,
)
from forcing.server.metrics import Metrics

_BODY_MEDIA = "forcing.body_media"
Model = TypeVar("Model", bound=BaseModel)


class CodecRoute(APIRoute):
    """A route whose JSON or msgpack body is read up to `app.state.max_body_bytes` and decoded before validation."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        handle = super().get_route_handler()
        fields = [param.field_info.annotation for param in self.dependant.body_params]
        known = [name for body in fields for name in getattr(body, "model_fields", ())]

        async def decoding(request: Request) -> Response:
            if fields:
                request = await _decoded(request)
            try:
                return await handle(request)
            except RequestValidationError as error:
                raise _invalid(error.errors(), known) from error

        return decoding


class _DecodedRequest(Request):
    """A request that looks to FastAPI like one with a JSON body."""

    def __init__(self, request: Request, value: Any, media: str) -> None:
        headers = [(name, text) for name, text in request.scope["headers"] if name != b"content-type"]
        as_json = [*headers, (b"content-type", codec.JSON.encode())]
        scope = {**request.scope, "headers": as_json, _BODY_MEDIA: media}
        super().__init__(scope, request.receive)
        self._value = value

    async def body(self) -> bytes:
        return b"already decoded"

    async def json(self) -> Any:
        return self._value


async def _decoded(request: Request) -> Request:
    """Raises UnsupportedMediaType, BodyTooLarge or MalformedBody. A missing body is an empty map."""
    header = request.headers.get("content-type")
    media = codec.media_type(header)
    data = await _read(request, request.app.state.max_body_bytes)
    if not data:
        return _DecodedRequest(request, {}, codec.JSON)
    if media is None:
        raise UnsupportedMediaType(f"Content-Type must be {codec.JSON} or {codec.MSGPACK}, got {header!r:.100}")
    try:
        return _DecodedRequest(request, codec.decode(data, media), media)
    except ValueError as error:
        raise MalformedBody(f"the body is not valid {media}: {error!s:.300}") from error


async def _read(request: Request, limit: int) -> bytes:
    too_large = BodyTooLarge(f"a body may have {limit} bytes; send fewer or smaller arrays")
    declared = request.headers.get("content-length", "0")
    if declared.isdigit() and int(declared) > limit:
        raise too_large
    data = bytearray()
    async for part in request.stream():
        data += part
        if len(data) > limit:
            raise too_large
    return bytes(data)


def encoded(request: Request, reply: BaseModel, status: int = 200) -> Response:
    """The reply in the format that Accept names, else in the request's own."""
    media = codec.accepted(request.headers.get("accept"), request.scope.get(_BODY_MEDIA, codec.JSON))
    return Response(codec.encode(reply.model_dump(exclude_unset=True), media), status, media_type=media)


def answer_errors_as_problems(app: FastAPI) -> None:
    """Every error of the app becomes an application/problem+json answer without a traceback."""

    async def service_error(_: Request, error: Exception) -> Response:
        assert isinstance(error, ServiceError)
        return problem(error)

    async def http_error(_: Request, error: Exception) -> Response:
        assert isinstance(error, HTTPException)
        return _problem(http_problem(error.status_code, str(error.detail)), dict(error.headers or {}))

    async def any_other(_: Request, error: Exception) -> Response:
        return problem(unforeseen())

    app.add_exception_handler(ServiceError, service_error)
    app.add_exception_handler(HTTPException, http_error)
    app.add_exception_handler(Exception, any_other)


def problem(error: ServiceError) -> Response:
    """The error as an application/problem+json answer, with the headers that its status asks for."""
    headers = {}
    if error.retry_after_s is not None:
        headers["Retry-After"] = str(max(1, math.ceil(error.retry_after_s)))
    if error.status == 401:
        headers["WWW-Authenticate"] = "Bearer"
    return _problem(problem_document(error), headers)


def _problem(document: dict[str, Any], headers: dict[str, str]) -> Response:
    return Response(json.dumps(document).encode(), document["status"], headers, PROBLEM_MEDIA_TYPE)


def checked(model: type[Model], value: Any, also: Iterable[str] = ()) -> Model:
    """A value that came over a socket as a model. also: names that may stand there besides, for hints. Raises
    InvalidRequest."""
    try:
        return model.model_validate(value)
    except ValidationError as error:
        raise _invalid(error.errors(), [*model.model_fields, *also]) from error


async def received(socket: WebSocket) -> tuple[str, bytes]:
    """A message: JSON for text, msgpack for bytes, and what is in it. Raises WebSocketDisconnect."""
    message = await socket.receive()
    if message["type"] == "websocket.disconnect":
        raise WebSocketDisconnect(message.get("code", 1000))
    data = message.get("bytes")
    return (codec.JSON, message["text"].encode()) if data is None else (codec.MSGPACK, data)


def decoded(data: bytes, media: str) -> Any:
    """Raises MalformedBody."""
    try:
        return codec.decode(data, media)
    except ValueError as error:
        raise MalformedBody(f"the message is not valid {media}: {error!s:.300}") from error


def _invalid(errors: Iterable[Any], known: list[str]) -> InvalidRequest:
    return InvalidRequest([_field_error(dict(item), known) for item in errors])


def _field_error(error: dict[str, Any], known: list[str]) -> FieldError:
    """pydantic's error as ours."""
    path = [str(part) for part in error["loc"] if part != "body"] or ["body"]
    field, got = ".".join(path)[:200], f"{error['input']!r:.100}"
    if error["type"] == "missing":
        return FieldError(field, "a value", "nothing")
    if error["type"] == "extra_forbidden":
        hint = did_you_mean(path[0], known) if len(path) == 1 else ""
        return FieldError(field, f"no such field{hint}", got)
    rule = str(error["msg"]).removeprefix("Value error, ").removeprefix("Input should be ")
    return FieldError(field, rule, got)


class CountRequests:
    """ASGI middleware that counts answered requests by method, route template and status."""

    def __init__(self, app: ASGIApp, metrics: Metrics) -> None:
        self._app, self._metrics = app, metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return

        async def counting(message: Message) -> None:
            if message["type"] == "http.response.start":
                route = getattr(scope.get("route"), "path", "unmatched")
                self._metrics.requests.labels(scope["method"], route, str(message["status"])).inc()
            await send(message)

        await self._app(scope, receive, counting)
