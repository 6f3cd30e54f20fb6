"""`forcing train` on recordings that nobody has tuned for, with a camera and without, up to an action from a server."""

import shutil
import signal
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path

import gymnasium
import numpy as np
import pytest
import torch
from numpy.typing import ArrayLike, NDArray
from tests.command_line import call

from forcing.datasets.episodes import InMemory
from forcing.datasets.minari_export import export_minari
from forcing.datasets.minari_writer import write_minari
from forcing.datasets.store import open_store, write_store
from forcing.datasets.windows import TrajectoryWindows
from forcing.policy.checkpoint import load_policy_file, load_training_state
from forcing.policy.policy import load_policy
from forcing.policy.preset import PRESETS
from forcing.policy.tokens import Normaliser
from forcing.policy.training import Budget, Trainer, train
from forcing.policy.types import Array, StreamSpec, Trajectories, TrajectorySpec
from forcing.server.client import Client
from forcing.server.serve import serving

SIDE, STEPS, EPISODES = 48, 40, 12


def _frame(dot: ArrayLike) -> NDArray[np.uint8]:
    """A red dot in the dark, at [x, y] within -1 and 1."""
    frame = np.full((SIDE, SIDE, 3), 30, dtype=np.uint8)
    row, column = np.mgrid[:SIDE, :SIDE]
    centre = (np.asarray(dot) + 1) / 2 * (SIDE - 13) + 6
    frame[np.square(column - centre[0]) + np.square(row - centre[1]) < 25] = (230, 60, 40)
    return frame


def _episode(rng: np.random.Generator) -> dict[str, Array]:
    """A hand that goes to the dot, which the camera alone sees."""
    hand, dot = rng.uniform(-1, 1, (2, 2))
    hands, actions = [hand], []
    for _ in range(STEPS):
        actions.append(np.clip(2 * (dot - hands[-1]) + rng.normal(0, 0.1, 2), -1, 1))
        hands.append(hands[-1] + 0.1 * actions[-1])
    frames = np.repeat(_frame(dot)[None], STEPS + 1, axis=0)
    return {
        "hand": np.array(hands, dtype=np.float32),
        "front": frames,
        "action": np.array(actions, dtype=np.float32),
    }


@pytest.fixture(scope="module")
def dots() -> Trajectories:
    rng = np.random.default_rng(0)
    episodes = [_episode(rng) for _ in range(EPISODES)]
    rows = {name: np.concatenate([episode[name] for episode in episodes]) for name in episodes[0]}
    spec = TrajectorySpec(
        streams=(
            StreamSpec(name="hand", role="observation", shape=(2,), units="m"),
            StreamSpec(name="front", role="observation", shape=(SIDE, SIDE, 3)),
            StreamSpec(name="action", role="action", shape=(2,), low=(-1.0, -1.0), high=(1.0, 1.0)),
        ),
        control_hz=10.0,
    )
    frames = {"front": rows.pop("front")}
    return Trajectories(spec=spec, streams=rows, frames=frames, lengths=np.full(EPISODES, STEPS))


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, dots: Trajectories) -> Path:
    """A folder with a recording of dots, in which commands run."""
    monkeypatch.chdir(tmp_path)
    write_store(dots, tmp_path / "dots.zarr")
    return tmp_path


