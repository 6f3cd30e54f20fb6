"""Streams of a recording called otherwise, or left out, when its user knows better than its reader. Knows no format."""

import difflib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

from forcing.datasets.episodes import Episode, Recording
from forcing.policy.types import StreamSpec, TrajectorySpec


def renamed(recording: Recording, streams: Mapping[str, str]) -> Recording:
    """The recording with some streams under other names, their roles kept; the others stay as they were read.

    streams: new name -> the stream as it was read, or as its source calls it (the provenance's `source_names`); or a
    stream -> "", which leaves it out. Names may be exchanged. Raises ValueError, naming what there is, if one names no
    stream, two name the same one, or two streams would have one name.
    """
    if not streams:
        return recording
    names = _new_names(recording, streams)
    return _Renamed(recording, _specified(recording.spec, names), names)


def _new_names(recording: Recording, streams: Mapping[str, str]) -> dict[str, str]:
    """Name as it was read -> new name, of every stream that stays, in the spec's order."""
    read = [stream.name for stream in recording.spec.streams]
    sources = recording.provenance().get("source_names", {})
    theirs: dict[str, str] = {source: ours for ours, source in sources.items() if ours in read}
    named: dict[str, str] = {}
    for new, wanted in streams.items():
        found = _known(wanted or new, read, theirs)
        if found in named:
            raise ValueError(f"stream {found!r} must be named once, got {named[found] or 'left out'!r} and {new!r}")
        if wanted and not new.isidentifier():
            raise ValueError(f"a stream's name must be an identifier such as {'observation'!r}, got {new!r}")
        named[found] = new if wanted else ""
    result = {name: named.get(name, name) for name in read if named.get(name, name)}
    twice = [name for name in result.values() if list(result.values()).count(name) > 1]
    if twice:
        raise ValueError(
            f"two streams would be named {twice[0]!r}: {[name for name, new in result.items() if new == twice[0]]}; "
            f"leave one out ({twice[0]}=) or name it too"
        )
    action = recording.spec.action.name
    if action not in result:
        raise ValueError(f"stream {action!r} is the action, which no recording can do without; leave another out")
    if not any(stream.name in result for stream in recording.spec.of_role("observation")):
        raise ValueError("at least one observation must stay, and all are left out; keep one")
    return result


def _known(wanted: str, read: list[str], theirs: Mapping[str, str]) -> str:
    if wanted in read:
        return wanted
    if wanted in theirs:
        return theirs[wanted]
    every = [*read, *(source for source in theirs if source not in read)]
    near = difflib.get_close_matches(wanted, every, n=1)
    raise ValueError(
        f"unknown stream {wanted!r}; " + (f"did you mean {near[0]!r}?" if near else f"known are {', '.join(every)}")
    )


def _specified(spec: TrajectorySpec, names: Mapping[str, str]) -> TrajectorySpec:
    """Goal and rates follow their streams, and go with them."""

    def moved(stream: StreamSpec) -> StreamSpec:
        return replace(stream, name=names[stream.name], rate_of=names.get(stream.rate_of or ""))

    kept = tuple(moved(stream) for stream in spec.streams if stream.name in names)
    return replace(spec, streams=kept, goal=names.get(spec.goal or ""))


@dataclass(frozen=True, slots=True)
class _Renamed:
    """names: as read -> new, of the streams that stay."""

    recording: Recording
    spec: TrajectorySpec
    names: Mapping[str, str]

    def episodes(self) -> Iterator[Episode]:
        for episode in self.recording.episodes():
            streams = {new: episode.streams[name] for name, new in self.names.items()}
            yield replace(episode, streams=streams)

    def provenance(self) -> Mapping[str, Any]:
        before = self.recording.provenance()
        sources = before.get("source_names", {})
        result = {**before, "source_names": {new: sources.get(name, name) for name, new in self.names.items()}}
        unwanted = [stream.name for stream in self.recording.spec.streams if stream.name not in self.names]
        return {**result, "unwanted": unwanted} if unwanted else result
