"""Any supported recording, recognised by its files. The one place that knows all formats."""

from collections.abc import Mapping
from pathlib import Path
from typing import Literal

import h5py

from forcing.datasets.d4rl_hdf5 import is_d4rl_hdf5, read_d4rl_hdf5
from forcing.datasets.episodes import InMemory, Recording, gathered
from forcing.datasets.hdf5_files import opened_hdf5
from forcing.datasets.journal import holds_journals
from forcing.datasets.journal_recording import Journals
from forcing.datasets.lerobot_files import holds_lerobot, open_lerobot
from forcing.datasets.minari_files import MinariRecording
from forcing.datasets.minari_places import holds_minari, is_minari_id
from forcing.datasets.minari_rows import INFOS
from forcing.datasets.naming import renamed
from forcing.datasets.replay_buffer import ReplayBufferRecording, is_replay_buffer
from forcing.datasets.robomimic_hdf5 import RobomimicRecording, is_robomimic_hdf5
from forcing.datasets.store import is_store, open_store
from forcing.datasets.subsets import subset_of
from forcing.policy.types import Trajectories

Format = Literal["store", "minari", "lerobot", "d4rl", "robomimic", "replay buffer", "journal"]
SUPPORTED = (
    "a store of ours (folder with zarr.json), a Minari dataset (folder with data/metadata.json, or an id such as "
    "D4RL/pointmaze/medium-v2), a LeRobot dataset v3.0 or v2.1 (folder with meta/info.json), a D4RL file (HDF5 with "
    "observations, actions, rewards, terminals), a robomimic file (HDF5 with data/demo_0), a replay buffer (zarr "
    "folder or .zarr.zip with data/action and meta/episode_ends), what a server or a Recorder kept (*.journal, or a "
    "folder of them)"
)

_OF_INFOS = f"{INFOS}/"


def read_recording(
    source: str | Path,
    *,
    control_hz: float | None = None,
    streams: Mapping[str, str] | None = None,
    subset: str | None = None,
    download: bool = False,
) -> Trajectories:
    """All recordings at a path or under a Minari id, whatever their format; frames of a store stay there, unless its
    streams are named anew or a subset is taken.

    As `open_recording`.
    """
    if recognise(source) == "store" and not streams and subset is None and control_hz is None:
        return open_store(source)
    return gathered(open_recording(source, control_hz=control_hz, streams=streams, subset=subset, download=download))


def open_recording(
    source: str | Path,
    *,
    control_hz: float | None = None,
    streams: Mapping[str, str] | None = None,
    subset: str | None = None,
    download: bool = False,
) -> Recording:
    """What is at a path or under a Minari id, whatever its format, to be read episode by episode.

    control_hz: steps a second, for sources that do not record it, or wrongly; stores and journals know it. streams:
    other names for some streams (`naming.renamed`); action=infos/NAME reads actions of a Minari dataset from that info,
    such as what was executed in place of what was wanted. subset: of the episodes, those alone. download: fetch a
    Minari id that is not here. Raises ValueError if nothing supported is there, or what is there cannot be read.
    """
    names, executed = dict(streams or {}), None
    if names.get("action", "").startswith(_OF_INFOS) and recognise(source) == "minari":
        executed = names.pop("action").removeprefix(_OF_INFOS)
    recording = renamed(_opened(source, control_hz, download, executed), names)
    return recording if subset is None else subset_of(recording, subset)


def _opened(source: str | Path, control_hz: float | None, download: bool, executed: str | None) -> Recording:
    found = recognise(source)
    if found in ("store", "journal") and control_hz is not None:
        raise ValueError(f"{source}: a {found} knows its rate; leave out --control-hz, which is {control_hz:g}")
    match found:
        case "store":
            return InMemory(open_store(source))
        case "d4rl":
            return InMemory(read_d4rl_hdf5(source, control_hz=control_hz))
        case "journal":
            return Journals(source)
        case "robomimic":
            return RobomimicRecording(source, control_hz=control_hz)
        case "replay buffer":
            return ReplayBufferRecording(source, control_hz=control_hz)
        case "lerobot":
            return open_lerobot(source, control_hz=control_hz)
        case "minari":
            return MinariRecording(source, control_hz=control_hz, download=download, executed=executed)


def recognise(source: str | Path) -> Format:
    """The format of what is at `source`. Raises ValueError listing what is supported and what was found."""
    path = Path(source).expanduser()
    if (path.exists() and not (path.is_file() or path.is_dir())) or path == Path("/"):
        raise ValueError(f"{source}: must be the file or folder of a recording, is neither; supported are {SUPPORTED}")
    if is_store(path):
        return "store"
    # Before Minari, which is sought in folders below: of a replay buffer there can be a hundred thousand chunks.
    if is_replay_buffer(path):
        return "replay buffer"
    if holds_minari(path) or (not path.exists() and is_minari_id(str(source))):
        return "minari"
    if is_d4rl_hdf5(path):
        return "d4rl"
    if is_robomimic_hdf5(path):
        return "robomimic"
    if holds_lerobot(path):
        return "lerobot"
    if holds_journals(path):
        return "journal"
    raise ValueError(f"{source}: found {_contents(path)}; supported are {SUPPORTED}")


def _contents(path: Path) -> str:
    if not path.exists():
        return "nothing"
    if path.is_file() and h5py.is_hdf5(path):
        with opened_hdf5(path) as file:
            return f"an HDF5 file with {_listed(sorted(file)) or 'nothing'}"
    if path.is_file():
        return f"a file of {path.stat().st_size} bytes ending in {path.suffix or 'nothing'!r}"
    names = sorted(entry.name for entry in path.iterdir())
    if {"episodes", "sessions"} <= set(names):
        return "what a server keeps: name its folder episodes or sessions"
    return f"a folder with {_listed(names)}" if names else "an empty folder"


def _listed(names: list[str]) -> str:
    return ", ".join(names[:8]) + (", …" if len(names) > 8 else "")
