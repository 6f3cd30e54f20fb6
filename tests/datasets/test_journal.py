"""Journals as files: whole, cut off, damaged, and what recording comes of them."""

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from forcing.datasets.journal import packed, read_entries
from forcing.datasets.recording import read_recording, recognise
from forcing.policy.types import StreamSpec, TrajectorySpec

SPEC = TrajectorySpec(
    streams=(
        StreamSpec(name="position", role="observation", shape=(2,), units="m"),
        StreamSpec(name="action", role="action", shape=(1,)),
    ),
    control_hz=10.0,
    goal="position",
)


def _opened(**changes: Any) -> dict[str, Any]:
    opened = {"kind": "open", "spec": SPEC.to_json(), "policy": "p"} | changes
    as_it_comes_back: dict[str, Any] = json.loads(json.dumps(opened))  # with lists
    return as_it_comes_back


def _act(step: int, position: list[float] | None, *, rejected: bool = False) -> list[dict[str, Any]]:
    observation = {} if position is None else {"position": position}
    sensors = {"position": {"rejected": rejected}}
    return [
        {"kind": "observed", "step": step, "request": {"observation": observation}},
        {"kind": "answered", "step": step, "reply": {"action": [10.0 * step], "sensors": sensors}},
    ]


def _write(path: Path, *entries: dict[str, Any]) -> bytes:
    data = b"".join(packed(entry) for entry in entries)
    path.write_bytes(data)
    return data


def test_entries_come_back_and_those_behind_the_first_that_is_damaged_do_not(tmp_path: Path) -> None:
    path, entries = tmp_path / "a.0.journal", [_opened(), *_act(0, [1.0, 2.0]), *_act(1, [3.0, 4.0])]
    whole = _write(path, *entries)
    assert (read_entries(path).entries, read_entries(path).size) == (entries, len(whole))
    sizes = [len(packed(entry)) for entry in entries]
    for cut in (1, 7, 8, 9, sizes[-1] - 1):
        path.write_bytes(whole[:-cut])
        assert (read_entries(path).entries, read_entries(path).size) == (entries[:-1], len(whole) - sizes[-1])
    path.write_bytes(whole + bytes(40))
    assert read_entries(path).size == len(whole), "zeros, as a power cut may leave"
    changed = bytearray(whole)
    changed[sum(sizes[:2]) + 12] ^= 1
    path.write_bytes(bytes(changed))
    assert read_entries(path).entries == entries[:2]


def test_acts_become_an_episode_whose_last_action_nobody_saw_the_outcome_of(tmp_path: Path) -> None:
    _write(tmp_path / "a.0.journal", _opened(), *_act(0, [1, 2]), *_act(1, [3, 4]), *_act(2, [5, 6]))
    assert recognise(tmp_path) == recognise(tmp_path / "a.0.journal") == "journal"
    found = read_recording(tmp_path)
    assert found.spec == SPEC
    assert found.lengths.tolist() == [2]
    np.testing.assert_array_equal(found.streams["position"], [[1, 2], [3, 4], [5, 6]])
    np.testing.assert_array_equal(found.streams["action"], [[0], [10]])


def test_what_a_robot_did_of_its_own_divides_an_episode_and_a_single_act_is_none(tmp_path: Path) -> None:
    steps = (0, 1, 4, 7, 8, 9)  # 4 stands alone
    acts = [entry for step in steps for entry in _act(step, [float(step), 0.0])]
    _write(tmp_path / "a.0.journal", _opened(), *acts, {"kind": "observed", "step": 10, "request": {"observation": {}}})
    read = read_recording(tmp_path)
    assert read.lengths.tolist() == [1, 2]
    said = [read.provenance[key] for key in ("source", "file", "last_actions_left_out")]
    assert said == ["journal", tmp_path.name, 2]


def test_episodes_follow_sessions_and_numbers_whenever_their_files_were_copied(tmp_path: Path) -> None:
    for age, (name, at) in enumerate((("b.0", 5), ("a.10", 3), ("a.2", 1))):  # the last is the newest file
        path = tmp_path / f"{name}.journal"
        _write(path, _opened(), *_act(0, [float(at), 0.0]), *_act(1, [float(at), 0.0]))
        os.utime(path, (1e9 + age, 1e9 + age))
    assert read_recording(tmp_path).streams["position"][::2, 0].tolist() == [1, 3, 5]


def test_readings_that_were_not_there_or_left_aside_keep_what_was_before_and_are_counted(tmp_path: Path) -> None:
    acts = [
        *_act(0, None),
        *_act(1, [1, 1]),
        *_act(2, [9e7, 0], rejected=True),
        *_act(3, [float("nan"), 2]),
        *_act(4, [4, 4]),
    ]
    _write(tmp_path / "a.0.journal", _opened(), *acts)
    found = read_recording(tmp_path)
    np.testing.assert_array_equal(found.streams["position"], [[1, 1], [1, 1], [1, 1], [1, 1], [4, 4]])
    assert found.provenance["not_read"] == "3 of 5 readings"


def test_frames_that_a_server_saw_come_back_and_one_that_it_did_not_see_is_the_one_before(tmp_path: Path) -> None:
    camera = StreamSpec(name="camera", role="observation", shape=(2, 3, 3))
    spec = TrajectorySpec(streams=(camera, StreamSpec(name="action", role="action", shape=(1,))), control_hz=10.0)
    frames = np.arange(36, dtype=np.uint8).reshape(2, 2, 3, 3)
    acts = [*_act(0, None), *_act(1, None), *_act(2, None)]
    acts[0]["request"]["observation"] = {"camera": frames[0]}
    acts[4]["request"]["observation"] = {"camera": frames[1]}
    _write(tmp_path / "a.0.journal", _opened(spec=json.loads(json.dumps(spec.to_json()))), *acts)
    found = read_recording(tmp_path)
    assert found.frames["camera"].dtype == np.uint8
    np.testing.assert_array_equal(found.frames["camera"][0:3], frames[[0, 0, 1]])
    assert found.provenance["not_read"] == "1 of 3 readings"


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ([[{"kind": "answered", "step": 0}]], "no journal of a server or a Recorder"),
        ([[_opened(), *_act(0, [1, 2])]], "holds no episode of a step, or of two acts, yet"),
        ([[]], "holds no episode"),
        ([[_opened()], [_opened(spec=SPEC.to_json() | {"control_hz": 20.0})]], "of another robot"),
    ],
)
def test_what_is_no_recording_is_said_to_be_none(
    tmp_path: Path, files: list[list[dict[str, Any]]], message: str
) -> None:
    for number, entries in enumerate(files):
        _write(tmp_path / f"a.{number}.journal", *entries)
    with pytest.raises(ValueError, match=message):
        read_recording(tmp_path)


def test_a_state_dir_says_which_of_its_folders_to_name(tmp_path: Path) -> None:
    for name in ("episodes", "sessions"):
        (tmp_path / name).mkdir()
    with pytest.raises(ValueError, match="name its folder episodes or sessions"):
        recognise(tmp_path)
