"""Objectives against finite differences, against algebra, and against what must not matter to them."""

from collections.abc import Callable, Mapping

import numpy as np
import pytest
import torch
from torch import Tensor

from forcing.policy.objectives import (
    Objective,
    avoid,
    reach,
    reward,
    smooth,
    sooner,
    to_physical,
    weighted_sum,
)
from forcing.policy.tokens import Tokenizer
from forcing.policy.types import Array, Obstacles

GOAL = np.array([2.0, -1.0])
BALLS = Obstacles(centres=np.array([[0.5, -2.0], [2.0, 1.0]]), radii=np.array([1.5, 2.5]), margin=0.5)
# History, three plan tokens at most, goal; the second row has one plan token and two of padding.
LENGTHS = torch.tensor([5, 3])
POSITION, VELOCITY = slice(0, 4), slice(4, 8)


def _speed_cost(frames: Mapping[str, Tensor]) -> Tensor:
    return -frames["velocity"].square().sum(dim=-1) + frames["position"][..., 0] * frames["action"][..., 1]


KINDS: dict[str, Callable[[Tokenizer], Objective]] = {
    "reach": lambda tokenizer: reach(tokenizer, GOAL),
    "sooner": lambda tokenizer: sooner(tokenizer, GOAL, radius=1.5, discount=0.9),
    "reward": lambda tokenizer: reward(tokenizer, _speed_cost),
    "avoid": lambda tokenizer: avoid(tokenizer, BALLS, "position"),
    "smooth": lambda tokenizer: smooth(tokenizer, "position"),
}
kinds = pytest.mark.parametrize("kind", KINDS)


@pytest.fixture
def tokens(tokenizer: Tokenizer) -> Tensor:
    generator = torch.Generator().manual_seed(3)
    return 0.5 * torch.randn(2, 2, 5, tokenizer.width, generator=generator, dtype=torch.float64)


def _at(tokenizer: Tokenizer, position: Array, velocity: Array) -> Tensor:
    """[1, 1, 5, D] tokens of 6 planned frames after one history token that stands where the first of 7 frames is."""
    tokens = torch.zeros(1, 1, 5, tokenizer.width, dtype=torch.float64)
    for name, where, frames in (("position", POSITION, position), ("velocity", VELOCITY, velocity)):
        shown = np.concatenate([frames[:1], frames])
        tokens[0, 0, :4, where] = tokenizer.encode_frames(name, shown).double()
    return tokens


@kinds
def test_every_gradient_is_what_finite_differences_say(kind: str, tokenizer: Tokenizer, tokens: Tensor) -> None:
    objective = KINDS[kind](tokenizer)
    # The newest history frame enters `smooth` as a constant, so history is held still here.
    history = tokens[:, :, :1]

    def of_the_rest(rest: Tensor) -> Tensor:
        return objective(torch.cat([history, rest], dim=2), LENGTHS)

    assert torch.autograd.gradcheck(of_the_rest, tokens[:, :, 1:].clone().requires_grad_())


@kinds
def test_history_goal_token_and_padding_get_no_gradient_and_garbage_in_them_changes_nothing(
    kind: str, tokenizer: Tokenizer, tokens: Tensor
) -> None:
    objective = KINDS[kind](tokenizer)
    tokens.requires_grad_()
    returns = objective(tokens, LENGTHS)
    gradient = torch.autograd.grad(returns.sum(), tokens)[0]
    elsewhere = torch.ones(2, 2, 5, dtype=torch.bool)
    elsewhere[0, :, 1:4] = elsewhere[1, :, 1] = False
    assert bool((gradient[elsewhere] == 0).all())
    assert bool((gradient[~elsewhere] != 0).any(dim=-1).any())
    if kind == "smooth":  # what a plan starts from is not garbage to it
        elsewhere[:, :, 0] = False
    spoilt = torch.where(elsewhere[..., None], torch.nan, tokens).detach().requires_grad_()
    again = objective(spoilt, LENGTHS)
    assert torch.equal(again, returns)
    assert torch.equal(torch.autograd.grad(again.sum(), spoilt)[0], gradient)


@kinds
def test_every_sample_has_a_return_of_its_own(kind: str, tokenizer: Tokenizer, tokens: Tensor) -> None:
    objective = KINDS[kind](tokenizer)
    returns = objective(tokens, LENGTHS)
    assert returns.shape == (2, 2)
    for row in range(2):
        for sample in range(2):
            alone = objective(tokens[row, sample][None, None], LENGTHS[row : row + 1])
            assert float(alone) == pytest.approx(float(returns[row, sample]))


def test_composition_is_the_weighted_sum_of_returns_and_so_of_gradients(tokenizer: Tokenizer, tokens: Tensor) -> None:
    terms = [(weight, KINDS[kind](tokenizer)) for weight, kind in ((2.0, "reach"), (0.5, "avoid"), (3.0, "smooth"))]
    tokens.requires_grad_()
    together = weighted_sum(*terms)(tokens, LENGTHS)
    one_by_one = (
        2 * terms[0][1](tokens, LENGTHS) + 0.5 * terms[1][1](tokens, LENGTHS) + 3 * terms[2][1](tokens, LENGTHS)
    )
    torch.testing.assert_close(together, one_by_one)
    gradients = [torch.autograd.grad(values.sum(), tokens)[0] for values in (together, one_by_one)]
    torch.testing.assert_close(*gradients)


