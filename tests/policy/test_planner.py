"""The planner with denoisers that are exact: in a world of straight lines the clean plan can be written down.

A token is 8 steps at 10 Hz, 0.8 s, and 2 frames, 0.4 s apart. With 3 m to go at 1 m/s at most, 1, 2 and 3 tokens end
2.2, 1.4 and 0.6 m short; 4 tokens are enough.
"""

import json
from dataclasses import asdict, replace

import numpy as np
import pytest
import torch
from torch import Tensor

from forcing.policy.config import from_json
from forcing.policy.dynamics import LinearDynamics
from forcing.policy.noise import NoiseSchedule
from forcing.policy.planner import Planner, PlannerConfig, PlanRequest
from forcing.policy.policy import Policy
from forcing.policy.polishing import PolishConfig
from forcing.policy.refinement import RefineConfig
from forcing.policy.rehearsal import Feedback
from forcing.policy.sampler import Denoise, Model
from forcing.policy.schedules import Schedule
from forcing.policy.search import SearchConfig
from forcing.policy.tokens import Normaliser, Tokenizer, TokenLayout
from forcing.policy.types import Array, Obstacles, Plan, TrajectorySpec

LAYOUT = TokenLayout(token_steps=8, stride=4, history=1, horizon=5)
HERE, GOAL, TOP_SPEED = np.array([1.0, -2.0]), np.array([2.8, 0.4]), 1.0
SLOW, FAST = 0.8, 1.2
HEADING = np.array([0.6, 0.8])
CONFIG = PlannerConfig(samples=2, kinematic_tolerance=0.3, end_tolerance=0.4)
KEEPING = replace(CONFIG, keep=True)
POSITION, VELOCITY, ACTION = slice(0, 4), slice(4, 8), slice(8, 12)


class LineWorld:
    """x0_hat of a world in which everything goes straight to the goal, as slowly as time allows, never too fast.

    jump: what is missing at the end is jumped over in the last frame.
    """

    def __init__(self, normaliser: Normaliser, *, jump: bool = False, top_speed: float = TOP_SPEED) -> None:
        self.jump, self.top_speed = jump, top_speed
        self.mean = {name: torch.tensor(value) for name, value in normaliser.mean.items()}
        self.std = {name: torch.tensor(value) for name, value in normaliser.std.items()}

    def __call__(self, x: Tensor, levels: Tensor, lengths: Tensor) -> Tensor:
        x0_hat = x.clone()
        for row, length in enumerate(lengths.tolist()):
            plan = length - 2
            here = x[row, 0, 2:4] * self.std["position"] + self.mean["position"]
            goal = x[row, length - 1, 2:4] * self.std["position"] + self.mean["position"]
            velocity = (goal - here) / (plan * 0.8)
            velocity = velocity * min(1.0, self.top_speed / float(velocity.norm()))
            times = 0.4 * torch.arange(1, 2 * plan + 1)[:, None]
            places = here + times * velocity
            if self.jump:
                places[-1] = goal
            for name, where, frames in (
                ("position", POSITION, places),
                ("velocity", VELOCITY, velocity.expand(2 * plan, 2)),
                ("action", ACTION, (velocity / 10).expand(2 * plan, 2)),
            ):
                x0_hat[row, 1:-1, where][:plan] = ((frames - self.mean[name]) / self.std[name]).reshape(plan, 4)
        return x0_hat


@pytest.fixture
def tokens(spec: TrajectorySpec, normaliser: Normaliser) -> Tokenizer:
    return Tokenizer(spec, LAYOUT, normaliser)


def _planner(tokens: Tokenizer, denoise: Denoise, config: PlannerConfig | None = None) -> Planner:
    model = Model(denoise, NoiseSchedule(), tokens.stream_of_feature)
    return Planner(model, tokens, config or CONFIG)


def _request(
    *,
    seed: int = 0,
    step: int = 0,
    goal: Array | None = GOAL,
    noise: dict[str, float] | None = None,
    at: Array = HERE,
    current: Plan | None = None,
) -> PlanRequest:
    frames = {"position": np.stack([at, at]), "velocity": np.zeros((2, 2))}
    return PlanRequest(step=step, frames=frames, noise=noise or {}, goal=goal, seed=seed, current=current)


