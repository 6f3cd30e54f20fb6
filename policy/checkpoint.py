"""Policies and training states on disk: one safetensors file each, with a JSON header; never pickle.

A file is written beside its place and moved there, so that a killed writer leaves the old one. A digest over header and
weights finds a flipped byte.
"""

import hashlib
import json
import os
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from forcing.policy.cameras import codec_of, encoded_spec
from forcing.policy.config import from_json
from forcing.policy.preset import Preset
from forcing.policy.spread import Spread
from forcing.policy.surprise import Surprise
from forcing.policy.tokens import Normaliser
from forcing.policy.types import TrajectorySpec
from forcing.policy.vision import Codec
from forcing.policy.world import World

VERSION = 1
# Names of tensors that are no weights.
WORLD, SPREAD, CAMERA, SURPRISE = "world.", "spread.", "camera.", "surprise."


class CheckpointError(ValueError):
    """A file that is no checkpoint of ours, is damaged, or is of a later version."""


@dataclass(frozen=True, slots=True)
class TrainingState:
    """tensors by name, and plain facts; see `resuming.snapshot`."""

    tensors: Mapping[str, Tensor]
    facts: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class PolicyFile:
    """What a policy file holds.

    world: what the recording showed besides, None if nothing. spread: how far outcomes are from plans, None if that was
    not measured. cameras: streams of frames, and what the network sees of them, numbers to the normaliser. revision: 12
    hex digits of a sha256 over all that decides what the policy does: everything but the card and the spread.
    surprise: what is usual of observations, by which readings may be left aside; None if that was not measured.
    """

    preset: Preset
    spec: TrajectorySpec
    normaliser: Normaliser
    weights: Mapping[str, Tensor]
    card: Mapping[str, Any]
    revision: str
    world: World | None = None
    spread: Spread | None = None
    cameras: Mapping[str, Codec] = field(default_factory=dict)
    surprise: Surprise | None = None


def save_policy(
    path: Path,
    preset: Preset,
    spec: TrajectorySpec,
    normaliser: Normaliser,
    weights: Mapping[str, Tensor],
    card: Mapping[str, Any],
    world: World | None = None,
    spread: Spread | None = None,
    cameras: Mapping[str, Codec] | None = None,
) -> None:
    """Writes a policy atomically. Raises OSError if the disk refuses; the old file then stays."""
    header = {
        "preset": asdict(preset),
        "spec": spec.to_json(),
        "normaliser": normaliser.to_json(),
        "card": dict(card),
    }
    known = {} if world is None else {WORLD + name: value for name, value in world.tensors().items()}
    if spread is not None:
        known |= {SPREAD + name: value for name, value in spread.tensors().items()}
    for camera, codec in (cameras or {}).items():
        known |= {f"{CAMERA}{camera}.{name}": value for name, value in codec.tensors().items()}
    write_tensors(path, "policy", header, {**weights, **known})


def load_policy_file(path: Path) -> PolicyFile:
    """Raises CheckpointError, naming the file and what is wrong with it."""
    header, tensors = read_tensors(path, "policy")
    decisive = {name: value for name, value in tensors.items() if not name.startswith(SPREAD)}
    world, spread, surprise = (_named(prefix, tensors) for prefix in (WORLD, SPREAD, SURPRISE))
    try:
        spec = TrajectorySpec.from_json(header["spec"])
        found = {stream.name: _named(f"{CAMERA}{stream.name}.", tensors) for stream in spec.streams}
        cameras = {name: codec_of(codec) for name, codec in found.items() if codec}
        return PolicyFile(
            preset=from_json(Preset, header["preset"], "preset"),
            spec=spec,
            normaliser=Normaliser.from_json(header["normaliser"]),
            weights={name: value for name, value in decisive.items() if not name.startswith((WORLD, CAMERA, SURPRISE))},
            card=header["card"],
            revision=tensors_digest(json.dumps({**header, "card": {}}, sort_keys=True), decisive)[:12],
            world=World.from_tensors(world, spec) if world else None,
            spread=Spread.from_tensors(spread, len(spec.of_role("observation"))) if spread else None,
            cameras=cameras,
            surprise=Surprise.of_tensors(surprise, encoded_spec(spec, cameras)) if surprise else None,
        )
    except (KeyError, TypeError, ValueError) as error:
        raise CheckpointError(f"{path}: {error}") from error


def _named(prefix: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}


