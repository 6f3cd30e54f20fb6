"""`forcing data`: recordings described, checked, mended, drawn, converted and dreamed from."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from tyro.conf import Positional, arg
from tyro.extras import SubcommandApp

from forcing.commands.shared import Reading, ReadingOptions, one_thread, writable, wrong_usage
from forcing.usage import UsageError, at_least, command

if TYPE_CHECKING:
    from forcing.datasets.findings import Finding
    from forcing.policy.types import Trajectories

app = SubcommandApp()
Source = Annotated[Positional[str], arg(metavar="SOURCE")]
READING = Reading()


@command(app)
def info(source: Source, reading: ReadingOptions = READING) -> None:
    """Describe a recording of any supported format.

    Args:
        source: the recording.
    """
    from forcing.datasets.description import describe
    from forcing.datasets.recording import open_recording, recognise

    print(describe(open_recording(source, **reading.how()), recognise(source)))


@command(app)
def check(source: Source, fix: Path | None = None, reading: ReadingOptions = READING) -> None:
    """Look for what would spoil training, and mend it if asked; exit code 1 if there are errors, or some are left.

    Args:
        source: the recording.
        fix: a new store, such as mended.zarr, for the recording without what could be mended; one that is there is
            replaced.
    """
    from forcing.datasets.checks import check_source

    if fix is None:
        _refuse_errors(source, check_source(source, **reading.how()))
    else:
        _mend(source, fix, reading)


@command(app)
def convert(source: Source, out: Path, reading: ReadingOptions = READING) -> None:
    """Turn any supported recording into one checked zarr store.

    Args:
        source: the recording.
        out: the store, such as medium.zarr; one that is there is replaced.
    """
    from forcing.datasets.checks import check as find_faults
    from forcing.datasets.recording import open_recording
    from forcing.datasets.store import check_target, write_store

    def accept(written: "Trajectories") -> None:
        _refuse_errors(source, find_faults(written), "; `forcing data check SOURCE --fix OUT.zarr` mends what it can")

    writable(out=out)
    check_target(out, source)
    print(f"wrote {write_store(open_recording(source, **reading.how()), out, accept=accept)}")


@command(app)
def picture(source: Source, out: Path, reading: ReadingOptions = READING) -> None:
    """Draw a recording on one page: lengths, coverage, ranges, actions, frames, tasks.

    Args:
        source: the recording.
        out: the picture, such as medium.png.
    """
    from forcing.datasets.recording import read_recording
    from forcing.eval.dataset_picture import draw_dataset

    writable(out=out)
    if out.suffix.lower() != ".png" or out.is_dir():
        raise UsageError(f"out must be a PNG file, such as medium.png, got {out}")
    name = Path(source).expanduser().name or source
    draw_dataset(read_recording(source, **reading.how()), name, out)
    print(f"wrote {out}")


@command(app)
def minari(source: Source, out: Path, dataset_id: str, reading: ReadingOptions = READING) -> None:
    """Turn any supported recording into a Minari dataset, such as the episodes that a server kept.

    Args:
        source: the recording.
        out: root of the dataset, as MINARI_DATASETS_PATH names one.
        dataset_id: such as mine/arm-v0.
    """
    from forcing.datasets.episodes import Finite
    from forcing.datasets.minari_export import export_minari
    from forcing.datasets.recording import open_recording

    writable(out=out)
    print(f"wrote {export_minari(Finite(open_recording(source, **reading.how())), out, dataset_id)}")


@command(app)
def lerobot(source: Source, out: Path, reading: ReadingOptions = READING) -> None:
    """Turn any supported recording into a LeRobot dataset v3.0, with frames as they are.

    Args:
        source: the recording.
        out: folder of the dataset, such as data/arm; it must not exist yet.
    """
    from forcing.datasets.episodes import Finite
    from forcing.datasets.lerobot_export import export_lerobot
    from forcing.datasets.recording import open_recording

    writable(out=out)
    print(f"wrote {export_lerobot(Finite(open_recording(source, **reading.how())), out)}")


@command(app)
def dream(
    source: Source,
    out: Path,
    steps: int = 300_000,
    room_steps: float = 2.0,
    sequences: int = 64,
    seed: int = 0,
    reading: ReadingOptions = READING,
) -> None:
    """Turn a recording into demonstrations as fast as the robot can go, from the recording alone.

    One-step dynamics are fitted to the recording, the places it visited and some room beside them are where one may
    go, and goals are driven to on both at full speed. For low-dimensional recordings with a goal stream; refuses,
    with the reason, where the fitted dynamics predict badly.

    Args:
        source: the recording.
        out: the store, such as medium-dreamed.zarr; one that is there is replaced.
        steps: control steps to dream.
        room_steps: how far, in fastest recorded steps, the dream may leave visited places where nothing was touched; 0
            keeps to them.
        sequences: action sequences tried at each control step and in each round; more drive faster and dream slower.
        seed: of everything random; the same seed gives the same dream.
    """
    from forcing.datasets.dream import ROUNDS, DreamConfig
    from forcing.datasets.dream import dream as dream_from
    from forcing.datasets.recording import read_recording
    from forcing.datasets.store import check_target, write_store
    from forcing.policy.mpc import MpcConfig
    from forcing.progress import progress_bar

    one_thread()
    writable(out=out)
    check_target(out, source)
    with wrong_usage():
        controller = MpcConfig(sequences=sequences, rounds=ROUNDS)
        config = DreamConfig(steps=at_least(1, steps=steps), room_steps=room_steps, controller=controller)
    recorded = read_recording(source, **reading.how())
    with progress_bar() as progress:
        bar = progress.add_task(f"dreaming from {Path(source).name}", total=steps)
        dreamed = dream_from(
            recorded, config, at_least(0, seed=seed), lambda done: progress.update(bar, completed=done)
        )
    print(f"wrote {write_store(dreamed, out)}: {int(dreamed.lengths.sum())} steps, {len(dreamed.lengths)} episodes")


def _mend(source: str, out: Path, reading: Reading) -> None:
    """A new store at `out`; exit code 1 if errors are left in it, or if the recording cannot be read."""
    from forcing.datasets.checks import check as find_faults
    from forcing.datasets.checks import unreadable
    from forcing.datasets.mending import mended
    from forcing.datasets.recording import read_recording
    from forcing.datasets.store import check_target, open_store, write_store

    writable(fix=out)
    with wrong_usage():
        check_target(out, source)
    try:
        trajectories = read_recording(source, **reading.how())
    except ValueError as error:
        _refuse_errors(source, [unreadable(error)], "; nothing is mended of what cannot be read")
        return
    findings = find_faults(trajectories)
    for finding in findings:
        print(finding)
    result = mended(trajectories, findings)
    for change in result.changes:
        print(f"mended: {change}")
    for reason in result.left:
        print(f"left as it is: {reason}")
    after = result.trajectories.lengths
    kept = f"{len(after)} episodes, {int(after.sum())} of {int(trajectories.lengths.sum())} steps"
    print(f"wrote {write_store(result.trajectories, out)}: {kept}")
    _refuse_errors(str(out), find_faults(open_store(out)))


def _refuse_errors(source: str, findings: Sequence["Finding"], remedy: str = "") -> None:
    for finding in findings:
        print(finding)
    errors = sum(finding.severity == "error" for finding in findings)
    print(f"{source}: {errors} errors, {len(findings) - errors} warnings{remedy if errors else ''}")
    if errors:
        raise SystemExit(1)
