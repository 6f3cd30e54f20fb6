"""`forcing train` of models of the world, from commands: what they are told, and that nothing lets them act."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from forcing.datasets.store import write_store
from forcing.policy.checkpoint import CheckpointError, load_policy_file
from forcing.policy.controller import Controller
from forcing.policy.moves import LONGEST_M
from forcing.policy.policy import load_policy
from forcing.policy.types import StreamSpec, Trajectories, TrajectorySpec

Forcing = Callable[..., Any]
SMALL = "--set denoiser.width=16 --set denoiser.depth=1 --set denoiser.heads=2 --set optimiser.batch_tokens=64"
CANNOT_ACT = "policy 'world' is a model of the world and cannot act; see what it imagines with: forcing bench imagine"


def _recorded(where: str = "effector_position") -> Trajectories:
    """Two episodes of 30 steps of an arm that is always sent 0.01 m on along x from where it is, far from zero."""
    there = 0.4 + 0.01 * np.arange(31)[:, None] * np.array([1.0, 0.0, 0.0])
    there = np.concatenate([there, there + 0.1])
    action = np.delete(there, [30, 61], axis=0) + np.array([0.01, 0.0, 0.0])
    spec = TrajectorySpec(
        streams=(
            StreamSpec(name=where, role="observation", shape=(3,), units="m"),
            StreamSpec(name="action", role="action", shape=(3,), units="m", low=(0.0,) * 3, high=(1.0,) * 3),
        ),
        control_hz=20.0,
    )
    return Trajectories(spec=spec, streams={where: there, "action": action}, lengths=np.full(2, 30))


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a recording, in which commands run."""
    monkeypatch.chdir(tmp_path)
    write_store(_recorded(), tmp_path / "arm.zarr")
    return tmp_path


def test_a_model_of_the_world_is_told_moves_and_nothing_lets_it_act(here: Path, forcing: Forcing) -> None:
    said = forcing(f"train swap-world --data arm.zarr --steps 1 --out world {SMALL}")
    assert said.code == 0, said.err
    assert "see what it imagines: forcing bench imagine --policy world" in said.out
    assert "serve" not in said.out
    file = load_policy_file(here / "world/policy.safetensors")
    assert (file.spec.action.low, file.spec.action.high) == ((-LONGEST_M,) * 3, (LONGEST_M,) * 3)
    np.testing.assert_allclose(file.normaliser.mean["action"], [0.01, 0, 0], atol=1e-6)
    with pytest.raises(CheckpointError, match=CANNOT_ACT):
        Controller(load_policy("world"), goal=None, seed=0)
    for command in ("serve --policy world --port 0", "eval swap --policy world --episodes 1"):
        refused = forcing(command)
        assert refused.code != 0
        assert CANNOT_ACT in refused.err
    refused = forcing("calibrate world --data arm.zarr")
    assert refused.code != 0
    assert "world is a model of the world, which is not asked how usual an observation is" in refused.err


def test_where_moves_begin_is_looked_for_before_anything_is_learned(here: Path, forcing: Forcing) -> None:
    write_store(_recorded("wrist_position"), here / "other.zarr")
    refused = forcing(f"train swap-world --data other.zarr --steps 1 --out world {SMALL}")
    assert refused.code != 0
    assert "moves_from must be an observation of a place, x, y, z in m, one of wrist_position" in refused.err
    assert not (here / "world/policy.safetensors").exists()


def test_a_recipe_for_cameras_is_not_trained_on_a_recording_without(here: Path, forcing: Forcing) -> None:
    refused = forcing("train swap-cameras-world --data arm.zarr --steps 1 --out world")
    assert refused.code == 2
    assert (
        "preset swap-cameras-world is for cameras, and the recording has none, only effector_position, action"
        in refused.err
    )
