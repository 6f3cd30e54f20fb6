"""Plans kept up, with a denoiser that knows the way: everything moves by HEADING from where the robot is shown.

A token is 8 steps at 10 Hz and two frames, 0.4 s apart. The goal is 3.2 s away: four tokens of the five there may be.
"""

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor

from forcing.policy.noise import NoiseSchedule
from forcing.policy.planner import Planner, PlannerConfig, PlanRequest
from forcing.policy.polishing import PolishConfig
from forcing.policy.rolling import RollingConfig, RollingPlanner
from forcing.policy.sampler import Model
from forcing.policy.tokens import Normaliser, Tokenizer, TokenLayout
from forcing.policy.types import Array, Obstacles, Plan, TrajectorySpec

LAYOUT = TokenLayout(token_steps=8, stride=4, history=1, horizon=5)
HERE, HEADING = np.array([1.0, -2.0]), np.array([0.6, 0.8])
GOAL = HERE + 3.2 * HEADING
CONFIG = PlannerConfig(samples=2, kinematic_tolerance=0.3, end_tolerance=0.4)
ROLLING = RollingConfig(polish=None)


class Guide:
    """A denoiser that knows the way, with a swerve that grows with the noise of a token; remembers what it was shown.

    swerve: m to the side at level 1.
    """

    def __init__(self, normaliser: Normaliser, swerve: float = 0.0) -> None:
        self.swerve, self.levels = swerve, list[Tensor]()
        self.mean = {name: torch.tensor(value) for name, value in normaliser.mean.items()}
        self.std = {name: torch.tensor(value) for name, value in normaliser.std.items()}

    def __call__(self, x: Tensor, levels: Tensor, lengths: Tensor) -> Tensor:
        self.levels.append(levels.clone())
        frames = 2 * (x.shape[1] - 2)
        heading, aside = torch.tensor(HEADING), torch.tensor([-HEADING[1], HEADING[0]])
        times = 0.4 * torch.arange(1, frames + 1)[:, None]
        x0_hat = x.clone()
        for row in range(len(x)):
            here = x[row, 0, 2:4] * self.std["position"] + self.mean["position"]
            noise = levels[row, 1:-1, 0].repeat_interleave(2)[:, None]
            places = here + times * heading + self.swerve * noise * aside
            for name, start, values in (
                ("position", 0, places),
                ("velocity", 4, heading.expand(frames, 2)),
                ("action", 8, (heading / 10).expand(frames, 2)),
            ):
                token = ((values - self.mean[name]) / self.std[name]).reshape(-1, 4)
                x0_hat[row, 1:-1, start : start + 4] = token.to(x.dtype)
        return x0_hat


@pytest.fixture
def tokens(spec: TrajectorySpec, normaliser: Normaliser) -> Tokenizer:
    return Tokenizer(spec, LAYOUT, normaliser)


def _planner(tokens: Tokenizer, guide: Guide, rolling: RollingConfig = ROLLING) -> RollingPlanner:
    return RollingPlanner(Model(guide, NoiseSchedule(), tokens.stream_of_feature), tokens, CONFIG, rolling)


def _request(step: int = 0, *, current: Plan | None = None, at: Array = HERE, goal: Array = GOAL) -> PlanRequest:
    frames = {"position": np.stack([at, at]), "velocity": np.stack([HEADING, HEADING])}
    return PlanRequest(step=step, frames=frames, noise={}, goal=goal, seed=3, current=current)


@pytest.fixture
def first(tokens: Tokenizer, normaliser: Normaliser) -> Plan:
    model = Model(Guide(normaliser), NoiseSchedule(), tokens.stream_of_feature)
    plan = Planner(model, tokens, CONFIG).plan(_request())
    assert (len(plan.steps), plan.passes, plan.feasible) == (8, 3, True)
    return plan


