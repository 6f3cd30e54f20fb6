"""What an action of `swap` means, by hand: ogbench goes at most 0.05 m along an axis and 0.3 rad a step."""

import numpy as np
import pytest

from forcing.envs.swap_control import ACTION, pose, step_towards, target_of, wrapped

AT = np.array([0.4, 0.1, 0.2, 3.0, 0.5])


@pytest.mark.parametrize(
    ("target", "step"),
    [
        (AT, (0, 0, 0, 0, 0)),
        ((0.425, 0.05, 0.4, 3.0, 0.5), (0.5, -1, 1, 0, 0)),
        ((0.4, 0.1, 0.2, 3.0 + 0.15 - 2 * np.pi, 0.5), (0, 0, 0, 0.5, 0)),
        ((0.4, 0.1, 0.2, 2.0, 0.5), (0, 0, 0, -1, 0)),
        ((0.4, 0.1, 0.2, 3.0, 1.0), (0, 0, 0, 0, 0.5)),
        ((0.4, 0.1, 0.2, 3.0, 0.0), (0, 0, 0, 0, -0.5)),
    ],
    ids=["there", "a part, a whole and more than a step", "over pi", "a large turn", "closes", "opens"],
)
def test_a_step_goes_towards_the_target_as_far_as_a_step_goes(
    target: tuple[float, ...], step: tuple[float, ...]
) -> None:
    np.testing.assert_allclose(step_towards(np.array(target), AT), step, atol=1e-9)


def test_the_target_of_a_step_is_what_has_that_step_over_pi_too() -> None:
    step = np.array([0.3, -0.7, 1.0, 0.9, 0.2])
    target = target_of(step, AT)
    np.testing.assert_allclose(target, (0.415, 0.065, 0.25, 3.27 - 2 * np.pi, 0.7), atol=1e-6)
    np.testing.assert_allclose(step_towards(target, AT), step, atol=1e-5)


def test_the_target_of_a_step_stays_in_the_workspace() -> None:
    low = target_of(np.array([0, 0, -1.0, 0, -1.0]), np.array([0.25, 0, 0.03, 0, 0.1]))
    assert ACTION.contains(low)
    np.testing.assert_allclose(low, (0.25, 0, 0.02, 0, 0))


def test_angles_are_wrapped() -> None:
    assert wrapped(np.pi + 0.1) == pytest.approx(0.1 - np.pi)
    assert wrapped(-np.pi - 0.1) == pytest.approx(np.pi - 0.1)
    assert wrapped(1.0) == pytest.approx(1.0)


def test_a_pose_is_read_from_what_is_observed() -> None:
    observed = {
        "effector_position": np.array([0.4, 0.1, 0.2], np.float32),
        "effector_heading": np.array([np.cos(-2.0), np.sin(-2.0)], np.float32),
        "gripper": np.array([0.3, 1.0], np.float32),
    }
    np.testing.assert_allclose(pose(observed), (0.4, 0.1, 0.2, -2.0, 0.3), atol=1e-6)
