"""Polished plans of a point mass, whose fastest way to rest is known: full push, then full brake."""

import numpy as np
import pytest
from numpy.typing import NDArray

from forcing.policy.candidates import Candidates, Judged
from forcing.policy.dynamics import LinearDynamics
from forcing.policy.polishing import Judge, PolishConfig, Polished, Polisher
from forcing.policy.rehearsal import Feedback
from forcing.policy.selection import Selector
from forcing.policy.support import Support
from forcing.policy.tokens import Normaliser, Tokenizer, TokenLayout
from forcing.policy.types import TrajectorySpec

# 10 Hz, a frame every second step, 8 m to go at 1 m/s^2 at most: 2 sqrt(8) s.
LAYOUT = TokenLayout(token_steps=8, stride=2, history=1, horizon=20)
GOAL, NEAR, FASTEST_STEPS = np.array([9.0, -2.0]), 0.1, 56.6
HERE = np.array([1.0, -2.0])


@pytest.fixture
def tokens(spec: TrajectorySpec, normaliser: Normaliser) -> Tokenizer:
    return Tokenizer(spec, LAYOUT, normaliser)


@pytest.fixture
def mass() -> LinearDynamics:
    weights = np.zeros((7, 4))
    weights[2:4, :2], weights[4:6, :2] = 0.1 * np.eye(2), 0.005 * np.eye(2)
    weights[4:6, 2:] = 0.1 * np.eye(2)
    streams = {"position": slice(0, 2), "velocity": slice(2, 4)}
    return LinearDynamics(streams=streams, weights=weights, low=np.full(4, -np.inf), high=np.full(4, np.inf))


@pytest.fixture
def selector(tokens: Tokenizer, mass: LinearDynamics) -> Selector:
    feedback = Feedback(mass, tokens.normaliser, tokens.spec.action)
    # Visited: a corridor along the way, 0.4 m wide.
    visited = np.zeros((60, 20), dtype=np.bool_)
    visited[:, 9:11] = True
    support = Support(origin=np.array([0.0, -4.0]), cell=0.2, visited=visited)
    return Selector(
        tokens, kinematic_tolerance=2.0, end_tolerance=NEAR, feedback=feedback, support=support, support_tolerance=0.1
    )


