"""`forcing train` and `forcing clone`: networks trained on a recording."""

import shlex
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import numpy as np
from tyro.conf import Positional, arg

from forcing.commands.calibrate import keep_usual
from forcing.commands.recorded import recordings_of, shares_of
from forcing.commands.shared import (
    Reading,
    ReadingOptions,
    Settings,
    Sources,
    checked_folder,
    one_thread,
    seen_by_networks,
    world_for,
    wrong_usage,
)
from forcing.usage import UsageError, at_least, known, typed

if TYPE_CHECKING:
    from forcing.policy.cameras import Codecs
    from forcing.policy.checkpoint import PolicyFile
    from forcing.policy.histories import Episodes
    from forcing.policy.preset import Preset
    from forcing.policy.training import Budget
    from forcing.policy.types import Trajectories, WindowSource

READING = Reading()
PresetName = Annotated[Positional[str], arg(metavar="[PRESET]")]


def train(
    data: Sources,
    preset: PresetName = "generic",
    weights: str | None = None,
    out: Path | None = None,
    minutes: float | None = None,
    steps: int | None = None,
    seed: int = 0,
    resume: bool = False,
    device: Literal["cpu", "cuda"] = "cpu",
    eyes: str | None = None,
    usual: bool = True,
    reading: ReadingOptions = READING,
    set_: Settings = (),
) -> None:
    """Train a policy on a recording; Ctrl-C saves, --resume goes on.

    Args:
        data: any recording (docs/formats.md); several --data, of one robot, are trained on together. One with cameras
            that is no store is converted to OUT/data.zarr first.
        preset: recipe: maze2d-umaze, -medium, -large, ogbench-pointmaze-medium-navigate, -medium-stitch,
            -large-navigate and so on to -giant-stitch; remembering, for arms, which acts from all that its episode has
            shown, and by its tasks swap, swap-cameras, cube-single, cube-double, metaworld, fetch-push and
            fetch-pick-and-place; models of the world, swap-world and swap-cameras-world. Left out, or generic, the
            recipe is inferred from the recording, and said.
        weights: how often each of several recordings is drawn from, such as 0.7,0.3; by their lengths if not given.
        out: folder of the policy; runs/PRESET if not given, runs/generic without one.
        minutes: training time; 20, or as before with --resume, if neither minutes nor steps is given.
        steps: optimiser steps, instead of minutes.
        seed: of weights, windows and noise.
        resume: go on with the run in OUT, same budget, seed and data. It ends at the weights of an uninterrupted run,
            bit for bit: with steps always, with minutes if the learning rate had begun to fall.
        device: cpu or cuda.
        eyes: policy, or folder of one, of the same cameras, whose codecs see for this one too; it learns none itself.
        usual: at its end, measure what is usual of what a policy that remembers observes, for some minutes; left out,
            its replies tell no surprise until `forcing calibrate` has done so.
        set_: a setting of the recipe, such as denoiser.kind=recurrent or optimiser.weight=fused_snr; several --set may
            follow.
    """
    import torch

    from forcing.datasets.joining import joined
    from forcing.policy import training
    from forcing.policy.cameras import fit_normaliser
    from forcing.policy.checkpoint import load_policy_file
    from forcing.policy.foreseeing import NothingForeseen
    from forcing.policy.moves import check_moves, told_as_moves
    from forcing.policy.policy import FILE_NAME
    from forcing.progress import train_watched

    one_thread()
    recipe = _recipe(preset, set_)
    if device == "cuda" and not torch.cuda.is_available():
        raise UsageError("device cuda is not available here; leave out --device")
    folder = out or Path("runs") / preset
    checked_folder(out=folder)
    if resume and not (folder / "resume.safetensors").exists():
        raise UsageError(f"{folder} holds no run to resume; leave out --resume, or name its folder with --out")
    budget = _budget(minutes, steps, folder if resume else None)
    if (folder / "resume.safetensors").exists() and not resume:
        raise UsageError(f"{folder} holds a run already; add --resume, or choose another --out")
    shares = shares_of(weights, len(data))
    recordings = recordings_of(data, reading, folder, resume=resume)
    recorded = joined(recordings)
    # A run that was killed at once has not even a policy's file.
    begun = load_policy_file(folder / FILE_NAME) if resume and (folder / FILE_NAME).exists() else None
    if recipe is None:
        recipe = _inferred(recorded, set_) if begun is None else _resumed(begun, set_)
    moves_from = None if recipe.memory is None else recipe.memory.moves_from
    if moves_from is not None:
        check_moves(recorded.spec, moves_from)  # before hours of learning to see
    recipe, cameras = _seeing(recipe, recorded, begun, eyes)
    trajectories, cameras = seen_by_networks(recorded, recipe.vision, cameras, seed=seed)
    if moves_from is not None:
        trajectories = told_as_moves(trajectories, moves_from)
    trainer = training.Trainer(
        recipe,
        _learned_from(recipe, trajectories, [len(part.lengths) for part in recordings], shares),
        fit_normaliser(trajectories, cameras, recipe.vision),
        seed=seed,
        device=device,
        world=world_for(recipe, trajectories, cameras),
        cameras=cameras,
    )
    named = "".join(f" --data {shlex.quote(source)}" for source in data)
    changed = "" if weights is None else f" --weights {weights}"
    changed += "" if eyes is None else f" --eyes {shlex.quote(eyes)}"
    changed += reading.typed() + "".join(f" --set {shlex.quote(setting)}" for setting in set_)
    card: dict[str, object] = {
        "task": preset,
        "data": data[0] if len(data) == 1 else list(data),
        "data_steps": int(trajectories.lengths.sum()),
        "data_provenance": dict(trajectories.provenance),
        "seed": seed,
        "device": device,
        "command": f"forcing train {preset}{named} --out {folder} {budget} --seed {seed}{changed}",
    }
    if cameras:
        card["cameras"] = {
            name: {"latents": c.latents, "explained": round(c.explained, 4)} for name, c in cameras.items()
        }
    path = train_watched(trainer, budget, folder, card, resume=resume)
    if recipe.memory is not None and not recipe.memory.acts:
        print(f"wrote {path}; see what it imagines: forcing bench imagine --policy {path.parent} --data HELD_OUT")
        return
    if recipe.memory is not None and usual:
        try:
            keep_usual(path, trajectories, recorded.frames, seed, f"{card['command']}")
        except NothingForeseen as reason:  # hours of training are not lost by that
            print(f"replies will not tell how surprising readings are: {reason}")
        except KeyboardInterrupt:
            raise RuntimeError(
                f"stopped before it was known what is usual; {path.parent} is trained to its end and can be served, "
                "and --resume, or forcing calibrate, goes on with what is usual"
            ) from None
    print(f"wrote {path}; serve it: forcing serve --policy {path.parent}")
    if trainer.world is not None and trajectories.spec.goal is not None:
        print(f"its plans tell how far the robot will be from them after: forcing calibrate {path.parent}")


