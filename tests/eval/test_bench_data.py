"""The data bench: every reader hands out windows of the recording, and the report keeps what was measured."""

import io
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rich.console import Console

from forcing.datasets.store import open_store
from forcing.eval import bench_data, bench_data_files
from forcing.eval.bench_data import DataBench, run_bench
from forcing.eval.bench_data_files import MovingPictures, random_walks, write_pictures, write_walks
from forcing.eval.bench_data_worker import READERS, Job


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("bench")
    write_pictures(MovingPictures(3, side=16, seed=5), made / "frames")
    write_walks(random_walks(3, 5), made / "numbers")
    return made


@pytest.mark.parametrize("reader", READERS)
@pytest.mark.parametrize(
    ("kind", "rows", "future", "first"), [("frames", 200, 31, "camera"), ("numbers", 401, 64, "position")]
)
def test_every_reader_draws_windows_of_the_same_recording_inside_an_episode(
    folder: Path, reader: str, kind: str, rows: int, future: int, first: str
) -> None:
    job = Job(reader=reader, folder=str(folder / kind), future=future, batch=20, seed=1, cache_mb=1)
    draw, _ = READERS[reader](job)
    files = {file.stem: np.load(file) for file in (folder / kind / "memmap").glob("*.npy")}
    starts = set()
    for _ in range(2):
        batch = draw()
        assert sorted(batch) == sorted(files)
        for index in range(20):
            window = batch[first][index]
            (start,) = np.flatnonzero((files[first] == window[0]).reshape(len(files[first]), -1).all(axis=1))
            episode = start // rows
            assert start + future < (episode + 1) * rows
            for name, values in files.items():
                shift, length = (episode, future) if name == "action" else (0, future + 1)
                assert np.array_equal(batch[name][index], values[start - shift : start - shift + length])
            starts.add(start)
    assert len(starts) > 20


def test_pictures_are_those_of_their_seed_smooth_and_noisy_and_repeat_after_their_scenes() -> None:
    first, second, third = (episode.streams["camera"].astype(int) for episode in MovingPictures(3, 32, 1, 2).episodes())
    (again,) = (episode.streams["camera"] for episode in MovingPictures(1, 32, 1).episodes())
    assert np.array_equal(first, again)
    assert not np.array_equal(first, second)
    assert np.array_equal((first + 1) % 256, third)
    assert 1 < np.abs(np.diff(first, axis=2)).mean() < 12
    assert np.abs(np.diff(first, axis=0)).mean() > 1


def test_the_bench_measures_all_readers_in_turns_and_keeps_every_measurement(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[Any] = []
    ask = bench_data._ask

    def watched(worker: Any, **what: float) -> dict[str, Any]:
        asked.append(worker.args[-1])
        return ask(worker, **what)

    monkeypatch.setattr(bench_data, "_ask", watched)
    monkeypatch.setattr(bench_data_files, "SCENES", 1)
    console = Console(record=True, width=120, file=io.StringIO())
    bench = DataBench(frames=600, side=16, steps=1200, repeats=2, seconds=0.05, seed=3, cache_mb=1, larger_mb=0)
    run_bench(bench, report=tmp_path / "r.json", command="forcing bench data", console=console)
    report = json.loads((tmp_path / "r.json").read_text())
    assert report["command"] == "forcing bench data"
    assert report["bench"]["seed"] == 3
    readers = list(READERS)
    assert [(row["kind"], row["reader"]) for row in report["rows"]] == [
        (kind, reader) for kind in ("numbers", "frames") for reader in readers
    ]
    for row in report["rows"]:
        assert len(row["measured"]) == 2
        rates = [one["windows"] / one["seconds"] for one in row["measured"]]
        assert row["windows_per_s"] == pytest.approx(sum(rates) / 2)
        assert 10 < row["peak_mb"] < 1000
    in_turn = [json.loads(settings)["reader"] for settings in asked[:12]]
    assert in_turn == [*readers, *readers, *readers[::-1]]  # warming up, then forwards and backwards
    drawn = {row["reader"]: row["drawn"] for row in report["rows"]}
    assert drawn == {
        "forcing": "uniformly",
        "minari": "episode, then slice",
        "zarr": "uniformly",
        "memmap": "uniformly",
    }
    said = console.export_text()
    assert "64-step windows of numbers" in said
    assert "32-frame windows of frames" in said


def test_a_store_three_times_the_limit_is_drawn_from_under_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """420 MB of frames under 140 MB, which the system enforces; what Python and its packages take is among them."""
    monkeypatch.setattr(bench_data, "KINDS", {"frames": (31, 8)})
    bench = DataBench(seconds=0.05, cache_mb=16, larger_mb=140)
    found = bench_data._larger(bench, tmp_path / "larger")
    store = open_store(tmp_path / "larger" / "store.zarr")
    assert store.frames["camera"].shape[0] * 96 * 96 * 3 >= 3 * 140 * 2**20
    assert found["windows"] >= store.frames["camera"].shape[0]
    assert found["drawn"].startswith("pool of ")
    assert found["peak_mb"][-1] < 200  # programs' own pages, which the limit does not count, among them
    assert found["peak_mb"][-1] < found["peak_mb"][1] + 8


def test_the_peak_of_memory_is_this_process_s() -> None:
    source = """
import numpy as np
from forcing.eval.bench_data_worker import peak_mb
before = peak_mb()
np.ones(60 << 20, np.uint8)
print(peak_mb() - before)
"""
    said = subprocess.run([sys.executable, "-c", source], capture_output=True, text=True, check=True).stdout
    assert 55 < float(said) < 65
