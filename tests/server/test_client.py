"""The client against a real server, in both encodings and over a connection that breaks."""

import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import closing

import numpy as np
import pytest
from numpy.typing import NDArray

from forcing.policy.controller import Controller
from forcing.policy.planner import PlanRequest
from forcing.policy.policy import Policy
from forcing.policy.types import Decision, Obstacles, Plan
from forcing.server.client import Client, Encoding, ServerProblem, ServerUnreachable
from forcing.server.serve import serving

HERE = {"position": np.zeros(2), "velocity": np.zeros(2)}


def walk(steps: int) -> list[dict[str, NDArray[np.float64]]]:
    rng = np.random.default_rng(7)
    return [{"position": rng.normal(size=2), "velocity": rng.normal(size=2)} for _ in range(steps)]


def in_process(policy: Policy, observations: list[dict[str, NDArray[np.float64]]]) -> list[Decision]:
    controller = Controller(policy, goal=np.array([1.0, -1.0]), seed=11)
    decisions = []
    for step, observation in enumerate(observations):
        if step == 6:
            controller.set_goal(np.array([0.5, 0.1]))
        noise = {"position": 0.3} if step == 4 else None
        controller.observe(observation, noise=noise, missing=["velocity"] if step == 8 else ())
        if (request := controller.request()) is not None:
            controller.install(policy.plan(request))
        decisions.append(controller.decide())
    return decisions


@pytest.mark.parametrize("encoding", ["msgpack", "json"])
def test_obstacles_over_http_are_planned_around_as_in_process(url: str, policy: Policy, encoding: Encoding) -> None:
    goal, centre = np.array([1.0, -1.0]), np.array([0.4, -0.3])
    disc = Obstacles(centres=centre[None], radii=np.array([2.0]))

    def costs(obstacles: Obstacles | None) -> NDArray[np.float64]:
        controller = Controller(policy, goal=goal, seed=11)
        controller.set_obstacles(obstacles)
        controller.observe(HERE)
        request = controller.request()
        assert request is not None
        return policy.plan(request).costs

    assert (costs(disc) > costs(None)).any()
    with Client(url, encoding=encoding) as client:
        with client.open("tiny", goal=goal, obstacles=[{"centre": centre, "radius": 2.0}], seed=11) as session:
            session.act(HERE)
            plan = session.plan()
            assert plan is not None
            np.testing.assert_array_equal(plan.costs, costs(disc))
            # As before if left out; others, or none, are a reason for a new plan at once.
            assert session.act(HERE).source == "plan"
            assert session.act(HERE, obstacles=[{"centre": centre, "radius": 1.0}]).source == "fresh"
            assert session.act(HERE).source == "plan"
            assert session.act(HERE, obstacles=[]).source == "fresh"
        with client.open("tiny", goal=goal, obstacles=[{"centre": centre, "radius": 2.0}], seed=11) as session:
            session.reset()
            session.act(HERE)
            plan = session.plan()
            assert plan is not None
            np.testing.assert_array_equal(plan.costs, costs(disc))


@pytest.mark.parametrize("encoding", ["msgpack", "json"])
def test_over_http_every_number_is_that_of_the_same_controller_in_process(
    url: str, policy: Policy, encoding: Encoding
) -> None:
    observations = walk(12)
    expected = in_process(policy, observations)
    with Client(url, encoding=encoding) as client, client.open("tiny", goal=[1.0, -1.0], seed=11) as session:
        for step, (observation, decision) in enumerate(zip(observations, expected, strict=True)):
            result = session.act(
                observation,
                goal=[0.5, 0.1] if step == 6 else None,
                noise={"position": 0.3} if step == 4 else None,
                missing=["velocity"] if step == 8 else (),
            )
            assert result.action_chunk is not None
            assert result.action.tobytes() == decision.action.astype(np.float64).tobytes()
            assert result.action_chunk.tobytes() == decision.action_chunk.astype(np.float64).tobytes()
            assert result.feasible == decision.feasible
            assert (result.step, result.source, result.valid_until_step) == (
                decision.step,
                decision.source,
                decision.valid_until_step,
            )
            assert (result.noise_level, result.spread, result.clipped) == (
                decision.noise_level,
                decision.spread,
                decision.clipped,
            )