def slow(frames: int = 60) -> Candidates:
    """There in 120 steps, slow and smooth, and a shorter one that does not get there."""
    time = np.arange(1, frames + 1) / frames
    share, speed = time**2 * (3 - 2 * time), 6 * time * (1 - time) / (0.2 * frames)
    way = np.stack([share[:, None] * (GOAL - HERE), 0.4 * share[:, None] * (GOAL - HERE)])
    velocity = np.stack([speed[:, None] * (GOAL - HERE), 0.4 * speed[:, None] * (GOAL - HERE)])
    used = np.stack([np.arange(frames) < frames, np.arange(frames) < frames // 2])
    return Candidates(
        steps=2 * np.arange(1, frames + 1),
        used=used,
        start={"position": np.stack([HERE] * 2), "velocity": np.zeros((2, 2))},
        streams={"position": HERE + way, "velocity": velocity, "action": np.zeros_like(way)},
    )


def polished(
    tokens: Tokenizer, judge: Judge, seed: int = 0, plans: Candidates | None = None, **config: int
) -> tuple[NDArray[np.float64], Polished | None]:
    judged = judge(slow() if plans is None else plans)
    return judged.costs, Polisher(tokens, PolishConfig(**config)).polish(judged, judge, np.random.default_rng(seed))


def test_a_slow_plan_comes_near_the_least_time_and_not_below_it(tokens: Tokenizer, selector: Selector) -> None:
    costs, found = polished(tokens, lambda some: selector.judge(some, GOAL, None), rounds=60)
    assert costs[0] > 100
    assert found is not None
    assert found.row == 0
    # It may arrive at the near end of the goal's surroundings and brake inside of them.
    assert 0.9 * FASTEST_STEPS < found.cost < 1.12 * FASTEST_STEPS


def test_what_is_found_can_be_driven_within_the_limits_and_keeps_to_visited_places(
    tokens: Tokenizer, selector: Selector, mass: LinearDynamics
) -> None:
    _, found = polished(tokens, lambda some: selector.judge(some, GOAL, None), rounds=20)
    assert found is not None
    plan = found.candidate
    assert bool((np.abs(plan.streams["action"]) <= np.array(tokens.spec.action.high) + 1e-9).all())
    again = selector.judge(plan, GOAL, None)
    assert again.costs[0] == pytest.approx(found.cost, abs=2)
    assert bool(again.sound[0])
    assert float(np.abs(again.candidates.streams["position"][0, :, 1] - HERE[1]).max()) < 0.3


def test_every_variant_changes_something_and_keeps_start_and_length(tokens: Tokenizer) -> None:
    parents = slow().rows(np.arange(200) % 2)
    variants = Polisher(tokens, PolishConfig()).vary(parents, np.random.default_rng(0))
    np.testing.assert_array_equal(variants.used, parents.used)
    np.testing.assert_array_equal(variants.start["position"], parents.start["position"])
    for name, values in variants.streams.items():
        assert values.shape == parents.streams[name].shape
        assert np.isfinite(values).all()
    moved = np.where(parents.used[..., None], variants.streams["position"] - parents.streams["position"], 0)
    assert bool((np.abs(moved).max(axis=(1, 2)) > 0).all())


def test_a_bent_path_has_the_velocity_of_its_bends(tokens: Tokenizer) -> None:
    # Long stretches, many frames: differences of the bent positions are the bent velocities.
    parents = slow(400).rows(np.zeros(50, dtype=np.int64))
    variants = Polisher(tokens, PolishConfig()).vary(parents, np.random.default_rng(1))
    frame_s = 0.2
    bend = variants.streams["position"] - parents.streams["position"]
    rate = variants.streams["velocity"] - parents.streams["velocity"]
    error = np.gradient(bend, frame_s, axis=1) - rate
    wide = np.abs(np.diff(bend, n=2, axis=1)).max(axis=(1, 2)) < 0.1 * np.abs(bend).max(axis=(1, 2))
    assert wide.sum() > 10
    assert np.median(np.abs(error[wide, 5:-5]).max(axis=(1, 2)) / np.abs(rate[wide]).max(axis=(1, 2))) < 0.1


def test_the_best_of_several_plans_may_come_from_another_than_the_cheapest(tokens: Tokenizer) -> None:
    # Judged by which parent a variant has: variants of row 1 are best.
    def judge(some: Candidates) -> Judged:
        of_first = some.used.sum(axis=1) == 60
        return Judged(some, np.where(of_first, 10.0, 5.0 if len(of_first) > 2 else 20.0), of_first)

    costs, found = polished(tokens, judge, rounds=1)
    assert costs.tolist() == [10.0, 20.0]
    assert found is not None
    assert (found.row, found.cost) == (1, 5.0)
    assert found.candidate.used.sum() == 30
    assert found.candidate.used.shape == (1, 60)


def test_where_nothing_is_better_nothing_is_found_and_the_same_seed_finds_the_same(
    tokens: Tokenizer, selector: Selector
) -> None:
    _, found = polished(
        tokens, lambda some: Judged(some, np.zeros(len(some.used)), np.ones(len(some.used), dtype=np.bool_))
    )
    assert found is None
    first, again, other = (
        polished(tokens, lambda some: selector.judge(some, GOAL, None), seed=seed, rounds=3)[1] for seed in (1, 1, 2)
    )
    assert first is not None
    assert again is not None
    assert other is not None
    np.testing.assert_array_equal(first.candidate.streams["position"], again.candidate.streams["position"])
    assert not np.array_equal(first.candidate.streams["position"], other.candidate.streams["position"])


@pytest.mark.parametrize("name", ["rounds", "variants", "survivors"])
def test_settings_that_make_no_sense_are_refused(name: str) -> None:
    with pytest.raises(ValueError, match=f"{name} must be at least 1, got 0"):
        PolishConfig(**{name: 0})
