"""Fetch's pushing and carrying: repeatable, the package's success and goals, done and held by the experts."""

from collections.abc import Iterator
from pathlib import Path

import gymnasium
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env
from tests.envs.observations import same

from forcing.cli import main
from forcing.datasets.recording import open_recording
from forcing.envs.arm_demonstrations import collect, demonstrate
from forcing.envs.fetch import ACTION, MAX_STEPS, OBSERVATION, Fetch, Kind, Observation, environment_spec
from forcing.envs.fetch_demonstrations import lesson
from forcing.envs.fetch_expert import FetchExpert

KINDS: tuple[Kind, ...] = ("push", "pick-and-place")


@pytest.fixture(scope="module")
def envs() -> Iterator[dict[Kind, Fetch]]:
    envs: dict[Kind, Fetch] = {kind: Fetch(kind) for kind in KINDS}
    yield envs
    for env in envs.values():
        env.close()


def wandered(env: Fetch, kind: Kind, seed: int) -> list[Observation]:
    actions = np.random.default_rng(0).uniform(ACTION[kind].low, ACTION[kind].high, (20, len(ACTION[kind].low)))
    return [env.reset(seed=seed)[0], *(env.step(action)[0] for action in actions)]


@pytest.mark.parametrize("kind", KINDS)
def test_the_same_seed_gives_the_same_episode_to_the_bit_and_another_seed_another(
    envs: dict[Kind, Fetch], kind: Kind
) -> None:
    first = wandered(envs[kind], kind, 5)
    assert not np.array_equal(wandered(envs[kind], kind, 6)[0]["target"], first[0]["target"])
    np.random.seed(1)  # noqa: NPY002
    before = repr(np.random.get_state())  # noqa: NPY002
    assert same(first, wandered(envs[kind], kind, 5))
    assert same(first, wandered(Fetch(kind), kind, 5))
    assert repr(np.random.get_state()) == before  # noqa: NPY002


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_observed_is_what_the_package_observes(envs: dict[Kind, Fetch], kind: Kind) -> None:
    env = envs[kind]
    env.reset(seed=3)
    for _ in range(3):
        observation, *_ = env.step(ACTION[kind].high)
    told = env._simulator._get_obs()
    np.testing.assert_allclose(observation["effector_position"], told["observation"][:3], atol=1e-6)
    np.testing.assert_allclose(observation["object_position"], told["achieved_goal"], atol=1e-6)
    np.testing.assert_allclose(observation["target"], told["desired_goal"], atol=1e-6)
    assert ("gripper" in observation) == (kind == "pick-and-place")


def test_the_gripper_is_told_from_open_to_closed(envs: dict[Kind, Fetch]) -> None:
    env = envs["pick-and-place"]
    for wanted in (0.0, 1.0):
        env.reset(seed=0)
        for _ in range(12):
            observation, *_ = env.step(np.array([1.3, 0.7, 0.6, wanted]))
        assert observation["gripper"][0] == pytest.approx(wanted, abs=0.03)


@pytest.mark.parametrize("kind", KINDS)
def test_starts_and_goals_are_those_of_the_package_and_differ(envs: dict[Kind, Fetch], kind: Kind) -> None:
    firsts = [envs[kind].reset(seed=seed)[0] for seed in range(60)]
    targets = np.array([first["target"] for first in firsts])
    blocks = np.array([first["object_position"] for first in firsts])
    assert (np.ptp(targets[:, :2], axis=0) > 0.25).all()
    assert (np.ptp(blocks[:, :2], axis=0) > 0.25).all()
    lifted = (targets[:, 2] > 0.43).mean()
    assert (lifted == 0) if kind == "push" else (0.3 < lifted < 0.7)


@pytest.mark.parametrize("kind", KINDS)
def test_an_action_that_is_held_is_where_the_effector_comes_to(envs: dict[Kind, Fetch], kind: Kind) -> None:
    envs[kind].reset(seed=0)
    action = np.array([1.25, 0.6, 0.55, 0.0])[: len(ACTION[kind].low)]
    for _ in range(20):
        observation, *_ = envs[kind].step(action)
    np.testing.assert_allclose(observation["effector_position"], action[:3], atol=0.002)


@pytest.mark.filterwarnings("ignore:.*Box observation space:UserWarning")
@pytest.mark.filterwarnings("ignore:.*symmetric and normalized space:UserWarning")
@pytest.mark.filterwarnings("ignore:.*different render modes:UserWarning")
@pytest.mark.filterwarnings("ignore:.*environment being initialized.*:UserWarning")
@pytest.mark.parametrize("kind", KINDS)
def test_gymnasium_finds_the_environment_in_order(kind: Kind) -> None:
    env = environment_spec(kind).make()
    check_env(env.unwrapped, skip_render_check=True)
    assert env.observation_space == OBSERVATION[kind]
    env.close()


@pytest.mark.parametrize("kind", KINDS)
def test_the_experts_bring_the_block_there_and_it_stays_to_the_end_of_the_episode(
    envs: dict[Kind, Fetch], kind: Kind
) -> None:
    for seed in range(10):
        expert, env = FetchExpert(), envs[kind]
        observation, info = env.reset(seed=seed)
        expert.reset(observation)
        ends = []
        for _ in range(MAX_STEPS):
            observation, reward, terminated, truncated, info = env.step(expert.act(observation))
            near = np.linalg.norm(observation["object_position"] - observation["target"]) < 0.05
            assert (info["success"], reward, terminated) == (near, float(near), False)
            ends.append(truncated)
        assert ends == [False] * (MAX_STEPS - 1) + [True]
        assert info["success"]


@pytest.mark.parametrize("kind", KINDS)
def test_pushed_experts_recover(kind: Kind) -> None:
    taught = lesson(kind)
    env: gymnasium.Env = taught.env()
    held = [demonstrate(taught, env, seed=seed, bursts=True)["infos"]["success"][-1] for seed in range(10)]
    env.close()
    assert sum(held) >= 8


def test_demonstrations_are_whole_episodes_that_hold() -> None:
    episodes = [episode for shard in collect(lesson("push"), steps=120, seed=0, workers=1) for episode in shard]
    assert [len(episode["actions"]) for episode in episodes] == [MAX_STEPS] * 3
    assert all(episode["infos"]["success"][-1] for episode in episodes)
    assert all((episode["infos"]["executed"][:-1] != episode["actions"]).any() for episode in episodes)


def test_generate_hands_the_streams_to_training(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for line in (
        f"generate fetch-pick-and-place --out {tmp_path} --steps 100 --workers 1",
        f"data check {tmp_path}/forcing/fetch-pick-and-place-v0",
    ):
        with pytest.raises(SystemExit) as left:
            main(line.split())
        assert left.value.code == 0, line
    assert "0 errors" in capsys.readouterr().out
    recording = open_recording(tmp_path / "forcing" / "fetch-pick-and-place-v0")
    assert {stream.name: stream.shape for stream in recording.spec.streams} == {
        "effector_position": (3,),
        "gripper": (1,),
        "object_position": (3,),
        "object_heading": (2,),
        "target": (3,),
        "action": (4,),
        "reward": (),
    }
    assert (recording.spec.goal, recording.spec.control_hz) == (None, 25.0)
    assert recording.spec["object_position"].units == "m"
    assert recording.spec.action.high == pytest.approx((1.6, 1.05, 0.95, 1.0))


def test_an_unknown_kind_is_refused() -> None:
    with pytest.raises(ValueError, match=r"kind must be one of \['push', 'pick-and-place'\], got 'slide'"):
        Fetch("slide")  # type: ignore[arg-type]
