"""Every format that is read, through the commands as a user types them, up to an action from a server; and what a store
is after it went through another format."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from forcing.datasets.store import open_store, write_store
from forcing.policy.policy import load_policy
from forcing.policy.types import EpisodeNote, StreamSpec, Trajectories, TrajectorySpec
from forcing.server.client import Client
from forcing.server.serve import serving

FORMATS = {
    # format: what `forcing data info` calls it, episodes and steps
    "minari-hdf5": ("minari", 4, 160),
    "minari-arrow": ("minari", 4, 160),
    "d4rl": ("d4rl", 4, 480),
    "lerobot-v3-image": ("lerobot", 5, 195),
    "lerobot-v3-video": ("lerobot", 5, 186),
    "lerobot-v21-image": ("lerobot", 3, 25),
    "lerobot-v21-video": ("lerobot", 3, 25),
    "robomimic": ("robomimic", 4, 160),
    "replay-buffer": ("replay buffer", 4, 160),
    "replay-buffer-zip": ("replay buffer", 4, 160),
    "recorder": ("journal", 4, 160),
    "store": ("store", 4, 160),
}
Command = Callable[..., Any]


@pytest.mark.parametrize("kind", FORMATS)
def test_a_recording_of_any_format_becomes_a_policy_that_acts(
    recordings: Mapping[str, Any], forcing: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    monkeypatch.chdir(tmp_path)
    source, options = recordings[kind].path, recordings[kind].options
    name, episodes, steps = FORMATS[kind]
    shown = forcing("data info", source, options)
    assert (shown.code, shown.err) == (0, "")
    checked = forcing("data check", source, options)
    assert (checked.code, checked.err) == (0, ""), checked.out
    assert f"{source}: 0 errors" in checked.out
    converted = forcing("data convert", source, "--out arm.zarr", options)
    assert (converted.code, converted.err) == (0, ""), converted.out
    stored = open_store("arm.zarr")
    assert (len(stored.lengths), int(stored.lengths.sum())) == (episodes, steps)
    for word in (name, *(stream.name for stream in stored.spec.streams)):
        assert word in shown.out, f"info says {word}"
    first = stored.episode(0)
    for stream, values in recordings[kind].first.items():
        assert first[stream].dtype == values.dtype, stream
        assert np.array_equal(first[stream], values), stream

    trained = forcing("train --data arm.zarr --steps 3 --out runs/arm")
    assert trained.code == 0, trained.err
    assert "inferred from the recording" in trained.out
    action = stored.spec.action
    with serving([load_policy("runs/arm")]) as url, Client(url) as client:
        streams = {stream["name"]: stream for stream in client.policy("arm")["streams"]}
        seen = {
            stream_name: first[stream_name][0]
            for stream_name, stream in streams.items()
            if stream["role"] == "observation"
        }
        assert set(seen) == {stream.name for stream in stored.spec.of_role("observation")}
        for image in (stream for stream in stored.spec.streams if stream.image):
            assert (seen[image.name].dtype, seen[image.name].shape) == (np.uint8, image.shape)
        goal = None if stored.spec.goal is None else first[stored.spec.goal][-1]
        with client.open("arm", goal=goal) as session:
            reply = session.act(seen)
    assert reply.action.shape == (action.size,)
    assert np.isfinite(reply.action).all()
    if action.low is not None and action.high is not None:
        assert (reply.action >= action.low).all()
        assert (reply.action <= action.high).all()


EXPORTS = {"minari": "--dataset-id lab/arm-v0", "lerobot": ""}


@pytest.mark.parametrize("kind", EXPORTS)
@pytest.mark.parametrize("arm", [False, True])
def test_a_store_comes_back_from_another_format_as_it_was(
    recordings: Mapping[str, Any], forcing: Command, tmp_path: Path, kind: str, arm: bool
) -> None:
    """To the digit and the pixel, with limits, units, goal and rates, with tasks and subsets."""
    source = write_store(every_type(), tmp_path / "every.zarr") if arm else recordings["store"].path
    exported = forcing(f"data {kind}", source, "--out", tmp_path / "out", EXPORTS[kind])
    assert (exported.code, exported.err) == (0, "")
    back = forcing("data convert", tmp_path / "out", "--out", tmp_path / "back.zarr")
    assert (back.code, back.err) == (0, ""), back.out
    before, after = open_store(source), open_store(tmp_path / "back.zarr")
    same(after, before)
    assert after.spec == before.spec
    assert after.notes == before.notes


def every_type() -> Trajectories:
    """Streams of every type and shape that a store may have, with a limit on one side, at a rate that is no whole
    number, without rewards."""
    rng, lengths = np.random.default_rng(0), (5, 1, 9)
    rows = sum(lengths) + len(lengths)
    spec = TrajectorySpec(
        streams=(
            StreamSpec(name="wrist", role="observation", shape=(16, 20, 1)),
            StreamSpec(name="pose", role="observation", shape=(7,), units="rad", high=tuple(range(3, 10))),
            StreamSpec(name="speed", role="observation", shape=(7,), units="rad/s", rate_of="pose"),
            StreamSpec(name="count", role="observation", shape=(2, 3)),
            StreamSpec(name="contact", role="observation", shape=()),
            StreamSpec(name="ticks", role="observation", shape=(1,)),
            StreamSpec(name="top", role="observation", shape=(20, 30, 3)),
            StreamSpec(name="torque", role="action", shape=(2,), units="Nm", low=(-0.1, -7.3), high=(0.1, 7.3)),
        ),
        control_hz=33.3,
        goal="pose",
    )
    speed = [rng.uniform(-1, 1, (length + 1, 7)) for length in lengths]
    pose = [each.cumsum(axis=0) / 33.3 for each in speed]
    return Trajectories(
        spec=spec,
        streams={
            "pose": np.concatenate(pose).astype(np.float32),
            "speed": np.concatenate(speed).astype(np.float32),
            "count": rng.integers(-(2**60), 2**60, (rows, 2, 3)),
            "contact": rng.random(rows) > 0.5,
            "ticks": rng.integers(0, 60_000, (rows, 1), np.uint16),
            "torque": rng.uniform(-0.1, 0.1, (sum(lengths), 2)).astype(np.float32),
        },
        frames={
            "wrist": rng.integers(0, 256, (rows, 16, 20, 1), np.uint8),
            "top": rng.integers(0, 256, (rows, 20, 30, 3), np.uint8),
        },
        lengths=np.array(lengths),
        notes=tuple(EpisodeNote(task=f'täsk {i % 2}; "x"', subsets=("train",) if i else ()) for i in range(3)),
    )


def same(one: Trajectories, other: Trajectories) -> None:
    """Numbers and frames of every episode, in type and value."""
    assert {stream.name for stream in one.spec.streams} == {stream.name for stream in other.spec.streams}
    assert one.lengths.tolist() == other.lengths.tolist()
    for index in range(len(one.lengths)):
        mine, theirs = one.episode(index), other.episode(index)
        for name, values in theirs.items():
            assert mine[name].dtype == values.dtype, name
            assert np.array_equal(mine[name], values), f"{name} of episode {index}"
