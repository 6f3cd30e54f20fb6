"""Recordings that become LeRobot datasets and come back, beside what the lerobot package itself writes and reads."""

import io
import json
import os
import subprocess
import sys
import time
import tracemalloc
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image

from forcing.datasets import lerobot_parquet
from forcing.datasets.episodes import Episode, InMemory, gathered
from forcing.datasets.lerobot_export import export_lerobot
from forcing.datasets.lerobot_files import open_lerobot
from forcing.datasets.lerobot_stats import image_stats
from forcing.datasets.recording import read_recording
from forcing.datasets.store import open_store, write_store
from forcing.policy.types import EpisodeNote, StreamSpec, Trajectories, TrajectorySpec

Recorder = Callable[..., Trajectories]
SAMPLES = Path(__file__).parent / "samples"
FRONT = "observation.images.front"
DATA, LIST = "data/chunk-000/file-000.parquet", "meta/episodes/chunk-000/file-000.parquet"
PACKAGE = os.environ.get("LEROBOT_PYTHON", "")

ARM = TrajectorySpec(
    streams=(
        StreamSpec(name="pose", role="observation", shape=(7,), units="rad", low=(-3.0,) * 7, high=(3.0,) * 7),
        StreamSpec(name="grid", role="observation", shape=(2, 3)),
        StreamSpec(name="contact", role="observation", shape=()),
        StreamSpec(name="top", role="observation", shape=(20, 30, 3)),
        StreamSpec(name="wrist", role="observation", shape=(16, 16, 1)),
        StreamSpec(name="torque", role="action", shape=(2,), units="Nm", low=(-1.5, -1.5), high=(1.5, 2.5)),
        StreamSpec(name="progress", role="reward", shape=()),
        StreamSpec(name="effort", role="reward", shape=(2,)),
    ),
    control_hz=33.3,
    goal="pose",
)


def arm(lengths: tuple[int, ...] = (5, 1, 9)) -> Trajectories:
    """Every type and shape that a stream may have, at random."""
    rng, steps, rows = np.random.default_rng(0), sum(lengths), sum(lengths) + len(lengths)
    notes = tuple(EpisodeNote(task=f'täsk {i % 2}; "x"', subsets=("train",) if i else ()) for i in range(len(lengths)))
    return Trajectories(
        spec=ARM,
        streams={
            "pose": rng.standard_normal((rows, 7)).astype(np.float32),
            "grid": rng.integers(-9, 9, (rows, 2, 3)),
            "contact": rng.random(rows) > 0.5,
            "torque": rng.standard_normal((steps, 2)).astype(np.float32),
            "progress": rng.standard_normal(steps).astype(np.float32),
            "effort": rng.standard_normal((steps, 2)).astype(np.float32),
        },
        frames={
            "top": rng.integers(0, 256, (rows, 20, 30, 3), np.uint8),
            "wrist": rng.integers(0, 256, (rows, 16, 16, 1), np.uint8),
        },
        lengths=np.array(lengths),
        notes=notes,
        provenance={"source": "test", "goals": None},
    )


def assert_same(one: Trajectories, other: Trajectories) -> None:
    assert one.spec == other.spec
    assert one.notes == other.notes
    assert one.lengths.tolist() == other.lengths.tolist()
    for stream in one.spec.streams:
        kind = "frames" if stream.image else "streams"
        first, second = (np.asarray(getattr(each, kind)[stream.name][:]) for each in (one, other))
        assert first.dtype == second.dtype
        assert np.array_equal(first, second)


def test_everything_survives_the_way_there_and_back(tmp_path: Path) -> None:
    recorded = arm()
    back = gathered(open_lerobot(export_lerobot(InMemory(recorded), tmp_path / "arm")))
    assert_same(recorded, back)
    assert back.provenance["converted_from"] == {"source": "test", "goals": None}


@pytest.mark.parametrize("cameras", [True, False])
def test_a_store_comes_back_exactly(tmp_path: Path, point_mass: Recorder, cameras: bool) -> None:
    recorded = gathered(open_lerobot(SAMPLES / "lerobot-v3-video")) if cameras else point_mass([30, 4, 12])
    store = open_store(write_store(recorded, tmp_path / "first.zarr"))
    dataset = export_lerobot(InMemory(store), tmp_path / "dataset")
    assert_same(store, open_store(write_store(read_recording(dataset), tmp_path / "second.zarr")))


