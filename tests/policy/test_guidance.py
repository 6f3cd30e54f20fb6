"""Guidance on Gaussian data, where the guided distribution is known in closed form."""

import numpy as np
import pytest
import torch
from torch import Tensor

from forcing.policy.guidance import Guidance
from forcing.policy.noise import NoiseSchedule
from forcing.policy.objectives import Objective
from forcing.policy.sampler import Model, PlanState, denoise_step

SCHEDULE = NoiseSchedule(kind="cosine")


class GaussianDenoiser:
    """The exact E[x0 | x] of trajectories [L, 1] drawn from N(0, covariance), each token at its own level."""

    def __init__(self, covariance: Tensor) -> None:
        self.covariance = covariance

    def __call__(self, x: Tensor, levels: Tensor, lengths: Tensor) -> Tensor:
        alpha_bar = SCHEDULE.alpha_bar(levels[..., 0])
        signal = torch.diag_embed(alpha_bar.sqrt())
        observed = signal @ self.covariance @ signal + torch.diag_embed(1 - alpha_bar)
        gain = self.covariance @ signal @ torch.linalg.pinv(observed)
        expected: Tensor = (gain @ x[..., 0, None]).squeeze(-1)[..., None]
        return expected


def _state(tokens: Tensor, levels: list[float]) -> PlanState:
    level = torch.tensor(levels, dtype=tokens.dtype).view(1, -1, 1).expand(tokens.shape[0], -1, 1)
    lengths = torch.full((tokens.shape[0],), tokens.shape[1])
    return PlanState(tokens, level, lengths, torch.Generator().manual_seed(0))


def _model(covariance: Tensor) -> Model:
    return Model(GaussianDenoiser(covariance), SCHEDULE, torch.zeros(1, dtype=torch.long))


def _linear(slope: float, token: int) -> Objective:
    return lambda tokens, lengths: slope * tokens[:, :, token, 0]


def test_guided_ddim_samples_the_exponentially_tilted_gaussian() -> None:
    # N(0, s^2) tilted by exp(a x) is N(s^2 a, s^2); with a linear return the guided score is exact at every level.
    std, slope = 0.8, 1.5
    model = _model(torch.tensor([[std**2]], dtype=torch.float64))
    quantiles = torch.special.ndtri(torch.linspace(0.01, 0.99, 99, dtype=torch.float64))
    start = 0.995
    alpha_bar = SCHEDULE.alpha_bar(torch.tensor(start, dtype=torch.float64))
    # Where the tilted Gaussian stands at the starting level.
    x = alpha_bar.sqrt() * std**2 * slope + (alpha_bar * std**2 + 1 - alpha_bar).sqrt() * quantiles
    state = _state(x.view(-1, 1, 1), [start])
    levels = np.linspace(start, 0, 201)[1:]
    for level in levels:
        following = torch.full_like(state.levels, level)
        state = denoise_step(model, state, following, Guidance(objective=_linear(slope, 0)))
    tilted = std**2 * slope + std * quantiles
    assert float((state.tokens[:, 0, 0] - tilted).abs().max()) < 0.02


def test_without_guidance_the_same_sampler_leaves_the_gaussian_alone() -> None:
    std = 0.8
    model = _model(torch.tensor([[std**2]], dtype=torch.float64))
    state = _state(torch.linspace(-2, 2, 9, dtype=torch.float64).view(-1, 1, 1), [0.995])
    for level in np.linspace(0.995, 0, 201)[1:]:
        state = denoise_step(model, state, torch.full_like(state.levels, level))
    unguided = std * torch.linspace(-2, 2, 9, dtype=torch.float64)
    torch.testing.assert_close(state.tokens[:, 0, 0], unguided, atol=0.02, rtol=0)


# Three tokens of a walk: neighbours correlate by 0.8.
COVARIANCE = torch.tensor([[1.0, 0.8, 0.64], [0.8, 1.0, 0.8], [0.64, 0.8, 1.0]], dtype=torch.float64)
LEVELS = [0.3, 0.5, 0.7]
X = torch.tensor([[[0.4], [-1.1], [0.9]]], dtype=torch.float64)
TARGET = 2.0


def _squared_return(tokens: Tensor, lengths: Tensor) -> Tensor:
    return -0.5 * (tokens[:, :, 2, 0] - TARGET).square()


def _cubed_return(tokens: Tensor, lengths: Tensor) -> Tensor:
    return tokens[:, :, 2, 0] ** 3


