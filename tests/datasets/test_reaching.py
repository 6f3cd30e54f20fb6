"""Ways over visited cells against a maze drawn by hand and against brute force; the cost against states set by hand."""

import itertools

import numpy as np
import pytest
from numpy.typing import NDArray

from forcing.datasets.reaching import OUTSIDE_WEIGHT, VisitedDistance, reach_cost
from forcing.policy.support import Support

DIAGONAL = np.sqrt(2.0)


def drawn(picture: str) -> Support:
    """`#` is visited; rows are the first axis; cells have side 1 and cell (i, j) its middle at (i + 0.5, j + 0.5)."""
    visited = np.array([[letter == "#" for letter in line] for line in picture.split()])
    return Support(origin=np.zeros(2), cell=1.0, visited=visited)


def middle(*index: int) -> NDArray[np.float64]:
    return np.array(index) + 0.5


def test_the_way_leads_round_what_was_not_visited_and_across_corners() -> None:
    distance = VisitedDistance(
        drawn("""
            #...#
            #.###
            ##.##
        """)
    )
    field = distance.field(middle(0, 0))
    found = dict(zip(distance.nodes.tolist(), field.tolist(), strict=True))
    # Down the left side, through the bottom, and over two corners to the right.
    expected = {
        (0, 0): 0.0,
        (1, 0): 1.0,
        (2, 0): 2.0,
        (2, 1): 1.0 + DIAGONAL,
        (1, 2): 1.0 + 2 * DIAGONAL,
        (1, 3): 2.0 + 2 * DIAGONAL,
        (2, 3): 1.0 + 3 * DIAGONAL,
        (0, 4): 2.0 + 3 * DIAGONAL,
        (1, 4): 3.0 + 2 * DIAGONAL,
        (2, 4): 2.0 + 3 * DIAGONAL,
    }
    assert found == pytest.approx({5 * i + j: way for (i, j), way in expected.items()})


@pytest.mark.parametrize("shape", [(30,), (7, 8), (4, 5, 4)])
def test_the_way_is_the_shortest_that_brute_force_finds(shape: tuple[int, ...]) -> None:
    visited = np.random.default_rng(len(shape)).random(shape) < 0.6
    support = Support(origin=np.zeros(len(shape)), cell=0.5, visited=visited)
    distance = VisitedDistance(support)
    index = np.argwhere(visited)
    apart = np.abs(index[:, None] - index[None])
    ways = np.where(apart.max(axis=-1) <= 1, 0.5 * np.linalg.norm(apart, axis=-1), np.inf)
    for over in range(len(index)):  # Floyd and Warshall
        ways = np.minimum(ways, ways[:, over, None] + ways[None, over])
    for node, goal in enumerate(support.centres(distance.nodes)):
        np.testing.assert_allclose(distance.field(goal), ways[node], rtol=1e-6)
    reachable = np.isfinite(ways).sum(axis=1)
    part = distance.largest_part()
    assert len(part) == reachable.max()
    assert np.isfinite(ways[np.ix_(np.isin(distance.nodes, part), np.isin(distance.nodes, part))]).all()


def test_outside_the_visited_cells_the_way_goes_over_the_nearest_of_them() -> None:
    distance = VisitedDistance(drawn("##...#"))
    fields = np.stack([distance.field(middle(0, 0)), distance.field(middle(0, 5))])
    cells = np.array([[0, 1, 2], [4, 2, 5]])
    # Cell 2 lies one beside cell 1; cell 4 one beside cell 5, which hangs together with none of the first.
    assert distance.ways(fields, cells).tolist() == [[0.0, 1.0, 2.0], [1.0, np.inf, 0.0]]
    assert distance.field(middle(0, 3))[1] in (0.0, np.inf)


def test_no_visited_cell_at_all_is_refused() -> None:
    with pytest.raises(ValueError, match="at least 1 visited cell, got none"):
        VisitedDistance(drawn(".... ...."))


def _cost(states: list[list[float]], goal: float, *, stops: bool) -> float:
    """Of one robot and one sequence on a row of ten visited cells; position, then a number that does not matter."""
    distance = VisitedDistance(drawn("##########"))
    at = np.array([[0.5, goal]])
    cost = reach_cost(
        distance,
        slice(1, 3),
        at,
        distance.field(at[0])[None],
        np.array([stops]),
        reached=0.3,
        pace=0.5,
    )
    rows = np.array([[7.0, 0.5, where] for [where] in states], dtype=np.float32)
    return float(cost(rows[None, None])[0, 0])


def test_passing_costs_the_steps_before_the_goal_and_nothing_afterwards() -> None:
    assert _cost([[2.5], [3.0], [3.5], [9.5]], goal=3.5, stops=False) == pytest.approx(2.0)


def test_a_goal_that_is_not_reached_costs_the_way_that_is_left_at_full_pace() -> None:
    # Two steps, and 3 cells at half a cell a step.
    assert _cost([[0.5], [1.5]], goal=4.5, stops=False) == pytest.approx(2 + 3 / 0.5)


def test_staying_costs_the_mean_way_and_that_at_the_end() -> None:
    assert _cost([[2.5], [3.5], [3.4]], goal=3.5, stops=True) == pytest.approx((1.1 / 3 + 0.1) / 0.5, rel=1e-5)
    still, through = ([[3.5]] * 4, [[3.0], [3.5], [4.0], [4.5]])
    assert _cost(still, goal=3.5, stops=True) < _cost(through, goal=3.5, stops=True)
    assert _cost(still, goal=3.5, stops=False) <= _cost(through, goal=3.5, stops=False)


def test_every_step_outside_costs_by_how_far_outside_it_is() -> None:
    distance = VisitedDistance(drawn("#...... ......."))
    goals = np.array([[0.5, 0.5]])
    fields = distance.field(goals[0])[None]
    cost = reach_cost(distance, slice(0, 2), goals, fields, np.array([False]), reached=9.0, pace=1.0)
    for steps in itertools.product(range(4), repeat=2):
        states = np.array([[0.5, 0.5 + step] for step in steps], dtype=np.float32)
        assert cost(states[None, None])[0, 0] == pytest.approx(OUTSIDE_WEIGHT * sum(steps))


def test_each_robot_is_judged_by_its_own_goal() -> None:
    distance = VisitedDistance(drawn("##########"))
    goals = np.array([[0.5, 0.5], [0.5, 9.5]])
    fields = np.stack([distance.field(goal) for goal in goals])
    cost = reach_cost(distance, slice(0, 2), goals, fields, np.array([False, False]), reached=0.1, pace=1.0)
    states = np.array([[[[0.5, 2.5]], [[0.5, 0.5]]]] * 2, dtype=np.float32)
    # One step, and what is left of the way: two robots, two sequences each.
    assert cost(states).tolist() == [[3.0, 0.0], [8.0, 10.0]]
