"""The noisy step against the Gaussian posterior it must draw from, and against its limits."""

import pytest
import torch
from torch import Tensor

from forcing.policy.ancestral import stochastic_step
from forcing.policy.noise import NoiseSchedule, ddim_step

SCHEDULE = NoiseSchedule(kind="cosine")
HIGH, LOW = torch.tensor(0.7, dtype=torch.float64), torch.tensor(0.4, dtype=torch.float64)


def _step(x: Tensor, x0: Tensor, eta: float, noise: Tensor, level: Tensor = HIGH, lower: Tensor = LOW) -> Tensor:
    levels = (level.expand(x.shape), lower.expand(x.shape))
    return stochastic_step(x, x0, *levels, SCHEDULE, eta, noise)


def test_the_ancestral_step_has_mean_and_variance_of_the_forward_process_run_backwards() -> None:
    # Ho et al. (2020), Eq. 7, for two levels with alpha = alpha_bar / alpha_bar of the lower one.
    x, x0 = torch.tensor([0.7, -1.2], dtype=torch.float64), torch.tensor([0.1, 0.5], dtype=torch.float64)
    high, low = SCHEDULE.alpha_bar(HIGH), SCHEDULE.alpha_bar(LOW)
    alpha = high / low
    mean = (low.sqrt() * (1 - alpha) * x0 + alpha.sqrt() * (1 - low) * x) / (1 - high)
    variance = (1 - low) / (1 - high) * (1 - alpha)
    zero, one = torch.zeros(2, dtype=torch.float64), torch.ones(2, dtype=torch.float64)
    torch.testing.assert_close(_step(x, x0, 1.0, zero), mean)
    torch.testing.assert_close(_step(x, x0, 1.0, one) - _step(x, x0, 1.0, zero), variance.sqrt() * one)


@pytest.mark.parametrize("eta", [0.0, 0.3, 1.0])
def test_a_step_with_the_true_clean_value_leaves_the_noise_of_the_lower_level_whatever_eta(eta: float) -> None:
    generator = torch.Generator().manual_seed(0)
    x0, eps, noise = torch.randn(3, 200_000, generator=generator, dtype=torch.float64)
    x = SCHEDULE.add_noise(x0, HIGH, eps)
    left = _step(x, x0, eta, noise) - SCHEDULE.alpha_bar(LOW).sqrt() * x0
    assert float(left.square().mean()) == pytest.approx(float(1 - SCHEDULE.alpha_bar(LOW)), rel=0.01)


def test_without_eta_it_is_the_deterministic_step() -> None:
    x, x0, noise = torch.randn(3, 50, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    expected = ddim_step(x, x0, HIGH.expand(50), LOW.expand(50), SCHEDULE)
    torch.testing.assert_close(_step(x, x0, 0.0, noise), expected)


def test_from_pure_noise_nothing_but_the_fresh_noise_is_left_and_at_level_0_nothing_but_the_guess() -> None:
    x, x0, noise = torch.randn(3, 50, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    low, one = SCHEDULE.alpha_bar(LOW), torch.ones_like(HIGH)
    torch.testing.assert_close(_step(x, x0, 1.0, noise, level=one), low.sqrt() * x0 + (1 - low).sqrt() * noise)
    torch.testing.assert_close(_step(x, x0, 1.0, noise, lower=torch.zeros_like(LOW)), x0)


def test_what_does_not_fall_stays_and_its_gradient_is_finite() -> None:
    level = torch.tensor([0.0, 1.0, 0.5], dtype=torch.float64)
    x = torch.tensor([0.3, -0.2, 0.9], dtype=torch.float64, requires_grad=True)
    moved = stochastic_step(x, torch.zeros_like(x), level, level, SCHEDULE, 1.0, torch.ones_like(x))
    assert torch.equal(moved, x)
    assert torch.autograd.grad(moved.sum(), x)[0].tolist() == [1, 1, 1]


def test_a_rising_level_is_refused() -> None:
    x = torch.zeros(1, dtype=torch.float64)
    with pytest.raises(ValueError, match="next_level must not exceed level"):
        _step(x, x, 1.0, x, level=LOW, lower=HIGH)
