"""`cube-single`, `cube-double`: ogbench's tasks and success, repeatable, done by the expert."""

import sys
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env
from numpy.typing import NDArray
from tests.envs.observations import same

from forcing.envs.arm_control import heading, step_towards, turn, within_reach
from forcing.envs.cube import MAX_STEPS, Cube, Kind, Observation, environment_spec, observation_space
from forcing.envs.cube_expert import CubeExpert

# ogbench's five tasks of two cubes, from its source: where the one and the other start, and shall be.
OFFICIAL = {
    1: (((0.425, 0.0, 0.02), (0.425, -0.1, 0.02)), ((0.425, 0.0, 0.02), (0.425, 0.1, 0.02))),
    2: (((0.35, -0.1, 0.02), (0.50, -0.1, 0.02)), ((0.35, 0.1, 0.02), (0.50, 0.1, 0.02))),
    3: (((0.35, 0.0, 0.02), (0.50, 0.0, 0.02)), ((0.425, -0.2, 0.02), (0.425, 0.2, 0.02))),
    4: (((0.425, -0.1, 0.02), (0.425, 0.1, 0.02)), ((0.425, 0.1, 0.02), (0.425, -0.1, 0.02))),
    5: (((0.425, -0.2, 0.02), (0.425, 0.2, 0.02)), ((0.425, 0.0, 0.02), (0.425, 0.0, 0.06))),
}


@pytest.fixture(scope="module")
def single() -> Iterator[Cube]:
    env = Cube("single")
    yield env
    env.close()


@pytest.fixture(scope="module")
def double() -> Iterator[Cube]:
    env = Cube("double")
    yield env
    env.close()


def wandered(env: Cube, seed: int) -> list[Observation]:
    rng = np.random.default_rng(0)
    space: Any = env.action_space
    actions = rng.uniform(space.low, space.high, (20, 6))
    return [env.reset(seed=seed)[0], *(env.step(action)[0] for action in actions)]


def test_the_same_seed_gives_the_same_episode_to_the_bit_and_another_seed_another(double: Cube) -> None:
    first = wandered(double, 5)
    wandered(double, 6)
    np.random.seed(1)  # noqa: NPY002
    assert same(first, wandered(double, 5))
    assert not same(first, wandered(double, 6))
    assert same(first, wandered(Cube("double"), 5))


def test_no_global_generator_is_touched(single: Cube) -> None:
    before = repr(np.random.get_state())  # noqa: NPY002
    wandered(single, 1)
    single.reset(options={"task_id": 2})
    assert repr(np.random.get_state()) == before  # noqa: NPY002


def test_resets_without_a_seed_go_on_from_the_one_before(single: Cube) -> None:
    def three() -> list[Observation]:
        return [single.reset(seed=3)[0], single.reset()[0], single.reset()[0]]

    first = three()
    assert same(first, three())
    assert not np.array_equal(first[1]["red_position"], first[2]["red_position"])


@pytest.mark.parametrize("task_id", OFFICIAL)
def test_official_tasks_start_and_end_where_ogbench_has_them_with_either_cube_in_either_place(
    double: Cube, task_id: int
) -> None:
    starts, goals = np.array(OFFICIAL[task_id])
    orders = set()
    for seed in range(12):
        observation, info = double.reset(seed=seed, options={"task_id": task_id})
        found = np.stack([observation["red_position"], observation["blue_position"]])
        order = (0, 1) if np.linalg.norm(found[0] - starts[0]) < 0.02 else (1, 0)
        np.testing.assert_allclose(found, starts[list(order)], atol=0.0101)
        np.testing.assert_allclose(observation["target"].reshape(2, 3), goals[list(order)], atol=1e-6)
        assert info == {"success": False}
        orders.add(order)
    assert orders == {(0, 1), (1, 0)}


