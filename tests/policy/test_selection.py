"""Which plan wins, between plans of a point mass whose way to rest is known."""

from dataclasses import replace

import numpy as np
import pytest
from numpy.typing import NDArray

from forcing.policy.candidates import Candidates
from forcing.policy.dynamics import LinearDynamics
from forcing.policy.rehearsal import Feedback
from forcing.policy.selection import Selector, kinematic_residual, obstacle_depth
from forcing.policy.support import Support
from forcing.policy.tokens import Normaliser, Tokenizer, TokenLayout
from forcing.policy.types import Array, Obstacles, TrajectorySpec

FRAMES = TokenLayout(token_steps=8, stride=4, history=1, horizon=5)
HERE, HEADING = np.array([1.0, -2.0]), np.array([0.6, 0.8])


@pytest.fixture
def tokens(spec: TrajectorySpec, normaliser: Normaliser) -> Tokenizer:
    return Tokenizer(spec, FRAMES, normaliser)


def test_a_plan_that_rushes_through_its_goal_arrives_when_it_has_come_back(
    spec: TrajectorySpec, normaliser: Normaliser
) -> None:
    """Two plans with the same last place, one at rest there and one at speed: the robot that holds their end overshoots
    by what the second still has."""
    tokens = Tokenizer(spec, TokenLayout(token_steps=8, stride=1, history=1, horizon=5), normaliser)
    weights = np.zeros((7, 4))
    weights[2:4, :2], weights[4:6, :2] = 0.1 * np.eye(2), 0.005 * np.eye(2)
    weights[4:6, 2:] = 0.1 * np.eye(2)
    slices = {"position": slice(0, 2), "velocity": slice(2, 4)}
    dynamics = LinearDynamics(streams=slices, weights=weights, low=np.full(4, -np.inf), high=np.full(4, np.inf))
    selector = Selector(
        tokens, kinematic_tolerance=9.0, end_tolerance=0.1, feedback=Feedback(dynamics, normaliser, spec.action)
    )
    times = 0.1 * np.arange(1, 17)[:, None]

    def driven(push: NDArray[np.float64]) -> tuple[NDArray[np.float64], ...]:
        """[16, 1] one action a step from rest: position, velocity, action along the heading."""
        velocity = np.cumsum(0.1 * push, axis=0)
        return np.cumsum(0.1 * (velocity - 0.1 * push) + 0.005 * push, axis=0), velocity, push

    resting = driven(np.where(times <= 0.8, 1.0, -1.0))
    rushing = driven(np.full((16, 1), 0.5))  # as far, and 0.8 m/s at the end
    assert resting[0][-1] == pytest.approx(rushing[0][-1])
    goal = HERE + resting[0][-1] * HEADING
    streams = {
        name: np.stack([offset + plan[index] * HEADING for plan in (resting, rushing)])
        for index, (name, offset) in enumerate([("position", HERE), ("velocity", 0.0), ("action", 0.0)])
    }
    sampled = Candidates(
        steps=np.arange(1, 17),
        used=np.ones((2, 16), dtype=np.bool_),
        start={"position": np.stack([HERE] * 2), "velocity": np.zeros((2, 2))},
        streams=streams,
    )
    judged = selector.judge(sampled, goal, None)
    costs = judged.costs
    assert judged.candidates.path("position").shape == (2, 16, 2)
    near = 1 + int(np.argmax(np.abs(resting[0] - resting[0][-1]) <= 0.1))
    assert costs[0] == pytest.approx(near, abs=1.1)
    assert costs[1] > 17


def _standing(place: float) -> Candidates:
    """One plan of 16 steps that stays at (place, 0.5)."""
    here = np.array([[place, 0.5]])
    still = np.zeros((1, 16, 2))
    return Candidates(
        steps=np.arange(1, 17),
        used=np.ones((1, 16), dtype=np.bool_),
        start={"position": here, "velocity": np.zeros((1, 2))},
        streams={"position": here[:, None] + still, "velocity": still, "action": still},
    )