def test_the_plan_is_the_line_to_the_goal_in_the_shortest_time_that_is_enough(
    tokens: Tokenizer, normaliser: Normaliser
) -> None:
    plan = _planner(tokens, LineWorld(normaliser)).plan(_request(step=7))
    times = np.arange(1, 9)[:, None] * 0.4
    assert plan.made_at_step == 7
    assert plan.steps.tolist() == [4, 8, 12, 16, 20, 24, 28, 32]
    np.testing.assert_allclose(plan.streams["position"], HERE + times * HEADING * 3 / 3.2, atol=1e-5)
    np.testing.assert_allclose(plan.streams["velocity"], np.tile(HEADING * 3 / 3.2, (8, 1)), atol=1e-5)
    np.testing.assert_allclose(plan.streams["action"], np.tile(HEADING * 0.3 / 3.2, (8, 1)), atol=1e-5)
    # All samples agree in a world without chance.
    assert max(float(spread.max()) for spread in plan.spread.values()) < 1e-5


@pytest.mark.parametrize(("tolerance_m", "horizon"), [(0.4, 4), (0.7, 3), (1.5, 2), (2.3, 1)])
def test_a_horizon_too_short_to_arrive_is_taken_only_if_its_end_is_near_enough(
    tokens: Tokenizer, normaliser: Normaliser, tolerance_m: float, horizon: int
) -> None:
    config = replace(CONFIG, samples=1, end_tolerance=tolerance_m)
    plan = _planner(tokens, LineWorld(normaliser), config).plan(_request())
    short_m = np.array([2.2, 1.4, 0.6, 0, 0])
    horizons, a_frame_m = np.arange(1, 6), np.array([0.4, 0.4, 0.4, 3 / 8, 3 / 10])
    frames_early = np.floor(np.maximum(0, tolerance_m - short_m) / a_frame_m)
    by_hand = 8 * horizons - 4 * frames_early + 40 * np.maximum(0, short_m / tolerance_m - 1)
    np.testing.assert_allclose(plan.costs, by_hand + 1e-3 * 8 * horizons, atol=1e-3)
    assert plan.chosen == horizon - 1
    assert plan.steps[-1] == 8 * horizon


@pytest.mark.parametrize(("tolerance_m", "horizon"), [(0.3, 4), (0.7, 3), (1.5, 2)])
def test_a_plan_that_jumps_is_taken_only_if_its_jump_is_small_enough(
    tokens: Tokenizer, normaliser: Normaliser, tolerance_m: float, horizon: int
) -> None:
    config = replace(CONFIG, samples=1, kinematic_tolerance=tolerance_m)
    plan = _planner(tokens, LineWorld(normaliser, jump=True), config).plan(_request())
    assert plan.chosen == horizon - 1
    np.testing.assert_allclose(plan.streams["position"][-1], GOAL, atol=1e-5)


def test_tolerances_that_are_not_given_are_a_fifth_of_the_goal_streams_spread(
    tokens: Tokenizer, normaliser: Normaliser
) -> None:
    planner = _planner(tokens, LineWorld(normaliser), PlannerConfig(end_tolerance=0.9))
    # x spreads by 2 m and y by 4 m.
    assert (planner.selector.kinematic_tolerance, planner.hold_distance) == pytest.approx((0.6, 0.6))
    assert planner.selector.end_tolerance == 0.9


def test_every_candidate_is_handed_out_up_to_its_own_horizon(tokens: Tokenizer, normaliser: Normaliser) -> None:
    plan = _planner(tokens, LineWorld(normaliser)).plan(_request())
    assert plan.candidates.shape == (10, 10, 2)
    for index, horizon in enumerate([1, 1, 2, 2, 3, 3, 4, 4, 5, 5]):
        reached_m = min(3.0, 0.8 * horizon)
        np.testing.assert_allclose(plan.candidates[index, 2 * horizon - 1], HERE + reached_m * HEADING, atol=1e-5)
        assert np.isnan(plan.candidates[index, 2 * horizon :]).all()
        assert np.isfinite(plan.candidates[index, : 2 * horizon]).all()


def test_without_a_goal_all_candidates_are_as_long_as_can_be_and_the_goal_token_is_noise(
    tokens: Tokenizer, normaliser: Normaliser
) -> None:
    planner = _planner(tokens, LineWorld(normaliser))
    states = list(planner.sampling(_request(goal=None)))
    assert all(bool((state.levels[:, -1] == 1).all()) for state in states)
    plan = planner.plan(_request(goal=None))
    assert plan.candidates.shape == (2, 10, 2)
    assert plan.steps[-1] == 40