def test_numbers_are_kept_to_the_bit(tmp_path: Path) -> None:
    """Also those that are no numbers, and in twice the precision."""
    spec = TrajectorySpec(streams=ARM.streams[5:6], control_hz=10)
    odd = np.array([[np.nan, np.inf], [-0.0, 5e-324], [0.1, -np.inf]])
    recorded = Trajectories(spec=spec, streams={"torque": odd}, lengths=np.array([3]))
    (episode,) = open_lerobot(export_lerobot(InMemory(recorded), tmp_path / "odd")).episodes()
    assert episode.streams["torque"].tobytes() == odd.tobytes()


@pytest.mark.parametrize("name", ["lerobot-v3-image", "lerobot-v3-video"])
def test_a_sample_goes_out_as_the_package_wrote_it(tmp_path: Path, name: str) -> None:
    """Rows of the image sample but for the last action; columns, types, tasks and description of both."""
    sample, out = SAMPLES / name, export_lerobot(open_lerobot(SAMPLES / name), tmp_path / "out")
    theirs, ours = pq.read_table(sample / DATA), pq.read_table(out / DATA)
    stored = [key for key in theirs.column_names if key != FRONT]
    for key in stored:
        assert ours[key].type == theirs[key].type
        last = np.append(np.diff(np.asarray(theirs["episode_index"])) > 0, True)
        for mine, other, end in zip(ours[key].to_pylist(), theirs[key].to_pylist(), last, strict=True):
            assert mine == other or (key == "action" and end)
    image = pq.read_schema(SAMPLES / "lerobot-v3-image" / DATA)
    assert ours.schema.field(FRONT).type == image.field(FRONT).type
    written, wanted = (json.loads(schema.metadata[b"huggingface"])["info"] for schema in (ours.schema, image))
    assert written == wanted
    tasks, their_tasks = (pq.read_table(folder / "meta/tasks.parquet") for folder in (out, sample))
    assert tasks.equals(their_tasks)
    pandas, their_pandas = (json.loads(table.schema.metadata[b"pandas"]) for table in (tasks, their_tasks))
    assert pandas == their_pandas
    info, their_info = (json.loads((folder / "meta/info.json").read_text()) for folder in (out, SAMPLES / name))
    features, their_features = info.pop("features"), their_info.pop("features")
    assert info == {**their_info, "video_path": None}
    their_features[FRONT] = json.loads((SAMPLES / "lerobot-v3-image/meta/info.json").read_text())["features"][FRONT]
    assert features == their_features


def test_what_is_listed_of_episodes_is_what_the_package_lists(tmp_path: Path) -> None:
    """Statistics of state as close as its running sums in float32; quantiles as its histograms."""
    sample = SAMPLES / "lerobot-v3-image"
    out = export_lerobot(open_lerobot(sample), tmp_path / "out")
    theirs, ours = pq.read_table(sample / LIST), pq.read_table(out / LIST)
    assert {f.name: f.type for f in ours.schema} == {f.name: f.type for f in theirs.schema}
    for key in (key for key in theirs.column_names if not key.startswith("stats/")):
        assert ours[key].to_pylist() == theirs[key].to_pylist()
    stats, their_stats = (json.loads((folder / "meta/stats.json").read_text()) for folder in (out, sample))
    assert {key: sorted(s) for key, s in stats.items()} == {key: sorted(s) for key, s in their_stats.items()}
    for key in ("observation.state", FRONT, "timestamp", "index", "task_index"):
        for figure in ("min", "max", "mean", "std", "count"):
            assert np.shape(stats[key][figure]) == np.shape(their_stats[key][figure])
            assert np.allclose(stats[key][figure], their_stats[key][figure], atol=2e-4), (key, figure)
            for mine, other in zip(
                ours[f"stats/{key}/{figure}"].to_pylist(), theirs[f"stats/{key}/{figure}"].to_pylist(), strict=True
            ):
                assert np.allclose(mine, other, atol=2e-4), (key, figure)


