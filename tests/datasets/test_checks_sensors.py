"""Stuck sensors and cameras, clocks and late steps: found where they were planted, and nowhere in clean recordings."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from forcing.datasets.checks import check
from forcing.datasets.findings import Finding
from forcing.datasets.runs import stretches
from forcing.policy.types import Array, Frames, StreamSpec, Trajectories, TrajectorySpec

Recorder = Callable[..., Trajectories]
LENGTHS = [120, 60, 200, 90, 150, 80]
FROM = np.concatenate([[0], np.cumsum(np.array(LENGTHS) + 1)])  # first observation of each episode


def altered(recording: Trajectories, name: str, change: Callable[[Array], None]) -> Trajectories:
    kept = recording.frames if name in recording.frames else recording.streams
    values = np.array(kept[name][:])
    change(values)
    if name in recording.frames:
        return replace(recording, frames={**recording.frames, name: values})
    return replace(recording, streams={**recording.streams, name: values})


def of_kind(recording: Trajectories, kind: str) -> list[Finding]:
    return [finding for finding in check(recording) if finding.kind == kind]


@pytest.mark.parametrize("resting", [0, 15])
@pytest.mark.parametrize("seed", range(3))
def test_a_clean_arm_with_a_camera_raises_nothing_at_rest_or_not(arm: Recorder, seed: int, resting: int) -> None:
    assert check(arm(LENGTHS, seed, resting)) == []


def test_a_stuck_sensor_is_found_where_it_is_stuck_and_for_how_long(arm: Recorder) -> None:
    def plant(values: Array) -> None:
        values[FROM[2] + 40 : FROM[2] + 71] = values[FROM[2] + 40]  # 30 observations that only repeat the one before

    (finding,) = of_kind(altered(arm(LENGTHS), "joints", plant), "frozen")
    assert (finding.stream, finding.count, finding.where) == ("joints", 1, ((2, 41),))
    assert finding.spans.tolist() == [[2, 41, 71]]
    assert "6 of 6 entries, for up to 30 steps" in finding.rule


def test_a_single_stuck_joint_is_found(arm: Recorder) -> None:
    def plant(values: Array) -> None:
        values[FROM[1] + 10 : FROM[1] + 50, 3] = values[FROM[1] + 10, 3]

    (finding,) = of_kind(altered(arm(LENGTHS), "joints", plant), "frozen")
    assert (finding.stream, finding.where) == ("joints", ((1, 11),))
    assert finding.spans.tolist() == [[1, 11, 50]]
    assert "1 of 6 entries, for up to 39 steps" in finding.rule


def test_a_state_that_is_stuck_as_a_whole_is_found_by_the_actions_that_go_on(arm: Recorder) -> None:
    recording = arm([200, 150])
    streams = tuple(recording.spec[name] for name in ("joints", "action"))
    alone = replace(recording, spec=replace(recording.spec, streams=streams), frames={})

    def plant(values: Array) -> None:
        values[40:71] = values[40]

    (finding,) = of_kind(altered(alone, "joints", plant), "frozen")
    assert (finding.severity, finding.where) == ("error", ((0, 41),))


@pytest.mark.parametrize("name", ["position", "velocity"])
def test_a_sensor_stuck_to_the_end_of_its_episode_is_found_by_its_rate(point_mass: Recorder, name: str) -> None:
    recording = point_mass([300, 200, 400])
    moving = recording.streams["velocity"][301 + 100]
    assert np.abs(moving).max() > 0.1

    def plant(values: Array) -> None:
        values[301 + 100 : 301 + 201] = values[301 + 100]

    (finding,) = of_kind(altered(recording, name, plant), "frozen")
    assert (finding.severity, finding.stream, finding.where) == ("error", name, ((1, 101),))


def test_what_rests_in_every_episode_is_not_stuck() -> None:
    """An object lies still to the last bit until the arm pushes it, and then moves as usual."""
    streams = (
        StreamSpec(name="hand", role="observation", shape=()),
        StreamSpec(name="thing", role="observation", shape=()),
        StreamSpec(name="action", role="action", shape=()),
    )
    rng = np.random.default_rng(0)
    hand, thing = [], []
    for _ in range(10):
        path = np.cumsum(rng.uniform(0.005, 0.015, 101))
        hand.append(path)
        thing.append(np.maximum(path, 0.4) + rng.uniform(0, 1))
    moves = np.concatenate([np.diff(path) for path in hand])
    recording = Trajectories(
        spec=TrajectorySpec(streams=streams, control_hz=20),
        streams={"hand": np.concatenate(hand), "thing": np.concatenate(thing), "action": moves},
        lengths=np.full(10, 100),
    )
    assert (np.diff(thing[0]) == 0).sum() > 20
    assert check(recording) == []


def test_a_robot_that_stands_still_has_no_stuck_sensor(arm: Recorder) -> None:
    def stand(values: Array) -> None:
        values[FROM[2] + 40 : FROM[2] + 71] = values[FROM[2] + 40]

    def hold(values: Array) -> None:
        values[FROM[2] - 2 + 38 : FROM[2] - 2 + 71] = values[FROM[2] - 2 + 38]  # an action less for each episode

    still = altered(altered(altered(arm(LENGTHS), "joints", stand), "gripper", stand), "action", hold)
    assert of_kind(altered(still, "front", stand), "frozen camera") == []
    assert of_kind(still, "frozen") == []


def test_integers_that_repeat_are_not_stuck(arm: Recorder) -> None:
    recording = arm(LENGTHS)
    ticks = np.round(recording.streams["joints"] * 50).astype(np.int32)
    assert of_kind(replace(recording, streams={**recording.streams, "joints": ticks}), "frozen") == []
    coarse = (ticks / 50).astype(np.float32)  # an encoder of 50 ticks a radian
    assert of_kind(replace(recording, streams={**recording.streams, "joints": coarse}), "frozen") == []


def test_a_camera_that_stands_still_while_the_robot_moves_is_found(arm: Recorder) -> None:
    def plant(frames: Array) -> None:
        frames[FROM[2] + 100 : FROM[2] + 201] = frames[FROM[2] + 100]  # to the end of the episode

    (finding,) = check(altered(arm(LENGTHS), "front", plant))
    assert (finding.kind, finding.severity, finding.stream) == ("frozen camera", "error", "front")
    assert (finding.where, finding.spans.tolist()) == (((2, 101),), [[2, 101, 201]])
    assert "for up to 100 steps" in finding.rule


def test_a_slow_camera_that_repeats_each_frame_is_not_stuck_but_a_stuck_one_of_them_is(arm: Recorder) -> None:
    def slow(frames: Array) -> None:
        for first, length in zip(FROM[:-1], LENGTHS, strict=True):
            rows = np.arange(length + 1)
            frames[first : first + length + 1] = frames[first + rows - rows % 12]

    recording = altered(arm(LENGTHS), "front", slow)
    assert check(recording) == []

    def plant(frames: Array) -> None:
        frames[FROM[2] + 100 : FROM[2] + 161] = frames[FROM[2] + 100]

    (finding,) = check(altered(recording, "front", plant))
    assert (finding.kind, finding.where) == ("frozen camera", ((2, 97),))  # the frame of observation 96


@pytest.mark.parametrize("color", [0, 9, 255])
def test_frames_that_show_nothing_are_found(arm: Recorder, color: int) -> None:
    def plant(frames: Array) -> None:
        frames[FROM[3] + 7 : FROM[3] + 20] = color
        frames[FROM[5]] = color

    (finding,) = check(altered(arm(LENGTHS), "front", plant))
    assert (finding.kind, finding.severity) == ("blank frames", "error")
    assert (finding.count, finding.spans.tolist()) == (2, [[3, 7, 20], [5, 0, 1]])
    assert "14 are black" in finding.rule


@pytest.mark.parametrize("frame", [0, 1])
def test_a_camera_that_never_shows_anything_else_is_found_once(arm: Recorder, frame: int) -> None:
    def plant(frames: Array) -> None:
        frames[:] = 0 if frame == 0 else frames[0]

    (finding,) = check(altered(arm(LENGTHS), "front", plant))
    assert (finding.kind, finding.severity, finding.stream) == ("constant", "warning", "front")


def test_frames_that_are_no_bytes_are_found(arm: Recorder) -> None:
    recording = arm(LENGTHS)
    frames: Frames = recording.frames["front"][:].astype(np.float32) / 255
    (finding,) = check(replace(recording, frames={"front": frames}))
    assert (finding.kind, finding.severity, finding.count) == ("frame type", "error", sum(LENGTHS) + len(LENGTHS))
    assert "are float32" in finding.rule


class Watched:
    """Frames that note how many of them are asked for at once."""

    def __init__(self, frames: Array) -> None:
        self.shape, self.dtype = frames.shape, frames.dtype
        self.most = 0
        self._frames = frames

    def __getitem__(self, rows: slice, /) -> Array:
        found = self._frames[rows]
        self.most = max(self.most, len(found))
        return found


def test_frames_are_read_in_blocks(arm: Recorder, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("forcing.datasets.checks_frames.BLOCK_BYTES", 50 * 24 * 32 * 3)
    recording = arm(LENGTHS)
    rows = np.array(recording.frames["front"][:])
    rows[FROM[2] + 20 : FROM[2] + 101] = rows[FROM[2] + 20]  # over several blocks
    watched = Watched(rows)
    (finding,) = check(replace(recording, frames={"front": watched}))
    assert finding.spans.tolist() == [[2, 21, 101]]
    assert watched.most == 50


@pytest.mark.parametrize(("scale", "dtype"), [(1, np.float32), (1000, np.float64), (10**9, np.int64)])
def test_a_clock_that_leaves_ticks_out_is_found_in_any_unit(arm: Recorder, scale: int, dtype: Any) -> None:
    recording = arm(LENGTHS)
    seconds = recording.streams["timestamp"].astype(np.float64).copy()
    seconds[FROM[4] + 31 : FROM[5]] += 0.4  # between observations 30 and 31: a tick of 0.05 s and 0.4 s
    clock = np.round(seconds * scale, 6).astype(dtype)
    (finding,) = check(replace(recording, streams={**recording.streams, "timestamp": clock}))
    assert (finding.kind, finding.severity, finding.stream) == ("clock jump", "warning", "timestamp")
    assert finding.where == ((4, 30),)
    assert "up to 9 times" in finding.rule


def test_a_clock_that_goes_backwards_is_an_error(arm: Recorder) -> None:
    def plant(values: Array) -> None:
        values[FROM[2] + 51 : FROM[3]] -= 1

    (finding,) = check(altered(arm(LENGTHS), "timestamp", plant))
    assert (finding.severity, finding.rule, finding.where) == ("error", "must rise", ((2, 50),))


def test_a_clock_of_the_century_in_float32_is_called_too_coarse(arm: Recorder) -> None:
    recording = arm(LENGTHS)
    century = recording.streams["timestamp"].astype(np.float64) + 1.7e9 + np.repeat(np.arange(6) * 1e4, np.diff(FROM))
    coarse = replace(recording, streams={**recording.streams, "timestamp": century.astype(np.float32)})
    (finding,) = check(coarse)
    assert (finding.kind, finding.severity, finding.stream) == ("clock", "warning", "timestamp")
    assert "its numbers as float32 only 128" in finding.rule  # 2^30 < 1.7e9 < 2^31, and 24 bits of mantissa: 2^7
    assert check(replace(recording, streams={**recording.streams, "timestamp": century})) == []


def test_a_clock_that_contradicts_the_control_rate_is_found(arm: Recorder) -> None:
    recording = arm(LENGTHS)
    (finding,) = check(replace(recording, spec=replace(recording.spec, control_hz=30)))
    assert (finding.kind, finding.stream) == ("wrong rate", "timestamp")
    assert finding.rule.endswith("which is 30; it ticks as if that were 20")


def circling(speed: Array, kept: Array) -> Trajectories:
    """A point on the unit circle, at 100 Hz and `speed` in each step; only the rows `kept` are recorded."""
    angle = np.cumsum(speed) / 100
    position = np.stack([np.cos(angle), np.sin(angle)], axis=1)
    velocity = speed[:, None] * np.stack([-np.sin(angle), np.cos(angle)], axis=1)
    streams = (
        StreamSpec(name="position", role="observation", shape=(2,)),
        StreamSpec(name="velocity", role="observation", shape=(2,), rate_of="position"),
        StreamSpec(name="action", role="action", shape=(2,)),
    )
    return Trajectories(
        spec=TrajectorySpec(streams=streams, control_hz=100),
        streams={"position": position[kept], "velocity": velocity[kept], "action": velocity[kept][1:]},
        lengths=np.array([len(kept) - 1]),
    )


def test_a_dropped_frame_is_found_without_a_clock_by_what_the_rate_says() -> None:
    """Where it is slow, one sample left out is too short a way for a jump, and still twice the usual."""
    speed = np.concatenate([np.full(600, 4.0), np.full(1400, 1.0)])
    assert check(circling(speed, np.arange(2000))) == []
    (finding,) = check(circling(speed, np.delete(np.arange(2000), 1000)))
    assert (finding.kind, finding.severity, finding.stream) == ("clock jump", "warning", "velocity")
    assert finding.where == ((0, 999),)


def test_a_step_aside_is_no_dropped_frame() -> None:
    speed = np.concatenate([np.full(600, 4.0), np.full(1400, 1.0)])
    recording = circling(speed, np.delete(np.arange(2000), 1000))
    position = recording.streams["position"].copy()
    position[1000:] *= 1 + 0.01  # outwards by as much as a step is long
    assert check(replace(recording, streams={**recording.streams, "position": position})) == []


def test_many_dropped_frames_are_one_jump_and_not_a_late_step_besides() -> None:
    (finding,) = check(circling(np.full(2000, 1.0), np.delete(np.arange(2000), slice(700, 703))))
    assert (finding.kind, finding.where) == ("jump", ((0, 699),))


def test_a_stuck_sensor_is_proven_by_what_it_jumps_to(arm: Recorder) -> None:
    def plant(values: Array) -> None:
        values[40:71] = values[40]

    (finding,) = of_kind(altered(arm([200, 150]), "joints", plant), "frozen")
    assert (finding.severity, finding.where) == ("error", ((0, 41),))


def test_a_sensor_that_rests_at_the_start_of_one_episode_is_not_stuck(arm: Recorder) -> None:
    def rest(values: Array) -> None:
        values[FROM[4] : FROM[4] + 31, 3] = values[FROM[4] + 31, 3]

    assert of_kind(altered(arm(LENGTHS), "joints", rest), "frozen") == []


def test_a_slow_sensor_is_not_stuck_though_its_rate_says_that_it_moves(point_mass: Recorder) -> None:
    recording = point_mass([300, 200, 400])

    def slow(values: Array) -> None:
        rows = np.arange(301)
        values[:301] = values[rows - rows % 25]
        values[301:502] = values[301 + rows[:201] - rows[:201] % 25]
        values[502:603] = values[502 + rows[:101] - rows[:101] % 25]

    assert of_kind(altered(recording, "position", slow), "frozen") == []


def test_a_camera_that_loses_sight_of_the_robot_is_not_stuck(arm: Recorder) -> None:
    """Simulated, without noise: it repeats itself now and then, and shows the same once the robot is out of sight."""

    def plant(frames: Array) -> None:
        for first, length in zip(FROM[:-1], LENGTHS, strict=True):
            frames[first + 10 : first + length - 20 : 10] = frames[first + 9 : first + length - 21 : 10]
            frames[first + length - 19 : first + length + 1] = frames[first + length - 20]

    assert check(altered(arm(LENGTHS), "front", plant)) == []


def test_stretches_end_with_their_episode(point_mass: Recorder) -> None:
    recording = point_mass([3, 4])
    found = stretches(np.array([1, 1, 1, 1, 0, 1, 1], bool), recording)
    assert (found.first.tolist(), found.end.tolist(), found.episode.tolist()) == ([0, 3, 5], [3, 4, 7], [0, 1, 1])
    assert stretches(np.ones(7, bool), recording, shortest=4).spans(recording, shift=1).tolist() == [[1, 1, 5]]


@pytest.mark.parametrize("ticks_hz", [1, 0])
def test_a_clock_that_does_not_rise_at_most_steps_is_called_no_use(arm: Recorder, ticks_hz: int) -> None:
    recording = arm(LENGTHS)
    seconds = np.floor(recording.streams["timestamp"] * ticks_hz + 1e-3).astype(np.int64)
    found = check(replace(recording, streams={**recording.streams, "timestamp": seconds}))
    about = {finding.kind: finding for finding in found if finding.stream == "timestamp"}
    assert about["clock"].severity == "warning"
    assert about["clock"].rule == "must resolve a step, and does not rise in most of them"
    assert set(about) == ({"clock"} if ticks_hz else {"clock", "constant"})