def test_the_plan_comes_back_whole(url: str, policy: Policy) -> None:
    controller = Controller(policy, goal=np.array([1.0, -1.0]), seed=11)
    controller.observe(HERE)
    request = controller.request()
    assert request is not None
    expected = policy.plan(request)
    with Client(url) as client, client.open("tiny", goal=[1.0, -1.0], seed=11) as session:
        assert session.plan() is None
        session.act(HERE)
        plan = session.plan()
    assert plan is not None
    assert (plan.made_at_step, plan.chosen, plan.passes) == (0, expected.chosen, expected.passes)
    for ours, theirs in (
        (plan.steps, expected.steps),
        (plan.level, expected.level),
        (plan.costs, expected.costs),
        (plan.candidates, expected.candidates),
        *((plan.streams[name], expected.streams[name]) for name in expected.streams),
        *((plan.spread[name], expected.spread[name]) for name in expected.spread),
    ):
        np.testing.assert_array_equal(ours, theirs)
    assert np.isnan(plan.candidates).any(), "shorter candidates end in NaN"


def test_a_reset_replays_the_episode_and_closing_twice_is_fine(url: str) -> None:
    with Client(url) as client:
        session = client.open("tiny", goal=[1.0, 1.0], seed=1)
        first = [session.act(observation).action.tolist() for observation in walk(5)]
        session.reset()
        assert [session.act(observation).action.tolist() for observation in walk(5)] == first
        session.close()
        session.close()
        with pytest.raises(ServerProblem) as problem:
            session.act(HERE)
        assert problem.value.status == 404


def test_a_problem_carries_what_the_server_said(url: str) -> None:
    with Client(url) as client, client.open("tiny") as session:
        with pytest.raises(
            ServerProblem, match=r"observation\.position: expected shape \[2\] in m, got shape \[3\]"
        ) as e:
            session.act({"position": np.zeros(3), "velocity": np.zeros(2)})
        assert (e.value.status, e.value.type) == (422, "urn:forcing:problem:invalid-request")
        assert e.value.errors[0]["field"] == "observation.position"
        assert session.act(HERE).step == 0


def test_small_messages_are_not_held_back_by_the_network_stack(url: str) -> None:
    with Client(url) as client, client.open("tiny") as session:
        times_s = []
        for _ in range(20):
            started = time.perf_counter()
            session.act(HERE, deadline_ms=20)
            times_s.append(time.perf_counter() - started)
    assert np.median(times_s) < 0.03, "Nagle's algorithm and delayed acknowledgements together cost 0.04 s"


def test_the_one_shot_and_the_lists_of_policies(url: str) -> None:
    with Client(url) as client:
        assert client.ready()
        assert "tiny" in [policy["id"] for policy in client.policies()]
        assert client.policy("tiny")["control_hz"] == 100.0
        assert client.act_once("tiny", [HERE], goal=[1.0, 1.0]).shape[1] == 2


