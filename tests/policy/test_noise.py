from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from forcing.policy.noise import NoiseSchedule, ddim_step

KINDS = [NoiseSchedule(kind="linear"), NoiseSchedule(kind="cosine"), NoiseSchedule(kind="sigmoid")]


def test_the_linear_schedule_is_the_product_of_one_minus_ddpms_betas() -> None:
    # Ho et al. (2020): beta from 1e-4 to 0.02 in 1000 steps.
    product = np.cumprod(1 - np.linspace(1e-4, 0.02, 1000))
    level = torch.arange(1, 1000) / 1000
    alpha_bar = NoiseSchedule(kind="linear").alpha_bar(level).numpy()
    np.testing.assert_allclose(alpha_bar, product[:-1], atol=4e-3)


def test_the_sigmoid_schedule_is_its_papers_formula() -> None:
    # Jabri et al. (2022), appendix B: (s(end) - s(start + (end - start) t)) / (s(end) - s(start)), start -3, end 3.
    level = torch.linspace(0, 1, 11, dtype=torch.float64)[:-1]
    share = (torch.sigmoid(torch.tensor(3.0)) - torch.sigmoid(6 * level - 3)) / (
        2 * torch.sigmoid(torch.tensor(3.0)) - 1
    )
    torch.testing.assert_close(NoiseSchedule(kind="sigmoid").alpha_bar(level), share, atol=1e-7, rtol=0)


def test_an_unknown_kind_of_schedule_is_refused() -> None:
    with pytest.raises(ValueError, match="noise schedule must be linear, cosine, sigmoid, got 'square'"):
        NoiseSchedule(kind="square")  # type: ignore[arg-type]


@pytest.mark.parametrize("schedule", KINDS)
def test_signal_falls_from_all_to_nothing(schedule: NoiseSchedule) -> None:
    alpha_bar = schedule.alpha_bar(torch.linspace(0, 1, 501))
    assert alpha_bar[0] == 1
    assert alpha_bar[-1] == 0
    assert bool((alpha_bar.diff() < 0).all())


@pytest.mark.parametrize("schedule", KINDS)
@given(sigma=st.floats(0, 50))
def test_an_observation_enters_at_the_level_whose_noise_is_its_error(schedule: NoiseSchedule, sigma: float) -> None:
    alpha_bar = schedule.alpha_bar(schedule.level_of(torch.tensor(sigma, dtype=torch.float64)))
    assert float(((1 - alpha_bar) / alpha_bar).sqrt()) == pytest.approx(sigma, rel=1e-6, abs=1e-7)


@pytest.mark.parametrize("schedule", KINDS)
def test_a_missing_observation_is_pure_noise(schedule: NoiseSchedule) -> None:
    assert float(schedule.level_of(torch.tensor(float("inf")))) == 1


@pytest.mark.parametrize("sigma", [-0.1, float("nan")])
def test_a_negative_or_undefined_error_is_refused(sigma: float) -> None:
    with pytest.raises(ValueError, match="sigma must be at least 0"):
        KINDS[0].level_of(torch.tensor(sigma))


def _gaussian_ddim(steps: int, mean: float, std: float, x: torch.Tensor) -> torch.Tensor:
    """DDIM from level 0.99 to 0 with the exact denoiser of N(mean, std^2)."""
    schedule = NoiseSchedule(kind="cosine")
    levels = torch.linspace(0.99, 0, steps + 1, dtype=torch.float64)
    for level, next_level in pairwise(levels):
        alpha_bar = schedule.alpha_bar(level)
        gain = alpha_bar.sqrt() * std**2 / (alpha_bar * std**2 + 1 - alpha_bar)
        x0_hat = mean + gain * (x - alpha_bar.sqrt() * mean)
        x = ddim_step(x, x0_hat, level.expand_as(x), next_level.expand_as(x), schedule)
    return x


def test_ddim_reaches_the_exact_flow_of_gaussian_data_at_first_order() -> None:
    # The probability flow maps Gaussians to Gaussians linearly: quantile to quantile.
    mean, std = 0.7, 0.3
    x = torch.linspace(-2, 2, 9, dtype=torch.float64)
    alpha_bar = NoiseSchedule(kind="cosine").alpha_bar(torch.tensor(0.99, dtype=torch.float64))
    scale = (alpha_bar * std**2 + 1 - alpha_bar).sqrt()
    exact = mean + std * (x - alpha_bar.sqrt() * mean) / scale
    steps = np.array([20, 40, 80, 160])
    errors = [float((_gaussian_ddim(n, mean, std, x) - exact).abs().max()) for n in steps]
    order = -np.polyfit(np.log(steps), np.log(errors), 1)[0]
    assert 0.9 < order < 1.2
    assert errors[-1] < 0.01


def test_entries_whose_level_stays_are_returned_unchanged() -> None:
    x = torch.randn(2, 3, 4, generator=torch.Generator().manual_seed(0))
    level = torch.full_like(x, 0.5)
    next_level = level.clone()
    next_level[:, 0] = 0.2
    moved = ddim_step(x, torch.zeros_like(x), level, next_level, KINDS[0])
    assert torch.equal(moved[:, 1:], x[:, 1:])
    assert not torch.equal(moved[:, 0], x[:, 0])


def test_a_rising_level_is_refused() -> None:
    level = torch.full((1, 1, 1), 0.5)
    with pytest.raises(ValueError, match="must not exceed"):
        ddim_step(level, level, level, level + 0.1, KINDS[0])
