"""LeRobot datasets that the package itself wrote, others that are put together by hand, and broken ones."""

import json
import re
import shutil
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import av
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from forcing.datasets.checks import check
from forcing.datasets.episodes import gathered
from forcing.datasets.lerobot_files import open_lerobot
from forcing.datasets.lerobot_video import video_frames
from forcing.datasets.recording import open_recording, read_recording, recognise
from forcing.policy.types import Array

SAMPLES = Path(__file__).parent / "samples"
IMAGE, VIDEO = SAMPLES / "lerobot-v3-image", SAMPLES / "lerobot-v3-video"
SMALL_V21 = SAMPLES / "lerobot-small-v21-image"
FRONT = "observation.images.front"
DATA, LIST = "data/chunk-000/file-000.parquet", "meta/episodes/chunk-000/file-000.parquet"
MP4 = f"videos/{FRONT}/chunk-000/file-000.mp4"


def copied(source: Path, folder: Path) -> Path:
    return Path(shutil.copytree(source, folder / "dataset"))


def rewrite_json(path: Path, change: Callable[[dict[str, Any]], object]) -> None:
    document = json.loads(path.read_text())
    change(document)
    path.write_text(json.dumps(document))


def rewrite_table(path: Path, change: Callable[[pa.Table], pa.Table], **options: Any) -> None:
    pq.write_table(change(pq.read_table(path)), path, **options)


def with_column(name: str, values: Any) -> Callable[[pa.Table], pa.Table]:
    return lambda table: table.set_column(table.schema.get_field_index(name), name, pa.array(values))


def all_frames(path: Path) -> Array:
    """Every frame of a video in order, without any times."""
    with av.open(path) as container:
        return np.stack([frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)])


def test_numbers_are_those_of_the_table_without_the_last_action() -> None:
    rows = pq.read_table(IMAGE / DATA).to_pylist()
    read = gathered(open_lerobot(IMAGE))
    assert [(s.name, s.role, s.shape) for s in read.spec.streams] == [
        ("state", "observation", (6,)),
        ("action", "action", (4,)),
        ("front", "observation", (64, 64, 3)),
    ]
    assert read.spec.control_hz == 20
    assert read.lengths.tolist() == [52, 26, 48, 38, 31]
    for episode in range(5):
        expected = [row for row in rows if row["episode_index"] == episode]
        streams = read.episode(episode)
        assert streams["state"].tolist() == [row["observation.state"] for row in expected]
        assert streams["action"].tolist() == [row["action"] for row in expected[:-1]]


def test_frames_in_parquet_come_back_to_the_pixel() -> None:
    read = gathered(open_lerobot(IMAGE))
    for episode, length in enumerate(read.lengths):
        front = read.episode(episode)["front"]
        assert front.dtype == np.uint8
        assert front.shape == (length + 1, 64, 64, 3)
        assert front[:, 0, 63].tolist() == [[0, 0, index] for index in range(length + 1)]


def test_frames_in_a_video_of_many_episodes_are_those_at_their_times() -> None:
    decoded = all_frames(VIDEO / MP4)
    rows = pq.read_table(VIDEO / LIST).to_pylist()
    read = gathered(open_lerobot(VIDEO))
    assert len(decoded) == 191
    for episode, row in enumerate(rows):
        expected = decoded[row["dataset_from_index"] : row["dataset_to_index"]]
        assert np.array_equal(read.episode(episode)["front"], expected)


