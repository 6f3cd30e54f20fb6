"""robomimic's HDF5 layout, as its documentation and dataset_states_to_obs.py have it, whole and broken."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from forcing.datasets.checks import check
from forcing.datasets.d4rl_hdf5 import is_d4rl_hdf5
from forcing.datasets.episodes import gathered
from forcing.datasets.recording import read_recording, recognise
from forcing.datasets.robomimic_hdf5 import RobomimicRecording

Demo = dict[str, Any]


def demo(rows: int, seed: int = 0) -> Demo:
    """Arrays by their path below data/demo_N. next_obs is obs a row later, and one more."""
    rng = np.random.default_rng(seed)
    eef = rng.standard_normal((rows + 1, 3))
    view = rng.integers(0, 256, (rows + 1, 12, 10, 3), dtype=np.uint8)
    return {
        "actions": rng.uniform(-1, 1, (rows, 7)),
        "states": rng.standard_normal((rows, 45)),
        "rewards": (np.arange(rows) == rows - 1).astype(np.float64),
        "dones": (np.arange(rows) == rows - 1).astype(np.int64),
        "obs/robot0_eef_pos": eef[:-1],
        "obs/agentview_image": view[:-1],
        "next_obs/robot0_eef_pos": eef[1:],
        "next_obs/agentview_image": view[1:],
    }


def write(path: Path, demos: dict[str, Demo], masks: dict[str, list[str]] | None = None, hz: Any = 20) -> Path:
    environment = {"env_name": "Lift", "type": 1, "env_kwargs": {"control_freq": hz, "robots": ["Panda"]}}
    with h5py.File(path, "w") as file:
        data = file.create_group("data")
        for name, arrays in demos.items():
            group = data.create_group(name)
            for key, values in arrays.items():
                group[key] = values
            group.attrs["num_samples"] = len(arrays["actions"]) if "actions" in arrays else 0
            group.attrs["model_file"] = "<mujoco/>"
        data.attrs["total"] = sum(len(arrays.get("actions", ())) for arrays in demos.values())
        data.attrs["env_args"] = json.dumps(environment, indent=4)
        for name, members in (masks or {}).items():
            file[f"mask/{name}"] = np.array(members, dtype="S8")
    return path


def without(arrays: Demo, start: str) -> Demo:
    return {key: values for key, values in arrays.items() if not key.startswith(start)}


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "low_dim.hdf5"


def test_where_what_came_of_each_action_is_recorded_every_row_is_a_step(path: Path) -> None:
    made = demo(6)
    read = read_recording(write(path, {"demo_0": made}))
    assert (read.lengths.tolist(), read.spec.control_hz) == ([6], 20)
    assert {stream.name: (stream.role, stream.shape) for stream in read.spec.streams} == {
        "agentview_image": ("observation", (12, 10, 3)),
        "robot0_eef_pos": ("observation", (3,)),
        "action": ("action", (7,)),
        "reward": ("reward", ()),
    }
    parts = read.episode(0)
    seen = np.concatenate([made["obs/robot0_eef_pos"], made["next_obs/robot0_eef_pos"][-1:]])
    assert np.array_equal(parts["robot0_eef_pos"], seen.astype(np.float32))
    assert np.array_equal(parts["agentview_image"][1:], made["next_obs/agentview_image"])
    assert parts["agentview_image"].dtype == np.uint8
    assert np.array_equal(parts["action"], made["actions"].astype(np.float32))
    assert parts["reward"].tolist() == [0, 0, 0, 0, 0, 1]
    assert read.provenance["last_actions_left_out"] == 0
    assert read.provenance["source_names"]["robot0_eef_pos"] == "obs/robot0_eef_pos"
    assert list(read.provenance["left_out"]) == ["states"]


def test_where_it_is_not_the_last_action_is_left_out_and_counted(path: Path) -> None:
    made = {"demo_0": without(demo(6), "next_obs"), "demo_1": without(demo(4, 1), "next_obs")}
    read = read_recording(write(path, made))
    assert read.lengths.tolist() == [5, 3]
    assert np.array_equal(read.episode(1)["action"], made["demo_1"]["actions"][:3].astype(np.float32))
    assert np.array_equal(read.episode(1)["agentview_image"], made["demo_1"]["obs/agentview_image"])
    assert read.provenance["last_actions_left_out"] == 2


def test_demonstrations_come_in_the_order_of_their_numbers(path: Path) -> None:
    read = read_recording(write(path, {f"demo_{number}": demo(number + 1) for number in (0, 10, 2, 1, 11)}))
    assert read.lengths.tolist() == [1, 2, 3, 11, 12]


def test_masks_become_subsets(path: Path) -> None:
    masks = {"train": ["demo_0", "demo_2"], "valid": ["demo_1"], "20_percent": ["demo_2"]}
    write(path, {f"demo_{number}": demo(3) for number in range(4)}, masks)
    read = read_recording(path)
    assert [note.subsets for note in read.notes] == [("train",), ("valid",), ("20_percent", "train"), ()]
    assert read.provenance["subsets"] == {"20_percent": 1, "train": 2, "valid": 1}
    assert len(read_recording(path, subset="train").lengths) == 2
    with pytest.raises(ValueError, match=r"subset 'test' has no episode; there are \['20_percent', 'train', 'valid'\]"):
        read_recording(path, subset="test")


def test_the_task_in_words_is_read_where_libero_or_robocasa_write_it(path: Path) -> None:
    write(path, {"demo_0": demo(3), "demo_1": demo(3)})
    with h5py.File(path, "a") as file:
        file["data"].attrs["problem_info"] = json.dumps({"language_instruction": "lift the cube"})
        file["data/demo_1"].attrs["ep_meta"] = json.dumps({"lang": "lift the red cube"})
    assert [note.task for note in read_recording(path).notes] == ["lift the cube", "lift the red cube"]


def test_images_with_channels_first_between_0_and_1_are_turned_back_into_bytes(path: Path) -> None:
    """As robomimic's `process_obs` makes them of bytes: frame / 255, channels first."""
    made, plain = demo(4), demo(4)
    for key in ("obs/agentview_image", "next_obs/agentview_image"):
        made[key] = np.moveaxis(plain[key].astype(np.float32) / 255, -1, 1)
    parts = read_recording(write(path, {"demo_0": made})).episode(0)
    assert parts["agentview_image"].dtype == np.uint8
    assert np.array_equal(parts["agentview_image"][:-1], plain["obs/agentview_image"])


