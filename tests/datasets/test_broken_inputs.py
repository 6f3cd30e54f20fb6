"""Recordings that are broken, in each format: `forcing data convert` says in a line what is wrong and where, and leaves
nothing behind."""

import io
import json
import os
import re
import shutil
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import av
import h5py
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import zarr
from PIL import Image

from forcing.datasets.journal import packed, read_entries
from forcing.datasets.store import open_store

Command = Callable[..., Any]
Break = Callable[[Path], Path | None]  # of a recording; what is read then, if something else
NOBODY = 65534
INFO, DATA3 = "meta/info.json", "data/chunk-000/file-000.parquet"
DATA21, VIDEO21 = "data/chunk-000/episode_000001.parquet", "episode_000000.mp4"


@dataclass(frozen=True, slots=True)
class Case:
    """kind: the recording that is broken. named: what the line must say, the file and the field or the rule."""

    kind: str
    broken: Break
    named: tuple[str, ...]


def cut(inside: str, share: float) -> Break:
    """The one file of this pattern, or the recording itself, with so much of it left."""

    def apply(path: Path) -> None:
        file = one(path, inside)
        os.truncate(file, int(file.stat().st_size * share))

    return apply


def one(path: Path, inside: str) -> Path:
    return next(found for found in sorted(path.glob(inside)) if found.is_file()) if inside else path


def altered(inside: str, at: float = 0.5) -> Break:
    """One byte of the file another."""

    def apply(path: Path) -> None:
        file = one(path, inside)
        data = bytearray(file.read_bytes())
        data[int(len(data) * at)] ^= 0x10
        file.write_bytes(data)

    return apply


def written(inside: str, text: str) -> Break:
    def apply(path: Path) -> None:
        one(path, inside).write_text(text)

    return apply


def one_journal(text: str) -> Break:
    """A file by itself."""

    def apply(folder: Path) -> Path:
        file = one(folder, "*.journal")
        file.write_text(text)
        return file

    return apply


def removed(inside: str) -> Break:
    def apply(path: Path) -> None:
        found = path / inside
        shutil.rmtree(found) if found.is_dir() else found.unlink()

    return apply


def hdf5(inside: str, key: str, change: Callable[[Any], Any] | None) -> Break:
    """The array another, or gone."""

    def apply(path: Path) -> None:
        with h5py.File(one(path, inside), "a") as file:
            values = file[key][()] if isinstance(file[key], h5py.Dataset) else None
            del file[key]
            if change is not None:
                file[key] = change(values)

    return apply


def documented(inside: str, **changes: Any) -> Break:
    """Fields of a JSON document set to others, or gone where None."""

    def apply(path: Path) -> None:
        file = path / inside
        document = {**json.loads(file.read_text()), **changes}
        file.write_text(json.dumps({key: value for key, value in document.items() if value is not None}))

    return apply


def column(inside: str, name: str, change: Callable[[list[Any]], Any] | None) -> Break:
    """A column of a parquet table another, or gone."""

    def apply(path: Path) -> None:
        file = path / inside
        table = pq.read_table(file)
        at, field = table.schema.get_field_index(name), table.schema.field(name)
        values = table[name].to_pylist()
        table = table.remove_column(at)
        if change is not None:
            new = change(values)
            table = table.add_column(at, name, new if isinstance(new, pa.Array) else pa.array(new, field.type))
        pq.write_table(table, file)

    return apply


def array(key: str, change: Callable[[Any], Any] | None) -> Break:
    """An array of a replay buffer another, or gone."""

    def apply(path: Path) -> None:
        root = zarr.open_group(path, mode="a")
        found = root[key]
        assert isinstance(found, zarr.Array)
        values = np.asarray(found[...])
        shutil.rmtree(path / key)
        if change is not None:
            values = change(values)
            made = root.create_array(key, shape=values.shape, dtype=values.dtype)
            made[...] = values

    return apply


def infinite(values: Any) -> Any:
    values[5] = np.inf
    return values


