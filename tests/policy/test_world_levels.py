"""Levels on which models of the world are trained: where actions are known, and where observations share a level."""

import pytest
import torch
from torch import Tensor

from forcing.policy.memory import RecallMix, Streams, draw_behind, draw_whole

STREAMS = Streams(actions=(False, True, False), cameras=(False, False, True))
ACTION, SEEN = 1, [0, 2]
MANY, LENGTH = 4000, 5
KINDS = [(1.0, 0.0, 0.0), (0.0, 1.0, 0.0), (0.0, 0.0, 1.0)]


def _mix(independent: float, shared: float, pyramid: float, **more: float) -> RecallMix:
    return RecallMix(independent=independent, shared=shared, pyramid=pyramid, lost=0.0, **more)


def _whole(mix: RecallMix) -> tuple[Tensor, Tensor]:
    return draw_whole(mix, STREAMS, MANY, LENGTH, torch.Generator().manual_seed(0))


@pytest.mark.parametrize("kind", KINDS)
def test_known_actions_are_clean_everywhere_but_before_the_first_token_and_never_guessed(
    kind: tuple[float, float, float],
) -> None:
    levels, counted = _whole(_mix(*kind, known_actions=1.0))
    assert torch.unique(levels[:, :, ACTION], dim=0).tolist() == [[1, 0, 0, 0, 0]]
    assert not bool(counted[..., ACTION].any())
    assert bool(counted[:, -1, SEEN].all())


def test_behind_a_known_past_actions_are_known_there_and_of_the_guessed_token() -> None:
    generator = torch.Generator().manual_seed(0)
    mix = RecallMix(known_actions=1.0, slightly=1.0, lost=0.0)
    known, levels, counted = draw_behind(mix, STREAMS, MANY, LENGTH, generator)
    for each in (known, levels):
        assert torch.unique(each[:, :, ACTION], dim=0).tolist() == [[1, 0, 0, 0, 0]]
    assert not bool(counted[..., ACTION].any())
    assert bool(counted[..., SEEN].all())
    assert bool((known[..., SEEN] > 0).any())


def test_actions_are_known_in_the_share_of_sequences_that_is_asked_for() -> None:
    levels, _ = _whole(_mix(1.0, 0.0, 0.0, known_actions=0.3))
    told = (levels[:, 1:, ACTION] == 0).sum(dim=1)
    assert set(told.tolist()) == {0, LENGTH - 1}
    assert float((told > 0).float().mean()) == pytest.approx(0.3, abs=0.03)


def test_independent_levels_differ_by_stream_or_by_token_alone_as_often_as_is_asked_for() -> None:
    levels, _ = _whole(_mix(1.0, 0.0, 0.0, together=0.25, known_actions=1.0))
    same = (levels[..., 0] == levels[..., 2]).all(dim=1)
    assert float(same.float().mean()) == pytest.approx(0.25, abs=0.03)
    one = levels[same][..., 0]
    assert abs(float(torch.corrcoef(one[:, :2].T)[0, 1])) < 0.1
    assert float(one.mean()) == pytest.approx(0.5, abs=0.02)
    assert float(one.std()) == pytest.approx(12**-0.5, abs=0.02)
