"""A policy that doubts what it sees, served: what it leaves aside, what it says, and that a new server decides alike.

An untrained arm with a camera: a hand that goes to a place, a bright square in the dark where it is.
"""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from numpy.typing import NDArray

from forcing.policy import foreseeing
from forcing.policy.cameras import encoded, fit_codecs, fit_normaliser
from forcing.policy.checkpoint import load_policy_file, save_surprise
from forcing.policy.denoiser import DenoiserConfig
from forcing.policy.histories import Episodes
from forcing.policy.memory import MemoryConfig
from forcing.policy.planner import PlannerConfig
from forcing.policy.policy import Policy
from forcing.policy.preset import OptimiserConfig, Preset
from forcing.policy.schedules import Schedule
from forcing.policy.tokens import TokenLayout
from forcing.policy.tracker import TrackerConfig
from forcing.policy.training import Budget, Trainer, train
from forcing.policy.types import Array, StreamSpec, Trajectories, TrajectorySpec
from forcing.server.client import Client
from forcing.server.serve import serving
from forcing.server.service import ServerSettings

SPEC = TrajectorySpec(
    streams=(
        StreamSpec(name="hand", role="observation", shape=(2,), units="m"),
        StreamSpec(name="front", role="observation", shape=(20, 16, 3)),
        StreamSpec(name="action", role="action", shape=(2,), units="m", low=(0.2, 0.2), high=(0.8, 0.8)),
    ),
    control_hz=10.0,
)
PRESET = Preset(
    name="arm",
    layout=TokenLayout(token_steps=3, stride=3, history=4, horizon=2, chunks=True),
    denoiser=DenoiserConfig(width=16, depth=1, heads=2, causal=True),
    optimiser=OptimiserConfig(batch_tokens=64, warmup_steps=1, learning_rate=3e-3),
    planner=PlannerConfig(schedule=Schedule(sampling_steps=2), samples=1, replan_steps=3),
    tracker=TrackerConfig(kind="actions", chunk_steps=3),
    belief=None,
    memory=MemoryConfig(),
)
DARK = np.zeros((20, 16, 3), np.uint8)
COVERED = range(4, 9)  # steps at which the camera is dead


def _frame(at: Array) -> NDArray[np.uint8]:
    frame = np.full((20, 16, 3), 60, dtype=np.uint8)
    row, column = (np.asarray(at) * 12).astype(int)
    frame[row : row + 5, column : column + 5] = (250, 40, 90)
    return frame


def _recorded() -> Trajectories:
    rng, rows = np.random.default_rng(0), dict[str, list[Array]](hand=[], front=[], action=[])
    for _ in range(12):
        place, hand = rng.uniform(0.2, 0.8, 2), [rng.uniform(0.2, 0.8, 2)]
        for _ in range(20):
            hand.append(hand[-1] + 0.2 * (place - hand[-1]))
        rows["hand"].append(np.array(hand))
        rows["front"].append(np.stack([_frame(at) for at in hand]))
        rows["action"].append(np.tile(place, (20, 1)))
    streams = {name: np.concatenate(parts) for name, parts in rows.items()}
    frames = {"front": streams.pop("front")}
    return Trajectories(spec=SPEC, streams=streams, frames=frames, lengths=np.full(12, 20))


@pytest.fixture(scope="module")
def doubting(tmp_path_factory: pytest.TempPathFactory) -> Policy:
    path, recorded = tmp_path_factory.mktemp("policies") / "arm", _recorded()
    cameras = fit_codecs(recorded)
    seen = encoded(recorded, cameras)
    trainer = Trainer(PRESET, Episodes(seen), fit_normaliser(seen, cameras), cameras=cameras)
    file = train(trainer, Budget(steps=2), path, {})
    planner = Policy("arm", load_policy_file(file)).history_planner
    assert planner is not None
    save_surprise(file, foreseeing.measured(planner, seen, recorded.frames, cameras), {})
    return Policy("arm", load_policy_file(file)).using(memory=MemoryConfig(doubt=True))


