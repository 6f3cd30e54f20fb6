"""Recordings of `swap`: whole exchanges that hold, the same from the same seed, and what training is handed of them."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from forcing.cli import main
from forcing.datasets.recording import read_recording
from forcing.envs import held_episodes, swap_demonstrations
from forcing.envs.held_episodes import Episode
from forcing.envs.rendering import use_headless
from forcing.envs.swap import Swap
from forcing.envs.swap_demonstrations import collect, observation_space
from forcing.envs.swap_pushes import FEW, MANY, Bursts


def recorded(steps: int, seed: int = 0, **options: Any) -> list[Episode]:
    return [episode for shard in collect(steps=steps, seed=seed, workers=1, **options) for episode in shard]


@pytest.fixture(scope="module")
def episodes() -> list[Episode]:
    return recorded(400)


def test_episodes_are_whole_hold_and_are_as_many_as_hold_the_steps(episodes: list[Episode]) -> None:
    lengths = [len(episode["actions"]) for episode in episodes]
    assert sum(lengths[:-1]) < 400 <= sum(lengths)
    assert all(episode["infos"]["success"][-1] for episode in episodes)
    layouts = {tuple(np.round(episode["observations"]["red_position"][0], 3)) for episode in episodes}
    assert len(layouts) == len(episodes)
    assert all((episode["infos"]["executed"][:-1] != episode["actions"]).any() for episode in episodes)
    # At rest at the end: the same target for 10 to 40 steps and what came before of the way there.
    rests = [int((episode["actions"] != episode["actions"][-1]).any(axis=1)[::-1].argmax()) for episode in episodes]
    assert all(10 <= rest <= 70 for rest in rests)
    assert len(set(rests)) == len(rests)


def test_a_longer_recording_begins_like_a_shorter_one_however_it_is_cut_into_shards(
    monkeypatch: pytest.MonkeyPatch, episodes: list[Episode]
) -> None:
    monkeypatch.setattr(held_episodes, "SHARD_EPISODES", 2)
    longer = recorded(700)
    assert len(longer) > len(episodes)
    for one, other in zip(episodes, longer, strict=False):
        np.testing.assert_array_equal(one["actions"], other["actions"])
        np.testing.assert_array_equal(one["observations"]["blue_position"], other["observations"]["blue_position"])
    assert not np.array_equal(recorded(1, seed=1)[0]["actions"], episodes[0]["actions"])


def test_an_attempt_that_fails_is_left_out(monkeypatch: pytest.MonkeyPatch, episodes: list[Episode]) -> None:
    seeds: list[int] = []

    def demonstrate(*_: Any, seed: int, **__: Any) -> Any:
        seeds.append(seed)
        held = len(seeds) == 3
        return {**episodes[0], "infos": {**episodes[0]["infos"], "success": np.array([held])}}

    monkeypatch.setattr(swap_demonstrations, "demonstrate", demonstrate)
    (kept,) = recorded(100)
    assert kept["infos"]["success"].tolist() == [True]
    assert len(set(seeds)) == 3


def test_two_episodes_in_three_have_bursts_seen_by_cameras_five_in_six_more(
    monkeypatch: pytest.MonkeyPatch, episodes: list[Episode]
) -> None:
    bursts: list[Bursts | None] = []

    def demonstrate(*_: Any, **options: Any) -> Any:
        bursts.append(options["bursts"])
        return episodes[0]

    monkeypatch.setattr(swap_demonstrations, "demonstrate", demonstrate)
    recorded(6 * len(episodes[0]["actions"]))
    assert bursts[:6] == [None, FEW, FEW, None, FEW, FEW]
    del bursts[:]
    monkeypatch.setattr(swap_demonstrations, "Swap", lambda cameras: Swap())
    recorded(6 * len(episodes[0]["actions"]), cameras=True)
    assert bursts[:7] == [None, *[MANY] * 5, None]


def test_with_cameras_the_cubes_are_seen_and_not_told_or_the_error_says_what_to_install(
    episodes: list[Episode],
) -> None:
    try:
        use_headless()
    except RuntimeError:
        with pytest.raises(RuntimeError, match=r"libegl1 libgl1-mesa-dri libopengl0 .*libosmesa6"):
            collect(steps=1, seed=0, cameras=True)
        return
    (filmed,) = recorded(1, cameras=True)
    np.testing.assert_array_equal(filmed["actions"], episodes[0]["actions"])
    assert set(filmed["observations"]) == {"effector_position", "effector_heading", "gripper", "front", "side"}
    assert set(filmed["observations"]) == set(observation_space(cameras=True).spaces)
    assert filmed["observations"]["front"].shape == (len(filmed["actions"]) + 1, 64, 64, 3)
    np.testing.assert_array_equal(filmed["infos"]["red_position"], episodes[0]["observations"]["red_position"])


def test_a_request_for_nothing_is_refused_at_once() -> None:
    with pytest.raises(ValueError, match="steps must be at least 1, got 0"):
        collect(steps=0, seed=0)


def test_generate_check_and_convert_hand_the_streams_to_training(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], episodes: list[Episode]
) -> None:
    monkeypatch.chdir(tmp_path)
    for line in (
        "generate swap --out out --steps 200 --workers 1",
        "data check out/forcing/swap-v0",
        "data convert out/forcing/swap-v0 --out store.zarr",
    ):
        with pytest.raises(SystemExit) as left:
            main(line.split())
        assert left.value.code == 0, line
    assert "0 errors, 0 warnings" in capsys.readouterr().out
    stored = read_recording("store.zarr")
    shapes = {stream.name: stream.shape for stream in stored.spec.streams}
    assert shapes == {
        "effector_position": (3,),
        "effector_heading": (2,),
        "gripper": (2,),
        "red_position": (3,),
        "red_heading": (2,),
        "blue_position": (3,),
        "blue_heading": (2,),
        "action": (6,),
        "reward": (),
    }
    assert (stored.spec.goal, stored.spec.control_hz) == (None, 20.0)
    assert {name: stored.spec[name].units for name in shapes if stored.spec[name].units} == {
        "effector_position": "m",
        "red_position": "m",
        "blue_position": "m",
    }
    assert stored.lengths.tolist() == [len(episode["actions"]) for episode in episodes[:2]]
