"""A maze on matplotlib axes, and what happens in it: walls, start and goal, the driven path, plans by noise level.

Axes are in metres, as the maze is. Knows nothing of figures, files or policies.
"""

from collections.abc import Sequence

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.colors import ListedColormap, Normalize, to_rgb
from matplotlib.patches import Circle
from matplotlib.patheffects import withStroke
from numpy.typing import NDArray

from forcing.envs.maze2d import GOAL_RADIUS_M
from forcing.envs.maze_grid import WALL, MazeMap
from forcing.policy.types import Array, Plan

POSITION = "position"
INK, MUTED, WALL_COLOR, FLOOR_COLOR, CANDIDATE_COLOR = "#1c2430", "#66707c", "#c6ccd4", "#ffffff", "#7d8794"
PATH_DOT_STEPS = 20
# Perceptually uniform, without the end that would be too light on a white floor.
NOISE_COLORS = ListedColormap(matplotlib.colormaps["plasma"](np.linspace(0.0, 0.86, 256)), name="noise")
NOISE_NORM = Normalize(0.0, 1.0)
NOISE_LABEL = "noise level: 0 clean – 1 pure noise"

_MARGIN_M = 0.55
_SHOWN_CANDIDATES = 12
_GLOW_PIXELS_PER_M, _GLOW_FULL_M = 32, 0.25


def draw_maze(axes: Axes, maze_map: MazeMap) -> None:
    """Walls and floor, equal aspect, no ticks; about half of the outer wall is cut off."""
    half_height, half_width = len(maze_map) / 2, len(maze_map[0]) / 2
    walls = np.array([[cell == WALL for cell in row] for row in maze_map])
    axes.imshow(
        walls,
        cmap=ListedColormap([FLOOR_COLOR, WALL_COLOR]),
        vmin=0,
        vmax=1,
        extent=(-half_width, half_width, -half_height, half_height),
        interpolation="nearest",
        zorder=0,
    )
    axes.set_xlim(_MARGIN_M - half_width, half_width - _MARGIN_M)
    axes.set_ylim(_MARGIN_M - half_height, half_height - _MARGIN_M)
    axes.set_aspect("equal")
    axes.set_xticks([])
    axes.set_yticks([])
    for spine in axes.spines.values():
        spine.set_visible(False)


def panel_aspect(maze_map: MazeMap) -> float:
    """Height of a maze's axes over their width."""
    return (len(maze_map) - 2 * _MARGIN_M) / (len(maze_map[0]) - 2 * _MARGIN_M)


def draw_ends(axes: Axes, start: Array, goal: Array, scale: float = 1.0) -> None:
    """A white disc where the episode starts, a star and the circle that counts as the goal. start, goal: [2] in m.

    scale: of the marks, 1 for a panel of about 5 inches.
    """
    circle = Circle((goal[0], goal[1]), GOAL_RADIUS_M, fill=False, edgecolor=INK, linewidth=1.0 * scale, zorder=6)
    circle.set_linestyle((0, (3, 2)))
    axes.add_patch(circle)
    style = {"color": INK, "markeredgecolor": "white", "markeredgewidth": 1.0 * scale, "linestyle": "none", "zorder": 9}
    axes.plot([goal[0]], [goal[1]], marker="*", markersize=19 * scale, **style)
    style |= {"color": "white", "markeredgecolor": INK, "markeredgewidth": 2.2 * scale}
    axes.plot([start[0]], [start[1]], marker="o", markersize=9 * scale, **style)


def draw_path(axes: Axes, positions: Array, scale: float = 1.0) -> None:
    """The driven path with a dot every `PATH_DOT_STEPS` control steps. positions: [T + 1, 2] in m."""
    casing = withStroke(linewidth=3.4 * scale, foreground="white")
    x, y = positions[:, 0], positions[:, 1]
    axes.plot(x, y, color=INK, linewidth=1.3 * scale, solid_capstyle="round", zorder=7, path_effects=[casing])
    marked = slice(PATH_DOT_STEPS, None, PATH_DOT_STEPS)
    axes.plot(x[marked], y[marked], color=INK, linestyle="none", marker="o", markersize=4.2 * scale, mew=0, zorder=7)


