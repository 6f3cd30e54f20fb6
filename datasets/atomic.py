"""Folders that appear whole or not at all: staged beside their place, synced, renamed. Knows no format."""

import errno
import fcntl
import os
import shutil
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryFile

FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


@contextmanager
def told_if_full(target: Path, what: str) -> Iterator[None]:
    """Raises ValueError in one line, naming `what` was to be written to `target`, where the block runs out of disk."""
    try:
        yield
    except OSError as error:
        if error.errno not in FULL:
            raise
        free = shutil.disk_usage(next(place for place in target.parents if place.exists())).free / 1e6
        raise ValueError(
            f"{target}: no room for {what} ({os.strerror(error.errno)}), {free:.1f} MB are free; what was there before "
            "is untouched: free some space or choose another path"
        ) from error


def require_room(folder: Path, size: int) -> None:
    """Raises OSError if a file in `folder` cannot grow by `size` bytes, for whatever disk, quota or limit; for writers
    that do not survive that, as HDF5's, which ends the process."""
    largest = max((path.stat().st_size for path in folder.rglob("*") if path.is_file()), default=0)
    with TemporaryFile(dir=folder) as probe:
        os.posix_fallocate(probe.fileno(), largest, max(size, 1))


@contextmanager
def staged(target: Path) -> Iterator[Path]:
    """An empty folder beside `target` to write in; removed at the end, unless `place` has moved it.

    What killed writers of the same target left is removed first. A writer that lives holds a lock on its folder, which
    the system drops when the process dies, however it dies; so nothing of a living writer is touched.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    _remove_leftovers(target)
    folder, lock = _locked_folder(target)
    try:
        yield folder
    finally:
        if folder.exists():
            shutil.rmtree(folder)
        os.close(lock)


def _locked_folder(target: Path) -> tuple[Path, int]:
    """A new folder, and the descriptor that holds its lock.

    Another writer of the same target may take one that has no lock yet for a leftover, and remove it.
    """
    while True:
        folder = target.parent / f".{target.name}.tmp-{uuid.uuid4().hex}"
        folder.mkdir()
        try:
            lock = os.open(folder, os.O_RDONLY)
        except FileNotFoundError:
            continue
        fcntl.flock(lock, fcntl.LOCK_EX)
        if folder.exists():
            return folder, lock
        os.close(lock)


def place(folder: Path, target: Path) -> None:
    """`folder` at `target`, on disk, replacing the folder that is there.

    A system can rename a folder over nothing, or over an empty one, in one step; over a full one it cannot. So the
    old folder steps aside to `aside(target)` first and is removed last: at every instant the old one or the new one is
    whole at one of the two places, and readers look at both (`whereabouts`).
    """
    sync_tree(folder)
    old = aside(target)
    if target.exists():
        shutil.rmtree(old, ignore_errors=True)
        target.rename(old)
    try:
        folder.rename(target)
    except OSError:
        if old.exists():
            old.rename(target)
        raise
    _sync(target.parent)
    if old.exists():
        shutil.rmtree(old)


def aside(target: Path) -> Path:
    """Where the old folder waits while a new one takes its place."""
    return target.parent / f".{target.name}.previous"


def whereabouts(target: Path) -> Path:
    """The folder to read: `target`, or the old one beside it if a writer died between the two renames."""
    return aside(target) if not target.exists() and aside(target).exists() else target


def sync_tree(folder: Path) -> None:
    """Every file and folder below is on disk when this returns."""
    for root, _, files in os.walk(folder):
        for name in files:
            _sync(Path(root) / name)
        _sync(Path(root))


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _remove_leftovers(target: Path) -> None:
    for folder in list(target.parent.iterdir()):
        if not folder.name.startswith(f".{target.name}.tmp-"):
            continue
        try:
            lock = os.open(folder, os.O_RDONLY)
        except FileNotFoundError:
            continue  # its writer has just finished
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            shutil.rmtree(folder, ignore_errors=True)
        except BlockingIOError:
            continue  # its writer lives
        finally:
            os.close(lock)
