"""A session's acts over a WebSocket: one message an act, one answer each, without a request of its own for every step.

What travels is what HTTP carries, an act request and its reply, or the problem document instead. JSON in text messages,
msgpack in binary ones; the answer comes in the kind of the message.
"""

from typing import Any

from fastapi import APIRouter, WebSocket, WebSocketDisconnect
from pydantic import BaseModel, ValidationError

from forcing.server import codec
from forcing.server.errors import InvalidRequest, MalformedBody, ServiceError, problem_document
from forcing.server.schemas import ActRequest
from forcing.server.service import Service
from forcing.server.wire import field_error

router = APIRouter()


@router.websocket("/v1/sessions/{session_id}/stream")
async def stream(socket: WebSocket, session_id: str) -> None:
    """Acts of one session, answered one after another."""
    service = socket.app.state.service
    assert isinstance(service, Service)
    await socket.accept()
    try:
        while True:
            media, data = await received(socket)
            answer: BaseModel | dict[str, Any]
            try:
                answer = await service.act(session_id, _request(data, media))
            except ServiceError as error:
                answer = problem_document(error) | {"retry_after_s": error.retry_after_s}
            plain = answer if isinstance(answer, dict) else answer.model_dump(exclude_unset=True)
            packed = codec.encode(plain, media)
            await (socket.send_bytes(packed) if media == codec.MSGPACK else socket.send_text(packed.decode()))
    except WebSocketDisconnect:
        pass


async def received(socket: WebSocket) -> tuple[str, bytes]:
    """A message: its media type and bytes. Raises WebSocketDisconnect."""
    message = await socket.receive()
    if message["type"] == "websocket.disconnect":
        raise WebSocketDisconnect(message.get("code", 1000))
    data = message.get("bytes")
    return (codec.JSON, message["text"].encode()) if data is None else (codec.MSGPACK, data)


def _request(data: bytes, media: str) -> ActRequest:
    """Raises MalformedBody, InvalidRequest."""
    try:
        return ActRequest.model_validate(codec.decode(data, media))
    except ValidationError as error:
        known = list(ActRequest.model_fields)
        raise InvalidRequest([field_error(dict(item), known) for item in error.errors()]) from error
    except ValueError as error:
        raise MalformedBody(f"the message is not valid {media}: {error!s:.300}") from error