def test_the_goal_token_is_clean_and_stays_and_so_does_what_was_observed(
    tokens: Tokenizer, normaliser: Normaliser
) -> None:
    states = list(_planner(tokens, LineWorld(normaliser)).sampling(_request()))
    place = [(GOAL[0] - 1) / 2, (GOAL[1] + 2) / 4] * 2
    for state in states:
        for row, horizon in enumerate([1, 1, 2, 2, 3, 3, 4, 4, 5, 5]):
            np.testing.assert_allclose(state.tokens[row, 1 + horizon, POSITION], place, rtol=1e-6)
            assert state.levels[row, 1 + horizon].tolist() == [0, 1, 1]
        assert bool((state.tokens[:, 0, POSITION] == 0).all())  # HERE is the mean
        assert bool((state.tokens[:, 0, VELOCITY] == torch.tensor([-1.0, -1.0, -1.0, -1.0])).all())
        assert bool((state.levels[:, 0] == torch.tensor([0.0, 0.0, 1.0])).all())
    assert bool((states[0].levels[:, 1:6, 1:] == 1).all())


def test_a_missing_stream_is_pure_noise_and_the_model_says_what_it_was(
    tokens: Tokenizer, normaliser: Normaliser
) -> None:
    planner = _planner(tokens, LineWorld(normaliser))
    request = replace(_request(), frames={"position": np.stack([HERE] * 2)})
    first = next(planner.sampling(request))
    assert bool((first.levels[:, 0] == torch.tensor([0.0, 1.0, 1.0])).all())
    plan = planner.plan(request)
    np.testing.assert_allclose(plan.start["position"], HERE, atol=1e-6)
    assert plan.start["velocity"].shape == (2,)


def test_a_noisy_stream_enters_at_the_level_whose_noise_is_its_error(tokens: Tokenizer, normaliser: Normaliser) -> None:
    at = np.array([3.0, 6.0])  # normalised (1, 2)
    state = next(_planner(tokens, LineWorld(normaliser)).sampling(_request(at=at, noise={"position": 0.9})))
    level = float(state.levels[0, 0, 0])
    alpha_bar = np.exp(-(0.1 * level + 0.5 * 19.9 * level**2))
    # 0.9 m are 0.3 of the mean standard deviation of x and y, (2 + 4) / 2.
    assert np.sqrt((1 - alpha_bar) / alpha_bar) == pytest.approx(0.3, rel=1e-5)
    np.testing.assert_allclose(state.tokens[0, 0, POSITION], np.sqrt(alpha_bar) * np.array([1, 2, 1, 2]), rtol=1e-5)
    assert state.levels[0, 0].tolist() == [level, 0, 1]


@pytest.mark.parametrize("count", [4, 7, 12])
def test_actions_that_were_sent_already_are_the_plans_own_and_the_rest_is_planned(
    tokens: Tokenizer, normaliser: Normaliser, count: int
) -> None:
    planner = _planner(tokens, LineWorld(normaliser))
    request = _request()
    sent = np.random.default_rng(0).uniform(-1, 1, (count, 2))
    free, plan = planner.plan(request), planner.plan(replace(request, sent=sent))
    whole = count // 4  # a frame is the mean of 4 actions; one of which some are to come is planned
    np.testing.assert_allclose(
        plan.streams["action"][:whole], sent[: 4 * whole].reshape(whole, 4, 2).mean(axis=1), atol=1e-6
    )
    np.testing.assert_allclose(plan.streams["action"][whole:], free.streams["action"][whole:], atol=1e-6)


def _assert_same_plan(first: Plan, second: Plan) -> None:
    for name in first.streams:
        assert np.array_equal(first.streams[name], second.streams[name])
    assert np.array_equal(first.candidates, second.candidates, equal_nan=True)
    assert np.array_equal(first.costs, second.costs)


def test_the_same_request_gives_the_same_plan_and_another_seed_or_step_another(policy: Policy) -> None:
    plan = policy.plan(_request(seed=3, step=5))
    torch.manual_seed(1)
    _assert_same_plan(plan, policy.plan(_request(seed=3, step=5)))
    for other in (_request(seed=4, step=5), _request(seed=3, step=6)):
        assert not np.allclose(policy.plan(other).candidates, plan.candidates, equal_nan=True)


def test_each_sample_of_a_horizon_starts_from_noise_of_its_own(tokens: Tokenizer, normaliser: Normaliser) -> None:
    state = next(_planner(tokens, LineWorld(normaliser)).sampling(_request()))
    noise = state.tokens[:, 1, VELOCITY]
    assert len({tuple(row) for row in noise.tolist()}) == 10
    assert abs(float(state.tokens[..., ACTION].mean())) < 0.15
    assert float(state.tokens[..., ACTION].std()) == pytest.approx(1, abs=0.15)


