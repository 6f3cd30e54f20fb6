"""The server that `forcing bench serve` is compared with: one lock, and a plan from noise for every request.

As policy servers are written first: no sessions, no plan kept, nobody answered while somebody else is.
"""

import asyncio
import threading
from typing import Any

import numpy as np
import uvicorn
from fastapi import FastAPI, Request, Response

from forcing.policy.controller import Controller
from forcing.policy.policy import Policy, load_policy
from forcing.server import codec


def naive_app(policy: Policy) -> FastAPI:
    """POST /act {observation, goal} -> {action, source}, msgpack."""
    app, lock = FastAPI(), threading.Lock()

    def answer(body: dict[str, Any]) -> list[float]:
        with lock:
            controller = Controller(policy, goal=np.array(body["goal"]), seed=0, doubting=False)
            controller.observe({name: np.array(value) for name, value in body["observation"].items()})
            request = controller.request()
            assert request is not None
            controller.install(policy.plan(request))
            actions: list[float] = controller.decide().action.tolist()
            return actions

    @app.get("/readyz")
    def ready() -> str:
        return "ready"

    @app.post("/act")
    async def act(request: Request) -> Response:
        body = codec.decode(await request.body(), codec.MSGPACK)
        action = await asyncio.to_thread(answer, body)
        return Response(codec.encode({"action": action, "source": "fresh"}, codec.MSGPACK), media_type=codec.MSGPACK)

    return app


def serve_naively(policy: str, port: int) -> None:
    """Until it is killed."""
    uvicorn.run(naive_app(load_policy(policy)), port=port, log_level="warning")
