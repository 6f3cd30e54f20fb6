"""A maze on matplotlib axes, and what happens in it: walls, robot and goal, the driven path, plans by noise level.

Axes are in metres, as the maze is. Knows nothing of figures, files or policies.
"""

import numpy as np
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.colors import ListedColormap
from matplotlib.lines import Line2D
from matplotlib.patches import Circle
from matplotlib.patheffects import withStroke
from numpy.typing import NDArray

from forcing.envs.floor_plan import FloorPlan
from forcing.envs.maze_grid import WALL
from forcing.eval.palette import INK, NOISE_COLORS, NOISE_NORM
from forcing.policy.types import Array, Plan

POSITION = "position"
WALL_COLOR, FLOOR_COLOR, CANDIDATE_COLOR = "#c6ccd4", "#ffffff", "#7d8794"
PATH_DOT_STEPS = 20

# Lengths in cells.
_MARGIN = 0.55
_SHOWN_CANDIDATES = 12
_GLOW_PIXELS, _GLOW_FULL, _GLOW_LEAST = 20, 0.25, 0.04


def panel_aspect(floor: FloorPlan) -> float:
    """Height of a maze's axes over their width."""
    return (len(floor.cells) - 2 * _MARGIN) / (len(floor.cells[0]) - 2 * _MARGIN)


def draw_maze(axes: Axes, floor: FloorPlan) -> None:
    """Walls and floor, equal aspect, no ticks; about half of the outer wall is cut off."""
    axes.imshow(
        np.array([[cell == WALL for cell in row] for row in floor.cells]),
        cmap=ListedColormap([FLOOR_COLOR, WALL_COLOR]),
        vmin=0,
        vmax=1,
        extent=(floor.left_m, floor.right_m, floor.bottom_m, floor.top_m),
        interpolation="nearest",
        zorder=0,
    )
    margin = _MARGIN * floor.cell_m
    axes.set_xlim(floor.left_m + margin, floor.right_m - margin)
    axes.set_ylim(floor.bottom_m + margin, floor.top_m - margin)
    axes.set_aspect("equal")
    axes.set_xticks([])
    axes.set_yticks([])
    for spine in axes.spines.values():
        spine.set_visible(False)


def draw_ends(axes: Axes, floor: FloorPlan, robot: Array, goal: Array | None, scale: float = 1.0) -> None:
    """A white disc where the robot is; where there is a goal, a star at it and the circle that counts as reached.

    robot, goal: [2] in m. scale: of marks and lines here and below, 1 for axes 5 inches wide.
    """
    if goal is not None:
        _draw_goal(axes, floor, goal, scale)
    disc = Line2D([robot[0]], [robot[1]], color="white", marker="o", markersize=9 * scale, zorder=9)
    disc.set(markeredgecolor=INK, markeredgewidth=2.2 * scale)
    axes.add_line(disc)


def _draw_goal(axes: Axes, floor: FloorPlan, goal: Array, scale: float) -> None:
    circle = Circle((goal[0], goal[1]), floor.goal_radius_m, fill=False, edgecolor=INK, linewidth=scale, zorder=6)
    circle.set_linestyle((0, (3, 2)))
    axes.add_patch(circle)
    star = Line2D([goal[0]], [goal[1]], color=INK, marker="*", markersize=19 * scale, zorder=9)
    star.set(markeredgecolor="white", markeredgewidth=scale)
    axes.add_line(star)


def draw_path(axes: Axes, positions: Array, scale: float = 1.0) -> None:
    """The driven path with a dot every `PATH_DOT_STEPS` control steps. positions: [T + 1, 2] in m."""
    casing = withStroke(linewidth=3.4 * scale, foreground="white")
    x, y = positions[:, 0], positions[:, 1]
    axes.plot(x, y, color=INK, linewidth=1.3 * scale, solid_capstyle="round", zorder=7, path_effects=[casing])
    marked = slice(None, None, PATH_DOT_STEPS)
    axes.plot(x[marked], y[marked], color=INK, linestyle="none", marker="o", markersize=4.2 * scale, mew=0, zorder=7)


