"""`swap`: repeatable, told right, seen close enough, and done by its expert from every layout."""

import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env
from numpy.typing import NDArray
from tests.envs.observations import same

from forcing.envs.arm_control import heading, pose, step_towards
from forcing.envs.held_episodes import Episode
from forcing.envs.rendering import use_headless
from forcing.envs.swap import LAYOUTS, MAX_STEPS, Observation, Progress, Swap, environment_spec, resting_slot
from forcing.envs.swap_distractors import Distractor
from forcing.envs.swap_expert import SwapExpert, demonstrate
from forcing.envs.swap_layout import SLOTS

FAR = np.array([0.425, 0.0, 0.3])


@pytest.fixture(scope="module")
def env() -> Iterator[Swap]:
    env = Swap()
    yield env
    env.close()


@pytest.fixture(scope="module")
def filmed() -> Iterator[Swap | None]:
    """With cameras; None where nothing renders, which must then be said."""
    try:
        use_headless()
    except RuntimeError:
        yield None
        return
    env = Swap(cameras=True)
    yield env
    env.close()


@pytest.fixture(scope="module")
def episodes(env: Swap) -> list[Episode]:
    """Two from each layout, one of them pushed about."""
    return [
        demonstrate(env, seed=10 + index, noise=noise, layout=layout)
        for index, layout in enumerate(LAYOUTS)
        for noise in (0.0, 0.2)
    ]


def wandered(env: Swap, seed: int) -> list[Observation]:
    actions = np.random.default_rng(0).uniform(env.action_space.low, env.action_space.high, (20, 6))  # type: ignore[attr-defined]
    return [env.reset(seed=seed)[0], *(env.step(action)[0] for action in actions)]


def test_the_same_seed_gives_the_same_episode_to_the_bit_and_another_seed_another(env: Swap) -> None:
    first = wandered(env, 5)
    wandered(env, 6)
    np.random.seed(1)  # noqa: NPY002
    assert same(first, wandered(env, 5))
    assert not any(
        np.array_equal(a["effector_position"], b["effector_position"])
        for a, b in zip(first, wandered(env, 6), strict=True)
    )
    other = Swap()
    assert same(first, wandered(other, 5))
    other.close()


def test_an_action_says_where_effector_and_gripper_shall_be_and_a_held_one_holds_them_there(env: Swap) -> None:
    target = np.array([0.5, -0.1, 0.25, *heading(0.6), 0.6], np.float32)
    env.reset(seed=0)
    reached = [pose(env.step(target)[0]) for _ in range(60)]
    for here in reached[30:]:
        np.testing.assert_allclose(here[:3], target[:3], atol=0.006)  # it sags by 5 mm
        np.testing.assert_allclose(here[3:], [0.6, 0.6], atol=0.05)


def test_an_action_beyond_the_limits_is_cut_to_them(env: Swap) -> None:
    def last(action: list[float]) -> NDArray[np.float64]:
        env.reset(seed=0)
        for _ in range(10):
            observation, *_ = env.step(np.array(action))
        return pose(observation)

    np.testing.assert_array_equal(last([0.9, 0, 0.2, 1, 0, 2]), last([0.6, 0, 0.2, 1, 0, 1]))


def test_resets_without_a_seed_go_on_from_the_one_before(env: Swap) -> None:
    def three() -> list[Observation]:
        return [env.reset(seed=3)[0], env.reset()[0], env.reset()[0]]

    first = three()
    assert same(first, three())
    assert not np.array_equal(first[1]["red_position"], first[2]["red_position"])


def test_no_global_generator_is_touched(env: Swap) -> None:
    before = repr(np.random.get_state())  # noqa: NPY002
    demonstrate(env, seed=1, noise=0.1)
    assert repr(np.random.get_state()) == before  # noqa: NPY002


def test_every_layout_is_drawn_and_any_can_be_asked_for(env: Swap) -> None:
    assert sorted(LAYOUTS) == [(0, 1), (0, 2), (1, 0), (1, 2), (2, 0), (2, 1)]
    assert {env.reset(seed=seed)[1]["layout"] for seed in range(40)} == set(LAYOUTS)
    for layout in LAYOUTS:
        observation, info = env.reset(seed=0, options={"layout": layout})
        assert info == {"success": False, "layout": layout}
        for cube, slot in zip(("red", "blue"), layout, strict=True):
            assert np.abs(observation[f"{cube}_position"][:2] - SLOTS[slot]).max() <= 0.01 + 1e-6


@pytest.mark.parametrize("layout", [(0, 0), (0, 3), (0,)])
def test_a_layout_that_is_none_is_refused(env: Swap, layout: Any) -> None:
    with pytest.raises(ValueError, match="layout must be two different slots of 0, 1 and 2"):
        env.reset(options={"layout": layout})


def test_without_cameras_there_is_nothing_to_disturb(env: Swap) -> None:
    with pytest.raises(ValueError, match="it needs cameras=True"):
        env.reset(options={"distractor": Distractor(kind="cover")})


