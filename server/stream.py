"""A session's acts over a WebSocket: one message an act, one answer each, without a request of its own for every step.

What travels is what HTTP carries, an act request and its reply, or the problem document instead. JSON in text messages,
msgpack in binary ones; the answer comes in the kind of the message.
"""

import logging
from typing import Any

from fastapi import APIRouter, WebSocket, WebSocketDisconnect

from forcing.server import codec
from forcing.server.errors import ServiceError, problem_document, unforeseen
from forcing.server.schemas import ActRequest
from forcing.server.service import Service
from forcing.server.wire import checked, decoded, problem, received

logger = logging.getLogger(__name__)
router = APIRouter()


@router.websocket("/v1/sessions/{session_id}/stream")
async def stream(socket: WebSocket, session_id: str) -> None:
    """Acts of one session, answered one after another."""
    service = socket.app.state.service
    assert isinstance(service, Service)
    try:
        service.check_session(session_id)
    except ServiceError as error:
        await problem(error)(socket.scope, socket.receive, socket.send)
        return
    await socket.accept()
    try:
        while True:
            media, data = await received(socket)
            packed = codec.encode(await _answer(service, session_id, data, media), media)
            await (socket.send_bytes(packed) if media == codec.MSGPACK else socket.send_text(packed.decode()))
    except WebSocketDisconnect:
        pass


async def _answer(service: Service, session_id: str, data: bytes, media: str) -> dict[str, Any]:
    """The reply, or the problem document with `retry_after_s`."""
    try:
        reply = await service.act(session_id, checked(ActRequest, decoded(data, media)))
    except ServiceError as error:
        return problem_document(error) | {"retry_after_s": error.retry_after_s}
    except Exception:
        logger.exception("an act over a stream failed")
        return problem_document(unforeseen()) | {"retry_after_s": None}
    return reply.model_dump(exclude_unset=True)
