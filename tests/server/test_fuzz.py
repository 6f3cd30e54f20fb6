"""Bodies, sockets and clients that no sane client sends: nothing hangs, nothing leaks, and no answer is a 500."""

import contextlib
import random
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import msgpack
import pytest

from forcing.policy.policy import Policy
from forcing.server import codec
from forcing.server.serve import serving
from forcing.server.service import ServerSettings

BODIES = 10_000
CONNECTIONS = 2_000
ODD: tuple[Any, ...] = (
    *(None, True, -1, 0, 2**63, -(2**63), 1e308, float("nan"), float("inf"), "", "\x00", "ä" * 300, b"\xff" * 9),
    *(
        [],
        [[]],
        [[1], [2, 3]],
        {},
        {"a": {}},
        [None] * 5,
        {"__ndarray__": True, "data": b"1", "dtype": "O", "shape": [1]},
    ),
    {"__ndarray__": True, "data": b"12345678", "dtype": "<f8", "shape": [2**40]},
    {"__ndarray__": True, "data": b"12345678", "dtype": "<f8", "shape": [-1]},
    {"__npgeneric__": True, "data": "x", "dtype": "<f8"},
    msgpack.ExtType(5, b"pickle"),
)


@pytest.fixture(scope="module")
def url(policy: Policy) -> Iterator[str]:
    with serving([policy], settings=ServerSettings(max_sessions=100_000, max_body_bytes=2**16)) as url:
        yield url


def _act(step: int) -> dict[str, Any]:
    at = {"position": [0.0, 0.0], "velocity": [0.0, 0.0]}
    return {"request_id": f"r{step}", "step": step, "observation": at, "missing": [], "goal": [1.0, 1.0]}


def _mutated(value: Any, rng: random.Random) -> Any:
    """The value with one thing in it replaced by something odd, left out, or doubled."""
    if isinstance(value, dict) and value and rng.random() < 0.8:
        name = rng.choice(list(value))
        changed = {**value}
        match rng.randrange(4):
            case 0:
                del changed[name]
            case 1:
                changed[rng.choice([f"{name}x", "", "observation", name.upper()])] = rng.choice(ODD)
            case _:
                changed[name] = _mutated(value[name], rng)
        return changed
    if isinstance(value, list) and value and rng.random() < 0.6:
        place = rng.randrange(len(value))
        return [*value[:place], _mutated(value[place], rng), *value[place + rng.randrange(2) :]]
    return rng.choice(ODD)


def _bytes(body: Any, rng: random.Random) -> bytes:
    """Packed, now and then cut off, extended or with a byte changed."""
    packed = bytearray(msgpack.packb(body))
    match rng.randrange(8):
        case 0:
            del packed[rng.randrange(len(packed)) :]
        case 1:
            packed += rng.randbytes(rng.randrange(1, 40))
        case 2:
            packed[rng.randrange(len(packed))] = rng.randrange(256)
        case 3:
            packed = bytearray(rng.randbytes(rng.randrange(200)))
        case _:
            pass
    return bytes(packed)


def test_ten_thousand_odd_bodies_are_answered_and_none_by_500(url: str) -> None:
    rng, seen = random.Random(0), dict[int, int]()
    headers = {"Content-Type": codec.MSGPACK}
    with httpx.Client(base_url=url, headers=headers, timeout=20) as http:
        opened = http.post("/v1/sessions", content=msgpack.packb({"policy": "tiny", "goal": [1.0, 1.0]}))
        session = codec.decode(opened.content, codec.MSGPACK)["session_id"]
        paths = (f"/v1/sessions/{session}/act", "/v1/sessions", f"/v1/sessions/{session}/reset", "/v1/act")
        plain = (_act(0), {"policy": "tiny", "goal": [1.0, 1.0], "seed": 1, "lease_s": 1.0}, {"seed": 3})
        bodies = (*plain, {"policy": "tiny", "history": [_act(0)["observation"]], "goal": [1.0, 1.0]})
        for _ in range(BODIES):
            which = rng.choices(range(4), weights=(6, 2, 1, 1))[0]
            answer = http.post(paths[which], content=_bytes(_mutated(bodies[which], rng), rng))
            seen[answer.status_code] = seen.get(answer.status_code, 0) + 1
        assert http.get("/healthz").status_code == 200
        assert http.post(f"/v1/sessions/{session}/reset", content=b"\x80").status_code == 200
        assert http.post(paths[0], content=msgpack.packb(_act(0))).status_code == 200
    assert set(seen) <= {200, 201, 400, 409, 410, 422}, seen
    assert min(seen[status] for status in (200, 400, 422)) > 100, "all kinds were tried"


def test_two_thousand_connections_that_say_nothing_keep_nobody_from_being_answered(url: str) -> None:
    host, port = url.removeprefix("http://").split(":")
    idle = []
    try:
        for number in range(CONNECTIONS):
            idle.append(socket.create_connection((host, int(port)), timeout=10))
            if number % 3 == 0:
                idle[-1].sendall(b"POST /v1/sessions HTTP/1.1\r\nContent-Le")  # and no more
            elif number % 3 == 1:
                idle[-1].shutdown(socket.SHUT_WR)  # half closed
        started = time.perf_counter()
        assert httpx.get(f"{url}/healthz", timeout=10).status_code == 200
        assert time.perf_counter() - started < 5
    finally:
        for connection in idle:
            connection.close()


def test_a_body_that_comes_byte_by_byte_or_never_ends_holds_up_nobody_else(url: str) -> None:
    host, port = url.removeprefix("http://").split(":")
    body = msgpack.packb({"policy": "tiny"})
    head = (
        f"POST /v1/sessions HTTP/1.1\r\nHost: x\r\nContent-Type: {codec.MSGPACK}\r\nContent-Length: {len(body)}\r\n\r\n"
    )
    with socket.create_connection((host, int(port)), timeout=20) as slow:
        for byte in head.encode() + body:
            slow.sendall(bytes([byte]))
            time.sleep(0.001)
        assert slow.recv(65536).startswith(b"HTTP/1.1 201")
    head = "POST /v1/sessions HTTP/1.1\r\nHost: x\r\nContent-Type: application/msgpack\r\n"
    head += "Transfer-Encoding: chunked\r\n\r\n"
    with socket.create_connection((host, int(port)), timeout=20) as endless:
        with contextlib.suppress(OSError):  # it may be closed while there is more to send
            endless.sendall(head.encode() + 100 * (b"400\r\n" + b"\x90" * 1024 + b"\r\n"))
        assert endless.recv(65536).startswith(b"HTTP/1.1 413")


def test_the_served_document_is_kept_by_whatever_schemathesis_asks(url: str, tmp_path: Path) -> None:
    program = Path(sys.executable).with_name("schemathesis")
    command = [str(program), "run", f"{url}/openapi.json", "--max-examples", "30"]
    checks = "not_a_server_error,response_schema_conformance,status_code_conformance,content_type_conformance"
    command += ["--checks", checks, "--seed", "1"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)  # it leaves a cache
    assert done.returncode == 0, done.stdout[-3000:]
    assert "Tested: 11" in done.stdout
