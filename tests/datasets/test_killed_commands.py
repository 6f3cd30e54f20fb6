"""`forcing data convert`, `minari` and `lerobot` killed with SIGKILL at random moments: what they write is there whole
or not at all, and what was there before stays."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import minari
import numpy as np
import pytest

from forcing.commands import data
from forcing.commands.data import convert
from forcing.commands.data import minari as export
from forcing.datasets.recording import open_recording, read_recording
from forcing.datasets.store import is_store, write_store
from forcing.policy.types import Trajectories

Recorder = Callable[..., Trajectories]
KILLS = {"convert": 50, "minari": 35, "lerobot": 15}  # 50 of the exports together
VERSIONS = 3
IMPORTS = """
import itertools
import time
import minari.data_collector, minari.dataset.minari_storage, h5py, zarr
import forcing.commands.data as data
import forcing.datasets.checks, forcing.datasets.recording, forcing.datasets.store
"""
CONVERT = """
from pathlib import Path

def work(sources, out, first):
    began = time.monotonic()
    for number in itertools.count(int(first)):
        data.convert(f"{sources}/{number % 3}.zarr", Path(out))
        print("finished", number, time.monotonic() - began, flush=True)
"""
EXPORT = """
import forcing.datasets.minari_export
from pathlib import Path

def work(sources, out, prefix):
    began = time.monotonic()
    for number in itertools.count():
        data.minari(f"{sources}/{number % 3}.zarr", Path(out), f"{prefix}-v{number}")
        print("finished", number, time.monotonic() - began, flush=True)
"""
LEROBOT = """
import forcing.datasets.lerobot_export
from pathlib import Path

def work(sources, out):
    began = time.monotonic()
    for number in itertools.count():
        data.lerobot(f"{sources}/{number % 3}.zarr", Path(out) / str(number))
        print("finished", number, time.monotonic() - began, flush=True)
"""


@pytest.fixture
def sources(tmp_path: Path, point_mass: Recorder) -> Path:
    """A folder of stores 0.zarr to 2.zarr, of different episodes."""
    for version in range(VERSIONS):
        write_store(point_mass([20 + version, 30], seed=version), tmp_path / "sources" / f"{version}.zarr")
    return tmp_path / "sources"


def version_of(found: Path, sources: Path) -> int:
    """Which source was written there, to the digit. Fails if it is none of them."""
    episodes = [episode.streams for episode in open_recording(found).episodes()]
    version = len(episodes[0]["action"]) - 20
    expected = [episode.streams for episode in open_recording(sources / f"{version}.zarr").episodes()]
    assert len(episodes) == len(expected)
    for streams, wanted in zip(episodes, expected, strict=True):
        for name, values in wanted.items():
            assert np.array_equal(streams[name], values)
    return version


def finished(lines: list[str]) -> list[int]:
    return [int(line.split()[1]) for line in lines if line.startswith("finished ")]


def third_at_s(lines: list[str]) -> float:
    """When, after it began, a writer had finished its third; of a slow machine less, so that tests end."""
    times = [float(line.split()[2]) for line in lines if line.startswith("finished ")]
    assert len(times) > 2, "nothing is written in time"
    return min(times[2], 0.6)


def test_a_killed_conversion_leaves_a_whole_store_or_none_and_an_older_one_whole(
    tmp_path: Path, sources: Path, victims: Callable[[str], Any]
) -> None:
    writers, rng, out = victims(IMPORTS + CONVERT), np.random.default_rng(0), tmp_path / "out" / "s.zarr"
    third_s = third_at_s(writers.killed(3.0, sources, tmp_path / "warm" / "s.zarr", 0))
    newest = -1
    for _ in range(KILLS["convert"]):
        written = finished(writers.killed(rng.uniform(0, third_s), sources, out, newest + 1))
        newest = written[-1] if written else newest
        if newest == -1 and not is_store(out):
            continue  # none yet
        version = version_of(out, sources)
        if version != newest % VERSIONS:  # it was killed after the newer one stood and before it said so
            newest += 1
        assert version == newest % VERSIONS
    assert newest > 1, "they were killed at work"
    convert(str(sources / "0.zarr"), out)
    assert [entry.name for entry in out.parent.iterdir()] == [out.name], "what killed writers left is gone"


def test_a_killed_export_leaves_whole_datasets_alone(
    tmp_path: Path,
    sources: Path,
    victims: Callable[[str], Any],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    writers, rng, root = victims(IMPORTS + EXPORT), np.random.default_rng(0), tmp_path / "root"
    third_s = third_at_s(writers.killed(3.0, sources, tmp_path / "warm", "me/warm"))
    written = dict[str, int]()
    for kill in range(KILLS["minari"]):
        prefix = f"me/k{kill}"
        said = finished(writers.killed(rng.uniform(0, third_s), sources, root, prefix))
        there = sorted((root / "me").glob(f"k{kill}-v*"))
        assert len(said) <= len(there) <= len(said) + 1
        for number in range(len(there)):
            written[f"{prefix}-v{number}"] = number % VERSIONS
            assert version_of(root / f"{prefix}-v{number}", sources) == number % VERSIONS
    assert len(written) > 1, "they were killed at work"
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(root))
    assert set(minari.list_local_datasets()) == set(written), "Minari sees those alone"
    for dataset_id, version in written.items():
        assert version_of(root / dataset_id, sources) == version, "no later writer touched it"
    last = next(reversed(written))
    assert minari.load_dataset(last)[0].actions.shape == (20 + written[last], 2)


def test_a_killed_lerobot_export_leaves_whole_datasets_alone(
    tmp_path: Path, sources: Path, victims: Callable[[str], Any]
) -> None:
    writers, rng = victims(IMPORTS + LEROBOT), np.random.default_rng(0)
    third_s = third_at_s(writers.killed(3.0, sources, tmp_path / "warm"))
    written = dict[Path, int]()
    for kill in range(KILLS["lerobot"]):
        root = tmp_path / "root" / str(kill)
        said = finished(writers.killed(rng.uniform(0, third_s), sources, root))
        there = sorted((found for found in root.glob("*") if not found.name.startswith(".")), key=lambda p: int(p.name))
        assert [int(found.name) for found in there] == list(range(len(there)))
        assert len(said) <= len(there) <= len(said) + 1
        for number, found in enumerate(there):
            written[found] = number % VERSIONS
            assert version_of(found, sources) == number % VERSIONS
    assert len(written) > 1, "they were killed at work"
    left = next(found for found in (tmp_path / "root").glob("*/.*.tmp-*"))
    again = left.parent / left.name.removeprefix(".").partition(".")[0]
    data.lerobot(str(sources / "1.zarr"), again)
    assert version_of(again, sources) == 1
    assert not list(left.parent.glob(f".{again.name}.*")), "what the killed writer left is gone"


def test_what_a_killed_export_left_is_no_dataset(
    tmp_path: Path, sources: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    export(str(sources / "1.zarr"), tmp_path / "root", "me/whole-v0")
    left = tmp_path / "root" / "me" / ".half-v0.tmp-1" / "me"
    left.mkdir(parents=True)
    (tmp_path / "root" / "me" / "whole-v0").rename(left / "half-v0")
    with pytest.raises(ValueError, match="found a folder with me"):
        read_recording(tmp_path / "root")
    export(str(sources / "2.zarr"), tmp_path / "root", "me/whole-v0")
    assert version_of(tmp_path / "root", sources) == 2
