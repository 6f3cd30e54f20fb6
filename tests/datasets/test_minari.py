"""Minari datasets on disk: D4RL's pointmaze out of the real simulator, other schemas, and broken ones."""

import http.server
import json
import os
import socketserver
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import gymnasium
import gymnasium_robotics
import h5py
import minari
import numpy as np
import pytest
from gymnasium import spaces
from minari.namespace import list_local_namespaces

from forcing.datasets import minari_places
from forcing.datasets.checks import check
from forcing.datasets.minari_writer import write_minari
from forcing.datasets.recording import read_recording
from forcing.datasets.store import open_store, write_store

NAME = "test/pointmaze-v0"


@pytest.fixture(scope="module")
def simulator() -> Iterator[gymnasium.Env[Any, Any]]:
    gymnasium.register_envs(gymnasium_robotics)
    env = gymnasium.make("PointMaze_UMaze-v3", continuing_task=True, reset_target=True, max_episode_steps=1_000_000)
    yield env
    env.close()


@pytest.fixture(scope="module")
def episodes(simulator: gymnasium.Env[Any, Any]) -> list[dict[str, Any]]:
    """Real ones, as D4RL's pointmaze: the agent goes on, an episode's first goal is that of the one before."""
    observation, _ = simulator.reset(seed=3)
    rng, recorded, stale = np.random.default_rng(0), [], observation["desired_goal"]
    for length in (40, 25, 60):
        rows, actions, rewards = [{**observation, "desired_goal": stale}], [], []
        for step in range(length):
            if step % 15 == 0:
                action = rng.uniform(-1, 1, 2).astype(np.float32)
            observation, reward, *_ = simulator.step(action)
            rows.append(observation)
            actions.append(action)
            rewards.append(float(reward))
        stale = stale + 1.0
        last = np.arange(length) == length - 1
        recorded.append(
            {
                "observations": {key: np.array([row[key] for row in rows]) for key in rows[0]},
                "actions": np.array(actions),
                "rewards": np.array(rewards),
                "terminations": np.zeros(length, bool),
                "truncations": last,
                "infos": {"success": np.append(False, last), "qpos": np.array([r["achieved_goal"] for r in rows])},
            }
        )
    return recorded


@pytest.fixture(scope="module")
def root(
    tmp_path_factory: pytest.TempPathFactory, simulator: gymnasium.Env[Any, Any], episodes: list[dict[str, Any]]
) -> Path:
    folder = tmp_path_factory.mktemp("minari")
    write_minari(folder, NAME, iter(episodes), description="three episodes", env=simulator.spec)
    return folder


def test_pointmaze_becomes_position_velocity_action_and_reward(root: Path, episodes: list[dict[str, Any]]) -> None:
    read = read_recording(root / NAME)
    assert [stream.name for stream in read.spec.streams] == ["position", "velocity", "action", "reward"]
    assert (read.spec.goal, read.spec.control_hz, read.spec["velocity"].rate_of) == ("position", 100, "position")
    assert (read.spec["action"].low, read.spec["action"].high) == ((-1.0, -1.0), (1.0, 1.0))
    assert read.lengths.tolist() == [40, 25, 60]
    for index, episode in enumerate(episodes):
        parts = read.episode(index)
        assert all(values.dtype == np.float32 for values in parts.values())
        assert np.array_equal(parts["position"], episode["observations"]["achieved_goal"].astype(np.float32))
        assert np.array_equal(parts["velocity"], episode["observations"]["observation"][:, 2:].astype(np.float32))
        assert np.array_equal(parts["action"], episode["actions"])
        assert np.array_equal(parts["reward"], episode["rewards"].astype(np.float32))


