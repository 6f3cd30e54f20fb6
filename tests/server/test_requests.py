"""Good and bad requests to a real uvicorn on a real port."""

import json
import math
import re
import resource
import time
from collections.abc import Callable, Iterator
from typing import Any

import httpx
import msgpack
import numpy as np
import pytest

from forcing.policy.policy import load_policy
from forcing.server.serve import serving

OpenSession = Callable[..., str]
HERE = {"position": [0.25, -0.5], "velocity": [0.0, 0.1]}


def act_body(**changes: Any) -> dict[str, Any]:
    return {"request_id": "r0", "step": 0, "observation": HERE, **changes}


def assert_problem(answer: httpx.Response, status: int, code: str) -> dict[str, Any]:
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    problem: dict[str, Any] = answer.json()
    assert problem["status"] == status
    assert problem["type"] == f"urn:forcing:problem:{code}"
    assert {"type", "title", "status", "detail"} <= set(problem)
    assert "Traceback" not in answer.text
    return problem


def test_a_session_acts_plans_resets_and_ends(http: httpx.Client, open_session: OpenSession) -> None:
    path = f"/v1/sessions/{open_session(seed=3)}"
    assert http.get(f"{path}/plan").json()["plan"] is None
    replies = [http.post(f"{path}/act", json=act_body(request_id=f"r{n}", step=n)).json() for n in range(6)]
    assert [reply["step"] for reply in replies] == [0, 1, 2, 3, 4, 5]
    assert [reply["source"] for reply in replies] == ["fresh", "plan", "plan", "plan", "fresh", "plan"]
    for reply in replies:
        assert reply["action"] == reply["action_chunk"][0]
        assert reply["valid_until_step"] == reply["step"] + len(reply["action_chunk"]) - 1
        assert all(-1 <= number <= 1 for number in reply["action"])
        assert reply["timing"]["total_ms"] >= reply["timing"]["plan_ms"] >= 0
    plan = http.get(f"{path}/plan").json()
    assert (plan["step"], plan["plan"]["made_at_step"]) == (6, 4)
    frames = len(plan["plan"]["steps"])
    assert [len(row) for row in plan["plan"]["level"]] == [3] * frames
    assert len(plan["plan"]["spread"]["position"]) == frames
    assert http.post(f"{path}/reset").json()["step"] == 0
    again = http.post(f"{path}/act", json=act_body()).json()
    assert again["action_chunk"] == replies[0]["action_chunk"], "the same seed and observation"
    other = http.post(f"{path}/reset", json={"seed": 4}).json()
    assert (other["step"], other["seed"]) == (0, 4)
    assert http.post(f"{path}/act", json=act_body()).json()["action_chunk"] != replies[0]["action_chunk"]
    assert http.delete(path).status_code == 204
    assert_problem(http.get(f"{path}/plan"), 404, "not-found")


def test_msgpack_in_gives_msgpack_out_with_the_numbers_that_json_gives(
    http: httpx.Client, open_session: OpenSession
) -> None:
    as_json = http.post(f"/v1/sessions/{open_session()}/act", json=act_body())
    headers = {"Content-Type": "application/msgpack"}
    packed = http.post(f"/v1/sessions/{open_session()}/act", content=msgpack.packb(act_body()), headers=headers)
    assert packed.headers["content-type"] == "application/msgpack"
    assert msgpack.unpackb(packed.content)["action_chunk"] == as_json.json()["action_chunk"]


def test_accept_chooses_the_encoding_of_the_reply(http: httpx.Client) -> None:
    answer = http.get("/v1/policies/tiny", headers={"Accept": "application/msgpack"})
    assert answer.headers["content-type"] == "application/msgpack"
    assert msgpack.unpackb(answer.content) == http.get("/v1/policies/tiny").json()


def test_a_policy_tells_its_streams_units_limits_and_rate(http: httpx.Client) -> None:
    assert [policy["id"] for policy in http.get("/v1/policies").json()["policies"]] == ["tiny", "nan", "raising"]
    policy = http.get("/v1/policies/tiny").json()
    assert (policy["control_hz"], policy["goal"], policy["card"]) == (100.0, "position", {"minutes": 0})
    assert {stream["name"]: stream["units"] for stream in policy["streams"]} == {
        "position": "m",
        "velocity": "m/s",
        "action": "",
    }
    assert policy["streams"][2]["low"] == [-1.0, -1.0]
    assert len(policy["revision"]) == len(policy["normaliser_hash"]) == 12


