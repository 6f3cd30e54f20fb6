"""A recording on one page: lengths, coverage, ranges, actions, frames and tasks, whatever robot it is of.

Rows of panels, laid out in inches; what does not fit is named at the foot. Pixels depend on the recording alone.
"""

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from forcing.datasets.clocks import is_clock
from forcing.eval.dataset_panels import (
    counted,
    coverage_of,
    draw_action,
    draw_coverage,
    draw_frame,
    draw_lengths,
    draw_ranges,
    flat_numbers,
    shortened,
    thinned,
)
from forcing.eval.figures import (
    EDGE_IN,
    HEADING_IN,
    WIDTH_IN,
    add_caption,
    add_heading,
    inch_axes,
    new_figure,
    save_png,
)
from forcing.eval.palette import INK
from forcing.policy.types import StreamSpec, Trajectories

MOST_STREAMS, MOST_ENTRIES, MOST_ACTIONS, MOST_CAMERAS, MOST_TASKS = 6, 32, 16, 4, 6
STRIP_FRAMES = 8
ROW_ROOM, ROW_STREAMS = 18, 3
TIMES = ((3600, "hours"), (60, "minutes"), (1, "s"))
TOP_IN, RANGES_IN, ACTION_IN, LINE_IN = 2.1, 1.35, 0.8, 0.2
LEFT_IN, ABOVE_IN, BELOW_IN, APART_IN = 0.55, 0.3, 0.42, 0.2  # around the axes of a row


@dataclass(frozen=True, slots=True)
class _Row:
    """height: of its axes, in inches. draw: with the bottom of the axes. below: room for what stands under the axes."""

    height: float
    draw: Callable[[Figure, float], None]
    below: float = BELOW_IN

    @property
    def total(self) -> float:
        return ABOVE_IN + self.height + self.below


def draw_dataset(trajectories: Trajectories, name: str, path: Path) -> None:
    """Writes a PNG of a recording called `name`. Of frames, `STRIP_FRAMES` of the first episode are read, a camera."""
    rows = [
        _Row(TOP_IN, lambda figure, bottom: _draw_top(figure, bottom, trajectories)),
        *_range_rows(trajectories),
        *_action_rows(trajectories),
        *_camera_rows(trajectories),
    ]
    lines = [*_task_lines(trajectories), *_left_out(trajectories)]
    figure = new_figure(HEADING_IN + sum(row.total for row in rows) + LINE_IN * (len(lines) + 0.8))
    steps, hz = int(trajectories.lengths.sum()), trajectories.spec.control_hz
    seconds = steps / hz
    lasting = next(f"{seconds / size:.3g} {unit}" for size, unit in TIMES if seconds >= size or unit == "s")
    episodes = f"{len(trajectories.lengths):,} episode{'s' if len(trajectories.lengths) > 1 else ''}"
    add_heading(figure, shortened(name, 60), f"{episodes}, {steps:,} steps, {lasting} at {hz:g} Hz")
    across, up = figure.get_size_inches()
    bottom = up - HEADING_IN + 0.1
    for row in rows:
        row.draw(figure, bottom - ABOVE_IN - row.height)
        bottom -= row.total
    for number, line in enumerate(lines):
        figure.text(EDGE_IN / across, (bottom - LINE_IN * (number + 1)) / up, line, fontsize=8.5, color=INK)
    save_png(figure, path)


def _draw_top(figure: Figure, bottom: float, trajectories: Trajectories) -> None:
    coverage = coverage_of(trajectories)
    width = _columns(2 if coverage else 1)
    axes = inch_axes(figure, LEFT_IN, bottom, width, TOP_IN)
    draw_lengths(axes, trajectories)
    add_caption(axes, "episodes by length")
    if coverage:
        axes = inch_axes(figure, LEFT_IN + width + APART_IN + LEFT_IN, bottom, width, TOP_IN)
        draw_coverage(axes, coverage)
        add_caption(axes, coverage.caption)


def _range_rows(trajectories: Trajectories) -> list[_Row]:
    """Streams of numbers side by side while they fit, each as wide as its entries need."""
    rows: list[list[StreamSpec]] = []
    for stream in _shown_streams(trajectories):
        fits = rows and sum(_room(each) for each in (*rows[-1], stream)) <= ROW_ROOM
        if fits and len(rows[-1]) < ROW_STREAMS:
            rows[-1].append(stream)
        else:
            rows.append([stream])

    def drawn(streams: Sequence[StreamSpec], first: bool) -> Callable[[Figure, float], None]:
        def draw(figure: Figure, bottom: float) -> None:
            left, columns = LEFT_IN, _columns(len(streams)) * len(streams)
            for number, stream in enumerate(streams):
                width = columns * _room(stream) / sum(_room(each) for each in streams)
                axes = inch_axes(figure, left, bottom, width, RANGES_IN)
                draw_ranges(axes, stream, thinned(flat_numbers(trajectories, stream))[:, :MOST_ENTRIES])
                broken = int((~np.isfinite(trajectories.streams[stream.name])).sum())
                bad = f", {broken:,} not finite" if broken else ""
                unit = f", {stream.units}" if stream.units else ""
                explained = ": range of each entry" if first and number == 0 and not bad else ""
                add_caption(axes, f"{stream.name}{unit}{explained}{bad}")
                left += width + APART_IN + LEFT_IN

        return draw

    return [_Row(RANGES_IN, drawn(row, row is rows[0]), below=0.2) for row in rows]


