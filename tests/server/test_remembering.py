"""A policy that remembers, trained for two steps and served on a real socket: an arm that is told where to be.

Its tokens are 3 steps at 10 Hz; places are 0.25 to 0.75 m along x and -0.5 to 0.5 m along y, so that zero is none.
"""

import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from numpy.typing import NDArray

from forcing.policy.cameras import encoded, fit_codecs, fit_normaliser
from forcing.policy.controller import Controller
from forcing.policy.denoiser import DenoiserConfig
from forcing.policy.histories import Episodes
from forcing.policy.memory import MemoryConfig
from forcing.policy.planner import PlannerConfig, PlanRequest
from forcing.policy.policy import Policy, load_policy
from forcing.policy.preset import OptimiserConfig, Preset
from forcing.policy.schedules import Schedule
from forcing.policy.tokens import TokenLayout
from forcing.policy.tracker import TrackerConfig
from forcing.policy.training import Budget, Trainer, train
from forcing.policy.types import Array, Plan, StreamSpec, Trajectories, TrajectorySpec
from forcing.server.client import ActResult, Client, ServerProblem, Session
from forcing.server.serve import serving
from forcing.server.service import ServerSettings

LOW, HIGH = np.array([0.25, -0.5]), np.array([0.75, 0.5])
SPEC = TrajectorySpec(
    streams=(
        StreamSpec(name="hand", role="observation", shape=(2,), units="m"),
        StreamSpec(name="front", role="observation", shape=(20, 16, 3)),
        StreamSpec(name="action", role="action", shape=(2,), units="m", low=tuple(LOW), high=tuple(HIGH)),
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
    memory=MemoryConfig(show_actions=True),
)


def _frame(at: Array) -> NDArray[np.uint8]:
    """A bright square in the dark."""
    frame = np.full((20, 16, 3), 20, dtype=np.uint8)
    row, column = (np.asarray(at) * 12).astype(int)
    frame[abs(row) : abs(row) + 5, abs(column) : abs(column) + 5] = (250, 40, 90)
    return frame


def _recorded() -> Trajectories:
    """Six hands that go to a place."""
    rng, rows = np.random.default_rng(0), dict[str, list[Array]](hand=[], front=[], action=[])
    for _ in range(6):
        place, hand = rng.uniform(LOW, HIGH), [rng.uniform(LOW, HIGH)]
        for _ in range(20):
            hand.append(hand[-1] + 0.2 * (place - hand[-1]))
        rows["hand"].append(np.array(hand))
        rows["front"].append(np.stack([_frame(at) for at in hand]))
        rows["action"].append(np.tile(place, (20, 1)))
    streams = {name: np.concatenate(parts) for name, parts in rows.items()}
    frames = {"front": streams.pop("front")}
    return Trajectories(spec=SPEC, streams=streams, frames=frames, lengths=np.full(6, 20))


class Gated(Policy):
    """Plans only while its gate is open."""

    gate: threading.Event

    def plan(self, request: PlanRequest) -> Plan:
        assert self.gate.wait(20), "the test never opened the gate"
        return super().plan(request)


@pytest.fixture(scope="module")
def arm_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder, recorded = tmp_path_factory.mktemp("policies") / "arm", _recorded()
    cameras = fit_codecs(recorded)
    seen = encoded(recorded, cameras)
    trainer = Trainer(PRESET, Episodes(seen), fit_normaliser(seen, cameras), cameras=cameras)
    train(trainer, Budget(steps=2), folder, {})
    return folder


@pytest.fixture(scope="module")
def arm(arm_dir: Path) -> Policy:
    return load_policy(str(arm_dir))


@pytest.fixture
def gated(arm: Policy) -> Iterator[Gated]:
    policy = Gated("arm", arm._file)
    policy.gate = threading.Event()
    policy.gate.set()
    yield policy
    policy.gate.set()


@pytest.fixture(scope="module")
def url(arm: Policy) -> Iterator[str]:
    with serving([arm]) as address:
        yield address


def _seen(step: int) -> dict[str, Array]:
    at = np.array([0.3 + step / 50, step / 40])
    return {"hand": at, "front": _frame(at)}


def _plain(observation: Mapping[str, Array]) -> dict[str, Any]:
    return {name: value.tolist() for name, value in observation.items()}


def _lost(step: int) -> list[str]:
    return {0: ["hand"], 4: ["front"], 5: ["hand", "front"]}.get(step, [])


OWN = np.array([[0.4, 0.1], [0.5, 0.2]])  # played in place of steps 7 and 8
STEPS = (0, 1, 2, 3, 4, 5, 6, 9, 10, 11, 12)


def _in_process(policy: Policy, steps: Sequence[int] = STEPS, seed: int = 3) -> list[list[float]]:
    controller, actions = Controller(policy, goal=None, seed=seed), []
    for step in steps:
        if step == 9:
            controller.played(OWN)
        controller.observe(_seen(step), missing=_lost(step))
        if (request := controller.request()) is not None:
            controller.install(policy.plan(request))
        actions.append(controller.decide().action.tolist())
    return actions


def _driven(session: Session, steps: Sequence[int] = STEPS) -> list[ActResult]:
    answers = []
    for step in steps:
        if step == 9:  # as `drive` has it where no answer came
            session._played, session.step = list(OWN), 9
        answers.append(session.act(_seen(step), missing=_lost(step)))
    return answers


@pytest.mark.parametrize("stream", [False, True])
def test_over_a_socket_every_action_is_that_of_the_controller_in_process(url: str, arm: Policy, stream: bool) -> None:
    with Client(url) as client, client.open("arm", seed=3, stream=stream) as session:
        answers = _driven(session)
    assert [answer.action.tolist() for answer in answers] == _in_process(arm)
    assert [answer.step for answer in answers] == list(STEPS)
    assert {answer.source for answer in answers} == {"fresh", "plan"}
    assert [answers[index].sensors["front"]["unheard_steps"] for index in (3, 4, 5, 6)] == [0, 1, 2, 0]


def test_a_reset_forgets(url: str) -> None:
    with Client(url) as client, client.open("arm", seed=3) as session:
        first = [answer.action.tolist() for answer in _driven(session)]
        session.reset()
        assert [answer.action.tolist() for answer in _driven(session)] == first
        # The same readings as at the beginning, and another past: another action.
        session._played = []
        assert session.act(_seen(0), missing=_lost(0)).action.tolist() != first[0]


def test_a_plan_from_nothing_seen_is_whole_in_json(url: str) -> None:
    with Client(url, encoding="json") as client, client.open("arm") as session:
        assert session.plan() is None
        session.act({}, missing=["hand", "front"])
        plan = session.plan()
        assert plan is not None
        assert all(np.isfinite(values).all() for values in (*plan.start.values(), *plan.streams.values()))
        np.testing.assert_array_equal(plan.start["hand"], plan.streams["hand"][0])


def test_one_shot_is_answered_from_the_history_that_comes_with_it(url: str, arm: Policy) -> None:
    history = [_seen(step) for step in range(8)]
    controller = Controller(arm, goal=None, seed=5)
    for observation in history[:-1]:
        controller.observe(observation)
        controller.passed()  # what was done between them nobody says
    controller.observe(history[-1])
    request = controller.request()
    assert request is not None
    assert request.recalled is not None
    assert np.isnan(request.recalled.actions).all()
    controller.install(arm.plan(request))
    with Client(url) as client:
        chunk = client.act_once("arm", history, seed=5)
        np.testing.assert_array_equal(chunk, controller.decide().action_chunk)
        assert not np.array_equal(client.act_once("arm", [history[0], *history[2:]], seed=5), chunk)
        assert not np.array_equal(client.act_once("arm", history[-1:], seed=5), chunk)


@pytest.mark.parametrize(
    ("path", "fields", "field", "expected"),
    [
        ("sessions", {"obstacles": [{"centre": [0.5, 0.0], "radius": 0.1}]}, "obstacles", "nothing: this policy knows"),
        ("sessions", {"goal": [0.5, 0.0]}, "goal", "nothing"),
        ("act", {"obstacles": [{"centre": [0.5, 0.0], "radius": 0.1}]}, "obstacles", "nothing: this policy knows no"),
        ("act", {"goal": [0.5, 0.0]}, "goal", "nothing"),
    ],
)
def test_goals_and_obstacles_are_refused_by_name(
    url: str, path: str, fields: dict[str, Any], field: str, expected: str
) -> None:
    opened = {"policy": "arm"} | (fields if path == "sessions" else {})
    answer = httpx.post(f"{url}/v1/sessions", json=opened)
    if path == "act":
        body = {"request_id": "a", "step": 0, "observation": _plain(_seen(0)), **fields}
        answer = httpx.post(f"{url}/v1/sessions/{answer.json()['session_id']}/act", json=body)
    assert answer.status_code == 422
    (error,) = answer.json()["errors"]
    assert error["field"] == field
    assert error["expected"].startswith(expected)


def _raw(url: str, session: Session, number: int, **fields: Any) -> httpx.Response:
    """An act of step 0."""
    body = {"request_id": f"r{number}", "step": 0, "observation": _plain(_seen(number)), "deadline_ms": 1, **fields}
    return httpx.post(f"{url}/v1/sessions/{session.id}/act", json=body)


def test_before_the_first_plan_no_action_is_made_up_and_the_robot_may_ask_again_with_what_it_sees_then(
    gated: Gated, arm: Policy
) -> None:
    with serving([gated]) as url, Client(url) as client, client.open("arm", seed=3) as session:
        gated.gate.clear()
        for number in (0, 1, 1):
            refused = _raw(url, session, number)
            assert refused.status_code == 503
            assert refused.json()["type"] == "urn:forcing:problem:no-plan-yet"
            assert refused.json()["detail"] == (
                "policy 'arm' has no plan at step 0, and no action to hold with; "
                "hold your place and send what is sensed then, for this step again"
            )
        with pytest.raises(ServerProblem, match="503 There is no plan yet"):
            session.act(_seen(2), deadline_ms=1)
        gated.gate.set()
        answer = session.act(_seen(3))
        assert (answer.step, answer.source) == (0, "plan")
        # Made from what was seen when it was asked for; what is seen later is remembered in its place.
        assert answer.action.tolist() == _unlost(arm, [_seen(0)])[-1]
        actions = [session.act(_seen(3 + step)).action.tolist() for step in (1, 2, 3)]
        assert actions[-1] == _unlost(arm, [_seen(3), _seen(4), _seen(5), _seen(6)], [answer.action, *actions[:2]])[-1]


def _unlost(policy: Policy, observations: Sequence[Mapping[str, Array]], done: Sequence[Any] = ()) -> list[list[float]]:
    """What is decided on at the last of these, all of them seen, if `done` was done before."""
    controller = Controller(policy, goal=None, seed=3)
    for observation, action in zip(observations, [*done, None], strict=True):
        controller.observe(observation)
        if (request := controller.request()) is not None:
            controller.install(policy.plan(request))
        decided = controller.decide().action.tolist()
        if action is not None:
            controller.correct(np.array(action))
    return [decided]


def test_with_a_plan_a_missed_deadline_follows_it_and_the_next_comes_when_it_is_there(
    gated: Gated, arm: Policy
) -> None:
    with serving([gated]) as url, Client(url) as client, client.open("arm", seed=3) as session:
        answers = [session.act(_seen(step)) for step in range(3)]
        gated.gate.clear()
        answers += [session.act(_seen(step), deadline_ms=1) for step in (3, 4)]
        assert [answer.source for answer in answers] == ["fresh", *["plan"] * 4]
        first = session.plan()
        assert first is not None
        np.testing.assert_allclose([answer.action for answer in answers], first.streams["action"][:5], atol=1e-6)
        gated.gate.set()
        answers.append(session.act(_seen(5)))
        late = session.plan()
    assert late is not None
    assert late.made_at_step == 3
    np.testing.assert_allclose(answers[-1].action, np.clip(late.streams["action"][2], LOW, HIGH), atol=1e-6)


@pytest.mark.parametrize("stream", [False, True])
def test_whoever_waits_for_no_plan_is_never_sent_to_a_place_that_nobody_planned(url: str, stream: bool) -> None:
    with Client(url) as client, client.open("arm", seed=3, stream=stream) as session:
        answers, refused = list[ActResult](), list[str]()
        while len(answers) < 30:
            try:
                answers.append(session.act(_seen(len(answers)), deadline_ms=1))
            except ServerProblem as problem:
                refused.append(problem.type)
                time.sleep(0.01)
    assert set(refused) <= {"urn:forcing:problem:no-plan-yet"}
    assert [answer.step for answer in answers] == list(range(30)), "after the first plan every act is answered"
    assert {answer.source for answer in answers} <= {"fresh", "plan"}
    places = np.array([answer.action for answer in answers])
    assert ((places >= LOW - 1e-6) & (places <= HIGH + 1e-6)).all()


def test_limits_of_change_hold_from_the_first_place_on_and_not_from_zero(url: str) -> None:
    change = np.array([0.001, 0.002])
    with Client(url) as client:
        with client.open("arm", seed=3) as free:
            first = free.act(_seen(0)).action
        with client.open("arm", seed=3, limits={"change": change.tolist()}) as session:
            for _ in range(2):
                answers = [session.act(_seen(step)) for step in range(4)]
                np.testing.assert_array_equal(answers[0].action, first)
                steps = np.abs(np.diff([answer.action for answer in answers], axis=0))
                assert (steps <= change + 1e-9).all()
                assert steps.max() > 0
                session.reset()


@pytest.mark.parametrize("stream", [False, True])
def test_a_driven_robot_waits_for_its_first_plan_and_for_no_other(gated: Gated, stream: bool) -> None:
    with serving([gated]) as url, Client(url) as client, client.open("arm", stream=stream) as session:
        session.drive(_seen(0), within_s=1.0)
        session.reset()
        gated.gate.clear()
        opener = threading.Timer(0.7, gated.gate.set)
        opener.start()
        first = session.drive(_seen(0), within_s=1.0)
        opener.join()  # it came before the plan
        assert (first.answered, first.step, first.source) == (True, 0, "plan")
        gated.gate.clear()
        driven = [session.drive(_seen(step), within_s=1.0) for step in range(1, 5)]
        assert [answer.step for answer in driven] == [1, 2, 3, 4]
        assert {answer.source for answer in driven if answer.answered} == {"plan"}
        gated.gate.set()


def test_a_driven_robot_waits_no_longer_than_its_client_would(gated: Gated) -> None:
    with serving([gated]) as url, Client(url, timeout_s=0.3) as client, client.open("arm") as session:
        gated.gate.clear()
        with pytest.raises(ServerProblem, match="503 There is no plan yet"):
            session.drive(_seen(0), within_s=0.2)
        gated.gate.set()


@contextmanager
def _process(arm_dir: Path, state: Path) -> Iterator[str]:
    """A server of its own, killed in the end."""
    command = [sys.executable, "-m", "forcing", "serve", "--policy", str(arm_dir), "--port", "0"]
    command += ["--state-dir", str(state)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as server:
        try:
            assert server.stdout is not None
            yield server.stdout.readline().split()[-1]
            time.sleep(0.3)  # what was answered is written soon, not at once
        finally:
            server.kill()


@pytest.mark.parametrize(("killed", "stops"), [(False, (2, 5, 8, 11)), (True, (5, 11))])
def test_a_session_goes_on_with_all_that_it_remembered_after_a_restart(
    arm: Policy, arm_dir: Path, tmp_path: Path, killed: bool, stops: Sequence[int]
) -> None:
    actions, session = list[list[float]](), ""
    for stop in stops:
        settings = ServerSettings(state_dir=tmp_path)
        with _process(arm_dir, tmp_path) if killed else serving([arm], settings=settings) as url:
            if not session:
                session = httpx.post(f"{url}/v1/sessions", json={"policy": "arm", "seed": 3}).json()["session_id"]
            for step in STEPS[len(actions) : stop]:
                seen = {name: value for name, value in _plain(_seen(step)).items() if name not in _lost(step)}
                body = {"request_id": f"r{step}", "step": step, "observation": seen, "missing": _lost(step)}
                body |= {"played": OWN.tolist()} if step == 9 else {}
                answer = httpx.post(f"{url}/v1/sessions/{session}/act", json=body)
                actions.append(answer.raise_for_status().json()["action"])
    assert actions == _in_process(arm)


def test_a_session_that_had_no_plan_yet_goes_on_from_what_is_seen_then(
    gated: Gated, arm: Policy, tmp_path: Path
) -> None:
    settings = ServerSettings(state_dir=tmp_path)
    with serving([gated], settings=settings) as url:
        client = Client(url)
        session = client.open("arm", seed=3)
        gated.gate.clear()
        for number in (0, 1):
            assert _raw(url, session, number).status_code == 503
        gated.gate.set()
        client.close()
    with serving([arm], settings=settings) as url:
        answer = _raw(url, session, 2, deadline_ms=None)
        assert (answer.status_code, answer.json()["source"]) == (200, "fresh")
        assert answer.json()["action"] == _unlost(arm, [_seen(2)])[-1]
