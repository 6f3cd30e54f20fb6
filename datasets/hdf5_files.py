"""HDF5 files opened for reading, so that whatever is wrong with one becomes one line that names it. Knows no layout."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import h5py

from forcing.datasets.episodes import CUT_SHORT

REMEDY = "download or record it again"


@contextmanager
def opened_hdf5(path: Path) -> Iterator[h5py.File]:
    """The file, open while the block runs.

    What HDF5 and h5py raise there about a file that is cut short or altered becomes a ValueError; a ValueError that
    names the file already stays as it is.
    """
    try:
        with h5py.File(path, "r") as file:
            yield file
    except (OSError, RuntimeError, KeyError, TypeError, ValueError) as error:
        if isinstance(error, ValueError) and str(error).startswith(f"{path}: "):
            raise
        said = (str(error).splitlines() or [type(error).__name__])[0]
        raise ValueError(f"{path}: cannot be read to its end ({said}); {CUT_SHORT}") from error