def test_actions_are_read_from_an_info_that_is_asked_for(
    root: Path, episodes: list[dict[str, Any]], tmp_path: Path
) -> None:
    named = {"action": "infos/qpos"}  # two numbers a step, as actions are
    read = read_recording(root / NAME, streams=named)
    for index, episode in enumerate(episodes):
        assert np.array_equal(read.episode(index)["action"], episode["infos"]["qpos"][:-1].astype(np.float32))
    kept = write_store(read, tmp_path / "done.zarr")
    assert np.array_equal(read_recording(kept, streams=named).streams["action"], read.streams["action"])
    plain = write_store(read_recording(root / NAME), tmp_path / "plain.zarr")
    with pytest.raises(ValueError, match="unknown stream 'infos/qpos'"):
        read_recording(plain, streams=named)


@pytest.mark.parametrize(
    ("info", "error"),
    [
        (
            "executed",
            r"no actions .* from infos/executed \(.*episode_0/infos/executed is missing; there are qpos, success",
        ),
        ("success", r"infos/success must have a row of shape \(2,\) a step, as actions have, .* got \(\)"),
    ],
)
def test_an_info_that_cannot_be_actions_is_refused(root: Path, info: str, error: str) -> None:
    with pytest.raises(ValueError, match=error):
        read_recording(root / NAME, streams={"action": f"infos/{info}"})


def test_a_pointmaze_dataset_survives_the_store_exactly(root: Path, tmp_path: Path) -> None:
    read = read_recording(root / NAME)
    back = open_store(write_store(read, tmp_path / "maze.zarr"))
    assert back.spec == read.spec
    assert back.provenance == read.provenance
    for name, values in read.streams.items():
        assert values.tobytes() == back.streams[name].tobytes()


def test_the_simulator_moves_as_its_rate_and_100_hz_say(root: Path) -> None:
    assert [finding for finding in check(read_recording(root / NAME)) if finding.severity == "error"] == []
    slower = check(read_recording(root / NAME, control_hz=50))  # what its render_fps says
    assert [finding.rule for finding in slower if finding.severity == "error"] == [
        "must be the rate of 'position' at control_hz, which is 50; the data moves as if it were 100"
    ]


def test_goals_left_over_from_the_episode_before_are_found(root: Path) -> None:
    (finding,) = [finding for finding in check(read_recording(root / NAME)) if "its own goal" in finding.rule]
    assert (finding.count, finding.where) == (2, ((1, 0), (2, 0)))


def test_minari_itself_loads_what_was_written(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(root))
    dataset = minari.load_dataset(NAME)
    assert (dataset.total_episodes, dataset.total_steps) == (3, 125)
    assert dataset.spec.env_spec.id == "PointMaze_UMaze-v3"
    assert [len(episode) for episode in dataset.iterate_episodes()] == [40, 25, 60]
    assert list(minari.list_local_datasets()) == [NAME]
    assert read_recording(NAME).lengths.tolist() == [40, 25, 60]


@pytest.mark.parametrize("inside", ["", "test", NAME, f"{NAME}/data", f"{NAME}/data/main_data.hdf5"])
def test_any_path_that_holds_one_dataset_will_do(root: Path, inside: str) -> None:
    assert read_recording(root / inside).lengths.tolist() == [40, 25, 60]


def test_an_absent_id_says_where_it_was_sought_and_how_to_get_it(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(root))
    with pytest.raises(ValueError, match=r"did you mean 'test/pointmaze-v0'\? .*minari download test/pointmase-v0"):
        read_recording("test/pointmase-v0")


def test_a_download_without_a_network_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path))
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")  # discard: nobody listens
    with pytest.raises(ValueError, match=r"could not be downloaded: no http://127.0.0.1:9 .*; check the network and"):
        read_recording(NAME, download=True)


class Deaf(socketserver.BaseRequestHandler):
    def handle(self) -> None:
        time.sleep(1)


class Answering(http.server.BaseHTTPRequestHandler):
    def do_HEAD(self) -> None:
        self.send_error(403)

    def log_message(self, *_: Any) -> None: ...


@contextmanager
def host(handler: type[socketserver.BaseRequestHandler]) -> Iterator[str]:
    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_address[1]}"
        server.shutdown()