Answer = tuple[list[float], str, Mapping[str, Any]]


def _driven(policy: Policy, state: Path, stops: tuple[int, ...]) -> list[Answer]:
    """Actions, where they came from, and what was thought of sensors, of an episode whose server ends and begins anew
    at these stops."""
    session, answers = "", list[Answer]()
    for steps in stops:
        with serving([policy], settings=ServerSettings(state_dir=state)) as url, httpx.Client(base_url=url) as http:
            if not session:
                body = {"policy": "arm", "seed": 5}
                session = http.post("/v1/sessions", json=body).raise_for_status().json()["session_id"]
            for _ in range(steps):
                step = len(answers)
                at = np.array([0.3 + 0.01 * step, 0.5])
                frame = DARK if step in COVERED else _frame(at)
                seen = {"hand": at.tolist(), "front": frame.tolist()}
                act = {"request_id": f"r{step}", "step": step, "observation": seen}
                reply = http.post(f"/v1/sessions/{session}/act", json=act).raise_for_status().json()
                answers.append((reply["action"], reply["source"], reply["sensors"]))
    return answers


def test_a_dead_camera_is_left_aside_at_every_act_and_believed_as_soon_as_it_is_back(
    doubting: Policy, tmp_path: Path
) -> None:
    answers = _driven(doubting, tmp_path, (14,))
    rejected = [step for step, (_, _, sensors) in enumerate(answers) if sensors["front"]["rejected"]]
    assert rejected == list(COVERED)
    assert [answers[step][2]["front"]["unheard_steps"] for step in COVERED] == [1, 2, 3, 4, 5]
    surprise = [sensors["front"]["surprise"] for _, _, sensors in answers]
    assert min(surprise[step] for step in COVERED) > 3 > max(surprise[:4] + surprise[9:])
    assert answers[0][2]["hand"]["surprise"] is None, "numbers are surprising only beside what was foreseen"


def test_a_new_server_doubts_as_the_one_before_did(doubting: Policy, tmp_path: Path) -> None:
    """A journal has frames and plans; what was left aside, and what was planned from the rest, comes out of them."""
    whole = _driven(doubting, tmp_path / "a", (16,))
    broken = _driven(doubting, tmp_path / "b", (6, 4, 6))
    assert broken == whole


def test_an_arm_whose_only_camera_is_dead_waits_and_a_new_server_lets_it_wait_on(
    doubting: Policy, tmp_path: Path
) -> None:
    waiting = doubting.using(memory=MemoryConfig(doubt=True, wait_steps=4))
    whole = _driven(waiting, tmp_path / "a", (16,))
    held = [step for step, (_, source, _) in enumerate(whole) if source == "hold"]
    assert held == list(COVERED)[:4]
    assert {tuple(whole[step][0]) for step in held} == {tuple(whole[held[0] - 1][0])}
    broken = _driven(waiting, tmp_path / "b", (6, 1, 3, 6))
    assert broken == whole


def test_what_was_left_aside_is_counted(doubting: Policy, tmp_path: Path) -> None:
    with serving([doubting]) as url, Client(url) as client:
        session = client.open("arm", seed=5)
        for frame in (_frame(np.array([0.5, 0.5])), DARK):
            result = session.act({"hand": np.array([0.5, 0.5]), "front": frame})
        assert result.sensors["front"]["rejected"]
        text = httpx.get(f"{url}/metrics").text
    assert 'forcing_readings_rejected_total{policy="arm",stream="front"}' in text


def test_a_policy_that_believes_says_how_surprised_it_is(doubting: Policy) -> None:
    believing = doubting.using(memory=replace(PRESET.memory or MemoryConfig(), doubt=False))
    with serving([believing]) as url, Client(url) as client:
        session = client.open("arm", seed=5)
        result = session.act({"hand": np.array([0.5, 0.5]), "front": DARK})
    assert not result.sensors["front"]["rejected"]
    assert result.sensors["front"]["surprise"] > 3
