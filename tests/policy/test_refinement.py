"""Refinement in worlds whose exact denoiser is known: coin tosses, and independent normal numbers."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor

from forcing.policy.guidance import Guidance
from forcing.policy.noise import NoiseSchedule
from forcing.policy.refinement import RefineConfig, refine
from forcing.policy.sampler import Denoise, Model, PlanState

SCHEDULE = NoiseSchedule(kind="cosine")
PLANS, TOKENS = 16, 10


def tosses(x: Tensor, levels: Tensor, lengths: Tensor) -> Tensor:
    """E[x0 | x] for x0 = +-1, each as likely."""
    alpha_bar = SCHEDULE.alpha_bar(levels)
    return torch.tanh(alpha_bar.sqrt() * x / (1 - alpha_bar).clamp(min=1e-9))


def normal(x: Tensor, levels: Tensor, lengths: Tensor) -> Tensor:
    """E[x0 | x] for x0 standard normal."""
    return SCHEDULE.alpha_bar(levels).sqrt() * x


def _start(seed: int, count: int = PLANS) -> PlanState:
    """Fair tosses, fully denoised."""
    generator = torch.Generator().manual_seed(seed)
    tokens = torch.randn(count, TOKENS, 1, generator=generator).sign()
    return PlanState(tokens, torch.zeros_like(tokens), torch.full((count,), TOKENS), generator, tokens.clone())


def _wrong(state: PlanState) -> NDArray[np.float64]:
    """[B] tokens that are -1."""
    assert state.x0_hat is not None
    return np.asarray(((1 - state.x0_hat[..., 0]) / 2).sum(dim=1).double().numpy())


def _refine(
    start: PlanState, *, denoise: Denoise = tosses, guide: Guidance | None = None, **config: float
) -> tuple[PlanState, int]:
    planned = torch.ones(start.tokens.shape[:2], dtype=torch.bool)
    model = Model(denoise, SCHEDULE, torch.zeros(1, dtype=torch.long))
    return refine(model, start, planned, _wrong, RefineConfig(**config), guide)  # type: ignore[arg-type]


def test_where_one_plan_in_1024_is_right_refinement_finds_it_and_as_many_samples_hardly_ever_do() -> None:
    # 17 * 16 independent plans: right with chance 1 - (1 - 2^-10)^272 = 0.23.
    refined = [_wrong(_refine(_start(seed), rounds=16, level=0.5, least=0.3)[0])[0] for seed in range(20)]
    sampled = [_wrong(_start(100 + seed, 17 * PLANS)).min() for seed in range(20)]
    assert sum(cost < 0.5 for cost in refined) >= 18
    assert sum(cost < 0.5 for cost in sampled) <= 10


def test_a_variant_is_what_the_model_believes_of_the_plan_noised_to_its_level() -> None:
    level, count, worth = 0.5, 20_000, iter([1.0, 0.0])  # the variants win, whatever they are
    generator = torch.Generator().manual_seed(0)
    plans = torch.full((count, 1, 1), 2.0)
    start = PlanState(plans, torch.zeros_like(plans), torch.ones(count, dtype=torch.long), generator, plans.clone())
    state, _ = refine(
        Model(normal, SCHEDULE, torch.zeros(1, dtype=torch.long)),
        start,
        torch.ones(count, 1, dtype=torch.bool),
        lambda some: np.full(len(some.tokens), next(worth)),
        RefineConfig(rounds=1, level=level, least=level),
    )
    assert state.x0_hat is not None
    alpha_bar = float(SCHEDULE.alpha_bar(torch.tensor(level)))
    error = 4 / np.sqrt(count)
    assert float(state.x0_hat.mean()) == pytest.approx(alpha_bar * 2, abs=error)
    assert float(state.x0_hat.var()) == pytest.approx(alpha_bar * (1 - alpha_bar), rel=2 * error)


def test_variants_of_the_survivors_alone_at_levels_from_least_to_level() -> None:
    seen: list[Tensor] = []

    def watched(x: Tensor, levels: Tensor, lengths: Tensor) -> Tensor:
        seen.append(torch.cat([levels, lengths[:, None, None].expand_as(levels)], dim=2))
        return tosses(x, levels, lengths)

    start = _start(0)
    start = replace(start, lengths=torch.arange(PLANS))  # lengths serve as names here
    best = np.argsort(_wrong(start), kind="stable")[:3]
    _, passes = _refine(start, denoise=watched, rounds=20, survivors=3, level=0.4, least=0.1)
    assert passes == len(seen) == 20
    assert sorted(set(seen[0][:, 0, 1].tolist())) == sorted(best.tolist())
    levels = torch.stack([rows[..., 0] for rows in seen])
    assert torch.equal(levels, levels[..., :1].expand_as(levels))  # one level a variant
    assert 0.1 <= float(levels.min()) < 0.12
    assert 0.36 < float(levels.max()) <= 0.4
    assert float(levels.log().mean()) == pytest.approx(np.log(0.2), abs=0.1)


def test_what_is_not_planned_stays_and_no_token_gets_noisier() -> None:
    start, planned = _start(1), torch.ones(PLANS, TOKENS, dtype=torch.bool)
    planned[:, 0] = planned[:, -1] = False
    levels = torch.linspace(0, 1, TOKENS)[None, :, None].expand(PLANS, -1, -1).clone()
    start = replace(start, levels=levels)
    model = Model(tosses, SCHEDULE, torch.zeros(1, dtype=torch.long))
    state, _ = refine(model, start, planned, _wrong, RefineConfig(rounds=3))
    ends = [0, TOKENS - 1]
    known = {tuple(row) for row in start.tokens[:, ends, 0].tolist()}
    assert {tuple(row) for row in state.tokens[:, ends, 0].tolist()} <= known
    assert bool((state.levels <= levels).all())
    assert torch.equal(state.levels[:, -1], levels[:, -1])


def test_plans_come_best_first_and_older_ones_before_their_equals() -> None:
    start = _start(2)
    state, _ = _refine(start, rounds=5, level=0.7, least=0.4)
    costs = _wrong(state)
    assert list(costs) == sorted(costs)
    assert len(costs) == PLANS
    assert costs[0] <= _wrong(start).min()
    model = Model(tosses, SCHEDULE, torch.zeros(1, dtype=torch.long))
    planned = torch.ones(PLANS, TOKENS, dtype=torch.bool)
    kept, _ = refine(model, start, planned, lambda some: np.zeros(len(some.tokens)), RefineConfig(rounds=5))
    assert torch.equal(kept.tokens, start.tokens)


def test_the_same_seed_finds_the_same_plans_and_another_seed_others() -> None:
    first, again, other = (_refine(_start(seed), rounds=4, level=0.7)[0].tokens for seed in (1, 1, 2))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_passes_of_gradients_are_counted() -> None:
    seen: list[int] = []

    def counted(x: Tensor, levels: Tensor, lengths: Tensor) -> Tensor:
        seen.append(len(x))
        return tosses(x, levels, lengths)

    guide = Guidance(objective=lambda tokens, lengths: tokens.sum(dim=(2, 3)))
    _, passes = _refine(_start(0), denoise=counted, guide=guide, rounds=4)
    assert passes == len(seen) == 8


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"rounds": 0}, "rounds must be at least 1, got 0"),
        ({"survivors": 0}, "survivors must be at least 1, got 0"),
        ({"level": 1.5}, "0 < least <= level <= 1, got 0.06 and 1.5"),
        ({"least": 0.5}, "0 < least <= level <= 1, got 0.5 and 0.3"),
        ({"least": 0.0}, "0 < least <= level <= 1, got 0.0 and 0.3"),
    ],
)
def test_settings_that_make_no_sense_are_refused(fields: dict[str, float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        RefineConfig(**fields)  # type: ignore[arg-type]
