"""Acts over a WebSocket, from the client and bare."""

import contextlib
import json
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import cast

import msgpack
import numpy as np
import pytest
import trustme
from websockets.exceptions import ConnectionClosedError
from websockets.sync.client import ClientConnection, connect

from forcing.policy.policy import Policy
from forcing.server.client import Client, Encoding, ServerProblem, ServerUnreachable, Session
from forcing.server.serve import Certificate, serving
from forcing.server.service import ServerSettings

HERE = {"position": np.zeros(2), "velocity": np.zeros(2)}
PLAIN = {"position": [0.0, 0.0], "velocity": [0.0, 0.0]}


def _bare(url: str, session: Session) -> ClientConnection:
    return connect(f"{url.replace('http', 'ws')}/v1/sessions/{session.id}/stream")


@pytest.mark.parametrize("encoding", ["msgpack", "json"])
def test_over_a_stream_every_number_is_that_over_requests(url: str, encoding: Encoding) -> None:
    rng = np.random.default_rng(3)
    observations = [{"position": rng.normal(size=2), "velocity": rng.normal(size=2)} for _ in range(9)]
    with Client(url, encoding=encoding) as client:
        with client.open("tiny", goal=[1.0, -1.0], seed=4) as session:
            expected = [session.act(observation, want=["action_chunk", "spread"]) for observation in observations]
        with client.open("tiny", goal=[1.0, -1.0], seed=4, stream=True) as session:
            for observation, one in zip(observations, expected, strict=True):
                answer = session.act(observation, want=["action_chunk", "spread"])
                np.testing.assert_array_equal(answer.action_chunk, one.action_chunk)
                assert (answer.step, answer.source, answer.spread) == (one.step, one.source, one.spread)


def test_the_answer_comes_in_the_kind_of_the_message(url: str) -> None:
    with Client(url) as client, client.open("tiny", goal=[1.0, 1.0]) as session, _bare(url, session) as socket:
        socket.send(json.dumps({"request_id": "a", "step": 0, "observation": PLAIN}))
        first = json.loads(socket.recv())
        socket.send(msgpack.packb({"request_id": "b", "step": 1, "observation": PLAIN, "want": []}))
        second = msgpack.unpackb(cast(bytes, socket.recv()))
    assert (first["request_id"], first["step"], second["request_id"], second["step"]) == ("a", 0, "b", 1)
    assert "action_chunk" not in second


@pytest.mark.parametrize(
    ("message", "status", "detail"),
    [
        ("{", 400, "the message is not valid application/json"),
        (b"\xc1", 400, "the message is not valid application/msgpack"),
        ("[]", 422, "body: expected"),
        ('{"request_id": "a", "step": 0}', 422, "observation: expected a value, got nothing"),
        (json.dumps({"request_id": "a", "step": 0, "observaton": PLAIN}), 422, "did you mean 'observation'?"),
        (json.dumps({"request_id": "a", "step": 5, "observation": PLAIN}), 409, "step expected 0, got 5"),
    ],
)
def test_what_is_wrong_is_a_problem_document_and_the_stream_goes_on(
    url: str, message: str | bytes, status: int, detail: str
) -> None:
    with Client(url) as client, client.open("tiny", goal=[1.0, 1.0]) as session, _bare(url, session) as socket:
        socket.send(message)
        answer = socket.recv()
        told = msgpack.unpackb(answer) if isinstance(answer, bytes) else json.loads(answer)
        assert told["status"] == status
        assert detail in told["detail"]
        socket.send(json.dumps({"request_id": "b", "step": 0, "observation": PLAIN}))
        assert json.loads(socket.recv())["source"] == "fresh"


def test_a_client_is_told_of_refusals_over_a_stream(url: str) -> None:
    with Client(url) as client:
        session = client.open("tiny", goal=[1.0, 1.0], stream=True)
        with pytest.raises(ServerProblem, match=r"422 .* observation\.position"):
            session.act({"position": np.zeros(3), "velocity": np.zeros(2)})
        assert session.act(HERE).step == 0
        session.close()
        with pytest.raises(ServerProblem, match="404"):
            session.act(HERE)


