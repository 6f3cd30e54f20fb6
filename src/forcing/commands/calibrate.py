"""`forcing calibrate`: how far what happens is from what a policy plans, kept in its file."""

import time
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from tyro.conf import Positional, arg

from forcing.commands.shared import Reading, ReadingOptions, Sources, one_thread, writable, wrong_usage
from forcing.usage import UsageError, at_least, typed

if TYPE_CHECKING:
    from forcing.policy.calibration import Harshness
    from forcing.policy.policy import Policy
    from forcing.policy.types import Frames, Trajectories

READING = Reading()


def calibrate(
    policy: Annotated[Positional[str], arg(metavar="POLICY")],
    drives: int = 128,
    seed: int = 0,
    contacts: float | None = None,
    room: float | None = None,
    data: Sources = (),
    reading: ReadingOptions = READING,
) -> None:
    """Measure how far a robot will be from a policy's plans, and keep it in the policy's file as its spread.

    The policy drives in its own world, on the dynamics fitted to its recording, among the places that were visited
    there; no simulator is asked. What it does and its revision stay. For a policy that remembers: what is usual of what
    it observes, given what it foresaw, in its recording; by that it tells how surprising a reading is.

    Args:
        policy: folder of a trained policy, or the name of a shipped one.
        drives: from one visited place to another, half of them with noisy sensors; more tell more of far horizons.
        seed: of everything random; the same seed gives the same spread.
        contacts: how often something strikes the robot there, a control step; as often as beliefs suppose if not given.
        room: between visited places and the walls there, in the goal's units; what plans may leave visited places by
            if not given. Where the spread is too wide or too narrow on the robot, these two are what to change.
        data: what a policy that remembers was trained on; `forcing train` has measured on it already.
    """
    from forcing.policy.calibration import Harshness
    from forcing.policy.checkpoint import load_policy_file
    from forcing.policy.policy import find_policy, load_policy

    one_thread()
    at_least(2, drives=drives)
    at_least(0, seed=seed)
    with wrong_usage():
        harshness = Harshness(room=room) if contacts is None else Harshness(contacts=contacts, room=room)
    path = find_policy(policy)
    memory = load_policy_file(path).preset.memory
    remembers = memory is not None
    if memory is not None and not memory.acts:
        raise UsageError(f"policy {policy} is a model of the world, which is not asked how usual an observation is")
    if remembers != bool(data):
        raise UsageError(
            f"policy {policy} remembers: name what it was trained on with --data"
            if remembers
            else f"policy {policy} is driven in its own world; leave out --data"
        )
    writable(policy=path)
    if remembers:
        recorded = _recorded(data, reading)
        keep_usual(path, recorded, recorded.frames, seed, typed())
    else:
        _keep_spread(path, load_policy(policy), drives, seed, harshness)


def _keep_spread(path: Path, policy: "Policy", drives: int, seed: int, harshness: "Harshness") -> None:
    from forcing.policy.calibration import calibrate as measure
    from forcing.policy.checkpoint import save_spread
    from forcing.progress import progress_bar

    began = time.monotonic()
    with progress_bar() as progress:
        bar = progress.add_task(f"driving {path.parent.name}", total=drives)
        spread = measure(
            policy,
            drives=drives,
            seed=seed,
            harshness=harshness,
            report=lambda done: progress.update(bar, completed=done),
        )
    minutes = round((time.monotonic() - began) / 60, 1)
    if (before := policy.card.get("spread")) is not None:
        print(f"in place of what {before.get('drives')} drives told: {before.get('command')}")
    save_spread(path, spread, {"drives": drives, "seed": seed, "command": typed(), "minutes": minutes})
    print(f"wrote {path}; plans tell their spread now")


def _recorded(data: tuple[str, ...], reading: Reading) -> "Trajectories":
    from forcing.datasets.joining import joined
    from forcing.datasets.recording import read_recording

    return joined([read_recording(source, **reading.how()) for source in data])


def keep_usual(path: Path, recorded: "Trajectories", frames: "Mapping[str, Frames]", seed: int, command: str) -> None:
    """Measures what is usual of what the policy in `path` observes, and writes it there.

    recorded: what it was trained on, with latents or frames. frames: of the cameras. command: as typed. Raises
    ValueError if the recording is not the policy's.
    """
    from forcing.policy.cameras import encoded
    from forcing.policy.checkpoint import load_policy_file, save_surprise
    from forcing.policy.foreseeing import measured, moments
    from forcing.policy.policy import Policy
    from forcing.progress import counted

    file = load_policy_file(path)
    assert file.preset.memory is not None
    believing = replace(file.preset, memory=replace(file.preset.memory, doubt=False))
    policy = Policy(path.parent.name, replace(file, preset=believing))
    if recorded.frames:
        with counted("looking at frames", sum(frames.shape[0] for frames in recorded.frames.values())) as report:
            recorded = encoded(recorded, policy.cameras, report)
    if [stream for stream in recorded.spec.streams if stream.role != "reward"] != [
        stream for stream in policy.seen_spec.streams if stream.role != "reward"
    ]:
        raise ValueError(f"policy {policy.name!r} was not trained on this recording: their streams differ")
    assert policy.history_planner is not None
    began = time.monotonic()
    with counted("seeing what is usual", moments(recorded.spec, policy.cameras)) as report:
        surprise = measured(policy.history_planner, recorded, frames, policy.cameras, seed=seed, report=report)
    minutes = round((time.monotonic() - began) / 60, 1)
    save_surprise(path, surprise, {"seed": seed, "command": command, "minutes": minutes})
    print(f"wrote {path}; replies tell how surprising readings are, --set memory.doubt=true leaves such aside")