def test_only_the_wanted_optional_parts_are_sent(http: httpx.Client, open_session: OpenSession) -> None:
    reply = http.post(f"/v1/sessions/{open_session()}/act", json=act_body(want=["spread"])).json()
    assert "spread" in reply
    assert not {"action_chunk", "timing"} & set(reply)


def test_one_shot_gives_the_chunk_that_a_session_gives_first(http: httpx.Client, open_session: OpenSession) -> None:
    body = {"policy": "tiny", "history": [HERE], "goal": [1.0, 1.0], "seed": 5}
    chunk = http.post("/v1/act", json=body).json()["action_chunk"]
    assert chunk == http.post(f"/v1/sessions/{open_session(seed=5)}/act", json=act_body()).json()["action_chunk"]


def test_session_limits_clip_every_action_and_say_so(http: httpx.Client, open_session: OpenSession) -> None:
    free = http.post(f"/v1/sessions/{open_session()}/act", json=act_body()).json()
    low, high = [-0.01, -0.02], [0.03, 0.04]
    session = open_session(limits={"low": low, "high": high})
    tight = http.post(f"/v1/sessions/{session}/act", json=act_body()).json()
    assert tight["clipped"]
    expected = [[min(max(x, a), b) for x, a, b in zip(row, low, high, strict=True)] for row in free["action_chunk"]]
    assert tight["action_chunk"] == expected
    assert tight["action"] == expected[0]


def test_no_action_differs_from_the_one_before_by_more_than_was_allowed(
    http: httpx.Client, open_session: OpenSession
) -> None:
    """Over new plans as well: the tiny policy's own actions jump by more."""
    change, low = [0.02, 0.05], [-1.0, -0.04]
    free, slow = open_session(), open_session(limits={"change": change, "low": low})
    jumps, sent, clipped = [], [np.zeros(2)], []
    for step in range(12):
        body = act_body(request_id=f"r{step}", step=step)
        jumps.append(http.post(f"/v1/sessions/{free}/act", json=body).json()["action"])
        reply = http.post(f"/v1/sessions/{slow}/act", json=body).json()
        chunk = np.array([sent[-1], *reply["action_chunk"]])
        assert (np.abs(np.diff(chunk, axis=0)) <= np.array(change) + 1e-12).all()
        assert (chunk[:, 1] >= low[1]).all()
        assert reply["action_chunk"][0] == reply["action"]
        sent.append(np.array(reply["action"]))
        clipped.append(reply["clipped"])
    assert (np.abs(np.diff(np.array([np.zeros(2), *jumps]), axis=0)).max(axis=0) > change).all()
    assert any(clipped)
    # A new episode begins from 0 again.
    http.post(f"/v1/sessions/{slow}/reset", json={})
    first = http.post(f"/v1/sessions/{slow}/act", json=act_body(request_id="again")).json()["action"]
    assert (np.abs(first) <= np.array(change) + 1e-12).all()


def test_limits_that_cannot_both_be_kept_leave_low_and_high_in_force(
    http: httpx.Client, open_session: OpenSession
) -> None:
    session = open_session(limits={"low": [0.5, -1.0], "change": [0.1, 0.1]})
    reply = http.post(f"/v1/sessions/{session}/act", json=act_body()).json()
    assert reply["action"][0] == 0.5
    assert reply["clipped"]


def test_without_a_plan_nobody_is_sure_of_anything(http: httpx.Client, open_session: OpenSession) -> None:
    lost = act_body(observation={}, missing=["position", "velocity"])
    reply = http.post(f"/v1/sessions/{open_session()}/act", json=lost).json()
    assert (reply["source"], reply["spread"], reply["noise_level"]) == ("hold", None, 1.0)


@pytest.mark.parametrize("noise", [1e19, 1e20, 1e155, 1e200, 1.7e308])
def test_noise_beyond_all_bounds_is_noise_that_tells_nothing(http: httpx.Client, noise: float) -> None:
    """With a policy that believes nothing outright: what squares must not overflow."""
    with serving([load_policy("maze2d-umaze")]) as url:
        session = httpx.post(f"{url}/v1/sessions", json={"policy": "maze2d-umaze", "goal": [1, 1]}).json()["session_id"]
        for step in range(3):
            body = act_body(request_id=str(step), step=step, noise={"position": noise} if step else {})
            reply = httpx.post(f"{url}/v1/sessions/{session}/act", json=body)
            assert reply.status_code == 200, reply.text
    assert reply.json()["sensors"]["position"]["noise_level"] > 0.99


def test_an_age_beyond_all_bounds_is_left_aside(http: httpx.Client, open_session: OpenSession) -> None:
    body = act_body(age_ms={"position": 1e9})
    reply = http.post(f"/v1/sessions/{open_session()}/act", json=body).json()
    assert reply["sensors"]["position"]["rejected"]


