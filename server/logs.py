"""What the server logs: a line of text or of JSON each, which says whose act it was about.

A session's id is all it takes to drive it, so that logs hold its first `SHOWN` characters alone.
"""

import json
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Literal

Kind = Literal["text", "json"]
SHOWN = 6
_about: ContextVar[dict[str, str]] = ContextVar("_about")


@contextmanager
def about(session: str, request: str | None = None) -> Iterator[None]:
    """Lines that are logged in this block, and by the tasks it begins, are about a session and a request of it."""
    token = _about.set({"session": session[:SHOWN]} | ({} if request is None else {"request": request}))
    try:
        yield
    finally:
        _about.reset(token)


def configure(kind: Kind) -> None:
    """Everything from INFO on goes to stderr, a line each."""
    handler = logging.StreamHandler()
    handler.setFormatter(_Json() if kind == "json" else _Text("%(asctime)s %(levelname)s %(name)s: %(message)s"))
    logging.basicConfig(level=logging.INFO, handlers=[handler])
    logging.captureWarnings(capture=True)


class _Text(logging.Formatter):
    def formatMessage(self, record: logging.LogRecord) -> str:
        ids = "".join(f" {name}={value!r}" for name, value in _about.get({}).items())
        return super().formatMessage(record) + ids


class _Json(logging.Formatter):
    """time: seconds since 1970. error: the traceback, where there is one."""

    def format(self, record: logging.LogRecord) -> str:
        line = {"time": round(record.created, 3), "level": record.levelname, "logger": record.name}
        line |= _about.get({}) | {"message": record.getMessage()}
        if record.exc_info:
            line["error"] = self.formatException(record.exc_info)
        return json.dumps(line)