def _conditional(pivot: int) -> tuple[float, float, float]:
    """Mean and variance of the clean last token given the noisy ones up to the pivot, and d mean / d x_pivot.

    Conditioning of a joint Gaussian, by the block formula: nothing of the sampler or the denoiser.
    """
    alpha_bar = SCHEDULE.alpha_bar(torch.tensor(LEVELS, dtype=torch.float64)).numpy()[: pivot + 1]
    covariance = COVARIANCE.numpy()
    seen = np.sqrt(np.outer(alpha_bar, alpha_bar)) * covariance[: pivot + 1, : pivot + 1] + np.diag(1 - alpha_bar)
    across = np.sqrt(alpha_bar) * covariance[2, : pivot + 1]
    slopes = np.linalg.solve(seen, across)
    mean = slopes @ X[0, : pivot + 1, 0].numpy()
    return float(mean), float(covariance[2, 2] - slopes @ across), float(slopes[pivot])


def _monte_carlo(
    copies: int,
    futures: int,
    objective: Objective = _squared_return,
    rollout_steps: int = 3,
    levels: list[float] = LEVELS,
) -> Tensor:
    """[copies, 3] gradients, every token moving."""
    state = _state(X.expand(copies, 3, 1).contiguous(), levels)
    guidance = Guidance(objective=objective, futures=futures, rollout_steps=rollout_steps)
    return guidance(_model(COVARIANCE), state, torch.ones_like(state.levels, dtype=torch.bool))[..., 0]


@pytest.mark.parametrize("futures", [1, 8])
@pytest.mark.parametrize("rollout_steps", [1, 2, 5])
def test_the_average_is_without_bias_the_gradient_of_the_expected_return_given_the_token(
    futures: int, rollout_steps: int
) -> None:
    # In a Gaussian world an ancestral rollout has the exact mean in any number of steps, and d/dx of
    # E[-(y - T)^2 / 2] = -(m - T)^2 / 2 - v / 2 is -(m - T) m'.
    gradient = _monte_carlo(3000, futures, rollout_steps=rollout_steps)
    error = gradient.std(dim=0) / np.sqrt(3000)
    for pivot in (0, 1, 2):
        mean, _, slope = _conditional(pivot)
        exact = -(mean - TARGET) * slope
        assert float(gradient[:, pivot].mean()) == pytest.approx(exact, abs=4 * float(error[pivot]) + 1e-9)


def test_monte_carlo_error_falls_as_one_over_root_n() -> None:
    few, many = (_monte_carlo(400, futures).std(dim=0) for futures in (4, 64))
    assert (few / many).tolist() == pytest.approx([4.0, 4.0, 4.0], rel=0.25)


def test_futures_have_the_spread_of_the_exact_conditional() -> None:
    # d/dx E[y^3] = 3 (m^2 + v) m': a return for which futures that are all at their mean are not enough.
    # The sampler is of first order, so twice the figure of 40 steps less that of 20 is good to second order.
    coarse, fine = (_monte_carlo(60, 80, _cubed_return, rollout_steps=steps) for steps in (20, 40))
    error = (4 * fine.var(dim=0) + coarse.var(dim=0)).sqrt() / np.sqrt(60)
    at_the_mean = _monte_carlo(1, 1, _cubed_return, rollout_steps=1)
    for pivot in (0, 1, 2):
        mean, variance, slope = _conditional(pivot)
        exact, extrapolated = (
            3 * (mean**2 + variance) * slope,
            float(2 * fine[:, pivot].mean() - coarse[:, pivot].mean()),
        )
        assert extrapolated == pytest.approx(exact, abs=3 * float(error[pivot]) + 0.05 * abs(exact))
        assert float(at_the_mean[0, pivot]) == pytest.approx(3 * mean**2 * slope)


def test_what_is_averaged_is_log_c_so_rare_high_returns_weigh_no_more_than_others() -> None:
    # A return linear in the end, c = exp(y): the gradient of E[log c] = m is m' exactly, in every single future.
    gradient = _monte_carlo(5, 3, lambda tokens, lengths: tokens[:, :, 2, 0])
    for pivot in (0, 1, 2):
        assert gradient[:, pivot].tolist() == pytest.approx([_conditional(pivot)[2]] * 5)


