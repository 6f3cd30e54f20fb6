"""Minari datasets written from episodes as they come: whole or not at all. Knows no simulator of ours."""

import os
import shutil
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import gymnasium
import minari
import numpy as np
from gymnasium.envs.registration import EnvSpec
from minari.data_collector import EpisodeBuffer

from forcing.datasets.atomic import place, require_room, staged, told_if_full
from forcing.datasets.minari_places import is_minari_id

MinariEpisode = Mapping[str, Any]
# What HDF5 says of an array besides its numbers, in bytes, and how much of that it keeps for the end.
SAID, SAID_LAST = 1 << 12, 1 << 25


def write_minari(
    out_dir: str | Path,
    dataset_id: str,
    episodes: Iterable[MinariEpisode],
    *,
    description: str,
    env: gymnasium.Env[Any, Any] | EnvSpec | None = None,
    observation_space: gymnasium.Space[Any] | None = None,
    action_space: gymnasium.Space[Any] | None = None,
    control_hz: float | None = None,
    algorithm_name: str | None = None,
    goal: str | None = None,
    units: Mapping[str, str] | None = None,
    own: Callable[[], Mapping[str, Any]] = dict,
) -> Path:
    """The folder `out_dir / dataset_id` with the finished dataset; out_dir is a root as MINARI_DATASETS_PATH names one.

    episodes: taken one at a time, each a mapping of observations (an array, or a mapping of arrays, of T + 1 rows),
    actions, rewards, terminations, truncations (T rows) and infos (optional). The dataset appears when the last
    episode is written; a killed writer leaves none. env: recorded with the dataset, gives the spaces not passed.
    control_hz: steps a second; goal: the observation in which goals are given; units: of observations by name; all
    recorded for readers that cannot tell from the layout; own: more metadata, asked for after the last episode. Raises
    ValueError if the id is malformed or taken, there is no episode, an episode's rows do not fit, or the disk is full.
    """
    if not is_minari_id(dataset_id):
        raise ValueError(f"dataset_id must read like name-v0 or namespace/name-v0, got {dataset_id!r}")
    root = Path(out_dir).expanduser().resolve()
    if (root / dataset_id).exists():
        raise ValueError(f"{root / dataset_id}: exists already; remove it or choose another folder or version")
    with told_if_full(root / dataset_id, "the dataset"), staged(root / dataset_id) as folder:
        with _minari_root(folder), _quiet_minari():
            dataset = minari.create_dataset_from_buffers(
                dataset_id,
                _buffers(episodes, folder),
                env=env,
                observation_space=observation_space,
                action_space=action_space,
                description=description,
                algorithm_name=algorithm_name,
                jpeg_encoding=False,
            )
        if dataset.storage.total_episodes == 0:
            raise ValueError(f"{dataset_id}: a dataset must have at least 1 episode, got 0")
        known = {"control_hz": control_hz, "goal": goal, "units": units and dict(units), **own()}
        dataset.storage.update_metadata({key: value for key, value in known.items() if value is not None})
        _publish_namespaces(folder, root, dataset_id)
        place(folder / dataset_id, root / dataset_id)
    return root / dataset_id


def _buffers(episodes: Iterable[MinariEpisode], folder: Path) -> Iterator[EpisodeBuffer]:
    for index, episode in enumerate(episodes):
        _check(index, episode)
        sizes = [np.asarray(rows).nbytes for key, value in episode.items() for _, rows in _leaves(key, value)]
        require_room(folder, sum(sizes) + min((index + 1) * len(sizes) * SAID, SAID_LAST) + (1 << 18))
        yield EpisodeBuffer(
            observations=_plain(episode["observations"]),
            actions=_plain(episode["actions"]),
            rewards=episode["rewards"],
            terminations=episode["terminations"],
            truncations=episode["truncations"],
            infos=_plain(episode["infos"]) if episode.get("infos") else None,
        )


def _check(index: int, episode: MinariEpisode) -> None:
    steps = len(episode["rewards"])
    if steps < 1:
        raise ValueError(f"episode {index}: must have at least 1 step, got 0; leave it out")
    for key in ("observations", "actions", "terminations", "truncations"):
        expected = steps + 1 if key == "observations" else steps
        for name, rows in _leaves(key, episode[key]):
            if len(rows) != expected:
                raise ValueError(
                    f"episode {index}: {name} must have {expected} rows for {steps} steps, got {len(rows)}"
                )


def _leaves(name: str, value: Any) -> Iterator[tuple[str, Any]]:
    if isinstance(value, Mapping):
        for key, inner in value.items():
            yield from _leaves(f"{name}/{key}", inner)
    else:
        yield name, value


def _plain(value: Any) -> Any:
    """Minari asks for a dict, not for any mapping."""
    return {key: _plain(inner) for key, inner in value.items()} if isinstance(value, Mapping) else value


@contextmanager
def _minari_root(folder: Path) -> Iterator[None]:
    """Minari takes its root from the environment alone."""
    before = os.environ.get("MINARI_DATASETS_PATH")
    os.environ["MINARI_DATASETS_PATH"] = str(folder)
    try:
        yield
    finally:
        if before is None:
            del os.environ["MINARI_DATASETS_PATH"]
        else:
            os.environ["MINARI_DATASETS_PATH"] = before


@contextmanager
def _quiet_minari() -> Iterator[None]:
    """Minari warns of every field of its metadata that is not given; we give those we know."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", category=UserWarning, module=r"minari\.")
        yield


def _publish_namespaces(staging: Path, root: Path, dataset_id: str) -> None:
    """The metadata that Minari keeps in every folder above a dataset, where it is not there yet."""
    for namespace in list(Path(dataset_id).parents)[:-1]:
        for document in (staging / namespace).glob("namespace_metadata.json"):
            if not (root / namespace / document.name).exists():
                shutil.copy(document, root / namespace / document.name)
