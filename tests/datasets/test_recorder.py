"""Environments recorded as they are driven: what comes back is what happened, and wrong use is said."""

import errno
import gc
import os
import resource
import shutil
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import closing
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest
from gymnasium import spaces
from gymnasium.error import ResetNeeded

from forcing.datasets.checks import check_source
from forcing.datasets.description import describe
from forcing.datasets.episodes import Episode, InMemory
from forcing.datasets.joining import joined
from forcing.datasets.journal import packed, read_entries
from forcing.datasets.journal_recording import Journals
from forcing.datasets.minari_export import export_minari
from forcing.datasets.minari_writer import write_minari
from forcing.datasets.recorder import Recorder
from forcing.datasets.recording import open_recording, read_recording, recognise
from forcing.datasets.space_streams import Streams
from forcing.datasets.store import open_store, write_store
from forcing.policy.types import Array, StreamSpec, TrajectorySpec


class Arm(gymnasium.Env[Any, Any]):
    """An arm with a camera. It says what it said, in `said`, episode by episode."""

    metadata = {"render_modes": [], "render_fps": 20}  # noqa: RUF012  # as Gymnasium has it

    def __init__(self, ends_after: int = 5, *, truncates: bool = False) -> None:
        self.observation_space = spaces.Dict(
            {
                "joint.angles": spaces.Box(-3.2, 3.2, (2,), np.float32),
                "camera": spaces.Box(0, 255, (6, 8, 3), np.uint8),
                "wrist": spaces.Dict(picture=spaces.Box(0, 255, (3, 6, 8), np.uint8)),
                "achieved_goal": spaces.Box(-np.inf, np.inf, (1,), np.float64),
                "desired_goal": spaces.Box(-np.inf, np.inf, (1,), np.float64),
                "gripper": spaces.Discrete(2),
            }
        )
        self.action_space = spaces.Box(np.array([-1, -2], np.float32), np.array([1, 2], np.float32))
        self.ends_after, self.truncates = ends_after, truncates
        self.said: list[list[tuple[Any, ...]]] = []

    def _observation(self) -> dict[str, Any]:
        rng = self.np_random
        return {
            "joint.angles": rng.uniform(-3, 3, 2).astype(np.float32),
            "camera": rng.integers(0, 256, (6, 8, 3), dtype=np.uint8),
            "wrist": {"picture": rng.integers(0, 256, (3, 6, 8), dtype=np.uint8)},
            "achieved_goal": rng.standard_normal(1),
            "desired_goal": np.ones(1),
            "gripper": 1,
        }

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[dict[str, Any], dict[str, Any]]:
        super().reset(seed=seed)
        observation = self._observation()
        self.said.append([(observation,)])
        return observation, {}

    def step(self, action: Any) -> tuple[dict[str, Any], float, bool, bool, dict[str, Any]]:
        observation, reward = self._observation(), float(self.np_random.standard_normal())
        self.said[-1].append((observation, np.array(action), reward))
        over = len(self.said[-1]) > self.ends_after
        return observation, reward, over and not self.truncates, over and self.truncates, {}


def drive(env: gymnasium.Env[Any, Any], steps: int | None = None, seed: int = 0, **reset: Any) -> None:
    """One episode to its end, or so many steps of it."""
    rng = np.random.default_rng(seed)
    env.reset(seed=seed, **reset)
    for _ in range(10**6 if steps is None else steps):
        _, _, terminated, truncated, _ = env.step(rng.uniform(-1, 1, 2).astype(np.float32))
        if terminated or truncated:
            return