@pytest.mark.filterwarnings("ignore:.*Box observation space:UserWarning")
@pytest.mark.filterwarnings("ignore:.*symmetric and normalized space:UserWarning")
@pytest.mark.filterwarnings("ignore:.*different render modes:UserWarning")
@pytest.mark.filterwarnings("ignore:.*environment being initialized.*:UserWarning")
def test_gymnasium_finds_the_environment_in_order(env: Swap) -> None:
    check_env(env, skip_render_check=True)
    assert environment_spec().make().unwrapped.observation_space == env.observation_space


# What rests where, step by step, and when both are swapped; red begins in slot 0, blue in slot 1.
@pytest.mark.parametrize(
    ("resting", "swapped"),
    [
        ([(0, 1), (None, 1), (2, 1), (2, None), (2, 0), (None, 0), (1, 0)], [0, 0, 0, 0, 0, 0, 1]),
        ([(0, None), (0, 2), (1, 2), (1, 0)], [0, 0, 0, 1]),
        ([(2, 1), (2, 0), (1, 0), (1, None), (1, 0)], [0, 0, 1, 0, 1]),
        ([(None, 1), (None, None), (None, 0), (1, 0)], [0, 0, 0, 0]),
        ([(2, 1), (2, 0), (0, 1)], [0, 0, 0]),
    ],
    ids=["red by the free slot", "blue by it", "one is lifted again", "never in the free slot", "put back"],
)
def test_swapped_is_the_whole_exchange_by_the_free_slot_as_long_as_it_holds(
    resting: list[tuple[int | None, int | None]], swapped: list[int]
) -> None:
    progress = Progress((0, 1))
    told = []
    for each in resting:
        progress.see(each)
        told.append(int(progress.swapped))
    assert told == swapped


@pytest.mark.parametrize(
    ("offset", "effector", "slot"),
    [
        ((0, 0, 0.02), FAR, 1),
        ((0.029, 0, 0.02), FAR, 1),
        ((0.031, 0, 0.02), FAR, None),
        ((0, 0, 0.03), FAR, None),
        ((0, 0, 0.02), np.array([*SLOTS[1], 0.05]), None),
    ],
    ids=["in the middle", "just in", "just out", "lifted", "in the gripper"],
)
def test_a_cube_rests_in_a_slot_on_the_table_away_from_the_gripper(
    offset: tuple[float, ...], effector: NDArray[np.float64], slot: int | None
) -> None:
    assert resting_slot(np.array([*SLOTS[1], 0.0]) + offset, effector) == slot


