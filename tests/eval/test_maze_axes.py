"""Each mark is where geometry says, in the colour that its meaning has."""

from collections.abc import Callable

import matplotlib
import numpy as np
import pytest
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from numpy.typing import NDArray

from forcing.envs.maze2d import MAZE_MAPS, floor_plan
from forcing.eval.maze_axes import draw_ends, draw_maze, draw_path, draw_plan, panel_aspect
from forcing.eval.palette import NOISE_COLORS
from forcing.policy.types import Array, Plan

WHITE, GREY, INK = (255, 255, 255), (198, 204, 212), (28, 36, 48)
Pixel = tuple[int, int, int]
Sample = Callable[[float, float], Pixel]


def maze_axes(maze: str = "medium") -> Axes:
    """Axes without margin, 100 pixels or more to the metre."""
    aspect = panel_aspect(floor_plan(maze))
    figure = Figure(figsize=(6, round(600 * aspect) / 100), dpi=200)
    axes = figure.add_axes((0, 0, 1, 1))
    draw_maze(axes, floor_plan(maze))
    return axes


def sampler(axes: Axes) -> Sample:
    """(x, y) in m to the red, green and blue drawn there."""
    figure = axes.get_figure(root=True)
    assert figure is not None
    canvas = FigureCanvasAgg(figure)
    canvas.draw()  # type: ignore[no-untyped-call]
    pixels: NDArray[np.uint8] = np.asarray(canvas.buffer_rgba())  # type: ignore[no-untyped-call]

    def at(x: float, y: float) -> Pixel:
        column, row = axes.transData.transform((x, y))
        red, green, blue, _ = pixels[round(len(pixels) - 1 - row), round(column)].tolist()
        return red, green, blue

    return at


def plan_through(frames: Array, level: Array, spread: float = 0.0, rivals: Array | None = None) -> Plan:
    chosen = frames[None]
    candidates = chosen if rivals is None else np.concatenate([rivals, chosen])
    return Plan(
        made_at_step=0,
        start={},
        steps=4 * np.arange(1, len(frames) + 1),
        streams={"position": frames},
        level=level,
        spread={"position": np.full(frames.shape, spread)},
        candidates=candidates,
        costs=np.arange(len(candidates), dtype=np.float64)[::-1],
        chosen=len(candidates) - 1,
        feasible=True,
        passes=3,
    )


def plasma(level: float) -> Pixel:
    red, green, blue, _ = (255 * np.array(matplotlib.colormaps["plasma"](0.86 * level))).round().astype(int).tolist()
    return red, green, blue


def close(pixel: Pixel, expected: Pixel, tolerance: int = 6) -> bool:
    return max(abs(a - b) for a, b in zip(pixel, expected, strict=True)) <= tolerance


def test_walls_are_grey_and_floors_white_as_in_the_maze_drawn_by_hand() -> None:
    at = sampler(maze_axes("umaze"))
    drawn = [[at(x, y) == GREY for x in (-1, 0, 1)] for y in (1, 0, -1)]
    assert drawn == [[False, False, False], [True, True, False], [False, False, False]]


@pytest.mark.parametrize("maze", sorted(MAZE_MAPS))
def test_every_inner_cell_of_every_maze_has_the_colour_of_its_kind(maze: str) -> None:
    at, rows = sampler(maze_axes(maze)), MAZE_MAPS[maze]
    for i in range(1, len(rows) - 1):
        for j in range(1, len(rows[0]) - 1):
            x, y = j + 0.5 - len(rows[0]) / 2, len(rows) / 2 - i - 0.5
            assert at(x, y) == (GREY if rows[i][j] == 1 else WHITE), (i, j)


def test_a_metre_is_as_long_upwards_as_sideways_in_an_oblong_maze() -> None:
    axes = maze_axes("large")
    axes.get_figure(root=True).set_size_inches(6, 6)  # type: ignore[union-attr]
    sampler(axes)
    (x0, y0), (x1, y1) = axes.transData.transform([(0, 0), (1, 1)])
    assert x1 - x0 == pytest.approx(y1 - y0, rel=1e-3)