def test_statistics_of_episodes_and_of_all_are_numpy_s(tmp_path: Path) -> None:
    recorded = arm((40, 25))
    out = export_lerobot(InMemory(recorded), tmp_path / "arm")
    entries, total = pq.read_table(out / LIST).to_pylist(), json.loads((out / "meta/stats.json").read_text())
    quantiles = {"q01": 0.01, "q10": 0.1, "q50": 0.5, "q90": 0.9, "q99": 0.99}
    for key, name in {"observation.pose": "pose", "observation.grid": "grid"}.items():
        for index, entry in enumerate(entries):
            rows = recorded.episode(index)[name].astype(float)
            for figure in ("min", "max", "mean", "std"):
                assert np.allclose(entry[f"stats/{key}/{figure}"], getattr(np, figure)(rows, axis=0))
            for figure, share in quantiles.items():
                assert np.allclose(entry[f"stats/{key}/{figure}"], np.quantile(rows, share, axis=0))
        every = recorded.streams[name].astype(float)
        for figure in ("min", "max", "mean", "std"):
            assert np.allclose(total[key][figure], getattr(np, figure)(every, axis=0))
        assert total[key]["count"] == [67]
    pixels = np.asarray(recorded.frames["top"][:]) / 255
    for figure in ("min", "max", "mean", "std"):
        found = np.array(total["observation.images.top"][figure])
        assert found.shape == (3, 1, 1)
        assert np.allclose(found[:, 0, 0], getattr(np, figure)(pixels, axis=(0, 1, 2)))
    first = pixels[:41]
    for figure, share in quantiles.items():
        found = np.array(entries[0][f"stats/observation.images.top/{figure}"])[:, 0, 0]
        assert np.allclose(found, np.quantile(first, share, axis=(0, 1, 2), method="inverted_cdf"))


def test_quantiles_of_pixels_are_levels_that_occur() -> None:
    """By hand: of 0, 10, 20 and 30 half is at most 10, nine tenths need 30."""
    stats = image_stats(np.array([0, 10, 20, 30], np.uint8).reshape(2, 1, 2, 1))
    found = {name: round(float(stats[name].item() * 255)) for name in ("min", "q01", "q10", "q50", "q90", "q99", "max")}
    assert found == {"min": 0, "q01": 0, "q10": 0, "q50": 10, "q90": 30, "q99": 30, "max": 30}
    assert stats["count"].tolist() == [2]


def test_files_say_by_themselves_what_is_in_them(tmp_path: Path) -> None:
    """LeRobot's names, a row for each observation, the last action twice and a last reward of 0, frames as PNG."""
    recorded = arm()
    out = export_lerobot(InMemory(recorded), tmp_path / "arm")
    info, rows = json.loads((out / "meta/info.json").read_text()), pq.read_table(out / DATA).to_pylist()
    keys = ["observation.pose", "observation.grid", "observation.contact", "observation.images.top"]
    keys += ["observation.images.wrist", "action", "next.progress", "next.effort"]
    assert list(info["features"])[:8] == [key.replace("next.progress", "next.reward") for key in keys]
    assert info["features"]["action"]["names"] == ["torque_0", "torque_1"]
    assert (info["fps"], info["total_frames"], info["splits"]) == (33.3, 18, {"train": "0:3"})
    assert [row["frame_index"] for row in rows] == [*range(6), *range(2), *range(10)]
    assert [row["timestamp"] for row in rows[6:8]] == [0.0, float(np.float32(1 / 33.3))]
    torque, reward = recorded.episode(0)["torque"].tolist(), recorded.episode(0)["progress"].tolist()
    assert [row["action"] for row in rows[:6]] == [*torque, torque[-1]]
    assert [row["next.reward"] for row in rows[:6]] == [*reward, 0.0]
    top = Image.open(io.BytesIO(rows[7]["observation.images.top"]["bytes"]))
    assert (top.format, top.mode) == ("PNG", "RGB")
    assert np.array_equal(np.asarray(top), recorded.episode(1)["top"][1])


def test_one_stream_of_numbers_is_the_state_to_lerobot(tmp_path: Path) -> None:
    spec = replace(ARM, streams=(ARM.streams[0], ARM.streams[3], ARM.streams[5]))
    recorded = replace(arm(), spec=spec)
    out = export_lerobot(InMemory(recorded), tmp_path / "arm")
    assert list(json.loads((out / "meta/info.json").read_text())["features"])[:3] == [
        "observation.state",
        "observation.images.top",
        "action",
    ]
    assert gathered(open_lerobot(out)).spec == spec


