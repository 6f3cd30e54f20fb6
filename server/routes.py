"""The endpoints: which path calls which method of the service."""

from typing import Any

from fastapi import APIRouter, Request, Response
from prometheus_client import CONTENT_TYPE_LATEST

from forcing.server.codec import JSON, MSGPACK
from forcing.server.errors import PROBLEM_MEDIA_TYPE, NotReady
from forcing.server.schemas import (
    ActReply,
    ActRequest,
    Health,
    OneShotReply,
    OneShotRequest,
    OpenRequest,
    PlanReply,
    PoliciesReply,
    PolicyReply,
    Problem,
    ResetRequest,
    SessionReply,
)
from forcing.server.service import Service
from forcing.server.wire import CodecRoute, encoded

_PROBLEMS: dict[int | str, dict[str, Any]] = {
    "4XX": {"model": Problem, "description": "The request is refused (application/problem+json)"},
    "5XX": {"model": Problem, "description": "The server cannot answer (application/problem+json)"},
}
router = APIRouter(route_class=CodecRoute, responses=_PROBLEMS)


def _service(request: Request) -> Service:
    service = request.app.state.service
    assert isinstance(service, Service)
    return service


@router.get("/healthz", response_model=Health)
async def healthz(request: Request) -> Response:
    """Answers as long as the event loop turns."""
    return encoded(request, Health(status="ok"))


@router.get("/readyz", response_model=Health)
async def readyz(request: Request) -> Response:
    """200 once every policy has made a plan and until the server shuts down, else 503."""
    state = _service(request).state
    if state != "ready":
        raise NotReady(f"the server is {state}", retry_after_s=1)
    return encoded(request, Health(status=state))


@router.get("/metrics", responses={200: {"content": {CONTENT_TYPE_LATEST.split(";")[0]: {}}}})
async def metrics(request: Request) -> Response:
    """Prometheus' text format."""
    return Response(_service(request).metrics.exposition(), media_type=CONTENT_TYPE_LATEST)


@router.get("/v1/policies", response_model=PoliciesReply)
async def list_policies(request: Request) -> Response:
    """The policies that are served."""
    return encoded(request, _service(request).policies())


@router.get("/v1/policies/{policy_id}", response_model=PolicyReply)
async def get_policy(request: Request, policy_id: str) -> Response:
    """A policy's streams, units, limits, rate, hashes and card."""
    return encoded(request, _service(request).policy(policy_id))


@router.post("/v1/sessions", response_model=SessionReply, status_code=201)
async def open_session(request: Request, body: OpenRequest) -> Response:
    """Opens a session: one robot's episode."""
    return encoded(request, _service(request).open_session(body), 201)


@router.post("/v1/sessions/{session_id}/act", response_model=ActReply)
async def act(request: Request, session_id: str, body: ActRequest) -> Response:
    """Takes the observation of one control step, gives its action."""
    return encoded(request, await _service(request).act(session_id, body))


@router.get("/v1/sessions/{session_id}/plan", response_model=PlanReply)
async def get_plan(request: Request, session_id: str) -> Response:
    """The plan that the session follows."""
    return encoded(request, _service(request).plan(session_id))


@router.post("/v1/sessions/{session_id}/reset", response_model=SessionReply)
async def reset_session(request: Request, session_id: str, body: ResetRequest) -> Response:
    """Begins a new episode in the session."""
    return encoded(request, _service(request).reset_session(session_id, body))


@router.delete("/v1/sessions/{session_id}", status_code=204)
async def close_session(request: Request, session_id: str) -> Response:
    """Ends the session."""
    _service(request).close_session(session_id)
    return Response(status_code=204)


@router.post("/v1/act", response_model=OneShotReply)
async def act_once(request: Request, body: OneShotRequest) -> Response:
    """An action chunk for a history and a goal, without a session."""
    return encoded(request, await _service(request).act_once(body))


def describe_encodings(document: dict[str, Any]) -> dict[str, Any]:
    """The OpenAPI document with msgpack beside JSON wherever that is spoken, and problems under their media type."""
    for path in document["paths"].values():
        for operation in path.values():
            content = operation.get("requestBody", {}).get("content", {})
            if JSON in content:
                content[MSGPACK] = content[JSON]
            for status, response in operation["responses"].items():
                content = response.get("content", {})
                if JSON in content and status in _PROBLEMS:
                    content[PROBLEM_MEDIA_TYPE] = content.pop(JSON)
                elif JSON in content:
                    content[MSGPACK] = content[JSON]
    return document
