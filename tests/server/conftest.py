"""A tiny untrained policy made of the real classes, broken kinds of it, and servers on real ports."""

import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import numpy as np
import pytest
import torch

from forcing.policy.checkpoint import save_policy
from forcing.policy.denoiser import DenoiserConfig
from forcing.policy.network import build_denoiser
from forcing.policy.planner import PlannerConfig, PlanRequest
from forcing.policy.policy import Policy, load_policy
from forcing.policy.preset import Preset
from forcing.policy.tokens import Normaliser, Tokenizer, TokenLayout
from forcing.policy.types import Plan, StreamSpec, TrajectorySpec
from forcing.server.serve import serving

SPEC = TrajectorySpec(
    streams=(
        StreamSpec(name="position", role="observation", shape=(2,), units="m"),
        StreamSpec(name="velocity", role="observation", shape=(2,), units="m/s", rate_of="position"),
        StreamSpec(name="action", role="action", shape=(2,), low=(-1.0, -1.0), high=(1.0, 1.0)),
    ),
    control_hz=100.0,
    goal="position",
)
PRESET = Preset(
    name="tiny",
    layout=TokenLayout(token_steps=8, stride=4, history=1, horizon=2),
    denoiser=DenoiserConfig(width=16, depth=1, heads=2),
    planner=PlannerConfig(samples=2, replan_steps=4, hold_distance=1e-9),
)


def _write_policy(folder: Path, spec: TrajectorySpec = SPEC) -> Path:
    normaliser = Normaliser(
        mean={stream.name: (0.0,) * stream.size for stream in spec.streams},
        std={stream.name: (1.0,) * stream.size for stream in spec.streams},
    )
    with torch.random.fork_rng():
        torch.manual_seed(0)
        denoiser = build_denoiser(PRESET, Tokenizer(spec, PRESET.layout, normaliser))
    folder.mkdir()
    save_policy(folder / "policy.safetensors", PRESET, spec, normaliser, denoiser.state_dict(), {"minutes": 0})
    return folder


@pytest.fixture(scope="session")
def policy_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.set_num_threads(1)
    return _write_policy(tmp_path_factory.mktemp("policies") / "tiny")


@pytest.fixture(scope="session")
def policy(policy_dir: Path) -> Policy:
    return load_policy(str(policy_dir))


class GatedPolicy(Policy):
    """Plans only while its gate is open; counts its plans."""

    gate: threading.Event
    plans: int

    def plan(self, request: PlanRequest) -> Plan:
        assert self.gate.wait(20), "the test never opened the gate"
        self.plans += 1
        return super().plan(request)


class NanPolicy(Policy):
    """Plans well once, for the warm-up; then its position stream holds a NaN."""

    plans: int = 0

    def plan(self, request: PlanRequest) -> Plan:
        plan = super().plan(request)
        self.plans += 1
        if self.plans > 1:
            plan.streams["position"][0] = np.nan
        return plan


class RaisingPolicy(Policy):
    """Plans well once, for the warm-up; then raises."""

    plans: int = 0

    def plan(self, request: PlanRequest) -> Plan:
        self.plans += 1
        if self.plans > 1:
            raise RuntimeError("secret-of-the-implementation")
        return super().plan(request)


def _variant(policy: Policy, kind: type[Policy], name: str) -> Policy:
    variant = kind(name, policy._file)
    if isinstance(variant, GatedPolicy):
        variant.gate, variant.plans = threading.Event(), 0
        variant.gate.set()
    return variant


@pytest.fixture
def gated(policy: Policy) -> Policy:
    return _variant(policy, GatedPolicy, "gated")


@pytest.fixture(scope="session")
def broken(policy: Policy) -> list[Policy]:
    return [_variant(policy, NanPolicy, "nan"), _variant(policy, RaisingPolicy, "raising")]


@pytest.fixture(scope="session")
def url(policy: Policy, broken: list[Policy]) -> Iterator[str]:
    """A server of the tiny policy and its broken variants, shared by the tests."""
    with serving([policy, *broken]) as address:
        yield address


@pytest.fixture
def http(url: str) -> Iterator[httpx.Client]:
    """A bare HTTP client of `url`; after the test the server must still be alive."""
    with httpx.Client(base_url=url, timeout=20) as client:
        yield client
        assert client.get("/healthz").json() == {"status": "ok"}


OpenSession = Callable[..., str]


@pytest.fixture
def open_session(http: httpx.Client) -> OpenSession:
    """Opens a session, its id returned."""

    def open_(**fields: object) -> str:
        answer = http.post("/v1/sessions", json={"policy": "tiny", "goal": [1.0, 1.0], **fields})
        assert answer.status_code == 201, answer.text
        return str(answer.json()["session_id"])

    return open_
