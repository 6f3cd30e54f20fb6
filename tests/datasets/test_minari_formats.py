"""Datasets that Minari itself wrote: HDF5, Arrow and Parquet, images with and without JPEG, spaces of every kind."""

import json
import warnings
from dataclasses import replace
from pathlib import Path
from typing import Any

import h5py
import minari
import numpy as np
import pyarrow
import pyarrow.dataset
import pytest
from gymnasium import spaces
from minari.data_collector import EpisodeBuffer

from forcing.datasets.minari_infos import minari_infos
from forcing.datasets.recording import open_recording, read_recording

NAME = "lab/bench/arm-v0"
SPACE = spaces.Dict(
    {
        "arm": spaces.Dict(
            {
                "position": spaces.Box(-2, 2, (3,)),
                "speed": spaces.Dict({"wrist joint": spaces.Box(-np.inf, np.inf, (2,))}),
            }
        ),
        "camera": spaces.Box(0, 255, (48, 40, 3), np.uint8),
        "first": spaces.Box(0, 255, (3, 16, 20), np.uint8),
        "grey": spaces.Box(0, 255, (40, 36), np.uint8),
        "gripper": spaces.Discrete(2),
        "pair": spaces.Tuple((spaces.Box(0, 1, (1,)), spaces.Box(0, 1, (2,)))),
        "said": spaces.Text(12),
        "desired_goal": spaces.Dict({"kettle": spaces.Box(-1, 1, (2,))}),
    }
)
OFFSETS = np.array([0, 1, 2, 3, 4, -(2**30), 6, 7, 8, 9, 10], np.int32).tobytes()
FORMATS = ("hdf5", "arrow", "parquet")


def observations(rows: int, seed: int) -> dict[str, Any]:
    rng = np.random.default_rng(seed)
    smooth = np.add.outer(np.arange(48), np.arange(40)).astype(np.uint8)
    return {
        "arm": {
            "position": rng.uniform(-2, 2, (rows, 3)).astype(np.float32),
            "speed": {"wrist joint": rng.standard_normal((rows, 2)).astype(np.float32)},
        },
        "camera": np.stack([np.stack([smooth + seed + row] * 3, axis=-1) for row in range(rows)]),
        "first": rng.integers(0, 256, (rows, 3, 16, 20), dtype=np.uint8),
        "grey": np.stack([smooth[:40, :36] + row for row in range(rows)]),
        "gripper": rng.integers(0, 2, rows),
        "pair": (rng.uniform(0, 1, (rows, 1)).astype(np.float32), rng.uniform(0, 1, (rows, 2)).astype(np.float32)),
        "said": [f"step {row}" for row in range(rows)],
        "desired_goal": {"kettle": np.zeros((rows, 2), np.float32)},
    }


def buffer(steps: int, seed: int) -> EpisodeBuffer:
    rng = np.random.default_rng(100 + seed)
    return EpisodeBuffer(
        observations=observations(steps + 1, seed),
        actions=rng.uniform(-1, 1, (steps, 4)).astype(np.float32),
        rewards=rng.uniform(0, 1, steps),
        terminations=np.zeros(steps, bool),
        truncations=np.arange(steps) == steps - 1,
        infos={
            "counter": np.arange(steps + 1),  # of one dimension: Minari's Arrow reader fails on it
            "executed": np.arange(4.0 * (steps + 1)).reshape(-1, 4),
        },
    )


def write(root: Path, monkeypatch: pytest.MonkeyPatch, **options: Any) -> Path:
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(root))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        minari.create_dataset_from_buffers(
            NAME,
            options.pop("buffers", None) or [buffer(5, 0), buffer(9, 1)],
            observation_space=options.pop("observation_space", SPACE),
            action_space=options.pop("action_space", spaces.Box(-1, 1, (4,))),
            description="an arm",
            **options,
        )
    return root / NAME


@pytest.mark.parametrize("data_format", FORMATS)
def test_infos_have_a_row_more_than_actions_and_can_be_read_in_their_place(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, data_format: str
) -> None:
    write(tmp_path, monkeypatch, data_format=data_format)
    for steps, infos in zip((5, 9), minari_infos(NAME, ["counter", "executed"]), strict=True):
        np.testing.assert_array_equal(infos["counter"].reshape(-1), np.arange(steps + 1))
        np.testing.assert_array_equal(infos["executed"], np.arange(4.0 * (steps + 1)).reshape(-1, 4))
    with pytest.raises(ValueError, match="infos/execute is missing; there are counter, executed"):
        next(minari_infos(NAME, ["execute"]))
    read = read_recording(NAME, control_hz=25, streams={"action": "infos/executed"})
    np.testing.assert_array_equal(read.episode(1)["action"], np.arange(36.0).reshape(-1, 4))


