"""A folder of journals in the hands of one writer: an episode a file, entry by entry, nothing finished ever lost.

Every entry goes to the operating system at once, so a writer that is killed loses none that `add` returned for; a
machine that loses power loses what came after the last sync. Knows neither what entries hold nor where they come from.
"""

import contextlib
import errno
import fcntl
import os
import time
import weakref
from collections.abc import Iterable, Mapping
from io import FileIO
from pathlib import Path
from typing import Any

from forcing.datasets.journal import SUFFIX, number_of, packed, whole_entries

MOST_UNSYNCED = 100  # files of finished episodes that are still open


class JournalFolder:
    """Where one writer's episodes go, numbered on from those that are there."""

    def __init__(self, folder: str | Path, *, sync_s: float) -> None:
        """sync_s: seconds of which a power cut may take the entries.

        Raises OSError if the folder cannot be made or written, or another writer has it; ValueError if it holds
        anything but journals of a writer like this.
        """
        self.folder, self._sync_s = Path(folder).expanduser(), sync_s
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            if not os.access(self.folder, os.W_OK):
                raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
            descriptor = os.open(self.folder, os.O_RDONLY | os.O_DIRECTORY)
        except OSError as error:
            raise OSError(
                error.errno, f"{self.folder} cannot be recorded to: {error.strerror}; name another folder"
            ) from error
        self._release = weakref.finalize(self, os.close, descriptor)  # the lock goes with it
        try:
            self._descriptor = descriptor
            self._lock()
            self.next = 1 + max((number_of(path) for path in self._own_files()), default=-1)
        except BaseException:
            self._release()
            raise
        self._file: FileIO | None = None
        self._size = 0  # of what is whole in it
        self._bare = True  # nothing was added to what it began with
        self._finished: list[FileIO] = []
        self._synced = time.monotonic()

    def newest(self) -> Mapping[str, Any] | None:
        """The first entry of the newest episode, None if there is none."""
        for path in sorted(self._own_files(), key=number_of, reverse=True):
            for entry, _ in whole_entries(path):
                return entry
        return None

    def begin(self, name: str, *entries: Mapping[str, Any]) -> None:
        """Begins the next episode with these entries, in a file of this name and its number; ends the one before it.

        Raises OSError, naming the folder, if that cannot be written; ValueError if the folder was let go.
        """
        self._require_held()
        self.end()
        path = self.folder / f"{name}.{self.next:06d}{SUFFIX}"
        self.next += 1
        try:
            self._file, self._size, self._bare = FileIO(path, "x"), 0, True
        except OSError as error:
            raise self._stopped(error) from error
        self._write(entries)

    def add(self, *entries: Mapping[str, Any]) -> None:
        """Adds to the episode. Raises OSError, naming the folder, if that cannot be written: then the episode ends with
        what was added before."""
        self._write(entries)
        self._bare = False

    def end(self) -> None:
        """Ends the episode, if there is one; one to which nothing was added is none. Raises OSError as `add`."""
        if self._file is not None and self._bare:
            self._size, self.next = 0, self.next - 1
            self._abandon()
        if self._file is not None:
            self._finished.append(self._file)
            self._file = None
        if len(self._finished) >= MOST_UNSYNCED or time.monotonic() - self._synced >= self._sync_s:
            try:
                self._sync()
            except OSError as error:
                raise self._stopped(error) from error

    def close(self) -> None:
        """Ends the episode, with everything on disk, and lets the folder go; closing again does nothing."""
        if self._release.alive:
            try:
                self.end()
                self._sync()
            except OSError as error:
                raise self._stopped(error) from error
            finally:
                for file in (*self._finished, *([] if self._file is None else [self._file])):
                    file.close()
                self._release()

    def _write(self, entries: Iterable[Mapping[str, Any]]) -> None:
        assert self._file is not None, "an episode must have begun"
        try:
            data = memoryview(b"".join(map(packed, entries)))
            size = self._size + len(data)
            while data:
                data = data[self._file.write(data) or 0 :]
            self._size = size
            if time.monotonic() - self._synced >= self._sync_s:
                self._sync()
        except OSError as error:
            self._abandon()
            raise self._stopped(error) from error

    def _sync(self) -> None:
        self._synced = time.monotonic()
        while self._finished:
            with self._finished.pop() as file:
                os.fsync(file.fileno())
        if self._file is not None:
            os.fsync(self._file.fileno())
        os.fsync(self._descriptor)

    def _abandon(self) -> None:
        """Closes the episode's file behind its last whole entry, or removes it if it has none."""
        file, self._file = self._file, None
        if file is not None:
            with file, contextlib.suppress(OSError):  # readers bear with half an entry
                os.ftruncate(file.fileno(), self._size)
                if self._size == 0:
                    Path(str(file.name)).unlink()

    def _stopped(self, error: OSError) -> OSError:
        why = error.strerror or str(error)
        return OSError(
            error.errno, f"recording to {self.folder} stopped: {why}; all before is kept: make room, reset, and go on"
        )

    def _require_held(self) -> None:
        if not self._release.alive:
            raise ValueError(f"{self.folder}: recording was closed; make another recorder to go on there")

    def _lock(self) -> None:
        try:
            fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise OSError(
                error.errno, f"{self.folder} is recorded to by another recorder; close that, or name another folder"
            ) from error

    def _own_files(self) -> list[Path]:
        """The journals that are there. Raises ValueError at anything else."""
        found = [path for path in self.folder.iterdir() if not path.name.startswith(".")]
        for path in found:
            if path.suffix != SUFFIX or number_of(path) < 0:
                raise ValueError(f"{self.folder} holds {path.name}, which no recorder wrote; name another folder")
        return found