def test_a_first_plan_is_that_of_the_planner_without_rolling(
    tokens: Tokenizer, normaliser: Normaliser, first: Plan
) -> None:
    plan = _planner(tokens, Guide(normaliser)).plan(_request())
    np.testing.assert_array_equal(plan.streams["position"], first.streams["position"])
    assert plan.passes == first.passes


@pytest.mark.parametrize("passes", [1, 2])
def test_a_plan_is_kept_up_by_the_passes_asked_for_over_its_own_horizon_alone(
    tokens: Tokenizer, normaliser: Normaliser, first: Plan, passes: int
) -> None:
    guide, at = Guide(normaliser), HERE + 0.8 * HEADING
    plan = _planner(tokens, guide, replace(ROLLING, passes=passes)).plan(_request(8, current=first, at=at))
    assert plan.passes == passes == len(guide.levels)
    assert {len(levels) for levels in guide.levels} == {ROLLING.variants}
    assert plan.made_at_step == 8
    np.testing.assert_allclose(plan.start["position"], at, atol=1e-5)
    np.testing.assert_allclose(plan.streams["position"], first.streams["position"][2:], atol=1e-5)
    assert plan.feasible


def test_the_near_future_is_nearly_clean_and_the_far_future_noisy(
    tokens: Tokenizer, normaliser: Normaliser, first: Plan
) -> None:
    guide = Guide(normaliser)
    pushed = HERE + np.array([-0.28, 0.21])  # so that its rest is not kept
    plan = _planner(tokens, guide, replace(ROLLING, passes=2, far=0.4)).plan(_request(0, current=first, at=pushed))
    # Four of at most five tokens: each 0.1 noisier than the one before, and a pass takes each to where that one was.
    expected = torch.tensor([[0.2, 0.3, 0.4, 0.5], [0.1, 0.2, 0.3, 0.4]])
    for shown, levels in zip(guide.levels, expected, strict=True):
        torch.testing.assert_close(shown[:, 1:5, 0], levels.expand(ROLLING.variants, 4))
        assert float(shown[:, 0, :2].max()) == 0  # what was observed
        assert float(shown[:, 5, 0].max()) == 0  # the goal
    np.testing.assert_allclose(plan.level[:, 0], np.repeat([0, 0.1, 0.2, 0.3], 2), atol=1e-6)


def test_a_variant_that_is_dearer_than_the_rest_does_not_replace_it(
    tokens: Tokenizer, normaliser: Normaliser, first: Plan
) -> None:
    plan = _planner(tokens, Guide(normaliser, swerve=50.0)).plan(_request(8, current=first, at=HERE + 0.8 * HEADING))
    assert plan.chosen == 0
    np.testing.assert_allclose(plan.streams["position"], first.streams["position"][2:], atol=1e-5)
    assert len(plan.costs) == 1 + ROLLING.variants


def test_a_pushed_robot_gets_a_plan_from_where_it_is(tokens: Tokenizer, normaliser: Normaliser, first: Plan) -> None:
    # Too far from the plan for its rest, and near enough to be there in time.
    at = HERE + 0.8 * HEADING + np.array([-0.28, 0.21])
    plan = _planner(tokens, Guide(normaliser)).plan(_request(8, current=first, at=at))
    assert plan.passes == 1
    assert plan.chosen > 0
    np.testing.assert_allclose(plan.streams["position"][-1], at + 2.4 * HEADING, atol=1e-5)


def test_another_goal_is_planned_for_from_noise(tokens: Tokenizer, normaliser: Normaliser, first: Plan) -> None:
    goal = HERE + 4.0 * HEADING
    plan = _planner(tokens, Guide(normaliser)).plan(_request(0, current=first, goal=goal))
    assert plan.passes == 1 + 3
    assert plan.feasible
    assert np.linalg.norm(plan.streams["position"][-1] - goal) <= CONFIG.end_tolerance  # type: ignore[operator]