def draw_plan(axes: Axes, plan: Plan, origin: Array, scale: float = 1.0) -> None:
    """A plan made at `origin` [2], in m: its frames by noise level, their spread as a glow, other candidates in grey."""
    path = np.concatenate([np.reshape(origin, (1, 2)), plan.streams[POSITION]])
    level = np.concatenate([[0.0], np.asarray(plan.level).max(axis=1)])
    draw_candidates(axes, [np.concatenate([path[:1], other]) for other in _others(plan)], scale)
    spread = plan.spread.get(POSITION)
    if spread is not None:
        _draw_glow(axes, path[1:], np.asarray(spread), level[1:])
    draw_levels(axes, path, level, scale)


def draw_candidates(axes: Axes, paths: Sequence[Array], scale: float = 1.0) -> None:
    """Faint grey lines. paths: [F, 2] each, in m."""
    lines = LineCollection(list(paths), colors=CANDIDATE_COLOR, linewidths=0.9 * scale, alpha=0.4, zorder=2)
    axes.add_collection(lines, autolim=False)


def draw_levels(axes: Axes, path: Array, level: Array, scale: float = 1.0) -> None:
    """A line with a dot at each frame, coloured by noise level. path: [F, 2] in m. level: [F], 0 clean to 1 pure noise."""
    segments = np.stack([path[:-1], path[1:]], axis=1)
    line = LineCollection(
        list(segments), cmap=NOISE_COLORS, norm=NOISE_NORM, linewidths=2.4 * scale, capstyle="round", zorder=4
    )
    line.set_array(0.5 * (level[:-1] + level[1:]))
    axes.add_collection(line, autolim=False)
    axes.scatter(
        path[1:, 0], path[1:, 1], c=level[1:], cmap=NOISE_COLORS, norm=NOISE_NORM, s=22 * scale**2, lw=0, zorder=5
    )


def _others(plan: Plan) -> list[NDArray[np.float64]]:
    """The cheapest candidates that were not chosen; all of them together would hide the maze."""
    ranked = [int(index) for index in np.argsort(plan.costs, kind="stable") if index != plan.chosen]
    rows = [np.asarray(plan.candidates[index], dtype=np.float64) for index in ranked[:_SHOWN_CANDIDATES]]
    return [row[np.isfinite(row).all(axis=1)] for row in rows]


def _draw_glow(axes: Axes, path: Array, spread: Array, level: Array) -> None:
    """At each place the normal density of the nearest frame, in standard deviations, in the colour of that frame."""
    (left, right), (bottom, top) = axes.get_xlim(), axes.get_ylim()
    x = np.linspace(left, right, round((right - left) * _GLOW_PIXELS_PER_M))[None, :, None]
    y = np.linspace(top, bottom, round((top - bottom) * _GLOW_PIXELS_PER_M))[:, None, None]
    centre, width = path.astype(np.float32), np.maximum(spread, 0.01).astype(np.float32)
    distance = ((x - centre[:, 0]) / width[:, 0]) ** 2 + ((y - centre[:, 1]) / width[:, 1]) ** 2
    nearest = distance.argmin(axis=2)
    image = NOISE_COLORS(NOISE_NORM(level[nearest]))
    # A wide frame is fainter than a narrow one, as its density is.
    ink = np.minimum(1.0, _GLOW_FULL_M / np.sqrt(width.prod(axis=1)))
    image[..., 3] = 0.45 * ink[nearest] * np.exp(-0.5 * distance.min(axis=2))
    axes.imshow(image, extent=(left, right, bottom, top), interpolation="bilinear", zorder=3)
    axes.set_xlim(left, right)
    axes.set_ylim(bottom, top)


def noise_tint(level: float) -> tuple[float, float, float]:
    """The colour of a noise level, as red, green and blue from 0 to 1."""
    return to_rgb(NOISE_COLORS(NOISE_NORM(level)))