@pytest.mark.parametrize(
    ("broken_by", "tolerances", "sound"),
    [(-0.5, 0.0, True), (0.0, 0.0, True), (0.1, 0.04, True), (0.25, 0.25, True), (0.5, 0.5, False), (2.0, 2.0, False)],
)
def test_a_rule_that_is_broken_by_little_costs_its_square(
    spec: TrajectorySpec, normaliser: Normaliser, broken_by: float, tolerances: float, sound: bool
) -> None:
    tokens = Tokenizer(spec, TokenLayout(token_steps=8, stride=1, history=1, horizon=5), normaliser)
    # Cells of 1 m, visited up to x = 1: their middle is 0.5, from where the distance outside grows as x does.
    visited = np.zeros((9, 1), dtype=np.bool_)
    visited[0] = True
    support = Support(origin=np.zeros(2), cell=1.0, visited=visited)
    selector = Selector(tokens, kinematic_tolerance=1.0, end_tolerance=1.0, support=support, support_tolerance=0.2)
    judged = selector.judge(_standing(0.5 + 0.2 * (1 + broken_by)), None, None)
    assert judged.costs[0] == pytest.approx(16 + 40 * tolerances, abs=1e-3)
    assert bool(judged.sound[0]) is sound


def test_what_enters_an_obstacle_costs_more_than_what_breaks_other_rules_by_far(
    spec: TrajectorySpec, normaliser: Normaliser
) -> None:
    tokens = Tokenizer(spec, TokenLayout(token_steps=8, stride=1, history=1, horizon=5), normaliser)
    selector = Selector(tokens, kinematic_tolerance=1.0, end_tolerance=0.01)
    disc = Obstacles(centres=np.array([[0.0, 0.5]]), radii=np.array([0.3]))
    goal = np.array([0.29, 0.5])  # within the disc, 500 tolerances from the other plan
    entering, staying_out = (selector.judge(_standing(place), goal, disc).costs[0] for place in (0.29, 5.29))
    assert entering > staying_out > selector.judge(_standing(0.29), goal, None).costs[0]


@pytest.mark.parametrize(
    ("half_life", "frame", "broken_by"), [(None, 16, 2.0), (4, 4, 1.0), (4, 8, 0.5), (4, 16, 0.125)]
)
def test_a_rule_broken_far_ahead_counts_half_after_each_half_life(
    spec: TrajectorySpec, normaliser: Normaliser, half_life: int | None, frame: int, broken_by: float
) -> None:
    tokens = Tokenizer(spec, TokenLayout(token_steps=8, stride=1, history=1, horizon=5), normaliser)
    visited = np.zeros((9, 1), dtype=np.bool_)
    visited[0] = True
    support = Support(origin=np.zeros(2), cell=1.0, visited=visited)
    selector = Selector(
        tokens,
        kinematic_tolerance=9.0,
        end_tolerance=1.0,
        support=support,
        support_tolerance=0.2,
        half_life=half_life,
    )
    plan = _standing(0.5)
    plan.streams["position"][0, frame - 1, 0] += 0.2 * 3  # two tolerances too far, in this frame alone
    judged = selector.judge(plan, None, None)
    over = broken_by * min(1, 4 * broken_by)
    assert judged.costs[0] == pytest.approx(16 + 40 * over, abs=1e-2)


