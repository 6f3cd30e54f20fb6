"""Frames of cameras: of another type than bytes, showing nothing, or stuck while the robot moves. Read in blocks."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from forcing.datasets.clocks import clocks
from forcing.datasets.findings import Finding, found_in_spans, row_spans
from forcing.datasets.motion import motion_of
from forcing.datasets.runs import Stretches, long_steps, stretches
from forcing.policy.types import Frames, Index, StreamSpec, Trajectories, blocks

DARKEST, FLATTEST = 16, 4  # what every pixel of a black frame is below at most; the range of a frame of one colour
NEVER_SHARE = 0.01  # of steps: a camera that repeats itself less often has noise, which a stuck one has not
OFTEN_SHARE, OFTEN_TIMES, REGULAR_TIMES = 0.3, 4, 1.5  # a slow camera repeats each frame; stuck is four times as long
THAW_TIMES = 1.5  # of the median change between frames
BLOCK_BYTES = 32 << 20
COARSE_PIXELS = 32  # a side of the thinned frames that changes are measured on


@dataclass(frozen=True, slots=True)
class _Seen:
    """blank: [R] frames that show nothing. repeats: [R] frames equal to the one before. change: [R] mean change of a
    pixel from the frame before. The first has none before it."""

    blank: NDArray[np.bool_]
    repeats: NDArray[np.bool_]
    change: NDArray[np.float64]


def check_frames(trajectories: Trajectories) -> Iterator[Finding]:
    """What is wrong with each camera."""
    for stream in trajectories.spec.streams:
        if not stream.image:
            continue
        frames = trajectories.frames[stream.name]
        if frames.dtype != np.uint8:
            yield Finding(
                kind="frame type",
                severity="error",
                stream=stream.name,
                rule=f"frames must be uint8, 0 to 255, and are {frames.dtype.name}",
                count=int(frames.shape[0]),
                where=(),
                remedy="record them as bytes; numbers that only happen to have a frame's shape must be flattened",
            )
            continue
        yield from _camera(trajectories, stream, _looked_at(frames))


def _camera(trajectories: Trajectories, stream: StreamSpec, seen: _Seen) -> Iterator[Finding]:
    if seen.blank.all() or seen.repeats[1:].all():
        yield Finding(
            kind="constant",
            severity="warning",
            stream=stream.name,
            rule="should vary: " + ("all its frames show nothing" if seen.blank.all() else "all its frames are equal"),
            count=len(seen.blank),
            where=(),
            remedy="a camera that was covered or not connected: leave the stream out",
        )
        return
    if seen.blank.any():
        spans = row_spans(np.flatnonzero(seen.blank), trajectories, "observation")
        rule = f"frames must show something: {int(seen.blank.sum())} are black or of one colour"
        remedy = "the camera dropped out: look at its cable and driver; --fix cuts these stretches out"
        yield found_in_spans("blank frames", "error", stream.name, spans, rule, remedy)
    stuck = _stuck(trajectories, seen)
    if len(stuck):
        rule = (
            f"a camera must not stand still while the robot moves: the same frame for up to {stuck.steps.max()} steps"
        )
        remedy = "the camera or its driver was stuck: --fix cuts these stretches out"
        yield found_in_spans("frozen camera", "error", stream.name, stuck.spans(trajectories, shift=1), rule, remedy)


def _looked_at(frames: Frames) -> _Seen:
    """One pass over all frames."""
    rows, thin = int(frames.shape[0]), max(1, min(frames.shape[1:3]) // COARSE_PIXELS)
    blank, repeats, change = np.zeros(rows, bool), np.zeros(rows, bool), np.zeros(rows)
    last = None
    starts = blocks(frames, BLOCK_BYTES)
    for first in starts:
        block = frames[first : first + starts.step]
        flat = block.reshape(len(block), -1)
        darkest, brightest = flat.min(axis=1), flat.max(axis=1)
        blank[first : first + len(block)] = (brightest <= DARKEST) | (brightest - darkest <= FLATTEST)
        for index, frame in enumerate(block):
            if last is not None:
                repeats[first + index] = np.array_equal(frame, last)
                if not repeats[first + index]:
                    apart = frame[::thin, ::thin].astype(np.int16) - last[::thin, ::thin]
                    change[first + index] = np.abs(apart).mean()
            last = frame
    return _Seen(blank, repeats, change)


def _stuck(trajectories: Trajectories, seen: _Seen) -> Stretches:
    """Long stretches of one frame, of a camera that otherwise never repeats itself, or does so in step; of any other
    camera only if it jumps on afterwards."""
    after: Index = trajectories.before_steps() + 1
    repeats = seen.repeats[after] & ~seen.blank[after]
    found = stretches(repeats, trajectories, long_steps(trajectories.spec.control_hz))
    share = (repeats.sum() - found.steps.sum()) / max(len(repeats) - int(found.steps.sum()), 1)
    steady = share <= NEVER_SHARE
    if repeats.mean() > OFTEN_SHARE:
        every = stretches(repeats, trajectories).steps
        limit = OFTEN_TIMES * float(np.median(every))
        found = found[found.steps >= limit]
        steady = float(np.quantile(every[every < limit], 0.95)) <= REGULAR_TIMES * limit / OFTEN_TIMES
    found = found[motion_of(trajectories, tuple(clock.name for clock in clocks(trajectories))).moves(found)]
    if steady or not len(found):
        return found
    change = seen.change[after]
    episode_ends = np.cumsum(trajectories.lengths)[found.episode]
    next_steps = np.minimum(found.end, episode_ends - 1)  # of those that never thaw, a step of no change
    return found[change[next_steps] > THAW_TIMES * np.median(change[change > 0])]
