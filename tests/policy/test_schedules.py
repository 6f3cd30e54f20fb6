import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from forcing.policy.schedules import Kind, Schedule, pyramid

KINDS: list[Kind] = ["pyramid", "full_sequence", "autoregressive", "trapezoid"]


@given(
    kind=st.sampled_from(KINDS),
    horizon=st.integers(1, 30),
    steps=st.integers(1, 12),
    scale=st.floats(0, 4),
)
def test_every_matrix_starts_as_noise_ends_clean_and_never_rises(
    kind: Kind, horizon: int, steps: int, scale: float
) -> None:
    matrix = Schedule(kind=kind, sampling_steps=steps, uncertainty_scale=scale).matrix(horizon)
    assert (matrix[0] == 1).all()
    assert (matrix[-1] == 0).all()
    assert (np.diff(matrix, axis=0) <= 0).all()
    # No row is spent on nothing.
    assert (np.diff(matrix, axis=0).min(axis=1) < 0).all()


@given(horizon=st.integers(2, 30), steps=st.integers(1, 12), scale=st.floats(0, 4))
def test_in_a_pyramid_the_near_future_is_never_noisier_than_the_far(horizon: int, steps: int, scale: float) -> None:
    assert (np.diff(pyramid(horizon, steps, scale), axis=1) >= 0).all()


def test_the_pyramid_is_the_one_drawn_by_hand() -> None:
    thirds = [[3, 3, 3], [2, 3, 3], [1, 2, 3], [0, 1, 2], [0, 0, 1], [0, 0, 0]]
    np.testing.assert_allclose(pyramid(3, 3, 1.0), np.array(thirds) / 3)


def test_half_an_uncertainty_scale_moves_tokens_in_pairs() -> None:
    halves = [[2, 2, 2, 2], [1, 1, 2, 2], [0, 0, 1, 1], [0, 0, 0, 0]]
    np.testing.assert_allclose(pyramid(4, 2, 0.5), np.array(halves) / 2)


def test_the_trapezoid_is_the_one_drawn_by_hand() -> None:
    halves = [[2, 2, 2, 2], [1, 2, 2, 1], [0, 1, 1, 0], [0, 0, 0, 0]]
    matrix = Schedule(kind="trapezoid", sampling_steps=2).matrix(4)
    np.testing.assert_allclose(matrix, np.array(halves) / 2)


def test_autoregressive_cleans_one_token_at_a_time() -> None:
    matrix = Schedule(kind="autoregressive", sampling_steps=2).matrix(3)
    assert len(matrix) == 2 * 3 + 1
    assert ((np.diff(matrix, axis=0) < 0).sum(axis=1) == 1).all()


def test_full_sequence_moves_all_tokens_together() -> None:
    matrix = Schedule(kind="full_sequence", sampling_steps=5).matrix(7)
    assert len(matrix) == 6
    assert (matrix == matrix[:, :1]).all()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"sampling_steps": 0}, "sampling_steps must be at least 1, got 0"),
        ({"uncertainty_scale": -1.0}, "uncertainty_scale must be at least 0, got -1.0"),
        ({"uncertainty_scale": float("nan")}, "uncertainty_scale must be at least 0, got nan"),
        ({"kind": "pyramide"}, "schedule must be pyramid, .*'pyramide'"),
    ],
)
def test_a_wrong_schedule_says_which_field_and_why(changes: dict[str, float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Schedule(**changes)  # type: ignore[arg-type]


def test_a_horizon_below_one_token_is_refused() -> None:
    with pytest.raises(ValueError, match="horizon must be at least 1 token, got 0"):
        Schedule().matrix(0)