def test_full_files_are_followed_by_new_ones(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lerobot_parquet, "FILE_MB", 0)
    monkeypatch.setattr(lerobot_parquet, "FILES_IN_A_CHUNK", 2)
    recorded = arm()
    out = export_lerobot(InMemory(recorded), tmp_path / "arm")
    assert sorted(path.relative_to(out).as_posix() for path in out.glob("data/*/*")) == [
        "data/chunk-000/file-000.parquet",
        "data/chunk-000/file-001.parquet",
        "data/chunk-001/file-000.parquet",
    ]
    assert_same(recorded, gathered(open_lerobot(out)))


class Long:
    """A `Recording` of 60 episodes of 0.55 MB of frames, made as they are asked for."""

    spec = TrajectorySpec(
        streams=(
            StreamSpec(name="top", role="observation", shape=(64, 64, 3)),
            StreamSpec(name="action", role="action", shape=(2,)),
        ),
        control_hz=10,
    )

    def episodes(self) -> Iterator[Episode]:
        for index in range(60):
            frames = np.zeros((45, 64, 64, 3), np.uint8)
            frames[:, 0, 0] = index
            yield Episode({"top": frames, "action": np.full((44, 2), index, np.float32)}, f"episode {index}")

    def provenance(self) -> dict[str, Any]:
        return {}


def test_one_episode_is_in_memory_while_it_is_written(tmp_path: Path) -> None:
    tracemalloc.start()
    out = export_lerobot(Long(), tmp_path / "long")
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 6e6
    last = [(e.streams["top"][0, 0, 0, 0], e.streams["action"][0, 0]) for e in open_lerobot(out).episodes()]
    assert last == [(index, index) for index in range(60)]


def test_nothing_that_stands_there_is_replaced(tmp_path: Path) -> None:
    (tmp_path / "arm").mkdir()
    out = export_lerobot(InMemory(arm()), tmp_path / "arm")
    before = sorted(path.stat().st_mtime_ns for path in out.glob("**/*"))
    with pytest.raises(ValueError, match=r"arm: exists already; remove it or choose another folder"):
        export_lerobot(InMemory(arm()), out)
    assert sorted(path.stat().st_mtime_ns for path in out.glob("**/*")) == before


def broken(**streams: Any) -> Any:
    recorded = arm()

    class Broken(InMemory):
        def episodes(self) -> Iterator[Episode]:
            *whole, last = super().episodes()
            yield from whole
            yield replace(last, streams={**last.streams, **streams})

    return Broken(recorded)