def test_the_goal_is_dark_and_the_robot_a_white_disc_with_a_dark_rim() -> None:
    axes = maze_axes()
    draw_ends(axes, floor_plan("medium"), np.array([0.5, 2.5]), np.array([2.5, -2.5]))
    at = sampler(axes)
    assert at(2.5, -2.5) == INK
    assert at(0.5, 2.5) == WHITE  # in a wall, which is grey
    assert any(at(0.5 + dx, 2.5) == INK for dx in np.arange(0.03, 0.12, 0.005))


def test_the_driven_path_is_a_thin_dark_line_with_a_dot_every_twenty_steps() -> None:
    axes = maze_axes()
    draw_path(axes, np.stack([np.linspace(-2.5, -1.5, 41), np.linspace(2, 2, 41)], axis=1))
    at = sampler(axes)
    thick = {step: at(-2.5 + step / 40, 2.018) == INK for step in (10, 20, 30)}
    assert at(-2.25, 2) == at(-1.75, 2) == INK
    assert thick == {10: False, 20: True, 30: False}
    assert at(-1.3, 2) == WHITE


def test_each_planned_frame_has_the_colour_of_its_noise_level() -> None:
    frames, level = np.array([[-2.5, 2.5], [-2.0, 2.5], [-1.5, 2.5]]), np.array([0.0, 0.5, 1.0])
    axes = maze_axes()
    draw_plan(axes, floor_plan("medium"), plan_through(frames, level[:, None]), np.array([-2.5, 1.5]))
    at = sampler(axes)
    for (x, y), expected in zip(frames, level, strict=True):
        assert close(at(x, y), plasma(expected)), expected


def test_a_frame_counts_as_noisy_as_its_noisiest_stream() -> None:
    axes = maze_axes()
    draw_plan(
        axes,
        floor_plan("medium"),
        plan_through(np.array([[-2.0, 2.5]]), np.array([[0.0, 1.0, 0.25]])),
        np.array([-2.5, 2.5]),
    )
    assert close(sampler(axes)(-2.0, 2.5), plasma(1.0))


def test_noise_colours_lighten_steadily_so_that_they_read_without_hue() -> None:
    lightness = NOISE_COLORS(np.arange(256))[:, :3] @ np.array([0.2126, 0.7152, 0.0722])
    assert (np.diff(lightness) > -1e-3).all()
    assert lightness[-1] - lightness[0] > 0.6


def test_a_wide_spread_tints_the_floor_further_from_the_plan_than_a_narrow_one() -> None:
    frames = np.stack([np.linspace(-2.9, -1.2, 8), np.full(8, 2.0)], axis=1)
    tint = {}
    for spread in (0.05, 0.3):
        axes = maze_axes()
        draw_plan(axes, floor_plan("medium"), plan_through(frames, np.zeros((8, 1)), spread), frames[0])
        at = sampler(axes)
        tint[spread] = 255 - at(-2.0, 2.3)[0], 255 - at(-2.0, 2.1)[0]
    assert tint[0.05][0] == 0
    assert tint[0.05][1] > 3
    assert 10 < tint[0.3][0] < tint[0.3][1]


def test_candidates_that_lost_are_faint_grey_up_to_their_own_horizon() -> None:
    frames = np.array([[-2.5, 2.5], [-1.5, 2.5]])
    rivals = np.array([[[-2.5, 1.5], [-1.5, 1.5]], [[-2.5, 2.0], [np.nan, np.nan]]])
    axes = maze_axes()
    draw_plan(axes, floor_plan("medium"), plan_through(frames, np.zeros((2, 1)), rivals=rivals), np.array([-2.5, 2.75]))
    red, green, blue = sampler(axes)(-2.0, 1.5)
    assert 190 < red <= green <= blue < 240
    assert sampler(axes)(-2.0, 2.0) == WHITE


def test_only_the_cheapest_candidates_are_drawn_when_there_are_many() -> None:
    frames = np.array([[-2.5, 2.9], [-1.5, 2.9]])
    heights = np.linspace(1.1, 2.7, 20)
    rivals = np.array([[[-2.5, y], [-1.5, y]] for y in heights])
    axes = maze_axes()
    draw_plan(axes, floor_plan("medium"), plan_through(frames, np.zeros((2, 1)), rivals=rivals), np.array([-2.5, 2.9]))
    at = sampler(axes)
    seen = [at(-1.7, y) != WHITE for y in heights]
    # Costs fall with the index: the last twelve are the cheapest.
    assert seen == [False] * 8 + [True] * 12
