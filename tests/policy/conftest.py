"""A toy world that can be solved on paper: a point that moves on straight lines at constant velocity to a goal."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from forcing.policy.checkpoint import save_policy
from forcing.policy.denoiser import DenoiserConfig
from forcing.policy.dynamics import LinearDynamics
from forcing.policy.memory import MemoryConfig
from forcing.policy.network import build_denoiser
from forcing.policy.planner import PlannerConfig
from forcing.policy.policy import Policy, load_policy
from forcing.policy.preset import OptimiserConfig, Preset
from forcing.policy.schedules import Schedule
from forcing.policy.tokens import Normaliser, Tokenizer, TokenLayout
from forcing.policy.tracker import TrackerConfig
from forcing.policy.types import StreamSpec, Trajectories, TrajectorySpec

SPEC = TrajectorySpec(
    streams=(
        StreamSpec(name="position", role="observation", shape=(2,), units="m"),
        StreamSpec(name="velocity", role="observation", shape=(2,), units="m/s", rate_of="position"),
        StreamSpec(name="action", role="action", shape=(2,), low=(-1.0, -1.0), high=(1.0, 1.0)),
        StreamSpec(name="reward", role="reward", shape=()),
    ),
    control_hz=10.0,
    goal="position",
)
PRESET = Preset(
    name="toy",
    layout=TokenLayout(token_steps=8, stride=4, history=1, horizon=3),
    denoiser=DenoiserConfig(width=32, depth=2, heads=2),
    optimiser=OptimiserConfig(batch_tokens=256, warmup_steps=20, learning_rate=3e-3),
    planner=PlannerConfig(samples=2, replan_steps=6, hold_distance=0.25),
    tracker=TrackerConfig(lookahead_steps=4, chunk_steps=3),
)


@pytest.fixture(scope="session", autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def spec() -> TrajectorySpec:
    return SPEC


@pytest.fixture(scope="session")
def preset() -> Preset:
    return PRESET


@pytest.fixture(scope="session")
def normaliser() -> Normaliser:
    """Powers of two, so that scaling is exact; no entry is scaled like another."""
    return Normaliser(
        mean={"position": (1.0, -2.0), "velocity": (0.5, 0.25), "action": (0.0, 0.5), "reward": (0.0,)},
        std={"position": (2.0, 4.0), "velocity": (0.5, 0.25), "action": (0.25, 0.5), "reward": (1.0,)},
    )


@pytest.fixture(scope="session")
def tokenizer(normaliser: Normaliser) -> Tokenizer:
    return Tokenizer(SPEC, PRESET.layout, normaliser)


@pytest.fixture(scope="session")
def lines() -> Trajectories:
    """60 episodes of 24 to 40 steps: x(t) = start + t v, action v / 10."""
    rng = np.random.default_rng(0)
    lengths = rng.integers(24, 41, 60)
    position, velocity, action = [], [], []
    for length in lengths:
        start, goal = rng.uniform(-4, 4, (2, 2))
        speed = (goal - start) * SPEC.control_hz / length
        position.append(start + np.arange(length + 1)[:, None] * speed / SPEC.control_hz)
        velocity.append(np.tile(speed, (length + 1, 1)))
        action.append(np.tile(speed / 10, (length, 1)))
    streams = {
        "position": np.concatenate(position),
        "velocity": np.concatenate(velocity),
        "action": np.concatenate(action),
        "reward": np.zeros(int(lengths.sum())),
    }
    return Trajectories(spec=SPEC, streams=streams, lengths=lengths)


PolicyWriter = Callable[..., Path]


@pytest.fixture(scope="session")
def write_policy(normaliser: Normaliser) -> PolicyWriter:
    """(folder, seed=0, spec=SPEC) -> the folder, with an untrained policy in it."""

    def write(folder: Path, seed: int = 0, spec: TrajectorySpec = SPEC) -> Path:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            denoiser = build_denoiser(PRESET, Tokenizer(spec, PRESET.layout, normaliser))
        folder.mkdir(parents=True, exist_ok=True)
        save_policy(folder / "policy.safetensors", PRESET, spec, normaliser, denoiser.state_dict(), {"task": "toy"})
        return folder

    return write


@pytest.fixture(scope="session")
def policy(write_policy: PolicyWriter, tmp_path_factory: pytest.TempPathFactory) -> Policy:
    """Untrained, so that its plans are anything but what one would wish for."""
    return load_policy(str(write_policy(tmp_path_factory.mktemp("policies") / "toy")))


class Cart:
    """A cart on a rail at 100 Hz: position += 0.01 velocity, velocity += 0.2 action."""

    spec = TrajectorySpec(
        streams=(
            StreamSpec(name="position", role="observation", shape=(1,), units="m"),
            StreamSpec(name="velocity", role="observation", shape=(1,), units="m/s", rate_of="position"),
            StreamSpec(name="action", role="action", shape=(1,), low=(-1.0,), high=(1.0,)),
        ),
        control_hz=100.0,
        goal="position",
    )
    normaliser = Normaliser(
        mean={"position": (0.0,), "velocity": (0.0,), "action": (0.0,)},
        std={"position": (2.0,), "velocity": (3.0,), "action": (0.5,)},
    )
    dynamics = LinearDynamics(
        streams={"position": slice(0, 1), "velocity": slice(1, 2)},
        weights=np.array([[0.0, 0.0], [0.01, 0.0], [0.0, 0.2], [0.0, 0.0]]),
        low=np.full(2, -np.inf),
        high=np.full(2, np.inf),
    )

    def drive(
        self, steps: int, rng: np.random.Generator, *, at_rest: bool = False
    ) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """[T + 1, 2] states and [T, 1] actions of a cart that is pushed back and forth."""
        actions = np.sin(np.arange(steps) / 15 + rng.uniform(0, 6))[:, None]
        states = [rng.normal(0, [2, 3]) * (1, 0 if at_rest else 1)]
        for action in actions:
            states.append(self.dynamics.step(states[-1], action))
        return np.array(states), actions


@pytest.fixture
def cart() -> Cart:
    return Cart()


class Arm:
    """A hand that is told at 10 Hz where it shall be, in tokens of 3 steps: 4 are remembered, 2 are planned."""

    spec = TrajectorySpec(
        streams=(
            StreamSpec(name="hand", role="observation", shape=(2,), units="m"),
            StreamSpec(name="action", role="action", shape=(2,), low=(0.25, -0.5), high=(0.75, 0.5)),
            StreamSpec(name="load", role="observation", shape=(), units="kg"),
        ),
        control_hz=10.0,
    )
    preset = Preset(
        name="arm",
        layout=TokenLayout(token_steps=3, stride=3, history=4, horizon=2, chunks=True),
        denoiser=DenoiserConfig(width=16, depth=1, heads=2, causal=True),
        planner=PlannerConfig(schedule=Schedule(sampling_steps=2, uncertainty_scale=1.0), samples=1, replan_steps=3),
        tracker=TrackerConfig(kind="actions", chunk_steps=4),
        belief=None,
        memory=MemoryConfig(),
    )
    normaliser = Normaliser(
        mean={"hand": (0.5, 0.0), "action": (0.5, 0.25), "load": (1.0,)},
        std={"hand": (0.25, 0.25), "action": (0.125, 0.5), "load": (2.0,)},
    )
    tokenizer = Tokenizer(spec, preset.layout, normaliser)


@pytest.fixture
def arm() -> Arm:
    return Arm()


@pytest.fixture(scope="session")
def remembering(tmp_path_factory: pytest.TempPathFactory) -> Policy:
    """Untrained, of the arm."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        denoiser = build_denoiser(Arm.preset, Arm.tokenizer)
        for parameter in denoiser.parameters():  # as large as trained ones, so that what is recalled counts
            torch.nn.init.normal_(parameter, std=0.3)
    path = tmp_path_factory.mktemp("policies") / "policy.safetensors"
    save_policy(path, Arm.preset, Arm.spec, Arm.normaliser, denoiser.state_dict(), {"task": "arm"})
    return load_policy(str(path))
