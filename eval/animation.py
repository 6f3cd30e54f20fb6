"""A plan crystallising out of noise, near future before far future, as an animated GIF.

Frames between two network passes are drawn in between and say so; what is held still is a state of the sampler.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.collections import LineCollection
from matplotlib.colors import to_rgb
from matplotlib.lines import Line2D
from matplotlib.patches import Rectangle
from numpy.typing import NDArray
from PIL import Image

from forcing.eval.denoising import Pass, denoising_passes
from forcing.eval.figures import (
    CAPTION_IN,
    EDGE_IN,
    HEADING_IN,
    KEY_IN,
    WIDTH_IN,
    add_caption,
    add_heading,
    add_key,
    draw_matrix,
    inch_axes,
    new_figure,
)
from forcing.eval.gif import save_gif
from forcing.eval.maze_axes import FLOOR_COLOR, WALL_COLOR, draw_ends, draw_maze, panel_aspect
from forcing.eval.maze_tasks import MazeTask
from forcing.eval.palette import INK, MUTED, NOISE_COLORS, NOISE_NORM
from forcing.policy.planner import PlanRequest
from forcing.policy.policy import Policy
from forcing.policy.schedules import Schedule
from forcing.policy.types import Array

BETWEEN_MS, PASS_MS, FIRST_MS, LAST_MS = 50, 300, 1000, 3000

_DPI = 100
_MAZE_IN, _LABELS_IN = 4.9, 0.55
_MOST_BETWEEN, _FRAMES = 4, 56


def animate_denoising(policy: Policy, request: PlanRequest, task: MazeTask, path: Path) -> None:
    """Writes a GIF, 800 pixels wide, of how the plan that the policy chooses for `request` is sampled.

    Each state of the sampler is held for `PASS_MS` or longer; frames of `BETWEEN_MS` lead from one to the next. Raises
    ValueError if the policy plans no positions or `request` has no goal.
    """
    if request.goal is None:
        raise ValueError("goal must be given to animate a plan towards it, got None")
    passes = denoising_passes(policy, request)
    origin = np.asarray(request.frames[policy.spec.goal or ""][-1], dtype=np.float64)
    scene = _Scene(task, policy.preset.planner.schedule, passes, origin, request.goal)
    frames, durations_ms = zip(*scene.frames(), strict=True)
    palette = Image.new("P", (1, 1))
    palette.putpalette(_palette())
    save_gif(frames, durations_ms, path, palette)


class _Scene:
    """A figure whose moving parts are set anew for each frame."""

    def __init__(
        self, task: MazeTask, schedule: Schedule, passes: Sequence[Pass], origin: NDArray[np.float64], goal: Array
    ) -> None:
        """origin, goal: [2] in m."""
        self.passes, self.origin = passes, origin
        floor = task.floor_plan()
        height = _MAZE_IN * panel_aspect(floor)
        figure = new_figure(HEADING_IN + CAPTION_IN + height + KEY_IN, _DPI)
        self.canvas = FigureCanvasAgg(figure)
        detail = f"{schedule.kind.replace('_', ' ')} schedule,  {len(passes) - 1} network passes"
        add_heading(figure, f"{task.name}: a plan out of noise", detail)
        add_key(figure, _marks())
        self.maze = inch_axes(figure, EDGE_IN, KEY_IN, _MAZE_IN, height)
        draw_maze(self.maze, floor)
        draw_ends(self.maze, floor, origin, goal)
        self._add_plan(self.maze)
        left = EDGE_IN + _MAZE_IN + _LABELS_IN
        matrix = inch_axes(figure, left, KEY_IN + _LABELS_IN, WIDTH_IN - EDGE_IN - left, height - _LABELS_IN)
        add_caption(matrix, "noise level of each token")
        self.levels = np.stack([each.token_level for each in passes])
        self.image = draw_matrix(matrix, self.levels)
        tokens = self.levels.shape[1]
        self.row = Rectangle((0.5, -0.5), tokens, 1, fill=False, edgecolor=INK, linewidth=2.0, clip_on=False, zorder=5)
        matrix.add_patch(self.row)

    def _add_plan(self, axes: Axes) -> None:
        self.guess = Line2D([], [], color=MUTED, linewidth=1.4, zorder=3)
        axes.add_line(self.guess)
        self.line = LineCollection([], cmap=NOISE_COLORS, norm=NOISE_NORM, zorder=4)
        axes.add_collection(self.line, autolim=False)
        self.dots = axes.scatter([], [], c=[], cmap=NOISE_COLORS, norm=NOISE_NORM)
        self.dots.set(sizes=[26], linewidths=0, zorder=5)

    def frames(self) -> Iterator[tuple[Image.Image, int]]:
        """Pictures with the milliseconds each is shown for."""
        last = len(self.passes) - 1
        # Fewer for many passes, which are smooth by themselves: the file stays small.
        between = min(_MOST_BETWEEN, max(1, _FRAMES // last - 1))
        for index in range(last):
            yield self._frame(index, 0.0), FIRST_MS if index == 0 else PASS_MS
            for step in range(1, between + 1):
                yield self._frame(index, step / (between + 1)), BETWEEN_MS
        yield self._frame(last, 0.0), LAST_MS

    def _frame(self, index: int, progress: float) -> Image.Image:
        """The state after pass `index`, or the share `progress` of the way from there to the next."""
        share = progress * progress * (3 - 2 * progress)
        now, after = self.passes[index], self.passes[min(index + 1, len(self.passes) - 1)]
        positions = np.concatenate([self.origin[None], _blend(now.positions, after.positions, share)])
        level = np.concatenate([[0.0], _blend(now.level, after.level, share)])
        self.line.set_segments(list(np.stack([positions[:-1], positions[1:]], axis=1)))
        between = np.maximum(level[:-1], level[1:])
        # What is noise has no order yet: its line fades, its dots stay.
        self.line.set(array=between, alpha=1 - 0.85 * between, linewidths=0.8 + 1.6 * (1 - between))
        self.dots.set_offsets(positions[1:])
        self.dots.set_array(level[1:])
        if now.guess is not None and after.guess is not None:
            guess = np.concatenate([self.origin[None], _blend(now.guess, after.guess, share)])
            self.guess.set_data(guess[:, 0], guess[:, 1])
        self.row.set_y(index + share - 0.5)
        colors = NOISE_COLORS(NOISE_NORM(self.levels))
        colors[index + 1 :, :, 3] = 0.25
        self.image.set_data(colors)
        add_caption(self.maze, _stage(index, progress, len(self.passes) - 1))
        self.canvas.draw()  # type: ignore[no-untyped-call]
        pixels = np.asarray(self.canvas.buffer_rgba())  # type: ignore[no-untyped-call]
        return Image.fromarray(pixels).convert("RGB")


def _stage(index: int, progress: float, passes: int) -> str:
    if progress > 0:
        return f"pass {index + 1} of {passes}"
    return "pure noise" if index == 0 else f"pass {index} of {passes} done"


def _blend(
    now: NDArray[np.float64], after: NDArray[np.float64], share: float | NDArray[np.float64]
) -> NDArray[np.float64]:
    return now + share * (after - now)


def _marks() -> list[Line2D]:
    robot = Line2D([], [], color="white", marker="o", markersize=7, label="robot")
    robot.set(markeredgecolor=INK, markeredgewidth=1.8)
    return [
        Line2D([], [], color=MUTED, linewidth=1.4, label="the network's present guess"),
        robot,
        Line2D([], [], color=INK, marker="*", linestyle="none", markersize=11, label="goal"),
    ]


def _palette() -> list[int]:
    """Red, green and blue of the 192 colours that the scene is made of: noise levels on floor and wall, and greys."""
    floor, wall, ink, muted = (np.array(to_rgb(color)) for color in (FLOOR_COLOR, WALL_COLOR, INK, MUTED))
    noise = NOISE_COLORS(np.linspace(0, 1, 32))[:, :3]
    tints = [_blend(under, noise, share) for under in (floor, wall) for share in (0.25, 0.6)]
    ramps = [_blend(under, over, np.linspace(0, 1, 8)[:, None]) for under in (floor, wall) for over in (ink, muted)]
    colors = np.concatenate([noise, *tints, *ramps])
    return [int(value) for value in np.rint(255 * colors).reshape(-1)]
