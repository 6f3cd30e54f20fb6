"""Many draws of training levels, counted. Bounds are 4.5 standard deviations of the binomial, drawn once by seed."""

import math

import pytest
import torch
from torch import Tensor

from forcing.policy.levels import LevelMix, SequenceShape, draw_levels

DRAWS, PLAN, HISTORY = 20_000, 5, 2
SHAPE = SequenceShape(history=HISTORY, actions=(False, True, False), goal=0)
ACTION, GOAL = 1, 0
MIX = LevelMix(
    independent=0.3, shared=0.45, pyramid=0.25, history_clean=0.7, history_actions=0.4, goal_clean=0.5, goal_masked=0.2
)


def _draw(mix: LevelMix = MIX, shape: SequenceShape = SHAPE) -> Tensor:
    return draw_levels(mix, shape, DRAWS, PLAN, torch.Generator().manual_seed(0))


def _assert_share(found: Tensor, share: float) -> None:
    bound = 4.5 * math.sqrt(share * (1 - share) / len(found))
    assert float(found.double().mean()) == pytest.approx(share, abs=max(bound, 1e-12))


def _body(levels: Tensor) -> Tensor:
    return levels[:, HISTORY:-1]


def _assert_uniform(values: Tensor) -> None:
    """Kolmogorov and Smirnov: the largest gap to the diagonal exceeds 1.95 / sqrt(n) once in a thousand."""
    ranked, count = values.flatten().double().sort().values, values.numel()
    gap = torch.maximum(
        (torch.arange(1, count + 1) / count - ranked).abs().max(), (ranked - torch.arange(count) / count).abs().max()
    )
    assert float(gap) < 1.95 / math.sqrt(count)


def test_levels_are_one_for_each_stream_of_each_token_and_stay_between_clean_and_noise() -> None:
    levels = _draw()
    assert levels.shape == (DRAWS, HISTORY + PLAN + 1, 3)
    assert float(levels.min()) == 0
    assert float(levels.max()) == 1


def test_plans_are_noised_independently_together_or_as_a_pyramid_in_the_shares_asked_for() -> None:
    body = _body(_draw())
    streams_agree = (body == body[..., :1]).all(dim=-1).all(dim=-1)
    constant = (body == body[:, :1]).all(dim=-1).all(dim=-1)
    _assert_share(~streams_agree, MIX.independent)
    _assert_share(constant, MIX.shared)
    pyramid = body[streams_agree & ~constant][..., 0]
    _assert_share(streams_agree & ~constant, MIX.pyramid)
    # One slope, cut off at clean and at noise.
    assert bool((pyramid.diff(dim=1) >= 0).all())
    inside = (pyramid[:, :-1] > 0) & (pyramid[:, 1:] < 1)
    slope = pyramid.diff(dim=1)
    steepest = slope.where(inside, -1.0).max(dim=1).values
    flattest = slope.where(inside, 2.0).min(dim=1).values
    assert bool((steepest - flattest)[inside.sum(dim=1) > 1].abs().max() < 1e-6)


def test_independent_levels_are_uniform_and_know_nothing_of_each_other() -> None:
    body = _body(_draw(LevelMix(independent=1.0, shared=0.0, pyramid=0.0)))
    _assert_uniform(body)
    correlation = torch.corrcoef(body.reshape(DRAWS, -1).T)
    off_diagonal = correlation - torch.diag(correlation.diag())
    assert float(off_diagonal.abs().max()) < 4.5 / math.sqrt(DRAWS)


def test_shared_levels_are_uniform() -> None:
    _assert_uniform(_body(_draw(LevelMix(independent=0.0, shared=1.0, pyramid=0.0)))[:, 0, 0])


def test_history_is_clean_as_often_as_asked_for_and_uniform_otherwise() -> None:
    shown = _draw()[:, :HISTORY][..., [0, 2]]
    clean = (shown == 0).all(dim=-1).all(dim=-1)
    _assert_share(clean, MIX.history_clean)
    _assert_uniform(shown[~clean])


def test_actions_of_the_history_are_hidden_together_as_pure_noise_or_shown_like_the_rest() -> None:
    levels = _draw()[:, :HISTORY]
    hidden = (levels[..., ACTION] == 1).all(dim=1)
    _assert_share(~hidden, MIX.history_actions)
    assert bool((levels[~hidden][..., ACTION] < 1).all())
    assert bool((levels[..., [0, 2]] < 1).all())


def test_the_goal_is_clean_hidden_or_noisy_in_the_shares_asked_for() -> None:
    goal = _draw()[:, -1, GOAL]
    _assert_share(goal == 0, MIX.goal_clean)
    _assert_share(goal == 1, MIX.goal_masked)
    _assert_uniform(goal[(goal > 0) & (goal < 1)])


def test_the_goal_token_says_nothing_of_other_streams() -> None:
    assert bool((_draw()[:, -1, [1, 2]] == 1).all())


def test_without_a_goal_stream_the_goal_token_says_nothing_at_all() -> None:
    levels = _draw(shape=SequenceShape(history=HISTORY, actions=(False, True, False), goal=None))
    assert bool((levels[:, -1] == 1).all())


def test_teacher_forcing_is_clean_up_to_a_token_anywhere_and_pure_noise_behind_it() -> None:
    body = _body(_draw(LevelMix(independent=0.0, shared=0.0, pyramid=0.0, next_token=1.0)))
    assert bool((body == body[..., :1]).all())
    clean, noise = (body[..., 0] == 0).sum(dim=1), (body[..., 0] == 1).sum(dim=1)
    assert bool((clean + noise == PLAN - 1).all())
    for token in range(PLAN):
        _assert_share(clean == token, 1 / PLAN)
    rows = torch.arange(DRAWS)
    _assert_uniform(body[rows, clean, 0])
    assert bool((body[..., 0].diff(dim=1) >= 0).all())


def test_a_share_of_teacher_forcing_takes_its_windows_and_no_others() -> None:
    mix = LevelMix(independent=0.3, shared=0.45, pyramid=0.0, next_token=0.25)
    body = _body(_draw(mix))[..., 0]
    forced = ((body == 0) | (body == 1)).sum(dim=1) >= PLAN - 1
    _assert_share(forced, mix.next_token)


def test_without_teacher_forcing_the_random_stream_is_what_it_was() -> None:
    # Recorded before teacher forcing existed: policies trained then are trained the same way now.
    generator = torch.Generator().manual_seed(5)
    levels = draw_levels(LevelMix(), SHAPE, 64, PLAN, generator)
    assert float(levels.double().sum()) == pytest.approx(667.8072409033775, abs=1e-9)
    assert float(torch.rand(1, generator=generator)) == 0.4130271077156067


def test_the_same_generator_draws_the_same_levels() -> None:
    assert torch.equal(_draw(), _draw())


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"history_clean": 1.2}, "history_clean must be from 0 to 1, got 1.2"),
        ({"goal_masked": float("nan")}, "goal_masked must be from 0 to 1, got nan"),
        ({"independent": 0.5}, "independent, shared, pyramid and next_token must sum to 1, got 1.15"),
        ({"goal_clean": 0.7, "goal_masked": 0.4}, "goal_clean and goal_masked must sum to at most 1"),
    ],
)
def test_shares_that_make_no_sense_are_refused(fields: dict[str, float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        LevelMix(**fields)
