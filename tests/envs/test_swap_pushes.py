"""What goes wrong in demonstrations of `swap`: how much, when, and that the expert recovers."""

import numpy as np
import pytest
from numpy.typing import NDArray

from forcing.envs.held_episodes import Episode
from forcing.envs.swap import Swap
from forcing.envs.swap_expert import demonstrate
from forcing.envs.swap_pushes import FEW, MANY, Bursts, Pushes

CLOSING = np.array([0, 0, 0, 0, 0.5])


def pushed(
    steps: int,
    *,
    noise: float = 0.0,
    bursts: Bursts | None = FEW,
    seed: int = 0,
    grasping: int = 0,
    carrying: int = 0,
    low: bool = False,
) -> NDArray[np.float64]:
    """What is added to a step over and over: [steps, 5]. grasping, carrying: so many steps of them come first. low:
    whether all others are."""
    pushes = Pushes(np.random.default_rng(seed), noise=noise, bursts=bursts)
    at = [
        {
            "grasping": step < grasping,
            "carrying": grasping <= step < grasping + carrying,
            "low": low and step >= grasping + carrying,
        }
        for step in range(steps)
    ]
    return np.stack([pushes.next(CLOSING, **each) - CLOSING for each in at])


def test_noise_has_the_spread_that_is_asked_for_lasts_a_few_steps_and_leaves_the_gripper_alone() -> None:
    noise = pushed(20_000, noise=0.2, bursts=None)
    np.testing.assert_allclose(noise[:, :4].std(0), 0.2, rtol=0.05)
    for axis in noise[:, :4].T:
        assert np.corrcoef(axis[:-1], axis[1:])[0, 1] == pytest.approx(0.8, abs=0.03)
    assert not noise[:, 4].any()


def test_without_noise_and_bursts_nothing_is_added() -> None:
    assert not pushed(200, noise=0.0, bursts=None).any()


def test_bursts_are_a_few_constant_pushes_of_five_to_fifteen_steps() -> None:
    pushes = [pushed(300, seed=seed, noise=0.0) for seed in range(60)]
    runs = []
    for each in pushes:
        on = np.abs(each[:, :4]).max(axis=1) > 0
        edges = np.flatnonzero(np.diff(np.concatenate([[False], on, [False]]).astype(int)))
        runs += [each[begin:end] for begin, end in zip(edges[::2], edges[1::2], strict=True)]
    assert runs  # those of any time: neither a grasp nor a cube in the air came
    alone = [run for run in runs if np.ptp(run, axis=0).max() < 1e-12]
    assert len(alone) > 0.8 * len(runs)  # others overlap
    assert {len(run) for run in alone} == set(range(5, 16))
    assert all(0.5 <= np.linalg.norm(run[0]) <= 1.0 for run in alone)


def test_bursts_come_at_grasps_too_and_with_a_cube_in_the_air_some_open_the_gripper() -> None:
    at_grasps, in_the_air = 0, 0
    for seed in range(300):
        free = pushed(25, seed=seed)
        grasp = pushed(25, seed=seed, grasping=6)
        carry = pushed(25, seed=seed, grasping=6, carrying=19)
        at_grasps += bool((grasp != free).any())
        assert not grasp[:, 4].any()
        opened = np.flatnonzero(carry[:, 4])
        if opened.size:
            in_the_air += 1
            assert opened[0] >= 6
            np.testing.assert_array_equal(CLOSING[4] + carry[opened, 4], -1.0)
    # A third of three bursts, a third of those at the first grasp: 1 - (8/9)^3 = 0.30 of episodes; and half of as many
    # open the gripper in the air: 0.16.
    assert 65 <= at_grasps <= 115
    assert 25 <= in_the_air <= 70


def test_who_is_pushed_low_is_pushed_along_the_table() -> None:
    shoved = 0
    for seed in range(100):
        above, low = (pushed(60, seed=seed, bursts=MANY, grasping=6, low=low) for low in (False, True))
        more = low - above
        shoved += bool(more.any())
        np.testing.assert_array_equal(more[:, 2], 0)
    # Six bursts, a quarter of them low, a third of these from the first grasp on: 1 - (11/12)^6 = 0.41.
    assert 25 <= shoved <= 55
    assert not (pushed(60, low=True) - pushed(60)).any(), "of few bursts none waits for that"


def failed_grasps(episode: Episode) -> int:
    """How often the gripper was to close, less the three times it must."""
    closed = episode["actions"][:, 5] > 0.5
    return int((closed[1:] & ~closed[:-1]).sum()) - 3


@pytest.mark.parametrize("bursts", [FEW, MANY])
def test_with_bursts_grasps_fail_are_tried_again_and_the_swap_holds(bursts: Bursts) -> None:
    env = Swap()
    episodes = [demonstrate(env, seed=seed, bursts=bursts) for seed in range(10)]
    env.close()
    assert sum(failed_grasps(episode) > 0 for episode in episodes) >= 3
    assert all(episode["infos"]["success"][-1] for episode in episodes)
