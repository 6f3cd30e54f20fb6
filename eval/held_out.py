"""Episodes of `swap` that networks were not trained on, a row a token: what was seen, what was done, where cubes were.

Where cubes were is in the recording's streams, or in its infos where streams are a camera's.
"""

import itertools
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from forcing.datasets.episodes import Recording
from forcing.datasets.minari_infos import minari_infos
from forcing.datasets.recording import open_recording
from forcing.envs.arm_control import CUBES
from forcing.policy.moves import check_moves, moves
from forcing.policy.policy import Policy
from forcing.policy.tokens import Tokenizer
from forcing.policy.types import Array

POSITIONS = tuple(f"{cube}_position" for cube in CUBES)
# Two recordings whose descriptions differ in nothing else have episodes in common: a longer one begins like a shorter
# one, and cameras watch what is recorded without them.
_NO_MATTER = re.compile(r"--steps \d+ |-cameras(?=:)")


@dataclass(frozen=True, slots=True, kw_only=True)
class HeldOut:
    """E episodes of T tokens each, from their first step on.

    streams: observation -> [E, T, *shape] as recorded, every `token_steps` steps. actions: [E, T - 1, token_steps, A]
    that led from one to the next, as the policies are told them. cubes_m: [E, T, 2, 3] where the red and the blue cube
    were. numbers: [E] of the episodes in the recording. left_out: how many before the last of them were too short.
    description: what the recording says of itself; descriptions: as well, and what those say that it was made of.
    """

    streams: Mapping[str, Array]
    actions: Array
    cubes_m: NDArray[np.float64]
    numbers: tuple[int, ...]
    left_out: int
    description: str
    descriptions: frozenset[str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Told:
    """What was done, as policies were told it. actions_from: what a Minari dataset calls these actions, such as
    `infos/executed`, None for its own. moves_from: as `MemoryConfig` says."""

    actions_from: str | None = None
    moves_from: str | None = None


AS_RECORDED = Told()


def told_to(policy: Policy) -> Told:
    """How the policy was told what was done, in training.

    Raises ValueError if its recordings told it in several ways.
    """
    memory, provenance = policy.preset.memory, policy.card.get("data_provenance", {})
    name = policy.spec.action.name
    read_from = {each.get("source_names", {}).get(name, name) for each in provenance.get("recordings", [provenance])}
    if len(read_from) > 1:
        raise ValueError(
            f"policy {policy.name!r} was told actions from {', '.join(sorted(read_from))}, by one recording so and by "
            "another so; imagine with one that was told them in one way"
        )
    (source,) = read_from
    return Told(
        actions_from=None if source == name else source, moves_from=None if memory is None else memory.moves_from
    )


def held_out(source: str, *, token_steps: int, tokens: int, most: int, told: Told = AS_RECORDED) -> HeldOut:
    """The first `most` episodes that are long enough, or all.

    Raises ValueError if the source cannot be read, none is long enough, or nothing tells where cubes were.
    """
    recording = open_recording(source, streams={} if told.actions_from is None else {"action": told.actions_from})
    steps = (tokens - 1) * token_steps
    if told.moves_from is not None:
        check_moves(recording.spec, told.moves_from)
    found: list[tuple[int, dict[str, Array], Array, Array]] = []
    number, longest = -1, 0
    for number, (streams, cubes) in enumerate(_episodes(recording, source)):
        longest = max(longest, len(cubes) - 1)
        if len(cubes) > steps:
            every = {
                stream.name: streams[stream.name][: steps + 1 : token_steps]
                for stream in recording.spec.of_role("observation")
            }
            done = streams[recording.spec.action.name][:steps]
            if told.moves_from is not None:
                done = moves(done, streams[told.moves_from][:steps])
            found.append((number, every, done.reshape(tokens - 1, token_steps, -1), cubes[: steps + 1 : token_steps]))
        if len(found) == most:
            break
    if not found:
        raise ValueError(
            f"{source}: no episode has the {steps} steps of {tokens} tokens, the longest {longest}; record longer "
            "ones, or imagine fewer with a lower --times"
        )
    numbers, observed, actions, cubes_m = zip(*found, strict=True)
    description = str(recording.provenance().get("description", source))
    return HeldOut(
        streams={name: np.stack([each[name] for each in observed]) for name in observed[0]},
        actions=np.stack(actions),
        cubes_m=np.stack(cubes_m).astype(np.float64),
        numbers=numbers,
        left_out=number + 1 - len(found),
        description=description,
        descriptions=_descriptions(recording.provenance()) | {description},
    )


def _episodes(recording: Recording, source: str) -> Iterator[tuple[Mapping[str, Array], Array]]:
    """Streams of each episode of L steps, and where its cubes were, [L + 1, 2, 3]."""
    names = {stream.name for stream in recording.spec.of_role("observation")}
    told = names.issuperset(POSITIONS)
    infos = itertools.repeat({}) if told else minari_infos(source, POSITIONS)
    for episode, info in zip(recording.episodes(), infos, strict=False):
        where: Mapping[str, Any] = episode.streams if told else info
        yield episode.streams, np.stack([where[name] for name in POSITIONS], axis=1)


def check_held_out(policy: Policy, held: HeldOut) -> None:
    """Raises ValueError if the policy was trained on a recording that begins with the same episodes, however long, or
    observes or is told what they lack."""
    shown = {name: rows.shape[2:] for name, rows in held.streams.items()}
    for stream in policy.spec.of_role("observation"):
        if shown.get(stream.name) != stream.shape:
            raise ValueError(
                f"policy {policy.name!r} observes {stream.name!r} of shape {stream.shape}; the recording has {shown}"
            )
    if held.actions.shape[-1] != policy.spec.action.size:
        raise ValueError(
            f"policy {policy.name!r} is told actions of {policy.spec.action.size} numbers, the recording's have "
            f"{held.actions.shape[-1]}"
        )
    trained = {_NO_MATTER.sub("", said) for said in _descriptions(policy.card.get("data_provenance", {}))}
    if not trained.isdisjoint(_NO_MATTER.sub("", said) for said in held.descriptions):
        raise ValueError(
            f"policy {policy.name!r} was trained on these episodes ({held.description}); record others, of another seed"
        )


def _descriptions(provenance: Any) -> frozenset[str]:
    """What the recordings of a provenance say of themselves, those that it was made of among them."""
    if isinstance(provenance, Mapping):
        own = provenance.get("description")
        told = {own} if isinstance(own, str) else set()
        return frozenset(told).union(*map(_descriptions, provenance.values()))
    return frozenset().union(*map(_descriptions, provenance)) if isinstance(provenance, list | tuple) else frozenset()


def tokens_of(policy: Policy, tokenizer: Tokenizer, held: HeldOut) -> Tensor:
    """[E, T, D] the episodes as the policy's network sees them, normalised; the first token's actions are made up."""
    episodes, total, *_ = next(iter(held.streams.values())).shape
    columns = []
    for stream in tokenizer.streams:
        if stream.role == "action":
            done = np.concatenate([held.actions[:, :1], held.actions], axis=1)
            values = tokenizer.encode_frames(stream.name, done.reshape(-1, stream.size))
        else:
            rows = held.streams[stream.name]
            flat = rows.reshape(-1, *rows.shape[2:])
            seen = policy.cameras[stream.name].encode(flat) if stream.name in policy.cameras else flat
            values = tokenizer.encode_frames(stream.name, seen)
        columns.append(values.reshape(episodes, total, -1))
    return torch.cat(columns, dim=-1)
