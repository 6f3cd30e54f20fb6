"""Guidance on Gaussian data, where the guided distribution is known in closed form."""

import numpy as np
import pytest
import torch
from torch import Tensor

from forcing.policy.guidance import Guidance, Objective, reach, total
from forcing.policy.noise import NoiseSchedule
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
    return lambda tokens: slope * tokens[:, :, token, 0]


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


COVARIANCE = torch.tensor([[1.0, 0.8], [0.8, 1.0]], dtype=torch.float64)
LEVELS = [0.3, 0.7]


def _squared_return(target: float) -> Objective:
    return lambda tokens: -0.5 * (tokens[:, :, 1, 0] - target).square()


def _expected_gradient(x: Tensor, target: float) -> float:
    """The gradient of E[return] with respect to token 0, token 1 redrawn around what the model expects of it.

    x0_hat_1 = g0 x_0 + g1 x_1 with x_1 ~ N(sqrt(a) e, 1 - a), e fixed; so its derivative with respect to x_0 is
    -(g0 x_0 + g1 sqrt(a) e - target) g0.
    """
    levels = torch.tensor(LEVELS, dtype=torch.float64).view(1, 2, 1)
    # The denoiser is linear, so its derivatives are its answers to unit vectors.
    units = torch.eye(2, dtype=torch.float64).view(2, 2, 1)
    jacobian = GaussianDenoiser(COVARIANCE)(units, levels.expand(2, 2, 1), torch.tensor([2, 2]))[:, 1, 0]
    expected = GaussianDenoiser(COVARIANCE)(x, levels, torch.tensor([2]))[0, 1, 0]
    alpha_bar = SCHEDULE.alpha_bar(levels[0, 1, 0])
    mean = jacobian[0] * x[0, 0, 0] + jacobian[1] * alpha_bar.sqrt() * expected
    return float(-(mean - target) * jacobian[0])


def test_monte_carlo_gradients_converge_to_the_expectation_over_futures_as_one_over_root_n() -> None:
    x = torch.tensor([[[0.4], [-1.1]]], dtype=torch.float64)
    exact = _expected_gradient(x, target=2.0)
    errors = {}
    for futures in (4, 64):
        state = _state(x.expand(400, 2, 1).contiguous(), LEVELS)
        moving = torch.tensor([True, False]).view(1, 2, 1).expand(400, 2, 1)
        guidance = Guidance(objective=_squared_return(2.0), futures=futures)
        gradient = guidance(_model(COVARIANCE), state, moving)[:, 0, 0]
        errors[futures] = float((gradient - exact).square().mean().sqrt())
        assert float(gradient.mean()) == pytest.approx(exact, abs=4 * errors[futures] / np.sqrt(400))
    assert errors[4] / errors[64] == pytest.approx(4.0, rel=0.25)


def test_one_prediction_is_not_the_expectation_over_futures() -> None:
    # What Monte-Carlo guidance is for: the plain gradient hangs on the noise that the far token happens to carry.
    x = torch.tensor([[[0.4], [-1.1]]], dtype=torch.float64)
    moving = torch.tensor([True, False]).view(1, 2, 1)
    plain = Guidance(objective=_squared_return(2.0))(_model(COVARIANCE), _state(x, LEVELS), moving)[0, 0, 0]
    assert abs(float(plain) - _expected_gradient(x, target=2.0)) > 0.1


def test_tokens_that_do_not_move_get_no_gradient() -> None:
    x = torch.tensor([[[0.4], [-1.1]]], dtype=torch.float64)
    moving = torch.tensor([True, False]).view(1, 2, 1)
    gradient = Guidance(objective=_squared_return(2.0))(_model(COVARIANCE), _state(x, LEVELS), moving)
    assert float(gradient[0, 1, 0]) == 0
    assert float(gradient[0, 0, 0]) != 0


def test_the_gradient_norm_is_capped() -> None:
    x = torch.tensor([[[0.4], [-1.1]]], dtype=torch.float64)
    guidance = Guidance(objective=_squared_return(100.0), max_norm=0.5)
    gradient = guidance(_model(COVARIANCE), _state(x, LEVELS), torch.ones(1, 2, 1, dtype=torch.bool))
    assert float(gradient.norm(dim=-1).max()) == pytest.approx(0.5)


def test_reaching_is_the_log_of_a_gaussian_likelihood_and_objectives_add() -> None:
    tokens = torch.tensor([[[[0.0, 0.0], [3.0, 4.0]]]])
    objective = reach(torch.zeros(1, 2), slice(0, 2), torch.tensor([1]), scale=2.0)
    assert objective(tokens).tolist() == [[-0.5 * 2.0 * (9 + 16) / 2]]
    assert total([objective, objective])(tokens).tolist() == [[-25.0]]


def test_a_negative_number_of_futures_is_refused() -> None:
    with pytest.raises(ValueError, match="futures must be at least 0, got -1"):
        Guidance(objective=_linear(1.0, 0), futures=-1)
