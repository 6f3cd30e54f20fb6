"""The recurrent denoiser: what its latent carries, and that it learns what can be computed."""

import pytest
import torch
from torch import Tensor

from forcing.policy.denoiser import DenoiserConfig
from forcing.policy.levels import LevelMix, SequenceShape, draw_levels
from forcing.policy.noise import NoiseSchedule
from forcing.policy.recurrent import RecurrentDenoiser

FEATURES = torch.tensor([0, 0, 0, 1, 1])
LONGEST = 7
SCHEDULE = NoiseSchedule()


def _denoiser(features: Tensor = FEATURES, width: int = 16) -> RecurrentDenoiser:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
        config = DenoiserConfig(kind="recurrent", width=width, depth=2)
        return RecurrentDenoiser(config, features, LONGEST, SCHEDULE)


def _loud() -> RecurrentDenoiser:
    """Weights as large as trained ones, so that what leaks is seen."""
    denoiser = _denoiser()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(4)
        for parameter in denoiser.parameters():
            torch.nn.init.normal_(parameter, std=0.3)
    return denoiser.requires_grad_(False)


def _input(batch: int, length: int) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(batch, length, len(FEATURES), generator=generator)
    return x, torch.rand(batch, length, 2, generator=generator)


def _changed(token: int) -> list[bool]:
    """Which outputs of a row of 6 tokens change when value and levels of one do."""
    denoiser, (x, levels), lengths = _loud(), _input(1, 6), torch.tensor([6])
    before = denoiser(x, levels, lengths)
    x[:, token] += 1.0
    levels[:, token] = 1 - levels[:, token]
    return [bool(changed) for changed in (denoiser(x, levels, lengths) - before).abs().amax(dim=-1)[0] > 1e-6]


@pytest.mark.parametrize("token", range(5))
def test_a_token_is_shown_to_itself_and_later_ones_but_not_to_the_goal(token: int) -> None:
    assert _changed(token) == [index >= token for index in range(5)] + [False]


def test_the_goal_is_shown_to_all() -> None:
    assert _changed(5) == [True] * 6


def test_a_row_gives_the_same_alone_as_padded_with_anything_beside_longer_rows() -> None:
    denoiser, (x, levels) = _loud(), _input(4, LONGEST)
    lengths = torch.tensor([3, LONGEST, 5, 1])
    x[0, 3:], x[2, 5:], x[3, 1:] = 1e3, float("nan"), -1e3
    together = denoiser(x, levels, lengths)
    for row, length in enumerate(lengths.tolist()):
        alone = denoiser(x[row : row + 1, :length], levels[row : row + 1, :length], lengths[row : row + 1])
        torch.testing.assert_close(together[row, :length], alone[0], atol=1e-6, rtol=1e-5)


def test_where_a_row_ends_changes_the_guess_even_if_nothing_else_does() -> None:
    x0_hat = _loud()(torch.zeros(2, 6, len(FEATURES)), torch.ones(2, 6, 2), torch.tensor([5, 6]))
    assert not torch.allclose(x0_hat[0, :5], x0_hat[1, :5], atol=1e-3)


def test_gradients_reach_every_parameter_and_no_padding() -> None:
    denoiser, (x, levels) = _loud().requires_grad_(), _input(2, LONGEST)
    x[0, 5:] = float("nan")
    x.requires_grad_()
    x0_hat = denoiser(x, levels, torch.tensor([5, LONGEST]))
    (x0_hat[0, :5].square().sum() + x0_hat[1].square().sum()).backward()
    assert x.grad is not None
    assert bool((x.grad[0, 5:] == 0).all())
    for name, parameter in denoiser.named_parameters():
        assert parameter.grad is not None, name
        assert bool((parameter.grad != 0).any()), name
        assert bool(torch.isfinite(parameter.grad).all()), name


def test_too_long_a_sequence_is_refused() -> None:
    x, levels = _input(1, LONGEST + 1)
    with pytest.raises(ValueError, match=f"sequence must have at most {LONGEST} tokens, got {LONGEST + 1}"):
        _loud()(x, levels, torch.tensor([LONGEST + 1]))


DECAY = 0.8


def _walks(count: int, length: int, generator: torch.Generator) -> Tensor:
    """[count, length + 1, 1] x_t = DECAY x_{t-1} + noise, variance 1 throughout; then a goal that says nothing."""
    tokens = [torch.randn(count, 1, generator=generator)]
    for _ in range(length - 1):
        tokens.append(DECAY * tokens[-1] + (1 - DECAY**2) ** 0.5 * torch.randn(count, 1, generator=generator))
    return torch.stack([*tokens, torch.zeros(count, 1)], dim=1)


def _noised(clean: Tensor, levels: Tensor, generator: torch.Generator) -> Tensor:
    return SCHEDULE.add_noise(clean, levels, torch.randn(clean.shape, generator=generator))


def test_after_short_training_a_token_behind_a_clean_one_is_guessed_as_its_posterior_mean() -> None:
    generator = torch.Generator().manual_seed(1)
    denoiser = _denoiser(torch.tensor([0]), width=32)
    optimiser = torch.optim.AdamW(denoiser.parameters(), lr=3e-3)
    mix = LevelMix(independent=0.0, shared=0.0, pyramid=0.0, next_token=1.0, history_clean=1.0)
    shape = SequenceShape(history=1, actions=(False,), goal=None)
    lengths = torch.full((128,), 5)
    for _ in range(500):
        clean, levels = _walks(128, 4, generator), draw_levels(mix, shape, 128, 3, generator)
        x0_hat = denoiser(_noised(clean, levels, generator), levels, lengths)
        loss = ((levels > 0)[:, :-1] * (x0_hat - clean)[:, :-1].square()).mean()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()

    clean = _walks(2000, 4, generator)
    for level in (0.1, 0.3, 0.6, 1.0):
        levels = torch.tensor([0.0, 0.0, level, 1.0, 1.0]).view(1, 5, 1).expand(2000, 5, 1)
        x = _noised(clean, levels, generator)
        with torch.no_grad():
            x0_hat = denoiser(x, levels, torch.full((2000,), 5))[:, 2]
        share = SCHEDULE.alpha_bar(torch.tensor(level))
        # Precisions add: of the prior N(DECAY x_{t-1}, 1 - DECAY^2) and of the noisy token.
        prior, seen = 1 / (1 - DECAY**2), share / (1 - share)
        posterior = (prior * DECAY * clean[:, 1] + seen * x[:, 2] / share.clamp(min=1e-8).sqrt()) / (prior + seen)
        assert float((x0_hat - posterior).square().mean()) < 0.03 * float(posterior.square().mean()), level
