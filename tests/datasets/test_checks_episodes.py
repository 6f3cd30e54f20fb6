"""Copies, overlaps and leaks between episodes, lone outliers and units by a factor: found as planted, or not at all."""

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest

from forcing.datasets.checks import check
from forcing.datasets.checks_episodes import held_out_twins
from forcing.datasets.findings import Finding
from forcing.datasets.mending import mended
from forcing.policy.types import Array, EpisodeNote, StreamSpec, Trajectories, TrajectorySpec

Recorder = Callable[..., Trajectories]
DEGREES = 57.29577951308232


def rows_of(recording: Trajectories, *parts: tuple[int, int, int]) -> Trajectories:
    """Episodes made of steps `first` to `end` of episodes, each with the observations around them."""
    streams = {}
    for stream in recording.spec.streams:
        start, extra = recording.starts(stream.role), stream.role == "observation"
        kept = recording.frames[stream.name] if stream.image else recording.streams[stream.name]
        streams[stream.name] = np.concatenate(
            [kept[int(start[e] + a) : int(start[e] + b + extra)] for e, a, b in parts]
        )
    return replace(
        recording,
        streams={name: streams[name] for name in recording.streams},
        frames={name: streams[name] for name in recording.frames},
        lengths=np.array([b - a for _, a, b in parts]),
        notes=tuple(recording.notes[e] for e, _, _ in parts) if recording.notes else (),
    )


def in_subsets(recording: Trajectories, *subsets: tuple[str, ...]) -> Trajectories:
    return replace(recording, notes=tuple(EpisodeNote(subsets=each) for each in subsets))


def scaled(recording: Trajectories, name: str, factor: float, *episodes: int) -> Trajectories:
    """With a stream multiplied in these episodes."""
    spec = recording.spec[name]
    values, starts = recording.streams[name].copy(), recording.starts(spec.role)
    for episode in episodes:
        end = starts[episode] + recording.lengths[episode] + (spec.role == "observation")
        values[starts[episode] : end] *= factor
    return replace(recording, streams={**recording.streams, name: values})


def only(recording: Trajectories) -> Finding:
    found = check(recording)
    assert len(found) == 1, [str(finding) for finding in found]
    return found[0]


def test_an_episode_that_is_there_twice_is_found(point_mass: Recorder) -> None:
    finding = only(rows_of(point_mass([60, 50, 70]), (0, 0, 60), (1, 0, 50), (0, 0, 60), (2, 0, 70), (0, 0, 60)))
    assert (finding.kind, finding.severity, finding.count) == ("duplicate", "warning", 2)
    assert finding.where == ((2, 0), (4, 0))
    assert "0=2=4" in finding.rule


def test_equal_numbers_with_other_frames_are_no_copy(arm: Recorder) -> None:
    twice = rows_of(arm([60, 50]), (0, 0, 60), (1, 0, 50), (0, 0, 60))
    assert only(twice).kind == "duplicate"
    frames = np.array(twice.frames["front"][:])
    frames[112 + 30, 0, 0, 0] ^= 255  # one pixel of the third episode
    assert {finding.kind for finding in check(replace(twice, frames={"front": frames}))} <= {"overlap"}


def test_an_episode_that_starts_later_in_another_is_found(point_mass: Recorder) -> None:
    finding = only(rows_of(point_mass([60, 50]), (0, 15, 60), (1, 0, 50), (0, 0, 60)))
    assert (finding.kind, finding.count, finding.where) == ("duplicate", 1, ((0, 0),))
    assert "0 in 2 from 15 (46 observations)" in finding.rule


def test_episodes_that_share_most_of_a_drive_are_found_and_those_that_share_a_little_are_not(
    point_mass: Recorder,
) -> None:
    finding = only(rows_of(point_mass([100, 50]), (0, 0, 60), (0, 25, 100), (1, 0, 50)))
    assert (finding.kind, finding.severity) == ("overlap", "warning")
    assert "1 in 0 from 25 (36 observations)" in finding.rule
    assert check(rows_of(point_mass([100, 50]), (0, 0, 60), (0, 55, 100), (1, 0, 50))) == []


def test_the_same_places_with_other_actions_are_an_overlap_and_no_copy(point_mass: Recorder) -> None:
    twice = rows_of(point_mass([60, 50]), (0, 0, 60), (1, 0, 50), (0, 15, 60))
    action = twice.streams["action"].copy()
    action[110 + 20] *= 0.5
    finding = only(replace(twice, streams={**twice.streams, "action": action}))
    assert (finding.kind, finding.where) == ("overlap", ((2, 0),))