def test_a_recording_with_a_camera_becomes_a_policy_that_acts_on_what_it_sees(here: Path) -> None:
    code, out, err = call("train --data dots.zarr --steps 3 --out runs/dots --set layout.horizon=3")
    assert (code, [line for line in err.splitlines() if line.startswith("forcing:")]) == (0, []), err
    assert "layout.token_steps = 4: 0.4 s a token at 10 Hz" in out
    assert "layout.horizon = 3, as --set says (inferred: 5)" in out
    # One picture an episode: what 12 of them differ by is 11 numbers.
    assert "camera 'front': 11 numbers a frame hold 100% of what varies in it" in out
    assert "plans will not be rehearsed: what the camera 'front' shows follows no linear dynamics" in out
    assert not (here / "runs/dots/data.zarr").exists()
    file = load_policy_file(here / "runs/dots/policy.safetensors")
    assert file.card["cameras"] == {"front": {"latents": 11, "explained": 1.0}}
    assert file.card["command"] == (
        "forcing train generic --data dots.zarr --out runs/dots --steps 3 --seed 0 --set layout.horizon=3"
    )
    assert (file.preset.layout.horizon, file.spec["front"].shape) == (3, (SIDE, SIDE, 3))
    with serving([load_policy("runs/dots")]) as url, Client(url) as client, client.open("dots") as session:
        replies = [session.act({"hand": [0.0, 0.0], "front": _frame(dot)}) for dot in ((-0.9, 0.9), (0.9, -0.9))]
        chunks = [
            client.act_once("dots", [{"hand": [0.0, 0.0], "front": _frame(dot)}])
            for dot in ((-0.9, 0.9), (-0.9, 0.9), (0.9, -0.9))
        ]
    assert np.isfinite([reply.action for reply in replies]).all()
    np.testing.assert_array_equal(chunks[0], chunks[1])
    assert not np.array_equal(chunks[0], chunks[2])


def test_training_on_a_camera_goes_on_and_ends_as_if_it_had_not_stopped(here: Path) -> None:
    assert call("train --data dots.zarr --steps 6 --out whole")[0] == 0
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("forcing.progress.stop_requests", lambda: nullcontext([signal.SIGINT]))
        assert call("train --data dots.zarr --steps 6 --out parts")[0] == 1
    assert load_training_state(here / "parts/resume.safetensors").facts["step"] == 1
    assert call("train --data dots.zarr --steps 6 --out parts --resume")[0] == 0
    whole, parts = (load_policy_file(here / out / "policy.safetensors") for out in ("whole", "parts"))
    assert (parts.card["steps"], parts.revision) == (6, whole.revision)


def test_keypoints_are_learnt_first_and_kept_by_a_run_that_goes_on(here: Path) -> None:
    line = "train --data dots.zarr --steps 4 --set vision.kind=keypoints --set vision.steps=3 --out"
    code, out, err = call(f"{line} whole")
    assert code == 0, err
    assert "camera 'front': 32 numbers a frame hold" in out
    assert "learning to see" in err
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("forcing.progress.stop_requests", lambda: nullcontext([signal.SIGINT]))
        assert call(f"{line} parts")[0] == 1
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("forcing.policy.cameras.fit_codecs", lambda *_, **__: pytest.fail("fitted again"))
        assert call(f"{line} parts --resume")[0] == 0
    whole, parts = (load_policy_file(here / out / "policy.safetensors") for out in ("whole", "parts"))
    assert whole.preset.vision.kind == "keypoints"
    assert (parts.card["steps"], parts.revision) == (4, whole.revision)
    code, _, err = call(f"{line} parts --resume --set vision.values=9")
    assert code == 2
    assert "vision.values of the saved run is 8, of this one 9; go on with the settings it began with" in err
    code, _, err = call(f"{line} parts --resume --stream picture=front")
    assert code == 2, err
    assert "cameras of the saved run are {'front': (" in err
    code, out, err = call("train --data dots.zarr --steps 1 --set vision.steps=9 --eyes whole --out other")
    assert code == 0, err
    assert "learning to see" not in err
    assert load_policy_file(here / "other/policy.safetensors").preset.vision == whole.preset.vision
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("forcing.progress.stop_requests", lambda: nullcontext([signal.SIGINT]))
        assert call("train --data dots.zarr --steps 4 --eyes whole --out begun")[0] == 1
    code, _, err = call("train --data dots.zarr --steps 4 --eyes whole --out begun --resume")
    assert code == 0, err
    code, _, err = call("train --data dots.zarr --steps 1 --stream picture=front --eyes whole --out another")
    assert code == 2
    assert "cameras of --eyes whole are {'front': (" in err