def test_depth_is_left_out_with_the_reason(path: Path) -> None:
    made = demo(4)
    made["obs/depth"] = np.random.default_rng(0).uniform(0.3, 2, (4, 12, 10, 1)).astype(np.float32)
    read = read_recording(write(path, {"demo_0": made}))
    assert "depth" not in read.frames
    assert read.provenance["left_out"]["obs/depth"].startswith("frames must be whole numbers of 0 to 255, got float32")


def test_one_demonstration_at_a_time_is_read(path: Path) -> None:
    recording = RobomimicRecording(write(path, {"demo_0": demo(3), "demo_1": demo(3)}))
    episodes = recording.episodes()
    assert next(episodes).where == f"{path}: data/demo_0"
    with h5py.File(path, "a") as file:  # it was not open, or this would fail
        file["data/demo_1/actions"][...] = 7
    assert (next(episodes).streams["action"] == 7).all()
    assert len(gathered(recording).lengths) == 2


def test_demonstrations_without_a_step_are_left_out_and_named(path: Path) -> None:
    made = {"demo_0": without(demo(1), "next_obs"), "demo_1": without(demo(4), "next_obs")}
    read = read_recording(write(path, made))
    assert (read.lengths.tolist(), read.provenance["demonstrations_left_out"]) == ([3], ["demo_0"])
    with pytest.raises(ValueError, match="no demonstration has a step"):
        read_recording(write(path, {"demo_0": without(demo(1), "next_obs")}))


def test_numbers_that_float32_cannot_hold_become_infinite_which_checks_find(path: Path) -> None:
    made = demo(4)
    made["rewards"][2] = 1e300
    read = read_recording(write(path, {"demo_0": made}))
    assert np.isposinf(read.streams["reward"][2])
    (finding,) = [found for found in check(read) if found.severity == "error"]
    assert (finding.stream, finding.rule, finding.where) == ("reward", "must be finite", ((0, 2),))


def test_names_that_are_no_identifiers_or_taken_get_others(path: Path) -> None:
    made = without(demo(4), "next_obs")
    made |= {"obs/object-state": np.ones((4, 2)), "obs/action": np.zeros((4, 7)), "obs/2nd cam.x": np.ones((4, 1))}
    read = read_recording(write(path, {"demo_0": made}))
    names = read.provenance["source_names"]
    assert names["object_state"] == "obs/object-state"
    assert names["action_2"] == "obs/action"
    assert names["_2nd_cam_x"] == "obs/2nd cam.x"
    assert names["action"] == "actions"


def test_the_rate_that_was_passed_goes_before_the_recorded_one(path: Path) -> None:
    write(path, {"demo_0": demo(4)})
    assert read_recording(path, control_hz=50).spec.control_hz == 50


@pytest.mark.parametrize("hz", [None, "fast", 0])
def test_an_unrecorded_rate_must_be_passed(path: Path, hz: Any) -> None:
    write(path, {"demo_0": demo(4)}, hz=hz)
    with pytest.raises(ValueError, match=r"env_kwargs.control_freq, so control_hz must be passed .*--control-hz 20"):
        read_recording(path)
    assert read_recording(path, control_hz=20).spec.control_hz == 20


def test_it_is_told_apart_from_d4rls(path: Path) -> None:
    write(path, {"demo_0": demo(4)})
    assert (recognise(path), is_d4rl_hdf5(path)) == ("robomimic", False)
    with h5py.File(path, "w") as file:
        file["something"] = np.zeros(3)
    with pytest.raises(ValueError, match="found an HDF5 file with something; supported are"):
        recognise(path)


