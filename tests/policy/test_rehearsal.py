"""Feedback against scipy's Riccati solver; rehearsed plans against the dynamics that made them."""

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.linalg import solve_discrete_are

from forcing.policy.dynamics import LinearDynamics
from forcing.policy.rehearsal import Feedback, lqr_gain, rehearse
from forcing.policy.tokens import Normaliser
from forcing.policy.types import Array, StreamSpec

STREAMS = {"position": slice(0, 2), "velocity": slice(2, 4)}
ACTION = StreamSpec(name="action", role="action", shape=(2,), low=(-1.0, -0.5), high=(1.0, 0.5))
NORMALISER = Normaliser(
    mean={"position": (0.0, 0.0), "velocity": (0.0, 0.0), "action": (0.0, 0.0)},
    std={"position": (2.0, 1.0), "velocity": (1.0, 3.0), "action": (0.5, 0.5)},
)


def integrator() -> LinearDynamics:
    """A point mass with a little friction."""
    weights = np.zeros((7, 4))
    weights[2:4, :2] = 0.1 * np.eye(2)
    weights[2:4, 2:] = -0.05 * np.eye(2)
    weights[4:6, 2:] = 0.2 * np.eye(2)
    return LinearDynamics(streams=STREAMS, weights=weights, low=np.full(4, -np.inf), high=np.full(4, np.inf))


def follow(
    dynamics: LinearDynamics, start: NDArray[np.float64], actions: NDArray[np.float64]
) -> tuple[dict[str, Array], dict[str, Array]]:
    """Start and plan of one candidate under one action a step; a frame a step."""
    states = [start]
    for action in actions:
        states.append(dynamics.step(states[-1], action))
    rows = np.array(states)[None]
    plan = {"position": rows[:, 1:, :2], "velocity": rows[:, 1:, 2:], "action": actions[None]}
    return {"position": rows[:, 0, :2], "velocity": rows[:, 0, 2:]}, plan


def test_the_gain_is_that_of_scipys_riccati_solver() -> None:
    rng = np.random.default_rng(0)
    for dynamics in (
        integrator(),
        LinearDynamics(
            streams=STREAMS, weights=rng.normal(0, 0.2, (7, 4)), low=np.full(4, -np.inf), high=np.full(4, np.inf)
        ),
    ):
        state_scale, action_scale = rng.uniform(0.5, 2, 4), rng.uniform(0.5, 2, 2)
        a, b = np.eye(4) + dynamics.weights[:4].T, dynamics.weights[4:6].T
        q, r = np.diag(state_scale**-2), np.diag(action_scale**-2)
        value = solve_discrete_are(a, b, q, r)
        expected = np.linalg.solve(r + b.T @ value @ b, b.T @ value @ a)
        np.testing.assert_allclose(lqr_gain(dynamics, state_scale, action_scale), expected, rtol=1e-6, atol=1e-9)


def test_an_error_of_a_twentieth_of_the_spread_is_worth_half_the_range_of_the_action() -> None:
    # One step ahead alone the scales cancel: doubling both leaves the gain as it is.
    feedback = Feedback(integrator(), NORMALISER, ACTION)
    state_scale = 0.05 * np.array([2.0, 1.0, 1.0, 3.0])
    expected = lqr_gain(integrator(), 2 * state_scale, 2 * np.array([1.0, 0.5]))
    np.testing.assert_allclose(feedback.gain, expected)
    action = feedback.action(np.zeros(4), np.array([1.0, 0, 0, 0]), np.array([0.1, 0.2]))
    np.testing.assert_allclose(action, np.array([0.1, 0.2]) + feedback.gain[:, 0])


def test_a_plan_that_the_dynamics_made_comes_back_as_it_is() -> None:
    feedback, rng = Feedback(integrator(), NORMALISER, ACTION), np.random.default_rng(0)
    start, plan = follow(feedback.dynamics, rng.normal(size=4), rng.uniform(-0.5, 0.5, (12, 2)))
    driven = rehearse(feedback, start, np.arange(1, 13), plan, ACTION).streams
    assert set(driven) == set(plan)
    for name, expected in plan.items():
        np.testing.assert_allclose(driven[name], expected, atol=1e-12)


def test_frames_further_apart_are_driven_nearly_as_planned() -> None:
    feedback, rng = Feedback(integrator(), NORMALISER, ACTION), np.random.default_rng(0)
    held = np.repeat(rng.uniform(-0.3, 0.3, (5, 2)), 4, axis=0)
    start, plan = follow(feedback.dynamics, np.zeros(4), held)
    steps = np.arange(4, 21, 4)
    frames = {name: values[:, steps - 1] for name, values in plan.items()}
    driven = rehearse(feedback, start, steps, frames, ACTION).streams
    # Between frames the way is taken for straight, which it is up to a v²-sized share of the frame's own length.
    assert np.abs(driven["position"] - frames["position"]).max() < 0.02
    assert driven["action"].shape == (1, 5, 2)


def test_an_impossible_plan_becomes_one_that_can_be_driven() -> None:
    feedback = Feedback(integrator(), NORMALISER, ACTION)
    rng = np.random.default_rng(0)
    start = {"position": np.zeros((3, 2)), "velocity": np.zeros((3, 2))}
    wild = {name: 10 * rng.normal(size=(3, 20, 2)) for name in ("position", "velocity", "action")}
    driven = rehearse(feedback, start, np.arange(1, 21), wild, ACTION).streams
    assert (np.abs(driven["action"]) <= np.array([1.0, 0.5]) + 1e-12).all()
    for candidate in range(3):
        _, alone = follow(feedback.dynamics, np.zeros(4), driven["action"][candidate])
        np.testing.assert_allclose(alone["position"][0], driven["position"][candidate], atol=1e-9)
        np.testing.assert_allclose(alone["velocity"][0], driven["velocity"][candidate], atol=1e-9)


def test_a_jump_in_a_plan_is_caught_up_with() -> None:
    feedback = Feedback(integrator(), NORMALISER, ACTION)
    _, plan = follow(feedback.dynamics, np.array([0.1, -0.1, 0.0, 0.0]), np.zeros((60, 2)))
    start = {"position": np.zeros((1, 2)), "velocity": np.zeros((1, 2))}
    driven = rehearse(feedback, start, np.arange(1, 61), plan, ACTION).streams
    gap = np.linalg.norm(driven["position"] - plan["position"], axis=-1)[0]
    assert gap[0] > 0.1
    assert gap[-1] < 0.05 * gap[0]


@pytest.mark.parametrize("high", [None, (1.0, np.inf)])
def test_an_action_without_limits_is_refused(high: tuple[float, ...] | None) -> None:
    free = StreamSpec(name="push", role="action", shape=(2,), low=(-1.0, -1.0), high=high)
    with pytest.raises(ValueError, match="finite limits of the action, stream 'push' has none"):
        Feedback(integrator(), NORMALISER, free)
