"""Visited cells against recordings drawn by hand and against scipy's distance transform."""

import numpy as np
import pytest
from scipy import ndimage

from forcing.policy.support import Support, fastest_step, visited_cells
from forcing.policy.types import StreamSpec, Trajectories, TrajectorySpec


def spec(size: int, goal: str | None = "position") -> TrajectorySpec:
    return TrajectorySpec(
        streams=(
            StreamSpec(name="position", role="observation", shape=(size,)),
            StreamSpec(name="action", role="action", shape=(size,), low=(-1.0,) * size, high=(1.0,) * size),
        ),
        control_hz=10.0,
        goal=goal,
    )


def recording(*episodes: list[list[float]], goal: str | None = "position") -> Trajectories:
    """The action of each step is what it moved, so that x' = x + a."""
    rows = [np.array(episode, dtype=np.float64) for episode in episodes]
    streams = {"position": np.concatenate(rows), "action": np.concatenate([np.diff(row, axis=0) for row in rows])}
    lengths = np.array([len(row) - 1 for row in rows])
    return Trajectories(spec=spec(rows[0].shape[1], goal), streams=streams, lengths=lengths)


def drawn(picture: str, cell: float = 0.5) -> Support:
    """`#` is visited; rows are the first axis."""
    lines = picture.split()
    return Support(
        origin=np.array([-1.0, 2.0]), cell=cell, visited=np.array([[c == "#" for c in line] for line in lines])
    )


def test_the_cells_of_every_row_and_of_the_middle_of_every_step_are_visited_and_no_others() -> None:
    recorded = recording([[0.0, 0.0], [1.0, 0.0], [1.0, 1.0]], [[4.0, 0.0], [4.0, 2.0]])
    support = visited_cells(recorded, cell_steps=1 / fastest_step(recorded))
    middles = support.centres(np.flatnonzero(support.visited))
    # The lowest position is a corner of its cell. From (4, 0) to (4, 2) a cell is passed over; from one episode's end
    # to the next one's start there is no way.
    there = [(0.5, 0.5), (1.5, 0.5), (1.5, 1.5), (4.5, 0.5), (4.5, 1.5), (4.5, 2.5)]
    assert sorted(map(tuple, middles.tolist())) == there


@pytest.mark.parametrize("cell_steps", [1.0, 0.5, 1 / 3, 0.2])
def test_a_fast_step_leaves_no_gap_however_fine_the_cells(cell_steps: float) -> None:
    recorded = recording([[float(step), 0.3 * step] for step in range(30)])
    visited = visited_cells(recorded, cell_steps=cell_steps).visited
    _, parts = ndimage.label(visited, structure=np.ones((3, 3)))
    assert parts == 1


def test_between_the_middles_of_cells_values_are_linear_and_beyond_the_grid_they_stay() -> None:
    support, rng = drawn("#.#. ..#. #..."), np.random.default_rng(0)
    values = rng.normal(size=(3, 4)).astype(np.float32)
    places = rng.uniform([-1.5, 1.0], [1.0, 4.5], size=(500, 2))
    index = (places - support.origin) / support.cell - 0.5
    expected = ndimage.map_coordinates(values.astype(np.float64), index.T, order=1, mode="nearest")
    np.testing.assert_allclose(support.between(values.reshape(-1), places), expected, atol=1e-9)
    middles = support.centres(np.arange(12))
    np.testing.assert_allclose(support.between(values.reshape(-1), middles), values.reshape(-1), atol=1e-6)


def test_a_cell_is_half_as_long_as_a_fast_step_and_resets_are_no_steps() -> None:
    slow = [[0.01 * step, 0.0] for step in range(100)]
    far = [[50.0 + 0.02 * step, 0.0] for step in range(100)]
    recorded = recording(slow, far)
    assert fastest_step(recorded) == pytest.approx(0.02)
    assert visited_cells(recorded).cell == pytest.approx(0.01)


def test_cells_and_middles_are_inverse_and_what_is_beyond_the_grid_counts_as_its_border() -> None:
    support = drawn("#.#. ..#. #...")
    every = np.arange(12)
    np.testing.assert_array_equal(support.cells(support.centres(every)), every)
    # Row 1, column 2 reaches from (-0.5, 3.0) to (0.0, 3.5).
    assert support.cells(np.array([-0.01, 3.49])) == 6
    assert support.cells(np.array([[-99.0, 99.0], [99.0, -99.0]])).tolist() == [3, 8]


@pytest.mark.parametrize("dimensions", [1, 2, 3])
def test_distance_is_that_of_scipys_distance_transform_up_to_the_most(dimensions: int) -> None:
    visited = np.random.default_rng(dimensions).random((9,) * dimensions) < 0.05
    visited.reshape(-1)[0] = True
    support = Support(origin=np.zeros(dimensions), cell=0.5, visited=visited)
    exact = ndimage.distance_transform_edt(~visited, sampling=0.5).reshape(-1)
    np.testing.assert_allclose(support.distance(1.7), np.minimum(exact, 1.7), atol=1e-6)


@pytest.mark.parametrize(
    ("recorded", "message"),
    [
        (recording([[0.0] * 4, [1.0] * 4]), "at most 3 numbers, the recording has 4 numbers in 'position'"),
        (recording([[0.0], [1.0]], goal=None), "at most 3 numbers, the recording has none"),
        (recording([[1.0, 1.0], [1.0, 1.0]]), "cell must be positive, got 0.0; does the recording move at all"),
        (recording([[0.0, 0.0, 0.0], [1.0, 1.0, 1.0]]), "cell 0.00173205 gives .* cells, at most 20000000 fit"),
    ],
)
def test_what_has_no_grid_is_refused_with_the_reason(recorded: Trajectories, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        visited_cells(recorded, cell_steps=1e-3 if "20000000" in message else 0.5)
