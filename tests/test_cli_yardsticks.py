"""Dreams and yardsticks on the command line: `data dream`, `clone`, and `eval` with --policy mpc and with a clone."""

import json
import os
import signal
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from tests.command_line import call

from forcing.datasets import dream as dream_module
from forcing.datasets.store import open_store, write_store
from forcing.eval.rollout import DriverSpec, Episode, rollout
from forcing.eval.tasks import find_task
from forcing.policy.clone import load_clone
from forcing.policy.types import StreamSpec, Trajectories, TrajectorySpec


def cart() -> Trajectories:
    """x' = x + v / 10, v' = v + u / 10, under pushes that are held for 5 steps."""
    rng = np.random.default_rng(0)
    push = np.repeat(rng.uniform(-1, 1, (40, 12, 1)), 5, axis=1)
    speed = np.concatenate([np.zeros((40, 1, 1)), np.cumsum(push / 10, axis=1)], axis=1)
    start = rng.uniform(-1, 1, (40, 1, 1))
    place = np.concatenate([start, start + np.cumsum(speed[:, :-1] / 10, axis=1)], axis=1)
    spec = TrajectorySpec(
        streams=(
            StreamSpec(name="place", role="observation", shape=(1,)),
            StreamSpec(name="speed", role="observation", shape=(1,), rate_of="place"),
            StreamSpec(name="push", role="action", shape=(1,), low=(-1.0,), high=(1.0,)),
        ),
        control_hz=10.0,
        goal="place",
    )
    streams = {"place": place.reshape(-1, 1), "speed": speed.reshape(-1, 1), "push": push.reshape(-1, 1)}
    return Trajectories(spec=spec, streams=streams, lengths=np.full(40, 60), provenance={"source": "cart"})


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store of a cart, one without its speed, and a maze recording."""
    folder = tmp_path_factory.mktemp("yardsticks")
    write_store(cart(), folder / "cart.zarr")
    hidden = replace(cart().spec, streams=tuple(s for s in cart().spec.streams if s.name != "speed"))
    write_store(replace(cart(), spec=hidden), folder / "hidden.zarr")
    code, _, err = call(f"generate maze2d-umaze --out {folder} --steps 6000 --workers 1")
    assert code == 0, err
    return folder


@pytest.fixture(autouse=True)
def _here(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)


MAZE = "forcing/maze2d-umaze-v0"


def test_a_dream_is_a_store_like_any_other(folder: Path) -> None:
    code, out, _ = call("data dream cart.zarr --out dreamed.zarr --steps 3000")
    assert code == 0
    dreamed = open_store(folder / "dreamed.zarr")
    steps = int(dreamed.lengths.sum())
    assert steps >= 3000
    assert f"dreamed.zarr: {steps} steps, {len(dreamed.lengths)} episodes" in out
    assert call("data check dreamed.zarr")[0] == 0


@pytest.mark.parametrize(
    ("line", "code", "message"),
    [
        ("data dream hidden.zarr --out no.zarr", 1, "the fitted dynamics predict badly: 30 steps ahead"),
        ("data dream nothing.zarr --out no.zarr", 1, "nothing.zarr: found nothing"),
        ("data dream cart.zarr --out no.zarr --steps 0", 2, "steps must be at least 1, got 0"),
        ("data dream cart.zarr --out no.zarr --seed -1", 2, "seed must be at least 0, got -1"),
        ("clone --data nothing.zarr --out no", 1, "nothing.zarr: found nothing"),
        ("clone --data cart.zarr --out no --steps 0", 2, "the training budget must be positive, got 0"),
        ("clone --data cart.zarr --out no --steps 5 --minutes 1", 2, "exactly one of steps and minutes"),
        ("eval maze2d-umaze-multi --policy mpc", 2, "policy mpc finds its dynamics and places in a recording"),
        ("eval maze2d-umaze-multi --data cart.zarr", 2, "leave out --data with any other"),
        ("eval maze2d-umaze-multi --policy mpc --data cart.zarr --url http://127.0.0.1:1", 2, "leave out --data"),
        ("eval maze2d-umaze-multi --policy mpc --data hidden.zarr", 1, "the fitted dynamics predict badly"),
        ("eval maze2d-umaze-multi --policy mpc --data cart.zarr --workers 1", 1, "give a recording of this task"),
    ],
)
def test_what_cannot_be_done_is_one_line_and_leaves_nothing_behind(
    folder: Path, line: str, code: int, message: str
) -> None:
    found, _, err = call(line)
    said = [part for part in err.splitlines() if part.startswith("forcing: ")]
    assert (found, len(said)) == (code, 1), err
    assert message in said[0]
    assert "Traceback" not in err
    assert [path.name for path in folder.iterdir() if path.name.lstrip(".").startswith("no")] == []


def test_ctrl_c_in_a_dream_keeps_the_store_that_was_there(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_store(cart(), folder / "kept.zarr")
    before = {path.name for path in folder.iterdir()}
    stepped, taken = dream_module._Dreamer.step, 0

    def pressed(dreamer: dream_module._Dreamer) -> object:
        nonlocal taken
        taken += 1
        if taken == 20:
            os.kill(os.getpid(), signal.SIGINT)
        return stepped(dreamer)

    monkeypatch.setattr(dream_module._Dreamer, "step", pressed)
    default = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        code, _, err = call("data dream cart.zarr --out kept.zarr --steps 1000000")
    finally:
        signal.signal(signal.SIGINT, default)
    assert code == 1
    assert err.strip().splitlines()[-1] == "forcing: stopped"
    assert {path.name for path in folder.iterdir()} == before
    assert open_store(folder / "kept.zarr").provenance["source"] == "cart"


def test_a_clone_is_trained_and_scored_like_a_policy(folder: Path) -> None:
    code, out, _ = call(f"clone --data {MAZE} --out clones/mine --steps 20")
    assert code == 0
    assert "forcing eval TASK --policy clones/mine" in out
    code, out, _ = call(
        "eval maze2d-umaze-multi --policy clones/mine --episodes 1 --seed 7 --workers 1 --report r.json"
    )
    assert code == 0
    assert [name for name in ("clones/mine", "straight") if name not in out] == []
    report = json.loads((folder / "r.json").read_text())
    assert report["revision"] == load_clone("clones/mine").revision
    code, _, err = call("eval maze2d-umaze-multi --policy clones/mine --set tracker.kind=pd")
    assert (code, "set changes a policy" in err) == (2, True)


@pytest.fixture(scope="module")
def driven(folder: Path) -> list[Episode]:
    """Two episodes of mpc, one after the other in this process."""
    task = find_task("maze2d-umaze-multi")
    return list(rollout(task, DriverSpec(policy="mpc", data=str(folder / MAZE)), episodes=2, seed=11, workers=1))


def test_mpc_on_visited_places_is_faster_than_the_expert_that_visited_them(driven: list[Episode]) -> None:
    task = find_task("maze2d-umaze-multi")
    expert = list(rollout(task, DriverSpec(policy="expert"), episodes=2, seed=11, workers=1))
    assert all(episode.success for episode in driven)
    assert sum(episode.episode_return for episode in driven) > sum(episode.episode_return for episode in expert)


def test_an_episode_of_mpc_depends_on_its_seed_alone(folder: Path, driven: list[Episode]) -> None:
    task = find_task("maze2d-umaze-multi")
    spec = DriverSpec(policy="mpc", data=str(folder / MAZE))
    (second,) = rollout(task, spec, episodes=1, seed=12, workers=1)
    np.testing.assert_array_equal(second.positions, driven[1].positions)


def test_a_wrong_value_of_an_option_is_refused_with_the_nearest() -> None:
    code, _, err = call("eval swap-cameras --handling declraed")
    assert (code, err) == (
        2,
        "forcing: handling must be one of trusted, declared, detected, got 'declraed'; did you mean 'declared'?\n",
    )