@pytest.mark.parametrize("data_format", FORMATS)
@pytest.mark.parametrize("jpeg", [False, True])
def test_every_format_of_minaris_gives_the_same_streams(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, data_format: str, jpeg: bool
) -> None:
    path = write(tmp_path, monkeypatch, data_format=data_format, jpeg_encoding=jpeg)
    read = read_recording(NAME, control_hz=25)
    assert {stream.name: (stream.role, stream.shape) for stream in read.spec.streams} == {
        "arm_position": ("observation", (3,)),
        "arm_speed_wrist_joint": ("observation", (2,)),
        "camera": ("observation", (48, 40, 3)),
        "first": ("observation", (16, 20, 3)),
        "grey": ("observation", (40, 36, 1)),
        "action": ("action", (4,)),
        "reward": ("reward", ()),
    }
    assert (read.spec["arm_position"].low, read.spec["first"].low) == ((-2.0,) * 3, None)
    assert read.lengths.tolist() == [5, 9]
    for index, steps in enumerate((5, 9)):
        made, parts = buffer(steps, index), read.episode(index)
        seen: dict[str, Any] = observations(steps + 1, index)
        assert np.array_equal(parts["arm_position"], seen["arm"]["position"])
        assert np.array_equal(parts["arm_speed_wrist_joint"], seen["arm"]["speed"]["wrist joint"])
        assert np.array_equal(parts["first"], np.moveaxis(seen["first"], 1, -1))
        assert np.array_equal(parts["action"], made.actions)
        assert np.array_equal(parts["reward"], np.asarray(made.rewards, np.float32))
        for name, expected in (("camera", seen["camera"]), ("grey", seen["grey"][..., None])):
            assert parts[name].dtype == np.uint8
            off = np.abs(parts[name].astype(int) - expected).max()
            assert off <= (12 if jpeg else 0), (name, off)
    assert read.provenance["left_out"] == {
        "gripper": "Discrete(2) is no Box",
        "pair": f"{SPACE['pair']} is no Box",
        "said": f"{SPACE['said']} is no Box",
    }
    assert read.provenance["source_names"]["arm_speed_wrist_joint"] == "arm/speed/wrist joint"
    assert path.is_dir()


def test_episodes_are_read_one_at_a_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write(tmp_path, monkeypatch)
    episodes = open_recording(path, control_hz=25).episodes()
    next(episodes)
    with h5py.File(path / "data" / "main_data.hdf5", "a") as file:
        file["episode_1/actions"][...] = 0.5
    assert (next(episodes).streams["action"] == 0.5).all()


@pytest.mark.parametrize("data_format", FORMATS)
def test_names_with_a_slash_are_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, data_format: str) -> None:
    space = spaces.Dict({"arm/pos": spaces.Box(-2, 2, (3,)), "arm/kind": spaces.Discrete(2)})
    place = np.arange(18, dtype=np.float32).reshape(6, 3) / 9
    made = replace(buffer(5, 0), observations={"arm/pos": place, "arm/kind": np.zeros(6, np.int64)})
    path = write(tmp_path, monkeypatch, buffers=[made], observation_space=space, data_format=data_format)
    read = read_recording(path, control_hz=25)
    assert np.array_equal(read.streams["arm_pos"], place)
    assert read.provenance["source_names"]["arm_pos"] == "arm/pos"
    assert list(read.provenance["left_out"]) == ["arm/kind"]


def test_an_arrow_file_cut_short_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write(tmp_path, monkeypatch, data_format="arrow")
    (file,) = (path / "data" / "1").glob("*.arrow")
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])
    with pytest.raises(ValueError, match=r"data/1: cannot be read to its end \(.*\); it was cut short or altered"):
        read_recording(path, control_hz=25)
    file.unlink()
    with pytest.raises(ValueError, match=r"data/1: .*it was cut short or altered"):
        read_recording(path, control_hz=25)


