"""openpi's own client, unchanged, against a server on a real socket."""

from collections.abc import Callable, Iterator

import httpx
import msgpack
import numpy as np
import pytest
from openpi_client import msgpack_numpy
from openpi_client.action_chunk_broker import ActionChunkBroker
from openpi_client.websocket_client_policy import WebsocketClientPolicy
from websockets.exceptions import InvalidStatus
from websockets.sync.client import ClientConnection, connect

from forcing.policy.policy import Policy
from forcing.server.serve import serving
from forcing.server.service import ServerSettings

# The stock client connects as newer versions of websockets would rather not have it.
pytestmark = pytest.mark.filterwarnings("ignore:connect\\(\\) must be used as a context manager:DeprecationWarning")
GOAL = np.array([1.0, 2.0])
TOKEN = "not-a-secret-0123456789"


@pytest.fixture(scope="module")
def url(policy: Policy) -> Iterator[str]:
    with serving([policy, Policy("other", policy._file)]) as http:
        yield http.replace("http", "ws")


Connect = Callable[..., WebsocketClientPolicy]


@pytest.fixture
def stock() -> Iterator[Connect]:
    """Makes stock clients; their connections end with the test."""
    made: list[WebsocketClientPolicy] = []

    def make(url: str, api_key: str | None = None) -> WebsocketClientPolicy:
        made.append(WebsocketClientPolicy(url, api_key=api_key))
        return made[-1]

    yield make
    for client in made:
        client._ws.close()


def _sensed(step: int = 0) -> dict[str, np.ndarray]:
    return {"position": np.array([0.01 * step, 0.0]), "velocity": np.array([1.0, 0.0], dtype=np.float32)}


def _active(url: str) -> float:
    lines = httpx.get(f"{url.replace('ws', 'http', 1)}/metrics").text.splitlines()
    return next(float(line.split()[1]) for line in lines if line.startswith("forcing_sessions_active "))


@pytest.mark.parametrize(("path", "named"), [("", "tiny"), ("/", "tiny"), ("/v1/openpi/other", "other")])
def test_the_first_frame_describes_the_policy_with_an_example_that_is_answered(
    stock: Connect, url: str, path: str, named: str
) -> None:
    client = stock(f"{url}{path}")
    described = client.get_server_metadata()
    example = described.pop("example")
    assert described == httpx.get(f"{url.replace('ws', 'http', 1)}/v1/policies/{named}").json()
    assert {name: value.shape for name, value in example.items()} == {"position": (2,), "velocity": (2,), "goal": (2,)}
    assert client.infer(example)["actions"].shape == (8, 2)


def test_without_steps_every_message_is_answered_as_one_shot(stock: Connect, url: str, policy: Policy) -> None:
    """The same actions as POST /v1/act gives for this observation, whatever came before."""
    client, http = stock(url), url.replace("ws", "http", 1)
    for step in (3, 0, 7):
        answer = client.infer({**_sensed(step), "goal": GOAL, "seed": 5})
        history = [{name: value.tolist() for name, value in _sensed(step).items()}]
        body = {"policy": "tiny", "history": history, "goal": GOAL.tolist(), "seed": 5}
        np.testing.assert_array_equal(answer["actions"], httpx.post(f"{http}/v1/act", json=body).json()["action_chunk"])
        assert answer["source"] == "fresh"
        assert answer["server_timing"]["infer_ms"] >= answer["policy_timing"]["infer_ms"] > 0
    assert _active(url) == 0


def test_with_steps_a_connection_is_a_session_and_ends_with_it(url: str) -> None:
    http = url.replace("ws", "http", 1)
    with connect(f"{url}/v1/openpi/tiny", compression=None) as connection:
        connection.recv()
        answers = [_ask(connection, {**_sensed(step), "goal": GOAL, "step": step}) for step in range(3)]
        assert _active(url) == 1
    assert [answer["source"] for answer in answers] == ["fresh", "plan", "plan"]
    assert [answer["step"] for answer in answers] == [0, 1, 2]
    opened = httpx.post(f"{http}/v1/sessions", json={"policy": "tiny", "goal": GOAL.tolist()}).json()["session_id"]
    for step, answer in enumerate(answers):
        observation = {name: value.tolist() for name, value in _sensed(step).items()}
        body = {"request_id": str(step), "step": step, "observation": observation}
        reply = httpx.post(f"{http}/v1/sessions/{opened}/act", json=body).json()
        np.testing.assert_array_equal(answer["actions"], reply["action_chunk"])
    httpx.delete(f"{http}/v1/sessions/{opened}")
    assert _active(url) == 0


def test_who_plays_whole_chunks_says_which_step_it_is(stock: Connect, url: str) -> None:
    broker = ActionChunkBroker(stock(url), action_horizon=3)
    sources = []
    for step in range(10, 19):
        answer = broker.infer({**_sensed(step), "goal": GOAL, "step": step})
        assert answer["actions"].shape == (2,)
        sources.append((answer["step"], answer["source"]))
    # Three messages: the steps between them are made up for, so that the plan (of 4 steps) goes on in time.
    assert sorted({step for step, _ in sources}) == [0, 3, 6]


