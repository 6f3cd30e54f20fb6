"""What can be mended is, exactly; every change is listed; and a mended recording has none of these faults left."""

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest

from forcing.datasets.checks import check
from forcing.datasets.cutting import Part, Pieces, parts_of, taken
from forcing.datasets.mending import Mended, mended
from forcing.policy.types import EpisodeNote, Trajectories

Recorder = Callable[..., Trajectories]
LENGTHS = [120, 60, 200, 90, 150, 80]


def mend(recording: Trajectories) -> Mended:
    return mended(recording, check(recording))


def changed(recording: Trajectories, **streams: np.ndarray) -> Trajectories:
    return replace(recording, streams={**recording.streams, **streams})


def assert_equal(found: Trajectories, expected: Trajectories) -> None:
    assert found.lengths.tolist() == expected.lengths.tolist()
    for name, values in expected.streams.items():
        np.testing.assert_array_equal(found.streams[name], values, err_msg=name)
    for name, frames in expected.frames.items():
        np.testing.assert_array_equal(found.frames[name][:], frames[:], err_msg=name)


def test_a_clean_recording_is_left_exactly_as_it_is(arm: Recorder) -> None:
    recording = arm(LENGTHS)
    result = mend(recording)
    assert_equal(result.trajectories, recording)
    assert (result.changes, result.left, dict(result.trajectories.provenance)) == ((), (), {"source": "test"})


def test_bad_rows_are_cut_out_and_what_is_long_enough_stays(point_mass: Recorder) -> None:
    recording = point_mass([100, 50])
    position, action = recording.streams["position"].copy(), recording.streams["action"].copy()
    position[40:42] = np.nan  # observations 40 and 41 of episode 0
    action[95, 0] = np.inf  # its step 95: what follows is too short
    result = mend(changed(recording, position=position, action=action))
    mass = result.trajectories
    assert mass.lengths.tolist() == [39, 53, 50]  # observations 0 to 39, 42 to 95, and the other episode
    np.testing.assert_array_equal(mass.streams["position"][:40], recording.streams["position"][:40])
    np.testing.assert_array_equal(mass.streams["position"][40:94], recording.streams["position"][42:96])
    np.testing.assert_array_equal(mass.streams["action"][39:92], recording.streams["action"][42:95])
    np.testing.assert_array_equal(mass.episode(2)["reward"], recording.episode(1)["reward"])
    assert check(mass) == []
    assert [str(change) for change in result.changes] == [
        "stream 'position', not finite: stretches cut out: 1, at episode:step 0:40",
        "stream 'action', not finite: stretches cut out: 1, at episode:step 0:95",
        "episodes, or what is left of them, left out for having fewer than 10 steps: 1, at episode:step 0:96",
    ]
    assert mass.provenance["mended"]["changes"][0]["episode_first_end"] == [[0, 40, 42]]


def test_a_jump_is_cut_between_its_observations(point_mass: Recorder) -> None:
    recording = point_mass([100, 50])
    position = recording.streams["position"].copy()
    position[61:101] += 0.5  # step 60 leads there
    mass = mend(changed(recording, position=position)).trajectories
    assert mass.lengths.tolist() == [60, 39, 50]
    np.testing.assert_array_equal(mass.streams["action"][60:99], recording.streams["action"][61:100])
    assert check(mass) == []


def test_actions_are_clipped_to_their_limits_and_nothing_else_is_touched(point_mass: Recorder) -> None:
    recording = point_mass([100, 50])
    action = recording.streams["action"].copy()
    action[[3, 4, 120]] = [[1.5, 0.5], [0.25, -9], [3, 3]]
    result = mend(changed(recording, action=action))
    expected = recording.streams["action"].copy()
    expected[[3, 4, 120]] = [[1, 0.5], [0.25, -1], [1, 1]]
    assert_equal(result.trajectories, changed(recording, action=expected))
    (change,) = result.changes
    assert change.spans.tolist() == [[0, 3, 5], [1, 20, 21]]


