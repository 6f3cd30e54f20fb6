"""The FastAPI application for some policies."""

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Sequence
from typing import Any

from fastapi import FastAPI

from forcing import __version__
from forcing.policy.policy import Policy
from forcing.server import openpi, stream
from forcing.server.access import LimitRate, RequireToken
from forcing.server.routes import describe_encodings, router
from forcing.server.service import ServerSettings, Service
from forcing.server.wire import CountRequests, answer_errors_as_problems

logger = logging.getLogger(__name__)


class _App(FastAPI):
    def openapi(self) -> dict[str, Any]:
        return self.openapi_schema or describe_encodings(super().openapi())


def create_app(policies: Sequence[Policy], settings: ServerSettings | None = None) -> FastAPI:
    """An app that serves `policies`; `app.state.service` is its `Service`.

    Starting it begins to warm up; /readyz answers 200 when that is done. Raises ValueError on no policies, or two of
    one name.
    """
    settings = settings or ServerSettings()
    service = Service(policies, settings)

    @contextlib.asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        warming = asyncio.create_task(_warm_up(service))
        yield
        service.close()
        warming.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await warming

    app = _App(title="forcing", version=__version__, lifespan=lifespan)
    app.state.service = service
    app.state.max_body_bytes = settings.max_body_bytes
    app.include_router(router)
    app.include_router(openpi.router)
    app.include_router(stream.router)
    # The last one added sees a request first.
    if settings.token is not None:
        app.add_middleware(RequireToken, token=settings.token)
    if settings.requests_per_s is not None:
        app.add_middleware(LimitRate, per_s=settings.requests_per_s)
    app.add_middleware(CountRequests, metrics=service.metrics)
    answer_errors_as_problems(app)
    return app


async def _warm_up(service: Service) -> None:
    try:
        await service.warm_up()
    except Exception:
        logger.exception("warm-up failed; the server will not become ready")