def change(key: str, values: Any) -> Callable[[h5py.File], None]:
    def apply(file: h5py.File) -> None:
        if key in file:
            del file[key]
        if values is not None:
            file[key] = values

    return apply


OBJECTS = h5py.vlen_dtype(np.float64)


def ragged(file: h5py.File) -> None:
    change("data/demo_1/obs/robot0_eef_pos", None)(file)
    file["data/demo_1"].create_dataset("obs/robot0_eef_pos", (4,), OBJECTS)


@pytest.mark.parametrize(
    ("broken", "message"),
    [
        (change("data/demo_1/actions", None), r"data/demo_1/actions is missing, found \["),
        (change("data/demo_0/obs", None), r"data/demo_0/obs is missing, found .*dataset_states_to_obs.py"),
        (change("data/demo_1/obs/robot0_eef_pos", None), r"data/demo_1/obs/robot0_eef_pos is missing"),
        (change("data/demo_1/next_obs", None), r"data/demo_1/next_obs/agentview_image is missing"),
        (
            change("data/demo_1/obs/robot0_eef_pos", np.zeros((3, 3))),
            r"data/demo_1/obs/robot0_eef_pos must have 4 rows as 'actions' has, got 3",
        ),
        (change("data/demo_1/rewards", np.zeros(5)), r"data/demo_1/rewards must have 4 rows as 'actions' has, got 5"),
        (
            change("data/demo_1/next_obs/robot0_eef_pos", np.zeros((2, 3))),
            r"data/demo_1/next_obs/robot0_eef_pos must have 4 rows as 'actions' has, got 2",
        ),
        (
            change("data/demo_1/actions", np.zeros((3, 7))),
            r"data/demo_1/actions must have 4 rows as num_samples says, got 3",
        ),
        (
            change("data/demo_1/actions", np.zeros((4, 6))),
            r"data/demo_1/actions: a row must have shape \(7,\) as in the first episode, got \(6,\)",
        ),
        (ragged, r"data/demo_1/obs/robot0_eef_pos: must be an array of numbers, got dtype object"),
        (change("data/demo_0/rewards", np.array([b"a"] * 4)), r"data/demo_0/rewards: must be an array of numbers"),
        (change("data/demo_0/actions", np.zeros(4, complex)), r"data/demo_0/actions: must be an array of numbers"),
        (change("data/demo_0/actions", 3.0), r"data/demo_0/actions must have one row a step, got a single value"),
        (
            change("data/demo_1/obs/agentview_image", np.full((4, 12, 10, 3), 0.3)),
            r"data/demo_1/obs/agentview_image: frames must be whole numbers of 0 to 255, got float64 of 0.3 to 0.3",
        ),
        (change("data/demo_1", np.zeros(4)), r"data/demo_1 must be a group of arrays, and is one array"),
        (change("data/demo_0", None), None),
        (change("mask/train", np.array([b"demo_0", b"demo_7"])), r"mask/train must name .* 'demo_7' is none"),
    ],
)
def test_a_broken_file_is_named_with_the_field(
    path: Path, broken: Callable[[h5py.File], None], message: str | None
) -> None:
    write(path, {"demo_0": demo(4), "demo_1": demo(4)})
    with h5py.File(path, "a") as file:
        broken(file)
    if message is None:  # one demonstration fewer is no fault
        assert read_recording(path).lengths.tolist() == [4]
        return
    with pytest.raises(ValueError, match=message) as raised:
        read_recording(path)
    assert str(raised.value).startswith(f"{path}: ")
    assert "\n" not in str(raised.value)


def test_a_file_without_demonstrations_is_named(path: Path) -> None:
    with pytest.raises(ValueError, match="data must hold at least 1 demonstration, got 0"):
        read_recording(write(path, {}))


@pytest.mark.parametrize("share", [0.02, 0.5, 0.95])
def test_a_file_cut_short_is_named(path: Path, share: float) -> None:
    write(path, {f"demo_{number}": demo(20) for number in range(4)})
    path.write_bytes(path.read_bytes()[: int(path.stat().st_size * share)])
    with pytest.raises(ValueError, match=r"low_dim.hdf5: cannot be read to its end .*truncated") as raised:
        read_recording(path)
    assert "\n" not in str(raised.value)


def test_a_damaged_chunk_is_named(path: Path) -> None:
    write(path, {"demo_0": demo(4), "demo_1": demo(4)})
    values = np.random.default_rng(0).standard_normal((4, 3))
    with h5py.File(path, "a") as file:
        del file["data/demo_1/obs/robot0_eef_pos"]
        group = file["data/demo_1"]
        stored = group.create_dataset("obs/robot0_eef_pos", data=values, compression="gzip", fletcher32=True)
        offset = stored.id.get_chunk_info(0).byte_offset
    contents = bytearray(path.read_bytes())
    contents[offset + 20] ^= 0xFF
    path.write_bytes(contents)
    with pytest.raises(ValueError, match=r"low_dim.hdf5: cannot be read to its end .*download or record it again"):
        read_recording(path)
