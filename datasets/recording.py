"""Any supported recording, recognised by its files. The one place that knows all formats."""

from pathlib import Path
from typing import Literal

from forcing.datasets.d4rl_hdf5 import is_d4rl_hdf5, read_d4rl_hdf5
from forcing.datasets.episodes import InMemory, Recording, gathered
from forcing.datasets.journal import holds_journals, read_journals
from forcing.datasets.lerobot_files import holds_lerobot, open_lerobot
from forcing.datasets.minari_files import holds_minari, is_minari_id, read_minari
from forcing.datasets.store import is_store, open_store
from forcing.policy.types import Trajectories

Format = Literal["store", "minari", "d4rl", "lerobot", "journal"]
SUPPORTED = (
    "a store of ours (folder with zarr.json), a Minari dataset (folder with data/metadata.json, or an id such as "
    "D4RL/pointmaze/medium-v2), a D4RL file (HDF5 with observations, actions, rewards, terminals), a LeRobot dataset "
    "v3.0 or v2.1 (folder with meta/info.json), what a server kept (*.journal, or a folder of them)"
)


def read_recording(source: str | Path, *, control_hz: float | None = None) -> Trajectories:
    """All recordings at a path or under a Minari id, whatever their format; frames of a store stay there.

    As `open_recording`.
    """
    if recognise(source) == "store":
        return open_store(source)
    return gathered(open_recording(source, control_hz=control_hz))


def open_recording(source: str | Path, *, control_hz: float | None = None) -> Recording:
    """What is at a path or under a Minari id, whatever its format, to be read episode by episode.

    control_hz: steps a second, for sources that do not record it; a store always does. Raises ValueError if nothing
    supported is there, or what is there cannot be read.
    """
    found = recognise(source)
    if found == "store":
        return InMemory(open_store(source))
    if found == "d4rl":
        return InMemory(read_d4rl_hdf5(source, control_hz=control_hz))
    if found == "lerobot":
        return open_lerobot(source, control_hz=control_hz)
    if found == "journal":
        return InMemory(read_journals(source))
    return InMemory(read_minari(source, control_hz=control_hz))


def recognise(source: str | Path) -> Format:
    """The format of what is at `source`. Raises ValueError listing what is supported and what was found."""
    path = Path(source).expanduser()
    if is_store(path):
        return "store"
    if holds_minari(path) or (not path.exists() and is_minari_id(str(source))):
        return "minari"
    if is_d4rl_hdf5(path):
        return "d4rl"
    if holds_lerobot(path):
        return "lerobot"
    if holds_journals(path):
        return "journal"
    raise ValueError(f"{source}: found {_contents(path)}; supported are {SUPPORTED}")


def _contents(path: Path) -> str:
    if not path.exists():
        return "nothing"
    if path.is_file():
        return f"a file of {path.stat().st_size} bytes ending in {path.suffix or 'nothing'!r}"
    names = sorted(entry.name for entry in path.iterdir())
    if {"episodes", "sessions"} <= set(names):
        return "what a server keeps: name its folder episodes or sessions"
    shown = ", ".join(names[:8]) + (", …" if len(names) > 8 else "")
    return f"a folder with {shown}" if names else "an empty folder"