# 4 steps, one token behind the other: rows 1 1 1, .75 1 1, .5 .75 1, .25 .5 .75, 0 .25 .5, 0 0 .25, 0 0 0.
@pytest.mark.parametrize(
    ("passes", "levels"),
    [(None, [0, 0, 0]), (5, [0, 0, 0.25]), (4, [0, 0.25, 0.5]), (2, [0.5, 0.75, 1]), (1, [0.75, 1, 1])],
)
def test_fewer_passes_leave_the_far_future_noisier_than_the_near(
    spec: TrajectorySpec, normaliser: Normaliser, passes: int | None, levels: list[float]
) -> None:
    tokens = Tokenizer(spec, replace(LAYOUT, horizon=3), normaliser)
    schedule = Schedule(kind="pyramid", sampling_steps=4, uncertainty_scale=1.0)
    config = PlannerConfig(schedule=schedule, samples=1, passes=passes)
    plan = _planner(tokens, LineWorld(normaliser), config).plan(_request(goal=None))
    assert plan.level.tolist() == np.repeat(levels, 2)[:, None].repeat(3, axis=1).tolist()
    assert plan.passes == (passes or 6)


def test_planned_tokens_that_are_clean_are_declared_slightly_noisy_and_what_was_observed_is_not(
    tokens: Tokenizer, normaliser: Normaliser
) -> None:
    world, told = LineWorld(normaliser), list[Tensor]()

    def watched(x: Tensor, levels: Tensor, lengths: Tensor) -> Tensor:
        told.append(levels[lengths == 4][0, :4, 0])  # one history token, two of the plan, the goal
        return world(x, levels, lengths)

    schedule = Schedule(kind="autoregressive", sampling_steps=1)
    config = replace(CONFIG, schedule=schedule, passes=None, stabilisation=0.125)
    _planner(tokens, watched, config).plan(_request())
    assert [levels.tolist() for levels in told[:2]] == [[0, 1, 1, 0], [0, 0.125, 1, 0]]


def test_a_guess_that_is_not_finite_is_an_error(tokens: Tokenizer) -> None:
    planner = _planner(tokens, lambda x, levels, lengths: torch.full_like(x, float("nan")))
    with pytest.raises(FloatingPointError, match="the denoiser's guess is not finite"):
        planner.plan(_request())


def _white(x: Tensor, levels: Tensor, lengths: Tensor) -> Tensor:
    """Exact for data in which every number is N(0, 1) by itself."""
    features = torch.arange(3).repeat_interleave(4)
    return NoiseSchedule().alpha_bar(levels[..., features]).sqrt() * x


