import tempfile
from itertools import pairwise
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest

from forcing.envs import demonstrations
from forcing.envs.demonstrations import Episode, collect, recording_spec


def recorded(steps: int = 6000, maze: str = "umaze", seed: int = 0, workers: int = 1) -> list[Episode]:
    return [episode for episodes in collect(maze, steps=steps, seed=seed, workers=workers) for episode in episodes]


@pytest.fixture(scope="module")
def episodes() -> list[Episode]:
    return recorded()


def test_episodes_have_the_shapes_and_types_of_d4rls_minari_schema(episodes: list[Episode]) -> None:
    for episode in episodes:
        length = len(episode["actions"])
        layout: dict[str, Any] = {**episode["observations"], **episode["infos"], **episode}
        del layout["observations"], layout["infos"]
        assert {name: (column.shape, str(column.dtype)) for name, column in layout.items()} == {
            "observation": ((length + 1, 4), "float64"),
            "achieved_goal": ((length + 1, 2), "float64"),
            "desired_goal": ((length + 1, 2), "float64"),
            "actions": ((length, 2), "float32"),
            "rewards": ((length,), "float64"),
            "terminations": ((length,), "bool"),
            "truncations": ((length,), "bool"),
            "success": ((length + 1,), "bool"),
            "qpos": ((length + 1, 2), "float64"),
            "qvel": ((length + 1, 2), "float64"),
            "goal": ((length + 1, 2), "float64"),
        }
        assert not episode["terminations"].any()
        assert episode["truncations"].tolist() == [False] * (length - 1) + [True]


def test_all_episodes_together_have_exactly_the_steps_asked_for(episodes: list[Episode]) -> None:
    assert sum(len(episode["actions"]) for episode in episodes) == 6000


def test_each_episode_goes_on_where_the_last_one_ended_to_a_goal_of_its_own(episodes: list[Episode]) -> None:
    for before, after in pairwise(episodes):
        np.testing.assert_array_equal(
            before["observations"]["observation"][-1], after["observations"]["observation"][0]
        )
        assert np.linalg.norm(after["infos"]["goal"][0] - after["infos"]["qpos"][0]) > 0.45
    for episode in episodes:
        goals = episode["observations"]["desired_goal"]
        np.testing.assert_array_equal(goals, np.broadcast_to(goals[0], goals.shape))
        np.testing.assert_array_equal(goals, episode["infos"]["goal"])


def test_every_episode_but_the_last_ends_at_rest_at_its_goal_and_at_no_earlier_step(episodes: list[Episode]) -> None:
    for episode in episodes[:-1]:
        distance = np.linalg.norm(episode["infos"]["qpos"] - episode["infos"]["goal"], axis=1)
        speed = np.linalg.norm(episode["infos"]["qvel"], axis=1)
        at_rest = (distance < 0.1) & (speed < 0.1)
        assert at_rest.tolist() == [False] * (len(at_rest) - 1) + [True]


def test_success_and_reward_are_pointmazes(episodes: list[Episode]) -> None:
    for episode in episodes:
        distance = np.hypot(*(episode["infos"]["qpos"] - episode["infos"]["goal"]).T)
        np.testing.assert_array_equal(episode["infos"]["success"], distance <= 0.45)
        np.testing.assert_array_equal(episode["rewards"], (distance <= 0.45)[1:])


def test_the_actions_replayed_through_gymnasium_give_the_recording_back(
    episodes: list[Episode], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    env: Any = gymnasium.make(recording_spec("umaze"))
    env.reset(seed=0)
    env.unwrapped.point_env.set_state(*(episodes[0]["infos"][name][0] for name in ("qpos", "qvel")))
    for episode in episodes[:4]:
        for action, expected in zip(episode["actions"], episode["observations"]["observation"][1:], strict=True):
            np.testing.assert_array_equal(env.step(action)[0]["observation"], expected)


def test_the_recorded_noise_has_d4rls_spread(episodes: list[Episode]) -> None:
    # Far from the limits, that is near the goal, an action is the controller's force plus N(0, 0.5).
    left = []
    for episode in episodes:
        offset = episode["infos"]["goal"][:-1] - episode["infos"]["qpos"][:-1]
        force = 10 * offset - episode["infos"]["qvel"][:-1]
        calm = (np.linalg.norm(offset, axis=1) < 0.1) & (np.abs(force).max(axis=1) < 0.2)
        left.append((episode["actions"] - force)[calm])
    noise = np.concatenate(left)
    assert noise.size > 500
    # The standard deviation of N(0, 0.5) cut at about two of its own is 0.48.
    assert noise.std() == pytest.approx(0.48, abs=0.03)


def test_a_seed_gives_the_same_recording_with_any_number_of_processes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(demonstrations, "SHARD_STEPS", 700)
    alone = recorded(3000, maze="medium", seed=3)
    together = recorded(3000, maze="medium", seed=3, workers=2)
    np.testing.assert_equal(together, alone)
    assert sum(len(episode["actions"]) for episode in alone) == 3000


def test_shards_differ_and_do_not_depend_on_how_many_follow(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(demonstrations, "SHARD_STEPS", 500)
    short, long = (list(collect("large", steps=steps, seed=1, workers=1)) for steps in (1000, 1500))
    np.testing.assert_equal(long[:2], short)
    assert len({tuple(shard[0]["infos"]["qpos"][0]) for shard in long}) == 3


def test_another_seed_gives_another_recording(episodes: list[Episode]) -> None:
    assert not np.array_equal(recorded(50, seed=1)[0]["actions"], episodes[0]["actions"][:50])


def test_a_recording_that_is_broken_off_ends_its_processes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(demonstrations, "SHARD_STEPS", 100)
    shards = collect("umaze", steps=100_000, seed=0, workers=2)
    next(shards)
    shards.close()  # type: ignore[attr-defined]
    assert list(shards) == []


@pytest.mark.parametrize("maze", ["umaze", "medium", "large"])
def test_the_recordings_environment_is_d4rls(maze: str) -> None:
    spec = recording_spec(maze)
    assert spec.id.lower() == f"pointmaze_{maze}-v3"
    assert (spec.kwargs["continuing_task"], spec.kwargs["reset_target"]) == (True, True)
    assert spec.max_episode_steps == 1_000_000


def test_wrong_requests_are_refused_at_once() -> None:
    with pytest.raises(ValueError, match=r"maze must be one of .*, got 'huge'"):
        collect("huge", steps=10, seed=0)
    with pytest.raises(ValueError, match="steps must be at least 1, got 0"):
        collect("umaze", steps=0, seed=0)
    with pytest.raises(ValueError, match="seed must be at least 0, got -1"):
        collect("umaze", steps=10, seed=-1)
    with pytest.raises(ValueError, match="workers must be at least 1, got 0"):
        collect("umaze", steps=10, seed=0, workers=0)