@pytest.mark.parametrize(
    ("column", "values", "message"),
    [
        ("actions", None, r"data/1: cannot be read to its end \(.*actions"),
        ("observations", pyarrow.array([1.0] * 10), "data/1: observations/arm/position is missing"),
        ("actions", pyarrow.array(["a"] * 10), "data/1: actions must be an array of numbers, got dtype object"),
        (  # offsets that point out of the data, at which Arrow would end the process
            "actions",
            pyarrow.Array.from_buffers(
                pyarrow.binary(), 10, [None, pyarrow.py_buffer(OFFSETS), pyarrow.py_buffer(b"0123456789")]
            ),
            r"data/1: cannot be read to its end \(",
        ),
        (
            "actions",
            pyarrow.FixedSizeListArray.from_arrays(np.zeros(30, np.float32), 3),
            "data/1: actions must have rows of 4 numbers as its space has, got 3",
        ),
    ],
)
def test_a_broken_arrow_episode_is_named_with_the_column(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, column: str, values: Any, message: str
) -> None:
    path = write(tmp_path, monkeypatch, data_format="arrow")
    (file,) = (path / "data" / "1").glob("*.arrow")
    table = pyarrow.dataset.dataset(file, format="arrow").to_table()
    changed = table.drop_columns([column])
    changed = changed if values is None else changed.append_column(column, values)
    with pyarrow.OSFile(str(file), "wb") as sink, pyarrow.ipc.new_file(sink, changed.schema) as writer:
        writer.write_table(changed)
    with pytest.raises(ValueError, match=message):
        read_recording(path, control_hz=25)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"total_episodes": 0}, "a dataset must have at least 1 episode, got 0"),
        ({"total_episodes": None}, "a dataset must have at least 1 episode, got None"),
        ({"env_spec": "{"}, "env_spec in metadata.json must be a JSON object"),
        ({"action_space": '{"type": "Sphere"}'}, "not a readable Minari dataset"),
        (
            {"action_space": '{"type": "Box", "dtype": "uint8", "shape": [1], "low": [0], "high": [256]}'},
            "not a readable",
        ),
        ({"observation_space": None, "env_spec": '{"id": "Absent-v0"}'}, "not a readable Minari dataset"),
        ({"data_format": "csv"}, "not a readable Minari dataset"),
    ],
)
def test_metadata_that_cannot_be_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, changes: dict[str, Any], message: str
) -> None:
    path = write(tmp_path, monkeypatch)
    document = path / "data" / "metadata.json"
    changed = json.loads(document.read_text()) | changes
    document.write_text(json.dumps({key: value for key, value in changed.items() if value is not None}))
    with pytest.raises(ValueError, match=f"arm-v0: {message}") as raised:
        read_recording(path, control_hz=25)
    assert "\n" not in str(raised.value)


def test_a_frame_that_is_no_jpeg_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write(tmp_path, monkeypatch, jpeg_encoding=True)
    with h5py.File(path / "data" / "main_data.hdf5", "a") as file:
        stored = file["episode_1/observations/camera"]
        stored[3] = np.zeros(stored.shape[1:], np.uint8) if stored.ndim > 1 else np.zeros(9, np.uint8)
    with pytest.raises(ValueError, match="episode_1/observations/camera holds a frame that is no readable JPEG"):
        read_recording(path, control_hz=25)


@pytest.mark.parametrize("name", ["observations/camera", "actions", "rewards"])
def test_what_is_missing_in_an_hdf5_episode_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    path = write(tmp_path, monkeypatch)
    with h5py.File(path / "data" / "main_data.hdf5", "a") as file:
        del file[f"episode_1/{name}"]
    with pytest.raises(ValueError, match=f"main_data.hdf5: episode_1/{name} is missing; it was cut short or altered"):
        read_recording(path, control_hz=25)


def test_actions_must_be_numbers_in_a_box(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = replace(buffer(5, 0), actions=np.zeros(5, np.int64))
    path = write(tmp_path, monkeypatch, buffers=[made], action_space=spaces.Discrete(3))
    with pytest.raises(ValueError, match=r"arm-v0: the action space must be a Box, got Discrete\(3\)"):
        read_recording(path, control_hz=25)


def test_observations_of_which_none_is_a_box_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = replace(buffer(5, 0), observations=np.zeros(6, np.int64))
    path = write(tmp_path, monkeypatch, buffers=[made], observation_space=spaces.Discrete(3))
    with pytest.raises(
        ValueError, match=r"no observation can be a stream \({'observation': 'Discrete\(3\) is no Box'}"
    ):
        read_recording(path, control_hz=25)


def test_a_plain_box_is_the_observation(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = replace(buffer(5, 0), observations=np.arange(12, dtype=np.float32).reshape(6, 2))
    path = write(tmp_path, monkeypatch, buffers=[made], observation_space=spaces.Box(-20, 20, (2,)))
    read = read_recording(path, control_hz=25)
    assert np.array_equal(read.streams["observation"], made.observations)