def save_spread(path: Path, spread: Spread, how: Mapping[str, Any]) -> None:
    """Writes a policy's spread into its file, atomically, and into its card how it was measured; all else in it stays.
    Raises CheckpointError, OSError."""
    _save_measured(path, SPREAD, spread.tensors(), how)


def save_surprise(path: Path, surprise: Surprise, how: Mapping[str, Any]) -> None:
    """The same of what is usual of observations, by which it becomes another revision."""
    _save_measured(path, SURPRISE, surprise.tensors(), how)


def _save_measured(path: Path, prefix: str, tensors: Mapping[str, Tensor], how: Mapping[str, Any]) -> None:
    header, before = read_tensors(path, "policy")
    kept = {name: value for name, value in before.items() if not name.startswith(prefix)}
    measured = {prefix + name: value for name, value in tensors.items()}
    header["card"] = {**header["card"], prefix.removesuffix("."): dict(how)}
    write_tensors(path, "policy", header, {**kept, **measured})


def save_training_state(state: TrainingState, path: Path) -> None:
    """Writes a training state atomically. Raises OSError if the disk refuses; the old file then stays."""
    write_tensors(path, "training", dict(state.facts), state.tensors)


def load_training_state(path: Path) -> TrainingState:
    """Raises CheckpointError, naming the file and what is wrong with it."""
    facts, tensors = read_tensors(path, "training")
    return TrainingState(tensors=tensors, facts=facts)


def write_tensors(path: Path, kind: str, header: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> None:
    """Writes a file of one kind of ours atomically: a JSON header and tensors. Raises OSError if the disk refuses."""
    tensors = {name: value.detach().cpu().contiguous() for name, value in tensors.items()}
    text = json.dumps({**header, "kind": kind, "version": VERSION}, sort_keys=True)
    _remove_leftovers(path)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        save_file(tensors, temporary, metadata={"forcing": text, "sha256": tensors_digest(text, tensors)})
        temporary.chmod(0o644)  # safetensors leaves files to their owner alone; a server may be somebody else
        with temporary.open("rb") as file:
            os.fsync(file.fileno())
        temporary.replace(path)
    except SafetensorError as error:
        raise OSError(f"{path} could not be written ({error}); what was there before is unchanged") from error
    finally:
        temporary.unlink(missing_ok=True)


def _remove_leftovers(path: Path) -> None:
    """Deletes what killed writers of `path` left beside it; a living writer's file stays."""
    for entry in path.parent.iterdir():
        match = re.fullmatch(rf"\.{re.escape(path.name)}\.(\d+)\.tmp", entry.name)
        if match and not _alive(int(match[1])):
            entry.unlink(missing_ok=True)


def _alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True  # another user's
    return True


def read_tensors(path: Path, kind: str) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Header and tensors of a file that `write_tensors` wrote. Raises CheckpointError, naming what is wrong with it."""
    if not path.is_file():
        raise CheckpointError(f"{path} does not exist")
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            # Copies: what is mapped from a file would change, or be gone, with the file.
            tensors = {name: file.get_tensor(name).clone() for name in file.keys()}  # noqa: SIM118
    except (SafetensorError, OSError, ValueError) as error:
        raise CheckpointError(
            f"{path} is damaged or no safetensors file ({error}); copy it again or retrain"
        ) from error
    if "forcing" not in metadata or "sha256" not in metadata:
        raise CheckpointError(f"{path} was not written by forcing: its header lacks 'forcing' or 'sha256'")
    digest = tensors_digest(metadata["forcing"], tensors)
    if digest != metadata["sha256"]:
        raise CheckpointError(
            f"{path} is damaged: its sha256 is {digest[:12]}, its header says {metadata['sha256'][:12]}; "
            "copy it again or retrain"
        )
    header = json.loads(metadata["forcing"])
    found, version = header.pop("kind"), header.pop("version")
    if found != kind:
        raise CheckpointError(f"{path} must be a {kind} file, got a {found} file")
    if version > VERSION:
        raise CheckpointError(f"{path} has version {version}, this forcing reads up to {VERSION}; upgrade forcing")
    return header, tensors


def tensors_digest(text: str, tensors: Mapping[str, Tensor]) -> str:
    """64 hex digits of a sha256 over a text and tensors."""
    digest = hashlib.sha256(text.encode())
    for name in sorted(tensors):
        tensor = tensors[name]
        digest.update(f"{name}{tuple(tensor.shape)}{tensor.dtype}".encode())
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()
