"""The bound on Gaussian processes, whose likelihood and whose best denoiser are known."""

import math

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.distributions import MultivariateNormal

from forcing.policy.elbo import elbo
from forcing.policy.noise import NoiseSchedule
from forcing.policy.sampler import Model
from forcing.policy.schedules import Schedule

SCHEDULE = NoiseSchedule(kind="cosine")
# Four tokens of a stationary walk: neighbours correlate by 0.7.
COVARIANCE = torch.tensor([[0.7 ** abs(i - j) for j in range(4)] for i in range(4)], dtype=torch.float64)
DATA, DRAWS = 200, 8


def _model(covariance: Tensor, bias: float = 0.0) -> Model:
    """E[x0 | x] of trajectories [L, 1] drawn from N(0, covariance), plus a bias; levels are those of the first row."""

    def denoise(x: Tensor, levels: Tensor, lengths: Tensor) -> Tensor:
        share = SCHEDULE.alpha_bar(levels[0, :, 0])
        signal = share.sqrt().diag()
        observed = signal @ covariance @ signal + (1 - share).diag()
        gain = covariance @ signal @ torch.linalg.pinv(observed)
        expected: Tensor = gain @ x + bias
        return expected

    return Model(denoise, SCHEDULE, torch.zeros(1, dtype=torch.long))


def _noised_covariance(levels: Tensor, covariance: Tensor = COVARIANCE) -> Tensor:
    share = SCHEDULE.alpha_bar(levels)
    return share.sqrt().diag() @ covariance @ share.sqrt().diag() + (1 - share).diag()


def _data(levels: Tensor, covariance: Tensor = COVARIANCE) -> Tensor:
    """[DATA, L] tokens at `levels`, drawn from their exact distribution."""
    factor: Tensor = torch.linalg.cholesky(_noised_covariance(levels, covariance))
    generator = torch.Generator().manual_seed(1)
    return torch.randn(DATA, len(levels), generator=generator, dtype=torch.float64) @ factor.T


def _log_likelihood(values: Tensor, covariance: Tensor) -> float:
    """Mean over the data; 0 for no tokens at all."""
    if values.shape[1] == 0:
        return 0.0
    zero = torch.zeros(values.shape[1], dtype=torch.float64)
    return float(MultivariateNormal(zero, covariance).log_prob(values).mean())  # type: ignore[no-untyped-call]


def _rows(count: int, final: Tensor) -> Tensor:
    """[count + 1, L, 1] all tokens together from pure noise to their final levels."""
    return (1 - torch.linspace(0, 1, count + 1, dtype=torch.float64)[:, None] * (1 - final))[..., None]


def _bound(values: Tensor, rows: Tensor, model: Model | None = None, draws: int = DRAWS) -> float:
    lengths = torch.full((len(values),), values.shape[1])
    generator = torch.Generator().manual_seed(2)
    return float(elbo(model or _model(COVARIANCE), values[..., None], lengths, rows, generator, draws).mean())


INDEPENDENT = torch.eye(4, dtype=torch.float64)


def _gap(exact: float, values: Tensor, rows: Tensor, draws: int = DRAWS) -> float:
    """How far the best denoiser's bound is below `exact`, with a sixteenth of the variance that `_bound` has.

    The same draws also bound the likelihood under independent tokens, where the bound is tight (see the first test):
    what that misses is chance, and chance that both have in common.
    """
    falls = (rows[-1] < rows[0])[:, 0]
    known = _log_likelihood(values[:, falls], torch.eye(int(falls.sum()), dtype=torch.float64))
    chance = _bound(values, rows, _model(INDEPENDENT), draws) - known
    return exact - (_bound(values, rows, draws=draws) - chance)


def _levels(*levels: float) -> Tensor:
    return torch.tensor(levels, dtype=torch.float64)


@pytest.mark.parametrize("rows", [1, 2, 5])
def test_for_independent_standard_normal_tokens_the_bound_is_the_likelihood_with_any_number_of_rows(rows: int) -> None:
    # Their reverse steps have just the variance that the bound gives them.
    final = _levels(0.0, 0.3, 1.0, 0.6)
    values = _data(final, INDEPENDENT)
    exact = _log_likelihood(values[:, [0, 1, 3]], torch.eye(3, dtype=torch.float64))
    assert _bound(values, _rows(rows, final), _model(INDEPENDENT), draws=400) == pytest.approx(exact, abs=0.02)