@pytest.mark.parametrize(("name", "factor"), [("velocity", 57.29577951308232), ("velocity", 0.001), ("position", 1000)])
def test_a_proven_factor_is_undone(point_mass: Recorder, name: str, factor: float) -> None:
    recording = point_mass([60, 50, 70, 80, 90])
    values, start = recording.streams[name].copy(), 61
    values[start : start + 51 + 71] *= factor  # episodes 1 and 2
    result = mend(changed(recording, **{name: values}))
    np.testing.assert_allclose(result.trajectories.streams[name], recording.streams[name], rtol=1e-6)
    assert check(result.trajectories) == []
    (change,) = result.changes
    assert change.what == f"stream {name!r}, entries [0, 1], divided by {factor:.6g} in episodes"
    assert change.spans.tolist() == [[1, 0, 51], [2, 0, 71]]


def test_a_factor_of_some_episodes_is_undone_without_a_rate(arm: Recorder) -> None:
    recording = arm([300] * 12)
    joints = recording.streams["joints"].copy()
    joints[: 301 * 4] *= 57.29577951308232
    result = mend(changed(recording, joints=joints))
    np.testing.assert_allclose(result.trajectories.streams["joints"], recording.streams["joints"], rtol=1e-5)


def test_a_stuck_sensor_and_a_blank_or_stuck_camera_are_cut_out_with_their_frames(arm: Recorder) -> None:
    recording = arm(LENGTHS)
    joints, frames = recording.streams["joints"].copy(), np.array(recording.frames["front"][:])
    second, third = 121, 121 + 61
    joints[third + 40 : third + 71] = joints[third + 40]
    frames[second + 20 : second + 23] = 0
    frames[third + 150 : third + 201] = frames[third + 150]
    result = mend(replace(changed(recording, joints=joints), frames={"front": frames}))
    whole = [recording.episode(index) for index in range(6)]
    arm_left = result.trajectories
    assert arm_left.lengths.tolist() == [120, 19, 37, 40, 79, 90, 150, 80]
    assert check(arm_left) == []
    for index, (episode, first) in enumerate([(0, 0), (1, 0), (1, 23), (2, 0), (2, 71), (3, 0), (4, 0), (5, 0)]):
        length, part = int(arm_left.lengths[index]), arm_left.episode(index)
        for name in ("joints", "front", "timestamp"):
            np.testing.assert_array_equal(part[name], whole[episode][name][first : first + length + 1])
        np.testing.assert_array_equal(part["action"], whole[episode]["action"][first : first + length])
    assert [note.task for note in arm_left.notes] == ["swing"] * 8


def test_copies_are_left_out_and_the_first_stays(point_mass: Recorder) -> None:
    mass = point_mass([60, 50, 70])
    parts = [Part(0, 0, 60), Part(1, 0, 50), Part(0, 0, 60), Part(2, 0, 70), Part(1, 12, 50)]
    result = mend(taken(mass, parts))
    assert_equal(result.trajectories, mass)
    (change,) = result.changes
    assert change.spans[:, 0].tolist() == [2, 4]


def test_what_is_held_out_leaves_training(point_mass: Recorder) -> None:
    mass = point_mass([60, 50, 70, 80])
    parts = [Part(0, 0, 60), Part(1, 0, 50), Part(2, 0, 70), Part(0, 0, 60), Part(3, 0, 80)]
    subsets = [("train",), ("train", "valid"), ("train",), ("valid",), ("valid",)]
    leaky = replace(taken(mass, parts), notes=tuple(EpisodeNote(subsets=each) for each in subsets))
    result = mend(leaky)
    assert [note.subsets for note in result.trajectories.notes] == [("valid",), ("train",), ("valid",), ("valid",)]
    assert result.trajectories.lengths.tolist() == [50, 70, 60, 80]
    assert check(result.trajectories) == []


