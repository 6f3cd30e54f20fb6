"""Tree search in a world of coin tosses, where the chance of every outcome is known.

Each token of a plan is +1 or -1, as likely and independent of each other; the exact denoiser of that is a tanh. A plan
costs its tokens that are -1, so only one plan in 2^T costs nothing.
"""

from dataclasses import replace

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor

from forcing.policy.guidance import Guidance
from forcing.policy.noise import NoiseSchedule
from forcing.policy.sampler import Denoise, Model, PlanState, denoise_step
from forcing.policy.schedules import Schedule
from forcing.policy.search import Found, SearchConfig, search

SCHEDULE = NoiseSchedule(kind="cosine")
TOKENS, ROOTS, STEPS = 8, 16, 3
MATRIX = Schedule(kind="autoregressive", sampling_steps=STEPS).matrix(TOKENS)
DEPTH = len(MATRIX) - 1


def tosses(x: Tensor, levels: Tensor, lengths: Tensor) -> Tensor:
    """E[x0 | x] for x0 = +-1: the log odds of +1 are 2 sqrt(alpha_bar) x / (1 - alpha_bar)."""
    alpha_bar = SCHEDULE.alpha_bar(levels)
    return torch.tanh(alpha_bar.sqrt() * x / (1 - alpha_bar).clamp(min=1e-9))


def _model(denoise: Denoise = tosses) -> Model:
    return Model(denoise, SCHEDULE, torch.zeros(1, dtype=torch.long))


def _roots(seed: int, count: int = ROOTS) -> PlanState:
    generator = torch.Generator().manual_seed(seed)
    tokens = torch.randn(count, TOKENS, 1, generator=generator)
    return PlanState(tokens, torch.ones_like(tokens), torch.full((count,), TOKENS), generator)


def _levels_at(state: PlanState, row: int) -> Tensor:
    column = torch.from_numpy(MATRIX[min(row, DEPTH)])
    return column[None, :, None].expand(state.levels.shape).contiguous()


def _wrong(state: PlanState) -> NDArray[np.float64]:
    assert state.x0_hat is not None
    return np.asarray(((1 - state.x0_hat[..., 0]) / 2).sum(dim=1).double().numpy())


def _search(
    seed: int, *, denoise: Denoise = tosses, guide: Guidance | None = None, roots: int = ROOTS, **config: float
) -> Found:
    settings = SearchConfig(**config)  # type: ignore[arg-type]
    return search(_model(denoise), _roots(seed, roots), DEPTH, _levels_at, _wrong, settings, guide)


def _sampled(seed: int) -> NDArray[np.float64]:
    """[ROOTS] what independent samples cost, in the passes of one descent."""
    state = _roots(seed)
    for row in range(1, DEPTH + 1):
        state = denoise_step(_model(), state, _levels_at(state, row))
    return _wrong(state)


def test_where_one_plan_in_256_is_right_search_finds_it_and_as_many_samples_hardly_ever_do() -> None:
    # 16 independent plans of 8 fair tosses: right with chance 1 - (1 - 2^-8)^16 = 0.06.
    searched = [_search(seed, budget=DEPTH) for seed in range(20)]
    assert all(found.passes == DEPTH and found.rows == DEPTH * ROOTS for found in searched)
    best = np.array([_wrong(found.state)[0] for found in searched])
    sampled = np.array([_sampled(seed).min() for seed in range(20)])
    assert (best < 0.5).sum() >= 18
    assert (sampled < 0.5).sum() <= 5
    assert (best <= sampled + 0.5).all()


def test_without_pruning_search_samples_the_world_as_it_is() -> None:
    # One child each: plans are independent, of 8 fair tosses each, 4 wrong on average, variance 2.
    # Few steps leave some tosses undecided, so signs are counted.
    found = torch.cat([_search(seed, budget=DEPTH, children=1).state.tokens for seed in range(40)])
    wrong = (found[..., 0] < 0).sum(dim=1).double()
    assert len(wrong) == 640
    assert float(wrong.mean()) == pytest.approx(4, abs=4 * np.sqrt(2 / 640))
    assert float(wrong.var()) == pytest.approx(2, rel=0.25)


@pytest.mark.parametrize("budget", [1, 2, 5, DEPTH - 1, DEPTH, DEPTH + 1, DEPTH + 7, 3 * DEPTH])
def test_the_budget_is_never_exceeded_and_passes_and_rows_are_what_the_network_saw(budget: int) -> None:
    seen: list[int] = []

    def counted(x: Tensor, levels: Tensor, lengths: Tensor) -> Tensor:
        seen.append(len(x))
        return tosses(x, levels, lengths)

    found = _search(0, denoise=counted, budget=budget)
    assert (found.passes, found.rows) == (len(seen), sum(seen))
    assert found.passes == budget
    assert max(seen) <= ROOTS
    # What it hands out stands where that many passes lead to: at the leaves, or as deep as the budget goes.
    assert torch.equal(found.state.levels, _levels_at(found.state, min(budget, DEPTH)))
    assert len(found.state.tokens) == ROOTS