@pytest.mark.parametrize("when", ["before", "after"])
def test_a_stream_that_breaks_is_made_anew_and_nothing_is_acted_on_twice(
    url: str, when: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whether it broke before the server heard of the act or after."""
    with Client(url) as client, client.open("tiny", goal=[1.0, 1.0], stream=True) as session:
        session.act(HERE)
        stream = session._stream
        assert stream is not None
        assert stream._connection is not None
        broken = stream._connection

        def lost(timeout: float | None = None) -> bytes:
            monkeypatch.undo()
            broken.recv(timeout)
            raise ConnectionClosedError(None, None)

        if when == "before":
            broken.close()
        else:
            monkeypatch.setattr(broken, "recv", lost)
        assert session.act(HERE).step == 1
        assert stream._connection is not broken
        assert session.act(HERE).step == 2


def test_an_answer_that_comes_too_late_is_not_taken_for_the_next(gated: Policy) -> None:
    gate = cast(threading.Event, gated.gate)  # type: ignore[attr-defined]
    with serving([gated]) as url, Client(url) as client:
        session = client.open(gated.name, goal=[1.0, 1.0], stream=True)
        first = session.drive(HERE, within_s=5)
        gate.clear()
        threading.Timer(0.5, gate.set).start()
        began, answers = time.monotonic(), [first]
        while time.monotonic() - began < 1.5:
            answers.append(session.drive(HERE, within_s=0.04, goal=[0.5, 0.5]))
            time.sleep(0.02)
        session.close()
    assert [answer.step for answer in answers] == list(range(len(answers)))
    assert answers[-1].answered


def test_a_frozen_server_costs_no_more_than_was_allowed(policy_dir: Path) -> None:
    command = [sys.executable, "-m", "forcing", "serve", "--policy", str(policy_dir), "--port", "0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:
        try:
            assert server.stdout is not None
            url = server.stdout.readline().split()[-1]
            with Client(url) as client:
                session = client.open("tiny", goal=[1.0, 1.0], stream=True)
                session.drive(HERE, within_s=5)
                server.send_signal(signal.SIGSTOP)
                began = time.monotonic()
                alone = [session.drive(HERE, within_s=0.05) for _ in range(4)]
                assert time.monotonic() - began < 1.5
                server.send_signal(signal.SIGCONT)
                assert session.drive(HERE, within_s=5).step == 5
                session.close()
            assert not any(answer.answered for answer in alone)
        finally:
            server.kill()


def test_a_silent_server_is_unreachable_over_a_stream_after_the_time_out(gated: Policy) -> None:
    gate = cast(threading.Event, gated.gate)  # type: ignore[attr-defined]
    with serving([gated]) as url, Client(url, timeout_s=0.2) as client:
        session = client.open(gated.name, goal=[1.0, 1.0], stream=True)
        gate.clear()
        with pytest.raises(ServerUnreachable, match="no answer to an act in time"):
            session.act(HERE)
        gate.set()
        session.close()


def _driven(session: Session) -> str:
    with session:
        return session.act(HERE).source


@pytest.fixture
def certificate(tmp_path: Path) -> tuple[Certificate, Path]:
    root = trustme.CA()
    issued = root.issue_cert("127.0.0.1")
    issued.private_key_pem.write_to_path(str(tmp_path / "key.pem"))
    issued.cert_chain_pems[0].write_to_path(str(tmp_path / "chain.pem"))
    root.cert_pem.write_to_path(str(tmp_path / "root.pem"))
    return Certificate(tmp_path / "chain.pem", tmp_path / "key.pem"), tmp_path / "root.pem"


def test_streams_carry_the_token_over_tls(policy: Policy, certificate: tuple[Certificate, Path]) -> None:
    files, root = certificate
    token = "not-a-secret-0123456789"
    settings = ServerSettings(token=token)
    with (
        serving([policy], settings=settings, certificate=files) as url,
        Client(url, token=token, authorities=root) as client,
        Client(url, token="wrong-0123456789", authorities=root) as stranger,
    ):
        assert _driven(client.open("tiny", goal=[1.0, 1.0], stream=True)) == "fresh"
        with pytest.raises(ServerProblem, match="401"):
            stranger.stream("x").ask({"request_id": "a"}, within_s=5)


def test_a_server_that_shuts_down_does_not_wait_for_open_streams(policy: Policy) -> None:
    with contextlib.ExitStack() as stack:
        url = stack.enter_context(serving([policy]))
        with Client(url, retries=0) as client:
            session = client.open("tiny", goal=[1.0, 1.0], stream=True)
            session.act(HERE)
            began = time.monotonic()
            stack.close()
            assert time.monotonic() - began < 3
            with pytest.raises(ServerUnreachable):
                session.act(HERE)
