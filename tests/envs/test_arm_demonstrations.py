"""Recordings of pushed experts, of an arm that needs no simulator: a point on a line, and a place on it."""

from functools import partial
from typing import Any

import gymnasium
import numpy as np
import pytest
from gymnasium import spaces

from forcing.envs import arm_demonstrations, held_episodes
from forcing.envs.arm_demonstrations import Lesson, collect, demonstrate
from forcing.envs.held_episodes import Episode
from forcing.envs.pushes import Pushing

LIMIT = 40


class Line(gymnasium.Env[Any, Any]):
    """A point goes to where the action says, 0.1 a step; success is to be within 0.1 of the place. With `slips`, every
    third episode cannot succeed."""

    observation_space = spaces.Dict(point=spaces.Box(-9, 9, (1,)), target=spaces.Box(-9, 9, (1,)))
    action_space = spaces.Box(-1.0, 1.0, (2,), np.float32)

    def __init__(self, slips: bool = False) -> None:
        self.slips, self.episodes = slips, 0

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed)
        self.episodes += 1
        self.point, self.steps = 0.0, 0
        self.target = (options or {}).get("target", 0.5)
        if self.slips and self.np_random.random() < 0.5:
            self.target = 5.0
        return self.seen(), {"success": self.near()}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        self.point += float(np.clip(action[0] - self.point, -0.1, 0.1))
        self.steps += 1
        return self.seen(), float(self.near()), False, self.steps >= LIMIT, {"success": self.near()}

    def near(self) -> bool:
        return bool(abs(self.point - self.target) < 0.1)

    def seen(self) -> dict[str, Any]:
        return {"point": np.array([self.point], np.float32), "target": np.array([self.target], np.float32)}


class Goes:
    def reset(self, observation: Any, seed: int = 0) -> None:
        self.target = observation["target"]

    def act(self, observation: Any) -> Any:
        return np.array([min(1.0, self.target[0]), 0.0], np.float32)


def near_it(action: Any, observation: Any) -> Any:
    return np.append(np.clip(action[0], *(observation["point"][0] + (-0.1, 0.1))), action[1])


def drawn(number: int, rng: np.random.Generator) -> dict[str, Any]:
    return {"target": round(float(rng.uniform(0.3, 0.9)), 3)}


def lesson(*, slips: bool = False, after: int = 5) -> Lesson:
    return Lesson(
        env=partial(Line, slips),
        expert=Goes,
        options=drawn,
        reach=near_it,
        pushing=Pushing(noise=(0.05, 0.0), burst=(0.1,), often=0.05),
        after=after,
        least_steps=5,
    )


def recorded(steps: int, seed: int = 0, **options: Any) -> list[Episode]:
    return [episode for shard in collect(lesson(**options), steps=steps, seed=seed, workers=1) for episode in shard]


def test_episodes_are_whole_hold_and_are_as_many_as_hold_the_steps() -> None:
    episodes = recorded(150)
    lengths = [len(episode["actions"]) for episode in episodes]
    assert sum(lengths[:-1]) < 150 <= sum(lengths)
    for episode in episodes:
        success = episode["infos"]["success"]
        assert success[-5:].all()
        assert not success[-6]
        np.testing.assert_array_equal(episode["rewards"], success[1:])
        steps = len(episode["actions"])
        assert {name: len(rows) for name, rows in episode["observations"].items()} == {
            "point": steps + 1,
            "target": steps + 1,
        }
        assert len(episode["infos"]["executed"]) == steps + 1
        assert episode["truncations"].tolist() == [False] * (steps - 1) + [True]
        assert not episode["terminations"].any()


def test_what_is_recorded_is_what_was_wanted_and_what_was_executed_is_beside_it() -> None:
    (episode,) = recorded(1)
    target = episode["observations"]["target"][0, 0]
    np.testing.assert_array_equal(episode["actions"][:, 0], np.full(len(episode["actions"]), target))
    point = episode["observations"]["point"][:, 0]
    moved = np.clip(episode["infos"]["executed"][:-1, 0] - point[:-1], -0.1, 0.1)
    np.testing.assert_allclose(np.diff(point), moved, atol=1e-6)
    assert (moved[:3] != 0.1).any()  # pushes are felt where the place is still far


def test_unpushed_the_expert_is_executed_as_it_is_and_an_episode_can_be_cut_by_the_environment() -> None:
    env = Line()
    episode = demonstrate(lesson(after=1000), env, seed=0, options={"target": 0.5}, pushed=False)
    np.testing.assert_array_equal(episode["infos"]["executed"][:-1], episode["actions"])
    assert len(episode["actions"]) == LIMIT
    np.testing.assert_allclose(episode["observations"]["point"][:7, 0], [0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.5], atol=1e-6)


def test_an_attempt_that_fails_is_left_out() -> None:
    episodes = recorded(100, slips=True)
    assert all(episode["infos"]["success"][-1] for episode in episodes)
    assert all(episode["observations"]["target"][0, 0] < 1 for episode in episodes)


@pytest.mark.parametrize("slips", [False, True])
def test_a_longer_recording_begins_like_a_shorter_one_however_it_is_cut_into_shards(
    monkeypatch: pytest.MonkeyPatch, slips: bool
) -> None:
    short = recorded(60, slips=slips)
    monkeypatch.setattr(held_episodes, "SHARD_EPISODES", 2)
    longer = recorded(120, slips=slips)
    assert len(longer) > len(short)
    for one, other in zip(short, longer, strict=False):
        np.testing.assert_array_equal(one["actions"], other["actions"])
        np.testing.assert_array_equal(one["infos"]["executed"], other["infos"]["executed"])
    assert not np.array_equal(recorded(1, seed=1)[0]["actions"][0], short[0]["actions"][0])


def test_some_episodes_have_bursts_and_some_have_none(monkeypatch: pytest.MonkeyPatch) -> None:
    told = []
    real = arm_demonstrations.demonstrate

    def demonstrate(*arguments: Any, bursts: bool, **options: Any) -> Episode:
        told.append(bursts)
        return real(*arguments, bursts=bursts, **options)

    monkeypatch.setattr(arm_demonstrations, "demonstrate", demonstrate)
    recorded(3000)
    assert 0.55 < np.mean(told) < 0.78


def test_a_request_for_nothing_is_refused_at_once() -> None:
    with pytest.raises(ValueError, match="steps must be at least 1, got 0"):
        collect(lesson(), steps=0, seed=0)
