"""Replay buffers as Diffusion Policy and UMI write them, in zarr format 2 and 3, folders and zips, whole and broken."""

import json
import shutil
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numcodecs
import numpy as np
import pytest
import zarr
from zarr.codecs import BloscCodec

from forcing.datasets.recording import open_recording, read_recording, recognise

ENDS = [4, 10, 13]
Arrays = Mapping[str, Any]


def pusht() -> dict[str, Any]:
    """The arrays and types of pusht_cchi_v7_replay.zarr: images are whole numbers in float32."""
    rng = np.random.default_rng(0)
    return {
        "action": rng.uniform(0, 512, (13, 2)).astype(np.float32),
        "img": rng.integers(0, 256, (13, 24, 24, 3)).astype(np.float32),
        "keypoint": rng.uniform(0, 512, (13, 9, 2)).astype(np.float32),
        "n_contacts": np.ones((13, 1), np.float32),
        "state": rng.uniform(0, 512, (13, 5)).astype(np.float32),
    }


def umi() -> dict[str, Any]:
    rng = np.random.default_rng(1)
    return {
        "camera0_rgb": rng.integers(0, 256, (13, 24, 24, 3), dtype=np.uint8),
        "robot0_eef_pos": rng.standard_normal((13, 3)).astype(np.float32),
        "robot0_eef_rot_axis_angle": rng.standard_normal((13, 3)).astype(np.float32),
        "robot0_gripper_width": rng.uniform(0, 0.08, (13, 1)).astype(np.float32),
        "robot0_demo_start_pose": rng.standard_normal((13, 6)),
    }


def write(path: Path, arrays: Arrays, ends: Any = ENDS, zarr_format: Any = 2, attributes: Any = None) -> Path:
    root = zarr.open_group(path, mode="w", zarr_format=zarr_format, attributes=attributes or {})
    blosc = numcodecs.Blosc("zstd", clevel=5, shuffle=2) if zarr_format == 2 else BloscCodec(cname="zstd")
    data = root.create_group("data")
    for name, values in arrays.items():
        values = np.asarray(values)
        chunks = (min(5, max(len(values), 1)), *values.shape[1:]) if values.ndim else ()
        array = data.create_array(name, shape=values.shape, chunks=chunks, dtype=values.dtype, compressors=blosc)
        if values.size:
            array[...] = values
    ends = np.asarray(ends)
    meta = root.create_group("meta")
    array = meta.create_array("episode_ends", shape=ends.shape, chunks=(8,) * ends.ndim, dtype=ends.dtype)
    if ends.size:
        array[...] = ends
    return path


