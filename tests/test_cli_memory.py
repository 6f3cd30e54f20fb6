"""`forcing train` of recipes that remember: on numbers and on a camera, stopped and gone on with; and refusals."""

import signal
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from forcing.datasets.store import write_store
from forcing.policy.checkpoint import load_policy_file, load_training_state
from forcing.policy.controller import Controller
from forcing.policy.memory_training import recall_loss
from forcing.policy.policy import load_policy
from forcing.policy.types import StreamSpec, Trajectories, TrajectorySpec

Forcing = Callable[..., Any]
SMALL = " ".join(
    f"--set {setting}"
    for setting in (
        "denoiser.width=16",
        "denoiser.depth=1",
        "denoiser.heads=2",
        "layout.history=6",
        "optimiser.batch_tokens=64",
        "vision.kind=components",
    )
)


def _recorded(offset: float = 0.0) -> Trajectories:
    """Four episodes of 30 steps of a hand that is told where to be, and a camera that shows where it is."""
    rng = np.random.default_rng(1)
    places = offset + rng.uniform(0.25, 0.75, (4, 1, 2))
    hand = np.repeat(places, 31, axis=1) + 0.01 * rng.standard_normal((4, 31, 2))
    frames = np.zeros((4, 31, 20, 16, 3), dtype=np.uint8)
    frames[:, :, 8:12] = (200 * np.clip(hand[..., :1], 0, 1)).astype(np.uint8)[..., None, None]
    spec = TrajectorySpec(
        streams=(
            StreamSpec(name="hand", role="observation", shape=(2,), units="m"),
            StreamSpec(name="front", role="observation", shape=(20, 16, 3)),
            StreamSpec(name="action", role="action", shape=(2,), units="m", low=(0.0, 0.0), high=(1.0, 1.0)),
        ),
        control_hz=20.0,
        goal="hand",
    )
    streams = {"hand": hand.reshape(-1, 2), "action": np.repeat(places, 30, axis=1).reshape(-1, 2)}
    return Trajectories(
        spec=spec, streams=streams, frames={"front": frames.reshape(-1, 20, 16, 3)}, lengths=np.full(4, 30)
    )


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with two recordings of numbers and one with a camera, in which commands run."""
    monkeypatch.chdir(tmp_path)
    write_store(_recorded().numbers(), tmp_path / "near.zarr")
    write_store(_recorded(5.0).numbers(), tmp_path / "far.zarr")
    write_store(_recorded(), tmp_path / "seen.zarr")
    return tmp_path


def test_a_policy_that_remembers_is_trained_by_its_presets_name_and_acts(here: Path, forcing: Forcing) -> None:
    said = forcing(f"train swap-cameras --data seen.zarr --steps 3 --out run {SMALL}")
    assert said.code == 0, said.err
    assert "rehearsed" not in said.out
    assert "calibrate" not in said.out
    file = load_policy_file(here / "run/policy.safetensors")
    assert file.world is None
    assert file.spec.goal is None, "goals cannot be given to what acts from what it observes"
    assert file.preset.memory is not None
    assert file.card["task"] == "swap-cameras"
    controller = Controller(load_policy("run"), goal=None, seed=0)
    controller.observe({"hand": np.full(2, 0.5), "front": np.zeros((20, 16, 3), np.uint8)})
    request = controller.request()
    assert request is not None
    controller.install(controller.policy.plan(request))
    decision = controller.decide()
    assert decision.action_chunk.shape == (file.preset.layout.token_steps, 2)
    assert (decision.action >= 0).all()
    assert (decision.action <= 1).all()


def test_a_run_that_was_stopped_ends_as_if_it_had_not_been(here: Path, forcing: Forcing) -> None:
    line = f"train swap --data near.zarr --data far.zarr --weights 3,1 --steps 6 {SMALL}"
    assert forcing(f"{line} --out whole").code == 0
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("forcing.progress.stop_requests", lambda: nullcontext([signal.SIGINT]))
        assert forcing(f"{line} --out parts").code == 1
    assert load_training_state(here / "parts/resume.safetensors").facts["step"] == 1
    assert forcing(f"{line} --out parts --resume").code == 0
    whole, parts = (load_policy_file(here / out / "policy.safetensors") for out in ("whole", "parts"))
    assert (parts.card["steps"], parts.revision) == (6, whole.revision)
    states = [load_training_state(here / out / "resume.safetensors") for out in ("whole", "parts")]
    for name, value in states[0].tensors.items():
        np.testing.assert_array_equal(value, states[1].tensors[name], err_msg=name)
    assert str(parts.card["command"]).endswith(f"--seed 0 --weights 3,1 {SMALL}")


@pytest.mark.parametrize(("weights", "share"), [("", 0.5), ("--weights 3,1", 0.25), ("--weights 1,9", 0.9)])
def test_recordings_are_drawn_from_by_weight(here: Path, forcing: Forcing, weights: str, share: float) -> None:
    """The far one's hands are 5 m away from the near one's, and as many."""
    drawn = list[float]()

    def seen(denoiser: Any, preset: Any, tokenizer: Any, streams: Any, histories: Any, *rest: Any) -> Any:
        drawn.extend(histories.tokens[:, 0, tokenizer.slices["hand"]][:, 0].tolist())
        return recall_loss(denoiser, preset, tokenizer, streams, histories, *rest)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("forcing.policy.training.recall_loss", seen)
        line = f"train swap --data near.zarr --data far.zarr {weights} --steps 20 --out run {SMALL}"
        assert forcing(f"{line} --set optimiser.batch_tokens=256").code == 0
    assert len(drawn) > 300
    assert float((np.array(drawn) > 0).mean()) == pytest.approx(share, abs=0.08)  # the mean lies between them


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ("--set layout.token_steps=10", "layout.stride must be token_steps 10 with memory, got 5"),
        ("--set layout.chunks=false", "layout.chunks must be True with memory, got False"),
        ("--set memory=none", "layout.chunks must be False without memory, got True"),
        ("--set memory.mix.shared=0.9", "memory.mix.independent, shared and pyramid must sum to 1, got 1.7"),
        ("--set memory.recall_level=1", "memory.recall_level must be at least 0 and below 1, got 1.0"),
        ("--set memory.hold_tokens=-1", "memory.hold_tokens must be at least 0, got -1"),
        ("--set memory.hold_token=1", "did you mean 'memory.hold_tokens'?"),
        ("--set rolling.passes=1", "belief and rolling must be none with memory; readings are recalled as they came"),
        (
            "--set belief.particles=64",
            "belief and rolling must be none with memory; readings are recalled as they came",
        ),
        ("--set tracker.kind=pursuit", "tracker.kind must be actions with memory, got 'pursuit'"),
    ],
)
def test_settings_that_do_not_go_with_memory_are_one_line(forcing: Forcing, settings: str, message: str) -> None:
    said = forcing(f"train swap --data data.zarr --steps 2 {settings}")
    assert said.code == 2
    assert message in said.err
    assert said.err.count("\n") == 1


def test_what_does_not_remember_takes_no_chunks(forcing: Forcing) -> None:
    said = forcing("train maze2d-umaze --data data.zarr --steps 2 --set layout.chunks=true")
    assert (said.code, "layout.chunks must be False without memory, got True" in said.err) == (2, True)


def test_tokens_longer_than_every_episode_are_said(here: Path, forcing: Forcing) -> None:
    sizes = "--set layout.token_steps=31 --set layout.stride=31"
    said = forcing(f"train swap --data near.zarr --steps 2 --out run {SMALL} {sizes}")
    assert said.code == 1
    assert "no episode has the 31 steps of one token; use shorter tokens or longer recordings" in said.err


def test_a_run_does_not_go_on_with_another_memory(here: Path, forcing: Forcing) -> None:
    line = f"train swap --data near.zarr --steps 2 --out run {SMALL} --set memory.hold_tokens="
    assert forcing(f"{line}4").code == 0
    said = forcing(f"{line}3 --resume")
    assert said.code == 1
    assert "memory.hold_tokens of the saved run is 4, of this one 3; resume with the settings" in said.err
    assert forcing(f"{line}4 --resume").code == 0
