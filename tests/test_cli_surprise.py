"""What a policy that remembers takes for usual, on the command line: measured by training, or anew; and refusals."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from forcing.datasets.store import write_store
from forcing.policy.checkpoint import load_policy_file, read_tensors, write_tensors
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
        "planner.schedule.sampling_steps=2",
        "vision.kind=components",
    )
)


def _recorded(steps: int = 30) -> Trajectories:
    """Four episodes of a hand that is told where to be, and a camera that shows where it is."""
    rng = np.random.default_rng(1)
    places = rng.uniform(0.25, 0.75, (4, 1, 2))
    hand = np.repeat(places, steps + 1, axis=1) + 0.01 * rng.standard_normal((4, steps + 1, 2))
    frames = np.zeros((4, steps + 1, 20, 16, 3), dtype=np.uint8)
    frames[:, :, 8:12] = (200 * np.clip(hand[..., :1], 0, 1)).astype(np.uint8)[..., None, None]
    spec = TrajectorySpec(
        streams=(
            StreamSpec(name="hand", role="observation", shape=(2,), units="m"),
            StreamSpec(name="front", role="observation", shape=(20, 16, 3)),
            StreamSpec(name="action", role="action", shape=(2,), units="m", low=(0.0, 0.0), high=(1.0, 1.0)),
        ),
        control_hz=20.0,
    )
    streams = {"hand": hand.reshape(-1, 2), "action": np.repeat(places, steps, axis=1).reshape(-1, 2)}
    return Trajectories(
        spec=spec, streams=streams, frames={"front": frames.reshape(-1, 20, 16, 3)}, lengths=np.full(4, steps)
    )


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory, forcing: Forcing) -> Path:
    """A folder with a recording and a policy of it that shall doubt."""
    here = tmp_path_factory.mktemp("surprise")
    write_store(_recorded(), here / "seen.zarr")
    write_store(_recorded().numbers(), here / "numbers.zarr")
    line = f"train swap-cameras --data {here}/seen.zarr --steps 2 --out {here}/run {SMALL} --set memory.doubt=true"
    said = forcing(line)
    assert said.code == 0, said.err
    assert "replies tell how surprising readings are" in said.out
    return here


def test_training_measures_what_is_usual_and_a_policy_may_doubt_at_once(trained: Path) -> None:
    file = load_policy_file(trained / "run/policy.safetensors")
    assert file.surprise is not None
    assert set(file.surprise.streams) == {"hand", "front"}
    assert file.surprise.streams["front"].misfit is not None
    assert file.card["surprise"]["command"] == file.card["command"]
    policy = load_policy(str(trained / "run"))
    assert policy.preset.memory is not None
    assert policy.preset.memory.doubt


def test_what_is_usual_is_measured_anew_and_comes_out_the_same(trained: Path, forcing: Forcing) -> None:
    path = trained / "run/policy.safetensors"
    before = load_policy_file(path)
    header, tensors = read_tensors(path, "policy")
    kept = {name: value for name, value in tensors.items() if not name.startswith("surprise.")}
    write_tensors(path, "policy", header, kept)  # as an older version would have left it
    line = f"calibrate {trained}/run --data {trained}/seen.zarr"
    said = forcing(line)
    assert said.code == 0, said.err
    after = load_policy_file(path)
    assert after.revision == before.revision
    assert before.surprise is not None
    assert after.surprise is not None
    again = after.surprise.tensors()
    assert all(torch.equal(value, again[name]) for name, value in before.surprise.tensors().items())
    assert after.card["surprise"]["command"] == f"forcing {line}"


def test_episodes_shorter_than_a_plan_leave_it_unmeasured_and_say_so(tmp_path: Path, forcing: Forcing) -> None:
    write_store(_recorded(steps=8), tmp_path / "short.zarr")
    said = forcing(f"train swap-cameras --data {tmp_path}/short.zarr --steps 2 --out {tmp_path}/run {SMALL}")
    assert said.code == 0, said.err
    assert "will not tell how surprising readings are: no episode has the 10 steps of a plan" in said.out
    assert load_policy_file(tmp_path / "run/policy.safetensors").surprise is None


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("calibrate {0}/run", "remembers: name what it was trained on with --data"),
        ("calibrate maze2d-umaze --data {0}/seen.zarr", "is driven in its own world; leave out --data"),
        ("bench surprise --task maze2d-umaze-multi", "task 'maze2d-umaze-multi' is no arm's, which this is for"),
        ("bench surprise --episodes 0", "episodes must be at least 1, got 0"),
    ],
)
def test_wrong_usage_is_one_line_and_exit_code_two(trained: Path, forcing: Forcing, line: str, message: str) -> None:
    said = forcing(line.format(trained))
    assert said.code == 2
    assert message in said.err
    assert said.err.count("\n") == 1


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("calibrate {0}/run --data {0}/numbers.zarr", "was not trained on this recording: their streams differ"),
        ("bench surprise --policy maze2d-umaze", "does not know what is usual; measure that with: forcing calibrate"),
        ("bench surprise --task swap --policy {0}/run", "task swap has no cameras that could be disturbed"),
    ],
)
def test_what_does_not_fit_together_is_said(trained: Path, forcing: Forcing, line: str, message: str) -> None:
    said = forcing(line.format(trained))
    assert said.code == 1
    assert message in said.err
