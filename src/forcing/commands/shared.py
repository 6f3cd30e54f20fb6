"""What several commands share: types and checks of options, threads, the world that a recording shows."""

import json
import shlex
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from tyro.conf import Positional, UseAppendAction, arg

from forcing.usage import UsageError, at_least

if TYPE_CHECKING:
    from forcing.policy.cameras import Codecs
    from forcing.policy.preset import Preset
    from forcing.policy.types import Trajectories
    from forcing.policy.vision import VisionConfig
    from forcing.policy.world import World

TaskName = Annotated[Positional[str], arg(metavar="TASK")]
Sources = Annotated[UseAppendAction[tuple[str, ...]], arg(metavar="SOURCE")]
Settings = Annotated[UseAppendAction[tuple[str, ...]], arg(name="set", metavar="KEY=VALUE")]


@dataclass(frozen=True, slots=True, kw_only=True)
class Reading:
    """How a recording is read.

    Args:
        control_hz: steps a second, where the recording does not say or is wrong.
        stream: what its streams are called, such as observation=state for the one it calls state, or wrist= to leave
            that one out; action=infos/executed reads actions from that info of a Minari dataset; several with commas
            between, and several --stream, may follow.
        subset: only the episodes in this subset, such as train.
        download: fetch a Minari dataset that is not here.
    """

    control_hz: float | None = None
    stream: UseAppendAction[tuple[str, ...]] = ()
    subset: str | None = None
    download: bool = False

    def names(self) -> dict[str, str]:
        """New name -> the source's, "" to leave it out. Raises UsageError if an entry is not NAME=SOURCE."""
        entries = [entry.strip() for option in self.stream for entry in option.split(",") if entry.strip()]
        names: dict[str, str] = {}
        for entry in entries:
            name, equals, source = (part.strip() for part in entry.partition("="))
            if not equals or not name:
                raise UsageError(f"stream must read NAME=SOURCE, or NAME= to leave it out, got {entry!r}")
            if name in names:
                raise UsageError(f"stream {name!r} must be named once, got {names[name]!r} and {source!r}")
            names[name] = source
        return names

    def typed(self) -> str:
        """As options of a command, each with a space before it."""
        options = [("control-hz", self.control_hz), ("subset", self.subset)]
        options += [("stream", names) for names in self.stream]
        return "".join(f" --{name} {shlex.quote(str(value))}" for name, value in options if value is not None)

    def how(self) -> dict[str, Any]:
        """What `open_recording` and `read_recording` take. Raises UsageError as `names`."""
        return {
            "control_hz": self.control_hz,
            "streams": self.names(),
            "subset": self.subset,
            "download": self.download,
        }


ReadingOptions = Annotated[Reading, arg(name="")]


@contextmanager
def wrong_usage() -> Iterator[None]:
    """Turns a ValueError of the block, which looks at options alone, into a UsageError."""
    try:
        yield
    except ValueError as error:
        raise UsageError(str(error)) from error


def checked_report(report: Path | None, needs: str = "task") -> Path | None:
    """`report`. Raises UsageError if something else than a report of its kind stands there, which it would replace.

    needs: what every such report has, or every entry of one.
    """
    if report is None or not report.exists():
        return writable(report=report)
    if report.is_dir():
        raise UsageError(f"report {report} is a folder; name a file in it")
    try:
        found = json.loads(report.read_text())
    except ValueError:
        found = None
    entries = found if isinstance(found, list) else [found]
    if not all(isinstance(entry, dict) and needs in entry for entry in entries):
        raise UsageError(f"report {report} is there already and is no such report; name another file, or remove it")
    return writable(report=report)


def checked_folder(**named: Path | None) -> None:
    """Raises UsageError if the one named path is there and is no folder, or cannot be made."""
    ((name, path),) = named.items()
    if path is not None and path.exists() and not path.is_dir():
        raise UsageError(f"{name} {path} must be a folder, and is a file; name another, or remove it")
    writable(**named)


def writable(**named: Path | None) -> Path | None:
    """The one named path. Raises UsageError if it cannot be written, which would else be found when all is done.

    What is written stands beside its place until it is whole, so it is the folder that must be writable.
    """
    ((name, path),) = named.items()
    if path is not None:
        there = next(place for place in path.absolute().parents if place.exists())
        if not there.is_dir():
            raise UsageError(f"{name} {path} must lie in a folder, and {there} is a file; name another place")
        try:  # a file system may refuse what its permissions allow
            tempfile.TemporaryFile(dir=there).close()
        except OSError as error:
            raise UsageError(
                f"{name} {path} cannot be written: nothing can be made in {there}; name another place"
            ) from error
    return path


def checked_workers(workers: int | None) -> int | None:
    """`workers`, where None is one a core. Raises UsageError if it is below 1."""
    return None if workers is None else at_least(1, workers=workers)


def one_thread() -> None:
    """Small networks on shared cores lose by more threads, and sums in another order would change results."""
    import torch

    torch.set_num_threads(1)


def seen_by_networks(
    recorded: "Trajectories", vision: "VisionConfig", codecs: "Codecs | None" = None, *, seed: int = 0
) -> "tuple[Trajectories, Codecs]":
    """The recording in numbers alone, latents in place of its cameras' frames, and what made them.

    codecs: of the run that is gone on with, which stay as they are; fitted to the recording if not given. seed: of
    fitting them. Raises ValueError if a goal is given in a camera's stream, or frames are not of uint8,
    RuntimeError at Ctrl-C while eyes are learned.
    """
    from forcing.policy.cameras import encoded, fit_codecs
    from forcing.progress import counted

    if not recorded.frames:
        return recorded, {}
    if codecs is None and vision.kind == "components":
        codecs = fit_codecs(recorded, vision, seed=seed)
    elif codecs is None:
        every = list(recorded.frames)
        try:
            with counted("learning to see", vision.steps * len(every)) as report:
                codecs = fit_codecs(
                    recorded,
                    vision,
                    seed=seed,
                    report=lambda camera, done: report(every.index(camera) * vision.steps + done),
                )
        except KeyboardInterrupt:
            raise RuntimeError(
                "stopped while learning to see, of which nothing is kept; begin again, without --resume"
            ) from None
    with counted("looking at frames", sum(frames.shape[0] for frames in recorded.frames.values())) as report:
        trajectories = encoded(recorded, codecs, report)
    for name, codec in codecs.items():
        print(f"camera {name!r}: {codec.latents} numbers a frame hold {codec.explained:.0%} of what varies in it")
    return trajectories, codecs


def world_for(recipe: "Preset", trajectories: "Trajectories", cameras: "Codecs | None" = None) -> "World | None":
    """What the recording shows besides trajectories, None if nothing or nobody asks. Raises NoWorld if the recipe needs
    it.

    cameras: streams of latents, of which no dynamics are fitted.
    """
    from forcing.policy.world import NoWorld, fit_world

    if recipe.memory is not None:
        return None  # nobody asks it: what such a policy samples is played
    try:
        if cameras:
            raise NoWorld(f"what the camera {next(iter(cameras))!r} shows follows no linear dynamics")
        world = fit_world(trajectories)
    except NoWorld as reason:
        if recipe.tracker.kind == "feedback":
            raise NoWorld(
                f"{reason}; a feedback tracker needs dynamics; train with --set tracker.kind=actions"
            ) from reason
        print(f"plans will not be rehearsed: {reason}")
        return None
    print("dynamics fitted; plans will be rehearsed on them")
    return world
