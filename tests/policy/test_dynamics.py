"""Fitted dynamics against the systems that made the recording."""

from collections.abc import Callable

import numpy as np
import pytest
from numpy.typing import NDArray

from forcing.policy.dynamics import LinearDynamics, fit_dynamics, predict_recorded, state_slices, states_of
from forcing.policy.types import Array, StreamSpec, Trajectories, TrajectorySpec

SPEC = TrajectorySpec(
    streams=(
        StreamSpec(name="position", role="observation", shape=(2,), units="m"),
        StreamSpec(name="velocity", role="observation", shape=(2,), units="m/s", rate_of="position"),
        StreamSpec(name="action", role="action", shape=(2,), low=(-1.0, -1.0), high=(1.0, 1.0)),
    ),
    control_hz=100.0,
    goal="position",
)
FASTEST = 7.0
# Velocity decays by 1 % a step and drifts; forces act on both axes.
WEIGHTS = np.array(
    [
        [0.0, 0.0, 0.0, 0.0],
        [0.0, 0.0, 0.0, 0.0],
        [0.01, 0.0, -0.01, 0.0],
        [0.0, 0.01, 0.0, -0.01],
        [0.0, 0.0, 0.2, 0.05],
        [0.0, 0.0, 0.0, 0.3],
        [0.0, 0.0, 0.003, -0.002],
    ]
)
LIMIT = np.array([np.inf, np.inf, FASTEST, FASTEST])
TRUTH = LinearDynamics(streams=state_slices(SPEC), weights=WEIGHTS, low=-LIMIT, high=LIMIT)

Step = Callable[[Array, Array], NDArray[np.float64]]


def record(step: Step, episodes: int = 40, length: int = 200) -> Trajectories:
    """Forces that are held for 20 steps, from random starts."""
    rng = np.random.default_rng(0)
    forces = np.repeat(rng.uniform(-1, 1, (episodes, length // 20, 2)), 20, axis=1)
    states = [rng.uniform(-1, 1, (episodes, 4))]
    for index in range(length):
        states.append(step(states[-1], forces[:, index]))
    rows = np.stack(states, axis=1).reshape(-1, 4)
    streams = {"position": rows[:, :2], "velocity": rows[:, 2:], "action": forces.reshape(-1, 2)}
    return Trajectories(spec=SPEC, streams=streams, lengths=np.full(episodes, length))


def with_contacts(state: Array, action: Array) -> NDArray[np.float64]:
    """The true system, but for strips of the plane that throw back."""
    following = TRUTH.step(state, action)
    following[touches(following), 2] *= -1.0
    return following


def touches(following: Array) -> NDArray[np.bool_]:
    return np.asarray(np.abs(following[:, 0] % 1.0 - 0.5) < 0.02)


def test_a_linear_system_with_a_speed_limit_is_found_exactly_although_it_touches_things() -> None:
    recorded = record(with_contacts)
    assert 0.01 < touches(states_of(recorded)).mean() < 0.1
    found = fit_dynamics(recorded, np.random.default_rng(0))
    np.testing.assert_allclose(found.weights, WEIGHTS, atol=1e-9)
    np.testing.assert_allclose(found.high[2:], FASTEST, rtol=1e-3)
    np.testing.assert_allclose(found.low[2:], -FASTEST, rtol=1e-3)


def test_where_nothing_saturates_no_bound_is_found() -> None:
    free = LinearDynamics(streams=TRUTH.streams, weights=WEIGHTS, low=np.full(4, -np.inf), high=np.full(4, np.inf))
    found = fit_dynamics(record(free.step), np.random.default_rng(0))
    np.testing.assert_allclose(found.weights, WEIGHTS, atol=1e-9)
    assert np.isinf([*found.low, *found.high]).all()


def test_noise_moves_coefficients_by_no_more_than_their_standard_errors() -> None:
    noise, rng = 0.01, np.random.default_rng(1)
    free = LinearDynamics(streams=TRUTH.streams, weights=WEIGHTS, low=np.full(4, -np.inf), high=np.full(4, np.inf))

    def noisy(state: Array, action: Array) -> NDArray[np.float64]:
        return free.step(state, action) + noise * rng.standard_normal(state.shape)

    recorded = record(noisy)
    found = fit_dynamics(recorded, np.random.default_rng(0))
    last = recorded.starts("observation") + recorded.lengths
    inputs = np.delete(states_of(recorded), last, axis=0)
    inputs = np.concatenate([inputs, recorded.streams["action"], np.ones((len(inputs), 1))], axis=1)
    errors = noise * np.sqrt(np.diag(np.linalg.inv(inputs.T @ inputs)))
    z = (found.weights - WEIGHTS) / errors[:, None]
    assert np.abs(z).max() < 4.5
    assert 0.5 < z.std() < 1.5


def test_saturation_acts_before_the_step() -> None:
    state = np.array([0.0, 0.0, 10 * FASTEST, 0.0])
    # By hand: 0.01 times the limit moves the position; the limit, less 1 %, plus drift is the next velocity.
    expected = [0.01 * FASTEST, 0.0, 0.99 * FASTEST + 0.003, -0.002]
    np.testing.assert_allclose(TRUTH.step(state, np.zeros(2)), expected, atol=1e-12)


def test_true_dynamics_predict_what_they_made_and_others_do_not() -> None:
    recorded, rng = record(TRUTH.step), np.random.default_rng(0)
    exact = predict_recorded(TRUTH, recorded, rng, steps=30)
    assert exact.error_90 < 1e-9
    assert exact.refusal() is None
    still = LinearDynamics(streams=TRUTH.streams, weights=np.zeros((7, 4)), low=-LIMIT, high=LIMIT)
    wrong = predict_recorded(still, recorded, rng, steps=30)
    # A robot that stands still is wrong by all that the recorded one moved.
    assert wrong.median_error == pytest.approx(wrong.moved, rel=0.1)
    refusal = wrong.refusal()
    assert refusal is not None
    assert "30 steps ahead the median error" in refusal


def test_episodes_too_short_to_predict_are_named_with_the_longest_there_is() -> None:
    recorded = record(TRUTH.step, episodes=10, length=20)
    with pytest.raises(ValueError, match=r"no episode has 30 steps .* the longest has 20"):
        predict_recorded(TRUTH, recorded, np.random.default_rng(0), steps=30)


def test_fewer_transitions_than_coefficients_are_refused() -> None:
    rows = np.zeros((6, 2))
    short = Trajectories(
        spec=SPEC, streams={"position": rows, "velocity": rows, "action": rows[1:]}, lengths=np.array([5])
    )
    with pytest.raises(ValueError, match="5 transitions, a fit needs 14"):
        fit_dynamics(short, np.random.default_rng(0))


def test_a_state_is_its_streams_one_after_another_and_a_missing_one_is_named() -> None:
    state = TRUTH.state({"velocity": np.array([3.0, 4.0]), "position": np.array([1.0, 2.0])})
    assert state.tolist() == [1.0, 2.0, 3.0, 4.0]
    with pytest.raises(KeyError, match="velocity"):
        TRUTH.state({"position": np.zeros(2)})
