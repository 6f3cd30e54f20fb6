"""Meta-World's eight tasks: repeatable, with its own success and goals, done and held by the experts."""

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env
from numpy.typing import NDArray
from tests.envs.observations import same

from forcing.cli import main
from forcing.datasets.recording import open_recording
from forcing.envs.arm_demonstrations import collect, demonstrate
from forcing.envs.metaworld import ACTION, MAX_STEPS, OBSERVATION, TASKS, MetaWorld, Observation, Task, environment_spec
from forcing.envs.metaworld_demonstrations import lesson
from forcing.envs.metaworld_expert import MetaWorldExpert

# How far from its target an object may be, of the tasks whose success Meta-World tells from that alone.
WITHIN_M = {"push": 0.05, "pick-place": 0.07, "drawer-open": 0.03}


@pytest.fixture(scope="module")
def env() -> Iterator[MetaWorld]:
    env = MetaWorld()
    yield env
    env.close()


def wandered(env: MetaWorld, seed: int, task_id: int) -> list[Observation]:
    actions = np.random.default_rng(0).uniform(ACTION.low, ACTION.high, (25, 4))
    first, _ = env.reset(seed=seed, options={"task_id": task_id})
    return [first, *(env.step(action)[0] for action in actions)]


@pytest.mark.parametrize("task_id", range(1, 9))
def test_the_same_seed_gives_the_same_episode_to_the_bit_and_another_seed_another(env: MetaWorld, task_id: int) -> None:
    first = wandered(env, 5, task_id)
    other = wandered(env, 6, task_id)
    assert not np.array_equal(first[0]["target"], other[0]["target"])
    np.random.seed(1)  # noqa: NPY002
    before = repr(np.random.get_state())  # noqa: NPY002
    assert same(first, wandered(env, 5, task_id))
    assert repr(np.random.get_state()) == before  # noqa: NPY002


def test_another_environment_gives_the_same_episode() -> None:
    alone, together = MetaWorld("door-open"), MetaWorld()
    alone.reset(seed=3)
    assert not same(wandered(alone, 5, 1), wandered(together, 5, 1))  # 1 is to reach there
    assert same(wandered(MetaWorld("door-open"), 5, 1), wandered(alone, 5, 1))


def test_what_is_observed_is_what_metaworld_observes_and_no_task_has_a_second_object(env: MetaWorld) -> None:
    for task_id, task in enumerate(TASKS, 1):
        env.reset(seed=1, options={"task_id": task_id})
        observation, *_ = env.step(ACTION.high)
        simulator = env._simulators[task]
        told = simulator._get_curr_obs_combined_no_goal()
        np.testing.assert_allclose(observation["effector_position"], told[:3], atol=1e-6)
        np.testing.assert_allclose(observation["gripper"], 1 - told[3:4], atol=1e-6)
        np.testing.assert_allclose(observation["object_position"], told[4:7], atol=1e-6)
        np.testing.assert_allclose(observation["object_rotation"], told[7:11], atol=1e-6)
        assert not told[11:].any()
        np.testing.assert_allclose(observation["target"], simulator._target_pos, atol=1e-6)
        assert observation["task"].tolist() == [float(task == other) for other in TASKS]


def test_tasks_are_drawn_and_goals_too_and_stay_in_an_episode(env: MetaWorld) -> None:
    drawn = {tuple(env.reset(seed=seed)[0]["task"].tolist()) for seed in range(50)}
    assert len(drawn) == len(TASKS)
    seen = wandered(env, 0, 3)
    assert len({tuple(row["target"].tolist()) for row in seen}) == 1
    targets = np.array([env.reset(seed=seed, options={"task_id": 3})[0]["target"] for seed in range(40)])
    assert (targets.min(axis=0) >= (-0.1, 0.8, 0.05)).all()
    assert (targets.max(axis=0) <= (0.1, 0.9, 0.3001)).all()
    assert (np.ptp(targets, axis=0) > (0.15, 0.07, 0.18)).all()


def test_wrong_requests_are_refused(env: MetaWorld) -> None:
    with pytest.raises(ValueError, match="task_id must be 1 to 8, got 9"):
        env.reset(options={"task_id": 9})
    with pytest.raises(ValueError, match="task_id must be 1 to 1, got 2"):
        MetaWorld("reach").reset(options={"task_id": 2})
    with pytest.raises(ValueError, match=r"task must be one of \['reach', .*\], got 'assembly'"):
        MetaWorld("assembly")  # type: ignore[arg-type]


def test_an_action_that_is_held_is_where_the_hand_comes_to(env: MetaWorld) -> None:
    for place in ((0.1, 0.7, 0.2), (-0.2, 0.55, 0.3), (0.0, 0.8, 0.12)):
        env.reset(seed=0, options={"task_id": 1})
        for _ in range(80):
            observation, *_ = env.step(np.array([*place, 1.0]))
        np.testing.assert_allclose(observation["effector_position"], place, atol=0.003)
        assert observation["gripper"] > 0.6