def test_a_repeated_request_gets_the_same_reply_and_is_acted_on_once(
    http: httpx.Client, open_session: OpenSession
) -> None:
    path = f"/v1/sessions/{open_session()}/act"
    first = http.post(path, json=act_body())
    assert http.post(path, json=act_body()).content == first.content
    packed = http.post(path, content=msgpack.packb(act_body()), headers={"Content-Type": "application/msgpack"})
    assert msgpack.unpackb(packed.content) == first.json()
    assert http.post(path, json=act_body(request_id="r1", step=1)).status_code == 200


def test_an_out_of_order_step_names_expected_and_got(http: httpx.Client, open_session: OpenSession) -> None:
    path = f"/v1/sessions/{open_session()}/act"
    problem = assert_problem(http.post(path, json=act_body(step=4)), 409, "step-conflict")
    assert problem["errors"] == [{"field": "step", "expected": "0", "got": "4"}]
    assert http.post(path, json=act_body(step=0)).status_code == 200


@pytest.mark.parametrize(
    ("changes", "field", "said"),
    [
        (
            {"observation": {**HERE, "position": [1.0, 2.0, 3.0]}},
            "observation.position",
            "shape [2] in m, got shape [3]",
        ),
        ({"observation": {**HERE, "position": [[1.0], [2.0]]}}, "observation.position", "got shape [2, 1]"),
        ({"observation": {**HERE, "position": [[1.0], 2.0]}}, "observation.position", "evenly nested"),
        ({"observation": {**HERE, "position": ["1", "2"]}}, "observation.position", "number"),
        ({"observation": {**HERE, "position": ["1", 2.0]}}, "observation.position", "number"),
        ({"observation": {**HERE, "position": [[1.0], 2.0]}}, "observation.position", "number"),
        ({"observation": {**HERE, "positoin": [0.0, 0.0]}}, "observation.positoin", "did you mean 'position'?"),
        ({"observation": {"position": [0.0, 0.0]}}, "observation.velocity", "list it in missing"),
        ({"missing": ["velocity"]}, "observation.velocity", "listed in missing"),
        ({"missing": ["action"]}, "missing.action", "an observation stream"),
        ({"noise": {"positon": 0.1}}, "noise.positon", "did you mean 'position'?"),
        ({"noise": {"position": -0.1}}, "noise.position", "greater than or equal to 0"),
        ({"goal": [1.0]}, "goal", "shape [2] in m, got shape [1]"),
        ({"obstacles": [{"centre": [1.0], "radius": 0.1}]}, "obstacles.0.centre", "shape [2] in m, got shape [1]"),
        ({"obstacles": [{"centre": [1.0, 2.0], "radius": 0}]}, "obstacles.0.radius", "greater than 0"),
        ({"obstacles": [{"center": [1.0, 2.0], "radius": 0.1}]}, "obstacles.0.centre", "expected a value, got nothing"),
        (
            {"obstacles": [{"centre": [1.0, 2e4], "radius": 0.1}]},
            "obstacles.0.centre",
            "within 1000 standard deviations",
        ),
        ({"obstacles": [{"centre": [1.0, 2.0], "radius": 1e20}]}, "obstacles.0.radius", "check its units, got 1e+20"),
        ({"goal": [2700.0, 0.0]}, "goal", "check its units, got [2700.0, 0.0], 2.7e+03 away"),
        ({"age_ms": {"positon": 10}}, "age_ms.positon", "did you mean 'position'?"),
        ({"age_ms": {"position": -1}}, "age_ms.position", "greater than or equal to 0"),
        ({"step": "0"}, "step", "integer"),
        ({"step": -1}, "step", "greater than or equal to 0"),
        ({"deadline_ms": 0}, "deadline_ms", "greater than 0"),
        ({"want": ["everything"]}, "want.0", "action_chunk"),
        ({"observations": 1}, "observations", "did you mean 'observation'?"),
    ],
)
def test_a_bad_field_is_named_with_what_was_expected(
    http: httpx.Client, open_session: OpenSession, changes: dict[str, Any], field: str, said: str
) -> None:
    path = f"/v1/sessions/{open_session()}/act"
    problem = assert_problem(http.post(path, json=act_body(**changes)), 422, "invalid-request")
    assert field in [error["field"] for error in problem["errors"]]
    assert said in problem["detail"]
    assert http.post(path, json=act_body()).status_code == 200, "the refusal changed nothing"