@pytest.mark.parametrize("futures", [0, 2])
def test_guidance_pulls_the_end_of_a_plan_to_a_goal_that_the_network_is_not_shown(
    tokens: Tokenizer, futures: int
) -> None:
    goal = np.array([5.0, 6.0])  # two standard deviations away in x and y
    schedule = Schedule(sampling_steps=16, uncertainty_scale=0.0)
    common = {"schedule": schedule, "samples": 8, "passes": None, "end_tolerance": 1e9, "kinematic_tolerance": 1e9}
    ends = {}
    for scale in (0.0, 40.0):
        config = PlannerConfig(goal_by="guidance", guidance_scale=scale, futures=futures, **common)  # type: ignore[arg-type]
        planner = _planner(tokens, _white, config)
        *_, state = planner.sampling(_request(goal=goal))
        assert bool((state.levels[torch.arange(40), state.lengths - 1] == 1).all())
        horizons = planner.horizons(_request(goal=goal))
        plan = planner.plan(_request(goal=goal))
        ends[scale] = plan.candidates[np.arange(40), 2 * horizons - 1]
    # The product of N(0, 1) and the goal's N(2, 2 / 40), the mean over x and y, is centred at 2 * 20 / (1 + 20).
    pulled = (ends[40.0].mean(axis=0) - [1, -2]) / [2, 4]
    assert pulled == pytest.approx([40 / 21, 40 / 21], abs=0.3)
    assert abs((ends[0.0].mean(axis=0) - [1, -2]) / [2, 4]).max() < 0.6


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"samples": 0}, "samples must be at least 1, got 0"),
        ({"stabilisation": 1.0}, "stabilisation must be at least 0 and below 1, got 1.0"),
        ({"stabilisation": 0.1, "search": SearchConfig()}, "stabilisation must be 0 with a search, got 0.1"),
        ({"history_frames": 0}, "history_frames must be at least 1, got 0"),
        ({"futures": -1}, "futures must be finite and at least 0, got -1"),
        ({"rollout_steps": 0}, "rollout_steps must be at least 1, got 0"),
        ({"smooth_scale": -1.0}, "smooth_scale must be finite and at least 0, got -1.0"),
        ({"sooner_scale": float("nan")}, "sooner_scale must be finite and at least 0, got nan"),
        ({"end_tolerance": float("nan")}, "end_tolerance must be positive, got nan"),
        ({"hold_distance": 0.0}, "hold_distance must be positive, got 0.0"),
        ({"goal_by": "wish"}, "goal_by must be 'clamp' or 'guidance', got 'wish'"),
    ],
)
def test_a_planner_that_makes_no_sense_is_refused(fields: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        PlannerConfig(**fields)  # type: ignore[arg-type]


def _free(**fields: object) -> PlannerConfig:
    """Tolerances so wide that nothing but what a test is about decides."""
    wide = {"end_tolerance": 1e9, "kinematic_tolerance": 1e9, "passes": None}
    return PlannerConfig(**{**wide, **fields})  # type: ignore[arg-type]


def _blocking(radius: float) -> Obstacles:
    """A disc in the middle of the way, 1.5 m from start and goal, where a frame of the long plans falls."""
    return Obstacles(centres=(HERE + 1.5 * HEADING)[None], radii=np.array([radius]))


def test_a_plan_through_an_obstacle_is_taken_only_if_all_others_are_worse(
    tokens: Tokenizer, normaliser: Normaliser
) -> None:
    # Frames of the four token plan are 0.375 m apart, 1.5 m being the fourth; of the five token plan 0.3 m, 1.5 the
    # fifth; shorter ones go 0.4 m a frame, nearest 1.6 m.
    config = replace(CONFIG, samples=1, avoid_scale=0.0)
    without = _planner(tokens, LineWorld(normaliser), config).plan(_request())
    request = replace(_request(), obstacles=_blocking(0.05))
    through = _planner(tokens, LineWorld(normaliser), config).plan(request)
    extra = through.costs - without.costs
    # A centre hit costs twice the longest horizon's 40 steps, a thousand times over; 1.6 m is outside.
    np.testing.assert_allclose(extra, [0, 0, 0, 80_000, 80_000], atol=0.1)
    assert (without.chosen, through.chosen) == (3, 2)


def test_guidance_keeps_plans_out_of_an_obstacle_on_top_of_a_clamped_goal(tokens: Tokenizer) -> None:
    # In a world of white noise every frame of x is N(1, 2^2) m; a disc at the mean holds many of them.
    obstacles = Obstacles(centres=np.array([[1.0, -2.0]]), radii=np.array([2.0]))
    inside = {}
    for scale in (0.0, 100.0):
        planner = _planner(tokens, _white, _free(samples=20, avoid_scale=scale, schedule=Schedule(sampling_steps=20)))
        *_, state = planner.sampling(replace(_request(), obstacles=obstacles))
        assert bool((state.levels[torch.arange(100), state.lengths - 1, 0] == 0).all())
        plan = planner.plan(replace(_request(), obstacles=obstacles))
        distance = np.linalg.norm(plan.candidates - [1.0, -2.0], axis=-1)
        inside[scale] = np.mean(distance[np.isfinite(distance)] < 2.0)
    # P(within 2 m) where x and y are normal with 2 and 4 m: integrated numerically once, 0.21.
    assert inside[0.0] == pytest.approx(0.21, abs=0.05)
    assert inside[100.0] < 0.02


def test_smoothness_and_speed_can_be_asked_for_without_a_goal_token_that_moves(tokens: Tokenizer) -> None:
    def roughness(plan: Plan) -> float:
        return float(np.nanmean(np.square(np.diff(plan.candidates, n=2, axis=1))))

    def away(plan: Plan) -> float:
        return float(np.nanmean(np.linalg.norm(plan.candidates - GOAL, axis=-1)))

    plain, smoothed, hurried = (
        _planner(tokens, _white, _free(samples=8, schedule=Schedule(sampling_steps=20), **scales)).plan(_request())
        for scales in ({}, {"smooth_scale": 0.2}, {"sooner_scale": 3.0})
    )
    assert roughness(smoothed) < 0.5 * roughness(plain)
    assert away(hurried) < 0.8 * away(plain)


@pytest.mark.parametrize(
    ("fields", "passes"),
    [
        ({}, 3),
        # A gradient takes a pass more; of futures, two for each level that moves and is not pure noise: 0, 1 and 1 of
        # them (one token: levels 1, 2/3, 1/3).
        ({"goal_by": "guidance"}, 6),
        ({"goal_by": "guidance", "futures": 2, "rollout_steps": 2}, 3 + 2 * 2),
        ({"smooth_scale": 1.0, "sooner_scale": 1.0}, 6),
    ],
)
def test_passes_are_all_calls_of_the_network(
    spec: TrajectorySpec, normaliser: Normaliser, fields: dict[str, object], passes: int
) -> None:
    seen: list[int] = []

    def counted(x: Tensor, levels: Tensor, lengths: Tensor) -> Tensor:
        seen.append(len(x))
        return _white(x, levels, lengths)

    tokens = Tokenizer(spec, replace(LAYOUT, horizon=1), normaliser)
    schedule = Schedule(kind="full_sequence", sampling_steps=3)
    config = PlannerConfig(schedule=schedule, samples=2, **fields)  # type: ignore[arg-type]
    plan = _planner(tokens, counted, config).plan(_request())
    assert plan.passes == len(seen) == passes


def test_a_searched_plan_is_the_best_of_its_leaves_and_cheaper_than_the_samples_of_as_many_passes(
    tokens: Tokenizer,
) -> None:
    # White noise agrees with itself nowhere: the fewer disagreements, the better, and that is what search looks for.
    schedule = Schedule(sampling_steps=4, uncertainty_scale=1.0)
    config = PlannerConfig(schedule=schedule, samples=8, passes=None)
    sampler, searcher = (
        _planner(tokens, _white, replace(config, search=search)) for search in (None, SearchConfig(budget=8))
    )
    cheaper = []
    for seed in range(5):
        sampled, searched = (planner.plan(_request(seed=seed)) for planner in (sampler, searcher))
        assert sampled.passes == searched.passes == 8  # 4 + 4 tokens of lag
        assert len(searched.costs) <= len(sampled.costs) == 40
        assert searched.chosen == np.argmin(searched.costs)
        cheaper.append(searched.costs.min() < sampled.costs.min())
    assert sum(cheaper) >= 4


def test_search_finds_the_line_where_there_is_nothing_else_to_find_and_finds_it_again(
    tokens: Tokenizer, normaliser: Normaliser
) -> None:
    config = replace(CONFIG, search=SearchConfig(budget=9))
    plans = [_planner(tokens, LineWorld(normaliser), config).plan(_request()) for _ in range(2)]
    assert plans[0].steps[-1] == 32
    np.testing.assert_allclose(plans[0].streams["position"][-1], GOAL, atol=1e-5)
    _assert_same_plan(*plans)


def test_a_search_may_drop_the_longest_horizon(tokens: Tokenizer, normaliser: Normaliser) -> None:
    # Five roots, and all five rows of the last pass are children of the best of them, of four tokens.
    config = replace(CONFIG, samples=1, search=SearchConfig(budget=3, children=5))
    plan = _planner(tokens, LineWorld(normaliser), config).plan(_request())
    assert np.isfinite(plan.candidates[:, :, 0]).sum(axis=1).tolist() == [8] * 5
    assert plan.steps.tolist() == [4, 8, 12, 16, 20, 24, 28, 32]


def test_search_and_guidance_work_together_within_the_budget(tokens: Tokenizer) -> None:
    config = PlannerConfig(samples=2, smooth_scale=1.0, search=SearchConfig(budget=11))
    plan = _planner(tokens, _white, config).plan(_request())
    assert 6 <= plan.passes <= 11


def test_a_polished_plan_is_listed_last_and_is_cheaper_than_what_it_was_made_of(
    tokens: Tokenizer, normaliser: Normaliser, spec: TrajectorySpec
) -> None:
    weights = np.zeros((7, 4))  # x' = x + 0.1 v + 0.005 a, v' = v + 0.1 a
    weights[2:4, :2], weights[4:6, :2] = 0.1 * np.eye(2), 0.005 * np.eye(2)
    weights[4:6, 2:] = 0.1 * np.eye(2)
    streams = {"position": slice(0, 2), "velocity": slice(2, 4)}
    mass = LinearDynamics(streams=streams, weights=weights, low=np.full(4, -np.inf), high=np.full(4, np.inf))
    model = Model(LineWorld(normaliser), NoiseSchedule(), tokens.stream_of_feature)
    config = replace(CONFIG, kinematic_tolerance=3.0, polish=PolishConfig(rounds=10))
    plain, polishing = (
        Planner(model, tokens, given, feedback=Feedback(mass, normaliser, spec.action))
        for given in (replace(config, polish=None), config)
    )
    before, after = plain.plan(_request()), polishing.plan(_request())
    np.testing.assert_array_equal(after.costs[:-1], before.costs)
    assert after.chosen == len(after.costs) - 1 == len(after.candidates) - 1
    assert after.costs[-1] < before.costs.min()
    frames = len(after.steps)
    np.testing.assert_array_equal(after.candidates[-1, :frames], after.streams["position"])
    assert np.isnan(after.candidates[-1, frames:]).all()
    assert len(after.level) == frames
    assert all(len(values) == frames for values in (*after.streams.values(), *after.spread.values()))
    assert after.passes == before.passes


@pytest.mark.parametrize(("top_speed", "feasible"), [(FAST, True), (0.1, False)])
def test_a_plan_that_does_not_get_to_its_goal_is_not_feasible(
    tokens: Tokenizer, normaliser: Normaliser, top_speed: float, feasible: bool
) -> None:
    plan = _planner(tokens, LineWorld(normaliser, top_speed=top_speed)).plan(_request())
    assert plan.feasible is feasible


def test_fewer_than_two_samples_of_a_horizon_tell_as_much_as_the_recording(
    tokens: Tokenizer, normaliser: Normaliser
) -> None:
    plan = _planner(tokens, LineWorld(normaliser), PlannerConfig(samples=1)).plan(_request())
    for name, spread in plan.spread.items():
        np.testing.assert_allclose(spread, np.tile(normaliser.std[name], (len(plan.steps), 1)))


def test_spread_is_that_of_samples_before_any_were_improved(tokens: Tokenizer) -> None:
    config = PlannerConfig(samples=4)
    sampled, refined = (
        _planner(tokens, _white, given).plan(_request()) for given in (config, replace(config, refine=RefineConfig()))
    )
    same_horizon = min(len(sampled.steps), len(refined.steps))
    assert float(refined.spread["position"][:same_horizon].min()) > 0.1
    if len(sampled.steps) == len(refined.steps):
        np.testing.assert_array_equal(refined.spread["position"], sampled.spread["position"])


def test_candidates_are_sampled_again_while_none_keeps_the_rules_and_only_then(
    tokens: Tokenizer, normaliser: Normaliser
) -> None:
    # White noise never does; the line does at once.
    once, often = PlannerConfig(samples=2), PlannerConfig(samples=2, attempts=4)
    first, best = (_planner(tokens, _white, config).plan(_request()) for config in (once, often))
    assert (first.passes, best.passes) == (3, 12)
    assert best.costs.min() < first.costs.min()
    assert len(best.costs) == len(first.costs)
    later = _planner(tokens, _white, often).plan(_request(step=4, current=best))
    assert later.passes == 3  # a plan is being followed
    line = _planner(tokens, LineWorld(normaliser), replace(CONFIG, attempts=4)).plan(_request())
    assert line.passes == 3
    assert line.costs.min() < 40


def test_a_planner_with_a_search_and_a_refinement_in_it_survives_json() -> None:
    for config in (PlannerConfig(), PlannerConfig(search=SearchConfig(budget=7, eta=0.5), refine=RefineConfig())):
        assert from_json(PlannerConfig, json.loads(json.dumps(asdict(config)))) == config


@pytest.fixture
def fast(tokens: Tokenizer, normaliser: Normaliser) -> Plan:
    return _planner(tokens, LineWorld(normaliser, top_speed=FAST)).plan(_request())


def test_the_rest_of_the_current_plan_is_kept_while_nothing_cheaper_is_found(
    tokens: Tokenizer, normaliser: Normaliser, fast: Plan
) -> None:
    at = fast.streams["position"][1]
    plan = _planner(tokens, LineWorld(normaliser, top_speed=SLOW), KEEPING).plan(_request(step=8, at=at, current=fast))
    assert plan.made_at_step == 8
    assert plan.steps.tolist() == (fast.steps[2:] - 8).tolist()
    for name, values in plan.streams.items():
        np.testing.assert_allclose(values, fast.streams[name][2:], atol=1e-5)
    np.testing.assert_array_equal(plan.level, fast.level[2:])
    np.testing.assert_allclose(plan.start["position"], at, atol=1e-5)
    # It stands before the candidates, and is no dearer than any of them.
    assert plan.chosen == 0
    assert plan.costs[0] == plan.costs.min()
    np.testing.assert_array_equal(plan.candidates[0, : len(plan.steps)], plan.streams["position"])


def test_the_rest_of_the_current_plan_has_its_end_held_until_its_last_token_is_whole(
    tokens: Tokenizer, normaliser: Normaliser, fast: Plan
) -> None:
    # Twelve steps are over: a token and a half of three. No other plan comes as near.
    at, config = fast.streams["position"][2], replace(KEEPING, end_tolerance=0.01)
    plan = _planner(tokens, LineWorld(normaliser, top_speed=0.1), config).plan(_request(step=12, at=at, current=fast))
    assert plan.steps.tolist() == [4, 8, 12, 16]
    expected = np.concatenate([fast.streams["position"][3:], fast.streams["position"][-1:]])
    np.testing.assert_allclose(plan.streams["position"], expected, atol=1e-5)
    np.testing.assert_allclose(plan.streams["velocity"][-1], 0, atol=1e-5)
    np.testing.assert_allclose(plan.streams["action"][-1], 0, atol=1e-5)


def test_refined_candidates_are_better_ones_and_as_many(tokens: Tokenizer) -> None:
    # White noise agrees with itself nowhere; a little noise on the best of it now and then agrees better.
    config = PlannerConfig(samples=4)
    refining = replace(config, refine=RefineConfig(rounds=6, level=0.05, least=0.005), keep=True)
    sampled, refined = (_planner(tokens, _white, given).plan(_request()) for given in (config, refining))
    assert refined.passes == sampled.passes + 6
    assert refined.costs.min() < sampled.costs.min()
    assert len(refined.costs) == len(sampled.costs)


def test_the_current_plan_is_refined_with_the_candidates(tokens: Tokenizer, normaliser: Normaliser, fast: Plan) -> None:
    # Every row goes to the same slow line once the network has seen it; the rest alone was faster, and stays first.
    seen: list[Tensor] = []

    def watched(x: Tensor, levels: Tensor, lengths: Tensor) -> Tensor:
        seen.append(x)
        return LineWorld(normaliser, top_speed=SLOW)(x, levels, lengths)

    at, config = fast.streams["position"][1], replace(KEEPING, refine=RefineConfig(rounds=1, level=1e-3, least=1e-3))
    plan = _planner(tokens, watched, config).plan(_request(step=8, at=at, current=fast))
    np.testing.assert_allclose(plan.streams["position"], fast.streams["position"][2:], atol=1e-5)
    # Noised by next to nothing, the rest is among what the last pass was shown.
    shown = tokens.decode(seen[-1][:, 1:-1])["position"][:, : len(plan.steps)]
    assert float(np.abs(shown - plan.streams["position"]).max(axis=(1, 2)).min()) < 0.1


def test_a_cheaper_plan_takes_the_place_of_the_current_one(
    tokens: Tokenizer, normaliser: Normaliser, fast: Plan
) -> None:
    slow = _planner(tokens, LineWorld(normaliser, top_speed=SLOW)).plan(_request())
    # It has not moved.
    plan = _planner(tokens, LineWorld(normaliser, top_speed=FAST), KEEPING).plan(_request(step=8, current=slow))
    np.testing.assert_allclose(plan.streams["position"], fast.streams["position"], atol=1e-5)


@pytest.mark.parametrize("why", ["not asked to", "over", "leads elsewhere", "the robot strayed", "no goal"])
def test_the_current_plan_is_not_kept(tokens: Tokenizer, normaliser: Normaliser, fast: Plan, why: str) -> None:
    config, step, current, at = KEEPING, 8, fast, fast.streams["position"][1]
    goal: Array | None = GOAL
    if why == "not asked to":
        config = CONFIG
    elif why == "over":
        step = int(fast.steps[-1])
    elif why == "no goal":
        goal = None
    elif why == "the robot strayed":
        at = HERE
    elif why == "leads elsewhere":
        away = {name: values.copy() for name, values in fast.streams.items()}
        away["position"][2:] += at - away["position"][2:]  # it would stay where it is
        current = replace(fast, streams=away)
    plan = _planner(tokens, LineWorld(normaliser, top_speed=SLOW), config).plan(
        _request(step=step, at=at, goal=goal, current=current)
    )
    anew = _planner(tokens, LineWorld(normaliser, top_speed=SLOW), config).plan(_request(step=step, at=at, goal=goal))
    np.testing.assert_array_equal(plan.streams["position"], anew.streams["position"])
