"""How unlikely a reading is, beside what was foreseen."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from scipy import stats

from forcing.policy.surprise import (
    AFTER,
    LEAST,
    WAYS,
    Residuals,
    Seen,
    Surprise,
    residuals_of,
    scale_of,
    unlikely,
)
from forcing.policy.types import StreamSpec, TrajectorySpec

SIGMA = np.array([0.1, 0.4])
SEEN = Seen(residual=np.zeros(2), ahead=1, unheard=(0, 0), noise=0.0, misfit=None)


@pytest.fixture(scope="module")
def gaussian() -> Residuals:
    """Of two numbers, `SIGMA` a step ahead and twice that two ahead, and k + 1 times as much after k tokens."""
    rng = np.random.default_rng(0)
    ahead = np.array([1.0, 2.0])[:, None] * SIGMA
    groups = [[(1 + after) * ahead * rng.standard_normal((4000, 2, 2)) for after in AFTER] for _ in range(WAYS)]
    groups[1][0] = groups[0][0]
    return residuals_of(groups)


def chi_square(residual: NDArray[np.float64], sigma: NDArray[np.float64]) -> float:
    return float(-np.log10(stats.chi2.sf(np.square(residual / sigma).sum(), 2)))


def test_the_likelihood_is_that_of_independent_t_and_of_a_normal_where_freedom_has_no_end() -> None:
    freedom, residual = np.array([1.0, 4.0, np.inf]), np.array([0.7, -2.0, 1.5])
    expected = -stats.t.logpdf(0.7, 1) - stats.t.logpdf(-2.0, 4) - stats.norm.logpdf(1.5)
    assert unlikely(residual, freedom) == pytest.approx(expected)


@pytest.mark.parametrize("freedom", [1.0, 4.0, np.inf])
def test_scales_are_the_likeliest(freedom: float) -> None:
    drawn = (stats.norm if np.isinf(freedom) else stats.t(freedom)).rvs(size=(20_000, 1, 1), random_state=2)
    assert scale_of(0.3 * drawn, np.array([freedom])) == pytest.approx(0.3, rel=0.03)


def test_what_is_never_off_has_the_least_scale() -> None:
    assert scale_of(np.zeros((50, 3, 2)), np.array([1.0, np.inf])) == pytest.approx(LEAST)


def test_normal_residuals_are_found_to_be_normal_and_surprise_as_chi_square_says(gaussian: Residuals) -> None:
    assert np.isinf(gaussian.freedom).all()
    for residual in np.array([[0.1, 0.1], [0.3, 0.0], [0.0, -1.4]]):
        found = gaussian.surprise(replace(SEEN, residual=residual))
        assert found == pytest.approx(chi_square(residual, SIGMA), abs=0.25)


def test_heavy_tails_are_found_and_make_the_same_distance_less_surprising(gaussian: Residuals) -> None:
    drawn = SIGMA * stats.t(2).rvs(size=(4000, 2, 2), random_state=3)
    heavy = residuals_of([[drawn] * len(AFTER)] * WAYS)
    assert set(heavy.freedom) <= {1.0, 2.0, 4.0}
    far = replace(SEEN, residual=5 * SIGMA)
    kind, strict = heavy.surprise(far), gaussian.surprise(far)
    assert kind is not None
    assert strict is not None
    assert kind < strict / 2


def test_what_is_farther_ahead_is_foreseen_less_exactly(gaussian: Residuals) -> None:
    residual = np.array([0.3, 0.3])
    found = gaussian.surprise(replace(SEEN, residual=residual, ahead=2))
    assert found == pytest.approx(chi_square(residual, 2 * SIGMA), abs=0.2)


def test_nothing_is_said_of_what_was_not_foreseen(gaussian: Residuals) -> None:
    assert gaussian.surprise(replace(SEEN, residual=None)) is None
    for ahead in (0, 3):
        assert gaussian.surprise(replace(SEEN, ahead=ahead)) is None


def test_a_jump_is_believed_again_once_a_stream_was_unheard_for_long(gaussian: Residuals) -> None:
    jump = replace(SEEN, residual=10 * SIGMA)
    found = [gaussian.surprise(replace(jump, unheard=(tokens, 0))) for tokens in (0, 1, 2, 4, 8, 16, 50)]
    # The kinder of the two ways counts, and that all were unheard is not claimed here: the first alone falls.
    alone = [gaussian.surprise(replace(jump, unheard=(tokens, tokens))) for tokens in (0, 1, 2, 4, 8, 16, 50)]
    for each in (found, alone):
        assert all(surprise is not None for surprise in each)
        assert each[0] > 10  # type: ignore[operator]
        assert each[-1] == each[-2] < 1  # type: ignore[operator]
        assert (np.diff(np.array(each, dtype=np.float64)[:-1]) < 0).all()


def test_between_tokens_that_were_measured_the_next_longer_counts(gaussian: Residuals) -> None:
    jump = replace(SEEN, residual=10 * SIGMA)
    assert gaussian.surprise(replace(jump, unheard=(3, 0))) == gaussian.surprise(replace(jump, unheard=(4, 0)))


def test_declared_noise_widens_the_scale(gaussian: Residuals) -> None:
    residual = np.array([0.3, 0.3])
    found = gaussian.surprise(replace(SEEN, residual=residual, noise=0.3))
    assert found == pytest.approx(chi_square(residual, np.hypot(SIGMA, 0.3)), abs=0.25)


def test_a_frame_counts_by_its_misfit_too_and_by_that_alone_where_nothing_was_foreseen(gaussian: Residuals) -> None:
    misfits = np.random.default_rng(1).standard_normal(20_000)
    camera = residuals_of([[SIGMA * np.random.default_rng(2).standard_normal((4000, 2, 2))] * 6] * WAYS, misfits)
    alone = camera.surprise(replace(SEEN, residual=None, misfit=stats.norm.isf(0.01)))
    assert alone == pytest.approx(2, abs=0.1)
    usual = camera.surprise(replace(SEEN, residual=SIGMA, misfit=0.0))
    strange = camera.surprise(replace(SEEN, residual=SIGMA, misfit=8.0))
    assert usual is not None
    assert strange is not None
    assert usual < 1
    assert strange > 3
    assert gaussian.surprise(replace(SEEN, misfit=8.0)) == gaussian.surprise(SEEN)  # numbers have none


def test_what_is_usual_comes_back_from_its_tensors(gaussian: Residuals) -> None:
    camera = replace(gaussian, misfit=gaussian.tails[0][0])
    spec = TrajectorySpec(
        streams=(
            StreamSpec(name="hand", role="observation", shape=(2,)),
            StreamSpec(name="eye", role="observation", shape=(2,)),
            StreamSpec(name="action", role="action", shape=(1,)),
        ),
        control_hz=10.0,
    )
    tensors = Surprise(streams={"hand": gaussian, "eye": camera}).tensors()
    again = Surprise.of_tensors(tensors, spec)
    seen = Seen(residual=np.array([0.2, -0.5]), ahead=2, unheard=(5, 1), noise=0.1, misfit=1.5)
    assert again.streams["hand"].surprise(seen) == gaussian.surprise(seen)
    assert again.streams["eye"].surprise(seen) == camera.surprise(seen) != gaussian.surprise(seen)


def test_tensors_that_do_not_fit_are_refused(gaussian: Residuals) -> None:
    streams = (
        StreamSpec(name="hand", role="observation", shape=(2,)),
        StreamSpec(name="action", role="action", shape=(1,)),
    )
    spec = TrajectorySpec(streams=streams, control_hz=10.0)
    kept = Surprise(streams={"hand": gaussian}).tensors()
    with pytest.raises(KeyError, match="tails"):
        Surprise.of_tensors({name: value for name, value in kept.items() if "tails" not in name}, spec)
    with pytest.raises(ValueError, match="residuals of 'hand' need positive scales"):
        Surprise.of_tensors(kept | {"hand.scale": -kept["hand.scale"]}, spec)
    with pytest.raises(ValueError, match="residuals of 'hand' need positive scales"):
        Surprise.of_tensors(kept | {"hand.freedom": torch.ones(3)}, spec)
    wider = (replace(streams[0], shape=(3,)), streams[1])
    with pytest.raises(ValueError, match="residuals of 'hand' must have 3 entries, got 2"):
        Surprise.of_tensors(kept, replace(spec, streams=wider))