def test_resting_at_the_same_place_is_no_overlap(arm: Recorder) -> None:
    recording = arm([60, 50, 80, 70], resting=20)
    home = np.zeros(6, np.float32)
    joints, gripper = recording.streams["joints"].copy(), recording.streams["gripper"].copy()
    for end in np.cumsum(recording.lengths + 1):
        joints[end - 20 : end], gripper[end - 20 : end] = home, 0
    moved = replace(recording, streams={**recording.streams, "joints": joints, "gripper": gripper})
    assert [finding.kind for finding in check(moved) if finding.kind in ("overlap", "duplicate")] == []


def test_an_episode_in_training_and_validation_is_a_leak(point_mass: Recorder) -> None:
    recording = point_mass([60, 50, 70])
    finding = only(in_subsets(recording, ("train",), ("train", "valid"), ("valid",)))
    assert (finding.kind, finding.severity, finding.where) == ("leak", "error", ((1, 0),))
    assert check(in_subsets(recording, ("train",), ("train", "20_percent", "20_percent_train"), ("valid",))) == []


def test_a_copy_of_a_training_episode_in_validation_is_a_leak(point_mass: Recorder) -> None:
    twice = rows_of(point_mass([60, 50]), (0, 0, 60), (1, 0, 50), (0, 0, 60), (1, 20, 50))
    leak, copy, part = check(in_subsets(twice, ("train",), ("valid",), ("valid",), ("train",)))
    assert (leak.kind, leak.where) == ("leak", ((0, 0), (3, 0)))
    assert (copy.kind, part.kind) == ("duplicate", "duplicate")
    assert [finding.severity for finding in check(in_subsets(twice, *[("train",)] * 4))] == ["warning"] * 2


@pytest.mark.parametrize(
    ("subsets", "twins"),
    [
        (("train", "valid"), {"train": "valid"}),
        (("training", "test"), {"training": "test"}),
        (("20_percent_train", "20_percent_valid", "train"), {"20_percent_train": "20_percent_valid"}),
        (("fold0_train", "fold1_valid"), {}),
        (("better", "okay"), {}),
        (("constrain", "invalid"), {}),
        ((), {}),
    ],
)
def test_only_subsets_of_the_same_name_are_held_out_from_each_other(
    subsets: tuple[str, ...], twins: dict[str, str]
) -> None:
    assert held_out_twins(subsets) == twins


def test_a_lone_command_far_from_all_others_is_found(arm: Recorder) -> None:
    recording = arm([300, 200])
    actions = recording.streams["action"].copy()
    actions[310, 2] = 1e4
    finding = only(replace(recording, streams={**recording.streams, "action": actions}))
    assert (finding.kind, finding.severity, finding.where) == ("outlier", "warning", ((1, 10),))


def test_commands_that_are_rare_but_many_or_of_few_values_are_no_outliers(arm: Recorder) -> None:
    recording = arm([1000, 1000])
    actions = recording.streams["action"].copy()
    actions[10:15, 2] = 1e4  # a burst
    actions[100:102, 6] = 1000  # a button, else 0 or 1
    assert set(np.unique(actions[:, 6])) == {0, 1, 1000}
    assert check(replace(recording, streams={**recording.streams, "action": actions})) == []


@pytest.mark.parametrize("factor", [DEGREES, 1 / DEGREES, 1000, 1 / 1000])
def test_a_rate_in_another_unit_than_its_position_is_found(point_mass: Recorder, factor: float) -> None:
    recording = point_mass([60, 50, 70])
    finding = only(scaled(recording, "velocity", factor, 0, 1, 2))
    assert (finding.kind, finding.severity, finding.stream, finding.count) == ("wrong unit", "error", "velocity", 3)
    size = f"{factor:.4g} times" if factor > 1 else f"1/{1 / factor:.4g} of"
    assert f"is {size} what stream 'position' says" in finding.rule


def test_one_entry_of_a_rate_in_another_unit_is_found(point_mass: Recorder) -> None:
    recording = point_mass([60, 50, 70])
    velocity = recording.streams["velocity"] * np.array([1, DEGREES], np.float32)
    finding = only(replace(recording, streams={**recording.streams, "velocity": velocity}))
    assert (finding.kind, finding.stream) == ("wrong unit", "velocity")
    assert finding.rule.endswith("in entries [1]")