def test_a_source_with_a_camera_that_is_no_store_becomes_one_first(here: Path, dots: Trajectories) -> None:
    episodes = [dots.episode(index) for index in range(3)]
    write_minari(
        here / "data",
        "me/dots-v0",
        (
            {
                "observations": {"hand": episode["hand"], "front": episode["front"]},
                "actions": episode["action"],
                "rewards": np.zeros(STEPS),
                "terminations": np.zeros(STEPS, bool),
                "truncations": np.arange(STEPS) == STEPS - 1,
                "infos": {},
            }
            for episode in episodes
        ),
        description="dots",
        control_hz=10,
        observation_space=gymnasium.spaces.Dict(
            hand=gymnasium.spaces.Box(-9, 9, (2,), np.float32),
            front=gymnasium.spaces.Box(0, 255, (SIDE, SIDE, 3), np.uint8),
        ),
        action_space=gymnasium.spaces.Box(-1, 1, (2,), np.float32),
    )
    line = "train --data data/me/dots-v0 --steps 2 --out seeing"
    code, out, _ = call(line)
    assert code == 0
    assert "data/me/dots-v0 has cameras and is no store: converting it to seeing/data.zarr" in out
    np.testing.assert_array_equal(open_store("seeing/data.zarr").episode(1)["front"], episodes[1]["front"])
    shutil.rmtree(here / "data")  # what was converted is gone on with, not what it was made of
    code, out, _ = call(f"{line} --resume")
    assert (code, "converting" in out) == (0, False)


def _numbers(dots: Trajectories, path: Path) -> None:
    write_store(dots.numbers(), path)


def test_generic_means_the_same_as_leaving_the_preset_out(here: Path, dots: Trajectories) -> None:
    _numbers(dots, here / "hands.zarr")
    said = [
        call(f"train {preset} --data hands.zarr --steps 2 --out {out}") for preset, out in (("", "a"), ("generic", "b"))
    ]
    assert [code for code, _, _ in said] == [0, 0]
    one, other = (load_policy_file(here / out / "policy.safetensors") for out in ("a", "b"))
    assert (one.preset, one.revision) == (other.preset, other.revision)
    assert said[0][1].splitlines()[:9] == said[1][1].splitlines()[:9]
    assert one.cameras == {}
    assert "cameras" not in one.card


def test_a_generic_run_of_before_goes_on_with_the_recipe_that_it_began_with(here: Path, dots: Trajectories) -> None:
    _numbers(dots, here / "hands.zarr")
    recorded = open_store(here / "hands.zarr")
    torch.set_num_threads(1)
    trainer = Trainer(PRESETS["generic"], TrajectoryWindows(recorded), Normaliser.fit(recorded))
    with pytest.raises(RuntimeError, match="stopped at step 2"):
        train(trainer, Budget(steps=4), here / "old", {}, stop=lambda: trainer.step == 2)
    code, out, err = call("train generic --data hands.zarr --steps 4 --out old --resume")
    assert (code, "inferred" in out) == (0, False), err
    assert load_policy_file(here / "old/policy.safetensors").preset == PRESETS["generic"]
    assert load_training_state(here / "old/resume.safetensors").facts["step"] == 4


@pytest.mark.parametrize(
    ("line", "code", "message"),
    [
        ("train --data dots.zarr --set layout.horizn=3", 2, "did you mean 'layout.horizon'?"),
        ("train --data dots.zarr --set layout.stride=3", 2, "layout.stride must divide token_steps 4, got 3"),
        ("train --data dots.zarr --set denoiser.depth=deep", 2, "denoiser.depth must be a whole number, got 'deep'"),
        (
            "train maze2d-umaze --data dots.zarr",
            1,
            "what the camera 'front' shows follows no linear dynamics; a feedback",
        ),
        ("train --data goal.zarr", 1, "goal 'front' is a camera's stream, and goals are given in numbers; convert"),
    ],
)
def test_what_cannot_be_trained_is_one_line(here: Path, dots: Trajectories, line: str, code: int, message: str) -> None:
    spec = TrajectorySpec(streams=dots.spec.streams, control_hz=10.0, goal="front")
    write_store(
        Trajectories(spec=spec, streams=dots.streams, frames=dots.frames, lengths=dots.lengths), here / "goal.zarr"
    )
    found, _, err = call(f"{line} --steps 2")
    told = [text for text in err.splitlines() if text.startswith("forcing:")]
    assert (found, len(told)) == (code, 1), err
    assert message in told[0]
    assert "Traceback" not in err


