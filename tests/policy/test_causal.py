"""The network of policies that remember: who sees whom, and that a kept past is the past."""

from dataclasses import replace
from typing import Any, Literal, cast

import pytest
import torch
from torch import Tensor

from forcing.policy.causal import CausalDenoiser, Past
from forcing.policy.denoiser import DenoiserConfig, Kind
from forcing.policy.noise import NoiseSchedule
from forcing.policy.pointing import Places
from forcing.policy.targets import Target

FEATURES = torch.tensor([0, 0, 0, 1, 1])
TRAINED = 7  # tokens
PLACES = Places(
    seen=torch.tensor([[0, 1], [1, 2]]),
    aimed=torch.tensor([[3, 4]]),
    scale=torch.tensor([[1.0, 2.0], [0.5, 1.0]]),
    shift=torch.tensor([[0.0, 1.0], [-1.0, 0.0]]),
)
Network = Kind | Literal["pointing"]
both = pytest.mark.parametrize("kind", ["transformer", "recurrent", "pointing"])


def _denoiser(kind: Network, depth: int = 2, dropout: float = 0.0) -> CausalDenoiser:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
        body: Kind = "transformer" if kind == "pointing" else kind
        config = DenoiserConfig(kind=body, width=16, depth=depth, heads=2, causal=True, dropout=dropout)
        places = PLACES if kind == "pointing" else None
        denoiser = CausalDenoiser(config, FEATURES, TRAINED, NoiseSchedule(), places)
        # As large as trained weights, so that what leaks is seen.
        for parameter in denoiser.parameters():
            torch.nn.init.normal_(parameter, std=0.3)
    return denoiser.requires_grad_(False)


def _input(batch: int, length: int, seed: int = 0) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(batch, length, len(FEATURES), generator=generator)
    return x, torch.rand(batch, length, 2, generator=generator)


def _close(one: Tensor, other: Tensor) -> None:
    torch.testing.assert_close(one, other, atol=2e-5, rtol=1e-4)


@both
@pytest.mark.parametrize("what", ["value", "level"])
@pytest.mark.parametrize("token", range(6))
def test_a_token_sees_itself_and_those_before_it_and_nothing_later(kind: Network, what: str, token: int) -> None:
    denoiser = _denoiser(kind)
    x, levels = _input(1, 6)
    before = denoiser(x, levels)
    if what == "value":
        x[:, token] += 1.0
    else:
        levels[:, token] = 1 - levels[:, token]
    changed = (denoiser(x, levels) - before).abs().amax(dim=-1)[0] > 1e-6
    assert changed.tolist() == [index >= token for index in range(6)]


@both
@pytest.mark.parametrize("pieces", [(4,), (1,), (2, 3), (1, 1, 4), (6,)])
def test_what_is_remembered_and_gone_on_from_is_as_one_pass_over_all(kind: Network, pieces: tuple[int, ...]) -> None:
    denoiser = _denoiser(kind)
    x, levels = _input(3, 7)
    past: Past | None = None
    done = 0
    for piece in pieces:
        here = slice(done, done + piece)
        past, done = denoiser.remember(x[:, here], levels[:, here], past), done + piece
    assert past is not None
    assert past.length == done
    _close(denoiser(x[:, done:], levels[:, done:], past=past), denoiser(x, levels)[:, done:])


@both
def test_a_past_of_one_row_serves_many_and_each_as_its_own(kind: Network) -> None:
    denoiser = _denoiser(kind)
    known, known_levels = _input(1, 4)
    ahead, levels = _input(3, 2, seed=1)
    together = denoiser(ahead, levels, past=denoiser.remember(known, known_levels).rows(3))
    assert not torch.allclose(together[0], together[1], atol=1e-2)
    for row in range(3):
        whole = denoiser(torch.cat([known[0], ahead[row]])[None], torch.cat([known_levels[0], levels[row]])[None])
        _close(together[row], whole[0, 4:])


@both
def test_behind_its_past_every_token_is_guessed_as_if_it_came_next(kind: Network) -> None:
    denoiser = _denoiser(kind)
    known, known_levels = _input(2, 6)
    ahead, levels = _input(2, 6, seed=1)
    together = denoiser.behind(known, known_levels, ahead, levels)
    _close(together[:, :1], denoiser(ahead[:, :1], levels[:, :1]))
    for token in range(1, 6):
        past = denoiser.remember(known[:, :token], known_levels[:, :token])
        here = slice(token, token + 1)
        _close(together[:, here], denoiser(ahead[:, here], levels[:, here], past=past))


