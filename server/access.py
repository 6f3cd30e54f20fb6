"""Who may ask, and how often: a bearer token on every request, and so many requests a second from one address."""

import hmac
import time
from pathlib import Path

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from forcing.server.errors import Overloaded, ServiceError, Unauthorized
from forcing.server.wire import problem

OPEN = ("/healthz", "/readyz")  # what watches over processes has no secrets
LEAST_TOKEN = 16  # characters
MOST_ADDRESSES = 10_000  # that are remembered; who asks seldom is forgotten first


def read_token(path: Path) -> str:
    """The only word in a file. Raises ValueError if it holds another number of words or a short one, OSError."""
    words = path.read_text().split()
    if len(words) != 1:
        raise ValueError(f"token file {path} must hold one word, got {len(words)}; write one: openssl rand -hex 32")
    if len(words[0]) < LEAST_TOKEN or not words[0].isascii():
        raise ValueError(f"token in {path} must have at least {LEAST_TOKEN} ASCII characters, got {len(words[0])}")
    return words[0]


class RequireToken:
    """ASGI middleware that refuses requests without `Authorization: Bearer TOKEN`, but for those on `OPEN`. Api-Key in
    place of Bearer, as openpi's client says, is as good."""

    def __init__(self, app: ASGIApp, token: str) -> None:
        self._app, self._expected = app, [f"{scheme} {token}".encode() for scheme in ("Bearer", "Api-Key")]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] in ("http", "websocket") and scope["path"] not in OPEN:
            given = Headers(scope=scope).get("authorization", "")
            # Takes as long for a wrong first letter as for a wrong last one.
            matches = [hmac.compare_digest(given.encode(), expected) for expected in self._expected]
            if not any(matches):
                what = "is wrong" if given else "is missing"
                refusal = Unauthorized(f"the token {what}; send the header Authorization: Bearer TOKEN")
                await _refuse(refusal, scope, receive, send)
                return
        await self._app(scope, receive, send)


class LimitRate:
    """ASGI middleware that answers 429 to an address that asks more often than `per_s` times a second, for longer than
    a second: a token bucket that holds a second's worth."""

    def __init__(self, app: ASGIApp, per_s: float) -> None:
        self._app, self._per_s, self._most = app, per_s, max(1.0, per_s)
        self._buckets: dict[str, tuple[float, float]] = {}  # address -> requests left, when that was so

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] in ("http", "websocket") and scope["path"] not in OPEN:
            wait_s = self._wait_s((scope.get("client") or ("",))[0], time.monotonic())
            if wait_s > 0:
                detail = f"more than {self._per_s:g} requests a second from your address"
                await _refuse(Overloaded(detail, retry_after_s=wait_s), scope, receive, send)
                return
        await self._app(scope, self._counted(scope, receive, send), send)

    def _counted(self, scope: Scope, receive: Receive, send: Send) -> Receive:
        """Messages of a WebSocket count as requests do; one too many ends it with code 1013, try again later."""
        if scope["type"] != "websocket":
            return receive

        async def counting() -> Message:
            message = await receive()
            address = (scope.get("client") or ("",))[0]
            if message["type"] == "websocket.receive" and self._wait_s(address, time.monotonic()) > 0:
                await send({"type": "websocket.close", "code": 1013, "reason": f"more than {self._per_s:g} a second"})
                return {"type": "websocket.disconnect", "code": 1013}
            return message

        return counting

    def _wait_s(self, address: str, now: float) -> float:
        """0 if the request may pass, and then it is counted."""
        left, then = self._buckets.pop(address, (self._most, now))
        left = min(self._most, left + (now - then) * self._per_s)
        allowed = left >= 1
        self._buckets[address] = (left - allowed, now)
        if len(self._buckets) > MOST_ADDRESSES:
            del self._buckets[next(iter(self._buckets))]
        return 0.0 if allowed else (1 - left) / self._per_s


async def _refuse(error: ServiceError, scope: Scope, receive: Receive, send: Send) -> None:
    await problem(error)(scope, receive, send)