def test_a_held_out_part_of_a_training_episode_stays_and_the_whole_goes(point_mass: Recorder) -> None:
    parts = [Part(0, 0, 60), Part(0, 20, 60), Part(1, 0, 50)]
    subsets = [("train",), ("valid",), ("train",)]
    leaky = taken(point_mass([60, 50]), parts)
    result = mend(replace(leaky, notes=tuple(EpisodeNote(subsets=each) for each in subsets)))
    assert [note.subsets for note in result.trajectories.notes] == [("valid",), ("train",)]
    assert result.trajectories.lengths.tolist() == [40, 50]


def test_what_needs_a_guess_is_left_and_said(arm: Recorder) -> None:
    recording = arm([300, 200])
    action, joints = recording.streams["action"].copy(), recording.streams["joints"].copy()
    action[310, 2] = 1e4
    joints[100:301, 0] += 20
    result = mend(changed(recording, action=action, joints=joints))
    assert_equal(result.trajectories, changed(recording, action=action, joints=joints))
    assert result.changes == ()
    assert [line.partition(":")[0] for line in result.left] == [
        "stream 'action', outlier",
        "stream 'joints', unusual change",
    ]


def test_a_recorder_that_drops_many_frames_is_left_as_it_is(arm: Recorder) -> None:
    recording = arm(LENGTHS)
    clock = recording.streams["timestamp"].copy()
    for first, length in zip(np.cumsum([0, *np.array(LENGTHS[:-1]) + 1]), LENGTHS, strict=True):
        clock[first : first + length + 1] += 0.1 * (np.arange(length + 1) // 20)
    result = mend(changed(recording, timestamp=clock))
    assert result.changes == ()
    assert "cuts in 700 steps would leave pieces" in result.left[0]


def test_a_lone_clock_jump_is_cut(arm: Recorder) -> None:
    recording = arm(LENGTHS)
    clock = recording.streams["timestamp"].copy()
    clock[31:121] += 5
    result = mend(changed(recording, timestamp=clock))
    assert result.trajectories.lengths.tolist() == [30, 89, *LENGTHS[1:]]
    assert check(result.trajectories) == []


def test_nothing_left_is_an_error(point_mass: Recorder) -> None:
    recording = point_mass([12, 12])
    position = recording.streams["position"].copy()
    position[[5, 18]] = np.nan
    with pytest.raises(ValueError, match="nothing of the recording is left"):
        mend(changed(recording, position=position))


def test_goals_that_name_episodes_by_number_move_when_the_numbers_change(point_mass: Recorder) -> None:
    goals = {"stale_first": {"count": 1, "episodes": [1]}, "changed_later": {"count": 0, "episodes": []}}
    recording = replace(point_mass([100, 50, 5]), provenance={"source": "test", "goals": goals})
    result = mend(recording)
    assert "goals" not in result.trajectories.provenance
    assert result.trajectories.provenance["mended"]["goals_before"] == goals
    assert result.trajectories.lengths.tolist() == [100, 50]
    kept = replace(point_mass([100, 50]), provenance={"goals": goals})
    action = kept.streams["action"].copy()
    action[3] = 7
    assert mend(changed(kept, action=action)).trajectories.provenance["goals"] == goals


@pytest.mark.parametrize("rows", [slice(0, 0), slice(0, 9), slice(2, 5), slice(3, 4), slice(4, 9), slice(None)])
def test_pieces_of_frames_read_as_if_they_were_copied(rows: slice) -> None:
    frames = np.arange(20 * 2 * 2 * 3, dtype=np.uint8).reshape(20, 2, 2, 3)
    ranges = [(3, 6), (10, 11), (11, 15), (0, 1)]
    pieces = Pieces(frames, np.array(ranges))
    copied = np.concatenate([frames[a:b] for a, b in ranges])
    assert (pieces.shape, pieces.dtype) == (copied.shape, copied.dtype)
    np.testing.assert_array_equal(pieces[rows], copied[rows])


def test_parts_are_the_longest_runs_that_miss_nothing() -> None:
    observations = np.array([True, True, False, True, True, True, True])
    steps = np.array([True, True, True, True, False, True])
    assert parts_of(observations, steps, 7) == [Part(7, 0, 1), Part(7, 3, 4), Part(7, 5, 6)]