@pytest.mark.parametrize("final", [(0.0, 0.0, 0.0, 0.0), (0.1, 0.4, 0.1, 0.4)], ids=["clean", "noised"])
def test_the_bound_of_the_best_denoiser_rises_to_the_likelihood_at_first_order(final: tuple[float, ...]) -> None:
    levels = _levels(*final)
    values = _data(levels)
    exact = _log_likelihood(values, _noised_covariance(levels))
    counts = np.array([4, 8, 16])
    gaps = [_gap(exact, values, _rows(count, levels), draws=64) for count in counts]
    assert all(gap > 0 for gap in gaps)
    order = -np.polyfit(np.log(counts), np.log(gaps), 1)[0]
    assert 0.8 < order < 1.2
    assert gaps[-1] < 0.12


@pytest.mark.parametrize("kind", ["pyramid", "autoregressive"])
def test_the_bound_holds_along_matrices_in_which_tokens_take_turns(kind: str) -> None:
    clean = _levels(0.0, 0.0, 0.0, 0.0)
    values = _data(clean)
    matrix = torch.from_numpy(Schedule(kind=kind, sampling_steps=16, uncertainty_scale=4).matrix(4))  # type: ignore[arg-type]
    gap = _gap(_log_likelihood(values, COVARIANCE), values, matrix.double()[..., None])
    assert 0 < gap < 0.2


def test_a_wrong_denoiser_has_a_lower_bound() -> None:
    clean = _levels(0.0, 0.0, 0.0, 0.0)
    values, rows = _data(clean), _rows(16, clean)
    best = _bound(values, rows)
    assert _bound(values, rows, _model(COVARIANCE, bias=0.1)) < best - 0.05
    assert _bound(values, rows, _model(INDEPENDENT)) < best - 0.5


def test_tokens_at_pure_noise_are_integrated_out_whatever_they_are() -> None:
    final = _levels(0.0, 1.0, 0.0, 1.0)
    values = _data(_levels(0.0, 0.0, 0.0, 0.0))
    rows = _rows(16, final)
    exact = _log_likelihood(values[:, [0, 2]], COVARIANCE[[0, 2]][:, [0, 2]])
    gap = _gap(exact, values, rows, draws=64)
    assert 0 < gap < 0.05
    values[:, [1, 3]] = float("nan")
    assert _gap(exact, values, rows, draws=64) == gap


def test_known_tokens_are_given_clean_or_with_their_noise() -> None:
    final = _levels(0.0, 0.0, 0.0, 0.3)
    values = _data(final)
    rows = _rows(16, final)
    rows[:, 0], rows[:, 3] = 0.0, 0.3
    covariance = _noised_covariance(final)
    given = [0, 3]
    exact = _log_likelihood(values, covariance) - _log_likelihood(values[:, given], covariance[given][:, given])
    assert 0 < _gap(exact, values, rows, draws=64) < 0.1


def test_padding_does_not_count() -> None:
    values = torch.cat([_data(_levels(0, 0, 0, 0)), torch.full((DATA, 2), 7.0, dtype=torch.float64)], dim=1)
    covariance = torch.eye(6, dtype=torch.float64)
    covariance[:4, :4] = COVARIANCE
    model = _model(covariance)
    rows = _rows(4, _levels(0, 0, 0, 0, 0, 0))
    lengths, short = torch.full((DATA,), 6), torch.full((DATA,), 4)
    whole, cut = (
        elbo(model, values[..., None], n, rows, torch.Generator().manual_seed(0)).mean() for n in (lengths, short)
    )
    # Two independent standard normal tokens of value 7 make all the difference.
    assert float(cut - whole) == pytest.approx(7**2 + math.log(2 * math.pi), rel=0.1)


def test_rows_may_differ_from_trajectory_to_trajectory() -> None:
    clean = _levels(0.0, 0.0, 0.0, 0.0)
    values, rows = _data(clean), _rows(4, clean)
    each = rows[:, None].expand(-1, DATA, -1, -1)
    assert _bound(values, each) == _bound(values, rows)


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        (torch.zeros(2, 3, 1), r"rows must be \[M, 4, S\] or \[M, 1, 4, S\], got \[2, 3, 1\]"),
        (torch.tensor([1.0, 0.5, 0.6]).view(3, 1, 1).expand(3, 4, 1), "levels must not rise from row to row"),
        (torch.tensor([0.9, 0.5]).view(2, 1, 1).expand(2, 4, 1), "levels that fall must begin at 1"),
        (torch.full((2, 4, 1), float("nan")), "levels must be from 0 to 1"),
    ],
)
def test_levels_that_make_no_bound_are_refused(rows: Tensor, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        elbo(_model(COVARIANCE), torch.zeros(1, 4, 1), torch.tensor([4]), rows, torch.Generator())