class Breaker:
    """A proxy that swallows the reply and hangs up as often as `breaks` says, or the request, as often as `cuts`."""

    def __init__(self, url: str) -> None:
        self.breaks = self.cuts = 0
        self._target = ("127.0.0.1", int(url.rsplit(":", 1)[1]))
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}"
        self._thread = threading.Thread(target=self._serve)
        self._thread.start()

    def close(self) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._thread.join()

    def _serve(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            with client, closing(socket.create_connection(self._target)) as server:
                self._relay(client, server)

    def _relay(self, client: socket.socket, server: socket.socket) -> None:
        """One client at a time, one request a turn; the tests' messages fit in one segment or end with a short one."""
        while True:
            request = self._message(client)
            if not request:
                return
            if self.cuts > 0:
                self.cuts -= 1
                return
            server.sendall(request)
            reply = self._message(server)
            if self.breaks > 0:
                self.breaks -= 1
                return
            client.sendall(reply)

    @staticmethod
    def _message(source: socket.socket) -> bytes:
        data = b""
        while b"\r\n\r\n" not in data:
            part = source.recv(65536)
            if not part:
                return b""
            data += part
        head, _, body = data.partition(b"\r\n\r\n")
        lengths = [line for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:")]
        wanted = int(lengths[0].split(b":")[1]) if lengths else 0
        while len(body) < wanted:
            part = source.recv(65536)
            data, body = data + part, body + part
        return data


@pytest.fixture
def breaker(url: str) -> Iterator[Breaker]:
    with closing(Breaker(url)) as proxy:
        yield proxy


def test_a_lost_reply_is_fetched_again_and_not_acted_on_twice(breaker: Breaker, url: str) -> None:
    observations = walk(6)
    with Client(url) as client, client.open("tiny", goal=[1.0, 1.0]) as session:
        expected = [session.act(observation).action.tolist() for observation in observations]
    with Client(breaker.url) as client, client.open("tiny", goal=[1.0, 1.0]) as session:
        actions = []
        for step, observation in enumerate(observations):
            breaker.breaks = 2 if step in (1, 4) else 0
            result = session.act(observation)
            assert result.step == step
            actions.append(result.action.tolist())
    assert actions == expected


def test_after_retries_run_out_the_next_act_finds_its_step_again(breaker: Breaker) -> None:
    with Client(breaker.url, retries=1) as client, client.open("tiny", goal=[1.0, 1.0]) as session:
        session.act(HERE)
        breaker.breaks = 2
        with pytest.raises(ServerUnreachable, match="2 attempts"):
            session.act(HERE)
        assert session.act(HERE).step == 2, "the server acted on step 1, its reply was lost"


@pytest.mark.parametrize("lost", ["cuts", "breaks"])
def test_a_robot_that_is_not_answered_plays_its_chunk_and_goes_on_in_step(
    breaker: Breaker, url: str, lost: str
) -> None:
    """Whether its request was lost or the answer to it."""
    with Client(breaker.url) as client, client.open("tiny", goal=[1.0, 1.0]) as session:
        first = session.drive(HERE, within_s=5)
        assert first.answered
        assert first.action_chunk is not None
        setattr(breaker, lost, 2)
        missed = [session.drive(HERE, within_s=5) for _ in range(2)]
        again = session.drive(HERE, within_s=5)
    assert [(one.answered, one.source, one.step) for one in missed] == [(False, "plan", 1), (False, "plan", 2)]
    for index, one in enumerate(missed, start=1):
        np.testing.assert_array_equal(one.action, first.action_chunk[index])
        np.testing.assert_array_equal(one.action_chunk, first.action_chunk[index:])
    assert (again.answered, again.step, again.source) == (True, 3, "plan")
    # The server has seen the first of the missed steps where only its answer was lost.
    with Client(url) as client, client.open("tiny", goal=[1.0, 1.0]) as session:
        session.act(HERE)
        session.act(HERE, missing=[] if lost == "breaks" else list(HERE))
        session.act(HERE, missing=list(HERE))
        np.testing.assert_array_equal(again.action, session.act(HERE).action)


def test_a_robot_without_any_answer_slows_to_a_stop(policy: Policy) -> None:
    with serving([policy]) as url:
        client = Client(url)
        session = client.open("tiny", goal=[1.0, 1.0])
        last = session.drive(HERE, within_s=5)
    assert last.action_chunk is not None
    played = len(last.action_chunk) - 1
    began = time.monotonic()
    alone = [session.drive(HERE, within_s=0.05, stop_steps=4) for _ in range(played + 6)]
    client.close()
    assert time.monotonic() - began < 5
    np.testing.assert_array_equal([one.action for one in alone[:played]], last.action_chunk[1:])
    shares = [0.75, 0.5, 0.25, 0, 0, 0]
    np.testing.assert_allclose([one.action for one in alone[played:]], np.outer(shares, last.action_chunk[-1]))
    assert [one.source for one in alone] == ["plan"] * played + ["hold"] * 6
    assert [one.step for one in alone] == list(range(1, played + 7))


def test_who_was_never_answered_has_nothing_to_go_on(breaker: Breaker) -> None:
    with Client(breaker.url) as client, client.open("tiny", goal=[1.0, 1.0]) as session:
        breaker.cuts = 1
        with pytest.raises(ServerUnreachable):
            session.drive(HERE, within_s=5)
        assert session.drive(HERE, within_s=5).step == 0


def test_refusals_that_will_not_pass_are_raised(url: str) -> None:
    with Client(url) as client:
        session = client.open("tiny", goal=[1.0, 1.0])
        session.drive(HERE, within_s=5)
        with pytest.raises(ServerProblem, match="422"):
            session.drive({"position": np.zeros(3), "velocity": np.zeros(2)}, within_s=5)
        session.close()
        with pytest.raises(ServerProblem, match="404"):
            session.drive(HERE, within_s=5)


def test_what_was_played_is_what_the_belief_and_the_plan_go_on_from(url: str, policy: Policy) -> None:
    own = np.array([[0.25, -0.5], [0.125, 0.0]])
    controller = Controller(policy, goal=np.array([1.0, -1.0]), seed=11)
    controller.observe(HERE)
    request = controller.request()
    assert request is not None
    controller.install(policy.plan(request))
    controller.decide()
    controller.played(own)
    controller.observe(HERE)
    expected = controller.decide()
    np.testing.assert_array_equal(list(controller._sent)[1:3], own)
    with Client(url) as client, client.open("tiny", goal=[1.0, -1.0], seed=11) as session:
        session.act(HERE)
        path, body = f"/v1/sessions/{session.id}/act", {"observation": {"position": [0, 0], "velocity": [0, 0]}}
        body["played"] = own.tolist()
        with pytest.raises(ServerProblem, match="step expected 3, got 1"):
            client.call("POST", path, body | {"request_id": "x", "step": 1})
        reply = client.call("POST", path, body | {"request_id": "y", "step": 3})
    np.testing.assert_array_equal(reply["action"], expected.action.astype(np.float64))


def test_a_robot_slows_down_no_faster_than_its_limits_allow_and_is_taken_up_from_there(breaker: Breaker) -> None:
    change = np.array([0.01, 0.02])
    with Client(breaker.url) as client:
        session = client.open("tiny", goal=[1.0, 1.0], limits={"change": change.tolist()})
        actions = [session.drive(HERE, within_s=5).action]
        for unanswered in [True] * 14 + [False] * 3:
            breaker.cuts = int(unanswered)
            actions.append(session.drive(HERE, within_s=5, stop_steps=2).action)
        session.close()
    steps = np.abs(np.diff(np.array([np.zeros(2), *actions]), axis=0))
    assert (steps <= change + 1e-12).all()


def test_after_a_long_silence_all_is_believed_anew(url: str) -> None:
    with Client(url) as client, client.open("tiny", goal=[1.0, -1.0]) as session:
        session.act(HERE)
        body = {"observation": {"position": [0.3, 0.0], "velocity": [0, 0]}, "played": np.zeros((700, 2)).tolist()}
        reply = client.call(
            "POST", f"/v1/sessions/{session.id}/act", body | {"request_id": "x", "step": 701}, within_s=3
        )
    assert (reply["source"], reply["sensors"]["position"]["unheard_steps"]) == ("fresh", 0)


class OnceBroken(Policy):
    """Plans, then fails to once, then plans again."""

    plans: int = 0

    def plan(self, request: PlanRequest) -> Plan:
        self.plans += 1
        if self.plans == 3:  # the first is the warm-up's
            raise ArithmeticError("a bad moment")
        return super().plan(request)


@pytest.mark.parametrize("stream", [False, True])
def test_a_plan_that_fails_once_costs_a_step_and_no_session(policy: Policy, stream: bool) -> None:
    with serving([OnceBroken("tiny", policy._file)]) as url, Client(url) as client:
        session = client.open("tiny", goal=[1.0, 1.0], stream=stream)
        answers = [session.drive(HERE, within_s=5) for _ in range(9)]
        session.close()
    assert [answer.answered for answer in answers] == [True] * 4 + [False] + [True] * 4
    assert [answer.step for answer in answers] == list(range(9))
    assert answers[5].source == "fresh"


def test_who_lost_the_very_first_answer_goes_on_with_the_second(breaker: Breaker) -> None:
    with Client(breaker.url) as client, client.open("tiny", goal=[1.0, 1.0]) as session:
        breaker.breaks = 1
        with pytest.raises(ServerUnreachable):
            session.drive(HERE, within_s=5)
        assert [session.drive(HERE, within_s=5).step for _ in range(2)] == [1, 2]


def test_nobody_stops_in_no_step(url: str) -> None:
    message = "stop_steps must be at least 1, got 0"
    with Client(url) as client, client.open("tiny") as session, pytest.raises(ValueError, match=message):
        session.drive(HERE, within_s=5, stop_steps=0)


def test_no_server_is_unreachable_after_the_retries() -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    with Client(f"http://127.0.0.1:{port}", retries=1) as client, pytest.raises(ServerUnreachable):
        client.policies()


def test_a_silent_server_is_unreachable_after_the_time_out() -> None:
    with (
        socket.create_server(("127.0.0.1", 0)) as silent,
        Client(f"http://127.0.0.1:{silent.getsockname()[1]}", timeout_s=0.1) as client,
        pytest.raises(ServerUnreachable, match="ReadTimeout"),
    ):
        client.policies()


def test_the_client_imports_neither_torch_nor_the_server_framework() -> None:
    code = "import sys, forcing.server.client; print(*sorted({name.partition('.')[0] for name in sys.modules}))"
    modules = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert {"httpx", "numpy"} <= set(modules)
    assert not {"torch", "fastapi", "starlette", "pydantic", "uvicorn"} & set(modules)