def test_rehearsed_plans_are_looked_at_between_their_frames(spec: TrajectorySpec, normaliser: Normaliser) -> None:
    tokens = Tokenizer(spec, TokenLayout(token_steps=8, stride=8, history=1, horizon=5), normaliser)
    weights = np.zeros((7, 4))
    weights[2:4, :2] = 0.1 * np.eye(2)  # nothing pushes: it goes on at 1 m/s
    slices = {"position": slice(0, 2), "velocity": slice(2, 4)}
    drifting = LinearDynamics(streams=slices, weights=weights, low=np.full(4, -np.inf), high=np.full(4, np.inf))
    position = np.array([[[0.8, 0.0], [1.6, 0.0]]])
    velocity = np.broadcast_to([1.0, 0.0], (1, 2, 2))
    sampled = Candidates(
        steps=np.array([8, 16]),
        used=np.ones((1, 2), dtype=np.bool_),
        start={"position": np.zeros((1, 2)), "velocity": velocity[:, 0]},
        streams={"position": position, "velocity": velocity, "action": np.zeros((1, 2, 2))},
    )
    gap = Obstacles(centres=np.array([[0.4, 0.0]]), radii=np.array([0.1]))  # between the start and the first frame
    costs = []
    for feedback in (None, Feedback(drifting, normaliser, spec.action)):
        selector = Selector(tokens, kinematic_tolerance=9.0, end_tolerance=9.0, feedback=feedback)
        costs.append(float(selector.judge(sampled, None, gap).costs[0]))
    assert costs[0] == pytest.approx(16)
    assert costs[1] > 40


def _integrated(velocity: Array, start: Array, now: Array) -> Array:
    """[F, 2] where velocities lead by the trapezoid rule, 0.4 s between frames."""
    both = np.concatenate([now[None], velocity])
    return np.asarray(start + np.cumsum(0.4 * 0.5 * (both[:-1] + both[1:]), axis=0))


def test_the_kinematic_residual_is_nothing_on_exact_integration_and_the_jump_where_one_is_planted(
    tokens: Tokenizer,
) -> None:
    rng = np.random.default_rng(0)
    velocity, start, now = rng.normal(size=(2, 6, 2)), rng.normal(size=2), rng.normal(size=2)
    position = np.stack([_integrated(row, start, now) for row in velocity])
    frames = {"position": np.stack([start, start]), "velocity": np.stack([now, now])}
    residual = kinematic_residual(tokens, frames, {"position": position, "velocity": velocity})
    assert residual is not None
    np.testing.assert_allclose(residual, 0, atol=1e-12)
    position[1, 3:] += [0.3, -0.4]
    residual = kinematic_residual(tokens, frames, {"position": position, "velocity": velocity})
    assert residual is not None
    np.testing.assert_allclose(residual, np.outer([0, 1], [0, 0, 0, 0.5, 0, 0]), atol=1e-12)


def test_the_step_from_the_observation_to_the_first_frame_counts_too(tokens: Tokenizer) -> None:
    frames = {"position": np.zeros((1, 2)), "velocity": np.zeros((1, 2))}
    decoded = {"position": np.full((1, 3, 2), [0.6, 0.8]), "velocity": np.zeros((1, 3, 2))}
    residual = kinematic_residual(tokens, frames, decoded)
    assert residual is not None
    np.testing.assert_allclose(residual, [[1, 0, 0]], atol=1e-12)


def test_where_no_stream_is_the_goals_rate_there_is_no_residual(spec: TrajectorySpec, normaliser: Normaliser) -> None:
    streams = tuple(replace(stream, rate_of=None) for stream in spec.streams)
    tokens = Tokenizer(replace(spec, streams=streams), FRAMES, normaliser)
    assert kinematic_residual(tokens, {}, {}) is None


def test_the_depth_inside_an_obstacle_is_counted_in_radii_and_the_deepest_frame_counts() -> None:
    obstacles = Obstacles(centres=np.array([[0.0, 0.0], [10.0, 0.0]]), radii=np.array([2.0, 4.0]))
    places = np.array([[[3.0, 0], [2.0, 0], [1.5, 0]], [[10, 1], [np.nan] * 2, [np.nan] * 2], [[5, 5], [5, 4], [5, 3]]])
    np.testing.assert_allclose(obstacle_depth(obstacles, places), [0.25, 0.75, 0])