@pytest.mark.parametrize(
    ("recording", "message"),
    [
        (
            broken(pose=np.zeros((10, 7))),
            "episode 2: stream 'pose' must be float32 as in the first episode, got float64",
        ),
        (broken(pose=np.zeros((9, 7), np.float32)), r"episode 2: stream 'pose' must have shape \(10, 7\)"),
        (broken(top=np.zeros((10, 20, 30, 3))), "episode 2: stream 'top' must be uint8 as in the first episode"),
        (broken(torque=np.zeros((0, 2), np.float32), pose=np.zeros((1, 7), np.float32)), "at least 1 step"),
    ],
)
def test_an_episode_that_cannot_be_written_leaves_nothing_behind(tmp_path: Path, recording: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        export_lerobot(recording, tmp_path / "arm")
    assert list(tmp_path.iterdir()) == []


def test_a_recording_without_episodes_or_of_objects_is_refused(tmp_path: Path) -> None:
    class Empty(InMemory):
        def episodes(self) -> Iterator[Episode]:
            return iter(())

    with pytest.raises(ValueError, match="at least 1 episode to export, got 0"):
        export_lerobot(Empty(arm()), tmp_path / "arm")
    recorded = arm()
    words = {**recorded.streams, "contact": np.array(["yes"] * 18, object)}
    with pytest.raises(ValueError, match="stream 'contact' must be of numbers in at most 5 axes, got object"):
        export_lerobot(InMemory(replace(recorded, streams=words)), tmp_path / "arm")
    assert list(tmp_path.iterdir()) == []


def test_a_dataset_that_was_changed_since_is_not_read_as_ours(tmp_path: Path) -> None:
    out = export_lerobot(InMemory(arm()), tmp_path / "arm")
    own = out / "meta/forcing.json"
    whole = json.loads(own.read_text())
    own.write_text(json.dumps({**whole, "features": {**whole["features"], "pose": "observation.gone"}}))
    with pytest.raises(ValueError, match=r"forcing.json: stream 'pose' has shape \[7\], feature 'observation.gone' of"):
        open_lerobot(out)
    for text in ("{", json.dumps({**whole, "subsets": ["train"]})):
        own.write_text(text)
        with pytest.raises(ValueError, match=r"forcing.json: must be the JSON that the export wrote .*; remove this"):
            open_lerobot(out)
    own.write_text("{")
    with pytest.raises(ValueError, match=r"forcing.json: must be the JSON that the export wrote .*; remove this file"):
        open_lerobot(out)
    own.unlink()
    read = open_lerobot(out)
    assert [s.name for s in read.spec.streams] == ["pose", "grid", "contact", "top", "wrist", "action", "reward"]
    assert np.array_equal(gathered(read).frames["top"][:], arm().frames["top"][:])


def test_the_command_exports_any_recording(tmp_path: Path) -> None:
    def run(*words: str) -> "subprocess.CompletedProcess[str]":
        command = [sys.executable, "-m", "forcing", "data", "lerobot", *words]
        return subprocess.run(command, capture_output=True, text=True)

    source, out = SAMPLES / "lerobot-small-v21-image", tmp_path / "new"
    first = run(str(source), "--out", str(out))
    assert (first.returncode, first.stdout) == (0, f"wrote {out}\n")
    assert_same(gathered(open_lerobot(source)), gathered(open_lerobot(out)))
    second = run(str(source), "--out", str(out))
    assert second.returncode in (1, 2)
    assert second.stderr.count("\n") <= 2
    assert "exists already" in second.stderr


# Exports the same recording over and over, to a new folder each time.
WRITER = """
import sys
from pathlib import Path
from forcing.datasets.lerobot_export import export_lerobot
from forcing.datasets.lerobot_files import open_lerobot
recording = open_lerobot(sys.argv[1])
for number in range(1_000_000):
    print(export_lerobot(recording, Path(sys.argv[2]) / f"out-{number}"), flush=True)
"""


def test_a_writer_that_is_killed_leaves_whole_datasets_alone(tmp_path: Path) -> None:
    source, rng = SAMPLES / "lerobot-small-v21-image", np.random.default_rng(0)
    expected = gathered(open_lerobot(source))
    for attempt in range(3):
        folder = tmp_path / str(attempt)
        command = [sys.executable, "-c", WRITER, str(source), str(folder)]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as writer:
            assert writer.stdout is not None
            writer.stdout.readline()
            time.sleep(rng.uniform(0, 0.2))
            writer.kill()
        whole = sorted(folder.glob("out-*"))
        assert whole
        for path in whole:
            assert_same(expected, gathered(open_lerobot(path)))
        for left in folder.glob(".out-*"):
            number = left.name.split(".")[1]
            assert_same(expected, gathered(open_lerobot(export_lerobot(InMemory(expected), folder / number))))
        assert not list(folder.glob(".out-*"))


@pytest.mark.skipif(not PACKAGE, reason="LEROBOT_PYTHON names no Python that has the lerobot package")
@pytest.mark.parametrize("cameras", [True, False])
def test_the_lerobot_package_opens_it_and_gives_out_the_same(tmp_path: Path, cameras: bool) -> None:
    recorded = arm() if cameras else arm().numbers()
    out = export_lerobot(InMemory(recorded), tmp_path / "arm")
    script = [PACKAGE, str(SAMPLES / "with_lerobot.py"), "read", str(out), str(tmp_path / "read.npz")]
    subprocess.run(script, check=True, env={**os.environ, "HF_HUB_OFFLINE": "1", "HF_HOME": str(tmp_path / "hub")})
    read = np.load(tmp_path / "read.npz")
    assert float(read["fps"]) == 33.3
    own = json.loads((out / "meta/forcing.json").read_text())["features"]
    for episode in range(3):
        here = read["episode_index"] == episode
        assert set(read["task"][here].tolist()) == {recorded.notes[episode].task}
        for name, rows in recorded.episode(episode).items():
            values = read[own[name]][here][: len(rows)]
            assert np.array_equal(values[..., :1] if name == "wrist" else values, rows)