def test_a_clone_says_that_it_sees_no_camera(here: Path, dots: Trajectories) -> None:
    spec = TrajectorySpec(streams=dots.spec.streams, control_hz=10.0, goal="hand")
    write_store(
        Trajectories(spec=spec, streams=dots.streams, frames=dots.frames, lengths=dots.lengths), here / "goal.zarr"
    )
    code, out, _ = call("clone --data goal.zarr --out clone --steps 2")
    assert (code, "clones see no cameras: front left out" in out) == (0, True)


def test_several_recordings_are_trained_on_together_by_weight(
    dots: Trajectories, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    write_store(dots, "a.zarr")
    write_store(dots, "b.zarr")
    line = "train --data a.zarr --data b.zarr --weights 3,1 --stream camera=front --out run --steps 2"
    code, said, _ = call(line)
    assert (code, "camera 'camera'" in said) == (0, True), said
    file = load_policy_file(tmp_path / "run" / "policy.safetensors")
    assert [stream.name for stream in file.spec.streams if stream.image] == ["camera"]
    assert file.card["data"] == ["a.zarr", "b.zarr"]
    assert file.card["data_steps"] == 2 * int(dots.lengths.sum())
    assert "--data a.zarr --data b.zarr" in str(file.card["command"])
    assert str(file.card["command"]).endswith("--weights 3,1 --stream camera=front")


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ("--data a.zarr --weights 1,2", "weights must be 1 positive numbers with commas between, got '1,2'"),
        ("--data a.zarr --data a.zarr --weights 1,0", "weights must be 2 positive numbers"),
        ("--data a.zarr --data a.zarr --weights one,two", "weights must be 2 positive numbers"),
        ("--steps 1", "data must name a recording at least"),
        ("--data a.zarr --data slow.zarr", "recording 2 must be like the first: control_hz is 5, not 10"),
        ("--data a.zarr --stream gone=away", "unknown stream 'away'"),
        ("--data a.zarr --subset train", "subset"),
    ],
)
def test_what_cannot_be_trained_on_together_is_said_in_a_line(
    dots: Trajectories, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, options: str, said: str
) -> None:
    monkeypatch.chdir(tmp_path)
    write_store(dots, "a.zarr")
    write_store(replace(dots, spec=replace(dots.spec, control_hz=5.0)), "slow.zarr")
    code, _, error = call(f"train {options} --out run")
    assert code in (1, 2)
    assert said in error
    assert error.count("\n") == 1


def test_a_run_that_converted_its_data_goes_on_with_that_data_alone(here: Path, dots: Trajectories) -> None:
    for name in ("first", "second"):
        export_minari(InMemory(dots), here / "data", f"me/{name}-v0")
    assert call("train --data data/me/first-v0 --steps 2 --out seeing")[0] == 0
    (here / "seeing/policy.safetensors").unlink()  # as if it had been killed
    code, _, error = call("train --data data/me/second-v0 --steps 2 --out seeing --resume")
    assert code == 2
    assert "resume must be with the data that the run began with" in error
    assert "first-v0, got" in error
    assert call("train --data data/me/first-v0 --steps 2 --out seeing --resume")[0] == 0


def test_ctrl_c_while_learning_to_see_says_that_nothing_of_it_is_kept(
    here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def pressed(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("forcing.policy.cameras.fit_codecs", pressed)
    said = call("train --data dots.zarr --steps 3 --out runs/blind --set vision.kind=keypoints")
    assert said.code == 1
    assert said.err.endswith(
        "forcing: stopped while learning to see, of which nothing is kept; begin again, without --resume\n"
    )
