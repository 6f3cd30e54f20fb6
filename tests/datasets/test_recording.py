"""Formats told apart by their files."""

from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import pytest
from gymnasium import spaces

from forcing.datasets.episodes import Finite, InMemory
from forcing.datasets.minari_writer import write_minari
from forcing.datasets.recording import read_recording, recognise
from forcing.datasets.store import write_store
from forcing.policy.types import Trajectories

Recorder = Callable[..., Trajectories]


@pytest.fixture
def recording(point_mass: Recorder) -> Trajectories:
    return point_mass([30])


def minari_root(folder: Path, recording: Trajectories) -> Path:
    rows = recording.episode(0)
    observation = np.concatenate([rows["position"], rows["velocity"]], axis=1)
    observations = {
        "observation": observation,
        "achieved_goal": rows["position"],
        "desired_goal": np.ones((31, 2), np.float32),
    }
    episode = {
        "observations": observations,
        "actions": rows["action"],
        "rewards": rows["reward"],
        "terminations": np.zeros(30, bool),
        "truncations": np.zeros(30, bool),
    }
    box = spaces.Dict({key: spaces.Box(-np.inf, np.inf, values.shape[1:]) for key, values in observations.items()})
    action_space = spaces.Box(-1, 1, (2,))
    write_minari(folder, "test/maze-v0", [episode], description="", observation_space=box, action_space=action_space)
    return folder


def d4rl_file(path: Path, recording: Trajectories) -> Path:
    rows = recording.episode(0)
    with h5py.File(path, "w") as file:
        file["observations"] = np.concatenate([rows["position"], rows["velocity"]], axis=1)
        file["actions"] = np.concatenate([rows["action"], np.zeros((1, 2), np.float32)])
        file["rewards"] = np.append(rows["reward"], np.float32(0))
        file["terminals"] = np.zeros(31, bool)
        file["infos/qpos"], file["infos/qvel"] = rows["position"], rows["velocity"]
    return path


def test_the_same_recording_comes_out_of_every_format(tmp_path: Path, recording: Trajectories) -> None:
    sources = {
        "store": write_store(recording, tmp_path / "maze"),
        "minari": minari_root(tmp_path / "root", recording),
        "d4rl": d4rl_file(tmp_path / "maze.data", recording),
    }
    for name, source in sources.items():
        assert recognise(source) == name
        read = read_recording(str(source))
        assert read.spec == recording.spec, name
        for stream, values in recording.streams.items():
            assert np.array_equal(read.streams[stream], values), (name, stream)


def test_an_id_is_sought_among_minari_datasets(
    tmp_path: Path, recording: Trajectories, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(minari_root(tmp_path, recording)))
    assert read_recording("test/maze-v0").lengths.tolist() == [30]
    with pytest.raises(ValueError, match=r"'test/gone-v0' is not in .*minari download test/gone-v0"):
        read_recording("test/gone-v0")


def test_what_is_unknown_lists_what_is_supported_and_what_was_found(tmp_path: Path) -> None:
    (tmp_path / "notes.csv").write_text("a,b\n")
    with pytest.raises(ValueError, match=r"found a folder with notes.csv; supported are a store .* a Minari .* a D4RL"):
        read_recording(tmp_path)
    with pytest.raises(ValueError, match=r"found a file of 4 bytes ending in '.csv'; supported are"):
        read_recording(tmp_path / "notes.csv")
    with pytest.raises(ValueError, match="found nothing; supported are"):
        read_recording(tmp_path / "absent")


def test_a_folder_of_several_datasets_lists_them(tmp_path: Path, recording: Trajectories) -> None:
    for root in ("a", "b"):
        minari_root(tmp_path / root, recording)
    with pytest.raises(ValueError, match=r"found \['a/test/maze-v0', 'b/test/maze-v0'\]; name one of them"):
        read_recording(tmp_path)


def test_a_file_cut_short_is_named_for_what_it_is(tmp_path: Path, recording: Trajectories) -> None:
    path = d4rl_file(tmp_path / "maze.hdf5", recording)
    path.write_bytes(path.read_bytes()[:4000])
    with pytest.raises(ValueError, match=r"maze.hdf5: cannot be read to its end .*download or record it again"):
        read_recording(path)


def test_a_rate_is_told_only_where_none_is_kept(tmp_path: Path, recording: Trajectories) -> None:
    store = write_store(recording, tmp_path / "a.zarr")
    with pytest.raises(ValueError, match=r"a\.zarr: a store knows its rate; leave out --control-hz, which is 7"):
        read_recording(store, control_hz=7)


def test_what_is_neither_file_nor_folder_is_no_recording() -> None:
    for place in ("/dev/null", "/"):
        with pytest.raises(ValueError, match="must be the file or folder of a recording"):
            recognise(place)


def test_what_is_exported_must_be_finite(recording: Trajectories) -> None:
    assert [episode.where for episode in Finite(InMemory(recording)).episodes()] == ["episode 0"]
    recording.streams["velocity"][3] = np.inf
    with pytest.raises(ValueError, match="episode 0: stream 'velocity' must be finite"):
        list(Finite(InMemory(recording)).episodes())
