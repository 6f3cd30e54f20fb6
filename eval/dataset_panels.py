"""Panels of a picture of a recording: lengths, coverage, ranges, actions, frames. Each draws on axes it is given.

Numbers that are not finite are left out. Knows nothing of the page that they stand on.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap, LogNorm, to_rgb
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray

from forcing.datasets.clocks import is_clock
from forcing.eval.palette import INK, MUTED
from forcing.policy.types import Array, StreamSpec, Trajectories

BAR, PALE, LIMIT = "#4a78a8", "#c9d9ea", "#c4503a"
DENSITY = LinearSegmentedColormap.from_list("density", ["#dbe7f3", BAR, "#14233a"])
MOST_ROWS = 100_000  # that quantiles and principal components are taken of, evenly spaced
BINS, CELLS, MOST_TICKS = 40, 60, 16
WIDEST = 64  # entries of a stream whose coverage says something: no lidar


@dataclass(frozen=True, slots=True)
class Coverage:
    """Where a recording was: two numbers of each observation, what they are, and whether both have one scale."""

    x: Array
    y: Array
    x_label: str
    y_label: str
    caption: str
    equal: bool = False


def draw_lengths(axes: Axes, trajectories: Trajectories) -> None:
    """How many episodes have which length, in seconds."""
    seconds = trajectories.lengths / trajectories.spec.control_hz
    low, high = float(seconds.min()), float(seconds.max())
    if low == high:
        low, high = 0.5 * low, 1.5 * high
    axes.hist(seconds, bins=min(BINS, max(5, len(seconds))), range=(low, high), color=BAR)
    axes.set_xlabel("episode length, s", fontsize=8, color=MUTED)
    axes.yaxis.set_major_locator(MaxNLocator(nbins=4, integer=True))
    plain(axes)


def draw_coverage(axes: Axes, coverage: Coverage) -> None:
    """How often each place was visited; white places never were."""
    known = np.isfinite(coverage.x) & np.isfinite(coverage.y)
    if known.any():
        counts, *edges = np.histogram2d(coverage.x[known], coverage.y[known], bins=CELLS)
        extent = (edges[0][0], edges[0][-1], edges[1][0], edges[1][-1])
        seen = np.ma.masked_equal(counts.T, 0)
        norm = LogNorm(1, max(float(counts.max()), 2))
        image = axes.imshow(seen, origin="lower", extent=extent, aspect="auto", cmap=DENSITY, norm=norm)
        image.set_interpolation("nearest")
    if coverage.equal:
        axes.set_aspect("equal", adjustable="datalim")
    axes.set_xlabel(coverage.x_label, fontsize=8, color=MUTED)
    axes.set_ylabel(coverage.y_label, fontsize=8, color=MUTED)
    plain(axes)


def coverage_of(trajectories: Trajectories) -> Coverage | None:
    """The goal stream's two entries that vary most; else of the widest stream its two, or two principal components;
    one entry against time. None if no numbers are observed, or too many at once."""
    observed = [
        stream
        for stream in trajectories.spec.of_role("observation")
        if not stream.image and stream.size <= WIDEST and not is_clock(trajectories, stream)
    ]
    if not observed:
        return None
    goal = next((stream for stream in observed if stream.name == trajectories.spec.goal and stream.size > 1), None)
    stream = goal or max(observed, key=lambda each: each.size)
    flat = flat_numbers(trajectories, stream)
    if stream.size == 1:
        steps = np.concatenate([np.arange(length + 1) for length in trajectories.lengths])
        caption, seconds = f"{stream.name} over the episode", steps / trajectories.spec.control_hz
        return Coverage(seconds, flat[:, 0], "s", _unit(stream, stream.name), caption)
    if goal is None and stream.size > 2:
        return _principal(stream, flat)
    deviations = np.array([_deviation(entry) for entry in flat.T])
    first, second = sorted(np.argsort(-deviations, kind="stable")[:2].tolist())
    x_label, y_label = (_unit(stream, f"{stream.name}[{entry}]") for entry in (first, second))
    caption = f"where {stream.name} was"
    return Coverage(flat[:, first], flat[:, second], x_label, y_label, caption, equal=goal is not None)


def draw_ranges(axes: Axes, stream: StreamSpec, flat: Array) -> None:
    """A box for each entry [R, entries]: the middle half and the median; lines to the first and last hundredth; dots at
    the least and the most."""
    for entry, values in enumerate(flat.T):
        finite = values[np.isfinite(values)].astype(np.float64)
        if not finite.size:
            continue
        least, low, first, middle, last, high, most = np.quantile(finite, (0, 0.01, 0.25, 0.5, 0.75, 0.99, 1))
        axes.vlines(entry, low, high, colors=MUTED, linewidths=0.9, zorder=1)
        axes.bar(entry, last - first, bottom=first, width=0.62, color=PALE, edgecolor=BAR, linewidth=0.8, zorder=2)
        axes.hlines(middle, entry - 0.31, entry + 0.31, colors=INK, linewidths=1.3, zorder=3)
        axes.plot([entry, entry], [least, most], linestyle="none", marker=".", markersize=3, color=MUTED, zorder=1)
    for limits in (stream.low, stream.high):
        if limits is not None:
            at = np.arange(min(len(limits), flat.shape[1]))
            axes.hlines([limits[entry] for entry in at], at - 0.42, at + 0.42, colors=LIMIT, linewidths=1.0, zorder=2)
    axes.set_xlim(-0.7, flat.shape[1] - 0.3)
    axes.use_sticky_edges = False
    axes.margins(y=0.06)
    axes.autoscale_view(scalex=False)
    axes.set_xticks(np.arange(0, flat.shape[1], -(-flat.shape[1] // MOST_TICKS)) if flat.shape[1] > 1 else [])
    axes.yaxis.set_major_locator(MaxNLocator(nbins=4))
    plain(axes)


def draw_action(axes: Axes, stream: StreamSpec, entry: int, values: Array) -> None:
    """How often an entry of the action has which value, logarithmic; its limits in red."""
    finite = values[np.isfinite(values)].astype(np.float64)
    if finite.size:
        axes.hist(finite, bins=BINS, color=BAR, log=True)
        axes.set_ylim(bottom=0.5)
    for limits in (stream.low, stream.high):
        if limits is not None:
            axes.axvline(limits[entry], color=LIMIT, linewidth=1.0)
    axes.xaxis.set_major_locator(MaxNLocator(nbins=3))
    axes.set_yticks([])
    axes.minorticks_off()
    plain(axes)


def draw_frame(axes: Axes, frame: Array) -> None:
    """A frame [h, w, c]; what is no byte is stretched to its range, and pixels that are not finite are red."""
    shown = frame
    if frame.dtype != np.uint8:
        numbers = frame.astype(np.float64)
        finite = np.isfinite(numbers)
        low, high = (numbers[finite].min(), numbers[finite].max()) if finite.any() else (0.0, 1.0)
        grey = np.where(finite, numbers, low) - low
        colours = np.broadcast_to(grey[:, :, :3] / max(float(high - low), 1e-12), (*grey.shape[:2], 3))
        shown = np.where(finite.all(axis=2, keepdims=True), colours, to_rgb(LIMIT))
    if shown.shape[2] == 1:
        axes.imshow(shown[:, :, 0], cmap="gray", vmin=0, vmax=255)
    else:
        axes.imshow(shown)
    axes.set_xticks([])
    axes.set_yticks([])
    for spine in axes.spines.values():
        spine.set_visible(False)


def flat_numbers(trajectories: Trajectories, stream: StreamSpec) -> Array:
    """[R, entries] of a stream of numbers."""
    values = trajectories.streams[stream.name]
    return values.reshape(len(values), -1)


def thinned(rows: Array) -> Array:
    """At most `MOST_ROWS` of them, evenly spaced."""
    return rows[:: max(1, -(-len(rows) // MOST_ROWS))]


def plain(axes: Axes) -> None:
    """Small grey figures and two thin spines."""
    axes.tick_params(labelsize=7.5, labelcolor=INK, length=2, color=MUTED, pad=2)
    for side, spine in axes.spines.items():
        spine.set_visible(side in ("left", "bottom"))
        spine.set_color(MUTED)
        spine.set_linewidth(0.6)


def _principal(stream: StreamSpec, flat: Array) -> Coverage:
    """The two directions in which the entries vary most, each entry in its standard deviations."""
    rows = thinned(flat).astype(np.float64)
    rows = rows[np.isfinite(rows).all(axis=1)]
    deviation = rows.std(axis=0) if len(rows) else np.zeros(flat.shape[1])
    varying = deviation > 0
    if varying.sum() < 2:
        return Coverage(rows[:, 0], rows[:, 1], "entry 0", "entry 1", f"where {stream.name} was")
    scaled = (rows[:, varying] - rows[:, varying].mean(axis=0)) / deviation[varying]
    _, sizes, axes = np.linalg.svd(scaled, full_matrices=False)
    shares: NDArray[np.float64] = sizes**2 / (sizes**2).sum()
    places = scaled @ axes[:2].T
    x_label, y_label = (f"component {number + 1} ({shares[number]:.0%})" for number in range(2))
    return Coverage(places[:, 0], places[:, 1], x_label, y_label, f"where {stream.name} was: its principal components")


def _deviation(entry: Array) -> float:
    finite = entry[np.isfinite(entry)]
    return float(finite.std(dtype=np.float64)) if finite.size else 0.0


def _unit(stream: StreamSpec, label: str) -> str:
    return f"{label}, {stream.units}" if stream.units else label


def shortened(text: str, longest: int) -> str:
    """One line of at most `longest` characters."""
    line = " ".join(text.split())
    return line if len(line) <= longest else f"{line[: longest - 1]}…"


def counted(names: Sequence[str], shown: int) -> str:
    """The names that are left out after the first few, in words; "" if none is."""
    rest = list(names[shown:])
    return f"{', '.join(rest[:4])}{' …' if len(rest) > 4 else ''}" if rest else ""
