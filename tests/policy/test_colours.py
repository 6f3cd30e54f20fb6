"""Colours that come and go are told apart, with expected ones painted by hand."""

import numpy as np
import pytest
from numpy.typing import NDArray

from forcing.policy.colours import Tellers, tell_colours

GREY, RED, BLUE = (0.2, 0.2, 0.2), (0.9, 0.2, 0.2), (0.2, 0.2, 0.9)


def _grids(*, mean: bool = False) -> NDArray[np.float32]:
    """Grey pictures [60, 8, 8, 3], with a red or a blue corner in turn, nowhere for long; or the picture between."""
    grids = np.full((60, 8, 8, 3), GREY, np.float32)
    if not mean:
        for index, grid in enumerate(grids):
            row, column = index % 7, index // 7 % 7
            grid[row : row + 2, column : column + 2] = (RED, BLUE)[index % 2]
    return grids


def _told(tellers: Tellers, colour: tuple[float, ...]) -> NDArray[np.float64]:
    told: NDArray[np.float64] = tellers.weights @ np.array(colour) + tellers.bias
    return told


@pytest.mark.parametrize("seed", range(5))
def test_each_of_two_things_has_a_teller_that_is_one_at_its_colour_alone(seed: int) -> None:
    tellers = tell_colours(_grids(), _grids(mean=True)[0], 2, np.random.default_rng(seed))
    assert tellers is not None
    red, blue = int(_told(tellers, RED).argmax()), int(_told(tellers, BLUE).argmax())
    assert {red, blue} == {0, 1}
    assert _told(tellers, RED)[red] == pytest.approx(1, abs=0.02)
    assert _told(tellers, BLUE)[blue] == pytest.approx(1, abs=0.02)
    assert _told(tellers, RED)[blue] < 0
    assert _told(tellers, BLUE)[red] < 0


def test_where_nothing_changes_there_is_nothing_to_tell() -> None:
    assert tell_colours(_grids(mean=True), _grids(mean=True)[0], 2, np.random.default_rng(0)) is None


def test_shades_of_grey_and_more_tellers_than_colours_are_told_too() -> None:
    shades = _grids()[..., :1]
    tellers = tell_colours(shades, _grids(mean=True)[0, ..., :1], 5, np.random.default_rng(0))
    assert tellers is not None
    assert tellers.weights.shape == (5, 1)
    assert np.isfinite(tellers.weights).all()
    assert np.isfinite(tellers.bias).all()
