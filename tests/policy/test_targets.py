"""What networks may be asked for: given the true answer, the clean token comes back."""

import pytest
import torch

from forcing.policy.targets import ALPHA_BAR_FLOOR, Target, to_x0


def _draw() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    x0 = torch.randn(4, 5, 3, generator=generator, dtype=torch.float64)
    return (
        x0,
        torch.randn(x0.shape, generator=generator, dtype=torch.float64),
        torch.rand(x0.shape, generator=generator),
    )


@pytest.mark.parametrize("target", ["x0", "eps", "v"])
def test_the_true_answer_gives_the_clean_token_at_every_level(target: Target) -> None:
    x0, eps, share = _draw()
    x = share.sqrt() * x0 + (1 - share).sqrt() * eps
    answer = {"x0": x0, "eps": eps, "v": share.sqrt() * eps - (1 - share).sqrt() * x0}[target]
    torch.testing.assert_close(to_x0(answer, x, share, target), x0, atol=1e-6, rtol=1e-6)


@pytest.mark.parametrize("target", ["eps", "v"])
def test_a_clean_token_is_kept_whatever_the_network_says(target: Target) -> None:
    x0, anything, _ = _draw()
    torch.testing.assert_close(to_x0(anything, x0, torch.ones_like(x0), target), x0)


def test_at_pure_noise_v_is_minus_the_clean_token() -> None:
    x0, eps, _ = _draw()
    assert torch.equal(to_x0(-x0, eps, torch.zeros_like(x0), "v"), x0)


def test_at_pure_noise_an_error_of_eps_is_finite_and_as_large_as_the_floor_makes_it() -> None:
    _, eps, _ = _draw()
    x0_hat = to_x0(eps - 0.01, eps, torch.zeros_like(eps), "eps")
    torch.testing.assert_close(x0_hat, torch.full_like(eps, 0.01 / ALPHA_BAR_FLOOR**0.5))