def test_reaching_is_half_the_mean_squared_normalised_miss_of_the_last_planned_frame(tokenizer: Tokenizer) -> None:
    # x spreads by 2 m and y by 4 m: 6 and 16 m off are 3 and 4 standard deviations.
    path = np.zeros((7, 2))
    path[-1] = GOAL + np.array([6, 16])
    objective = reach(tokenizer, GOAL)
    assert float(objective(_at(tokenizer, path, path), LENGTHS[:1])) == pytest.approx(-0.5 * (9 + 16) / 2)


def test_sooner_counts_the_frames_away_from_the_goal(tokenizer: Tokenizer) -> None:
    path = np.tile(GOAL, (7, 1))
    path[1] += [1e6, 0]
    path[2] += [3, 4]
    # 5 m with a radius of 12 m: 1 - 12 / 13. Four frames are there.
    for discount, expected in ((1.0, 1 + 1 / 13), (0.5, 1 + 0.5 / 13)):
        objective = sooner(tokenizer, GOAL, radius=12.0, discount=discount)
        assert float(objective(_at(tokenizer, path, path), LENGTHS[:1])) == pytest.approx(-expected, abs=1e-4)


def test_avoiding_is_half_the_squared_depth_in_standard_deviations(tokenizer: Tokenizer) -> None:
    obstacle = Obstacles(centres=np.array([[10.0, 10.0]]), radii=np.array([2.0]), margin=1.0)
    path = np.zeros((7, 2))
    # The mean standard deviation is 3 m. Distances 3.1 (out), 2.4 (in the margin by 0.6) and 1.5 (deep by 1.5).
    path[1:4] = np.array([[13.1, 10], [10, 12.4], [8.5, 10]])
    tokens = _at(tokenizer, path, path).requires_grad_()
    returns = avoid(tokenizer, obstacle, "position")(tokens, LENGTHS[:1])
    assert float(returns.detach()) == pytest.approx(-0.5 * (0.2**2 + 0.5**2), rel=1e-5)
    gradient = torch.autograd.grad(returns.sum(), tokens)[0][0, 0, :, POSITION].reshape(-1, 2)
    # It pushes straight outwards, by depth times the entry's scale: 0.2 * 4 / 3 up, 0.5 * 2 / 3 to the left.
    expected = np.array([[0, 0], [0, 0.2 * 4 / 3], [-0.5 * 2 / 3, 0]])
    np.testing.assert_allclose(gradient[2:5], expected, atol=1e-5)


def test_a_line_at_constant_velocity_is_smooth_and_a_planted_jump_counts_as_worked_out_by_hand(
    tokenizer: Tokenizer,
) -> None:
    # Frames are 0.4 s apart.
    speed = np.tile([0.5, -1.0], (7, 1))
    path = np.array([1.0, 2.0]) + 0.4 * np.arange(7)[:, None] * speed
    objective = smooth(tokenizer, "position")
    assert float(objective(_at(tokenizer, path, speed), LENGTHS[:1])) == pytest.approx(0, abs=1e-10)
    # A jump of 3 m, one standard deviation, disagrees with the velocity once; of the second differences it touches
    # two, at the first and the last frame one.
    for frame, second_differences in ((1, 1), (3, 2), (6, 1)):
        jumped = path.copy()
        jumped[frame:] += [1.8, 2.4]
        cost = objective(_at(tokenizer, jumped, speed), LENGTHS[:1])
        assert float(cost) == pytest.approx(-0.5 * (1 + second_differences), rel=1e-5)


def test_the_tokens_of_objectives_mean_what_the_tokenizer_says_they_mean(tokenizer: Tokenizer, tokens: Tensor) -> None:
    decoded, physical = tokenizer.decode(tokens), to_physical(tokenizer, tokens)
    assert list(physical) == list(decoded)
    for name, values in decoded.items():
        np.testing.assert_allclose(physical[name].numpy(), values)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"radii": np.array([1.0])}, r"centres must be \[M, d\] and radii \[M\], got \(2, 2\) and \(1,\)"),
        ({"radii": np.array([1.0, 0.0])}, r"radii must be positive, got \[1.0, 0.0\]"),
        ({"centres": np.full((2, 2), np.nan)}, "centres must be finite"),
        ({"margin": -0.1}, "margin must be at least 0, got -0.1"),
    ],
)
def test_obstacles_that_make_no_sense_are_refused(fields: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Obstacles(**{"centres": np.zeros((2, 2)), "radii": np.ones(2), **fields})  # type: ignore[arg-type]


def test_obstacles_of_another_dimension_are_refused(tokenizer: Tokenizer) -> None:
    with pytest.raises(ValueError, match="centres must have 2 entries each, as stream 'position' has, got 3"):
        avoid(tokenizer, Obstacles(centres=np.zeros((1, 3)), radii=np.ones(1)), "position")


def test_a_reward_that_is_not_one_number_a_frame_is_refused(tokenizer: Tokenizer, tokens: Tensor) -> None:
    with pytest.raises(ValueError, match=r"reward must be \[B, N, F\] \(2, 2, 6\), got \(2, 2\)"):
        reward(tokenizer, lambda frames: frames["position"].sum(dim=(2, 3)))(tokens, LENGTHS)
