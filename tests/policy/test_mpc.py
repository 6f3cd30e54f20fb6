"""Sampled control on a double integrator, whose fastest way to rest has a closed form."""

import numpy as np
import pytest
from numpy.typing import NDArray

from forcing.policy.dynamics import LinearDynamics
from forcing.policy.mpc import Array32, MpcConfig, SamplingMpc

STEP_S = 0.05
# x'' = u, held over a step: x' = x + h v + h² u / 2, v' = v + h u.
DYNAMICS = LinearDynamics(
    streams={"position": slice(0, 1), "velocity": slice(1, 2)},
    weights=np.array([[0.0, 0.0], [STEP_S, 0.0], [STEP_S**2 / 2, STEP_S], [0.0, 0.0]]),
    low=np.full(2, -np.inf),
    high=np.full(2, np.inf),
)
LIMIT = np.ones(1)


def controller(config: MpcConfig | None = None) -> SamplingMpc:
    return SamplingMpc(DYNAMICS, -LIMIT, LIMIT, config or MpcConfig(rounds=4))


def from_the_origin(states: Array32) -> Array32:
    """Distance at every step and at the end, the end counting as much as all steps together."""
    away = np.abs(states[..., 0])
    return np.asarray(away.mean(axis=-1) + away[..., -1], dtype=np.float32)


def drive(start: NDArray[np.float64], steps: int, seed: int = 0) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """States [steps + 1, E, 2] and actions [steps, E, 1]."""
    mpc, rng = controller(), np.random.default_rng(seed)
    plan, states, actions = mpc.idle(len(start)), [start], []
    for _ in range(steps):
        plan = mpc.improve(states[-1], plan, from_the_origin, rng)
        actions.append(plan[:, 0].astype(np.float64))
        states.append(DYNAMICS.step(states[-1], actions[-1]))
        plan = mpc.shifted(plan)
    return np.array(states), np.array(actions)


def test_it_comes_to_rest_within_a_few_per_cent_of_the_least_time_from_either_side() -> None:
    # Bang-bang: full push half of the way, full brake the other half, 2 sqrt(distance) seconds; on that course the last
    # 0.3 s begin at 0.3 m/s and 0.045 m.
    away = np.array([-3.0, -2.0, 1.0, 1.5])
    states, actions = drive(np.stack([away, np.zeros(4)], axis=1), 120)
    nearly = (np.abs(states[..., 0]) < 0.05 * np.abs(away)) & (np.abs(states[..., 1]) < 0.3)
    assert nearly.any(axis=0).all()
    ratio = (STEP_S * np.argmax(nearly, axis=0) + 0.3) / (2 * np.sqrt(np.abs(away)))
    assert (ratio > 0.98).all()
    assert (ratio < 1.05).all()
    assert (np.abs(states[-20:, :, 0]) < 0.05).all()
    assert np.abs(actions).max() <= 1.0


def test_what_it_predicts_is_what_the_dynamics_do_and_bounds_of_the_state_hold() -> None:
    bounded = LinearDynamics(
        streams=DYNAMICS.streams, weights=DYNAMICS.weights, low=np.array([-np.inf, -0.2]), high=np.array([1.0, 0.2])
    )
    rng = np.random.default_rng(0)
    start, actions = rng.uniform(-1, 1, (3, 2)), rng.uniform(-1, 1, (3, 4, 10, 1))
    mpc = SamplingMpc(bounded, -LIMIT, LIMIT, MpcConfig())
    predicted = mpc.predict(start.astype(np.float32), actions.astype(np.float32))
    state = np.repeat(start[:, None], 4, axis=1)
    for step in range(10):
        state = bounded.step(state, actions[:, :, step])
        np.testing.assert_allclose(predicted[:, :, step], state, atol=1e-5)


def test_a_step_never_makes_the_plan_dearer() -> None:
    mpc, rng = controller(MpcConfig(sequences=8)), np.random.default_rng(0)
    state = np.array([[1.0, 0.0], [-3.0, 2.0]])
    plan = mpc.idle(2)
    for _ in range(5):
        better = mpc.improve(state, plan, from_the_origin, rng)
        before, after = (
            from_the_origin(mpc.predict(state.astype(np.float32), tried[:, None])) for tried in (plan, better)
        )
        assert (after <= before).all()
        plan = better


def test_robots_side_by_side_do_not_mix() -> None:
    # The same start twice, far from a third: each is planned for by its own cost.
    states, actions = drive(np.array([[1.0, 0.0], [1.0, 0.0], [-1.0, 0.0]]), 5)
    assert (states[-1, :2, 0] < 1.0).all()
    assert states[-1, 2, 0] > -1.0
    assert (actions[:, :2] < 0).all()
    assert (actions[:, 2] > 0).all()


def test_one_seed_gives_one_drive() -> None:
    start = np.array([[1.0, 0.0]])
    np.testing.assert_array_equal(drive(start, 10)[1], drive(start, 10)[1])
    assert not np.array_equal(drive(start, 10)[1], drive(start, 10, seed=1)[1])


def test_limits_need_not_be_symmetric_and_idling_is_their_middle() -> None:
    mpc = SamplingMpc(DYNAMICS, np.array([0.5]), np.array([2.0]), MpcConfig(steps=7))
    idle = mpc.idle(3)
    assert idle.shape == (3, 7, 1)
    assert (idle == 1.25).all()
    plan = mpc.improve(np.zeros((3, 2)), idle, lambda states: -states[..., -1, 0], np.random.default_rng(0))
    assert plan.min() >= 0.5
    assert plan.max() <= 2.0
    assert plan.mean() > 1.4


def test_shifting_drops_the_first_action_and_repeats_the_last() -> None:
    plan = np.arange(6, dtype=np.float32).reshape(1, 6, 1)
    assert SamplingMpc.shifted(plan).ravel().tolist() == [1, 2, 3, 4, 5, 5]


@pytest.mark.parametrize(("name", "least"), [("sequences", 4), ("steps", 2), ("knots", 2), ("rounds", 1)])
def test_settings_out_of_range_are_named(name: str, least: int) -> None:
    with pytest.raises(ValueError, match=f"{name} must be at least {least}, got {least - 1}"):
        MpcConfig(**{name: least - 1})
