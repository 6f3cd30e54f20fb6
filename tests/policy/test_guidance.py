"""Guidance on Gaussian data, where the guided distribution is known in closed form."""

import numpy as np
import pytest
import torch
from torch import Tensor

from forcing.policy.guidance import Guidance, Objective, reach
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


# Three tokens of a walk: neighbours correlate by 0.8.
COVARIANCE = torch.tensor([[1.0, 0.8, 0.64], [0.8, 1.0, 0.8], [0.64, 0.8, 1.0]], dtype=torch.float64)
LEVELS = [0.3, 0.5, 0.7]
X = torch.tensor([[[0.4], [-1.1], [0.9]]], dtype=torch.float64)
TARGET = 2.0


def _squared_return(tokens: Tensor) -> Tensor:
    return -0.5 * (tokens[:, :, 2, 0] - TARGET).square()


def _expected_gradient(pivot: int) -> float:
    """d/dx_pivot of E[-(x0_hat_2 - TARGET)^2 / 2], the tokens after the pivot drawn given those up to it.

    x0_hat_2 is linear in the noisy tokens, x0_hat_2 = a . x; a drawn token x_j has mean sqrt(alpha_bar_j) E[x0_j |
    x_0 ... x_pivot]. So the gradient is -(a . mean - TARGET) a_pivot.
    """
    levels = torch.tensor(LEVELS, dtype=torch.float64).view(1, 3, 1)
    # The denoiser is linear, so its derivatives are its answers to unit vectors.
    units = torch.eye(3, dtype=torch.float64).view(3, 3, 1)
    slopes = GaussianDenoiser(COVARIANCE)(units, levels.expand(3, 3, 1), torch.tensor([3]))[:, 2, 0]
    unseen = levels.clone()
    unseen[:, pivot + 1 :] = 1.0
    given = GaussianDenoiser(COVARIANCE)(X, unseen, torch.tensor([3]))[0, :, 0]
    mean = X[0, :, 0].clone()
    mean[pivot + 1 :] = (SCHEDULE.alpha_bar(levels[0, :, 0]).sqrt() * given)[pivot + 1 :]
    return float(-(slopes @ mean - TARGET) * slopes[pivot])


def _monte_carlo(copies: int, futures: int) -> Tensor:
    """[copies, 3] gradients, every token moving."""
    state = _state(X.expand(copies, 3, 1).contiguous(), LEVELS)
    guidance = Guidance(objective=_squared_return, futures=futures, rollout_steps=48)
    return guidance(_model(COVARIANCE), state, torch.ones_like(state.levels, dtype=torch.bool))[..., 0]


def test_each_tokens_gradient_is_the_expectation_over_its_own_sampled_futures() -> None:
    gradient = _monte_carlo(copies=300, futures=16)
    error = gradient.std(dim=0) / np.sqrt(300)
    for pivot in (0, 1):
        # The sampler's own first-order error, at 48 steps, is below 0.01.
        assert float(gradient[:, pivot].mean()) == pytest.approx(
            _expected_gradient(pivot), abs=4 * float(error[pivot]) + 0.01
        )
    # Nothing is noisier than the last token: its gradient is the plain one, the same in every copy.
    assert float(gradient[:, 2].std()) < 1e-12
    assert float(gradient[0, 2]) == pytest.approx(_expected_gradient(2))


def test_monte_carlo_error_falls_as_one_over_root_n() -> None:
    assert float(_monte_carlo(200, 4)[:, 0].std() / _monte_carlo(200, 64)[:, 0].std()) == pytest.approx(4.0, rel=0.25)


def test_one_prediction_is_not_the_expectation_over_futures() -> None:
    # What Monte-Carlo guidance is for: the plain gradient hangs on the noise that the far tokens happen to carry.
    plain = Guidance(objective=_squared_return)(
        _model(COVARIANCE), _state(X, LEVELS), torch.ones(1, 3, 1, dtype=torch.bool)
    )
    assert abs(float(plain[0, 0, 0]) - _expected_gradient(0)) > 0.05


def test_with_equal_levels_there_is_no_future_and_the_average_is_the_plain_gradient() -> None:
    state, moving = _state(X, [0.5, 0.5, 0.5]), torch.ones(1, 3, 1, dtype=torch.bool)
    plain, averaged = (
        Guidance(objective=_squared_return, futures=futures)(_model(COVARIANCE), state, moving) for futures in (0, 8)
    )
    assert torch.equal(plain, averaged)


def test_tokens_that_do_not_move_get_no_gradient() -> None:
    moving = torch.tensor([True, False, False]).view(1, 3, 1)
    gradient = Guidance(objective=_squared_return)(_model(COVARIANCE), _state(X, LEVELS), moving)
    assert gradient[0, 1:, 0].tolist() == [0, 0]
    assert float(gradient[0, 0, 0]) != 0


def test_reaching_is_the_log_of_a_gaussian_likelihood() -> None:
    tokens = torch.tensor([[[[0.0, 0.0], [3.0, 4.0]]]])
    objective = reach(torch.zeros(1, 2), slice(0, 2), torch.tensor([1]), scale=2.0)
    assert objective(tokens).tolist() == [[-0.5 * 2.0 * (9 + 16) / 2]]


@pytest.mark.parametrize(("field", "least"), [("futures", 0), ("rollout_steps", 1)])
def test_too_few_futures_or_steps_are_refused(field: str, least: int) -> None:
    with pytest.raises(ValueError, match=f"{field} must be at least {least}, got {least - 1}"):
        Guidance(objective=_linear(1.0, 0), **{field: least - 1})
