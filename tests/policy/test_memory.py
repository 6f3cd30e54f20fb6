"""Levels on which policies that remember are trained: what is known of an episode, and what is to be guessed."""

import math
from typing import Any

import pytest
import torch
from torch import Tensor

from forcing.policy.memory import MemoryConfig, RecallMix, Streams, draw_recall

CAMERA, HAND, ACTION, FORCE = range(4)
SEEING = Streams(actions=(False, False, True, False), cameras=(True, False, False, False))
BLIND = Streams(actions=(False, False, True, False), cameras=(False,) * 4)
MANY, LENGTH = 3000, 12
PLAIN = {"guessed": 0.0, "slightly": 0.0, "lost": 0.0, "actions_hidden": 0.0, "led": 0.0}


def _only(kind: str, **fields: float) -> RecallMix:
    none = dict.fromkeys(("recalled", "independent", "shared", "pyramid", "next_token", "cloned"), 0.0)
    return RecallMix(**{**none, kind: 1.0, **fields})


def _drawn(
    mix: RecallMix, *, streams: Streams = SEEING, batch: int = MANY, length: int = LENGTH, seed: int = 0
) -> tuple[Tensor, Tensor]:
    return draw_recall(mix, streams, batch, length, torch.Generator().manual_seed(seed))


def _later(drawn: Tensor) -> Tensor:
    """All but the first token, whose actions are always unknown."""
    return drawn[:, 1:]


@pytest.mark.parametrize("streams", [SEEING, BLIND])
@pytest.mark.parametrize("length", [1, 2, LENGTH])
def test_levels_are_levels_and_nothing_clean_and_no_action_before_the_first_token_is_guessed(
    streams: Streams, length: int
) -> None:
    mix = RecallMix(
        recalled=0.4, independent=0.2, shared=0.1, pyramid=0.1, next_token=0.1, cloned=0.1, slightly=0.5, lost=0.5
    )
    levels, guessed = _drawn(mix, streams=streams, length=length)
    assert levels.shape == guessed.shape == (MANY, length, 4)
    assert bool(((levels >= 0) & (levels <= 1)).all())
    assert bool((levels[:, 0, ACTION] == 1).all())
    assert not bool(guessed[:, 0, ACTION].any())
    assert not bool(guessed[levels == 0].any())
    assert 0.1 < float(guessed.float().mean()) < 0.9


def test_the_same_generator_draws_the_same() -> None:
    for one, other in zip(_drawn(RecallMix(), seed=4), _drawn(RecallMix(), seed=4), strict=True):
        torch.testing.assert_close(one, other)
    assert not torch.equal(_drawn(RecallMix(), seed=4)[0], _drawn(RecallMix(), seed=5)[0])


def test_kinds_are_drawn_by_their_shares() -> None:
    levels, guessed = _drawn(_only("recalled", recalled=0.5, shared=0.3, cloned=0.2, **PLAIN))
    first = levels[:, 0, HAND]
    same = (levels[..., [CAMERA, HAND, FORCE]] == first[:, None, None]).flatten(1).all(dim=1)
    known = same & (first == 0)
    cloned = (levels == 1).flatten(1).any(dim=1) & ~same
    for kind, share in ((known, 0.5), (same & ~known, 0.3), (cloned, 0.2)):
        error = math.sqrt(share * (1 - share) / MANY)
        assert float(kind.float().mean()) == pytest.approx(share, abs=4 * error)
    assert bool((known | same | cloned).all())
    assert not bool(guessed[known].any())


def test_independent_levels_are_uniform_and_all_are_guessed() -> None:
    levels, guessed = _drawn(_only("independent"))
    assert bool(_later(guessed).all())
    for stream in range(4):
        ranks = _later(levels)[..., stream].flatten().sort().values
        # Kolmogorov and Smirnov: the largest distance from the diagonal is below 1.63 / sqrt(n) in 99 of 100.
        assert float((ranks - torch.linspace(0, 1, len(ranks))).abs().max()) < 1.63 / math.sqrt(len(ranks))
    together = torch.corrcoef(_later(levels).flatten(0, 1).T) - torch.eye(4)
    assert float(together.abs().max()) < 0.03
    assert float(torch.corrcoef(torch.stack([levels[:, 3, HAND], levels[:, 4, HAND]]))[0, 1].abs()) < 0.07