def assert_equal(episode: Episode, said: list[tuple[Any, ...]]) -> None:
    """To the digit, in type and value."""
    observations = [entry[0] for entry in said]
    expected: dict[str, Array] = {
        "joint_angles": np.array([seen["joint.angles"] for seen in observations]),
        "camera": np.array([seen["camera"] for seen in observations]),
        "wrist_picture": np.array([seen["wrist"]["picture"] for seen in observations]).transpose(0, 2, 3, 1),
        "achieved_goal": np.array([seen["achieved_goal"] for seen in observations]),
        "action": np.array([entry[1] for entry in said[1:]]),
        "reward": np.array([entry[2] for entry in said[1:]]),
    }
    assert set(episode.streams) == set(expected)
    for name, values in expected.items():
        assert episode.streams[name].dtype == values.dtype, name
        np.testing.assert_array_equal(episode.streams[name], values, err_msg=name)


def test_what_comes_back_is_what_happened_to_the_digit(tmp_path: Path) -> None:
    arm = Arm()
    with closing(Recorder(arm, tmp_path / "arm")) as env:
        for seed in range(3):
            drive(env, seed=seed)
    recording = open_recording(tmp_path / "arm")
    episodes = list(recording.episodes())
    assert len(episodes) == 3
    for episode, said in zip(episodes, arm.said, strict=True):
        assert_equal(episode, said)
    assert episodes[0].streams["camera"].flags.writeable


def test_spaces_become_streams_with_their_limits_and_pictures_have_their_channels_last(tmp_path: Path) -> None:
    with closing(Recorder(Arm(), tmp_path)) as env:
        drive(env)
    spec = open_recording(tmp_path).spec
    assert spec.control_hz == 20
    assert spec.goal == "achieved_goal"
    assert {stream.name: (stream.role, stream.shape, stream.image) for stream in spec.streams} == {
        "joint_angles": ("observation", (2,), False),
        "camera": ("observation", (6, 8, 3), True),
        "wrist_picture": ("observation", (6, 8, 3), True),
        "achieved_goal": ("observation", (1,), False),
        "action": ("action", (2,), False),
        "reward": ("reward", (), False),
    }
    assert (spec["action"].low, spec["action"].high) == ((-1, -2), (1, 2))
    assert spec["joint_angles"].high == pytest.approx((3.2, 3.2))
    assert spec["achieved_goal"].low is spec["camera"].low is None


def test_seeds_options_and_ends_are_in_the_provenance(tmp_path: Path) -> None:
    env = Recorder(Arm(), tmp_path, name="left arm")
    drive(env, seed=7, options={"task": 3, "start": np.array([1.5]), "map": Path("x")})
    drive(env, seed=2**70, steps=2)  # and reset before it ended
    env.env = Arm(truncates=True)
    drive(env, seed=9)
    env.reset()
    assert len(list(tmp_path.iterdir())) == 4
    env.close()
    assert len(list(tmp_path.iterdir())) == 3, "the last had no step"
    recording = open_recording(tmp_path)
    assert len(list(recording.episodes())) == 3
    provenance = recording.provenance()
    assert provenance["recorded"] == ["left arm (Arm)"]
    assert provenance["seeds"] == [7, str(2**70), 9]
    assert provenance["options"] == [{"task": 3, "start": [1.5], "map": repr(Path("x"))}, None, None]
    assert provenance["ends"] == {"cut": 1, "terminated": 1, "truncated": 1}
    assert provenance["left_out"] == {"gripper": "it is no Box"}


def test_a_recording_can_be_read_while_it_is_written_and_every_step_is_there_at_once(tmp_path: Path) -> None:
    arm = Arm(ends_after=4)
    with closing(Recorder(arm, tmp_path, flush_s=1e9)) as env:
        drive(env)
        env.reset(seed=1)
        for steps in range(1, 4):
            env.step(np.zeros(2))
            first, second = open_recording(tmp_path).episodes()
            assert_equal(first, arm.said[0])
            assert_equal(second, arm.said[1])
            assert len(second.streams["action"]) == steps


