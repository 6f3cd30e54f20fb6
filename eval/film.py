"""Films of arms' episodes, side by side: what the cameras showed, where things lay, whether it was a success.

Pixels depend on the episodes alone.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import av
import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from forcing.eval.arm_tasks import ArmTask
from forcing.eval.files import replacing
from forcing.eval.gif import save_gif, side_by_side
from forcing.eval.palette import BAD, GOOD, INK, MUTED, PAPER
from forcing.eval.task import Env, Info, Observation

SUFFIXES = (".gif", ".mp4")
FILMED = 3  # episodes
GIF_HZ, GIF_SPEED = 10.0, 2.0  # twice as fast as it was, so that the file stays small
LEAST, GAP, LINE = 240, 8, 18  # pixels across a view; between things; a line of text
HOLD_S = 2.0  # of the last picture

Frame = NDArray[np.uint8]


@dataclass(frozen=True, slots=True)
class Shot:
    """One observation. frames: camera -> [height, width, 3]. said: where things lie, in words. success: whether it was
    one now. distracted: cameras that were disturbed."""

    frames: Mapping[str, Frame]
    said: str
    success: bool
    distracted: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Take:
    """One episode. title: what it is called. shots: one a control step, and one before. held: whether it succeeded."""

    title: str
    shots: Sequence[Shot]
    held: bool


def shot(task: ArmTask, env: Env, observation: Observation, info: Info) -> Shot:
    """info: of the same step. Without cameras the environment is rendered."""
    frames: dict[str, Any] = {name: observation[name] for name in task.cameras} or {"view": env.render()}
    return Shot(
        frames={name: np.asarray(frame, np.uint8) for name, frame in frames.items()},
        said=task.telling(observation),
        success=bool(info.get("success", False)),
        distracted=tuple(info.get("distracted", ())),
    )


def write_film(takes: Sequence[Take], control_hz: float, path: Path) -> None:
    """Writes a GIF at twice the robot's speed or nearly, or an MP4 at its own, by the path's suffix.

    Raises ValueError for another suffix, or without takes.
    """
    check_film(path)
    if not takes:
        raise ValueError("a film needs at least 1 episode, got 0")
    moving = path.suffix == ".gif"
    hz, stride = (GIF_HZ, max(1, round(GIF_SPEED * control_hz / GIF_HZ))) if moving else (control_hz, 1)
    pictures = list(_pictures(takes, control_hz, stride))
    pictures += [pictures[-1]] * round(HOLD_S * hz)
    if moving:
        save_gif(pictures, [round(1000 / GIF_HZ)] * len(pictures), path)
        return
    with replacing(path) as beside:
        _write_mp4(pictures, beside, hz=round(hz))


def check_film(path: Path) -> None:
    """Raises ValueError if the path's suffix is none of `SUFFIXES`."""
    if path.suffix not in SUFFIXES:
        raise ValueError(f"film must end in {' or '.join(SUFFIXES)}, got {str(path)!r}")


def _pictures(takes: Sequence[Take], control_hz: float, stride: int) -> Iterator[Image.Image]:
    """The last one is of the last shot of each."""
    longest = max(len(take.shots) for take in takes) - 1
    for step in (*range(0, longest, stride), longest):
        columns = [_column(take, min(step, len(take.shots) - 1), control_hz) for take in takes]
        yield side_by_side(columns, multiple=16)  # as video codecs have them


def _column(take: Take, step: int, control_hz: float) -> Image.Image:
    now = take.shots[step]
    views = {name: _enlarged(frame) for name, frame in now.frames.items()}
    width = max(view.width for view in views.values()) + 2 * GAP
    height = GAP + 3 * LINE + sum(view.height + LINE + GAP for view in views.values())
    column = Image.new("RGB", (width, height), PAPER)
    draw, font = ImageDraw.Draw(column), ImageFont.load_default(13)
    draw.text((GAP, GAP), f"{take.title}   {step / control_hz:4.1f} s", INK, font)
    draw.text((GAP, GAP + LINE), now.said, MUTED, font)
    text, colour = _verdict(take, step)
    if text:
        draw.rectangle((GAP, GAP + 2 * LINE, width - GAP - 1, GAP + 3 * LINE - 2), fill=colour)
        draw.text((2 * GAP, GAP + 2 * LINE), text, PAPER, font)
    top = GAP + 3 * LINE
    for name, view in views.items():
        disturbed = name in now.distracted
        draw.text((GAP, top), f"{name}, disturbed" if disturbed else name, BAD if disturbed else MUTED, font)
        column.paste(view, (GAP, top + LINE))
        if disturbed:
            draw.rectangle((GAP, top + LINE, GAP + view.width - 1, top + LINE + view.height - 1), outline=BAD, width=3)
        top += view.height + LINE + GAP
    return column


def _enlarged(frame: Frame) -> Image.Image:
    height, width, _ = frame.shape
    scale = -(-LEAST // width)
    return Image.fromarray(frame).resize((scale * width, scale * height), Image.Resampling.NEAREST)


def _verdict(take: Take, step: int) -> tuple[str, str]:
    if step == len(take.shots) - 1:
        return ("held to the end", GOOD) if take.held else ("no success at the end", BAD)
    return ("success", GOOD) if take.shots[step].success else ("", MUTED)


def _write_mp4(pictures: Sequence[Image.Image], path: Path, *, hz: int) -> None:
    with av.open(str(path), "w", format="mp4") as container:
        stream = container.add_stream("libx264", rate=hz, options={"crf": "20"})
        stream.width, stream.height, stream.pix_fmt = pictures[0].width, pictures[0].height, "yuv420p"
        for picture in pictures:
            container.mux(stream.encode(av.VideoFrame.from_image(picture)))  # type: ignore[no-untyped-call]
        container.mux(stream.encode())