def test_without_a_task_one_is_drawn(double: Cube) -> None:
    targets = {tuple(sorted(double.reset(seed=seed)[0]["target"].round(3))) for seed in range(30)}
    assert len(targets) == 5


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"task_id": 0}, "task_id must be 1 to 5, got 0"),
        ({"task_id": 6}, "task_id must be 1 to 5, got 6"),
        ({"starts": [0.4, 0.0, 0.02]}, r"starts must have the shape \(1, 3\), got \(3,\)"),
        ({"goals": [[0.4, 0.0]]}, r"goals must have the shape \(1, 3\), got \(1, 2\)"),
    ],
)
def test_what_cannot_be_asked_for_is_refused(single: Cube, options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        single.reset(seed=0, options=options)


def test_an_unknown_kind_is_refused() -> None:
    with pytest.raises(ValueError, match=r"kind must be one of \['single', 'double'\], got 'triple'"):
        Cube("triple")  # type: ignore[arg-type]


@pytest.mark.parametrize(("offset", "success"), [(0.03, True), (0.05, False)])
def test_success_is_to_lie_within_four_centimetres_now_and_ends_nothing(
    single: Cube, offset: float, success: bool
) -> None:
    places = {"starts": [[0.4, 0.0, 0.02]], "goals": [[0.4 + offset, 0.0, 0.02]]}
    assert single.reset(seed=0, options=places)[1] == {"success": success}
    far = np.array([0.3, 0.3, 0.3, 1.0, 0.0, 0.0])
    ends = []
    for _ in range(MAX_STEPS["single"]):
        _, reward, terminated, truncated, info = single.step(far)
        assert (info["success"], reward, terminated) == (success, float(success), False)
        ends.append(truncated)
    assert ends == [False] * (MAX_STEPS["single"] - 1) + [True]


def test_both_of_two_cubes_must_be_in_their_places(double: Cube) -> None:
    starts = [[0.4, -0.1, 0.02], [0.4, 0.1, 0.02]]
    for goals, success in ((starts, True), (starts[::-1], False), ([starts[0], [0.4, 0.2, 0.02]], False)):
        assert double.reset(seed=0, options={"starts": starts, "goals": goals})[1] == {"success": success}


def test_an_action_that_is_held_is_where_the_effector_comes_to(single: Cube) -> None:
    for seed, yaw in enumerate((0.0, 0.3, -0.6)):
        observation, _ = single.reset(seed=seed, options={"task_id": 1})
        action = np.array([0.35, 0.2, 0.25, *heading(yaw), 1.0])
        for _ in range(60):
            observation = single.step(action)[0]
        np.testing.assert_allclose(observation["effector_position"], action[:3], atol=0.006)
        assert abs(turn(heading(yaw), observation["effector_heading"])) < 0.01
        assert observation["gripper"][0] > 0.9


def test_turns_are_told_in_quarters() -> None:
    for yaw in (-3.0, -0.5, 0.0, 0.4, 2.0):
        assert turn(heading(yaw + 0.2), heading(yaw)) == pytest.approx(0.2)
        assert turn(heading(yaw - 0.2), 3 * heading(yaw)) == pytest.approx(-0.2)
        assert turn(heading(yaw + np.pi / 2 + 0.1), heading(yaw)) == pytest.approx(0.1)
    assert abs(turn(heading(np.pi / 4), heading(0.0))) == pytest.approx(np.pi / 4)


def test_a_step_goes_as_far_as_ogbench_lets_it() -> None:
    at: tuple[NDArray[np.float64], float, float] = (np.array([0.4, 0.0, 0.2]), 1.0, 0.25)
    near = np.array([0.41, -0.025, 0.2, *heading(1.15), 0.5])
    np.testing.assert_allclose(step_towards(near, *at), [0.2, -0.5, 0.0, 0.5, 0.25], atol=1e-9)
    far = np.array([0.6, -0.3, 0.02, *heading(0.4), 1.0])
    np.testing.assert_allclose(step_towards(far, *at), [1, -1, -1, -1, 0.75])


def test_what_is_within_reach_leads_to_the_same_step(single: Cube) -> None:
    observation, _ = single.reset(seed=4)
    yaw = float(np.arctan2(*observation["effector_heading"][::-1])) / 4
    for target in (np.array([0.3, 0.3, 0.02, 1.0, 0.0, 1.0]), np.array([0.6, -0.3, 0.3, 0.0, 1.0, 0.0])):
        cut = within_reach(target, observation)
        steps = [step_towards(each, observation["effector_position"], yaw, 0.0) for each in (target, cut)]
        np.testing.assert_allclose(steps[0], steps[1], atol=1e-6)
        assert np.abs(cut[:3] - observation["effector_position"]).max() <= 0.05 + 1e-6


@pytest.mark.filterwarnings("ignore:.*Box observation space:UserWarning")
@pytest.mark.filterwarnings("ignore:.*symmetric and normalized space:UserWarning")
@pytest.mark.filterwarnings("ignore:.*different render modes:UserWarning")
@pytest.mark.filterwarnings("ignore:.*environment being initialized.*:UserWarning")
@pytest.mark.parametrize("kind", ["single", "double"])
def test_gymnasium_finds_the_environment_in_order(kind: Kind) -> None:
    env = environment_spec(kind).make()
    check_env(env.unwrapped, skip_render_check=True)
    assert env.observation_space == observation_space(kind)
    env.close()


def driven(env: Cube, seed: int, options: dict[str, Any], most: int) -> tuple[bool, int]:
    """Whether success holds after `most` steps, and for how many steps it has."""
    expert = CubeExpert()
    observation, _ = env.reset(seed=seed, options=options)
    expert.reset(observation)
    held = 0
    for _ in range(most):
        observation, *_, info = env.step(expert.act(observation))
        held = held + 1 if info["success"] else 0
    return held > 0, held


def test_the_expert_does_every_official_task_and_leaves_it_done(single: Cube, double: Cube) -> None:
    for task_id in range(1, 6):
        assert driven(single, task_id, {"task_id": task_id}, 90)[1] > 20
        assert driven(double, task_id, {"task_id": task_id}, 180)[1] > 20


def test_what_stands_where_the_lower_cube_shall_be_is_put_aside_first(double: Cube) -> None:
    starts, goals = [[0.38, 0.1, 0.02], [0.43, -0.1, 0.02]], [[0.39, 0.08, 0.06], [0.39, 0.08, 0.02]]
    assert driven(double, 0, {"starts": starts, "goals": goals}, 250)[0]


def test_without_ogbench_the_error_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "forcing.envs.cube_scene", None)
    with pytest.raises(RuntimeError, match=r"cube-double needs the extra 'ogbench'.*pip install 'forcing\[ogbench\]'"):
        Cube("double")
