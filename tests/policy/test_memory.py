"""Levels on which policies that remember are trained: what is known of an episode, and what is to be guessed."""

import math
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from forcing.policy.memory import MemoryConfig, RecallMix, Streams, draw_behind, draw_whole

CAMERA, HAND, ACTION, FORCE = range(4)
OBSERVED = [CAMERA, HAND, FORCE]
SEEING = Streams(actions=(False, False, True, False), cameras=(True, False, False, False))
BLIND = Streams(actions=(False, False, True, False), cameras=(False,) * 4)
MANY, LENGTH = 3000, 12
PLAIN = RecallMix(slightly=0.0, lost=0.0, actions_hidden=0.0, led=0.0, pure=0.0)


def _behind(
    mix: RecallMix, *, streams: Streams = SEEING, length: int = LENGTH, seed: int = 0
) -> tuple[Tensor, Tensor, Tensor]:
    return draw_behind(mix, streams, MANY, length, torch.Generator().manual_seed(seed))


def _whole(kind: str) -> tuple[Tensor, Tensor]:
    mix = RecallMix(**{**{"independent": 0.0, "shared": 0.0, "pyramid": 0.0}, kind: 1.0})
    return draw_whole(mix, SEEING, MANY, LENGTH, torch.Generator().manual_seed(0))


def _later(drawn: Tensor) -> Tensor:
    """All but the first token, whose actions are always unknown."""
    return drawn[:, 1:]


@pytest.mark.parametrize("streams", [SEEING, BLIND])
@pytest.mark.parametrize("length", [1, 2, LENGTH])
def test_levels_are_levels_and_nothing_clean_and_no_action_before_the_first_token_is_guessed(
    streams: Streams, length: int
) -> None:
    mix, generator = RecallMix(slightly=0.5, lost=0.5), torch.Generator().manual_seed(0)
    known, ahead, counted = draw_behind(mix, streams, MANY, length, generator)
    whole, whole_counted = draw_whole(mix, streams, MANY, length, generator)
    for levels in (known, ahead, whole):
        assert levels.shape == (MANY, length, 4)
        assert bool(((levels >= 0) & (levels <= 1)).all())
        assert bool((levels[:, 0, ACTION] == 1).all())
    for levels, guessed in ((ahead, counted), (whole, whole_counted)):
        assert not bool(guessed[:, 0, ACTION].any())
        guessed[:, 0, ACTION] = True
        torch.testing.assert_close(guessed, levels > 0, msg="whatever else is noisy counts")


def test_the_same_generator_draws_the_same() -> None:
    for one, other in zip(_behind(RecallMix(), seed=4), _behind(RecallMix(), seed=4), strict=True):
        torch.testing.assert_close(one, other)
    assert not torch.equal(_behind(RecallMix(), seed=4)[0], _behind(RecallMix(), seed=5)[0])


def _uniform(levels: Tensor) -> None:
    """Kolmogorov and Smirnov: the largest distance from the diagonal is below 1.63 / sqrt(n) in 99 of 100."""
    ranks = levels.flatten().sort().values
    assert float((ranks - torch.linspace(0, 1, len(ranks))).abs().max()) < 1.63 / math.sqrt(len(ranks))


def test_a_known_past_is_clean_and_a_token_behind_it_at_any_level_one_for_all_its_streams() -> None:
    known, ahead, counted = _behind(PLAIN)
    assert bool((_later(known) == 0).all())
    assert bool((known[:, 0, OBSERVED] == 0).all())
    assert bool((_later(ahead) == _later(ahead)[..., :1]).all())
    _uniform(ahead[..., HAND])
    assert float(torch.corrcoef(torch.stack([ahead[:, 3, HAND], ahead[:, 4, HAND]]))[0, 1].abs()) < 0.07
    assert bool(_later(counted).all())


def test_that_share_of_tokens_behind_a_past_is_pure_noise() -> None:
    _, ahead, _ = _behind(replace(PLAIN, pure=0.25))
    assert float((ahead[..., HAND] == 1).float().mean()) == pytest.approx(0.25, abs=0.01)
    _uniform(ahead[..., HAND][ahead[..., HAND] < 1])


def test_a_token_whose_actions_lead_is_guessed_by_where_they_lead() -> None:
    _, ahead, counted = _behind(replace(PLAIN, led=0.4))
    led = _later(ahead)[..., ACTION] == 0
    assert float(led.float().mean()) == pytest.approx(0.4, abs=0.01)
    torch.testing.assert_close(_later(counted)[..., ACTION], ~led)
    assert bool(_later(counted)[..., OBSERVED].all())
    assert bool((_later(ahead)[..., ACTION] == _later(ahead)[..., HAND])[~led].all())


def test_hidden_actions_are_unknown_all_along_and_nothing_else_is() -> None:
    known, _, _ = _behind(replace(PLAIN, actions_hidden=0.5))
    hidden = known[:, 1, ACTION] == 1
    assert float(hidden.float().mean()) == pytest.approx(0.5, abs=0.04)
    assert bool((_later(known)[..., ACTION] == hidden[:, None]).all())
    assert bool((known[..., OBSERVED] == 0).all())


def test_every_other_past_is_slightly_noisy() -> None:
    known, _, _ = _behind(replace(PLAIN, slightly=0.3))
    noisy = _later(known).flatten(1).amax(dim=1)
    assert float(noisy.max()) <= 0.3
    assert float((noisy > 0).float().mean()) == pytest.approx(0.5, abs=0.04)


def test_independent_levels_are_uniform_and_apart() -> None:
    levels, _ = _whole("independent")
    for stream in range(4):
        _uniform(_later(levels)[..., stream])
    together = torch.corrcoef(_later(levels).flatten(0, 1).T) - torch.eye(4)
    assert float(together.abs().max()) < 0.03
    assert float(torch.corrcoef(torch.stack([levels[:, 3, HAND], levels[:, 4, HAND]]))[0, 1].abs()) < 0.07


