"""Long rollouts of first-order Gaussian walks, whose denoisers and drifts have closed forms."""

import re
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from forcing.policy.noise import NoiseSchedule
from forcing.policy.rollout import rollout
from forcing.policy.sampler import Model, PlanState, denoise_step, stabilised

SCHEDULE = NoiseSchedule(kind="cosine")
FEATURES = torch.zeros(1, dtype=torch.long)


def _walk(length: int, slope: float, variance: float) -> Tensor:
    """Covariance of x_0 ~ N(0, 1), x_t = slope x_{t-1} + N(0, variance), and of a last token that is independent."""
    step = torch.eye(length, dtype=torch.float64)
    step[1:, :-1] -= slope * torch.eye(length - 1, dtype=torch.float64)
    noise = torch.full((length,), variance, dtype=torch.float64)
    noise[0] = 1.0
    covariance = torch.eye(length + 1, dtype=torch.float64)
    covariance[:length, :length] = step.inverse() @ noise.diag() @ step.inverse().T
    return covariance


def _model(covariance: Tensor) -> Model:
    """The exact E[x0 | x] of trajectories [L, 1] drawn from N(0, covariance); levels are those of the first row."""

    def denoise(x: Tensor, levels: Tensor, lengths: Tensor) -> Tensor:
        share = SCHEDULE.alpha_bar(levels[0, :, 0])
        signal = share.sqrt().diag()
        observed = signal @ covariance @ signal + (1 - share).diag()
        expected: Tensor = covariance @ signal @ torch.linalg.pinv(observed) @ x
        return expected

    return Model(denoise, SCHEDULE, FEATURES)


def _start(history: Tensor, plan: int, seed: int = 0) -> PlanState:
    """history: [B, H]. The plan and the goal, which says nothing, are pure noise."""
    generator = torch.Generator().manual_seed(seed)
    batch, shown = history.shape
    noise = torch.randn(batch, plan + 1, generator=generator, dtype=torch.float64)
    tokens = torch.cat([history.double(), noise], dim=1)[..., None]
    levels = torch.ones_like(tokens)
    levels[:, :shown] = 0
    return PlanState(tokens, levels, torch.full((batch,), shown + plan + 1), generator)


AT_ONCE = torch.tensor([[1.0], [0.0]])


@pytest.mark.parametrize("stabilisation", [0.0, 0.1, 0.2])
def test_an_overconfident_model_drifts_by_exactly_as_much_as_it_believes_its_own_tokens(stabilisation: float) -> None:
    # It takes the walk for one that grows by 1.05 a step. One DDIM step from pure noise to clean gives the posterior
    # mean: 1.05 times the token before it, which is believed whole, or, declared to have error sigma, as 1 / (1 +
    # sigma^2) of itself: its prior is N(0, 1).
    slope, total = 1.05, 40
    model = _model(_walk(2, slope, 0.1))
    path = rollout(model, _start(torch.tensor([[2.0]]), 1), AT_ONCE, total, stabilisation=stabilisation)[0, :, 0]
    share = float(SCHEDULE.alpha_bar(torch.tensor(stabilisation, dtype=torch.float64)))
    believed = 1 / (1 + (1 - share) / share)
    # The first token was observed and is believed whole.
    expected = 2.0 * slope * (slope * believed) ** torch.arange(total, dtype=torch.float64)
    torch.testing.assert_close(path, expected)
    grows = float(path[-1].abs()) > 2.0
    assert grows == (stabilisation < 0.14)  # cos(0.14 pi / 2)^2 = 1 / 1.05


def test_walks_rolled_out_far_beyond_the_window_keep_their_variance_and_correlation() -> None:
    slope, rows, total = 0.8, 4000, 24
    model = _model(_walk(4, slope, 1 - slope**2))
    start = torch.randn(rows, 1, generator=torch.Generator().manual_seed(3))
    matrix = torch.linspace(1, 0, 41)[:, None].expand(41, 3)
    path = rollout(model, _start(start, 3), matrix, total)[..., 0]
    tail = path[:, -6:]
    # Standard error of a variance over 4000 rows is 0.022; DDIM of 40 steps adds its own error.
    assert float(tail.var(dim=0).mean()) == pytest.approx(1.0, abs=0.06)
    neighbours = (tail[:, 1:] * tail[:, :-1]).mean()
    assert float(neighbours) == pytest.approx(slope, abs=0.06)


