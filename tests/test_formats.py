"""Every format that is read, through the commands as a user types them, up to an action from a server; and what a store
is after it went through another format."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from forcing.datasets.recording import read_recording
from forcing.datasets.store import open_store
from forcing.policy.policy import load_policy
from forcing.policy.types import Trajectories
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
    same(stored, read_recording(source, control_hz=stored.spec.control_hz))

    trained = forcing("train --data arm.zarr --steps 3 --out runs/arm")
    assert trained.code == 0, trained.err
    assert "inferred from the recording" in trained.out
    observed = stored.episode(0)
    action = stored.spec.action
    with serving([load_policy("runs/arm")]) as url, Client(url) as client:
        streams = {stream["name"]: stream for stream in client.policy("arm")["streams"]}
        seen = {
            stream_name: observed[stream_name][0]
            for stream_name, stream in streams.items()
            if stream["role"] == "observation"
        }
        assert set(seen) == {stream.name for stream in stored.spec.of_role("observation")}
        for image in (stream for stream in stored.spec.streams if stream.image):
            assert (seen[image.name].dtype, seen[image.name].shape) == (np.uint8, image.shape)
        goal = None if stored.spec.goal is None else observed[stored.spec.goal][-1]
        with client.open("arm", goal=goal) as session:
            reply = session.act(seen)
    assert reply.action.shape == (action.size,)
    assert np.isfinite(reply.action).all()
    if action.low is not None and action.high is not None:
        assert (reply.action >= action.low).all()
        assert (reply.action <= action.high).all()


@pytest.mark.parametrize("kind", ["minari", "lerobot"])
def test_a_store_comes_back_from_another_format_as_it_was(
    recordings: Mapping[str, Any], forcing: Command, tmp_path: Path, kind: str
) -> None:
    """To the digit and the pixel, with limits, units, goal and rates, with tasks and subsets."""
    source, out = recordings["store"].path, tmp_path / "out"
    exported = forcing(f"data {kind}", source, "--out", out, "--dataset-id lab/arm-v0" if kind == "minari" else "")
    assert (exported.code, exported.err) == (0, "")
    back = forcing("data convert", out, "--out", tmp_path / "back.zarr")
    assert (back.code, back.err) == (0, ""), back.out
    before, after = open_store(source), open_store(tmp_path / "back.zarr")
    same(after, before)
    assert after.spec == before.spec
    assert after.notes == before.notes


def same(one: Trajectories, other: Trajectories) -> None:
    """Numbers and frames of every episode, in type and value."""
    assert {stream.name for stream in one.spec.streams} == {stream.name for stream in other.spec.streams}
    assert one.lengths.tolist() == other.lengths.tolist()
    for index in range(len(one.lengths)):
        mine, theirs = one.episode(index), other.episode(index)
        for name, values in theirs.items():
            assert mine[name].dtype == values.dtype, name
            assert np.array_equal(mine[name], values), f"{name} of episode {index}"
