"""What goes wrong in demonstrations: noise that lasts, bursts at times that matter, and a gripper that opens."""

import numpy as np
import pytest
from numpy.typing import NDArray

from forcing.envs.pushes import Pushes, Pushing

STILL = Pushing(noise=(0.0, 0.0, 0.0), burst=(0.1, 0.1), often=0.0, anew=0.0)


def executed(
    pushing: Pushing, actions: NDArray[np.float64], *, bursts: bool = True, seed: int = 0
) -> NDArray[np.float64]:
    pushes = Pushes(pushing, np.random.default_rng(seed), bursts=bursts)
    return np.stack([pushes.next(action) for action in actions])


def test_noise_has_the_spread_that_is_asked_for_and_lasts_some_steps() -> None:
    pushing = Pushing(noise=(0.02, 0.0, 0.3), burst=(0.1, 0.1))
    off = executed(pushing, np.zeros((20_000, 3)), bursts=False)
    np.testing.assert_allclose(off.std(axis=0), [0.02, 0.0, 0.3], rtol=0.06)
    kept = np.corrcoef(off[1:, 0], off[:-1, 0])[0, 1]
    assert kept == pytest.approx(0.8, abs=0.02)


def test_without_noise_and_bursts_what_is_wanted_is_executed() -> None:
    actions = np.random.default_rng(0).normal(size=(50, 3))
    np.testing.assert_array_equal(executed(STILL, actions), actions)


def test_a_burst_pushes_one_way_for_its_steps_and_leaves_the_gripper_alone() -> None:
    pushing = Pushing(noise=(0.0,) * 3, burst=(0.1, 0.1), steps=(4, 7), often=0.02, opens=0.0)
    off = executed(pushing, np.zeros((4000, 3)))
    assert (off[:, 2] == 0).all()
    pushed = np.linalg.norm(off[:, :2], axis=1) > 0
    edges = np.flatnonzero(np.diff(np.concatenate([[0], pushed, [0]])))
    lengths = edges[1::2] - edges[::2]
    assert len(lengths) > 40
    assert np.median(lengths) in (4, 5, 6, 7)
    first = off[edges[0] : edges[0] + 4, :2]
    np.testing.assert_array_equal(first, np.tile(first[0], (4, 1)))
    sizes = np.linalg.norm(off[edges[::2], :2], axis=1)
    assert ((sizes >= 0.05 - 1e-9) & (sizes <= 0.1 + 1e-9)).all()


def test_a_burst_that_opens_opens_the_gripper_and_does_not_push() -> None:
    pushing = Pushing(noise=(0.0,) * 3, burst=(0.1, 0.1), often=0.1, opens=1.0)
    done = executed(pushing, np.ones((200, 3)))
    assert set(done[:, 2]) == {0.0, 1.0}
    assert (done[:, :2] == 1.0).all()


def test_bursts_come_when_the_gripper_has_just_been_told_otherwise() -> None:
    pushing = Pushing(noise=(0.0,) * 3, burst=(0.1, 0.1), steps=(1, 1), often=0.0, anew=0.5, lately=10, opens=0.0)
    actions = np.zeros((200, 3))
    actions[100:, 2] = 1.0
    pushed = np.flatnonzero(np.abs(executed(pushing, actions)[:, 0]) > 0)
    assert len(pushed) >= 2
    assert ((pushed >= 100) & (pushed < 110)).all()


def test_where_every_entry_can_be_pushed_there_is_no_gripper_to_open() -> None:
    pushing = Pushing(noise=(0.0, 0.0), burst=(0.1, 0.1), often=0.2, anew=0.0, opens=1.0)
    off = executed(pushing, np.ones((300, 2))) - 1
    assert (np.linalg.norm(off, axis=1) < 0.1 + 1e-9).all()
    assert (off != 0).any()