def _room(stream: StreamSpec) -> int:
    """How wide its panel is, beside others."""
    return min(stream.size, MOST_ENTRIES) + 3


def _action_rows(trajectories: Trajectories) -> list[_Row]:
    """Histograms of the action's entries, as many a row as make rows of about equal length."""
    action = trajectories.spec.action
    count = min(action.size, MOST_ACTIONS)
    deep = -(-count // 6)
    across = max(2, -(-count // deep))
    flat = flat_numbers(trajectories, action)

    def drawn(first: int) -> Callable[[Figure, float], None]:
        def draw(figure: Figure, bottom: float) -> None:
            width = (WIDTH_IN - EDGE_IN - LEFT_IN - (across - 1) * APART_IN) / across
            for place, entry in enumerate(range(first, min(first + across, count))):
                axes = inch_axes(figure, LEFT_IN + place * (width + APART_IN), bottom, width, ACTION_IN)
                draw_action(axes, action, entry, flat[:, entry])
                unit = f", {action.units}" if action.units else ""
                first_of_all = ": how often, logarithmic" if entry == 0 and across <= 3 else ""
                add_caption(axes, f"{action.name}[{entry}]{unit}{first_of_all}" if action.size > 1 else action.name)

        return draw

    return [_Row(ACTION_IN, drawn(first), below=0.26) for first in range(0, count, across)]


def _camera_rows(trajectories: Trajectories) -> list[_Row]:
    """A strip of the first episode for each camera."""

    def drawn(stream: StreamSpec, width: float, height: float) -> Callable[[Figure, float], None]:
        def draw(figure: Figure, bottom: float) -> None:
            frames = trajectories.frames[stream.name]
            picked = np.linspace(0, int(trajectories.lengths[0]), STRIP_FRAMES).round().astype(int)
            for place, row in enumerate(picked):
                axes = inch_axes(figure, EDGE_IN + place * (width + 0.05), bottom, width, height)
                draw_frame(axes, frames[int(row) : int(row) + 1][0])
                if place == 0:
                    size = "×".join(str(side) for side in stream.shape)
                    seconds = trajectories.lengths[0] / trajectories.spec.control_hz
                    add_caption(axes, f"{stream.name}, {size}: the first episode, {seconds:.3g} s")

        return draw

    rows = []
    for stream in _cameras(trajectories)[:MOST_CAMERAS]:
        width = (WIDTH_IN - 2 * EDGE_IN - (STRIP_FRAMES - 1) * 0.05) / STRIP_FRAMES
        height = min(width * stream.shape[0] / stream.shape[1], 2 * width)
        rows.append(_Row(height, drawn(stream, width, height), below=0.05))
    return rows


def _task_lines(trajectories: Trajectories) -> list[str]:
    tasks = Counter(note.task for note in trajectories.notes if note.task)
    subsets = Counter(subset for note in trajectories.notes for subset in note.subsets)
    lines = [f"task, {count:,} episodes: {shortened(task, 105)}" for task, count in tasks.most_common(MOST_TASKS)]
    if subsets:
        named = ", ".join(f"{subset} {count:,}" for subset, count in subsets.most_common())
        lines.append(shortened(f"subsets, episodes: {named}", 125))
    return lines


def _left_out(trajectories: Trajectories) -> list[str]:
    """What is not shown, one line at most."""
    numbers = [stream.name for stream in _numbers(trajectories)]
    wide = [stream.name for stream in _shown_streams(trajectories) if stream.size > MOST_ENTRIES]
    tasks = len({note.task for note in trajectories.notes if note.task}) - MOST_TASKS
    actions = trajectories.spec.action.size - MOST_ACTIONS
    said = [
        f"streams {counted(numbers, MOST_STREAMS)}" if len(numbers) > MOST_STREAMS else "",
        f"entries from {MOST_ENTRIES} on of {', '.join(wide)}" if wide else "",
        f"{actions} entries of the action" if actions > 0 else "",
        f"cameras {counted([each.name for each in _cameras(trajectories)], MOST_CAMERAS)}"
        if len(_cameras(trajectories)) > MOST_CAMERAS
        else "",
        f"{tasks} tasks" if tasks > 0 else "",
    ]
    named = "; ".join(part for part in said if part)
    return [shortened(f"not shown: {named}", 125)] if named else []


def _numbers(trajectories: Trajectories) -> list[StreamSpec]:
    """But for actions, which have their histograms, and clocks."""
    return [
        stream
        for stream in trajectories.spec.streams
        if not stream.image and stream.role != "action" and not is_clock(trajectories, stream)
    ]


def _shown_streams(trajectories: Trajectories) -> list[StreamSpec]:
    return _numbers(trajectories)[:MOST_STREAMS]


def _cameras(trajectories: Trajectories) -> list[StreamSpec]:
    return [stream for stream in trajectories.spec.streams if stream.image]


def _columns(count: int) -> float:
    """Width of the axes of `count` columns, in inches."""
    return (WIDTH_IN - EDGE_IN - LEFT_IN - (count - 1) * (APART_IN + LEFT_IN)) / count