@both
def test_pure_noise_says_nothing_stream_by_stream(kind: Network) -> None:
    denoiser = _denoiser(kind)
    x, levels = _input(1, 5)
    levels[:, 2, 0] = 1.0
    other = x.clone()
    other[:, 2, :3] = float("nan")
    torch.testing.assert_close(denoiser(other, levels), denoiser(x, levels))
    kept = [
        denoiser(x[:, 3:], levels[:, 3:], past=denoiser.remember(each[:, :3], levels[:, :3])) for each in (x, other)
    ]
    torch.testing.assert_close(kept[0], kept[1])
    other = x.clone()
    other[:, 2, 3:] += 1.0  # the stream beside it is known
    assert not torch.allclose(denoiser(other, levels), denoiser(x, levels), atol=1e-2)


@both
def test_a_missing_stream_is_not_one_that_is_zero(kind: Network) -> None:
    denoiser = _denoiser(kind)
    x, levels = torch.zeros(2, 3, len(FEATURES)), torch.zeros(2, 3, 2)
    levels[1, 0, 0] = 1.0
    zero, missing = denoiser(x, levels)
    assert not torch.allclose(zero, missing, atol=1e-2)


@both
def test_a_sequence_may_be_longer_than_any_in_training(kind: Network) -> None:
    denoiser = _denoiser(kind)
    x, levels = _input(1, 5 * TRAINED)
    long = denoiser(x, levels)
    assert bool(long.isfinite().all())
    _close(long[:, :TRAINED], denoiser(x[:, :TRAINED], levels[:, :TRAINED]))


@both
def test_padding_behind_a_row_changes_nothing_in_it(kind: Network) -> None:
    denoiser = _denoiser(kind)
    x, levels = _input(3, TRAINED)
    lengths = torch.tensor([3, TRAINED, 5])
    x[0, 3:], x[2, 5:] = 1e3, -1e3
    together = denoiser(x, levels, lengths)
    for row, length in enumerate(lengths.tolist()):
        _close(together[row, :length], denoiser(x[row : row + 1, :length], levels[row : row + 1, :length])[0])


def test_how_far_apart_tokens_are_counts_and_not_where_they_are(monkeypatch: pytest.MonkeyPatch) -> None:
    denoiser = _denoiser("transformer", depth=1)
    x, levels = _input(1, 6)
    here = denoiser(x, levels)
    swapped = [1, 0, 2, 3, 4, 5]
    assert not torch.allclose(denoiser(x[:, swapped], levels[:, swapped])[:, 2:], here[:, 2:], atol=1e-3)
    body = cast(Any, denoiser.body)
    turns = body._turns
    monkeypatch.setattr(body, "_turns", lambda positions: turns(positions + 90))
    _close(denoiser(x, levels), here)
    monkeypatch.setattr(body, "_turns", lambda positions: turns(3 * positions))
    assert not torch.allclose(denoiser(x, levels), here, atol=1e-3)


def test_a_sequence_of_equal_tokens_is_guessed_equally_everywhere() -> None:
    """Whatever attention weighs, it averages the same: a position that is told otherwise would show."""
    x, levels = _input(1, 1)
    guess = _denoiser("transformer")(x.expand(-1, 40, -1), levels.expand(-1, 40, -1))
    _close(guess, guess[:, :1].expand_as(guess))


def test_the_recurrent_cell_carries_what_came_first_all_the_way() -> None:
    denoiser = _denoiser("recurrent")
    x, levels = torch.zeros(2, 12, len(FEATURES)), torch.full((2, 12, 2), 0.5)
    x[1, 0] = 3.0
    one, other = denoiser(x, levels)
    assert float((one[-1] - other[-1]).abs().max()) > 1e-6


@both
def test_gradients_reach_every_parameter(kind: Network) -> None:
    denoiser = _denoiser(kind).requires_grad_()
    x, levels = _input(2, TRAINED)
    denoiser(x, levels).square().sum().backward()
    for name, parameter in denoiser.named_parameters():
        assert parameter.grad is not None, name
        assert bool((parameter.grad != 0).any()), name


@pytest.mark.parametrize("kind", ["transformer", "recurrent"])  # the places are added to what is clean
def test_a_network_asked_for_noise_or_v_still_returns_clean_tokens(kind: Network) -> None:
    denoiser = _denoiser(kind)
    x, levels = _input(2, 6)
    raw, share = denoiser(x, levels), NoiseSchedule().alpha_bar(levels[..., FEATURES])
    expected: dict[Target, Tensor] = {
        "eps": (x - (1 - share).sqrt() * raw) / share.clamp(min=4e-5).sqrt(),
        "v": share.sqrt() * x - (1 - share).sqrt() * raw,
    }
    for target, clean in expected.items():
        denoiser.config = replace(denoiser.config, target=target)
        torch.testing.assert_close(denoiser(x, levels), clean)


@both
def test_what_is_dropped_out_in_training_is_there_in_use(kind: Network) -> None:
    denoiser, whole = _denoiser(kind, dropout=0.5), _denoiser(kind).eval()
    x, levels = _input(2, 5)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        assert not torch.allclose(denoiser(x, levels), denoiser(x, levels), atol=1e-2)
    torch.testing.assert_close(denoiser.eval()(x, levels), whole(x, levels), atol=0, rtol=0)