def draw_plan(axes: Axes, floor: FloorPlan, plan: Plan, origin: Array, scale: float = 1.0) -> None:
    """A plan made at `origin` [2], in m: its frames by noise level, their spread as a glow, rival candidates in grey.

    A frame's level is that of its noisiest stream.
    """
    path = np.concatenate([np.reshape(origin, (1, 2)), plan.streams[POSITION]])
    level = np.concatenate([[0.0], np.asarray(plan.level).max(axis=1)])
    rivals = [np.concatenate([path[:1], rival]) for rival in _rivals(plan)]
    grey = LineCollection(rivals, colors=CANDIDATE_COLOR, linewidths=0.9 * scale, alpha=0.4, zorder=2)
    axes.add_collection(grey, autolim=False)
    _draw_glow(axes, floor.cell_m, path[1:], np.asarray(plan.spread[POSITION]), level[1:])
    draw_levels(axes, path, level, scale)


def draw_levels(axes: Axes, path: Array, level: Array, scale: float = 1.0) -> None:
    """A line with a dot at each frame but the first, by noise level. path: [F, 2] in m. level: [F], 0 clean to 1
    noise."""
    line = LineCollection(
        list(np.stack([path[:-1], path[1:]], axis=1)),
        cmap=NOISE_COLORS,
        norm=NOISE_NORM,
        linewidths=2.4 * scale,
        capstyle="round",
        zorder=4,
    )
    line.set_array(np.maximum(level[:-1], level[1:]))
    axes.add_collection(line, autolim=False)
    dots = axes.scatter(path[1:, 0], path[1:, 1], c=level[1:], cmap=NOISE_COLORS, norm=NOISE_NORM)
    dots.set(sizes=[22 * scale**2], linewidths=0, zorder=5)


def _rivals(plan: Plan) -> list[NDArray[np.float64]]:
    """The cheapest candidates that were not chosen; all of them together would hide the maze."""
    ranked = [int(index) for index in np.argsort(plan.costs, kind="stable") if index != plan.chosen]
    rows = [np.asarray(plan.candidates[index], dtype=np.float64) for index in ranked[:_SHOWN_CANDIDATES]]
    return [row[np.isfinite(row).all(axis=1)] for row in rows]


def _draw_glow(axes: Axes, cell_m: float, path: Array, spread: Array, level: Array) -> None:
    """At each place the normal density of the nearest frame, in standard deviations, in the colour of that frame."""
    spread = np.maximum(spread, _GLOW_LEAST * cell_m)
    centre, width, level = (_denser(values) for values in (path, spread, level[:, None]))
    (left, right), (bottom, top) = axes.get_xlim(), axes.get_ylim()
    columns, rows = (round(side / cell_m * _GLOW_PIXELS) for side in (right - left, top - bottom))
    x = np.linspace(left, right, columns, dtype=np.float32)[None, :, None]
    y = np.linspace(top, bottom, rows, dtype=np.float32)[:, None, None]
    distance = ((x - centre[:, 0]) / width[:, 0]) ** 2 + ((y - centre[:, 1]) / width[:, 1]) ** 2
    nearest = distance.argmin(axis=2)
    image = NOISE_COLORS(NOISE_NORM(level[nearest, 0]))
    # A wide frame is fainter than a narrow one, as its density is.
    ink = np.minimum(1.0, _GLOW_FULL * cell_m / np.sqrt(width.prod(axis=1)))
    image[..., 3] = 0.45 * ink[nearest] * np.exp(-0.5 * distance.min(axis=2))
    axes.imshow(image, extent=(left, right, bottom, top), interpolation="bilinear", zorder=3)
    axes.set_xlim(left, right)
    axes.set_ylim(bottom, top)


def _denser(values: Array, times: int = 4) -> NDArray[np.float32]:
    """[F, size] to [times * (F - 1) + 1, size], linearly between frames."""
    frames = np.arange(len(values))
    at = np.linspace(0, len(values) - 1, times * (len(values) - 1) + 1)
    return np.stack([np.interp(at, frames, column) for column in values.T], axis=1).astype(np.float32)
