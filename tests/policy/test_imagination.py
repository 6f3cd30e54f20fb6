"""Imagined episodes of a world whose dynamics are known: x_t = a x_{t-1} + b u_t, one observation and one action."""

import re
from typing import Any

import pytest
import torch
from torch import Tensor

from forcing.policy.imagination import START, Imagining, imagine, imagining_of
from forcing.policy.memory import MemoryConfig
from forcing.policy.noise import NoiseSchedule
from forcing.policy.sampler import Model
from forcing.policy.tokens import TokenLayout

SCHEDULE = NoiseSchedule(kind="cosine")
FEATURES = torch.tensor([0, 1])  # an observation, an action
ACTIONS = torch.tensor([False, True])
A, B = 0.9, 0.5


class Oracle:
    """Knows the dynamics, and that observations are N(0, 1) besides; keeps what it was called with."""

    def __init__(self) -> None:
        self.calls: list[tuple[Tensor, Tensor]] = []

    def __call__(self, x: Tensor, levels: Tensor, lengths: Tensor) -> Tensor:
        self.calls.append((x.clone(), levels.clone()))
        # Of a value x with noise, the best guess of what it was without.
        believed = SCHEDULE.alpha_bar(levels[..., 0]).sqrt() * x[..., 0]
        x0_hat = x.clone()
        # What comes behind a guess is led to from that guess.
        for token in range(1, x.shape[1]):
            moved = A * believed[:, token - 1] + B * x[:, token, 1]
            fresh = levels[:, token, 0] == levels[:, -1, 0]
            x0_hat[:, token, 0] = torch.where(fresh, moved, believed[:, token])
            believed[:, token] = x0_hat[:, token, 0]
        return x0_hat

    @property
    def model(self) -> Model:
        return Model(self, SCHEDULE, FEATURES)


def _world(total: int, batch: int = 3, seed: int = 0) -> Tensor:
    """[B, T, 2] of which no action leads to the first token."""
    generator = torch.Generator().manual_seed(seed)
    tokens = torch.randn(batch, total, 2, generator=generator, dtype=torch.float64)
    tokens[:, 0, 1] = 7.0
    for t in range(1, total):
        tokens[:, t, 0] = A * tokens[:, t - 1, 0] + B * tokens[:, t, 1]
    return tokens


def _imagined(tokens: Tensor, observed: int, seed: int = 0, oracle: Oracle | None = None, **how: Any) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return imagine((oracle or Oracle()).model, tokens, observed, ACTIONS, Imagining(**how), generator)


@pytest.mark.parametrize(("length", "fresh", "passes"), [(2, 1, 1), (6, 1, 4), (5, 3, 3)])
def test_with_the_true_dynamics_what_is_imagined_is_what_happens(length: int, fresh: int, passes: int) -> None:
    tokens = _world(30)
    made = _imagined(tokens, 2, length=length, fresh=fresh, passes=passes)
    torch.testing.assert_close(made, tokens, rtol=0, atol=1e-9)


def test_stabilised_history_is_believed_by_as_much_as_its_declared_level_says() -> None:
    # Made x is declared to have error sigma; its prior is N(0, 1), so x / (1 + sigma^2) of it is believed, which
    # is alpha_bar x. The token that was observed is believed whole.
    tokens, level = _world(12), 0.2
    kept = float(SCHEDULE.alpha_bar(torch.tensor(level, dtype=torch.float64)))
    expected = tokens.clone()
    for t in range(1, 12):
        expected[:, t, 0] = A * (kept if t > 1 else 1.0) * expected[:, t - 1, 0] + B * tokens[:, t, 1]
    made = _imagined(tokens, 1, length=4, passes=2, stabilisation=level)
    torch.testing.assert_close(made, expected, rtol=0, atol=1e-6)


def _windows(oracle: Oracle) -> list[list[float]]:
    """The tokens of each call, told by their actions, which are their numbers."""
    return [x[0, :, 1].tolist() for x, _ in oracle.calls]


def _numbered(total: int) -> Tensor:
    tokens = _world(total)
    tokens[..., 1] = torch.arange(total)
    return tokens


def test_the_window_grows_to_its_length_and_then_slides_token_after_token() -> None:
    oracle = Oracle()
    _imagined(_numbered(7), 2, oracle=oracle, length=4, passes=1)
    assert _windows(oracle) == [[0, 1, 2], [0, 1, 2, 3], [1, 2, 3, 4], [2, 3, 4, 5], [3, 4, 5, 6]]


def test_windows_of_several_fresh_tokens_slide_by_as_many_and_the_last_one_by_what_is_left() -> None:
    oracle = Oracle()
    _imagined(_numbered(7), 2, oracle=oracle, length=4, fresh=2, passes=2)
    assert _windows(oracle) == [w for w in ([0, 1, 2, 3], [2, 3, 4, 5], [3, 4, 5, 6]) for _ in range(2)]


