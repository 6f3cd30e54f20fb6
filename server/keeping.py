"""Episodes kept on disk as they happen, so that sessions outlive the server: a journal each, off the event loop.

What is kept is what happened: how the episode was opened, every observation, every plan that was followed, every reply
(`entries`). Gone through again it makes the same beliefs and the same decisions (`restoring`).
"""

import contextlib
import fcntl
import logging
import queue
import threading
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from forcing.datasets.journal import SUFFIX, number_of, packed, read_entries
from forcing.server.logs import SHOWN

logger = logging.getLogger(__name__)
MOST_WAITING = 10_000  # entries; a disk that is slower than that loses them, and it is said
PATIENCE_S = 5.0  # for a disk, when the server ends


@dataclass(frozen=True, slots=True)
class Kept:
    """An episode that a server before this one was in."""

    session: str
    episode: int
    entries: list[dict[str, Any]]


class Diary:
    """The journal of one episode of a session. Nothing is added after its end."""

    def __init__(self, keeper: "Keeper", session: str, episode: int) -> None:
        self._keeper, self._name, self._ended = keeper, f"{session}.{episode}", False

    def add(self, entry: Mapping[str, Any]) -> None:
        """Soon on disk; if it cannot be, that is logged once, and what was written so far is among the episodes."""
        if not self._ended:
            self._keeper.put(self._name, packed(entry))

    def end(self, *, keep: bool) -> None:
        """The episode is over. keep: its journal stays, among the episodes."""
        if not self._ended:
            self._ended = True
            self._keeper.put(self._name, keep)


class Keeper:
    """The journals of a folder: of sessions that go on, in `sessions`, and of episodes to be kept, in `episodes`."""

    def __init__(self, folder: Path, lost: Callable[[], None] = lambda: None) -> None:
        """lost: called for each episode that can no longer be kept, from any thread. Raises OSError if the
        folder cannot be written, or another server keeps its sessions there."""
        self._lost = lost
        self._going_on, self._over = folder / "sessions", folder / "episodes"
        if folder.exists() and not folder.is_dir():
            raise NotADirectoryError(f"state dir {folder} is a file; name a folder")
        for each in (folder, self._going_on, self._over):
            each.mkdir(mode=0o700, parents=True, exist_ok=True)  # whoever reads a session's id can drive it
        self._lock = (folder / ".lock").open("w")
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            self._lock.close()
            raise OSError(error.errno, f"{folder} is another server's; name another --state-dir") from error
        self._queue: queue.SimpleQueue[tuple[str, bytes | bool | None]] = queue.SimpleQueue()
        self._files: dict[str, BinaryIO] = {}
        self._failed: set[str] = set()
        self._thread = threading.Thread(target=self._write_all, name="keeper", daemon=True)
        self._thread.start()

    def put(self, name: str, what: bytes | bool) -> None:
        """An entry of a journal, or its end, and whether it is kept then; for `Diary`."""
        if isinstance(what, bytes) and self._queue.qsize() >= MOST_WAITING:
            self._fail(name, "the disk is too slow")
        else:
            self._queue.put((name, what))

    def found(self) -> Iterator[Kept]:
        """The last episode of each session that a server before this one was in, ready to be gone on with. What cannot
        be is among the episodes then."""
        sessions: dict[str, list[tuple[int, Path]]] = {}
        for path in self._going_on.glob(f"*{SUFFIX}"):
            number = number_of(path)
            if number < 0:
                self._set_aside(path, "its name says no episode")
                continue
            sessions.setdefault(path.stem.rpartition(".")[0], []).append((number, path))
        for session, paths in sessions.items():
            *over, (episode, path) = sorted(paths)
            for _, earlier in over:
                earlier.replace(self._over / earlier.name)
            try:
                kept = read_entries(path)
                if not kept.entries or kept.entries[0]["kind"] != "open":
                    raise ValueError("it does not begin with what was opened")
                with path.open("r+b") as file:
                    file.truncate(kept.size)  # what is added must follow a whole entry
            except Exception as error:
                self._set_aside(path, str(error))
                continue
            yield Kept(session, episode, kept.entries)

    def _set_aside(self, path: Path, why: str) -> None:
        logger.warning("session %s cannot be read: %s; its journal is left in %s", path.stem[:SHOWN], why, self._over)
        path.replace(self._over / f"{path.name}.unreadable")

    def close(self) -> None:
        """Everything that was added is on disk, unless that takes too long."""
        self._queue.put(("", None))
        self._thread.join(PATIENCE_S)
        self._lock.close()

    def _write_all(self) -> None:
        while True:
            name, what = self._queue.get()
            if what is None:
                break
            try:
                self._write(name, what)
            except Exception as error:
                self._fail(name, str(error))
        for file in self._files.values():
            _close(file)

    def _write(self, name: str, what: bytes | bool) -> None:
        path = self._going_on / f"{name}{SUFFIX}"
        if isinstance(what, bytes) and what:
            if name not in self._failed:  # what follows a gap cannot be gone through
                if name not in self._files:
                    self._files[name] = path.open("ab")
                self._files[name].write(what)
                self._files[name].flush()
            return
        file = self._files.pop(name, None)
        if file is not None:
            _close(file)
        if what is not False and path.exists():
            path.replace(self._over / path.name)
        path.unlink(missing_ok=True)
        if isinstance(what, bool):
            self._failed.discard(name)

    def _fail(self, name: str, why: str) -> None:
        if name not in self._failed:
            self._failed.add(name)
            logger.error("session %s is no longer kept: %s", name[:SHOWN], why)
            self._lost()
            self._queue.put((name, b""))  # it is set aside, and must not be gone on with


def _close(file: BinaryIO) -> None:
    """Even if what a full disk did not take is still in its buffer: it was said when it was written."""
    with contextlib.suppress(OSError):
        file.close()
