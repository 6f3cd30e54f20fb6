"""D4RL's flat files: where episodes begin and end, on files laid out as D4RL lays them out."""

from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import pytest

from forcing.datasets.checks import check
from forcing.datasets.d4rl_hdf5 import is_d4rl_hdf5, read_d4rl_hdf5
from forcing.datasets.recording import open_recording
from forcing.policy.types import Array, Trajectories

Recorder = Callable[..., Trajectories]
Columns = dict[str, Array]


@pytest.fixture
def columns(point_mass: Recorder) -> Columns:
    """Three runs of 200, 300 and 120 rows, only the first flagged at its end; goals change every 50 rows."""
    recording = point_mass([199, 299, 119])
    position, velocity = recording.streams["position"], recording.streams["velocity"]
    rows = len(position)
    rng = np.random.default_rng(0)
    goals = np.repeat(rng.uniform(-3, 3, (rows // 50 + 1, 2)), 50, axis=0)[:rows]
    timeouts = np.zeros(rows, bool)
    timeouts[199] = True
    return {
        "observations": np.concatenate([position, velocity], axis=1),
        "actions": rng.uniform(-1, 1, (rows, 2)).astype(np.float32),
        "rewards": np.arange(rows, dtype=np.float32),
        "terminals": np.zeros(rows, bool),
        "timeouts": timeouts,
        "infos/goal": goals,
        "infos/qpos": position,
        "infos/qvel": velocity,
    }


def written(path: Path, columns: Columns) -> Path:
    with h5py.File(path, "w") as file:
        for name, values in columns.items():
            file.create_dataset(name, data=values, compression="gzip")
    return path


def test_episodes_end_at_flags_and_at_resets_that_nobody_flagged(tmp_path: Path, columns: Columns) -> None:
    read = read_d4rl_hdf5(written(tmp_path / "maze2d.hdf5", columns))
    assert read.lengths.tolist() == [199, 299, 119]
    assert (read.spec.goal, read.spec.control_hz) == ("position", 100)
    assert (read.provenance["cut_at_flags"], read.provenance["cut_at_jumps"]) == (1, 1)
    assert check(read) == []


def test_the_last_row_of_an_episode_gives_an_observation_and_no_action(tmp_path: Path, columns: Columns) -> None:
    path = written(tmp_path / "maze2d.hdf5", columns)
    assert "command" in open_recording(path, streams={"command": "actions"}).provenance()["source_names"]
    read = read_d4rl_hdf5(path)
    second = read.episode(1)
    assert second["reward"].tolist() == list(range(200, 499))
    assert np.array_equal(second["action"], columns["actions"][200:499])
    assert np.array_equal(second["position"], columns["observations"][200:500, :2])
    assert np.array_equal(second["velocity"], columns["observations"][200:500, 2:])


def test_a_new_goal_is_no_end(tmp_path: Path, columns: Columns) -> None:
    same = {**columns, "infos/goal": np.zeros_like(columns["infos/goal"])}
    changing, constant = (
        read_d4rl_hdf5(written(tmp_path / name, source)) for name, source in (("a.hdf5", columns), ("b.hdf5", same))
    )
    assert changing.lengths.tolist() == constant.lengths.tolist()


@pytest.mark.parametrize(("moved_m", "episodes"), [(0.012, 3), (0.5, 4)])
def test_a_jump_is_one_only_beyond_what_the_fastest_could_cover(
    tmp_path: Path, columns: Columns, moved_m: float, episodes: int
) -> None:
    speed = np.linalg.norm(columns["infos/qvel"], axis=1)
    assert 0.012 < np.quantile(speed, 0.999) / 100 < 0.25  # the allowed reach is twice this
    columns["observations"] = columns["observations"].copy()
    columns["observations"][350:500, 0] += moved_m
    assert len(read_d4rl_hdf5(written(tmp_path / "moved.hdf5", columns)).lengths) == episodes


def test_infinity_at_rows_one_after_another_is_left_to_the_checks(tmp_path: Path, columns: Columns) -> None:
    columns["observations"] = columns["observations"].copy()
    columns["observations"][20:22] = np.inf
    read = read_d4rl_hdf5(written(tmp_path / "infinite.hdf5", columns))
    assert np.isinf(read.streams["position"]).sum() == 4


def test_terminals_end_episodes_and_a_single_row_is_left_out(tmp_path: Path, columns: Columns) -> None:
    terminals = columns["terminals"].copy()
    terminals[[49, 50]] = True
    read = read_d4rl_hdf5(written(tmp_path / "maze2d.hdf5", {**columns, "terminals": terminals}))
    assert read.lengths.tolist() == [49, 148, 299, 119]
    assert read.provenance["single_rows_left_out"] == 1
    assert read.provenance["last_actions_left_out"] == 4


def test_files_without_timeouts_load(tmp_path: Path, columns: Columns) -> None:
    del columns["timeouts"]
    read = read_d4rl_hdf5(written(tmp_path / "maze2d.hdf5", columns))
    assert read.lengths.tolist() == [199, 299, 119]


def test_another_robot_keeps_its_observation_and_needs_its_rate(tmp_path: Path, columns: Columns) -> None:
    columns["observations"] = np.repeat(columns["observations"], 3, axis=1)
    path = written(tmp_path / "ant.hdf5", columns)
    with pytest.raises(ValueError, match="control_hz is not recorded and must be passed"):
        read_d4rl_hdf5(path)
    read = read_d4rl_hdf5(path, control_hz=20)
    assert read.spec["observation"].shape == (12,)
    assert read.lengths.tolist() == [199, 419]
    named = open_recording(path, control_hz=20, streams={"state": "observations", "command": "actions"})
    assert [stream.name for stream in named.spec.streams] == ["state", "command", "reward"]


def test_a_file_that_is_broken_says_how(tmp_path: Path, columns: Columns) -> None:
    path = written(tmp_path / "maze2d.hdf5", {**columns, "actions": columns["actions"][:-1]})
    with pytest.raises(ValueError, match="'actions' must have 620 rows as 'rewards' has, got 619"):
        read_d4rl_hdf5(path)
    path.write_bytes(path.read_bytes()[:5000])
    with pytest.raises(ValueError, match=r"maze2d\.hdf5: cannot be read to its end \(.*\); it was cut short"):
        read_d4rl_hdf5(path)
    del columns["terminals"]
    path = written(tmp_path / "other.hdf5", columns)
    assert not is_d4rl_hdf5(path)
    with pytest.raises(ValueError, match=r"arrays \['terminals'\] are missing"):
        read_d4rl_hdf5(path)
