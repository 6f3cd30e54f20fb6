"""Sessions kept on disk as they happen, so that they outlive the server: a journal each, written off the event loop.

What is kept is what happened: how the episode was opened, every act with its reply, every plan that was followed.
Reading it again makes the same beliefs and the same decisions, because nothing in them is left to chance.
"""

import logging
import queue
import threading
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from forcing.datasets.journal import SUFFIX, entries, packed

logger = logging.getLogger(__name__)
MOST_WAITING = 10_000  # entries; a disk that is slower than that loses them, and it is said


@dataclass(frozen=True, slots=True)
class Kept:
    """An episode that a server before this one was in. name: of its journal."""

    name: str
    opened: Mapping[str, Any]
    entries: list[dict[str, Any]]


class Keeper:
    """The journals of a folder: of sessions that go on, in `sessions`, and of episodes to be kept, in `episodes`."""

    def __init__(self, folder: Path) -> None:
        """Raises OSError if the folder cannot be written."""
        self._going_on, self._over = folder / "sessions", folder / "episodes"
        for each in (folder, self._going_on, self._over):
            each.mkdir(mode=0o700, parents=True, exist_ok=True)  # whoever reads a session's id can drive it
        probe = self._going_on / ".writable"
        probe.touch()
        probe.unlink()
        self._queue: queue.Queue[tuple[str, bytes | bool | None]] = queue.Queue(MOST_WAITING)
        self._files: dict[str, BinaryIO] = {}
        self._failed: set[str] = set()
        self._thread = threading.Thread(target=self._write_all, name="keeper", daemon=True)
        self._thread.start()

    def add(self, name: str, entry: Mapping[str, Any]) -> None:
        """Appends to a journal, soon."""
        self._put(name, packed(entry))

    def end(self, name: str, *, keep: bool) -> None:
        """The episode is over. keep: its journal stays, among the episodes."""
        self._put(name, keep)

    def found(self) -> Iterator[Kept]:
        """The sessions that a server before this one was in; a journal without a beginning is left where it is."""
        for path in sorted(self._going_on.glob(f"*{SUFFIX}")):
            kept = list(entries(path))
            if kept and kept[0]["kind"] == "open":
                yield Kept(path.stem, kept[0], kept[1:])

    def close(self) -> None:
        """Everything that was added is on disk."""
        self._queue.put(("", None))
        self._thread.join()

    def _put(self, name: str, what: bytes | bool) -> None:
        try:
            self._queue.put_nowait((name, what))
        except queue.Full:
            self._fail(name, "the disk is too slow")

    def _write_all(self) -> None:
        while True:
            name, what = self._queue.get()
            if what is None:
                break
            try:
                self._write(name, what)
            except OSError as error:
                self._fail(name, str(error))
        for file in self._files.values():
            file.close()

    def _write(self, name: str, what: bytes | bool) -> None:
        path = self._going_on / f"{name}{SUFFIX}"
        if isinstance(what, bool):
            file = self._files.pop(name, None)
            if file is not None:
                file.close()
            self._failed.discard(name)
            if what and path.exists():
                path.replace(self._over / path.name)
            else:
                path.unlink(missing_ok=True)
            return
        if name in self._failed:
            return  # what follows a gap cannot be read
        if name not in self._files:
            self._files[name] = path.open("ab", buffering=0)
        self._files[name].write(what)

    def _fail(self, name: str, why: str) -> None:
        if name not in self._failed:
            self._failed.add(name)
            logger.error("session %s is no longer kept: %s", name[:6], why)
