"""Arrays of a zarr group in a folder or a zip, of format 2 or 3, with errors that name file and array. Reads only."""

import importlib.util
import zipfile
from pathlib import Path
from typing import Any

import numcodecs
import numpy as np
import zarr

from forcing.datasets.episodes import CUT_SHORT
from forcing.policy.types import Array

# What Python's zipfile and zarr raise at one that is broken, encrypted or of a method that it does not know.
UNREADABLE = (OSError, ValueError, TypeError, KeyError, RuntimeError, zipfile.BadZipFile)
MARKS = (".zgroup", ".zarray", "zarr.json")


class ZarrFiles:
    """A zarr group in a folder, or in a zip, at its root or in a folder there."""

    def __init__(self, path: Path, inside: tuple[str, ...]) -> None:
        """inside: folders of the group, any of which tells where it is. Raises ValueError if a zip cannot be read."""
        self.path = path
        self._zipped = path.is_file()
        self._names: list[str] = []
        self._root = ""
        try:
            if self._zipped:
                with zipfile.ZipFile(path) as archive:
                    self._names = archive.namelist()
                self._root = root_in_zip(self._names, inside) or ""
            self._store: Any = (
                zarr.storage.ZipStore(path, mode="r") if self._zipped else zarr.storage.LocalStore(path, read_only=True)
            )
        except UNREADABLE as error:
            raise ValueError(f"{path}: not a readable zip ({error}); {CUT_SHORT}") from error

    def children(self, group: str) -> list[str]:
        """Names of what lies in a group; none if it is not there."""
        if not self._zipped:
            folder = self.path / group
            return sorted(entry.name for entry in folder.iterdir() if entry.is_dir()) if folder.is_dir() else []
        start = f"{self._root}{group}/"
        below = (name.removeprefix(start).split("/") for name in self._names if name.startswith(start))
        return sorted({parts[0] for parts in below if len(parts) > 1})

    def attributes(self, group: str) -> dict[str, Any]:
        """What is noted of a group, "" being the outermost; nothing if that is no group."""
        try:
            return dict(zarr.open_group(self._store, path=f"{self._root}{group}".rstrip("/"), mode="r").attrs)
        except UNREADABLE:
            return {}

    def array(self, name: str) -> Any:
        """The zarr array, of which rows are read by `rows`. Raises ValueError if it is absent, or cannot be decoded
        with what is installed."""
        where = f"{self.path}: {name}"
        try:
            return self._opened(name)
        except FileNotFoundError as error:
            raise ValueError(f"{where} is missing; {CUT_SHORT}") from error
        except UNREADABLE as error:
            if "codec" in str(error).lower() and "Unknown" in type(error).__name__:
                raise ValueError(
                    f"{where} is compressed with a codec that is not installed ({error}); install the package that has "
                    "it (imagecodecs for those of its name), or compress the array anew"
                ) from error
            raise ValueError(f"{where} cannot be opened as a zarr array ({error}); {CUT_SHORT}") from error

    def rows(self, name: str, array: Any, first: int, end: int) -> Array:
        """Rows of an array, in memory. Raises ValueError naming it if they cannot be decoded."""
        try:
            return np.asarray(array[first:end])
        except Exception as error:  # whatever the decoders raise on altered bytes
            raise ValueError(
                f"{self.path}: {name} cannot be decoded at rows {first} to {end - 1} ({type(error).__name__}: {error})"
                f"; {CUT_SHORT}"
            ) from error

    def _opened(self, name: str) -> Any:
        try:
            return zarr.open_array(self._store, path=f"{self._root}{name}", mode="r")
        except numcodecs.errors.UnknownCodecError as error:
            if "imagecodecs_" not in str(error) or importlib.util.find_spec("imagecodecs") is None:
                raise
            importlib.import_module("imagecodecs.numcodecs").register_codecs()
            return zarr.open_array(self._store, path=f"{self._root}{name}", mode="r")


def root_in_zip(names: list[str], inside: tuple[str, ...]) -> str | None:
    """Where the zarr group is that has one of the folders `inside`: "", or a folder's name and a slash; None if none
    has."""
    if not any(name.endswith(MARKS) for name in names):
        return None
    for folder in inside:
        found = (f"/{name}".partition(f"/{folder}/") for name in names)
        roots = {start[1:] + "/" * bool(start) for start, there, _ in found if there and start.count("/") <= 1}
        if roots:
            return min(roots, key=len)
    return None


def is_zarr_folder(path: Path) -> bool:
    """Whether a zarr group or array stands here."""
    return any((path / mark).is_file() for mark in MARKS)