def test_the_window_is_shown_the_last_tokens_before_it_and_the_goal() -> None:
    seen: list[tuple[list[float], list[float]]] = []

    def next_integers(x: Tensor, levels: Tensor, lengths: Tensor) -> Tensor:
        seen.append((x[0, :, 0].tolist(), levels[0, :, 0].tolist()))
        x0_hat = x.clone()
        x0_hat[:, 3:5, 0] = torch.tensor([2.0, 3.0]) + 2 * len(seen)
        return x0_hat

    start = _start(torch.tensor([[1.0, 2.0, 3.0]]), 2)
    start.tokens[:, -1], start.levels[:, -1] = 9.0, 0.0
    matrix = torch.tensor([[1.0, 1.0], [0.0, 0.0]])
    path = rollout(Model(next_integers, SCHEDULE, FEATURES), start, matrix, 5, stabilisation=0.25)
    assert path.flatten().tolist() == [4, 5, 6, 7, 8]
    shrink = float(SCHEDULE.alpha_bar(torch.tensor(0.25, dtype=torch.float64)).sqrt())
    assert [levels for _, levels in seen] == [
        [0, 0, 0, 1, 1, 0],
        [0, 0.25, 0.25, 1, 1, 0],
        [0.25, 0.25, 0.25, 1, 1, 0],
    ]
    shown = [[*values[:3], values[5]] for values, _ in seen]
    assert shown[0] == [1, 2, 3, 9]
    assert shown[1] == pytest.approx([3, 4 * shrink, 5 * shrink, 9])


def test_tokens_still_on_their_way_are_declared_as_they_are() -> None:
    levels = torch.tensor([0.0, 0.0, 0.05, 1.0]).view(1, 4, 1)
    generated = torch.tensor([False, True, True, True]).view(1, 4, 1)
    assert stabilised(levels, generated, 0.1).flatten().tolist() == pytest.approx([0, 0.1, 0.05, 1])


def test_what_is_declared_changes_what_the_network_is_told_and_not_where_tokens_are() -> None:
    model = _model(_walk(2, 0.5, 0.75))
    state = _start(torch.tensor([[1.5]]), 1)
    following = state.levels.clone()
    following[:, 1] = 0.5
    declared = torch.where(state.levels == 0, 0.3, state.levels)
    after = denoise_step(model, state, following, declared=declared)
    assert float(after.tokens[0, 0, 0]) == 1.5
    assert torch.equal(after.levels, following)
    with pytest.raises(ValueError, match="declared levels must not be below the state's own"):
        denoise_step(model, state, following, declared=declared * 0.5)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"total": 0}, "total must be at least 1 token, got 0"),
        ({"stabilisation": 1.0}, "stabilisation must be at least 0 and below 1, got 1.0"),
        ({"matrix": torch.ones(2, 3)}, "start must have at least 1 history token, 3 plan tokens and a goal, got 3"),
        ({"matrix": torch.ones(2, 1)}, "matrix must fall from 1 in its first row to 0 in its last"),
        ({"lengths": torch.tensor([2])}, "every row of start must use all 3 tokens, got lengths [2]"),
        ({"levels": torch.zeros(1, 3, 1)}, "the 1 plan tokens of start must be pure noise"),
    ],
)
def test_a_start_that_does_not_fit_is_refused(change: dict[str, object], message: str) -> None:
    start = _start(torch.tensor([[1.0]]), 1)
    start = replace(start, **{key: value for key, value in change.items() if key in ("lengths", "levels")})  # type: ignore[arg-type]
    options = {"total": 2, "stabilisation": 0.0, "matrix": AT_ONCE, **change}
    with pytest.raises(ValueError, match=re.escape(message)):
        rollout(
            _model(_walk(2, 0.5, 0.75)),
            start,
            options["matrix"],  # type: ignore[arg-type]
            options["total"],  # type: ignore[arg-type]
            stabilisation=options["stabilisation"],  # type: ignore[arg-type]
        )
