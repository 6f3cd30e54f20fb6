"""Plans from all that an episode has shown, with networks whose guess can be written down.

In `Still` nothing ever moves: an arm is at a place that is drawn once, and is told to stay there. What is known of the
place from readings with errors has a closed form, and so has the best guess of the action.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, cast

import numpy as np
import pytest
import torch
from torch import Tensor

from forcing.policy.causal import CausalDenoiser
from forcing.policy.history_planner import HistoryPlanner
from forcing.policy.memory import MemoryConfig
from forcing.policy.noise import NoiseSchedule
from forcing.policy.planner import PlannerConfig, PlanRequest
from forcing.policy.policy import Policy
from forcing.policy.schedules import Schedule
from forcing.policy.tokens import Normaliser, Tokenizer, TokenLayout
from forcing.policy.types import Array, Plan, Recalled, StreamSpec, TrajectorySpec

NOISE = NoiseSchedule()
TOKEN, HORIZON = 3, 2
MEAN_M, STD_M = 3.0, 2.0
STILL = Tokenizer(
    TrajectorySpec(
        streams=(
            StreamSpec(name="place", role="observation", shape=(), units="m"),
            StreamSpec(name="action", role="action", shape=(1,), units="m"),
        ),
        control_hz=10.0,
    ),
    TokenLayout(token_steps=TOKEN, stride=TOKEN, history=8, horizon=HORIZON, chunks=True),
    Normaliser(mean={"place": (MEAN_M,), "action": (-1.0,)}, std={"place": (STD_M,), "action": (0.5,)}),
)
ONE_PASS = PlannerConfig(schedule=Schedule(sampling_steps=4), samples=1, passes=1)


@dataclass(frozen=True)
class Known:
    """What a network keeps, and lets be known; the same for any number of rows."""

    tokens: Tensor
    levels: Tensor

    def rows(self, count: int) -> "Known":
        return Known(self.tokens.expand(count, -1, -1), self.levels.expand(count, -1, -1))


class Still:
    """x0_hat, exactly: every feature tells c p + d, p the place, a standard normal number."""

    scale = torch.tensor([1.0, 4.0, 4.0, 4.0], dtype=torch.float64)  # an action of 1 m is 2 more, a place of 1 m half
    shift = torch.tensor([0.0, 8.0, 8.0, 8.0], dtype=torch.float64)  # the mean place, 3 m, is (3 + 1) / 0.5

    def remember(self, x: Tensor, levels: Tensor) -> Known:
        return Known(x, levels)

    def __call__(self, x: Tensor, levels: Tensor, lengths: Tensor, past: Known | None) -> Tensor:
        if past is not None:
            x, levels = torch.cat([past.tokens, x], dim=1), torch.cat([past.levels, levels], dim=1)
        x, share = x.double(), NOISE.alpha_bar(levels.double())[..., STILL.stream_of_feature]
        precision = self.scale.square() * share / (1 - share).clamp(min=1e-12)
        said = (x / share.sqrt().clamp(min=1e-12) - self.shift) / self.scale
        place = (precision * said).sum(dim=(1, 2)) / (1 + precision.sum(dim=(1, 2)))
        guess = self.scale * place[:, None, None] + self.shift
        return guess.expand(-1, HORIZON if past is not None else x.shape[1], -1).float()


class Told:
    """Guesses what it is told, [N, horizon, D], and writes down what it was shown."""

    def __init__(self, guess: Tensor) -> None:
        self.guess, self.shown = guess, list[tuple[Tensor, Tensor]]()

    def remember(self, x: Tensor, levels: Tensor) -> Known:
        return Known(x, levels)

    def __call__(self, x: Tensor, levels: Tensor, lengths: Tensor, past: Known | None) -> Tensor:
        self.shown.append((x, levels))
        behind = torch.zeros(len(x), x.shape[1] - self.guess.shape[1], self.guess.shape[2])
        return torch.cat([behind, self.guess.expand(len(x), -1, -1)], dim=1)


def _planner(
    network: Any, config: PlannerConfig = ONE_PASS, tokenizer: Tokenizer = STILL, **memory: Any
) -> HistoryPlanner:
    return HistoryPlanner(cast(CausalDenoiser, network), NOISE, tokenizer, config, MemoryConfig(**memory))


def _recalled(
    readings: Sequence[tuple[float, float] | None], actions: Sequence[Sequence[float]] | None = None
) -> Recalled:
    """readings: of the place and its standard error, every token, None where there is none."""
    many = len(readings) - 1
    told = np.zeros((many, TOKEN)) if actions is None else np.array(actions)
    return Recalled(
        values={"place": np.array([np.nan if each is None else each[0] for each in readings])},
        noise={"place": np.array([np.inf if each is None else each[1] for each in readings])},
        actions=told.reshape(many, TOKEN, 1),
    )


def _request(recalled: Recalled, *, step: int = 0, seed: int = 0) -> PlanRequest:
    return PlanRequest(step=step, frames={}, noise={}, goal=None, seed=seed, recalled=recalled)


def _posterior(readings: Sequence[tuple[float, float]]) -> tuple[float, float]:
    """Mean and standard deviation, in m, of the place after readings of it with standard errors."""
    precision = STD_M**-2 + sum(error**-2 for _, error in readings)
    mean = (MEAN_M * STD_M**-2 + sum(place * error**-2 for place, error in readings)) / precision
    return mean, precision**-0.5


def _floor(level: float) -> float:
    """The standard error, in m, that a level declares."""
    share = float(NOISE.alpha_bar(torch.tensor(level)))
    return STD_M * math.sqrt((1 - share) / share)


def test_from_noisy_and_missing_observations_the_best_guess_is_planned() -> None:
    readings = [(4.0, 0.5), None, (5.5, 1.5), None, (2.0, 3.0)]
    plan = _planner(Still()).plan(_request(_recalled(readings)))
    expected, _ = _posterior([each for each in readings if each is not None])
    np.testing.assert_allclose(plan.streams["action"], np.full((HORIZON * TOKEN, 1), expected), atol=1e-4)
    np.testing.assert_allclose(plan.streams["place"][-1], expected, atol=1e-4)


def test_who_has_seen_nothing_plans_for_what_is_usual() -> None:
    plan = _planner(Still()).plan(_request(_recalled([None, None])))
    np.testing.assert_allclose(plan.streams["action"], np.full((HORIZON * TOKEN, 1), MEAN_M), atol=1e-5)


def test_what_is_seen_exactly_is_planned_exactly_from_any_noise() -> None:
    planner = _planner(Still(), replace(ONE_PASS, samples=3, passes=None))
    for seed in range(3):
        plan = planner.plan(_request(_recalled([None, (4.5, 0.0), None]), seed=seed))
        np.testing.assert_allclose(plan.streams["action"], 4.5, atol=1e-3)


def test_samples_spread_as_what_is_not_known_does() -> None:
    """Up to what their number and that of steps leave open."""
    readings = [(4.0, 1.0), (5.0, 2.0)]
    config = PlannerConfig(schedule=Schedule(sampling_steps=60), samples=600, passes=None)
    plan = _planner(Still(), config).plan(_request(_recalled(readings)))
    mean, std = _posterior(readings)
    np.testing.assert_allclose(plan.spread["action"], std, rtol=0.1)
    np.testing.assert_allclose(plan.streams["action"], mean, atol=0.15)  # the one in the middle
    np.testing.assert_allclose(plan.candidates[:, -1, 0].mean(), mean, atol=0.15)


@pytest.mark.parametrize("level", [0.0, 0.1])
def test_a_past_is_declared_at_least_as_noisy_as_the_policy_wants(level: float) -> None:
    readings, least = [(4.0, 0.01), (5.5, 2.5)], _floor(level)
    plan = _planner(Still(), recall_level=level).plan(_request(_recalled(readings)))
    expected, _ = _posterior([(place, max(error, least)) for place, error in readings])
    np.testing.assert_allclose(plan.streams["action"], expected, atol=2e-3)


def test_actions_of_the_past_are_known_where_the_policy_wants_them_and_somebody_tells() -> None:
    """Each tells the place twice as well as its level does, in its own units: 0.5 m against 2."""
    nobody = [math.nan] * TOKEN
    recalled = _recalled([(4.0, 2.0), None, None, None], [[5.0, 5.0, 5.0], nobody, [5.0, 6.0, 7.0]])
    hidden = _planner(Still(), recall_level=0.3).plan(_request(recalled))
    error = _floor(0.3)
    np.testing.assert_allclose(hidden.streams["action"], _posterior([(4.0, max(2.0, error))])[0], atol=1e-4)
    shown = _planner(Still(), recall_level=0.3, show_actions=True).plan(_request(recalled))
    told = [(place, error / 4) for place in (5.0, 5.0, 5.0, 5.0, 6.0, 7.0)]
    np.testing.assert_allclose(shown.streams["action"], _posterior([(4.0, max(2.0, error)), *told])[0], atol=1e-3)


def test_what_is_known_stands_in_its_token_with_the_signal_of_its_level() -> None:
    recalled = _recalled([(5.0, 0.0), None, (1.0, STD_M)], [[-1.0, -0.5, 0.0], [0.5, 1.0, 1.5]])
    tokens, levels = _planner(Told(torch.zeros(1)), show_actions=True).tokens_of(recalled)
    half = float(NOISE.level_of(torch.tensor(1.0)))  # signal and noise are equal
    torch.testing.assert_close(levels, torch.tensor([[[0.0, 1.0], [1.0, 0.0], [half, 0.0]]]))
    signal = math.sqrt(0.5)
    torch.testing.assert_close(
        tokens, torch.tensor([[[1.0, 0, 0, 0], [0, 0.0, 1.0, 2.0], [-1.0 * signal, 3.0, 4.0, 5.0]]])
    )


def test_a_plan_is_in_physical_units_its_observations_on_straight_lines_from_what_is_seen_now() -> None:
    guess = torch.tensor([[[1.0, 2, 3, 4], [0.0, 5, 6, 7]]])  # places 5 m and 3 m
    config = replace(ONE_PASS, passes=None)
    plan = _planner(Told(guess), config).plan(_request(_recalled([(9.0, 0.0), (2.0, 0.0)]), step=6))
    assert (plan.made_at_step, plan.steps.tolist(), plan.chosen, plan.feasible) == (6, [1, 2, 3, 4, 5, 6], 0, True)
    np.testing.assert_allclose(plan.streams["action"][:, 0], [0, 0.5, 1, 1.5, 2, 2.5])
    np.testing.assert_allclose(plan.streams["place"], [3, 4, 5, 13 / 3, 11 / 3, 3])
    np.testing.assert_array_equal(plan.candidates, plan.streams["place"].reshape(1, 6, 1))
    assert plan.start["place"] == 2.0
    # One sample says nothing of how far others would be: as the recording varies.
    assert plan.spread["action"].tolist() == [[0.5]] * 6
    assert plan.spread["place"].tolist() == [2.0] * 6
    assert (plan.level == 0).all()
    assert plan.passes == len(config.schedule.matrix(HORIZON))  # one of them over the past


def test_who_is_not_seen_now_is_supposed_where_he_is_seen_next() -> None:
    guess = torch.tensor([[[1.0, 2, 3, 4], [0.0, 5, 6, 7]]])
    plan = _planner(Told(guess)).plan(_request(_recalled([(9.0, 0.0), None])))
    assert plan.start["place"] == 5.0
    np.testing.assert_allclose(plan.streams["place"], [5, 5, 5, 13 / 3, 11 / 3, 3])
    assert np.isfinite(plan.candidates).all()


def test_of_several_samples_that_is_played_whose_actions_are_nearest_to_all_others() -> None:
    """Actions 0, 5 and 1: 6, 9 and 5 from the others, in 6 equal entries."""
    guess = torch.zeros(3, HORIZON, 4)
    guess[:, :, 1:] = torch.tensor([0.0, 5.0, 1.0])[:, None, None]
    guess[2, :, 0] = 30.0  # what is seen on the way is nobody's concern
    plan = _planner(Told(guess), replace(ONE_PASS, samples=3)).plan(_request(_recalled([(2.0, 0.0)])))
    assert plan.chosen == 2
    np.testing.assert_allclose(plan.costs, math.sqrt(6) * np.array([6, 9, 5]), rtol=1e-6)
    np.testing.assert_allclose(plan.streams["action"], -0.5)
    np.testing.assert_allclose(plan.spread["action"], 0.5 * np.std([0, 5, 1]), rtol=1e-6)
    assert plan.candidates.shape == (3, HORIZON * TOKEN, 1)
    np.testing.assert_allclose(plan.candidates[:, -1, 0], [3, 3, 63])


def test_passes_that_are_left_out_leave_the_far_future_noisy() -> None:
    """A lag of two of four steps: after two passes the first token is half done, the second not begun."""
    config = replace(ONE_PASS, schedule=Schedule(sampling_steps=4, uncertainty_scale=2.0), passes=2)
    plan = _planner(Told(torch.zeros(1, HORIZON, 4)), config).plan(_request(_recalled([(2.0, 0.0)])))
    assert plan.level.tolist() == [[0.5, 0.5]] * 3 + [[1.0, 1.0]] * 3
    assert plan.passes == 3


def test_with_equal_levels_the_past_is_shown_as_noisy_as_the_plan_and_what_is_missing_stays_so() -> None:
    config = PlannerConfig(schedule=Schedule(kind="full_sequence", sampling_steps=4), samples=4000, passes=None)
    network = Told(torch.zeros(1, HORIZON, 4))
    readings = [(5.0, 0.0), None, (1.0, STD_M)]
    plan = _planner(network, config, equal_levels=True, recall_level=0.1).plan(_request(_recalled(readings)))
    half = float(NOISE.level_of(torch.tensor(1.0)))
    assert plan.passes == len(network.shown) == 4
    for (tokens, levels), level in zip(network.shown, (1.0, 0.75, 0.5, 0.25), strict=True):
        assert bool((levels[:, 3:] == level).all())
        assert levels[0, :3, 0].tolist() == pytest.approx([max(level, 0.1), 1.0, max(level, half)])
        assert bool((levels[:, :3, 1] == 1.0).all()), "nobody is shown its actions"
        share = NOISE.alpha_bar(torch.tensor([max(level, 0.1), 1.0, max(level, half)]))
        # Read as 1 and -1 in standard deviations; the noise of a reading is among what is read.
        expected = share.sqrt() * torch.tensor([1.0, 0.0, -1.0])
        torch.testing.assert_close(tokens[:, :3, 0].mean(dim=0), expected, atol=0.05, rtol=0.0)
        before = NOISE.alpha_bar(torch.tensor([0.1, 1.0, half]))
        kept = torch.where(before > 0, share / before.clamp(min=1e-9), 0.0)
        torch.testing.assert_close(tokens[:, :3, 0].var(dim=0), 1 - kept, atol=0.06, rtol=0.0)


def _of_the_arm(rng: np.random.Generator, tokens: int) -> Recalled:
    values = {"hand": rng.normal([0.5, 0.0], 0.25, (tokens, 2)), "load": rng.normal(1, 2, tokens)}
    noise = {"hand": np.full(tokens, 0.01), "load": np.zeros(tokens)}
    return Recalled(values=values, noise=noise, actions=rng.uniform(0.25, 0.5, (tokens - 1, 3, 2)))


def _same(one: Plan, other: Plan) -> bool:
    return all(np.array_equal(one.streams[name], other.streams[name]) for name in one.streams)


def test_the_same_request_gives_the_same_plan_and_another_seed_step_or_past_another(remembering: Policy) -> None:
    recalled = _of_the_arm(np.random.default_rng(0), 4)
    torch.manual_seed(0)
    plan = remembering.plan(_request(recalled, step=9, seed=1))
    torch.manual_seed(1)  # nobody's numbers but the request's
    assert _same(plan, remembering.plan(_request(recalled, step=9, seed=1)))
    assert not _same(plan, remembering.plan(_request(recalled, step=12, seed=1)))
    assert not _same(plan, remembering.plan(_request(recalled, step=9, seed=2)))
    other: Array = recalled.values["hand"].copy()
    other[0] += 0.25  # what was seen first of all counts
    changed = replace(recalled, values={**recalled.values, "hand": other})
    assert not _same(plan, remembering.plan(_request(changed, step=9, seed=1)))
    assert plan.streams["action"].shape == (6, 2)
    assert plan.streams["hand"].shape == (6, 2)
    assert plan.streams["load"].shape == (6,)


def test_several_samples_differ_and_one_of_them_is_chosen(remembering: Policy) -> None:
    several = remembering.using(planner=replace(remembering.preset.planner, samples=5))
    plan = several.plan(_request(_of_the_arm(np.random.default_rng(0), 3), step=6))
    assert plan.candidates.shape == (5, 6, 2)
    assert len(np.unique(plan.candidates[:, -1, 0])) == 5
    np.testing.assert_array_equal(plan.candidates[plan.chosen], plan.streams["hand"])
    assert plan.costs.argmin() == plan.chosen
    assert {name: values.shape for name, values in plan.spread.items()} == {
        name: values.shape for name, values in plan.streams.items()
    }


def test_a_guess_that_is_not_finite_is_never_a_plan() -> None:
    planner = _planner(Told(torch.full((1, HORIZON, 4), math.nan)))
    with pytest.raises(FloatingPointError, match="the denoiser's guess is not finite"):
        planner.plan(_request(_recalled([(2.0, 0.0)])))


def test_a_policy_that_remembers_has_no_rules_by_which_plans_could_be_judged(remembering: Policy) -> None:
    assert remembering.obstacle_stream is None
    with pytest.raises(ValueError, match="acts from its episode's history; it knows no candidates and no rules"):
        _ = remembering.planner