def test_a_host_that_does_not_answer_is_not_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path))
    monkeypatch.setattr(minari_places, "PATIENCE_S", 0.2)
    with host(Deaf) as url:
        monkeypatch.setenv("HF_ENDPOINT", url)
        begun = time.monotonic()
        with pytest.raises(ValueError, match=r"could not be downloaded: no http://127.0.0.1:\d+ \("):
            read_recording(NAME, download=True)
        assert time.monotonic() - begun < 0.9


def test_what_the_hosts_client_says_comes_in_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(dataset_id: str) -> None:
        raise RuntimeError(f"no such\n  dataset: {dataset_id}")

    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path))
    monkeypatch.setattr(minari, "download_dataset", refuse)
    with host(Answering) as url:
        monkeypatch.setenv("HF_ENDPOINT", url)
        with pytest.raises(ValueError, match=r"could not be downloaded \(RuntimeError: no such dataset: test/pointm"):
            read_recording(NAME, download=True)


def test_single_precision_recordings_load_as_well(tmp_path: Path, episodes: list[dict[str, Any]]) -> None:
    single = [
        {**episode, "observations": {key: rows.astype(np.float32) for key, rows in episode["observations"].items()}}
        for episode in episodes
    ]
    box = spaces.Dict(
        {key: spaces.Box(-np.inf, np.inf, rows.shape[1:]) for key, rows in single[0]["observations"].items()}
    )
    path = write_minari(
        tmp_path, NAME, single, description="", observation_space=box, action_space=spaces.Box(-1, 1, (2,))
    )
    read = read_recording(path)
    assert read.spec.goal == "position"
    assert np.array_equal(read.episode(2)["velocity"], single[2]["observations"]["observation"][:, 2:])


def arm(length: int) -> dict[str, Any]:
    rng = np.random.default_rng(length)
    return {
        "observations": {
            "camera": rng.integers(0, 256, (length + 1, 40, 40, 3), dtype=np.uint8),
            "achieved_goal": rng.standard_normal((length + 1, 3)),
            "desired_goal": np.zeros((length + 1, 3)),
            "phase": np.zeros(length + 1, np.int64),
        },
        "actions": rng.uniform(-2, 2, (length, 4)),
        "rewards": np.ones(length),
        "terminations": np.zeros(length, bool),
        "truncations": np.zeros(length, bool),
    }


ARM: dict[str, Any] = {
    "description": "an arm",
    "observation_space": spaces.Dict(
        {
            "camera": spaces.Box(0, 255, (40, 40, 3), np.uint8),
            "achieved_goal": spaces.Box(-np.inf, np.inf, (3,)),
            "desired_goal": spaces.Box(-np.inf, np.inf, (3,)),
            "phase": spaces.Discrete(4),
        }
    ),
    "action_space": spaces.Box(-2, 2, (4,)),
}


def test_another_schema_keeps_its_names_and_its_rate(tmp_path: Path) -> None:
    read = read_recording(write_minari(tmp_path, "arm-v1", [arm(5), arm(9)], control_hz=20, **ARM))
    assert {stream.name: (stream.role, stream.shape) for stream in read.spec.streams} == {
        "achieved_goal": ("observation", (3,)),
        "camera": ("observation", (40, 40, 3)),
        "action": ("action", (4,)),
        "reward": ("reward", ()),
    }
    assert (read.spec.goal, read.spec.control_hz) == ("achieved_goal", 20)
    assert read.provenance["left_out"] == {"phase": "Discrete(4) is no Box"}
    assert np.array_equal(read.episode(1)["camera"], arm(9)["observations"]["camera"])


def test_an_unrecorded_rate_must_be_passed(tmp_path: Path) -> None:
    path = write_minari(tmp_path, "arm-v1", [arm(5)], **ARM)
    with pytest.raises(ValueError, match="control_hz is not recorded and must be passed"):
        read_recording(path)
    assert read_recording(path, control_hz=25).spec.control_hz == 25