@pytest.mark.filterwarnings("ignore:.*Box observation space:UserWarning")
@pytest.mark.filterwarnings("ignore:.*symmetric and normalized space:UserWarning")
@pytest.mark.filterwarnings("ignore:.*different render modes:UserWarning")
@pytest.mark.filterwarnings("ignore:.*environment being initialized.*:UserWarning")
@pytest.mark.parametrize("task", [None, "peg-insert-side"])
def test_gymnasium_finds_the_environment_in_order(task: Task | None) -> None:
    env = environment_spec(task).make()
    check_env(env.unwrapped, skip_render_check=True)
    assert env.observation_space == OBSERVATION
    env.close()


def held(env: MetaWorld, seed: int, task_id: int) -> tuple[list[bool], Observation]:
    """Success after each of the episode's steps, and the last observation."""
    expert = MetaWorldExpert()
    observation, info = env.reset(seed=seed, options={"task_id": task_id})
    assert info == {"success": False}
    expert.reset(observation)
    successes, truncated = [], False
    while not truncated:
        observation, reward, terminated, truncated, info = env.step(expert.act(observation))
        assert (reward, terminated) == (float(info["success"]), False)
        successes.append(info["success"])
    return successes, observation


@pytest.mark.parametrize("task_id", range(1, 9))
def test_the_experts_do_their_tasks_and_hold_them_to_the_end_of_the_episode(env: MetaWorld, task_id: int) -> None:
    for seed in range(2):
        successes, last = held(env, seed, task_id)
        assert len(successes) == MAX_STEPS
        assert not successes[10]
        assert all(successes[130:])
        within = WITHIN_M.get(TASKS[task_id - 1])
        if within is not None:
            assert np.linalg.norm(last["object_position"] - last["target"]) <= within


def test_success_is_lost_again_with_what_was_done(env: MetaWorld) -> None:
    expert = MetaWorldExpert()
    observation, _ = env.reset(seed=0, options={"task_id": 1})
    for _ in range(60):
        observation, *_, info = env.step(expert.act(observation))
    assert info["success"]
    away: NDArray[Any] = observation["effector_position"] - (0, 0.2, 0)
    for _ in range(40):
        *_, info = env.step(np.array([*away, 1.0]))
    assert not info["success"]


def test_pushed_experts_recover_and_all_eight_take_turns() -> None:
    lesson_of_all = lesson()
    episodes = [episode for shard in collect(lesson_of_all, steps=850, seed=0, workers=1) for episode in shard]
    tasks = [int(episode["observations"]["task"][0].argmax()) for episode in episodes]
    assert tasks == [number % 8 for number in range(len(episodes))]
    assert len(tasks) >= 7
    assert all(episode["infos"]["success"][-40:].all() for episode in episodes)


def test_pushes_are_felt_and_labels_are_what_was_wanted(env: MetaWorld) -> None:
    episode = demonstrate(lesson(), env, seed=0, options={"task_id": 2}, bursts=True)
    hand = episode["observations"]["effector_position"][:-1]
    executed = episode["infos"]["executed"][:-1]
    assert np.abs(executed[:, :3] - hand).max() < 0.05 + 0.05 + 5 * 0.006
    wanted = np.clip(episode["actions"][:, :3], hand - 0.05, hand + 0.05)
    assert 0.004 < (executed[:, :3] - wanted).std() < 0.03


def test_generate_hands_the_streams_to_training(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for line in (
        f"generate metaworld-pick-place --out {tmp_path} --steps 150 --workers 1",
        f"data check {tmp_path}/forcing/metaworld-pick-place-v0",
    ):
        with pytest.raises(SystemExit) as left:
            main(line.split())
        assert left.value.code == 0, line
    assert "0 errors" in capsys.readouterr().out
    recording = open_recording(tmp_path / "forcing" / "metaworld-pick-place-v0")
    assert {stream.name: stream.shape for stream in recording.spec.streams} == {
        "effector_position": (3,),
        "gripper": (1,),
        "object_position": (3,),
        "object_rotation": (4,),
        "target": (3,),
        "task": (8,),
        "action": (4,),
        "reward": (),
    }
    assert (recording.spec.goal, recording.spec.control_hz) == (None, 80.0)
    assert recording.spec["target"].units == "m"
    assert recording.spec.action.low == pytest.approx((-0.5, 0.4, 0.05, 0.0))


def test_without_metaworld_the_error_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "metaworld.env_dict", None)
    with pytest.raises(
        RuntimeError, match=r"metaworld needs the extra 'metaworld'.*pip install 'forcing\[metaworld\]'"
    ):
        MetaWorld()
