"""Several recordings taken as one."""

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest

from forcing.datasets.cutting import Part, taken
from forcing.datasets.joining import ChainedFrames, divided, joined
from forcing.datasets.mixture import windows_of
from forcing.datasets.windows import TrajectoryWindows
from forcing.policy.types import EpisodeNote, Trajectories

Recorder = Callable[..., Trajectories]


def test_episodes_of_one_recording_follow_those_of_another(arm: Recorder) -> None:
    first, second = arm([3, 5], seed=0), arm([4], seed=1)
    both = joined([first, replace(second, notes=())])
    assert both.lengths.tolist() == [3, 5, 4]
    assert [note.task for note in both.notes] == ["swing", "swing", ""]
    for index, (whose, own) in enumerate(((first, 0), (first, 1), (second, 0))):
        for name, rows in whose.episode(own).items():
            np.testing.assert_array_equal(both.episode(index)[name], rows)
    assert joined([first]) is first


def test_what_was_joined_is_divided_again(point_mass: Recorder) -> None:
    recordings = [point_mass([3, 5], seed=0), point_mass([4], seed=1), point_mass([2, 2, 2], seed=2)]
    for part, whole in zip(divided(joined(recordings), [2, 1, 3]), recordings, strict=True):
        assert part.lengths.tolist() == whole.lengths.tolist()
        for name, rows in whole.streams.items():
            np.testing.assert_array_equal(part.streams[name], rows)


def test_frames_are_chained_whatever_the_slice() -> None:
    parts = [np.arange(12, dtype=np.uint8).reshape(n, 1, 1, 1) + at for n, at in ((12, 0), (12, 12))]
    chained, whole = ChainedFrames(parts), np.concatenate(parts)
    assert chained.shape == whole.shape
    for start, stop in ((0, 24), (0, 12), (11, 13), (12, 24), (5, 5), (20, 99), (23, 24)):
        np.testing.assert_array_equal(chained[start:stop], whole[start:stop])


def test_windows_are_drawn_from_frames_that_are_chained_or_cut(arm: Recorder) -> None:
    first, second = arm([30, 25]), arm([40], seed=1)
    chained = joined([first, second])
    whole = {"front": np.concatenate([each.frames["front"][:] for each in (first, second)])}
    cut = taken(chained, [Part(0, 3, 30), Part(2, 0, 12)])
    for lazy, frames in ((chained, whole), (cut, {"front": np.array(cut.frames["front"][:])})):
        drawn = [
            TrajectoryWindows(recording).sample(np.random.default_rng(0), 20, past=5, future=4)
            for recording in (lazy, replace(lazy, frames=frames))
        ]
        for stream in lazy.spec.streams:
            assert np.array_equal(drawn[0].streams[stream.name], drawn[1].streams[stream.name])


def test_recordings_of_other_robots_are_refused(arm: Recorder) -> None:
    first = arm([3])
    other = replace(first, spec=replace(first.spec, control_hz=10.0))
    with pytest.raises(ValueError, match="recording 2 must be like the first: control_hz is 10, not 20"):
        joined([first, other])


def test_notes_are_those_of_the_episodes_or_none(point_mass: Recorder) -> None:
    assert joined([point_mass([3]), point_mass([4])]).notes == ()
    noted = replace(point_mass([3]), notes=(EpisodeNote(task="push"),))
    assert [note.task for note in joined([point_mass([4]), noted]).notes] == ["", "push"]


def test_weights_say_how_often_each_recording_is_drawn(point_mass: Recorder) -> None:
    first, second = point_mass([50], seed=0), point_mass([50], seed=1)
    windows = windows_of([first, second], [3.0, 1.0])
    drawn = windows.sample(np.random.default_rng(0), 4000, 0, 1).streams["position"][:, 0]
    share = np.mean([(row == first.streams["position"]).all(axis=1).any() for row in drawn])
    assert abs(share - 0.75) < 4 * np.sqrt(0.75 * 0.25 / 4000)