def words(values: Any) -> Any:
    return np.array(["a"] * len(values), h5py.string_dtype())


def shorter_video(path: Path) -> None:
    """The video of the first episode with three frames less than its table."""
    file = next(path.glob(f"videos/**/{VIDEO21}"))
    with av.open(file) as video:
        frames = [frame.to_ndarray(format="rgb24") for frame in video.decode(video=0)][:-3]
    with av.open(file, "w") as video:
        stream = video.add_stream("mpeg4", rate=10)
        stream.width, stream.height, stream.pix_fmt = frames[0].shape[1], frames[0].shape[0], "yuv420p"
        for pixels in frames:
            video.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")))
        video.mux(stream.encode())


def one_camera_smaller(cells: list[Any]) -> list[Any]:
    """PNG of a single pixel in place of the third frame."""
    file = io.BytesIO()
    Image.new("RGB", (1, 1)).save(file, "PNG")
    cells[2] = {**cells[2], "bytes": file.getvalue()}
    return cells


def not_an_image(cells: list[Any]) -> list[Any]:
    cells[2] = {**cells[2], "bytes": b"no image"}
    return cells


def ragged(rows: list[Any]) -> Any:
    return pa.array([*rows[:4], rows[4][:1], *rows[5:]], pa.list_(pa.float32()))


def infinite_row(rows: list[Any]) -> list[Any]:
    return [*rows[:4], [float("inf")] * len(rows[4]), *rows[5:]]


def emptied(path: Path) -> None:
    shutil.rmtree(path)
    path.mkdir()


def as_text(path: Path) -> None:
    path.write_text("dear robot,\n")


def nothing_there(path: Path) -> None:
    path.unlink()


def no_demonstrations(path: Path) -> None:
    with h5py.File(path, "a") as file:
        for name in list(file["data"]):
            del file["data"][name]


def no_rows(path: Path) -> None:
    with h5py.File(path, "a") as file:
        for name in ("observations", "actions", "rewards", "terminals", "timeouts", "infos/qpos", "infos/qvel"):
            values = file[name][:0]
            del file[name]
            file[name] = values


def no_episodes(path: Path) -> None:
    (path / "meta/episodes.jsonl").write_text("")
    documented(INFO, total_episodes=0, total_frames=0)(path)


def newer(path: Path) -> None:
    document = json.loads((path / "zarr.json").read_text())
    document["attributes"]["version"] = 99
    (path / "zarr.json").write_text(json.dumps(document))


def other_rate(path: Path) -> None:
    document = json.loads((path / "zarr.json").read_text())
    document["attributes"]["spec"]["control_hz"] = 21
    (path / "zarr.json").write_text(json.dumps(document))


def another_robot(folder: Path) -> None:
    """The second episode says that it ran at another rate."""
    file = sorted(folder.glob("*.journal"))[1]
    first, *others = read_entries(file).entries
    first["spec"]["control_hz"] = 30
    file.write_bytes(b"".join(packed(entry) for entry in (first, *others)))