@pytest.mark.parametrize("number", [math.nan, math.inf])
def test_non_finite_numbers_are_refused_in_both_encodings_but_in_readings(
    http: httpx.Client, open_session: OpenSession, number: float
) -> None:
    path = f"/v1/sessions/{open_session()}/act"
    literal = "NaN" if math.isnan(number) else "1e999"
    text = json.dumps(act_body(goal=[0, "?"])).replace('"?"', literal)
    for media, content in (
        ("application/json", text.encode()),
        ("application/msgpack", msgpack.packb(act_body(goal=[0.0, number]))),
    ):
        answer = http.post(path, content=content, headers={"Content-Type": media})
        error = assert_problem(answer, 422, "invalid-request")["errors"][0]
        assert error == {"field": "goal", "expected": "finite numbers", "got": f"{number} at index [1]"}
        noise = {"request_id": "r", "step": 0, "observation": HERE, "noise": {"position": number}}
        packed = http.post(path, content=msgpack.packb(noise), headers={"Content-Type": "application/msgpack"})
        assert_problem(packed, 422, "invalid-request")


@pytest.mark.parametrize("number", [math.nan, math.inf, -2500.0])
def test_a_wild_reading_is_answered_left_aside_and_counted(
    http: httpx.Client, open_session: OpenSession, number: float
) -> None:
    path = f"/v1/sessions/{open_session()}/act"

    def rejected() -> float:
        found = re.search(
            r'readings_rejected_total\{policy="tiny",stream="position"\} (\S+)', http.get("/metrics").text
        )
        return float(found[1]) if found else 0.0

    before = rejected()
    body = msgpack.packb(act_body(observation={**HERE, "position": [0.0, number]}))
    answer = http.post(
        path, content=body, headers={"Content-Type": "application/msgpack", "Accept": "application/json"}
    )
    assert answer.status_code == 200
    reply = answer.json()
    assert reply["source"] == "hold", "nobody knows where the robot is"
    assert reply["action"] == [0.0, 0.0]
    assert reply["sensors"]["position"]["rejected"]
    assert reply["sensors"]["position"]["unheard_steps"] == 1
    assert not reply["sensors"]["velocity"]["rejected"]
    assert rejected() == before + 1


@pytest.mark.parametrize(
    ("media", "content"),
    [
        ("application/json", b'{"policy": '),
        ("application/json", b"\xff\xfe"),
        ("application/json", b"[" * 100_000),
        ("application/msgpack", b"\xc1"),
        ("application/msgpack", b"\x85\xa6policy"),
        ("application/msgpack", msgpack.packb({"policy": msgpack.ExtType(1, b"")})),
    ],
)
def test_a_malformed_body_is_400(http: httpx.Client, media: str, content: bytes) -> None:
    assert_problem(http.post("/v1/sessions", content=content, headers={"Content-Type": media}), 400, "malformed-body")


@pytest.mark.parametrize("content", [b"null", b"[]", b'"text"', b"3"])
def test_a_body_that_is_no_map_is_422(http: httpx.Client, content: bytes) -> None:
    answer = http.post("/v1/sessions", content=content, headers={"Content-Type": "application/json"})
    assert assert_problem(answer, 422, "invalid-request")["errors"][0]["field"] == "body"


def test_another_content_type_is_415(http: httpx.Client) -> None:
    answer = http.post("/v1/sessions", content=b"policy=tiny", headers={"Content-Type": "text/plain"})
    assert "application/json" in assert_problem(answer, 415, "unsupported-media-type")["detail"]


@pytest.mark.parametrize("declared", [True, False])
def test_a_body_of_100_mb_is_413_and_is_not_kept_in_memory(http: httpx.Client, declared: bool) -> None:
    part, parts = bytes(2**20), 100

    def stream() -> Iterator[bytes]:
        for _ in range(parts):
            yield part

    headers = {"Content-Type": "application/json"}
    if declared:
        headers["Content-Length"] = str(len(part) * parts)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    assert_problem(http.post("/v1/sessions", content=stream(), headers=headers), 413, "body-too-large")
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 40 * 1024  # KiB