def test_a_reset_begins_at_any_step_and_an_earlier_step_needs_one(stock: Connect, url: str) -> None:
    client = stock(url)
    client.infer({**_sensed(), "goal": GOAL, "step": 7})
    for step in (7, 6, 2000):
        with pytest.raises(RuntimeError, match=f"step: expected from 8 on, .* got {step}"):
            client.infer({**_sensed(), "step": step})
    assert client.infer({**_sensed(), "goal": GOAL, "step": 2, "reset": True})["source"] == "fresh"
    assert client.infer({**_sensed(), "step": 3})["source"] == "plan"


@pytest.mark.parametrize(
    ("message", "said"),
    [
        ({**_sensed(), "goal": GOAL, "positon": 1.0}, "positon: expected no such field; did you mean 'position'"),
        ({"position": np.zeros(2), "goal": GOAL}, "observation 'velocity'|velocity"),
        ({**_sensed(), "goal": np.zeros(3)}, r"goal: expected shape \[2\] in m, got shape \[3\]"),
        ({**_sensed(), "goal": GOAL, "noise": {"position": 0.1}}, "noise: expected a step beside it"),
        ({**_sensed(), "goal": GOAL, "obstacles": []}, "obstacles: expected a step beside it"),
        ({**_sensed(), "goal": GOAL, "step": -1}, "step: expected greater than or equal to 0"),
        ({**_sensed(), "goal": GOAL, "step": np.float64(0.5)}, "step: expected a valid integer"),
        ({**_sensed(), "position": "here", "goal": GOAL}, "position"),
    ],
)
def test_a_message_that_is_wrong_is_answered_by_text_and_the_robot_goes_on(
    stock: Connect, url: str, message: dict[str, object], said: str
) -> None:
    client = stock(url)
    with pytest.raises(RuntimeError, match=f"422 A field breaks its rule: .*{said}"):
        client.infer(message)
    assert client.infer({**_sensed(), "goal": GOAL})["actions"].shape == (8, 2)


@pytest.mark.parametrize(
    "data",
    [
        b"\xc1",
        b"",
        msgpack.packb([1, 2]),
        msgpack.packb({1: 2}),
        msgpack.packb(msgpack.ExtType(1, b"x")),
        msgpack.packb({"position": {b"__ndarray__": True, b"data": b"x" * 8, b"dtype": "O", b"shape": [1]}}),
        msgpack.packb({"position": {b"__npgeneric__": True, b"data": b"x", b"dtype": "<f8"}}),
        msgpack.packb({"position": {b"__npgeneric__": True, b"data": 1.0, b"dtype": "object"}}),
        "text",
    ],
)
def test_what_is_no_map_of_numbers_is_refused_in_words(url: str, data: bytes | str) -> None:
    with connect(url, compression=None) as connection:
        connection.recv()
        connection.send(data)
        answer = connection.recv()
        assert isinstance(answer, str)
        assert answer.startswith(("400 The body cannot be decoded: ", "422 A field breaks its rule: "))
        assert "Traceback" not in answer
        assert _ask(connection, {**_sensed(), "goal": GOAL})["actions"].shape == (8, 2)


def test_a_policy_that_is_not_served_is_named_and_the_connection_ends(url: str) -> None:
    with connect(f"{url}/v1/openpi/tinny", compression=None) as connection:
        assert "did you mean 'tiny'" in str(connection.recv())
        assert connection.close_code is None or connection.close_code == 1008


def test_a_message_that_is_too_long_ends_the_connection_and_nothing_else(policy: Policy) -> None:
    with serving([policy], settings=ServerSettings(max_body_bytes=10_000)) as http:
        with connect(http.replace("http", "ws"), compression=None) as connection:
            connection.recv()
            connection.send(b"x" * 10_001)
            with pytest.raises(Exception, match="1009"):
                connection.recv()
        assert httpx.get(f"{http}/healthz").status_code == 200


def test_with_a_token_the_stock_client_sends_it_as_its_api_key(stock: Connect, policy: Policy) -> None:
    with serving([policy], settings=ServerSettings(token=TOKEN)) as http:
        socket = http.replace("http", "ws")
        assert stock(socket, TOKEN).infer({**_sensed(), "goal": GOAL})["source"] == "fresh"
        for wrong in (None, "wrong"):
            with pytest.raises(InvalidStatus, match="401"):
                stock(socket, wrong)


def _ask(connection: ClientConnection, message: dict[str, object]) -> dict[str, np.ndarray]:
    connection.send(msgpack_numpy.packb(message))
    answer = connection.recv()
    assert isinstance(answer, bytes), answer
    unpacked: dict[str, np.ndarray] = msgpack_numpy.unpackb(answer)
    return unpacked