def test_a_plan_that_is_over_is_followed_by_one_from_noise(
    tokens: Tokenizer, normaliser: Normaliser, first: Plan
) -> None:
    request = _request(int(first.steps[-1]), current=first, goal=HERE + 4.0 * HEADING)
    assert _planner(tokens, Guide(normaliser)).plan(request).passes == 3


def test_a_plan_that_runs_into_an_obstacle_is_not_kept(tokens: Tokenizer, normaliser: Normaliser, first: Plan) -> None:
    wall = Obstacles(centres=first.streams["position"][4:5], radii=np.array([0.2]))
    request = replace(_request(0, current=first), obstacles=wall)
    assert _planner(tokens, Guide(normaliser)).plan(request).passes > ROLLING.passes


def test_a_plan_that_is_kept_up_at_every_step_goes_on_and_does_not_begin_anew(
    tokens: Tokenizer, normaliser: Normaliser, first: Plan
) -> None:
    planner, plan = _planner(tokens, Guide(normaliser)), first
    for step in range(1, 11):
        plan = planner.plan(_request(step, current=plan, at=HERE + 0.1 * step * HEADING))
        assert (plan.passes, plan.made_at_step) == (1, step)
        expected = HERE + np.minimum(0.1 * step + 0.4 * np.arange(1, 5), 3.2)[:, None] * HEADING
        np.testing.assert_allclose(plan.streams["position"][:4], expected, atol=0.01)


def test_the_same_request_gives_the_same_plan(tokens: Tokenizer, normaliser: Normaliser, first: Plan) -> None:
    planner = _planner(tokens, Guide(normaliser, swerve=0.3), replace(ROLLING, polish=PolishConfig(rounds=1)))
    request = _request(4, current=first, at=HERE + 0.4 * HEADING)
    one, other = planner.plan(request), planner.plan(request)
    np.testing.assert_array_equal(one.streams["position"], other.streams["position"])
    np.testing.assert_array_equal(one.costs, other.costs)


def test_plans_made_together_are_those_made_alone_and_share_a_pass(
    tokens: Tokenizer, normaliser: Normaliser, first: Plan
) -> None:
    guide = Guide(normaliser, swerve=0.3)
    planner = _planner(tokens, guide)
    wall = Obstacles(centres=HERE[None] + 9.0, radii=np.array([0.2]))
    requests = [
        _request(8, current=first, at=HERE + 0.8 * HEADING),
        _request(),
        _request(16, current=first, at=HERE + 1.6 * HEADING),
        replace(_request(8, current=first, at=HERE + 0.8 * HEADING), obstacles=wall),
    ]
    alone = [planner.plan(request) for request in requests]
    guide.levels.clear()
    together = planner.plan_many(requests)
    # One pass of both that are kept up and have no objective, those of the one that has, and three from noise.
    assert [len(levels) for levels in guide.levels].count(2 * ROLLING.variants) == 1
    assert len(guide.levels) < sum(plan.passes for plan in alone)
    for one, other in zip(alone, together, strict=True):
        assert isinstance(other, Plan)
        assert (one.chosen, one.passes) == (other.chosen, other.passes)
        np.testing.assert_allclose(one.streams["position"], other.streams["position"], atol=1e-5)


def test_a_plan_that_cannot_be_made_takes_no_other_along(
    tokens: Tokenizer, normaliser: Normaliser, first: Plan
) -> None:
    bad = _request(8, current=first, at=np.array([np.nan, 0.0]))
    good, failed = _planner(tokens, Guide(normaliser)).plan_many([_request(8, current=first), bad])
    assert isinstance(good, Plan)
    assert isinstance(failed, FloatingPointError)


@pytest.mark.parametrize(
    ("fields", "message"),
    [({"passes": 0}, "passes must be at least 1, got 0"), ({"variants": 0}, "variants"), ({"far": 0.0}, "far must be")],
)
def test_senseless_settings_are_refused(fields: dict[str, float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        RollingConfig(**fields)  # type: ignore[arg-type]