@pytest.mark.parametrize(("name", "apart"), [("v21-image", 0), ("v21-video", 3), ("v3-video", 3)])
def test_both_versions_give_what_the_package_was_given(name: str, apart: int) -> None:
    read = read_recording(SAMPLES / f"lerobot-small-{name}")
    assert {stream.name: stream.shape for stream in read.spec.streams} == {
        "state": (3,),
        "wrist_cam": (48, 64, 3),
        "force": (2, 3),
        "action": (2,),
        "reward": (),
    }
    assert (read.spec.control_hz, read.lengths.tolist()) == (10, [11, 6, 8])
    assert [note.task for note in read.notes] == ["stack the cups", "open the drawer", "stack the cups"]
    for episode in range(3):
        streams = read.episode(episode)
        index = np.arange(len(streams["state"]))
        t = 100 * episode + index
        assert np.array_equal(streams["state"], np.stack([t, -t, t / 8], axis=1).astype(np.float32))
        assert np.array_equal(streams["action"], np.stack([t, t + 0.5], axis=1).astype(np.float32)[:-1])
        assert np.array_equal(streams["reward"], (t[:-1] / 4).astype(np.float32))
        force = np.arange(6.0).reshape(2, 3) + t[:, None, None] / 3
        assert np.array_equal(streams["force"], force.astype(np.float32))
        colour = np.stack([10 * index, np.full_like(index, 60 * episode), np.full_like(index, 128)], axis=1)
        assert np.abs(streams["wrist_cam"].astype(int) - colour[:, None, None]).max() <= apart


def test_streams_are_named_by_the_features_they_are_read_from() -> None:
    read = open_recording(IMAGE, streams={"observation": "observation.state", "wrist": FRONT})
    assert [stream.name for stream in read.spec.streams] == ["observation", "action", "wrist"]
    state = next(read.episodes()).streams["observation"]
    assert np.array_equal(state, next(open_recording(IMAGE).episodes()).streams["state"])


def test_a_dataset_is_recognised_and_says_where_it_comes_from() -> None:
    assert recognise(IMAGE) == "lerobot"
    recording = open_recording(IMAGE)
    assert {note.task for note in (episode.note for episode in recording.episodes())} == {
        "push the block",
        "swap the fruit",
    }
    said = recording.provenance()
    assert (said["source"], said["codebase_version"], said["last_actions_left_out"]) == ("lerobot", "v3.0", 5)
    assert said["features"]["action"] == {"feature": "action", "names": ["dx", "dy", "dz", "grip"]}
    assert said["source_names"] == {"state": "observation.state", "action": "action", "front": FRONT}
    assert open_recording(SMALL_V21).provenance()["robot_type"] == "so100"
    assert open_recording(IMAGE, control_hz=25).spec.control_hz == 25