def test_the_expert_swaps_from_every_layout_and_the_swap_holds(episodes: list[Episode]) -> None:
    assert [bool(episode["infos"]["success"][-1]) for episode in episodes] == [True] * 12
    assert max(len(episode["actions"]) for episode in episodes) < MAX_STEPS
    for index, episode in enumerate(episodes):
        red, blue = LAYOUTS[index // 2]
        assert np.linalg.norm(episode["observations"]["red_position"][-1][:2] - SLOTS[blue]) < 0.03
        assert np.linalg.norm(episode["observations"]["blue_position"][-1][:2] - SLOTS[red]) < 0.03


def test_a_demonstration_has_the_layout_that_is_promised(episodes: list[Episode]) -> None:
    for episode in episodes:
        steps = len(episode["actions"])
        sizes = {name: column.shape for name, column in {**episode["observations"], **episode["infos"]}.items()}
        assert sizes == {
            "effector_position": (steps + 1, 3),
            "effector_heading": (steps + 1, 2),
            "gripper": (steps + 1, 2),
            "red_position": (steps + 1, 3),
            "red_heading": (steps + 1, 2),
            "blue_position": (steps + 1, 3),
            "blue_heading": (steps + 1, 2),
            "executed": (steps + 1, 6),
            "success": (steps + 1,),
        }
        assert episode["truncations"].tolist() == [False] * (steps - 1) + [True]
        assert not episode["terminations"].any()
        np.testing.assert_array_equal(episode["rewards"], episode["infos"]["success"][1:])


def _step(action: NDArray[np.float32], at: NDArray[np.float64]) -> NDArray[np.float64]:
    return step_towards(action, at[:3], at[3], at[4])


def test_what_was_executed_replayed_gives_the_demonstration_back_and_labels_are_what_was_wanted(
    env: Swap, episodes: list[Episode]
) -> None:
    clean, noisy = episodes[0], episodes[1]
    np.testing.assert_array_equal(clean["actions"], clean["infos"]["executed"][:-1])
    rows = [
        {name: column[step] for name, column in noisy["observations"].items()} for step in range(len(noisy["actions"]))
    ]
    wanted, done = (
        np.stack([_step(action, pose(row)) for row, action in zip(rows, actions, strict=True)])
        for actions in (noisy["actions"], noisy["infos"]["executed"][:-1])
    )
    free = np.abs(done[:, :4]) < 0.99  # what is cut to a step's limits is less than was drawn
    assert 0.1 < (done - wanted)[:, :4][free].std() < 0.3  # 0.2, and what is cut to a whole step is seen from below
    np.testing.assert_allclose(done[:, 4], wanted[:, 4], atol=1e-6)
    env.reset(seed=10, options={"layout": LAYOUTS[0]})
    for step, action in enumerate(noisy["infos"]["executed"][:-1]):
        observation, *_ = env.step(action)
        np.testing.assert_array_equal(observation["red_position"], noisy["observations"]["red_position"][step + 1])


def test_a_layout_on_the_way_is_another_episodes_start(env: Swap, episodes: list[Episode]) -> None:
    red, blue = LAYOUTS[0]
    (free,) = {0, 1, 2} - {red, blue}
    observed = episodes[0]["observations"]
    rows = [{name: column[step] for name, column in observed.items()} for step in range(len(episodes[0]["rewards"]))]
    halfway = [
        row
        for row in rows
        if tuple(resting_slot(row[f"{cube}_position"], row["effector_position"]) for cube in ("red", "blue"))
        == (free, blue)
    ]
    assert halfway
    assert (free, blue) in LAYOUTS
    # There red would go to the slot that is empty now; here it is blue that does.
    expert = SwapExpert()
    expert.reset(halfway[0], seed=0)
    expert.act(halfway[0])
    assert expert._leg == (0, red)


def test_negative_noise_is_refused(env: Swap) -> None:
    with pytest.raises(ValueError, match=r"noise must be at least 0, got -0\.1"):
        demonstrate(env, seed=0, noise=-0.1)


def test_the_expert_refuses_a_start_that_is_none(env: Swap) -> None:
    observation, _ = env.reset(seed=0)
    lifted = {**observation, "red_position": observation["red_position"] + np.array([0, 0, 0.1], np.float32)}
    with pytest.raises(ValueError, match="the red cube must rest in a slot"):
        SwapExpert().reset(lifted, seed=0)


def test_without_ogbench_the_error_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "forcing.envs.swap_scene", None)
    with pytest.raises(RuntimeError, match=r"swap needs the extra 'ogbench'.*pip install 'forcing\[ogbench\]'"):
        Swap()


def test_an_environment_with_cameras_that_is_never_closed_ends_without_a_word(filmed: Swap | None) -> None:
    script = f"from forcing.envs.swap import Swap; Swap(cameras={filmed is not None}).reset(seed=0)"
    run = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert (run.returncode, run.stderr) == (0, "")


def test_state_alone_needs_no_display_and_warns_of_none() -> None:
    script = "from forcing.envs.swap import Swap; Swap().reset(seed=0)"
    run = subprocess.run([sys.executable, "-W", "error::UserWarning", "-c", script], capture_output=True, text=True)
    assert (run.returncode, run.stderr) == (0, "")


def spans(frame: NDArray[np.uint8], colour: str) -> tuple[int, int]:
    """Columns and rows from the first to the last pixel of that colour, none of which is at an edge."""
    red, green, blue = frame.astype(float).transpose(2, 0, 1)
    mask = (red > 1.6 * np.maximum(green, blue)) & (red > 60) if colour == "red" else (blue > 1.35 * red) & (blue > 90)
    rows, columns = np.nonzero(mask)
    assert min(rows.min(), columns.min()) > 0
    assert max(rows.max(), columns.max()) < 63
    return int(np.ptp(columns)) + 1, int(np.ptp(rows)) + 1


def test_with_cameras_a_cube_spans_twelve_pixels_in_both_views_or_the_error_says_what_to_install(
    filmed: Swap | None,
) -> None:
    if filmed is None:
        with pytest.raises(RuntimeError, match="libegl1 libgl1-mesa-dri libopengl0"):
            Swap(cameras=True)
        return
    for seed, layout in enumerate(2 * LAYOUTS):
        observation, _ = filmed.reset(seed=seed, options={"layout": layout})
        for camera in ("front", "side"):
            frame = observation[camera]
            assert frame.shape == (64, 64, 3)
            assert frame.dtype == np.uint8
            for cube in ("red", "blue"):
                width, height = spans(frame, cube)
                assert 12 <= width <= 24
                assert 12 <= height <= 24


def test_cameras_change_nothing_but_what_is_observed_and_frames_repeat_too(env: Swap, filmed: Swap | None) -> None:
    if filmed is None:
        assert "front" not in env.observation_space.spaces  # type: ignore[attr-defined]
        return
    seen, blind = wandered(filmed, 5), wandered(env, 5)
    assert same(blind, [{name: row[name] for name in blind[0]} for row in seen])
    assert same(seen, wandered(filmed, 5))
    assert not np.array_equal(seen[0]["front"], seen[-1]["front"])