def test_a_shared_level_is_one_for_a_sequence() -> None:
    levels, _ = _whole("shared")
    assert bool((_later(levels) == levels[:, :1, :1]).all())
    _uniform(levels[:, 0, HAND])


def test_a_pyramid_is_clean_up_to_a_token_and_rises_evenly_from_there() -> None:
    levels, _ = _whole("pyramid")
    rows, begins = levels[..., HAND], set()
    assert bool((_later(levels) == _later(rows)[..., None]).all())
    for row in rows[:300]:
        begin = int((row == 0).sum())  # a level of exactly 0 is never drawn
        begins.add(begin)
        assert bool((row[:begin] == 0).all())
        steps = row[begin:].diff()[row[begin + 1 :] < 1]
        if len(steps) > 1:
            torch.testing.assert_close(steps, steps[:1].expand_as(steps), atol=1e-5, rtol=0.0)
            assert 0 <= float(steps[0]) <= 1
    assert begins == set(range(1, LENGTH))


def test_whole_sequences_are_noised_in_one_of_three_ways_by_their_shares() -> None:
    mix = RecallMix(independent=0.5, shared=0.3, pyramid=0.2)
    levels, _ = draw_whole(mix, SEEING, MANY, LENGTH, torch.Generator().manual_seed(0))
    seen = levels[..., OBSERVED]
    shared = (seen == seen[:, :1, :1]).flatten(1).all(dim=1)
    pyramid = (seen[:, 0] == 0).all(dim=1) & ~shared
    for kind, share in ((shared, 0.3), (pyramid, 0.2), (~shared & ~pyramid, 0.5)):
        error = math.sqrt(share * (1 - share) / MANY)
        assert float(kind.float().mean()) == pytest.approx(share, abs=4 * error)


@pytest.mark.parametrize(("streams", "hit"), [(SEEING, {CAMERA}), (BLIND, {CAMERA, HAND, FORCE})])
def test_what_is_lost_is_a_cameras_where_there_is_one_else_any_sensors_and_never_an_action(
    streams: Streams, hit: set[int]
) -> None:
    known, _, _ = _behind(replace(PLAIN, lost=0.6), streams=streams, length=40)
    missing = known == 1
    missing[:, 0, ACTION] = False
    assert set(missing.flatten(0, 1).any(dim=0).nonzero()[:, 0].tolist()) == hit
    some = missing.any(dim=2)
    assert float(some.any(dim=1).float().mean()) == pytest.approx(0.6, abs=0.04)
    for row in some[some.any(dim=1)]:
        where = row.nonzero()[:, 0]
        assert len(where) == int(where[-1] - where[0]) + 1, "in one go"
    # For good in three of ten, and where a while reaches the end.
    for_good = some[some.any(dim=1)][:, -1]
    assert 0.3 < float(for_good.float().mean()) < 0.7


def test_without_cameras_one_sensor_is_lost_as_often_as_all() -> None:
    known, _, _ = _behind(replace(PLAIN, lost=1.0), streams=BLIND)
    lost = (_later(known) == 1).any(dim=1)
    lost = lost[lost.any(dim=1)]
    streams = lost.sum(dim=1)
    assert set(streams.tolist()) == {1, 3}
    assert float((streams == 3).float().mean()) == pytest.approx(0.5, abs=0.04)
    alone = lost[streams == 1].float().mean(dim=0)
    torch.testing.assert_close(alone, torch.tensor([1.0, 1.0, 0.0, 1.0]) / 3, atol=0.05, rtol=0.0)


def test_what_is_lost_early_is_lost_near_the_beginning() -> None:
    mix = replace(PLAIN, lost=1.0, alone=0.0, for_good=1.0, early=1.0)
    lost = (_later(_behind(mix, streams=BLIND, length=65)[0]) == 1).any(dim=2)
    begins = 65 - lost.sum(dim=1)  # the token that is left out may be among them
    assert float((begins <= 8).float().mean()) == pytest.approx(0.5, abs=0.06)
    assert int(begins.max()) > 40


def test_how_often_one_is_lost_alone_and_how_often_for_good_is_told() -> None:
    mix = replace(PLAIN, lost=1.0, alone=0.8, for_good=1.0)
    lost = _later(_behind(mix, streams=BLIND, length=40)[0]) == 1
    assert bool((lost[:, 1:] >= lost[:, :-1]).all()), "what is lost for good stays lost"
    many = lost[:, -1].sum(dim=1)
    assert set(many.tolist()) == {1, 3}
    assert float((many == 1).float().mean()) == pytest.approx(0.8, abs=0.04)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"lost": -0.1}, "lost must be from 0 to 1, got -0.1"),
        ({"led": 1.5}, "led must be from 0 to 1, got 1.5"),
        ({"slightly": math.nan}, "slightly must be from 0 to 1, got nan"),
        ({"shared": 0.5}, "independent, shared and pyramid must sum to 1, got 1.3"),
    ],
)
def test_a_mix_that_is_none_is_refused(fields: dict[str, float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        RecallMix(**fields)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"hold_tokens": -1}, "hold_tokens must be at least 0, got -1"),
        ({"observation_share": -0.5}, "observation_share must be at least 0, got -0.5"),
        ({"observation_share": math.nan}, "observation_share must be at least 0, got nan"),
        ({"recall_level": 1.0}, "recall_level must be at least 0 and below 1, got 1.0"),
        ({"recall_level": -0.1}, "recall_level must be at least 0 and below 1, got -0.1"),
    ],
)
def test_a_memory_that_cannot_be_is_refused(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        MemoryConfig(**fields)