MAIN = "data/main_data.hdf5"
CASES = {
    # HDF5 files that are cut short
    "Minari's HDF5 cut to a half": Case("minari-hdf5", cut(MAIN, 0.5), ("main_data.hdf5", "truncated|cut short")),
    "Minari's HDF5 without its end": Case("minari-hdf5", cut(MAIN, 0.98), ("main_data.hdf5", "truncated|cut short")),
    "Minari's HDF5 cut in its header": Case("minari-hdf5", cut(MAIN, 0.0005), ("main_data.hdf5", "cut short")),
    "Minari's HDF5 empty": Case("minari-hdf5", cut(MAIN, 0), ("main_data.hdf5", "cut short")),
    "D4RL's cut to a half": Case("d4rl", cut("", 0.5), ("maze2d-umaze.hdf5", "truncated|cut short")),
    "D4RL's without its end": Case("d4rl", cut("", 0.98), ("maze2d-umaze.hdf5", "truncated|cut short")),
    "D4RL's cut in its header": Case("d4rl", cut("", 0.0001), ("maze2d-umaze.hdf5", "a file of 4 bytes")),
    "robomimic's cut to a half": Case("robomimic", cut("", 0.5), ("reach_image.hdf5", "truncated|cut short")),
    "robomimic's without its end": Case("robomimic", cut("", 0.98), ("reach_image.hdf5", "truncated|cut short")),
    "robomimic's empty": Case("robomimic", cut("", 0), ("reach_image.hdf5", "a file of 0 bytes")),
    # Minari
    "Minari: an episode without actions": Case(
        "minari-hdf5", hdf5(MAIN, "episode_1/actions", None), ("main_data.hdf5", "episode_1/actions is missing")
    ),
    "Minari: an episode that is missing": Case("minari-hdf5", hdf5(MAIN, "episode_2", None), (MAIN, "episode_2")),
    "Minari: ragged actions": Case(
        "minari-hdf5", hdf5(MAIN, "episode_1/actions", lambda rows: rows[:30]), ("hand-v0: episode 1", "'action'.*30")
    ),
    "Minari: objects": Case(
        "minari-hdf5", hdf5(MAIN, "episode_1/actions", words), ("main_data.hdf5", "episode_1/actions.*dtype object")
    ),
    "Minari: numbers of a wrong type": Case(
        "minari-hdf5", hdf5(MAIN, "episode_1/rewards", lambda rows: rows.astype("S8")), (MAIN, "episode_1/rewards")
    ),
    "Minari: infinity": Case(
        "minari-hdf5", hdf5(MAIN, "episode_1/observations", infinite), ("hand-v0", "observation.*finite")
    ),
    "Minari: no episodes": Case(
        "minari-hdf5", documented("data/metadata.json", total_episodes=0), ("hand-v0", "at least 1 episode, got 0")
    ),
    "Minari: metadata that is no JSON": Case(
        "minari-hdf5", written("data/metadata.json", "{"), ("hand-v0", "readable")
    ),
    "Minari: metadata without spaces": Case(
        "minari-hdf5", documented("data/metadata.json", action_space=None, env_spec=None), ("hand-v0", "space")
    ),
    "Minari: units that are a list": Case(
        "minari-hdf5", documented("data/metadata.json", units=["m"]), ("hand-v0", "units in metadata.json must be")
    ),
    "Minari: an Arrow file cut to a half": Case("minari-arrow", cut("data/1/*.arrow", 0.5), ("data/1", "cut short")),
    "Minari: an Arrow file that is missing": Case("minari-arrow", removed("data/2"), ("data/2", "cannot be read")),
    # D4RL
    "D4RL: no actions": Case("d4rl", hdf5("", "actions", None), ("maze2d-umaze.hdf5", "actions")),
    "D4RL: objects": Case("d4rl", hdf5("", "actions", words), ("maze2d-umaze.hdf5", "actions")),
    "D4RL: ragged": Case("d4rl", hdf5("", "actions", lambda rows: rows[:-9]), ("maze2d-umaze.hdf5", "'actions' must")),
    "D4RL: infinity": Case("d4rl", hdf5("", "actions", infinite), ("maze2d-umaze.hdf5", "action.*finite")),
    "D4RL: numbers of a wrong type": Case(
        "d4rl", hdf5("", "actions", lambda rows: rows.astype(complex)), ("maze2d-umaze.hdf5", "actions")
    ),
    "D4RL: flags of a wrong type": Case("d4rl", hdf5("", "terminals", words), ("maze2d-umaze.hdf5", "terminals")),
    "D4RL: flags that are objects": Case(
        "d4rl", hdf5("", "timeouts", words), ("maze2d-umaze.hdf5", "'timeouts'.*array of numbers")
    ),
    "D4RL: rewards of two numbers": Case(
        "d4rl", hdf5("", "rewards", lambda rows: np.stack([rows, rows], 1)), ("maze2d-umaze.hdf5", "reward")
    ),
    "D4RL: a single value": Case("d4rl", hdf5("", "rewards", lambda rows: rows[0]), ("maze2d-umaze.hdf5", "rewards")),
    "D4RL: no rows": Case("d4rl", no_rows, ("maze2d-umaze.hdf5", "at least 2 rows, got 0")),
    "D4RL: each row an end": Case(
        "d4rl", hdf5("", "terminals", np.ones_like), ("maze2d-umaze.hdf5", "no step is left")
    ),
    # LeRobot
    "LeRobot: a table cut to a half": Case("lerobot-v3-image", cut(DATA3, 0.5), (DATA3, "cut short")),
    "LeRobot: a table of v2.1 cut to a half": Case("lerobot-v21-image", cut(DATA21, 0.5), (DATA21, "cut short")),
    "LeRobot: a table that is missing": Case("lerobot-v21-image", removed(DATA21), (DATA21, "is missing")),
    "LeRobot: the list of episodes cut to a half": Case(
        "lerobot-v3-image", cut("meta/episodes/**/*.parquet", 0.5), ("meta/episodes", "cut short")
    ),
    "LeRobot: info that is no JSON": Case("lerobot-v3-image", written(INFO, "{"), (INFO, "must be a JSON object")),
    "LeRobot: no features": Case("lerobot-v3-image", documented(INFO, features=None), (INFO, "'features' is missing")),
    "LeRobot: no rate": Case("lerobot-v3-image", documented(INFO, fps=0), (INFO, "fps must be positive")),
    "LeRobot: splits that are a list": Case(
        "lerobot-v3-image", documented(INFO, splits=["train"]), (INFO, "'splits' must be of type dict")
    ),
    "LeRobot: of old": Case("lerobot-v21-image", documented(INFO, codebase_version="v1.6"), (INFO, "codebase_version")),
    "LeRobot: of tomorrow": Case(
        "lerobot-v3-image", documented(INFO, codebase_version="v4.0"), (INFO, "codebase_version.*update")
    ),
    "LeRobot: no episodes": Case("lerobot-v21-image", no_episodes, ("meta", "at least 1 episode")),
    "LeRobot: no action in the table": Case("lerobot-v3-image", column(DATA3, "action", None), (DATA3, "'action'")),
    "LeRobot: ragged": Case(
        "lerobot-v21-image", column(DATA21, "action", ragged), (DATA21, "'action'.*as many values|'action'.*shape")
    ),
    "LeRobot: words": Case(
        "lerobot-v21-image",
        column(DATA21, "action", lambda rows: pa.array([["a", "b"] for _ in rows])),
        (DATA21, "'action'.*numbers"),
    ),
    "LeRobot: infinity": Case(
        "lerobot-v21-image", column(DATA21, "action", infinite_row), ("v21-image", "action.*finite")
    ),
    "LeRobot: a row too few": Case(
        "lerobot-v21-image",
        column(DATA21, "episode_index", lambda rows: [*rows[:-1], 7]),
        (DATA21, "episode 1|episode 7"),
    ),
    "LeRobot: a frame of another size": Case(
        "lerobot-v21-image",
        column(DATA21, "observation.images.wrist-cam", one_camera_smaller),
        (DATA21, "row 2.*shape"),
    ),
    "LeRobot: a frame that is none": Case(
        "lerobot-v21-image", column(DATA21, "observation.images.wrist-cam", not_an_image), (DATA21, "row 2.*image")
    ),
    "LeRobot: a video shorter than its table": Case("lerobot-v21-video", shorter_video, (VIDEO21, "shorter")),
    "LeRobot: a video cut to a half": Case("lerobot-v3-video", cut("videos/**/*.mp4", 0.5), (r"file-000\.mp4", "cut")),
    "LeRobot: a video that is missing": Case("lerobot-v3-video", removed("videos"), (r"file-000\.mp4", "missing")),
    # robomimic
    "robomimic: no observations": Case(
        "robomimic", hdf5("", "data/demo_0/obs", None), ("reach_image.hdf5", "demo_0/obs is missing")
    ),
    "robomimic: a demonstration without actions": Case(
        "robomimic", hdf5("", "data/demo_2/actions", None), ("reach_image.hdf5", "demo_2/actions is missing")
    ),
    "robomimic: a mask of what is not there": Case(
        "robomimic", hdf5("", "data/demo_3", None), ("reach_image.hdf5", "mask/valid.*demo_3")
    ),
    "robomimic: ragged": Case(
        "robomimic",
        hdf5("", "data/demo_1/obs/robot0_eef_pos", lambda rows: rows[:-2]),
        ("reach_image.hdf5", "demo_1/obs/robot0_eef_pos must have 36 rows"),
    ),
    "robomimic: objects": Case(
        "robomimic", hdf5("", "data/demo_1/actions", words), ("reach_image.hdf5", "demo_1/actions")
    ),
    "robomimic: infinity": Case(
        "robomimic", hdf5("", "data/demo_1/actions", infinite), ("reach_image.hdf5", "action.*finite")
    ),
    "robomimic: no demonstrations": Case(
        "robomimic", no_demonstrations, ("reach_image.hdf5", "at least 1 demonstration, got 0")
    ),
    # Replay buffers
    "replay buffer: ends that fall": Case(
        "replay-buffer", array("meta/episode_ends", lambda ends: ends[::-1]), ("reach.zarr", "episode_ends must rise")
    ),
    "replay buffer: ends past the rows": Case(
        "replay-buffer",
        array("meta/episode_ends", lambda ends: ends + 9),
        ("reach.zarr", "episode_ends must not exceed"),
    ),
    "replay buffer: no ends": Case(
        "replay-buffer", array("meta/episode_ends", lambda ends: ends[:0]), ("reach.zarr", "episode_ends.*1 episode")
    ),
    "replay buffer: ends that are missing": Case("replay-buffer", removed("meta"), ("reach.zarr", "meta/episode_ends")),
    "replay buffer: no action": Case("replay-buffer", removed("data/action"), ("reach.zarr", "data/action is missing")),
    "replay buffer: ragged": Case(
        "replay-buffer", array("data/action", lambda rows: rows[:-3]), ("reach.zarr", "as many rows.*'action': 161")
    ),
    "replay buffer: a chunk cut short": Case("replay-buffer", cut("data/state/0.0", 0.5), ("reach.zarr", "data/state")),
    "replay buffer: infinity": Case("replay-buffer", array("data/state", infinite), ("reach.zarr", "state.*finite")),
    "replay buffer: words": Case(
        "replay-buffer", array("data/action", lambda rows: rows.astype("S8")), ("reach.zarr", "data/action.*numbers")
    ),
    "replay buffer: a description that is no JSON": Case(
        "replay-buffer", written("data/action/.zarray", "{"), ("reach.zarr", "data/action")
    ),
    "replay buffer: a zip cut to a half": Case("replay-buffer-zip", cut("", 0.5), ("reach.zarr.zip", "zip")),
    "replay buffer: a zip without its end": Case("replay-buffer-zip", cut("", 0.999), ("reach.zarr.zip", "zip")),
    "replay buffer: a byte in a zip altered": Case(
        "replay-buffer-zip", altered("", 0.3), ("reach.zarr.zip", "data/img")
    ),
    # What a Recorder keeps
    "journal: that is none": Case("recorder", one_journal("dear robot,"), (r"\.journal", "no journal")),
    "journal: without an entry": Case("recorder", one_journal(""), (r"\.journal", "no journal")),
    "journal: of another robot": Case("recorder", another_robot, (r"\.journal", "another robot")),
    # Stores
    "store: a byte of numbers altered": Case("store", altered("streams/action/c/**/*"), ("action", "decoded|sha256")),
    "store: a byte of frames altered": Case(
        "store", altered("streams/front/c/**/*"), ("front", "checksum|altered|decoded")
    ),
    "store: frames that are missing": Case("store", removed("streams/front/c"), ("front", "lost this shard")),
    "store: a stream that is missing": Case("store", removed("streams/hand"), ("hand", "is missing")),
    "store: numbers cut short": Case("store", cut("streams/reward/c/**/*", 0.5), ("reward", "decoded|sha256")),
    "store: no zarr.json": Case("store", removed("zarr.json"), (r"own\.zarr", "zarr.json")),
    "store: a header altered": Case("store", other_rate, (r"own\.zarr", "checksum")),
    "store: a header cut to a half": Case("store", cut("zarr.json", 0.5), (r"own\.zarr", "zarr.json|header")),
    "store: of tomorrow": Case("store", newer, (r"own\.zarr", "version.*99.*update")),
    # What is no recording
    "an empty folder": Case("store", emptied, (r"own\.zarr", "an empty folder")),
    "a text file": Case("d4rl", as_text, ("maze2d-umaze.hdf5", "a file of 12 bytes")),
    "nothing": Case("d4rl", nothing_there, ("maze2d-umaze.hdf5", "found nothing")),
}