def _learned_from(
    recipe: "Preset", recorded: "Trajectories", episodes: "Sequence[int]", shares: "Sequence[float] | None"
) -> "WindowSource | Episodes":
    """What a recipe learns from: whole episodes if it remembers, else windows. episodes: of each recording. shares: how
    often each is drawn from."""
    from forcing.datasets.joining import divided
    from forcing.datasets.mixture import windows_of
    from forcing.policy.histories import Episodes

    parts = divided(recorded, episodes)
    if recipe.memory is None:
        return windows_of(parts, shares)
    steps = [part.lengths.sum() for part in parts]
    often = steps if shares is None else shares
    each = [part.lengths * (share / total) for part, share, total in zip(parts, often, steps, strict=True)]
    return Episodes(recorded, np.concatenate(each))


def _recipe(preset: str, settings: Sequence[str]) -> "Preset | None":
    """The named recipe with its settings, None for one that is inferred. Raises UnknownName, UsageError."""
    from forcing.policy.config import override
    from forcing.policy.inferring import INFERRED
    from forcing.policy.names import UnknownName
    from forcing.policy.preset import PRESETS

    recipe = known(preset, PRESETS, "preset")
    if preset != INFERRED:
        with wrong_usage():
            return override(recipe, *settings)
    try:
        override(recipe, *settings)
    except UnknownName:
        raise
    except ValueError:  # may fit what is inferred
        pass
    return None


def _inferred(recorded: "Trajectories", settings: Sequence[str]) -> "Preset":
    """The recipe that fits the recording, with its settings; says what was chosen and why. Raises UsageError."""
    from forcing.policy.config import override
    from forcing.policy.inferring import inferred, told

    recipe, choices = inferred(recorded.spec, recorded.lengths)
    with wrong_usage():
        recipe = override(recipe, *settings)
    print("inferred from the recording; --set KEY=VALUE changes it:")
    for line in told(choices, settings):
        print(f"  {line}")
    return recipe


