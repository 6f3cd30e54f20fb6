"""Streams named by their user, left out, and subsets of episodes."""

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from forcing.datasets.episodes import InMemory, Recording, gathered
from forcing.datasets.naming import renamed
from forcing.datasets.recording import read_recording
from forcing.datasets.store import write_store
from forcing.datasets.subsets import subset_of
from forcing.policy.types import EpisodeNote, Trajectories

Recorder = Callable[..., Trajectories]
SOURCE_NAMES = {"position": "observation.state", "velocity": "observation.speed", "action": "action"}


@pytest.fixture
def recording(point_mass: Recorder) -> Recording:
    return InMemory(replace(point_mass([5, 8]), provenance={"source": "test", "source_names": SOURCE_NAMES}))


def names(recording: Recording) -> list[str]:
    return [stream.name for stream in recording.spec.streams]


@pytest.mark.parametrize(
    ("streams", "expected"),
    [
        ({}, ["position", "velocity", "action", "reward"]),
        ({"place": "position"}, ["place", "velocity", "action", "reward"]),
        ({"place": "observation.state"}, ["place", "velocity", "action", "reward"]),
        ({"position": "position"}, ["position", "velocity", "action", "reward"]),
        ({"position": "velocity", "velocity": "position"}, ["velocity", "position", "action", "reward"]),
        ({"velocity": ""}, ["position", "action", "reward"]),
        ({"observation.speed": "", "reward": ""}, ["position", "action"]),
        ({"command": "action", "position": ""}, ["velocity", "command", "reward"]),
        ({"velocity": "position", "observation.speed": ""}, ["velocity", "action", "reward"]),
    ],
)
def test_streams_are_named_and_left_out_as_was_asked(
    recording: Recording, streams: Mapping[str, str], expected: list[str]
) -> None:
    assert names(renamed(recording, streams)) == expected


def test_rows_and_roles_go_with_the_stream(recording: Recording) -> None:
    before, after = gathered(recording), gathered(renamed(recording, {"place": "position", "command": "action"}))
    assert np.array_equal(after.streams["place"], before.streams["position"])
    assert np.array_equal(after.streams["command"], before.streams["action"])
    assert after.spec.action.name == "command"
    assert (after.spec.goal, after.spec["velocity"].rate_of, after.spec["place"].units) == ("place", "place", "m")
    assert after.provenance["source_names"] == {
        "place": "observation.state",
        "velocity": "observation.speed",
        "command": "action",
        "reward": "reward",
    }


def test_goal_and_rate_go_with_the_stream_that_is_left_out(recording: Recording) -> None:
    after = renamed(recording, {"position": ""})
    assert (after.spec.goal, after.spec["velocity"].rate_of) == (None, None)
    assert after.provenance()["unwanted"] == ["position"]


@pytest.mark.parametrize(
    ("streams", "message"),
    [
        ({"place": "posiiton"}, "unknown stream 'posiiton'; did you mean 'position'?"),
        ({"place": "observation.stat"}, "unknown stream 'observation.stat'; did you mean 'observation.state'?"),
        ({"wrist": ""}, "unknown stream 'wrist'; known are position, velocity, action, reward, observation.state, "),
        ({"place": "position", "where": "observation.state"}, "'position' must be named once, got 'place' and 'where'"),
        ({"place": "position", "position": ""}, "'position' must be named once, got 'place' and 'position'"),
        ({"velocity": "position"}, "two streams would be named 'velocity'"),
        ({"a.b": "position"}, "a stream's name must be an identifier such as 'observation', got 'a.b'"),
        ({"action": ""}, "stream 'action' is the action, which no recording can do without"),
        ({"position": "", "velocity": ""}, "at least one observation must stay"),
    ],
)
def test_names_that_cannot_be_are_refused(recording: Recording, streams: Mapping[str, str], message: str) -> None:
    with pytest.raises(ValueError, match=message.replace(".", r"\.").replace("?", r"\?")):
        renamed(recording, streams)


def noted(recording: Trajectories, *subsets: tuple[str, ...]) -> InMemory:
    return InMemory(replace(recording, notes=tuple(EpisodeNote(subsets=each) for each in subsets)))


def test_a_subset_has_its_own_episodes_alone(point_mass: Recorder) -> None:
    recorded = point_mass([5, 8, 3])
    train = gathered(subset_of(noted(recorded, ("train",), ("valid",), ("train", "few")), "train"))
    assert train.lengths.tolist() == [5, 3]
    assert np.array_equal(train.episode(1)["position"], recorded.episode(2)["position"])
    assert train.provenance["subset"] == "train"


def test_an_unknown_subset_names_those_there_are(point_mass: Recorder) -> None:
    with pytest.raises(ValueError, match=r"subset 'test' has no episode; there are \['few', 'train'\]"):
        gathered(subset_of(noted(point_mass([5, 8]), ("train",), ("few",)), "test"))
    with pytest.raises(ValueError, match="subset 'test' has no episode; the recording has none"):
        gathered(subset_of(InMemory(point_mass([5])), "test"))


def test_a_store_is_read_with_other_names(tmp_path: Path, point_mass: Recorder) -> None:
    path = write_store(point_mass([5]), tmp_path / "maze.zarr")
    read = read_recording(path, streams={"place": "position", "reward": ""})
    assert [stream.name for stream in read.spec.streams] == ["place", "velocity", "action"]