@pytest.mark.parametrize("name", CASES)
def test_a_broken_recording_is_an_error_of_one_line_that_says_what_and_where(
    copied: Callable[[str], Any], forcing: Command, tmp_path: Path, name: str
) -> None:
    case = CASES[name]
    source = copied(case.kind)
    path = case.broken(source.path) or source.path
    refused(forcing, path, source.options, tmp_path / "out", *case.named)


def refused(forcing: Command, source: Path, options: str, folder: Path, file: str, rule: str) -> None:
    """The conversion says file and rule, in one line or as one finding, and leaves nothing in the folder."""
    folder.mkdir(exist_ok=True)
    said = forcing("data convert", source, "--out", folder / "arm.zarr", options)
    assert said.code in (1, 2)
    assert list(folder.iterdir()) == []
    if said.err:
        assert said.out == ""
        (line,) = said.err.splitlines()
        assert line.startswith("forcing: ")
        assert re.search(file, line), line
        assert re.search(rule, line), line
    else:
        *findings, last = said.out.splitlines()
        assert re.search(rf"{file}.*: [1-9]\d* errors", last), said.out
        errors = [line for line in findings if "error" in line]
        assert errors, said.out
        assert any(re.search(rule, line) for line in errors), said.out


def test_a_folder_that_may_not_be_read_is_named(recordings: Mapping[str, Any], forcing: Command) -> None:
    with tempfile.TemporaryDirectory() as there:
        home = Path(there)
        source, out = home / "maze.zarr", home / "out"
        shutil.copytree(recordings["store"].path, source)
        out.mkdir()
        home.chmod(0o755)
        out.chmod(0o777)
        source.chmod(0)
        root = os.geteuid() == 0
        try:
            if root:
                os.seteuid(NOBODY)
            refused(forcing, source, "", out, r"maze\.zarr", "Permission denied|may not be read")
        finally:
            if root:
                os.seteuid(0)
            source.chmod(0o755)


def test_a_journal_among_others_that_has_no_whole_entry_is_told_of(
    copied: Callable[[str], Any], forcing: Command, tmp_path: Path
) -> None:
    """It may be one that a crash cut off, so the others are read; nothing is left out in silence."""
    folder = copied("recorder").path
    file = one(folder, "*.journal")
    file.write_text("dear robot,")
    said = forcing("data info", folder)
    assert said.code == 0
    assert f"'{file.name}': 11" in said.out.replace('"', "'")
    assert forcing("data convert", folder, "--out", tmp_path / "arm.zarr").code == 0
    assert open_store(tmp_path / "arm.zarr").provenance["torn"]["first"] == {file.name: 11}