def test_a_video_is_read_from_the_key_frame_before_an_episode(tmp_path: Path) -> None:
    """The last episode is there even though nothing before it can be decoded."""
    whole, path = all_frames(VIDEO / MP4), tmp_path / "file.mp4"
    times, last = (163 + np.arange(28)) / 20, whole[163:]
    contents = bytearray((VIDEO / MP4).read_bytes())
    start = contents.index(b"mdat") + 4
    contents[start : start + (len(contents) - start) // 2] = bytes((len(contents) - start) // 2)
    path.write_bytes(contents)
    assert np.array_equal(video_frames(path, times, (64, 64, 3), 20, "episode 4"), last)
    with pytest.raises(ValueError, match=r"file.mp4"):
        video_frames(path, np.arange(48) / 20, (64, 64, 3), 20, "episode 0")


def test_what_a_video_is_called_does_not_matter(tmp_path: Path) -> None:
    folder = copied(VIDEO, tmp_path)
    contents = (folder / MP4).read_bytes()
    assert b"VideoHandler" in contents
    (folder / MP4).write_bytes(contents.replace(b"VideoHandler", b"Film\xf8r\xe9mdler"))
    assert gathered(open_lerobot(folder)).lengths.tolist() == [47, 52, 29, 31, 27]


@pytest.mark.parametrize("layout", ["faststart", "frag_keyframe+empty_moov"])
def test_frames_are_found_wherever_key_frames_are_and_whatever_is_stored_out_of_order(
    tmp_path: Path, layout: str
) -> None:
    """Key frames every 25, frames between that lean on later ones; fragments have no index of key frames."""
    path = tmp_path / "film.mp4"
    with av.open(path, "w", options={"movflags": layout}) as container:
        stream = container.add_stream("libx264", rate=30, options={"g": "25", "bf": "3"})
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        for index in range(120):
            frame = av.VideoFrame.from_ndarray(np.full((48, 64, 3), 2 * index, np.uint8))
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    with av.open(path) as container:
        start_s = next(container.decode(video=0)).time
    decoded = all_frames(path)
    for first in range(0, 115, 6):
        times = start_s + np.add(np.arange(first, first + 5), [0, 0.2, -0.2, 0, 0.2]) / 30
        found = video_frames(path, times, (48, 64, 3), 30, "episode 0")
        assert np.array_equal(found, decoded[first : first + 5])


def test_rows_of_an_episode_are_found_however_the_file_is_cut_into_groups(tmp_path: Path) -> None:
    expected = gathered(open_lerobot(IMAGE))
    for rows in (7, 1000):
        folder = copied(IMAGE, tmp_path / str(rows))
        rewrite_table(folder / DATA, lambda table: table, row_group_size=rows)
        read = gathered(open_lerobot(folder))
        assert read.lengths.tolist() == expected.lengths.tolist()
        assert np.array_equal(read.streams["state"], expected.streams["state"])
        assert np.array_equal(read.frames["front"][:], expected.frames["front"][:])


def test_episodes_may_be_in_several_files(tmp_path: Path) -> None:
    folder = copied(IMAGE, tmp_path)
    table = pq.read_table(folder / DATA)
    late = np.asarray(table["episode_index"]) >= 2
    pq.write_table(table.filter(pa.array(late)), folder / "data/chunk-000/file-001.parquet")
    pq.write_table(table.filter(pa.array(~late)), folder / DATA)
    rewrite_table(folder / LIST, with_column("data/file_index", [0, 0, 1, 1, 1]))
    read = gathered(open_lerobot(folder))
    assert np.array_equal(read.streams["state"], gathered(open_lerobot(IMAGE)).streams["state"])


def test_one_episode_is_in_memory_at_a_time(tmp_path: Path) -> None:
    """15 times the five episodes: 75 episodes of up to 0.65 MB of frames, 37 MB in all."""
    folder, copies = copied(IMAGE, tmp_path), 15
    tables = [pq.read_table(folder / DATA)] * copies
    index = np.concatenate([np.asarray(t["episode_index"]) + 5 * i for i, t in enumerate(tables)])
    column = pa.concat_tables(tables).schema.get_field_index("episode_index")
    pq.write_table(pa.concat_tables(tables).set_column(column, "episode_index", pa.array(index)), folder / DATA)
    listed = pa.concat_tables([pq.read_table(folder / LIST)] * copies)
    pq.write_table(with_column("episode_index", np.arange(5 * copies))(listed), folder / LIST)
    rewrite_json(folder / "meta/info.json", lambda info: info.update(total_episodes=5 * copies))
    recording, frames = open_lerobot(folder), 0
    tracemalloc.start()
    for episode in recording.episodes():
        frames += len(episode.streams["front"])
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert frames == 200 * copies
    assert peak < 3e6


def renamed(folder: Path, names: dict[str, str]) -> Path:
    """Features under other names."""

    def rename(info: dict[str, Any]) -> None:
        info["features"] = {names.get(key, key): feature for key, feature in info["features"].items()}

    rewrite_json(folder / "meta/info.json", rename)
    for path in (folder / "data").glob("*/*.parquet"):
        rewrite_table(path, lambda table: table.rename_columns([names.get(n, n) for n in table.column_names]))
    return folder


def test_names_become_identifiers_and_those_that_collide_are_refused(tmp_path: Path) -> None:
    names = {"observation.force": "observation.arm.0-force", "observation.state": "7dof", "action": "actions"}
    read = open_lerobot(renamed(copied(SMALL_V21, tmp_path / "a"), names))
    assert [stream.name for stream in read.spec.streams] == ["_7dof", "wrist_cam", "arm_0_force", "action", "reward"]
    colliding = renamed(copied(SMALL_V21, tmp_path / "b"), {"observation.force": "observation.wrist.cam"})
    with pytest.raises(
        ValueError, match=r"info.json: features 'observation.images.wrist-cam' and 'observation.wrist.cam' would both"
    ):
        open_lerobot(colliding)


def test_what_was_not_sensed_is_no_observation(tmp_path: Path) -> None:
    """Other actions, words and distances are left out and named; what says which row it is, is not."""
    folder = copied(SMALL_V21, tmp_path)
    extra = {
        "action.delta": {"dtype": "float32", "shape": [2], "names": None},
        "observation.words": {"dtype": "string", "shape": [1], "names": None},
        "observation.images.depth": {"dtype": "video", "shape": [48, 64, 1], "info": {"video.is_depth_map": True}},
        "subtask_index": {"dtype": "int64", "shape": [1], "names": None},
        "next.success": {"dtype": "bool", "shape": [1], "names": None},
    }
    rewrite_json(folder / "meta/info.json", lambda info: info["features"].update(extra))
    read = open_lerobot(folder)
    assert [stream.name for stream in read.spec.streams] == ["state", "wrist_cam", "force", "action", "reward"]
    assert read.provenance()["left_out"] == {
        "action.delta": "another action",
        "observation.words": "string is no type of numbers",
        "observation.images.depth": "its pixels are distances",
    }
    assert gathered(read).lengths.tolist() == [11, 6, 8]


def test_images_that_are_written_down_with_channels_first_have_them_last(tmp_path: Path) -> None:
    folder = copied(SMALL_V21, tmp_path)
    feature = {"dtype": "image", "shape": [3, 48, 64], "names": ["channels", "height", "width"]}
    rewrite_json(folder / "meta/info.json", lambda i: i["features"].update({"observation.images.wrist-cam": feature}))
    assert gathered(open_lerobot(folder)).frames["wrist_cam"].shape == (28, 48, 64, 3)


def test_splits_are_subsets(tmp_path: Path) -> None:
    folder = copied(IMAGE, tmp_path)
    rewrite_json(folder / "meta/info.json", lambda i: i.update(splits={"train": "0:3", "valid": "3:5"}))
    subsets = [note.subsets for note in gathered(open_lerobot(folder)).notes]
    assert subsets == [("train",)] * 3 + [("valid",)] * 2
    assert {note.subsets for note in gathered(open_lerobot(IMAGE)).notes} == {()}


def test_an_episode_of_several_tasks_names_them_all(tmp_path: Path) -> None:
    folder = copied(IMAGE, tmp_path)
    first = [0] * 20 + [1] * 33
    rewrite_table(folder / DATA, lambda t: with_column("task_index", first + t["task_index"].to_pylist()[53:])(t))
    old_pandas = pa.table({"task_index": [0, 1], "__index_level_0__": ["reach", "grasp"]})
    pq.write_table(old_pandas, folder / "meta/tasks.parquet")
    assert [note.task for note in gathered(open_lerobot(folder)).notes][:2] == ["reach; grasp", "grasp"]


def test_numbers_that_are_missing_or_not_finite_are_left_to_the_checks(tmp_path: Path) -> None:
    folder = copied(SMALL_V21, tmp_path)
    path = folder / "data/chunk-000/episode_000001.parquet"
    rewrite_table(path, with_column("next.reward", pa.array([0, None, np.nan, 1, 1, 1, 1], pa.float32())))
    rewrite_table(path, with_column("action", [[0.0, np.inf]] * 7))
    read = gathered(open_lerobot(folder))
    assert np.isnan(read.episode(1)["reward"]).tolist() == [False, True, True, False, False, False]
    found = {f.stream: f.count for f in check(read.numbers()) if f.rule == "must be finite"}
    assert found == {"reward": 2, "action": 6}


@pytest.mark.parametrize(
    ("version", "remedy"),
    [
        ("v1.6", "convert it with the lerobot package"),
        ("v2.0", "convert it with the lerobot package"),
        ("v4.0", "update forcing"),
        ("v3.1", "update forcing"),
    ],
)
def test_another_version_is_refused_with_what_to_do(tmp_path: Path, version: str, remedy: str) -> None:
    folder = copied(IMAGE, tmp_path)
    rewrite_json(folder / "meta/info.json", lambda info: info.update(codebase_version=version))
    with pytest.raises(
        ValueError, match=rf"codebase_version must be one of \['v3.0', 'v2.1'\], got '{version}'; {remedy}"
    ):
        open_recording(folder)


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def of_info(change: Callable[[dict[str, Any]], object]) -> Callable[[Path], None]:
    return lambda folder: rewrite_json(folder / "meta/info.json", change)


def without(*keys: str) -> Callable[[Path], None]:
    def remove(info: dict[str, Any]) -> None:
        for key in keys[:-1]:
            info = info[key]
        del info[keys[-1]]

    return of_info(remove)


def of_data(change: Callable[[pa.Table], pa.Table]) -> Callable[[Path], None]:
    return lambda folder: rewrite_table(folder / DATA, change)


def of_list(change: Callable[[pa.Table], pa.Table]) -> Callable[[Path], None]:
    return lambda folder: rewrite_table(folder / LIST, change)


def in_rows(name: str, change: Callable[[list[Any]], list[Any]]) -> Callable[[pa.Table], pa.Table]:
    return lambda table: with_column(name, change(table[name].to_pylist()))(table)


STATE = "observation.state"
BROKEN: dict[str, tuple[Path, Callable[[Path], object], str]] = {
    "info that is no JSON": (IMAGE, lambda f: cut(f / "meta/info.json"), "info.json: must be a JSON object"),
    "info that is a list": (
        IMAGE,
        lambda f: (f / "meta/info.json").write_text("[]"),
        "info.json: must be a JSON object",
    ),
    **{
        f"info without {key}": (IMAGE, without(key), f"info.json: '{key}' is missing")
        for key in ("codebase_version", "fps", "features", "data_path")
    },
    "info with fps 0": (IMAGE, of_info(lambda i: i.update(fps=0)), "info.json: fps must be positive, got 0"),
    "info with fps as text": (IMAGE, of_info(lambda i: i.update(fps="20")), "'fps' must be of type int or float"),
    "a feature without shape": (
        IMAGE,
        without("features", STATE, "shape"),
        "info.json: feature 'observation.state': 'shape' is missing",
    ),
    "a feature that is no object": (
        IMAGE,
        of_info(lambda i: i["features"].update({STATE: 6})),
        "feature 'observation.state' must be an object",
    ),
    "a feature with info that is a list": (
        IMAGE,
        of_info(lambda i: i["features"][STATE].update(info=["rad"])),
        "feature 'observation.state': 'info' must be of type dict",
    ),
    "splits that are a list": (
        IMAGE,
        of_info(lambda i: i.update(splits=["train"])),
        "info.json: 'splits' must be of type dict",
    ),
    "no action": (IMAGE, without("features", "action"), "features must have an 'action'"),
    "a data path of other numbers": (
        IMAGE,
        of_info(lambda i: i.update(data_path="data/{episode}.parquet")),
        "info.json: data_path must be made of ['chunk_index', 'file_index']",
    ),
    "a table cut in half": (IMAGE, lambda f: cut(f / DATA), f"{DATA}: not a readable parquet file"),
    "a list cut in half": (IMAGE, lambda f: cut(f / LIST), f"{LIST}: not a readable parquet file"),
    "tasks cut in half": (IMAGE, lambda f: cut(f / "meta/tasks.parquet"), "tasks.parquet: not a readable parquet file"),
    "tasks in another alphabet": (
        IMAGE,
        lambda f: rewrite_table(
            f / "meta/tasks.parquet",
            lambda t: t.set_column(1, "task", pa.array([b"\xf8ffne", b"\xe5pne"]).view(pa.string())),
        ),
        "tasks.parquet: not a readable parquet file ('utf-8' codec",
    ),
    "no table": (IMAGE, lambda f: (f / DATA).unlink(), f"{DATA}: is missing"),
    "no tasks": (IMAGE, lambda f: (f / "meta/tasks.parquet").unlink(), "tasks.parquet: is missing"),
    "no list": (IMAGE, lambda f: (f / LIST).unlink(), "meta/episodes: must hold at least 1 parquet file"),
    "a missing column": (
        IMAGE,
        of_data(lambda t: t.drop_columns([STATE])),
        f"{DATA}: column 'observation.state' of meta/info.json is missing",
    ),
    "another shape": (
        IMAGE,
        of_info(lambda i: i["features"][STATE].update(shape=[7])),
        f"{DATA}: episode 0, feature 'observation.state' has shape [6], meta/info.json says [7]",
    ),
    "rows of different shapes": (
        IMAGE,
        of_data(in_rows(STATE, lambda rows: [*rows[:-1], rows[-1][:5]])),
        "episode 4, feature 'observation.state' must have as many values in each row, got 5 to 6",
    ),
    "a row without values": (
        IMAGE,
        of_data(in_rows(STATE, lambda rows: [None, *rows[1:]])),
        "episode 0, feature 'observation.state' has 1 rows without values",
    ),
    "words instead of numbers": (
        IMAGE,
        of_data(in_rows(STATE, lambda rows: [["x"] * 6] * len(rows))),
        "episode 0, feature 'observation.state' must hold numbers, found string",
    ),
    "frames of another size": (
        IMAGE,
        of_info(lambda i: i["features"][FRONT].update(shape=[96, 96, 3])),
        f"feature '{FRONT}', row 0: is an image of shape (64, 64, 3) and uint8, must be (96, 96, 3)",
    ),
    "a frame that is no image": (
        IMAGE,
        of_data(in_rows(FRONT, lambda rows: [*rows[:60], {"bytes": b"\x89PNG", "path": "x"}, *rows[61:]])),
        f"episode 1, feature '{FRONT}', row 7: not a readable image",
    ),
    "a frame outside the file": (
        IMAGE,
        of_data(in_rows(FRONT, lambda rows: [{"bytes": None, "path": "x.png"}, *rows[1:]])),
        f"episode 0, feature '{FRONT}', row 0: has no image in the file",
    ),
    "an episode of one row": (
        IMAGE,
        of_list(
            lambda t: with_column("dataset_to_index", [54, 80, 129, 168, 200])(
                with_column("dataset_from_index", [53, 53, 80, 129, 168])(with_column("length", [1, 27, 49, 39, 32])(t))
            )
        ),
        "meta: episode 0 must have at least 2 rows (1 step), its length is 1",
    ),
    "no episodes": (IMAGE, of_list(lambda t: t.slice(0, 0)), "meta: must list at least 1 episode, got 0"),
    "another number of episodes": (
        IMAGE,
        of_info(lambda i: i.update(total_episodes=6)),
        "info.json: total_episodes is 6, but 5 are listed",
    ),
    "an episode listed twice": (
        IMAGE,
        of_list(with_column("episode_index", [0, 1, 2, 2, 4])),
        "meta: episode_index must differ, got 2 more than once",
    ),
    "a length that contradicts the rows": (
        IMAGE,
        of_data(lambda t: t.slice(0, 190)),
        f"{DATA}: episode 4 must have 32 rows, its length in meta/, found 22",
    ),
    "a length that contradicts its indices": (
        IMAGE,
        of_list(with_column("length", [53, 27, 49, 40, 32])),
        "episode 3: length is 40, but it goes from row 129 to row 168",
    ),
    "an episode that is not in the table": (
        IMAGE,
        of_data(lambda t: t.slice(0, 168)),
        f"{DATA}: episode 4 must have 32 rows, found none",
    ),
    "rows that no episode lists": (
        IMAGE,
        of_data(in_rows("episode_index", lambda rows: [*rows[:-1], 9])),
        f"{DATA}: episode 4 must have 32 rows, its length in meta/, found 31",
    ),
    "a task that is not in the list": (
        IMAGE,
        of_data(in_rows("task_index", lambda rows: [7] * len(rows))),
        "episode 0, 'task_index' must be one of the 2 of meta/, got 7",
    ),
    "no video": (VIDEO, lambda f: (f / MP4).unlink(), f"{MP4}: the video of episode 0, feature '{FRONT}' is missing"),
    "a video cut in half": (VIDEO, lambda f: cut(f / MP4), MP4),
    "a file that is no video": (VIDEO, lambda f: (f / MP4).write_text("x"), f"{MP4}: cannot be decoded for episode 0"),
    "frames of a video of another size": (
        VIDEO,
        of_info(lambda i: i["features"][FRONT].update(shape=[32, 64, 3])),
        f"{MP4}: frames are 64 × 64, meta/info.json says [32, 64, 3]",
    ),
    "a video that ends before its table": (
        VIDEO,
        of_list(
            lambda t: with_column(f"videos/{FRONT}/to_timestamp", [2.4, 5.05, 6.55, 8.15, 11.0])(
                with_column(f"videos/{FRONT}/from_timestamp", [0.0, 2.4, 5.05, 6.55, 9.0])(t)
            )
        ),
        f"{MP4}: episode 4, feature '{FRONT}' needs a frame at 9.5500 s, the video has none nearer than 9.5000 s, and "
        "ends there: it is shorter than its table",
    ),
    "a video that is listed as shorter than its table": (
        VIDEO,
        of_list(with_column(f"videos/{FRONT}/to_timestamp", [2.4, 5.0, 6.55, 8.15, 9.55])),
        f"{MP4}: episode 1, feature '{FRONT}' is 2.6 s long after meta/episodes, which is shorter than its table of 53",
    ),
    "a video at other times than its table": (
        VIDEO,
        of_list(with_column(f"videos/{FRONT}/from_timestamp", [0.02, 2.4, 5.05, 6.55, 8.15])),
        f"{MP4}: episode 0, feature '{FRONT}' needs a frame at 0.0200 s, the video has none nearer than 0.0000 s, at",
    ),
    "timestamps that fall": (
        VIDEO,
        of_data(in_rows("timestamp", lambda rows: [0.1, *rows[1:]])),
        f"{MP4}: timestamps of episode 0, feature '{FRONT}' must not fall",
    ),
    "episodes that are no JSON lines": (
        SMALL_V21,
        lambda f: (f / "meta/episodes.jsonl").write_text('{"episode_index": 0, "length": 12}\n{"epi'),
        "episodes.jsonl: line 2 must be JSON",
    ),
    "an episode without length": (
        SMALL_V21,
        lambda f: (f / "meta/episodes.jsonl").write_text('{"episode_index": 0}'),
        "episodes.jsonl: line 1: 'length' is missing",
    ),
    "no episodes of version 2.1": (
        SMALL_V21,
        lambda f: (f / "meta/episodes.jsonl").write_text(""),
        "meta: must list at least 1 episode, got 0",
    ),
    "a file of version 2.1 missing": (
        SMALL_V21,
        lambda f: (f / "data/chunk-000/episode_000001.parquet").unlink(),
        "data/chunk-000/episode_000001.parquet: is missing",
    ),
    "a video of version 2.1 of another episode": (
        SAMPLES / "lerobot-small-v21-video",
        lambda f: [
            shutil.copy(path, path.with_name("episode_000000.mp4")) for path in f.glob("videos/*/*/*_000001.mp4")
        ],
        "episode_000000.mp4: episode 0, feature 'observation.images.wrist-cam' needs a frame at 0.7000 s",
    ),
}


@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_dataset_is_refused_in_one_line(tmp_path: Path, name: str) -> None:
    source, breaks, message = BROKEN[name]
    folder = copied(source, tmp_path)
    breaks(folder)
    with pytest.raises(ValueError, match=re.escape(message)) as caught:
        gathered(open_recording(folder))
    assert "\n" not in str(caught.value)
    assert str(folder) in str(caught.value)
