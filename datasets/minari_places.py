"""Where Minari datasets are: by path, by id in Minari's local root, and fetched from its host. Reads none of them."""

import difflib
import os
import re
import threading
import urllib.error
import urllib.request
from pathlib import Path

IDENTIFIER = re.compile(r"[-\w]+(/[-\w]+)*-v\d+")
HOSTS = {"hf": "https://huggingface.co", "gcp": "https://storage.googleapis.com"}
PATIENCE_S = 4.0


def locate_minari(id_or_path: str | Path, *, download: bool = False) -> Path:
    """The folder that holds the dataset's `data/`; by id only in the local root, unless it may be fetched.

    download: fetch an id that is not here over the network. Raises ValueError naming what was sought, where, and how to
    get it.
    """
    path = Path(id_or_path).expanduser()
    if path.exists():
        return _inside(path.resolve())
    dataset_id = str(id_or_path)
    if not is_minari_id(dataset_id):
        raise ValueError(f"{dataset_id!r}: neither an existing path nor a Minari id such as D4RL/pointmaze/medium-v2")
    folder = local_root() / dataset_id
    if not (folder / "data").is_dir() and download:
        _download(dataset_id)
    if (folder / "data").is_dir():
        return folder
    close = difflib.get_close_matches(dataset_id, local_ids(), n=1)
    hint = f"did you mean {close[0]!r}? " if close else ""
    raise ValueError(
        f"Minari dataset {dataset_id!r} is not in {local_root()}: {hint}fetch it with --download or `minari "
        f"download {dataset_id}`, set MINARI_DATASETS_PATH to the folder that has it, or give a path"
    )


def holds_minari(path: Path) -> bool:
    """Whether at least one Minari dataset is at `path` or below."""
    return path.exists() and bool(_candidates(path.resolve()))


def is_minari_id(name: str) -> bool:
    """Whether `name` reads (namespace/)name-v0."""
    return IDENTIFIER.fullmatch(name) is not None


def local_root() -> Path:
    """Where Minari keeps its datasets on this machine."""
    return Path(os.environ.get("MINARI_DATASETS_PATH", Path.home() / ".minari" / "datasets"))


def local_ids() -> list[str]:
    """The ids of the datasets in Minari's local root."""
    return [folder.relative_to(local_root()).as_posix() for folder in _datasets_below(local_root())]


def _datasets_below(path: Path) -> list[Path]:
    """Those in no hidden folder: there a writer works, or left what it had when it was killed."""
    depths = ("*", "*/*", "*/*/*", "*/*/*/*")
    every = sorted(found.parent.parent for depth in depths for found in path.glob(f"{depth}/data/metadata.json"))
    return [folder for folder in every if not any(part.startswith(".") for part in folder.relative_to(path).parts)]


def _candidates(path: Path) -> list[Path]:
    """The dataset that `path` is, or whose data/ or main_data.hdf5 it is; else those below it."""
    for folder in (path, path.parent, path.parent.parent):
        if (folder / "data" / "metadata.json").is_file() and path in (
            folder,
            folder / "data",
            folder / "data" / "main_data.hdf5",
        ):
            return [folder]
    return _datasets_below(path)


def _inside(path: Path) -> Path:
    found = _candidates(path)
    if not found:
        raise ValueError(f"{path}: must hold a Minari dataset (data/metadata.json), found none; choose another path")
    if len(found) > 1:
        names = [str(folder.relative_to(path)) for folder in found]
        raise ValueError(f"{path}: must hold one Minari dataset, found {names}; name one of them")
    return found[0]


def _download(dataset_id: str) -> None:
    """Raises ValueError in seconds if the host cannot be reached, where Minari's client would try on for half a
    minute."""
    import minari

    remote = os.environ.get("MINARI_REMOTE", "hf://farama-minari")
    host = os.environ.get("HF_ENDPOINT", HOSTS["hf"]) if remote.startswith("hf:") else HOSTS.get(remote.split(":")[0])
    unreachable = host and _unreachable(host)
    remedy = f"check the network and the id, or copy the dataset to {local_root() / dataset_id}"
    if unreachable:
        raise ValueError(f"Minari dataset {dataset_id!r} could not be downloaded: no {host} ({unreachable}); {remedy}")
    try:
        minari.download_dataset(dataset_id)
    except Exception as error:  # Minari lets the errors of its hosts' clients through, and they share no base
        said = " ".join(str(error).split())
        raise ValueError(
            f"Minari dataset {dataset_id!r} could not be downloaded ({type(error).__name__}: {said}); {remedy}"
        ) from error


def _unreachable(host: str) -> str | None:
    """Why no answer comes from a host, None if one does; within `PATIENCE_S`, names that resolve slowly included."""
    said: list[str | None] = []

    def ask() -> None:
        try:
            urllib.request.urlopen(urllib.request.Request(host, method="HEAD"), timeout=PATIENCE_S).close()
            said.append(None)
        except urllib.error.HTTPError as answer:  # an answer all the same
            answer.close()
            said.append(None)
        except (OSError, ValueError) as error:
            said.append(str(error))

    asking = threading.Thread(target=ask, daemon=True)
    asking.start()
    asking.join(PATIENCE_S)
    return said[0] if said else f"no answer in {PATIENCE_S:g} s"