def test_a_shared_level_is_one_for_a_sequence_and_all_are_guessed() -> None:
    levels, guessed = _drawn(_only("shared"))
    assert bool((_later(levels) == levels[:, :1, :1]).all())
    assert bool(_later(guessed).all())
    assert len(set(levels[:, 0, HAND].tolist())) > MANY // 2


def test_a_pyramid_is_clean_up_to_a_token_and_rises_evenly_from_there() -> None:
    levels, guessed = _drawn(_only("pyramid"))
    rows, begins = levels[..., HAND], set()
    assert bool((_later(levels) == _later(rows)[..., None]).all())
    torch.testing.assert_close(_later(guessed), (_later(rows) > 0)[..., None].expand(-1, -1, 4))
    for row in rows[:300]:
        begin = int((row == 0).sum())  # a level of exactly 0 is never drawn
        begins.add(begin)
        assert bool((row[:begin] == 0).all())
        steps = row[begin:].diff()[row[begin + 1 :] < 1]
        if len(steps) > 1:
            torch.testing.assert_close(steps, steps[:1].expand_as(steps), atol=1e-5, rtol=0.0)
            assert 0 <= float(steps[0]) <= 1
    assert begins == set(range(1, LENGTH))


def test_teacher_forcing_guesses_one_token_from_a_clean_past_and_shows_nothing_behind_it() -> None:
    """Of three tokens the second or the third, at some level u: 0 u 1 or 0 0 u."""
    levels, guessed = _drawn(_only("next_token"), length=3)
    seen = set[tuple[str, ...]]()
    for row, counted in zip(levels, guessed, strict=True):
        told = ["u" if 0 < level < 1 else str(int(level)) for level in row[:, HAND].tolist()]
        seen.add(tuple(told))
        one = told.index("u")
        assert bool((row[1:] == row[1:, :1]).all())
        assert counted.tolist() == [[token == one] * 4 for token in range(3)]
    assert seen == {("0", "u", "1"), ("0", "0", "u")}
    assert 0.45 < float((levels[:, 2, HAND] == 1).float().mean()) < 0.55
    assert 0.45 < float(levels[levels[:, 2, HAND] == 1][:, 1, HAND].mean()) < 0.55


def test_cloning_guesses_one_token_out_of_nothing_but_a_clean_past() -> None:
    levels, guessed = _drawn(_only("cloned"), length=3)
    assert {tuple(row) for row in levels[..., HAND].int().tolist()} == {(0, 1, 1), (0, 0, 1)}
    assert set(levels.flatten().tolist()) == {0.0, 1.0}
    for row, counted in zip(levels, guessed, strict=True):
        one = row[:, HAND].tolist().index(1.0)
        assert counted.tolist() == [[token == one] * 4 for token in range(3)]


def test_a_past_that_is_only_recalled_is_clean_and_nothing_of_it_is_guessed() -> None:
    levels, guessed = _drawn(_only("recalled", **PLAIN))
    assert bool((_later(levels) == 0).all())
    assert bool((levels[:, 0, [CAMERA, HAND, FORCE]] == 0).all())
    assert not bool(guessed.any())


def test_of_a_recalled_past_that_share_of_tokens_is_guessed_each_at_one_level() -> None:
    levels, guessed = _drawn(_only("recalled", **{**PLAIN, "guessed": 0.35}))
    assert bool((_later(levels) == _later(levels)[..., :1]).all())
    torch.testing.assert_close(_later(guessed), _later(levels) > 0)
    tokens = _later(guessed)[..., 0]
    assert float(tokens.float().mean()) == pytest.approx(0.35, abs=0.01)
    # Uniform up to 1.1 and cut: one in eleven is pure noise.
    noisy = _later(levels)[..., 0][tokens]
    assert float((noisy == 1).float().mean()) == pytest.approx(1 / 11, abs=0.01)
    assert float(noisy[noisy < 1].mean()) == pytest.approx(0.5, abs=0.01)