@pytest.mark.parametrize("name", ["position", "velocity"])
def test_some_episodes_in_another_unit_are_found_and_the_stream_named_that_differs(
    point_mass: Recorder, name: str
) -> None:
    finding = only(scaled(point_mass([60, 50, 70, 80, 90]), name, 1000, 1, 3))
    assert (finding.kind, finding.severity, finding.stream) == ("wrong unit", "error", name)
    assert finding.where == ((1, 0), (3, 0))
    assert "is 1000 times" in finding.rule


@pytest.mark.parametrize("factor", [DEGREES, 1000, 1 / 1000])
def test_episodes_that_are_a_factor_from_the_others_are_found_without_a_rate(arm: Recorder, factor: float) -> None:
    recording = scaled(arm([120, 60, 200, 90, 150, 80, 100, 140]), "joints", factor, 2, 5, 6)
    (finding,) = [finding for finding in check(recording) if finding.kind == "wrong unit"]
    assert (finding.stream, finding.where) == ("joints", ((2, 0), (5, 0), (6, 0)))
    assert "of what other episodes have" in finding.rule or "times what other episodes have" in finding.rule


def test_an_episode_of_small_motions_is_not_in_another_unit(arm: Recorder) -> None:
    """Ten times slower and smaller, but around where the others are."""
    recording = arm([120, 60, 200, 90, 150, 80])
    joints = recording.streams["joints"].copy()
    joints[:121] = 0.5 + joints[:121] / 60
    assert [f.kind for f in check(replace(recording, streams={**recording.streams, "joints": joints}))] == []


def test_episodes_of_every_size_are_not_in_another_unit(arm: Recorder) -> None:
    recording = arm([60] * 13)
    for episode in range(13):
        recording = scaled(recording, "joints", 2.0 ** (episode - 6) / 20, episode)
    assert [finding for finding in check(recording) if finding.kind == "wrong unit"] == []


def test_an_episode_of_which_only_some_entries_are_larger_is_not_in_another_unit(arm: Recorder) -> None:
    recording = arm([120, 60, 200, 90, 150, 80])
    joints = recording.streams["joints"].copy()
    joints[:121, :5] *= DEGREES
    larger = replace(recording, streams={**recording.streams, "joints": joints})
    assert [finding for finding in check(larger) if "other episodes" in finding.rule] == []


def test_episodes_whose_rate_disagrees_are_not_blamed_on_either_stream_if_both_differ(point_mass: Recorder) -> None:
    recording = point_mass([60, 50, 70, 80, 90])
    slower = recording.streams["position"].copy()
    slower[61:112] = slower[61] + (slower[61:112] - slower[61]) / np.sqrt(DEGREES)
    both = scaled(replace(recording, streams={**recording.streams, "position": slower}), "velocity", DEGREES**0.5, 1)
    finding = only(both)
    assert (finding.kind, finding.severity, finding.where) == ("wrong unit", "warning", ((1, 0),))
    assert mended(both, [finding]).changes == ()


def test_radians_that_reach_far_beyond_a_turn_are_doubted() -> None:
    streams = (
        StreamSpec(name="joints", role="observation", shape=(3,), units="rad"),
        StreamSpec(name="action", role="action", shape=(3,)),
    )
    joints = 100 * np.sin(np.arange(501)[:, None] / np.array([20, 30, 40]))
    recording = Trajectories(
        spec=TrajectorySpec(streams=streams, control_hz=20),
        streams={"joints": joints, "action": joints[1:]},
        lengths=np.array([500]),
    )
    finding = only(recording)
    assert (finding.kind, finding.severity, finding.count) == ("wrong unit", "warning", 3)
    mixed = joints / np.array([DEGREES, DEGREES, 5])
    assert check(replace(recording, streams={"joints": mixed / 4, "action": mixed[1:]})) == []
    turned = replace(recording, streams={"joints": joints / DEGREES, "action": joints[1:]})
    assert check(turned) == []


def test_one_entry_a_thousand_times_the_others_is_doubted_only_if_they_share_a_declared_unit() -> None:
    def declared(units: str) -> Trajectories:
        streams = (
            StreamSpec(name="place", role="observation", shape=(3,), units=units),
            StreamSpec(name="action", role="action", shape=(3,)),
        )
        place: Array = np.sin(np.arange(501)[:, None] / np.array([20, 30, 40])) * np.array([1, 1000, 0.8])
        return Trajectories(
            spec=TrajectorySpec(streams=streams, control_hz=20),
            streams={"place": place, "action": np.diff(place, axis=0)},
            lengths=np.array([500]),
        )

    finding = only(declared("m"))
    assert (finding.kind, finding.severity) == ("wrong unit", "warning")
    assert "(entries [1])" in finding.rule
    assert check(declared("")) == []