def _resumed(begun: "PolicyFile", settings: Sequence[str]) -> "Preset":
    """The recipe that a run began with. Raises UsageError."""
    from forcing.policy.config import override

    with wrong_usage():
        return override(begun.preset, *settings)


def _seeing(
    recipe: "Preset", recorded: "Trajectories", begun: "PolicyFile | None", eyes: str | None
) -> "tuple[Preset, Codecs | None]":
    """The recipe, with the vision of other eyes if there are any, and the codecs that are not to be learned. Raises
    UsageError if the recording's cameras are not theirs, or it has none and the recipe is for cameras."""
    from forcing.policy.checkpoint import load_policy_file
    from forcing.policy.policy import find_policy
    from forcing.policy.vision import VisionConfig

    if recipe.vision.kind != VisionConfig().kind and not recorded.frames:
        names = ", ".join(stream.name for stream in recorded.spec.streams)
        raise UsageError(
            f"preset {recipe.name} is for cameras, and the recording has none, only {names}; name one that has, or "
            "train another preset"
        )
    other = None if eyes is None else load_policy_file(find_policy(eyes))
    if other is not None:
        recipe = replace(recipe, vision=other.preset.vision)
    if begun is not None:
        _check_vision(begun, recipe)
        return recipe, _cameras_of(begun, recorded, "the saved run")
    return recipe, None if other is None else _cameras_of(other, recorded, f"--eyes {eyes}")


def _check_vision(begun: "PolicyFile", recipe: "Preset") -> None:
    """Raises UsageError if a run that is resumed did not begin to see as the recipe says."""
    for name, saved in asdict(begun.preset.vision).items():
        if (present := getattr(recipe.vision, name)) != saved:
            raise UsageError(
                f"vision.{name} of the saved run is {saved!r}, of this one {present!r}; "
                "go on with the settings it began with, or let this run learn to see by itself"
            )


def _cameras_of(other: "PolicyFile", recorded: "Trajectories", whose: str) -> "Codecs":
    """What made the latents of another run, or of this one before it was resumed. Raises UsageError if they are not of
    the recording's cameras."""
    known = {name: codec.shape for name, codec in other.cameras.items()}
    shown = {name: tuple(frames.shape[1:]) for name, frames in recorded.frames.items()}
    if known != shown:
        raise UsageError(f"cameras of {whose} are {known}, of this recording {shown}; name data of the same cameras")
    return other.cameras


def clone(
    data: str,
    out: Path,
    minutes: float | None = None,
    steps: int | None = None,
    seed: int = 0,
    reading: ReadingOptions = READING,
) -> None:
    """Clone a plain network from a recording: what was done there, given the state and a place reached later.

    A yardstick for planners: `forcing eval` takes its folder as a policy. Ctrl-C saves what there is.

    Args:
        data: any recording (docs/formats.md).
        out: folder of the clone; one that is there is replaced.
        minutes: training time; 20 if neither minutes nor steps is given.
        steps: optimiser steps, instead of minutes.
        seed: of weights and goals.
    """
    from forcing.datasets.recording import read_recording
    from forcing.policy.clone import CloneConfig, train_clone
    from forcing.policy.policy import FILE_NAME
    from forcing.progress import watched

    one_thread()
    at_least(0, seed=seed)
    checked_folder(out=out)
    if (out / FILE_NAME).exists():
        raise UsageError(f"{out} holds a trained policy, which a clone there would hide; choose another --out")
    budget = _budget(minutes, steps)
    recorded = read_recording(data, **reading.how())
    trajectories = recorded.numbers()
    if recorded.frames:
        print(f"clones see no cameras: {', '.join(recorded.frames)} left out")
    card = {"data": data, "data_provenance": dict(trajectories.provenance), "seed": seed, "command": typed()}
    path = watched(
        "clone",
        lambda report, stop: train_clone(
            trajectories, CloneConfig(), budget, out, card, seed=seed, report=report, stop=stop
        ),
    )
    print(f"wrote {path}; score it: forcing eval TASK --policy {path.parent}")


def _budget(minutes: float | None, steps: int | None, resumed: Path | None = None) -> "Budget":
    """Of training: as given; else that of the run that is resumed; else 20 minutes. Raises UsageError."""
    from forcing.policy.training import Budget, saved_budget

    with wrong_usage():
        if minutes is not None or steps is not None:
            return Budget(steps=steps, minutes=minutes)
        return (saved_budget(resumed) if resumed else None) or Budget(minutes=20.0)
