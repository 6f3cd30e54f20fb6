"""A cart on a rail, whose state [position, velocity] is known to be pushed by its action at 100 Hz.

With one lag, a sensor of known noise and no surprise, what is believed must be what Kalman's filter says, and that is
the mean of a joint Gaussian, which the test writes down whole.
"""

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from forcing.policy.particles import Motion, advanced, begin, disturbed, lagging, motion_of, weighed


@pytest.fixture
def motion(cart: Any) -> Motion:
    return motion_of(cart.dynamics, cart.spec, cart.normaliser)


def test_a_motion_says_what_is_usual_and_what_a_contact_may_do(motion: Motion) -> None:
    # Position, velocity, and the offset of what the sensor of velocity reads, which stays as it is.
    np.testing.assert_allclose(motion.drift, np.array([[1, 0.01, 0], [0, 1, 0], [0, 0, 1]]))
    np.testing.assert_allclose(motion.senses[0], [[1, 0, 0]])
    np.testing.assert_allclose(motion.senses[1], [[0, 1, 1]])
    np.testing.assert_allclose(motion.offset, np.diag([0, 0, 9.0]))
    # A step usually moves it by .01 x 3 m and changes its velocity by .2 x .5 m/s; a fiftieth of that may be missed.
    np.testing.assert_allclose(motion.process, np.diag([(0.02 * 0.03) ** 2, (0.02 * 0.1) ** 2, 0]))
    # A contact gives it any recorded velocity, by which it has moved for one step.
    np.testing.assert_allclose(motion.jolt, 9 * np.array([[1e-4, 1e-2, 0], [1e-2, 1, 0], [0, 0, 0]]))
    np.testing.assert_allclose(motion.scale, np.array([2.0, 3.0]))


def _kalman(
    motion: Motion, read: NDArray[np.float64], actions: NDArray[np.float64], sigma: float
) -> NDArray[np.float64]:
    """[2] mean of the last state given all positions read, by conditioning the Gaussian of everything at once."""
    steps = len(read)
    size = 2 * steps
    mean, cov = np.zeros(size), np.zeros((size, size))
    mean[:2], cov[:2, :2] = motion.mean, np.diag((30 * motion.std) ** 2)
    for t in range(1, steps):
        here, before = slice(2 * t, 2 * t + 2), slice(2 * t - 2, 2 * t)
        mean[here] = motion.drift[:2, :2] @ mean[before] + np.array([0, 0.2]) * actions[t - 1]
        cov[here, : 2 * t] = motion.drift[:2, :2] @ cov[before, : 2 * t]
        cov[: 2 * t, here] = cov[here, : 2 * t].T
        cov[here, here] = motion.drift[:2, :2] @ cov[before, before] @ motion.drift[:2, :2].T + motion.process[:2, :2]
    seen = 2 * np.arange(steps)
    gain = cov[-2:, seen] @ np.linalg.inv(cov[np.ix_(seen, seen)] + sigma**2 * np.eye(steps))
    return np.asarray(mean[-2:] + gain @ (read - mean[seen]))


def test_what_is_believed_is_what_kalman_says(motion: Motion, cart: Any) -> None:
    sigma, rng = 0.3, np.random.default_rng(0)
    states, actions = cart.drive(40, rng)
    read = states[:, 0] + sigma * rng.standard_normal(len(states))
    particles = begin(motion, 500, rng)
    for t, value in enumerate(read):
        if t > 0:
            particles = advanced(particles, motion, actions[:t], 0, np.full(len(particles.lag), t))
            particles = disturbed(particles, motion, rng)
        particles = weighed(particles, motion, {0: np.array([value])}, {0: sigma}, rng)
    expected = _kalman(motion, read, actions[:, 0], sigma)
    found = (particles.weight @ particles.mean)[:2]
    error = np.sqrt(particles.weight @ np.diagonal(particles.cov, axis1=1, axis2=2))[:2]
    # Jolts and wild readings are thought possible besides, which moves it by little.
    assert (np.abs(found - expected) < 0.5 * error).all()
    assert abs(found[0] - states[-1, 0]) < sigma


@pytest.mark.parametrize("late", [0, 3, 10])
def test_how_late_readings_are_is_found_out_while_the_robot_moves(motion: Motion, cart: Any, late: int) -> None:
    rng = np.random.default_rng(late)
    # From rest: nobody reads anything before the first reading.
    states, actions = cart.drive(60, rng, at_rest=True)
    lags = np.array([0, 1, 2, 3, 5, 7, 10])
    particles = lagging(begin(motion, 64, rng), lags)
    for t in range(1, 60 - late):
        # The clock of each particle begins where it thinks that the first reading is from.
        particles = advanced(particles, motion, actions[: t + late], 0, np.maximum(t + late - particles.lag, 0))
        particles = disturbed(particles, motion, rng)
        particles = weighed(particles, motion, {0: states[t, :1], 1: states[t, 1:]}, {}, rng)
    assert set(particles.lag[particles.weight > 1e-3]) == {late}


def test_one_that_has_little_weight_is_given_up_and_the_others_are_as_many(motion: Motion, cart: Any) -> None:
    rng = np.random.default_rng(0)
    particles = lagging(begin(motion, 32, rng), np.array([0, 5]))
    assert particles.weight.sum() == pytest.approx(1)
    assert particles.weight[particles.lag == 0].sum() == pytest.approx(0.9, rel=0.01), "on time is likeliest"
    states, actions = cart.drive(30, rng)
    for t in range(1, 30):
        particles = advanced(particles, motion, actions[:t], 0, np.maximum(t - particles.lag, 0))
        particles = weighed(particles, motion, {0: states[t, :1], 1: states[t, 1:]}, {}, rng)
    assert len(particles.lag) == 32
    assert particles.weight.sum() == pytest.approx(1)


def test_a_velocity_that_is_read_with_an_offset_is_found_out(motion: Motion, cart: Any) -> None:
    rng = np.random.default_rng(0)
    states, actions = cart.drive(60, rng)
    particles = begin(motion, 64, rng)
    for t in range(60):
        if t > 0:
            particles = advanced(particles, motion, actions[:t], 0, np.full(len(particles.lag), t))
            particles = disturbed(particles, motion, rng)
        particles = weighed(particles, motion, {0: states[t, :1], 1: states[t, 1:] + 0.7}, {}, rng)
    position, velocity, offset = particles.weight @ particles.mean
    assert particles.weight[particles.offset].sum() > 0.9
    assert offset == pytest.approx(0.7, abs=0.05)
    assert velocity == pytest.approx(states[59, 1], abs=0.05)
    assert position == pytest.approx(states[59, 0], abs=0.01)
