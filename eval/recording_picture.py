"""Recordings side by side: where they went and how fast, over the places that the first of them visited.

Pixels depend on the recordings alone.
"""

from collections.abc import Mapping
from pathlib import Path

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.collections import LineCollection
from matplotlib.colors import ListedColormap, Normalize
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from numpy.typing import NDArray

from forcing.datasets.drivable import touched_places
from forcing.envs.floor_plan import FloorPlan
from forcing.eval.figures import (
    CAPTION_IN,
    EDGE_IN,
    GAP_IN,
    HEADING_IN,
    KEY_IN,
    WIDTH_IN,
    add_caption,
    add_heading,
    inch_axes,
    new_figure,
    save_png,
)
from forcing.eval.maze_axes import POSITION, draw_maze, panel_aspect
from forcing.eval.palette import INK
from forcing.policy.support import visited_cells
from forcing.policy.types import Trajectories
from forcing.policy.world import trusted_dynamics

SHOWN_STEPS = 5000  # of each recording, in whole episodes from all over it: more would hide each other
VISITED_COLOR, CONTACT_COLOR = "#dbe7f3", "#f0a58f"
SPEED_COLORS = matplotlib.colormaps["viridis_r"]


def draw_recordings(floor: FloorPlan, recordings: Mapping[str, Trajectories], path: Path) -> None:
    """Writes a PNG with a panel for each recording, by caption; shaded is what the first visited.

    Raises NoWorld if the first does not show where actions lead, ValueError without recordings.
    """
    if not recordings:
        raise ValueError("at least 1 recording is needed to draw recordings, got 0")
    aspect = panel_aspect(floor)
    width = (WIDTH_IN - 2 * EDGE_IN - (len(recordings) - 1) * GAP_IN) / len(recordings)
    figure = new_figure(HEADING_IN + CAPTION_IN + width * aspect + KEY_IN)
    add_heading(
        figure,
        "A recording, and demonstrations dreamed from it",
        f"whole episodes from all over, about {SHOWN_STEPS:,} control steps a panel",
    )
    speeds = {caption: speeds_of(recording) for caption, recording in recordings.items()}
    norm = Normalize(0.0, max(float(np.quantile(values, 0.99)) for values in speeds.values()))
    cells = _Cells(next(iter(recordings.values())))
    for index, (caption, recording) in enumerate(recordings.items()):
        axes = inch_axes(figure, EDGE_IN + index * (width + GAP_IN), KEY_IN, width, width * aspect)
        add_caption(
            axes, f"{caption}: {int(recording.lengths.sum()):,} steps, half above {np.median(speeds[caption]):.1f} m/s"
        )
        draw_maze(axes, floor)
        cells.draw(axes)
        _draw_paths(axes, recording, norm)
    _add_key(figure, norm)
    save_png(figure, path)


def speeds_of(recording: Trajectories) -> NDArray[np.float64]:
    """[sum(lengths)] m/s that the position moved by in each control step."""
    positions, before = recording.streams[POSITION].astype(np.float64), recording.before_steps()
    moved = np.linalg.norm(positions[before + 1] - positions[before], axis=1)
    return np.asarray(moved * recording.spec.control_hz)


def shown_episodes(lengths: NDArray[np.int64], steps: int) -> NDArray[np.int64]:
    """Indices of the episodes to draw, spread evenly, that have about `steps` steps together; at least one."""
    count = int(np.clip(round(steps / float(lengths.mean())), 1, len(lengths)))
    return np.linspace(0, len(lengths) - 1, count).astype(np.int64)


class _Cells:
    """What a recording visited, and in which of these cells something was touched.

    As large as the fastest recorded step, for the eye; a dream goes by cells half as wide, and some room beside them.
    """

    def __init__(self, recording: Trajectories) -> None:
        support = visited_cells(recording, cell_steps=1.0)
        self.kind: NDArray[np.float64] = np.where(support.visited, 1.0, np.nan)
        self.kind.reshape(-1)[support.cells(touched_places(recording, trusted_dynamics(recording)))] = 2.0
        x, y = support.origin
        self.extent = (x, x + self.kind.shape[0] * support.cell, y, y + self.kind.shape[1] * support.cell)

    def draw(self, axes: Axes) -> None:
        limits = axes.axis()
        colors = ListedColormap([VISITED_COLOR, CONTACT_COLOR])
        image = axes.imshow(self.kind.T, origin="lower", extent=self.extent, cmap=colors, vmin=1, vmax=2, zorder=1)
        image.set_interpolation("nearest")
        axes.axis(limits)


def _draw_paths(axes: Axes, recording: Trajectories, norm: Normalize) -> None:
    for index in shown_episodes(recording.lengths, SHOWN_STEPS):
        positions = recording.episode(int(index))[POSITION].astype(np.float64)
        pieces = np.stack([positions[:-1], positions[1:]], axis=1)
        lines = LineCollection(list(pieces), cmap=SPEED_COLORS, norm=norm, linewidths=0.9, capstyle="round", zorder=4)
        lines.set_array(np.linalg.norm(pieces[:, 1] - pieces[:, 0], axis=1) * recording.spec.control_hz)
        axes.add_collection(lines, autolim=False)


def _add_key(figure: Figure, norm: Normalize) -> None:
    bar = inch_axes(figure, EDGE_IN, 0.38, 2.35, 0.13)
    colorbar = figure.colorbar(ScalarMappable(norm, SPEED_COLORS), cax=bar, orientation="horizontal")
    fastest = float(norm.vmax or 0.0)
    colorbar.set_ticks([0.0, fastest / 2, fastest], labels=["0", "speed", f"{fastest:.1f} m/s"])
    bar.get_xticklabels()[0].set_horizontalalignment("left")
    bar.get_xticklabels()[-1].set_horizontalalignment("right")
    bar.tick_params(labelsize=9, labelcolor=INK, length=0, pad=4)
    colorbar.outline.set_visible(False)
    across, up = figure.get_size_inches()
    figure.legend(
        handles=[
            Patch(color=VISITED_COLOR, label="visited"),
            Patch(color=CONTACT_COLOR, label="something was touched there: avoided"),
        ],
        loc="lower right",
        bbox_to_anchor=(1 - EDGE_IN / across, 0.2 / up),
        ncols=2,
        frameon=False,
        fontsize=9,
        labelcolor=INK,
        borderpad=0,
        borderaxespad=0,
        columnspacing=1.1,
        handletextpad=0.5,
    )
