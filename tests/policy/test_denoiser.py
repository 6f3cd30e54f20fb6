"""What a denoiser may see: padding never, the future only if it is not causal, the goal always."""

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from forcing.policy.denoiser import DenoiserConfig, TransformerDenoiser
from forcing.policy.noise import NoiseSchedule
from forcing.policy.targets import Target

FEATURES = torch.tensor([0, 0, 0, 1, 1])
LONGEST = 7


def _denoiser(causal: bool) -> TransformerDenoiser:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
        config = DenoiserConfig(width=16, depth=2, heads=2, causal=causal)
        denoiser = TransformerDenoiser(config, FEATURES, LONGEST, NoiseSchedule())
        # As large as trained weights, so that what leaks is seen.
        for parameter in denoiser.parameters():
            torch.nn.init.normal_(parameter, std=0.3)
    return denoiser.requires_grad_(False)


def _input(batch: int, length: int, seed: int = 0) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(batch, length, len(FEATURES), generator=generator)
    return x, torch.rand(batch, length, 2, generator=generator)


def _changed(denoiser: TransformerDenoiser, token: int) -> list[bool]:
    """Which outputs of a row of 6 tokens change when value and levels of one do."""
    x, levels = _input(1, 6)
    lengths = torch.tensor([6])
    before = denoiser(x, levels, lengths)
    x[:, token] += 1.0
    levels[:, token] = 1 - levels[:, token]
    return [bool(changed) for changed in (denoiser(x, levels, lengths) - before).abs().amax(dim=-1)[0] > 1e-6]


@pytest.mark.parametrize("causal", [False, True])
def test_a_row_gives_the_same_alone_as_padded_with_anything_beside_longer_rows(causal: bool) -> None:
    denoiser = _denoiser(causal)
    x, levels = _input(4, LONGEST)
    lengths = torch.tensor([3, LONGEST, 5, 2])
    x[0, 3:], x[2, 5:], x[3, 2:] = 1e3, float("nan"), -1e3
    together = denoiser(x, levels, lengths)
    for row, length in enumerate(lengths.tolist()):
        alone = denoiser(x[row : row + 1, :length], levels[row : row + 1, :length], lengths[row : row + 1])
        torch.testing.assert_close(together[row, :length], alone[0], atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize("token", range(5))
def test_a_causal_denoiser_shows_a_token_to_itself_and_later_ones_but_not_to_the_goal(token: int) -> None:
    assert _changed(_denoiser(causal=True), token) == [index >= token for index in range(5)] + [False]


def test_a_causal_denoiser_shows_the_goal_to_all() -> None:
    assert _changed(_denoiser(causal=True), 5) == [True] * 6


@pytest.mark.parametrize("token", range(6))
def test_without_causality_every_token_is_shown_to_all(token: int) -> None:
    assert _changed(_denoiser(causal=False), token) == [True] * 6


def test_levels_alone_change_the_guess() -> None:
    denoiser = _denoiser(causal=False)
    x, levels = _input(1, 6)
    lengths = torch.tensor([6])
    assert not torch.allclose(denoiser(x, levels, lengths), denoiser(x, 1 - levels, lengths))


def test_where_a_row_ends_changes_the_guess_even_if_nothing_else_does() -> None:
    denoiser = _denoiser(causal=False)
    x, levels = torch.zeros(2, 6, len(FEATURES)), torch.ones(2, 6, 2)
    x0_hat = denoiser(x, levels, torch.tensor([5, 6]))
    assert not torch.allclose(x0_hat[0, :5], x0_hat[1, :5], atol=1e-3)


@pytest.mark.parametrize("causal", [False, True])
def test_gradients_reach_every_parameter(causal: bool) -> None:
    denoiser = _denoiser(causal).requires_grad_()
    x, levels = _input(2, LONGEST)
    denoiser(x, levels, torch.tensor([LONGEST, LONGEST])).square().sum().backward()
    for name, parameter in denoiser.named_parameters():
        assert parameter.grad is not None, name
        # A causal network has no neighbour after: that part of the embedding rests.
        assert bool((parameter.grad != 0).any()), name


def test_too_long_a_sequence_is_refused() -> None:
    x, levels = _input(1, LONGEST + 1)
    with pytest.raises(ValueError, match=f"sequence must have at most {LONGEST} tokens, got {LONGEST + 1}"):
        _denoiser(causal=False)(x, levels, torch.tensor([LONGEST + 1]))


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"width": 0}, "width must be at least 1, got 0"),
        ({"width": 10, "heads": 4}, "heads must divide width 10, got 4"),
        ({"kind": "mamba"}, "kind must be one of transformer, recurrent, got 'mamba'"),
        ({"target": "score"}, "target must be one of x0, eps, v, got 'score'"),
    ],
)
def test_a_size_that_cannot_be_built_is_refused(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        DenoiserConfig(**fields)


def test_a_network_asked_for_noise_or_v_still_returns_clean_tokens() -> None:
    x, levels = _input(2, 6)
    lengths = torch.tensor([6, 6])
    raw = _denoiser(causal=False)(x, levels, lengths)
    share = NoiseSchedule().alpha_bar(levels[..., FEATURES])
    expected: dict[Target, Tensor] = {
        "eps": (x - (1 - share).sqrt() * raw) / share.clamp(min=4e-5).sqrt(),
        "v": share.sqrt() * x - (1 - share).sqrt() * raw,
    }
    for target, clean in expected.items():
        denoiser = _denoiser(causal=False)
        denoiser.config = replace(denoiser.config, target=target)
        torch.testing.assert_close(denoiser(x, levels, lengths), clean)