def test_one_prediction_is_not_the_expectation_over_futures() -> None:
    # What Monte-Carlo guidance is for: the plain gradient hangs on the noise that the far tokens happen to carry.
    plain = Guidance(objective=_squared_return)(
        _model(COVARIANCE), _state(X, LEVELS), torch.ones(1, 3, 1, dtype=torch.bool)
    )
    mean, _, slope = _conditional(0)
    assert abs(float(plain[0, 0, 0]) + (mean - TARGET) * slope) > 0.05


def test_with_equal_levels_nothing_is_drawn_anew_and_the_average_comes_to_the_plain_gradient() -> None:
    levels = [0.5, 0.5, 0.5]
    plain = Guidance(objective=_squared_return)(
        _model(COVARIANCE), _state(X, levels), torch.ones(1, 3, 1, dtype=torch.bool)
    )
    averaged = _monte_carlo(2000, 2, levels=levels)
    for token in range(3):
        error = float(averaged[:, token].std()) / np.sqrt(2000)
        assert float(averaged[:, token].mean()) == pytest.approx(float(plain[0, token, 0]), abs=4 * error)


def test_rows_at_different_levels_get_in_one_batch_what_each_gets_alone() -> None:
    # One rollout step to clean leaves no randomness in a Gaussian world.
    guidance = Guidance(objective=_squared_return, futures=2, rollout_steps=1)
    tokens = torch.cat([X, -X, X + 1])
    levels = torch.tensor([LEVELS, [0.0, 0.3, 0.5], [0.2, 0.2, 1.0]], dtype=torch.float64)[..., None]
    moving = torch.tensor([[True] * 3, [False, True, True], [True] * 3])[..., None]
    together = guidance(_model(COVARIANCE), PlanState(tokens, levels, torch.tensor([3] * 3), torch.Generator()), moving)
    for row in range(3):
        own = slice(row, row + 1)
        state = PlanState(tokens[own], levels[own], torch.tensor([3]), torch.Generator())
        torch.testing.assert_close(together[own], guidance(_model(COVARIANCE), state, moving[own]))
    assert together[1, 0].tolist() == [0]
    assert together[2, 2].tolist() == [0]


@pytest.mark.parametrize(("futures", "calls"), [(0, 1), (1, 6), (4, 6)])
def test_its_passes_are_the_calls_it_makes(futures: int, calls: int) -> None:
    made = []
    gaussian = GaussianDenoiser(COVARIANCE)

    def counted(x: Tensor, levels: Tensor, lengths: Tensor) -> Tensor:
        made.append(len(x))
        return gaussian(x, levels, lengths)

    state = _state(X.expand(2, 3, 1), [0.3, 0.5, 1.0])
    guidance = Guidance(objective=_squared_return, futures=futures, rollout_steps=3)
    moving = torch.ones_like(state.levels, dtype=torch.bool)
    assert guidance.passes(state, moving) == calls
    guidance(Model(counted, SCHEDULE, torch.zeros(1, dtype=torch.long)), state, moving)
    assert made == [2 * max(futures, 1)] * calls


@pytest.mark.parametrize("futures", [0, 3])
def test_an_objective_is_shown_what_is_known_and_not_the_networks_guess_of_it(futures: int) -> None:
    shown = []

    def objective(tokens: Tensor, lengths: Tensor) -> Tensor:
        shown.append(tokens[:, :, 0, 0].detach())
        return tokens.sum(dim=(2, 3))

    state = _state(X, [0.0, 0.5, 0.7])
    moving = torch.tensor([False, True, True]).view(1, 3, 1)
    model = Model(lambda x, levels, lengths: 0 * x + 7, SCHEDULE, torch.zeros(1, dtype=torch.long))
    Guidance(objective=objective, futures=futures)(model, state, moving)
    assert all(bool((values == 0.4).all()) for values in shown)


def test_tokens_that_do_not_move_get_no_gradient() -> None:
    moving = torch.tensor([True, False, False]).view(1, 3, 1)
    gradient = Guidance(objective=_squared_return)(_model(COVARIANCE), _state(X, LEVELS), moving)
    assert gradient[0, 1:, 0].tolist() == [0, 0]
    assert float(gradient[0, 0, 0]) != 0


@pytest.mark.parametrize(("field", "least"), [("futures", 0), ("rollout_steps", 1)])
def test_too_few_futures_or_steps_are_refused(field: str, least: int) -> None:
    with pytest.raises(ValueError, match=f"{field} must be at least {least}, got {least - 1}"):
        Guidance(objective=_linear(1.0, 0), **{field: least - 1})
