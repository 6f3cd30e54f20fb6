import pytest

from forcing.envs.maze_grid import cell_at, cell_center, shortest_path

# The ring has two ways from A to B; the left one is two cells shorter.
RING = [
    [1, 1, 1, 1, 1, 1],
    [1, 0, 0, 0, 0, 1],
    [1, 0, 1, 1, 0, 1],
    [1, 0, 0, 0, 0, 1],
    [1, 1, 1, 1, 1, 1],
]
SPLIT = [[0, 1, 0]]


def test_cell_centres_follow_the_origin_at_the_middle_of_the_maze() -> None:
    assert cell_center(RING, (1, 1)) == (-1.5, 1.0)
    assert cell_center(RING, (3, 4)) == (1.5, -1.0)


def test_a_position_belongs_to_the_cell_around_it() -> None:
    assert cell_at(RING, (-1.99, 1.49)) == (1, 1)
    assert cell_at(RING, (-1.01, 0.51)) == (1, 1)
    assert cell_at(RING, (-0.99, 0.49)) == (2, 2)


def test_the_shorter_way_round_a_ring_is_taken() -> None:
    assert shortest_path(RING, (1, 2), (3, 1)) == [(1, 2), (1, 1), (2, 1), (3, 1)]
    assert shortest_path(RING, (1, 3), (3, 4)) == [(1, 3), (1, 4), (2, 4), (3, 4)]


def test_a_path_to_the_same_cell_is_that_cell() -> None:
    assert shortest_path(RING, (1, 2), (1, 2)) == [(1, 2)]


def test_a_path_never_leaves_the_maze_through_a_missing_border() -> None:
    assert shortest_path([[0, 0], [1, 0], [0, 0]], (0, 0), (2, 0)) == [(0, 0), (0, 1), (1, 1), (2, 1), (2, 0)]


def test_impossible_questions_are_refused() -> None:
    with pytest.raises(ValueError, match=r"goal must be reachable, got \(0, 2\)"):
        shortest_path(SPLIT, (0, 0), (0, 2))
    with pytest.raises(ValueError, match=r"start must be a free cell, got the wall at \(0, 1\)"):
        shortest_path(SPLIT, (0, 1), (0, 2))
    with pytest.raises(ValueError, match="position must lie inside the maze"):
        cell_at(SPLIT, (1.6, 0.0))