@pytest.mark.parametrize("before", [None, "as before"])
def test_minaris_own_root_is_left_as_it_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, before: str | None
) -> None:
    monkeypatch.delenv("MINARI_DATASETS_PATH", raising=False)
    if before is not None:
        monkeypatch.setenv("MINARI_DATASETS_PATH", before)
    write_minari(tmp_path, "test/arm-v1", [arm(5)], **ARM)
    assert os.environ.get("MINARI_DATASETS_PATH") == before


def test_minari_lists_the_namespaces_of_what_was_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("lab/bench/arm-v1", "lab/bench/arm-v2"):
        write_minari(tmp_path, name, [arm(5)], **ARM)
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path))
    assert sorted(list_local_namespaces()) == ["lab", "lab/bench"]


def test_an_interrupted_recording_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken() -> Iterator[dict[str, Any]]:
        yield arm(5)
        raise KeyboardInterrupt

    monkeypatch.setenv("MINARI_DATASETS_PATH", "as before")
    with pytest.raises(KeyboardInterrupt):
        write_minari(tmp_path, "arm-v1", broken(), **ARM)
    assert list(tmp_path.iterdir()) == []
    assert os.environ["MINARI_DATASETS_PATH"] == "as before"


def test_a_dataset_is_never_overwritten(tmp_path: Path) -> None:
    write_minari(tmp_path, "arm-v1", [arm(5)], **ARM)
    with pytest.raises(ValueError, match="exists already; remove it or choose another folder or version"):
        write_minari(tmp_path, "arm-v1", [arm(6)], **ARM)


@pytest.mark.parametrize(
    ("episode", "message"),
    [
        ({**arm(5), "actions": np.zeros((6, 4))}, "episode 0: actions must have 5 rows for 5 steps, got 6"),
        ({**arm(5), "observations": arm(4)["observations"]}, "episode 0: observations/camera must have 6 rows"),
        ({**arm(5), "rewards": np.zeros(0)}, "episode 0: must have at least 1 step"),
    ],
)
def test_an_episode_of_wrong_lengths_is_not_written(tmp_path: Path, episode: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        write_minari(tmp_path, "arm-v1", [episode], **ARM)


def test_a_dataset_without_episodes_is_not_written(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="at least 1 episode, got 0"):
        write_minari(tmp_path, "arm-v1", [], **ARM)
    with pytest.raises(ValueError, match="dataset_id must read like name-v0 or namespace/name-v0, got 'arm'"):
        write_minari(tmp_path, "arm", [arm(5)], **ARM)
    assert list(tmp_path.iterdir()) == []


def test_an_episode_cut_short_in_the_file_is_named(tmp_path: Path) -> None:
    path = write_minari(tmp_path, "arm-v1", [arm(5), arm(7)], control_hz=20, **ARM)
    with h5py.File(path / "data" / "main_data.hdf5", "a") as file:
        file["episode_1/actions"].resize((4, 4))
    with pytest.raises(
        ValueError, match=r"episode 1: stream 'action' must have shape \(7, 4\) for 7 steps, got \(4, 4\)"
    ):
        read_recording(path)


def test_a_truncated_or_emptied_file_is_named(tmp_path: Path) -> None:
    path = write_minari(tmp_path, "arm-v1", [arm(5), arm(7)], control_hz=20, **ARM)
    main, document = path / "data" / "main_data.hdf5", path / "data" / "metadata.json"
    metadata = json.loads(document.read_text())
    document.write_text(json.dumps({**metadata, "total_episodes": 3}))
    with pytest.raises(ValueError, match=r"main_data.hdf5: cannot be read to its end"):
        read_recording(path)
    main.write_bytes(main.read_bytes()[:3000])
    with pytest.raises(ValueError, match=r"main_data.hdf5: cannot be read to its end"):
        read_recording(path)
    document.write_text("{")
    with pytest.raises(ValueError, match="not a readable Minari dataset"):
        read_recording(path)