def test_a_guessed_token_whose_actions_lead_is_guessed_by_where_they_lead() -> None:
    levels, guessed = _drawn(_only("recalled", **{**PLAIN, "guessed": 1.0, "led": 0.4}))
    led = _later(levels)[..., ACTION] == 0
    assert float(led.float().mean()) == pytest.approx(0.4, abs=0.01)
    torch.testing.assert_close(_later(guessed)[..., ACTION], ~led)
    assert bool(_later(guessed)[..., [CAMERA, HAND, FORCE]].all())


def test_hidden_actions_are_unknown_all_along_and_nothing_else_is() -> None:
    levels, guessed = _drawn(_only("recalled", **{**PLAIN, "actions_hidden": 0.5}))
    hidden = levels[:, 1, ACTION] == 1
    assert float(hidden.float().mean()) == pytest.approx(0.5, abs=0.04)
    assert bool((_later(levels)[..., ACTION] == hidden[:, None]).all())
    assert bool((levels[..., [CAMERA, HAND, FORCE]] == 0).all())
    assert not bool(guessed.any())


def test_every_other_past_is_slightly_noisy() -> None:
    levels, guessed = _drawn(_only("recalled", **{**PLAIN, "slightly": 0.3}))
    noisy = _later(levels).flatten(1).amax(dim=1)
    assert float(noisy.max()) <= 0.3
    assert float((noisy > 0).float().mean()) == pytest.approx(0.5, abs=0.04)
    assert not bool(guessed.any())


@pytest.mark.parametrize(("streams", "hit"), [(SEEING, {CAMERA}), (BLIND, {CAMERA, HAND, FORCE})])
def test_what_is_lost_is_a_cameras_where_there_is_one_else_any_sensors_and_never_an_action(
    streams: Streams, hit: set[int]
) -> None:
    levels, guessed = _drawn(_only("recalled", **{**PLAIN, "lost": 0.6}), streams=streams, length=40)
    missing = levels == 1
    missing[:, 0, ACTION] = False
    assert set(missing.flatten(0, 1).any(dim=0).nonzero()[:, 0].tolist()) == hit
    assert not bool(guessed.any())
    some = missing.any(dim=2)
    assert float(some.any(dim=1).float().mean()) == pytest.approx(0.6, abs=0.04)
    for row in some[some.any(dim=1)]:
        where = row.nonzero()[:, 0]
        assert len(where) == int(where[-1] - where[0]) + 1, "in one go"
    # For good in three of ten, and where a while reaches the end.
    for_good = some[some.any(dim=1)][:, -1]
    assert 0.3 < float(for_good.float().mean()) < 0.7


def test_without_cameras_one_sensor_is_lost_as_often_as_all() -> None:
    levels, _ = _drawn(_only("recalled", **{**PLAIN, "lost": 1.0}), streams=BLIND)
    lost = (_later(levels) == 1).any(dim=1)
    lost = lost[lost.any(dim=1)]
    streams = lost.sum(dim=1)
    assert set(streams.tolist()) == {1, 3}
    assert float((streams == 3).float().mean()) == pytest.approx(0.5, abs=0.04)
    alone = lost[streams == 1].float().mean(dim=0)
    torch.testing.assert_close(alone, torch.tensor([1.0, 1.0, 0.0, 1.0]) / 3, atol=0.05, rtol=0.0)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"lost": -0.1}, "lost must be from 0 to 1, got -0.1"),
        ({"led": 1.5}, "led must be from 0 to 1, got 1.5"),
        ({"slightly": math.nan}, "slightly must be from 0 to 1, got nan"),
        (
            {"recalled": 0.5},
            "recalled, independent, shared, pyramid, next_token and cloned must sum to 1, got 0.9",
        ),
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