def test_levels_are_those_of_known_actions_observed_made_and_fresh_tokens() -> None:
    oracle = Oracle()
    _imagined(_world(4), 2, oracle=oracle, length=3, passes=2, stabilisation=0.1)
    observations = [levels[0, :, 0].tolist() for _, levels in oracle.calls]
    half = pytest.approx(START / 2)
    assert observations == [
        [0, 0, pytest.approx(START)],
        [0, 0, half],
        [0, pytest.approx(0.1), pytest.approx(START)],
        [0, pytest.approx(0.1), half],
    ]
    # What led to the first token of a window is unknown in training, wherever the window begins.
    assert all(levels[:, :, 1].tolist() == [[1, 0, 0]] * 3 for _, levels in oracle.calls)


def test_in_full_sequence_diffusion_all_observations_of_a_window_are_equally_noisy_and_no_action_is() -> None:
    oracle, tokens = Oracle(), _world(4, batch=20000)
    tokens[..., 0] = 3.0
    made = _imagined(tokens, 2, oracle=oracle, length=4, fresh=2, passes=3, noised=True)
    assert torch.equal(made[:, :2], tokens[:, :2])
    assert len(oracle.calls) == 3
    for call, (x, levels) in enumerate(oracle.calls):
        level = torch.tensor(START * (1 - call / 3))
        torch.testing.assert_close(levels[..., 0], level.expand(20000, 4))
        assert torch.equal(x[..., 1], tokens[..., 1])
        share = float(SCHEDULE.alpha_bar(level))
        shown = x[:, :2, 0]  # sqrt(share) * 3 and noise of variance 1 - share, drawn anew in every pass
        assert float(shown.mean()) == pytest.approx(3 * share**0.5, abs=0.02)
        assert float(shown.var()) == pytest.approx(1 - share, abs=0.03)
    first, second = (oracle.calls[call][0][:, 0, 0] for call in (0, 1))
    assert abs(float(torch.corrcoef(torch.stack([first, second]))[0, 1])) < 0.03


def test_an_action_changes_what_is_imagined_from_its_token_on_and_nothing_before() -> None:
    tokens = _world(12)
    other = tokens.clone()
    other[:, 6, 1] += 1.0
    one, two = (_imagined(each, 2, length=4)[..., 0] for each in (tokens, other))
    assert torch.equal(one[:, :6], two[:, :6])
    # A step of 1 in the action dies out as the dynamics say.
    expected = (B * A ** torch.arange(6, dtype=torch.float64)).expand(3, 6)
    torch.testing.assert_close(two[:, 6:] - one[:, 6:], expected, rtol=0, atol=1e-9)


@pytest.mark.parametrize("noised", [False, True])
def test_observations_that_were_not_observed_are_not_looked_at(noised: bool) -> None:
    tokens = _world(9)
    blind = tokens.clone()
    blind[:, 3:, 0] = torch.nan
    how: dict[str, Any] = {"length": 5, "fresh": 2, "noised": noised}
    assert torch.equal(_imagined(tokens, 3, **how), _imagined(blind, 3, **how))


def test_the_same_seed_imagines_the_same_and_another_something_else() -> None:
    tokens = _world(9)
    how: dict[str, Any] = {"length": 4, "noised": True}
    first = _imagined(tokens, 2, seed=1, **how)
    assert torch.equal(first, _imagined(tokens, 2, seed=1, **how))
    assert not torch.equal(first, _imagined(tokens, 2, seed=2, **how))


def test_a_recipe_says_how_its_network_imagines() -> None:
    layout = TokenLayout(token_steps=3, stride=3, history=5, horizon=1, chunks=True)
    assert imagining_of(layout, MemoryConfig(recall_level=0.03), passes=5) == Imagining(
        length=6, fresh=1, passes=5, stabilisation=0.03
    )
    whole = TokenLayout(token_steps=3, stride=3, history=2, horizon=4, chunks=True)
    assert imagining_of(whole, MemoryConfig(equal_levels=True, recall_level=0.1), passes=8) == Imagining(
        length=6, fresh=4, passes=8, noised=True
    )


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"fresh": 0}, "fresh must be at least 1 and below length 4, got 0"),
        ({"fresh": 4}, "fresh must be at least 1 and below length 4, got 4"),
        ({"passes": 0}, "passes must be at least 1, got 0"),
        ({"stabilisation": 1.0}, "stabilisation must be at least 0 and below 1, got 1.0"),
        (
            {"stabilisation": 0.1, "noised": True},
            "stabilisation must be 0 with noised, where nothing is clean, got 0.1",
        ),
    ],
)
def test_a_way_that_cannot_be_is_refused(wrong: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=re.escape(message)):
        Imagining(**{"length": 4, **wrong})


@pytest.mark.parametrize("observed", [0, 9])
def test_at_least_one_token_is_observed_and_one_imagined(observed: int) -> None:
    with pytest.raises(ValueError, match=f"observed must be at least 1 and below the 9 tokens, got {observed}"):
        _imagined(_world(9), observed, length=4)


def test_a_network_that_diverges_is_named_and_not_hidden() -> None:
    model = Model(lambda x, levels, lengths: torch.full_like(x, torch.inf), SCHEDULE, FEATURES)
    with pytest.raises(FloatingPointError, match="not finite"):
        imagine(model, _world(5), 1, ACTIONS, Imagining(length=3), torch.Generator())