@pytest.mark.parametrize(
    ("body", "status", "code", "said"),
    [
        ({"policy": "tinny"}, 422, "invalid-request", "did you mean 'tiny'?"),
        ({"policy": "tiny", "control_hz": 50.0}, 422, "invalid-request", "control_hz: expected 100.0"),
        ({"policy": "tiny", "goal": [1.0, 2.0, 3.0]}, 422, "invalid-request", "goal: expected shape [2] in m"),
        (
            {"policy": "tiny", "obstacles": [{"centre": [1.0], "radius": 1.0}]},
            422,
            "invalid-request",
            "obstacles.0.centre",
        ),
        ({"policy": "tiny", "limits": {"low": [-2.0, 0.0]}}, 422, "invalid-request", "limits.low"),
        ({"policy": "tiny", "limits": {"change": [0.1]}}, 422, "invalid-request", "limits.change: expected 2 numbers"),
        ({"policy": "tiny", "limits": {"change": [0.1, 0]}}, 422, "invalid-request", "limits.change.1"),
        ({"policy": "tiny", "limits": {"low": [0.0]}}, 422, "invalid-request", "limits.low: expected 2 numbers"),
        ({"policy": "tiny", "limits": {"low": [0.5, 0.5], "high": [0.1, 0.9]}}, 422, "invalid-request", "limits.low"),
        ({"policy": "tiny", "seed": -1}, 422, "invalid-request", "seed"),
        ({"policy": "tiny", "lease_s": 0}, 422, "invalid-request", "lease_s"),
        ({"policy": "tiny", "record": True}, 501, "not-supported", "record"),
    ],
)
def test_a_session_that_cannot_be_opened_says_why(
    http: httpx.Client, body: dict[str, Any], status: int, code: str, said: str
) -> None:
    assert said in assert_problem(http.post("/v1/sessions", json=body), status, code)["detail"]


def test_unknown_things_are_404(http: httpx.Client) -> None:
    assert_problem(http.post("/v1/sessions/none/act", json=act_body()), 404, "not-found")
    assert_problem(http.delete("/v1/sessions/none"), 404, "not-found")
    assert "did you mean 'tiny'?" in assert_problem(http.get("/v1/policies/tinyy"), 404, "not-found")["detail"]
    assert http.get("/v2").headers["content-type"] == "application/problem+json"
    assert http.get("/v1/act").status_code == 405


def test_an_idle_session_expires_and_its_id_answers_410(http: httpx.Client, open_session: OpenSession) -> None:
    session = open_session(lease_s=0.15)
    for step in range(3):
        time.sleep(0.08)
        answer = http.post(f"/v1/sessions/{session}/act", json=act_body(request_id=f"r{step}", step=step))
        assert answer.status_code == 200, "every act renews the lease"
    time.sleep(0.16)
    answer = http.post(f"/v1/sessions/{session}/act", json=act_body(request_id="late", step=3))
    assert_problem(answer, 410, "session-expired")


def test_a_policy_that_plans_nan_is_500_and_no_action_is_sent(http: httpx.Client, open_session: OpenSession) -> None:
    answer = http.post(f"/v1/sessions/{open_session(policy='nan')}/act", json=act_body())
    problem = assert_problem(answer, 500, "nonfinite-action")
    assert "position" in problem["detail"]
    assert "action_chunk" not in problem


def test_a_policy_that_raises_is_500_without_its_words(
    http: httpx.Client, open_session: OpenSession, caplog: pytest.LogCaptureFixture
) -> None:
    answer = http.post(f"/v1/sessions/{open_session(policy='raising')}/act", json=act_body())
    assert_problem(answer, 500, "planning-failed")
    assert "secret-of-the-implementation" not in answer.text
    assert "secret-of-the-implementation" in caplog.text, "the log says what the client may not see"


def test_metrics_count_requests_by_route_and_sources(http: httpx.Client, open_session: OpenSession) -> None:
    def read(name: str) -> float:
        lines = http.get("/metrics").text.splitlines()
        return sum(float(line.rsplit(" ", 1)[1]) for line in lines if line.startswith(name))

    route = 'forcing_http_requests_total{method="POST",route="/v1/sessions/{session_id}/act",status="200"}'
    names = [route, 'forcing_decisions_total{source="fresh"}', "forcing_act_seconds_count"]
    session = open_session()
    before = [read(name) for name in names]
    http.post(f"/v1/sessions/{session}/act", json=act_body())
    assert [read(name) for name in names] == [number + 1 for number in before]
    open_now = read("forcing_sessions_active")
    http.delete(f"/v1/sessions/{session}")
    assert read("forcing_sessions_active") == open_now - 1


def test_openapi_shows_the_schemas_under_both_encodings(http: httpx.Client) -> None:
    document = http.get("/openapi.json").json()
    operation = document["paths"]["/v1/sessions/{session_id}/act"]["post"]
    reference = {"$ref": "#/components/schemas/ActRequest"}
    for media in ("application/json", "application/msgpack"):
        assert operation["requestBody"]["content"][media]["schema"] == reference
    assert list(operation["responses"]["4XX"]["content"]) == ["application/problem+json"]
    assert document["components"]["schemas"]["ActRequest"]["additionalProperties"] is False
