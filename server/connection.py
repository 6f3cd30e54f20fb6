"""What travels between a client and a server, and how that goes wrong: one answer over HTTP, and a WebSocket for acts.

Broken                       the connection broke; asking again may help
"""

import contextlib
import json
from collections.abc import Callable, Mapping
from typing import Any

import httpx
from websockets.exceptions import InvalidStatus, WebSocketException
from websockets.sync.client import ClientConnection

from forcing.server import codec


class ServerProblem(RuntimeError):
    """What the server answered instead: type, title, status, detail and errors as in RFC 9457, and retry_after_s."""

    def __init__(self, document: Mapping[str, Any], retry_after_s: float | None) -> None:
        self.type: str = document.get("type", "about:blank")
        self.title: str = document.get("title", "")
        self.status: int = document["status"]
        self.detail: str = document.get("detail", "")
        self.errors: list[dict[str, str]] = document.get("errors", [])
        self.retry_after_s = retry_after_s
        super().__init__(f"{self.status} {self.title}: {self.detail}")


class Broken(Exception):
    """A connection that broke: asking again may help."""


class ServerUnreachable(ConnectionError):
    """No answer within the time-out, or the connection broke and retries did not help."""


class Stream:
    """One WebSocket for the acts of a session, made anew when it breaks."""

    def __init__(self, dial: Callable[[float], ClientConnection], media: str, timeout_s: float) -> None:
        self._dial, self._media, self._timeout_s = dial, media, timeout_s
        self._open = contextlib.ExitStack()
        self._connection: ClientConnection | None = None

    def ask(self, body: Mapping[str, Any], within_s: float | None) -> Any:
        """The server's answer. Raises ServerProblem, ServerUnreachable if none comes in time, `Broken`."""
        packed = codec.encode({k: v for k, v in body.items() if v is not None}, self._media)
        within_s = self._timeout_s if within_s is None else within_s
        try:
            if self._connection is None:
                self._connection = self._open.enter_context(self._dial(within_s))
            self._connection.send(packed if self._media == codec.MSGPACK else packed.decode())
            answer = self._connection.recv(timeout=within_s)
        except InvalidStatus as refused:
            self.close()
            status = refused.response.status_code
            raise ServerProblem({"status": status, "title": "The stream is refused"}, None) from refused
        except TimeoutError as error:
            self.close()  # else its answer would be taken for that of the next act
            raise ServerUnreachable("no answer to an act in time") from error
        except (WebSocketException, OSError) as error:
            self.close()
            raise Broken(f"act: {type(error).__name__} {error}") from error
        document = codec.decode(answer if isinstance(answer, bytes) else answer.encode(), self._media)
        if "request_id" not in document:
            raise ServerProblem(document, document.get("retry_after_s"))
        return document

    def close(self) -> None:
        self._connection = None
        with contextlib.suppress(WebSocketException, OSError):
            self._open.close()


def answer_of(response: httpx.Response) -> Any:
    """What a response holds, decoded, None if nothing. Raises ServerProblem."""
    if response.is_success:
        media = codec.media_type(response.headers.get("content-type"))
        return codec.decode(response.content, media) if media else None
    try:
        document = json.loads(response.content)
    except ValueError:
        document = {"title": response.reason_phrase, "detail": response.text[:300]}
    retry_after = response.headers.get("retry-after", "")
    retry_after_s = float(retry_after) if retry_after.isdigit() else None
    raise ServerProblem({**document, "status": response.status_code}, retry_after_s)