@pytest.mark.parametrize("futures", [0, 2])
@pytest.mark.parametrize("budget", [2, 7, 40])
def test_the_budget_holds_for_the_passes_of_gradients_too(budget: int, futures: int) -> None:
    seen: list[int] = []

    def counted(x: Tensor, levels: Tensor, lengths: Tensor) -> Tensor:
        seen.append(len(x))
        return tosses(x, levels, lengths)

    guide = Guidance(objective=lambda tokens, lengths: tokens.sum(dim=(2, 3)), futures=futures, rollout_steps=2)
    found = _search(0, denoise=counted, guide=guide, budget=budget)
    assert found.passes == len(seen) <= budget


def test_a_budget_too_small_for_one_guided_pass_is_refused() -> None:
    guide = Guidance(objective=lambda tokens, lengths: tokens.sum(dim=(2, 3)))
    with pytest.raises(ValueError, match="budget must allow for one pass and its gradient, got 1; raise it"):
        _search(0, guide=guide, budget=1)


def test_more_passes_never_find_a_worse_plan() -> None:
    for seed in range(5):
        costs = [
            _wrong(_search(seed, budget=budget, roots=4, children=2).state)[0] for budget in (DEPTH, 2 * DEPTH, 160)
        ]
        assert costs == sorted(costs, reverse=True)


def test_after_the_first_descent_the_rest_of_the_budget_goes_to_nodes_that_were_left_behind() -> None:
    # One pass more than a descent: one more row of leaves, and the best of all of them are handed out.
    first, more = _search(3, budget=DEPTH, children=2), _search(3, budget=DEPTH + 1, children=2)
    assert more.rows == first.rows + ROOTS
    assert sorted(_wrong(first.state)) >= sorted(_wrong(more.state))
    assert len(more.state.tokens) == ROOTS


def test_the_same_seed_finds_the_same_plans_and_another_seed_others() -> None:
    first, again, other = (_search(seed, budget=30) for seed in (1, 1, 2))
    assert torch.equal(first.state.tokens, again.state.tokens)
    assert not torch.equal(first.state.tokens, other.state.tokens)


def test_plans_are_handed_out_best_first() -> None:
    costs = _wrong(_search(0, budget=DEPTH, children=2).state)
    assert list(costs) == sorted(costs)


def test_all_rows_in_one_call_find_what_rows_one_by_one_find() -> None:
    def one_by_one(x: Tensor, levels: Tensor, lengths: Tensor) -> Tensor:
        rows = [slice(row, row + 1) for row in range(len(x))]
        return torch.cat([tosses(x[row], levels[row], lengths[row]) for row in rows])

    together, apart = _search(0, budget=40), _search(0, denoise=one_by_one, budget=40)
    assert torch.equal(together.state.tokens, apart.state.tokens)


def test_children_differ_by_their_fresh_noise_and_where_there_is_none_a_node_has_one_child() -> None:
    # After three rows the first token is decided, the others are pure noise still.
    first_tokens = {
        (eta, children): _search(0, budget=3, eta=eta, children=children).state.tokens[:, 0, 0]
        for eta in (0.0, 1.0)
        for children in (1, 4)
    }
    assert torch.equal(first_tokens[0.0, 4], first_tokens[0.0, 1])
    assert not torch.equal(first_tokens[1.0, 4], first_tokens[1.0, 1])
    assert len(torch.unique(first_tokens[1.0, 4])) == ROOTS


def test_every_root_has_a_child_since_of_pure_noise_there_is_nothing_to_judge() -> None:
    # Lengths serve as names here.
    roots = replace(_roots(0), lengths=torch.arange(ROOTS))
    found = search(_model(), roots, DEPTH, _levels_at, _wrong, SearchConfig(budget=2))
    assert sorted(found.state.lengths.tolist()) == list(range(ROOTS))


def test_what_is_pure_noise_is_drawn_anew_so_that_a_second_descent_is_not_the_first_again() -> None:
    found = _search(0, budget=2 * DEPTH, eta=0.0, children=1)
    assert len(torch.unique(found.state.tokens, dim=0)) == ROOTS


def test_a_node_is_expanded_once() -> None:
    # Full sequence without fresh noise: after a descent each node has its one child, and the roots alone stay open.
    matrix = torch.from_numpy(Schedule(kind="full_sequence", sampling_steps=3).matrix(TOKENS))

    def levels_at(state: PlanState, row: int) -> Tensor:
        return matrix[row][None, :, None].expand(state.levels.shape).contiguous()

    for budget, passes in ((3, 3), (4, 3), (5, 5)):
        found = search(_model(), _roots(0), 3, levels_at, _wrong, SearchConfig(budget=budget, eta=0.0))
        assert found.passes == passes


def test_a_finished_plan_is_not_copied() -> None:
    # The matrix is over after row DEPTH: three rows more move nothing, and plans stay the ones there were.
    found = search(_model(), _roots(0), DEPTH + 3, _levels_at, _wrong, SearchConfig(budget=DEPTH + 3), None)
    expected = _search(0, budget=DEPTH)
    assert torch.equal(found.state.tokens, expected.state.tokens)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"budget": 0}, "budget must be at least 1, got 0"),
        ({"children": 0}, "children must be at least 1, got 0"),
        ({"eta": 1.5}, "eta must be between 0 and 1, got 1.5"),
    ],
)
def test_a_search_that_makes_no_sense_is_refused(fields: dict[str, float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        SearchConfig(**fields)  # type: ignore[arg-type]