def test_a_recorder_on_the_same_folder_goes_on_with_new_episodes(tmp_path: Path) -> None:
    for expected in (0, 2):
        with closing(Recorder(Arm(), tmp_path, name=f"run {expected}")) as env:
            assert env.next_episode == expected
            drive(env, seed=expected)
            drive(env, seed=expected + 1)
    recording = open_recording(tmp_path)
    assert len(list(recording.episodes())) == 4
    assert recording.provenance()["seeds"] == [0, 1, 2, 3]
    for path in tmp_path.iterdir():
        os.utime(path, ns=(0, 0))  # copied without its times
    list(recording.episodes())
    assert recording.provenance()["seeds"] == [0, 1, 2, 3]


class Plain(gymnasium.Env[Any, Any]):
    """Numbers alone: observations in another type than the space promises, and a wrong one if told so."""

    def __init__(self, control_hz: float | None = 10, size: int = 2) -> None:
        self.metadata = {} if control_hz is None else {"render_fps": control_hz}
        self.observation_space: spaces.Space[Any] = spaces.Box(-np.inf, np.inf, (size,), np.float32)
        self.action_space: spaces.Space[Any] = spaces.Box(-1, 1, (1,))
        self.next: Any = np.zeros(size)

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        return self.next, {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        if isinstance(action, np.ndarray):
            action += 1  # as some environments scale actions in place
        return self.next, 0.0, False, False, {}


def test_numbers_are_kept_in_the_type_they_came_in_and_actions_as_they_were_given(tmp_path: Path) -> None:
    plain = Plain()
    with closing(Recorder(plain, tmp_path)) as env:
        plain.next = np.array([0.1, 0.2], np.float32)
        env.reset()
        env.step([0.5])
        plain.next = np.array([1 / 3, 2 / 3])
        env.step(np.array([0.25]))
    (episode,) = open_recording(tmp_path).episodes()
    expected = np.array([[0.1, 0.2], [0.1, 0.2], [0, 0]], np.float32).astype(np.float64)
    expected[2] = [1 / 3, 2 / 3]
    np.testing.assert_array_equal(episode.streams["observation"], expected)
    np.testing.assert_array_equal(episode.streams["action"], [[0.5], [0.25]])


def test_streams_of_ones_own_carry_units_and_the_rate(tmp_path: Path) -> None:
    spec = TrajectorySpec(
        streams=(
            StreamSpec(name="height", role="observation", shape=(1,), units="m"),
            StreamSpec(name="action", role="action", shape=(1,), units="N"),
        ),
        control_hz=500,
        goal="height",
    )
    streams = Streams(spec, lambda observation: {"height": observation[:1]})
    with closing(Recorder(Plain(), tmp_path, streams=streams)) as env:
        env.reset()
        env.step(np.zeros(1))
    recording = open_recording(tmp_path)
    assert recording.spec == spec
    assert {name: rows.shape for name, rows in next(iter(recording.episodes())).streams.items()} == {
        "height": (2, 1),
        "action": (1, 1),
    }
    with pytest.raises(ValueError, match="control_hz is part of streams"):
        Recorder(Plain(), tmp_path, streams=streams, control_hz=3)


def test_the_folder_is_a_recording_like_any_other(tmp_path: Path) -> None:
    plain = Plain()
    rng = np.random.default_rng(0)
    with closing(Recorder(plain, tmp_path / "plain")) as env:
        for _ in range(2):
            env.reset()
            for _ in range(9):
                plain.next = rng.standard_normal(2).astype(np.float32)
                env.step(rng.uniform(-1, 0, 1).astype(np.float32))
    assert recognise(tmp_path / "plain") == "journal"
    trajectories = read_recording(tmp_path / "plain")
    described = describe(InMemory(trajectories), "journal")
    assert (described.episodes, described.steps, described.control_hz) == (2, 18, 10)
    assert [finding for finding in check_source(tmp_path / "plain") if finding.severity == "error"] == []
    stored = open_store(write_store(trajectories, tmp_path / "plain.zarr"))
    exported = read_recording(export_minari(InMemory(trajectories), tmp_path / "root", "me/plain-v0"))
    for name, values in trajectories.streams.items():
        np.testing.assert_array_equal(stored.streams[name], values)
        np.testing.assert_array_equal(exported.streams[name], values)


def test_frames_go_into_a_store_bit_by_bit(tmp_path: Path) -> None:
    arm = Arm()
    with closing(Recorder(arm, tmp_path / "arm")) as env:
        drive(env)
    stored = open_store(write_store(read_recording(tmp_path / "arm"), tmp_path / "arm.zarr"))
    np.testing.assert_array_equal(stored.frames["camera"][0:6], [entry[0]["camera"] for entry in arm.said[0]])


def _folder_with_a_file(folder: Path) -> None:
    (folder / "notes.txt").write_text("mine")


def _folder_of_a_server(folder: Path) -> None:
    (folder / "ab12.0.journal").write_bytes(packed({"kind": "open", "spec": {}, "policy": "p"}))


def _folder_of_an_arm(folder: Path) -> None:
    with closing(Recorder(Arm(), folder)) as env:
        drive(env)


def _folder_of_another(folder: Path) -> None:
    with closing(Recorder(Plain(size=3), folder)) as env:
        env.reset()
        env.step(np.zeros(1))


@pytest.mark.parametrize(
    ("prepare", "message"),
    [
        (_folder_with_a_file, "holds notes.txt, which no recorder wrote; name another folder"),
        (_folder_of_a_server, "holds journals of a server; name another folder"),
        (_folder_of_an_arm, "holds a recording of Arm, not Plain; name another folder"),
        (_folder_of_another, "holds a recording of Plain with other streams or another control_hz; name another"),
    ],
)
def test_a_folder_that_holds_something_else_is_refused_and_left_as_it_is(
    tmp_path: Path, prepare: Any, message: str
) -> None:
    prepare(tmp_path)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    for _ in range(2):  # the lock is dropped again
        with pytest.raises(ValueError, match=message):
            Recorder(Plain(), tmp_path)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


@pytest.mark.parametrize("place", ["a file", "below a file", "nowhere"])
def test_a_folder_that_cannot_be_written_is_said_at_once(tmp_path: Path, place: str) -> None:
    (tmp_path / "file").write_text("")
    places = {"a file": tmp_path / "file", "below a file": tmp_path / "file" / "x", "nowhere": Path("/proc/recording")}
    with pytest.raises(OSError, match=f"{places[place]} cannot be recorded to: .*; name another folder"):
        Recorder(Plain(), places[place])


def test_two_recorders_cannot_have_one_folder_until_the_first_is_closed_or_gone(tmp_path: Path) -> None:
    first = Recorder(Plain(), tmp_path)
    with pytest.raises(OSError, match="is recorded to by another recorder; close that, or name another folder"):
        Recorder(Plain(), tmp_path)
    first.close()
    second = Recorder(Plain(), tmp_path)
    del second
    gc.collect()
    Recorder(Plain(), tmp_path).close()


def test_steps_without_an_episode_and_after_its_end_are_refused(tmp_path: Path) -> None:
    env = Recorder(Arm(ends_after=1), tmp_path)
    with pytest.raises(ResetNeeded, match="no episode has begun: call reset before step"):
        env.step(np.zeros(2))
    drive(env)
    with pytest.raises(ResetNeeded, match="the episode has ended: call reset before step"):
        env.step(np.zeros(2))
    env.close()
    env.close()
    with pytest.raises(ResetNeeded, match="the Recorder was closed"):
        env.step(np.zeros(2))
    with pytest.raises(ValueError, match="recording was closed; make another recorder"):
        env.reset()
    assert len(list(open_recording(tmp_path).episodes())) == 1


@pytest.mark.parametrize(
    ("env", "options", "message"),
    [
        (Plain(control_hz=None), {}, "control_hz must be given, steps a second"),
        (Plain(), {"control_hz": 0.0}, "control_hz must be positive, got 0"),
        (Plain(), {"flush_s": -1.0}, "flush_s must be at least 0, got -1"),
        (gymnasium.make("CartPole-v1"), {}, "the action space must be a Box, got Discrete"),
    ],
)
def test_what_cannot_be_recorded_is_said_before_anything_is_made(
    tmp_path: Path, env: gymnasium.Env[Any, Any], options: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        Recorder(env, tmp_path / "new", **options)
    assert not (tmp_path / "new").exists()


def test_spaces_that_make_no_stream_are_refused(tmp_path: Path) -> None:
    env = Plain()
    env.observation_space = spaces.Discrete(3)
    with pytest.raises(ValueError, match="the observation space must be a Box, or hold one"):
        Recorder(env, tmp_path)


def test_what_is_recorded_has_the_streams_that_minari_has_of_the_same_environment(tmp_path: Path) -> None:
    env, box = Plain(), spaces.Box(-1, 1, (1,))
    env.observation_space = spaces.Dict(
        {
            "2nd": box,
            "a-b": box,
            "a.b": box,
            "action": box,
            "desired_goal": spaces.Dict(kettle=box),
            "first": spaces.Box(0, 255, (3, 6, 8), np.uint8),
            "grey": spaces.Box(0, 255, (40, 36), np.uint8),
            "(place)": spaces.Dict({"arm/hand": spaces.Box(-2, np.inf, (2, 2))}),
        }
    )
    seen = [env.observation_space.sample() for _ in range(3)]
    with closing(Recorder(env, tmp_path / "recorded", control_hz=20)) as recorder:
        for step, env.next in enumerate(seen):
            recorder.step(np.zeros(1)) if step else recorder.reset()
    recorded = read_recording(tmp_path / "recorded")
    episode = {
        "observations": _stacked(seen),
        "actions": np.zeros((2, 1), np.float32),
        "rewards": recorded.streams["reward"],
        "terminations": np.zeros(2, bool),
        "truncations": np.arange(2) == 1,
    }
    folder = write_minari(
        tmp_path,
        "plain-v0",
        [episode],
        description="plain",
        observation_space=env.observation_space,
        action_space=env.action_space,
        control_hz=20,
    )
    read = read_recording(folder)
    assert [stream.name for stream in read.spec.streams] == [
        "place_arm_hand",
        "_2nd",
        "a_b",
        "a_b_2",
        "action_2",
        "first",
        "grey",
        "action",
        "reward",
    ]
    assert (read.spec["first"].shape, read.spec["grey"].shape) == ((6, 8, 3), (40, 36, 1))
    assert recorded.spec == read.spec
    both = joined([recorded, read])
    for stream in both.spec.streams:
        first, second = both.episode(0)[stream.name], both.episode(1)[stream.name]
        assert np.array_equal(first, second), stream.name


def _stacked(observations: list[Any]) -> Any:
    """Arrays of all steps in the place of each step's."""
    if isinstance(observations[0], Mapping):
        return {key: _stacked([each[key] for each in observations]) for key in observations[0]}
    return np.stack(observations)


def test_what_is_not_as_its_space_promises_is_said_and_ends_the_episode_before_it(tmp_path: Path) -> None:
    plain = Plain()
    with closing(Recorder(plain, tmp_path)) as env:
        env.reset()
        env.step(np.zeros(1))
        for wrong, message in ((np.zeros((1, 1)), "shape"), (np.array(["a"]), "must be an array of numbers")):
            with pytest.raises(ValueError, match=f"action.*{message}"):
                env.step(wrong)
        env.step(np.zeros(1))  # nothing had happened
        plain.next = np.zeros(3)
        with pytest.raises(ValueError, match=r"must have the shape of its space, \(2,\), got \(3,\)"):
            env.step(np.zeros(1))
        with pytest.raises(ResetNeeded, match="ended where a step could not be kept"):
            env.step(np.zeros(1))
    assert [len(episode.streams["action"]) for episode in open_recording(tmp_path).episodes()] == [2]


def test_an_episode_ends_before_a_step_that_the_environment_broke_off(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(action: Any) -> Any:
        raise KeyboardInterrupt

    plain = Plain()
    with closing(Recorder(plain, tmp_path)) as env:
        env.reset()
        env.step(np.zeros(1))
        with monkeypatch.context() as patch:
            patch.setattr(plain, "step", interrupted)
            with pytest.raises(KeyboardInterrupt):
                env.step(np.zeros(1))
        with pytest.raises(ResetNeeded, match="ended where a step could not be kept"):
            env.step(np.zeros(1))
        env.reset()
        env.step(np.zeros(1))
    assert [len(episode.streams["action"]) for episode in open_recording(tmp_path).episodes()] == [1, 1]


def test_an_environment_of_gymnasiums_own_is_recorded_as_it_goes_without_a_recorder(tmp_path: Path) -> None:
    bare, expected = gymnasium.make("Pendulum-v1", max_episode_steps=20), []
    bare.reset(seed=5)
    for step in range(20):
        expected.append(bare.step(np.array([np.sin(step)], np.float32)))
    with closing(Recorder(gymnasium.make("Pendulum-v1", max_episode_steps=20), tmp_path)) as env:
        env.reset(seed=5)
        for step in range(20):
            env.step(np.array([np.sin(step)], np.float32))
    recording = open_recording(tmp_path)
    (episode,) = recording.episodes()
    np.testing.assert_array_equal(episode.streams["observation"][1:], [step[0] for step in expected])
    np.testing.assert_array_equal(episode.streams["reward"], [step[1] for step in expected])
    assert recording.spec.control_hz == bare.metadata["render_fps"]
    assert recording.provenance()["recorded"] == ["Pendulum-v1 (Pendulum-v1)"]
    assert recording.provenance()["ends"] == {"truncated": 1}


def _fill(env: Recorder) -> OSError:
    """Drives until the disk is full."""
    try:
        for seed in range(10**6):
            drive(env, seed=seed)
    except OSError as stopped:
        return stopped
    raise AssertionError("the disk was never full")


def _assert_all_but_one_step(folder: Path, arm: Arm) -> None:
    """Every finished episode is there, and the last one up to before the step that failed, with nothing half written.

    That step, or the whole episode if already its reset failed, or has no step, is not.
    """
    recording = open_recording(folder)
    found = list(recording.episodes())
    lengths = [len(said) - 1 for said in arm.said]
    lengths[-1] = max(lengths[-1] - 1, 0)
    expected = [length for length in lengths if length]
    assert [len(episode.streams["action"]) for episode in found] == expected
    for episode, said, length in zip(found, arm.said, expected, strict=False):
        assert_equal(episode, said[: length + 1])
    assert "torn" not in recording.provenance()


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """Of two megabytes."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = shutil.which("mount")
    options = ["-t", "tmpfs", "-o", "size=2m", "tmpfs", str(disk)]
    if mount is None or subprocess.run([mount, *options], capture_output=True).returncode != 0:
        pytest.skip("a small disk can be mounted by root alone")
    try:
        yield disk
    finally:
        subprocess.run(["umount", str(disk)], check=True)


def test_a_full_disk_is_said_loses_nothing_that_was_there_and_can_be_gone_on_with(small_disk: Path) -> None:
    arm, folder = Arm(ends_after=50), small_disk / "arm"
    with closing(Recorder(arm, folder)) as env:
        (small_disk / "other").write_bytes(bytes(500_000))
        stopped = _fill(env)
        assert stopped.errno == errno.ENOSPC
        assert f"recording to {folder} stopped: No space left on device; all before is kept" in str(stopped)
        with pytest.raises(ResetNeeded, match="ended where a step could not be kept"):
            env.step(np.zeros(2))
        _assert_all_but_one_step(folder, arm)
        (small_disk / "other").unlink()
        before = len(list(open_recording(folder).episodes()))
        drive(env)
    last = list(open_recording(folder).episodes())[before:]
    assert_equal(last[0], arm.said[-1])


def test_a_file_that_may_not_grow_ends_its_episode_before_the_step_that_failed(tmp_path: Path) -> None:
    arm, before = Arm(ends_after=1000), resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, before[1]))
    try:
        with closing(Recorder(arm, tmp_path / "arm")) as env:
            drive(env, steps=20)
            stopped = _fill(env)
            assert (stopped.errno, str(tmp_path / "arm") in str(stopped)) == (errno.EFBIG, True)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    _assert_all_but_one_step(tmp_path / "arm", arm)


def test_a_disk_that_fails_at_the_end_is_said_by_close_and_the_folder_is_let_go(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    env = Recorder(Plain(), tmp_path)
    env.reset()
    env.step(np.zeros(1))

    def broken(descriptor: int) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", broken)
        with pytest.raises(OSError, match=f"recording to {tmp_path} stopped: Input/output"):
            env.close()
    Recorder(Plain(), tmp_path).close()


def test_a_torn_tail_costs_its_step_alone_and_is_counted(tmp_path: Path) -> None:
    arm = Arm()
    with closing(Recorder(arm, tmp_path)) as env:
        drive(env, seed=0)
        drive(env, seed=1)
    first, second = sorted(tmp_path.iterdir())
    second.write_bytes(second.read_bytes()[:-3])
    recording = open_recording(tmp_path)
    whole, cut = recording.episodes()
    assert_equal(whole, arm.said[0])
    assert_equal(cut, arm.said[1][:-1])
    lost = second.stat().st_size - read_entries(second).size
    assert recording.provenance()["torn"] == {"files": 1, "bytes": lost, "first": {second.name: lost}}
    assert recording.provenance()["ends"] == {"cut": 1, "terminated": 1}
    damaged = bytearray(first.read_bytes())
    damaged[len(damaged) // 2] ^= 1  # costs the rest of its own episode, and no other
    first.write_bytes(bytes(damaged))
    damaged_one, cut_one = open_recording(tmp_path).episodes()
    assert_equal(damaged_one, arm.said[0][: len(damaged_one.streams["action"]) + 1])
    assert_equal(cut_one, arm.said[1][:-1])


def test_a_journal_cut_anywhere_is_read_up_to_its_last_whole_step(tmp_path: Path) -> None:
    arm = Arm()
    with closing(Recorder(arm, tmp_path)) as env:
        drive(env)
    (path,) = tmp_path.iterdir()
    data, ends = path.read_bytes(), [0]
    for entry in read_entries(path).entries:
        ends.append(ends[-1] + len(packed(entry)))
    assert ends[-1] == len(data)
    for size in {*range(0, len(data), 97), *ends, len(data) // 2}:
        path.write_bytes(data[:size])
        steps = sum(end <= size for end in ends) - 3  # what it begins with, and the reset
        if steps < 1:
            with pytest.raises(ValueError, match="holds no episode"):
                list(Journals(tmp_path).episodes())
        else:
            (episode,) = Journals(tmp_path).episodes()
            assert_equal(episode, arm.said[0][: steps + 1])


def test_journals_of_two_environments_in_one_folder_are_refused(tmp_path: Path) -> None:
    for size in (2, 3):
        with closing(Recorder(Plain(size=size), tmp_path / str(size))) as env:
            env.reset()
            env.step(np.zeros(1))
    (journal,) = (tmp_path / "3").iterdir()
    journal.rename(tmp_path / "2" / "Plain.000001.journal")
    with pytest.raises(ValueError, match=r"Plain\.000001\.journal: is of another robot than those before it"):
        open_recording(tmp_path / "2")


def test_many_short_episodes_need_few_open_files(tmp_path: Path) -> None:
    plain = Plain()
    with closing(Recorder(plain, tmp_path, flush_s=1e9)) as env:
        before = len(list(Path("/dev/fd").iterdir()))
        most = 0
        for _ in range(350):
            env.reset()
            env.step(np.zeros(1))
            most = max(most, len(list(Path("/dev/fd").iterdir())) - before)
    assert most <= 100
    assert len(list(open_recording(tmp_path).episodes())) == 350