def zipped(folder: Path, path: Path, inside: str = "") -> Path:
    """As UMI's `07_generate_replay_buffer.py`: each file of the folder stored as it is."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as archive:
        for file in sorted(folder.rglob("*")):
            if file.is_file():
                archive.write(file, inside + file.relative_to(folder).as_posix())
    return path


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "pusht.zarr"


@pytest.mark.parametrize("zarr_format", [2, 3])
@pytest.mark.parametrize("inside", [None, "", "pusht.zarr/"])
def test_the_same_streams_come_out_of_folders_and_zips_of_either_format(
    path: Path, zarr_format: int, inside: str | None
) -> None:
    made = pusht()
    source = write(path, made, zarr_format=zarr_format)
    if inside is not None:
        source = zipped(path, path.with_suffix(".zarr.zip"), inside)
        shutil.rmtree(path)
    assert recognise(source) == "replay buffer"
    read = read_recording(source, control_hz=10)
    assert (read.lengths.tolist(), read.spec.control_hz) == ([3, 5, 2], 10)
    assert {stream.name: (stream.role, stream.shape) for stream in read.spec.streams} == {
        "img": ("observation", (24, 24, 3)),
        "keypoint": ("observation", (9, 2)),
        "n_contacts": ("observation", (1,)),
        "state": ("observation", (5,)),
        "action": ("action", (2,)),
    }
    parts = read.episode(1)
    assert np.array_equal(parts["state"], made["state"][4:10])
    assert np.array_equal(parts["action"], made["action"][4:9])
    assert parts["img"].dtype == np.uint8
    assert np.array_equal(parts["img"], made["img"][4:10])
    assert read.provenance["last_actions_left_out"] == 3
    assert read.provenance["source_names"]["img"] == "data/img"


def test_where_umi_records_no_action_it_is_where_the_gripper_was_brought_next(path: Path) -> None:
    made = umi()
    read = read_recording(write(path, made), control_hz=20)
    pose = np.concatenate(
        [made["robot0_eef_pos"], made["robot0_eef_rot_axis_angle"], made["robot0_gripper_width"]], axis=1
    )
    assert read.spec.action.shape == (7,)
    assert np.array_equal(read.episode(1)["action"], pose[5:10])
    assert np.array_equal(read.episode(1)["robot0_eef_pos"], made["robot0_eef_pos"][4:10])
    assert read.provenance["action"].startswith("robot0_eef_pos, robot0_eef_rot_axis_angle, robot0_gripper_width of")
    assert read.provenance["last_actions_left_out"] == 0


def test_two_grippers_are_one_action_in_the_order_of_their_numbers(path: Path) -> None:
    made = umi()
    made |= {name.replace("robot0", "robot1"): values + 1 for name, values in made.items() if "robot0" in name}
    read = read_recording(write(path, made), control_hz=20)
    assert read.spec.action.shape == (14,)
    assert np.array_equal(read.episode(0)["action"][:, 7:10], made["robot1_eef_pos"][1:4])


def test_images_with_channels_first_and_between_0_and_1_become_bytes(path: Path) -> None:
    made = pusht()
    made["front"] = np.moveaxis(made["img"], -1, 1) / np.float32(255)
    made["grey"] = np.full((13, 40, 32), 7, np.uint8)
    read = read_recording(write(path, made), control_hz=10)
    assert np.array_equal(read.episode(2)["front"], made["img"][10:13])
    assert read.spec["grey"].shape == (40, 32, 1)


def test_images_of_fractions_are_left_out_with_the_reason(path: Path) -> None:
    made = pusht()
    made["normalised"] = (made["img"] - 128) / 64
    read = read_recording(write(path, made), control_hz=10)
    assert list(read.provenance["left_out"]) == ["data/normalised"]
    assert "float32 of -2 to 1.98" in read.provenance["left_out"]["data/normalised"]


def test_an_episode_whose_frames_are_of_another_kind_is_named(path: Path) -> None:
    made = pusht()
    made["img"][11] = 12.5
    with pytest.raises(ValueError, match=r"data/img: frames must be whole numbers of 0 to 255, got float32 of"):
        read_recording(write(path, made), control_hz=10)


def test_rewards_and_a_recorded_rate_are_read(path: Path) -> None:
    made = pusht() | {"rewards": np.arange(13.0).reshape(13, 1)}
    read = read_recording(write(path, made, attributes={"fps": 30}))
    assert (read.spec["reward"].role, read.spec["reward"].shape, read.spec.control_hz) == ("reward", (), 30)
    assert read.episode(1)["reward"].tolist() == [4, 5, 6, 7, 8]


def test_what_is_no_step_of_an_episode_is_left_out_and_counted(path: Path) -> None:
    read = read_recording(write(path, pusht(), ends=[4, 5, 9]), control_hz=10)
    assert read.lengths.tolist() == [3, 3]
    assert read.provenance["single_rows_left_out"] == 1
    assert read.provenance["rows_after_the_last_episode"] == 4
    with pytest.raises(ValueError, match="every episode has a single row; no step is left"):
        read_recording(write(path, pusht(), ends=[1, 2]), control_hz=10)


def test_one_episode_at_a_time_is_read(path: Path) -> None:
    write(path, pusht())
    episodes = open_recording(path, control_hz=10).episodes()
    assert len(next(episodes).streams["action"]) == 3
    shutil.rmtree(path / "data" / "state")  # rows 5 on are in chunks that were not read
    assert (next(episodes).streams["state"][1:] == 0).all()


def test_chunks_that_are_not_there_are_counted(path: Path) -> None:
    write(path, pusht())
    for chunk in ("1.0.0.0", "2.0.0.0"):
        (path / "data" / "img" / chunk).unlink()
    read = read_recording(path, control_hz=10)
    assert read.provenance["chunks_that_are_not_there"] == {"img": 2}
    assert (read.episode(1)["img"][1:] == 0).all()


@pytest.mark.parametrize(
    "attributes", [{"fps": "fast"}, {"fps": 0}, {"control_hz": None}, {"control_hz": float("inf")}]
)
def test_a_rate_that_is_none_must_be_passed(path: Path, attributes: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="control_hz is not recorded and must be passed"):
        read_recording(write(path, pusht(), attributes=attributes))
    with pytest.raises(ValueError, match="control_hz must be positive, got 0"):
        read_recording(path, control_hz=0)


def test_an_unrecorded_rate_must_be_passed(path: Path) -> None:
    with pytest.raises(ValueError, match=r"control_hz is not recorded and must be passed .*--control-hz 10"):
        read_recording(write(path, pusht()))


def missing(name: str) -> Callable[[Path], None]:
    return lambda path: shutil.rmtree(path / name)


def compressed_with(codec: dict[str, Any]) -> Callable[[Path], None]:
    def apply(path: Path) -> None:
        document = path / "data" / "img" / ".zarray"
        document.write_text(json.dumps(json.loads(document.read_text()) | {"compressor": codec}))

    return apply


def noted(**changes: Any) -> Callable[[Path], None]:
    def apply(path: Path) -> None:
        document = path / "data" / "state" / ".zarray"
        document.write_text(json.dumps(json.loads(document.read_text()) | changes))

    return apply


def damaged(path: Path) -> None:
    (path / "data" / "state" / "1.0").write_bytes(b"\x02\x01\x97garbage")


@pytest.mark.parametrize(
    ("broken", "message"),
    [
        (missing("data/action"), r"data/action is missing, found \['img', 'keypoint', 'n_contacts', 'state'\]"),
        (missing("meta/episode_ends"), "meta/episode_ends is missing"),
        (missing("meta"), "meta/episode_ends is missing"),
        (missing("data"), "data must hold arrays, such as data/action, found none"),
        (
            compressed_with({"id": "imagecodecs_nonesuch", "level": 80}),
            r"data/img is compressed with a codec that is not installed \(.*imagecodecs_nonesuch.*\); install",
        ),
        (noted(filters=[{"id": "pickle"}], dtype="|O"), r"data/state cannot be opened as a zarr array \(.*\|O"),
        (noted(dtype="<U5", fill_value=""), r"data/state: must be an array of numbers, got dtype <U5"),
        (noted(shape=[9, 5]), r"all arrays below data must have as many rows, got .*'state': 9"),
        (damaged, r"data/state cannot be decoded at rows 4 to 9 \("),
    ],
)
def test_a_broken_buffer_is_named_with_the_array(path: Path, broken: Callable[[Path], None], message: str) -> None:
    broken(write(path, pusht()))
    with pytest.raises(ValueError, match=message) as raised:
        read_recording(path, control_hz=10)
    assert str(raised.value).startswith(f"{path}: ")
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    ("ends", "message"),
    [
        (np.array([4, 3, 13]), "must rise, got 3 after 4 at entry 1"),
        (np.array([4, 4, 13]), "must rise, got 4 after 4 at entry 1"),
        (np.array([0, 4]), "must rise, got 0 after 0 at entry 0"),
        (np.array([4, 14]), "must not exceed the 13 rows of the arrays below data, got 14"),
        (np.zeros(0, np.int64), "must name at least 1 episode, got 0"),
        (np.array([4.0, 13.0]), r"must be \[episodes\] whole numbers, got float64 of shape \(2,\)"),
        (np.array([[4, 13]]), r"must be \[episodes\] whole numbers, got int64 of shape \(1, 2\)"),
    ],
)
def test_ends_that_cannot_be_are_named(path: Path, ends: Any, message: str) -> None:
    with pytest.raises(ValueError, match=f"pusht.zarr: meta/episode_ends {message}"):
        read_recording(write(path, pusht(), ends=ends), control_hz=10)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"state": np.zeros((12, 5))}, r"all arrays below data must have as many rows, got .*'state': 12"),
        ({"action": np.zeros((13, 2), complex)}, "data/action: must be an array of numbers, got dtype complex128"),
        ({"state": np.zeros((13, 0))}, None),
    ],
)
def test_arrays_that_do_not_fit_are_named(path: Path, changed: Arrays, message: str | None) -> None:
    write(path, {**pusht(), **changed})
    if message is None:
        assert "at least one number" in read_recording(path, control_hz=10).provenance["left_out"]["data/state"]
        return
    with pytest.raises(ValueError, match=message):
        read_recording(path, control_hz=10)


def test_a_buffer_of_actions_alone_is_none(path: Path) -> None:
    with pytest.raises(ValueError, match=r"data has no observation beside \['action'\]"):
        read_recording(write(path, {"action": pusht()["action"]}), control_hz=10)


@pytest.mark.parametrize("share", [0.1, 0.5, 0.99])
def test_a_zip_cut_short_is_named(path: Path, share: float) -> None:
    source = zipped(write(path, pusht()), path.with_suffix(".zarr.zip"))
    source.write_bytes(source.read_bytes()[: int(source.stat().st_size * share)])
    with pytest.raises(ValueError, match=r"pusht.zarr.zip: not a readable zip \(.*\); .*download or record it again"):
        read_recording(source, control_hz=10)


def test_a_zip_with_a_damaged_member_is_named(path: Path) -> None:
    source = zipped(write(path, pusht()), path.with_suffix(".zarr.zip"))
    with zipfile.ZipFile(source) as archive:
        start = archive.getinfo("data/img/0.0.0.0").header_offset
    contents = bytearray(source.read_bytes())
    contents[start + 300] ^= 0xFF
    source.write_bytes(contents)
    with pytest.raises(ValueError, match=r"data/img cannot be decoded at rows 0 to 3 \(BadZipFile: Bad CRC-32"):
        read_recording(source, control_hz=10)


def test_a_zip_compressed_in_an_unknown_way_is_named(path: Path) -> None:
    source = zipped(write(path, pusht()), path.with_suffix(".zarr.zip"))
    contents = source.read_bytes()
    at = contents.index(b"data/state/0.0", contents.index(b"PK\x01\x02"))  # its name in the central directory
    source.write_bytes(contents[: at - 36] + b"\x63\x00" + contents[at - 34 :])
    with pytest.raises(ValueError, match=r"data/state cannot be decoded at rows 0 to 3 \(NotImplementedError"):
        read_recording(source, control_hz=10)


def test_a_zip_of_something_else_is_no_recording(tmp_path: Path) -> None:
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes" / "data").mkdir()
    (tmp_path / "notes" / "data" / "a.txt").write_text("a")
    with pytest.raises(ValueError, match=r"found a file of \d+ bytes ending in '.zip'; supported are"):
        recognise(zipped(tmp_path / "notes", tmp_path / "notes.zip"))


def test_jpeg_xl_is_read_where_imagecodecs_is_installed(path: Path) -> None:
    """UMI's own compressor of frames, at full quality."""
    codecs = pytest.importorskip("imagecodecs.numcodecs")
    write(path, pusht())
    frames = pusht()["img"].astype(np.uint8)
    shutil.rmtree(path / "data" / "img")
    lossless = codecs.Jpegxl(lossless=True)
    array = zarr.open_group(path, mode="a").create_array(
        "data/img", shape=frames.shape, chunks=(1, 24, 24, 3), dtype="u1", compressors=lossless
    )
    array[...] = frames
    numcodecs.registry.codec_registry.pop(lossless.codec_id, None)
    assert np.array_equal(read_recording(path, control_hz=10).episode(0)["img"], frames[:4])
