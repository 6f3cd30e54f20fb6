"""Policies that see, on a real socket: frames in either encoding, in sessions, alone, in journals, for openpi."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import msgpack
import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from websockets.sync.client import connect

from forcing.datasets.recording import read_recording
from forcing.policy.cameras import encoded_spec
from forcing.policy.checkpoint import save_policy
from forcing.policy.denoiser import DenoiserConfig
from forcing.policy.network import build_denoiser
from forcing.policy.planner import PlannerConfig
from forcing.policy.policy import Policy, load_policy
from forcing.policy.preset import Preset
from forcing.policy.tokens import Normaliser, Tokenizer, TokenLayout
from forcing.policy.tracker import TrackerConfig
from forcing.policy.types import StreamSpec, TrajectorySpec
from forcing.policy.vision import fit_codec
from forcing.server.client import Client
from forcing.server.codec import array_map
from forcing.server.serve import serving
from forcing.server.service import ServerSettings

Bytes = NDArray[np.uint8]
SHAPE = (48, 40, 3)
PRESET = Preset(
    name="seeing",
    layout=TokenLayout(token_steps=2, stride=1, history=1, horizon=2),
    denoiser=DenoiserConfig(width=16, depth=1, heads=2),
    planner=PlannerConfig(samples=1, replan_steps=1, history_frames=2),
    tracker=TrackerConfig(kind="actions"),
)


def _frame(column: int) -> Bytes:
    """A bright stripe in the dark."""
    frame = np.full(SHAPE, 20, dtype=np.uint8)
    frame[:, column : column + 6] = (250, 40, 90)
    return frame


def _policy(folder: Path, *names: str) -> Policy:
    """Untrained, of a camera and an arm in the order of their names."""
    shapes = {"front": SHAPE, "arm": (2,)}
    observed = (StreamSpec(name=name, role="observation", shape=shapes[name]) for name in names)
    action = StreamSpec(name="action", role="action", shape=(2,), low=(-9.0, -9.0), high=(9.0, 9.0))
    spec = TrajectorySpec(streams=(*observed, action), control_hz=10.0)
    cameras = {"front": fit_codec(np.stack([_frame(column) for column in range(34)]))}
    seen = encoded_spec(spec, cameras)
    normaliser = Normaliser(
        mean={stream.name: (0.0,) * stream.size for stream in seen.streams},
        std={stream.name: (1.0,) * stream.size for stream in seen.streams},
    )
    with torch.random.fork_rng():
        torch.manual_seed(0)
        denoiser = build_denoiser(PRESET, Tokenizer(seen, PRESET.layout, normaliser))
    folder.mkdir()
    file = folder / "policy.safetensors"
    save_policy(file, PRESET, spec, normaliser, denoiser.state_dict(), {}, cameras=cameras)
    return load_policy(str(folder))


@pytest.fixture(scope="module")
def seeing(tmp_path_factory: pytest.TempPathFactory) -> Policy:
    torch.set_num_threads(1)
    return _policy(tmp_path_factory.mktemp("policies") / "seeing", "arm", "front")


@pytest.fixture(scope="module")
def camera_url(seeing: Policy, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with serving([seeing, _policy(tmp_path_factory.mktemp("policies") / "first", "front", "arm")]) as url:
        yield url


def _once(url: str, frame: Any, media: str = "json", **fields: Any) -> httpx.Response:
    body = {"policy": "seeing", "history": [{"arm": [0.1, 0.2], "front": frame}], **fields}
    if media == "json":
        return httpx.post(f"{url}/v1/act", json=body)
    content = bytes(msgpack.packb(body))
    headers = {"Content-Type": "application/msgpack", "Accept": "application/json"}
    return httpx.post(f"{url}/v1/act", content=content, headers=headers)


def test_a_frame_gives_the_same_finite_action_in_either_encoding_and_another_frame_another(camera_url: str) -> None:
    def action(frame: Any, media: str) -> list[float]:
        answer = _once(camera_url, frame, media)
        assert answer.status_code == 200, answer.text
        found: list[float] = answer.json()["action"]
        return found

    first = action(array_map(_frame(3)), "msgpack")
    assert np.isfinite(first).all()
    assert action(_frame(3).tolist(), "json") == first
    assert action(array_map(_frame(3).astype(np.float32)), "msgpack") == first
    assert action(array_map(_frame(25)), "msgpack") != first


@pytest.mark.parametrize(
    ("frame", "expected", "got"),
    [
        (np.zeros((48, 40), np.uint8), "shape [48, 40, 3]", "shape [48, 40]"),
        (np.zeros((3, 48, 40), np.uint8), "shape [48, 40, 3]", "shape [3, 48, 40]"),
        (np.full(SHAPE, 0.5), "whole numbers from 0 to 255, as cameras give them", "0.5 at index [0, 0, 0]"),
        (np.full(SHAPE, 256), "whole numbers from 0 to 255, as cameras give them", "256 at index [0, 0, 0]"),
        (np.full(SHAPE, -1), "whole numbers from 0 to 255, as cameras give them", "-1 at index [0, 0, 0]"),
        (np.full(SHAPE, np.nan), "whole numbers from 0 to 255, as cameras give them", "nan at index [0, 0, 0]"),
    ],
)
def test_what_is_no_frame_of_this_camera_is_refused_by_name(
    camera_url: str, frame: NDArray[Any], expected: str, got: str
) -> None:
    field = {"expected": expected, "got": got}
    answer = _once(camera_url, array_map(frame), "msgpack")
    assert answer.status_code == 422
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.json()["errors"] == [{"field": "history.0.front", **field}]
    with Client(camera_url) as client, client.open("seeing") as session:
        body = {"request_id": "a", "step": 0, "observation": {"arm": [0.0, 0.0], "front": array_map(frame)}}
        sent = bytes(msgpack.packb(body))
        headers = {"Content-Type": "application/msgpack"}
        answer = httpx.post(f"{camera_url}/v1/sessions/{session.id}/act", content=sent, headers=headers)
        assert (answer.status_code, answer.json()["errors"]) == (422, [{"field": "observation.front", **field}])


def test_a_mask_is_no_frame(camera_url: str) -> None:
    answer = _once(camera_url, array_map(np.ones(SHAPE, np.bool_)), "msgpack")
    assert answer.status_code == 422
    assert "a picture of booleans is a mask" in answer.text
    assert "front" in answer.text


def test_a_session_sees_goes_on_without_its_camera_and_shows_plans_in_latents(camera_url: str, seeing: Policy) -> None:
    with Client(camera_url) as client, client.open("seeing") as session:
        actions = [session.act({"arm": [0.0, 0.0], "front": _frame(column)}).action for column in (0, 30)]
        blind = session.act({"arm": [0.0, 0.0]}, missing=["front"])
        assert np.isfinite([*actions, blind.action]).all()
        assert not np.array_equal(actions[0], actions[1])
        assert blind.sensors["front"]["unheard_steps"] == 1
        session.act({"arm": [0.0, 0.0], "front": _frame(3)}, age_ms={"front": 100.0})
        plan = session.plan()
        assert plan is not None
        assert plan.streams["front"].shape == (4, seeing.cameras["front"].latents)


def test_a_repeated_act_is_known_again_in_the_other_encoding(camera_url: str) -> None:
    session = httpx.post(f"{camera_url}/v1/sessions", json={"policy": "seeing"}).json()["session_id"]
    url, body = f"{camera_url}/v1/sessions/{session}/act", {"request_id": "a", "step": 0}
    sent = bytes(msgpack.packb({**body, "observation": {"arm": [0.0, 0.0], "front": array_map(_frame(3))}}))
    headers = {"Content-Type": "application/msgpack", "Accept": "application/json"}
    first = httpx.post(url, content=sent, headers=headers)
    again = httpx.post(url, json={**body, "observation": {"arm": [0.0, 0.0], "front": _frame(3).tolist()}})
    assert (first.status_code, again.status_code) == (200, 200)
    assert again.json() == first.json()


@pytest.mark.parametrize(
    ("policy", "fields", "field", "expected"),
    [
        ("seeing", {"noise": {"front": 0.1}}, "noise.front", "nothing: it is a camera, whose frames have no standard"),
        ("first", {"obstacles": [{"centre": [0.0, 0.0], "radius": 1.0}]}, "obstacles", "nothing: this policy knows no"),
    ],
)
def test_what_cannot_be_said_of_a_camera_is_refused(
    camera_url: str, policy: str, fields: dict[str, Any], field: str, expected: str
) -> None:
    session = httpx.post(f"{camera_url}/v1/sessions", json={"policy": policy}).json()["session_id"]
    body = {"request_id": "a", "step": 0, "observation": {"arm": [0.0, 0.0], "front": _frame(3).tolist()}, **fields}
    answer = httpx.post(f"{camera_url}/v1/sessions/{session}/act", json=body)
    assert answer.status_code == 422
    (error,) = answer.json()["errors"]
    assert error["field"] == field
    assert error["expected"].startswith(expected)


def test_the_description_shows_the_frames_that_are_wanted(camera_url: str) -> None:
    streams = {stream["name"]: stream for stream in httpx.get(f"{camera_url}/v1/policies/seeing").json()["streams"]}
    assert streams["front"]["shape"] == [48, 40, 3]
    assert (streams["front"]["low"], streams["front"]["high"]) == (None, None)


def test_the_example_for_openpis_client_has_a_frame_and_is_answered(camera_url: str) -> None:
    with connect(f"{camera_url.replace('http', 'ws')}/v1/openpi/seeing") as socket:
        example = msgpack.unpackb(socket.recv())["example"]
        frame = example["front"]
        assert (frame[b"dtype"], frame[b"shape"]) == ("|u1", [48, 40, 3])
        for message in (example, {**example, "step": 0}):
            socket.send(bytes(msgpack.packb(message)))
            answer = socket.recv()
            assert isinstance(answer, bytes), answer
            assert "actions" in msgpack.unpackb(answer)


def test_a_session_with_frames_goes_on_after_a_restart_and_its_episode_is_a_recording(
    seeing: Policy, tmp_path: Path
) -> None:
    def request(step: int) -> dict[str, Any]:
        lost = {"missing": ["front"]} if step == 2 else {}
        seen = {} if lost else {"front": _frame(4 * step).tolist()}
        return {"request_id": f"r{step}", "step": step, "observation": {"arm": [0.1, step / 10], **seen}, **lost}

    def driven(state: Path, stops: tuple[int, ...]) -> list[list[float]]:
        actions, session = list[list[float]](), ""
        for steps in stops:
            with serving([seeing], settings=ServerSettings(state_dir=state)) as url:
                if not session:
                    opened = httpx.post(f"{url}/v1/sessions", json={"policy": "seeing", "record": True})
                    session = opened.json()["session_id"]
                for _ in range(steps):
                    answer = httpx.post(f"{url}/v1/sessions/{session}/act", json=request(len(actions)))
                    actions.append(answer.raise_for_status().json()["action"])
        return actions

    assert driven(tmp_path / "whole", (6,)) == driven(tmp_path / "twice", (3, 3))
    (journal,) = (tmp_path / "twice" / "sessions").glob("*.journal")
    assert _frame(20).tobytes() in journal.read_bytes()
    recorded = read_recording(tmp_path / "twice" / "sessions")
    frames = recorded.frames["front"][:]
    assert frames.dtype == np.uint8
    assert frames.shape == (6, *SHAPE)
    for step, shown in enumerate((0, 1, 1, 3, 4, 5)):  # the one that was not read keeps the last
        np.testing.assert_array_equal(frames[step], _frame(4 * shown))
