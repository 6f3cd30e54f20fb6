"""Frames of an episode out of a video, matched by their times. Knows no dataset."""

from collections.abc import Iterator
from itertools import chain
from pathlib import Path

import av
import numpy as np
from av.container import InputContainer
from av.video.frame import VideoFrame
from av.video.stream import VideoStream

from forcing.policy.types import Array

FORMATS = {1: "gray", 3: "rgb24"}
# Of the time from one frame to the next: nearer than this a frame is the one that is asked for.
TOLERANCE = 0.25


def video_frames(path: Path, times_s: Array, shape: tuple[int, ...], fps: float, where: str) -> Array:
    """[N, h, w, c] uint8, the frame nearest to each time, as PyAV decodes it.

    times_s: [N] seconds in the video, never falling. shape: (h, w, c). fps: of the table that the times are from.
    Decodes from the key frame before the first time to the frame after the last. Raises ValueError naming file, `where`
    and time if the video is missing, broken, of another shape, or has no frame within a quarter of a period of a time.
    """
    if not path.is_file():
        raise ValueError(f"{path}: the video of {where} is missing; copy the dataset again")
    if shape[2] not in FORMATS:
        raise ValueError(f"{path}: a video must have 1 or 3 channels, meta/info.json says {list(shape)}")
    if (np.diff(times_s) < 0).any():
        raise ValueError(f"{path}: timestamps of {where} must not fall; record it again")
    result = np.empty((len(times_s), *shape), np.uint8)
    try:
        with av.open(path, metadata_errors="replace") as container:
            if not container.streams.video:
                raise ValueError(f"{path}: must have a video track for {where}, found none; copy the dataset again")
            stream = container.streams.video[0]
            stream.thread_type = "AUTO"
            decoded = _from_key_frame(container, stream, float(times_s[0]), fps)
            for row, frame in enumerate(_nearest(decoded, times_s, fps, f"{path}: {where}")):
                if (frame.height, frame.width) != shape[:2]:
                    raise ValueError(
                        f"{path}: frames are {frame.height} × {frame.width}, meta/info.json says {list(shape)}"
                    )
                result[row] = frame.to_ndarray(format=FORMATS[shape[2]]).reshape(shape)
    except av.FFmpegError as error:
        raise ValueError(
            f"{path}: cannot be decoded for {where} ({error.strerror}); it was cut short or altered: copy it again"
        ) from error
    return result


def _nearest(decoded: Iterator[VideoFrame], times_s: Array, fps: float, where: str) -> Iterator[VideoFrame]:
    """The frame nearest to each time, one after another."""
    before: VideoFrame | None = None
    after: VideoFrame | None = next(decoded, None)
    for time in times_s:
        while after is not None and after.time < time:
            before, after = after, next(decoded, None)
        frame = min((one for one in (before, after) if one), key=lambda one: abs(one.time - time), default=None)
        if frame is None or abs(frame.time - time) > TOLERANCE / fps:
            found = "no frame at all" if frame is None else f"none nearer than {frame.time:.4f} s"
            ends = "and ends there: it is shorter than its table" if after is None else "at that time"
            raise ValueError(f"{where} needs a frame at {time:.4f} s, the video has {found}, {ends}; copy it again")
        yield frame


def _from_key_frame(container: InputContainer, stream: VideoStream, first_s: float, fps: float) -> Iterator[VideoFrame]:
    """Frames in the order they are shown, from the last key frame before `first_s` on."""
    wanted = first_s - 1 / fps
    base = float(stream.time_base or 1)
    container.seek(max(round(wanted / base), stream.start_time or 0), stream=stream)
    frames = _timed(container, stream)
    first = next(frames, None)
    if first is not None and first.time <= first_s:
        return chain([first], frames)
    # Without an index of key frames, as in fragments, the search overshoots.
    container.seek(stream.start_time or 0, stream=stream)
    return _timed(container, stream)


def _timed(container: InputContainer, stream: VideoStream) -> Iterator[VideoFrame]:
    return (frame for frame in container.decode(stream) if frame.pts is not None)
