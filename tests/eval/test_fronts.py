"""Yardsticks between sensors and controller, against algebra."""

import numpy as np
import pytest

from forcing.eval.fronts import ConstantVelocity, Declared

LOST = np.full(2, np.nan)


def test_what_is_declared_is_the_same_of_every_stream() -> None:
    read = {"position": np.zeros(2), "velocity": np.ones(2)}
    assert Declared(0.2).told(read) == {"observation": read, "noise": {"position": 0.2, "velocity": 0.2}}


def test_a_still_point_read_with_noise_is_at_the_mean_of_its_readings() -> None:
    """Without any push, with velocities that are exact, Kalman's filter is the mean of all positions moved on."""
    rng, front = np.random.default_rng(0), ConstantVelocity(0.5, 1e-6, 1e-9, dt_s=0.1)
    front.begin()
    velocity, read = np.array([1.0, -2.0]), []
    for step in range(20):
        read.append(0.5 * rng.standard_normal(2) - 0.1 * step * velocity)
        told = front.told({"position": read[-1] + 2 * 0.1 * step * velocity, "velocity": velocity})["observation"]
    starts = [reading + 0.1 * step * velocity for step, reading in enumerate(read)]
    np.testing.assert_allclose(told["position"], np.mean(starts, axis=0) + 1.9 * velocity, atol=1e-4)
    np.testing.assert_allclose(told["velocity"], velocity, atol=1e-6)


def test_what_is_lost_is_moved_on_and_nothing_is_told_before_the_first_reading() -> None:
    front = ConstantVelocity(0.1, 0.1, 1.0, dt_s=0.1)
    front.begin()
    assert np.isnan(front.told({"position": LOST, "velocity": LOST})["observation"]["position"]).all()
    front.told({"position": np.zeros(2), "velocity": np.array([1.0, 0.0])})
    for _ in range(3):
        told = front.told({"position": LOST, "velocity": LOST})["observation"]
    np.testing.assert_allclose(told["position"], [0.3, 0.0])
    front.begin()
    told = front.told({"position": np.ones(2), "velocity": np.zeros(2)})["observation"]
    assert told["position"].tolist() == [1.0, 1.0], "an episode knows nothing of the one before"


def test_a_push_makes_newer_readings_count_more() -> None:
    def after_a_kick(acceleration: float) -> float:
        front = ConstantVelocity(0.1, 0.1, acceleration, dt_s=0.1)
        front.begin()
        for _ in range(10):
            front.told({"position": np.zeros(2), "velocity": np.zeros(2)})
        return float(front.told({"position": np.zeros(2), "velocity": np.ones(2)})["observation"]["velocity"][0])

    # Never pushed, it is the mean of 11 readings, a little less for the positions that stayed; pushed hard, the last.
    assert after_a_kick(0.001) == pytest.approx(1 / 11, rel=0.25)
    assert after_a_kick(300.0) > 0.9
