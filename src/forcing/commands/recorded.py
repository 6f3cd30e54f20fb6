"""What `forcing train` trains on: the recordings that were named, the frames of their cameras in stores."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import inf
from pathlib import Path
from typing import TYPE_CHECKING, Any

from forcing.commands.shared import Reading
from forcing.usage import UsageError

if TYPE_CHECKING:
    from forcing.datasets.episodes import Episode, Recording
    from forcing.policy.types import Trajectories, TrajectorySpec

NAMED = "named"  # in the provenance of a store that a run made for itself


def recordings_of(sources: Sequence[str], reading: Reading, folder: Path, *, resume: bool) -> "list[Trajectories]":
    """Each of the recordings; one with cameras that is no store becomes one in the run's folder first.

    Raises UsageError if none is named, or a resumed run began with another; ValueError if one cannot be read.
    """
    from forcing.datasets.recording import recognise

    if not sources:
        raise UsageError("data must name a recording at least; --data SOURCE")
    for source in () if resume else sources:
        recognise(source)  # before an hour goes into those that come first
    names = ["data.zarr"] if len(sources) == 1 else [f"data-{number}.zarr" for number in range(len(sources))]
    return [
        _recorded(source, reading, folder / name, resume=resume) for source, name in zip(sources, names, strict=True)
    ]


def shares_of(weights: str | None, recordings: int) -> list[float] | None:
    """How often each recording is drawn from, as it was typed. Raises UsageError if that is no positive number each."""
    if weights is None:
        return None
    try:
        shares = [float(word) for word in weights.split(",")]
    except ValueError:
        shares = []
    if len(shares) != recordings or not all(0 < share < inf for share in shares):
        raise UsageError(f"weights must be {recordings} positive numbers with commas between, got {weights!r}")
    return shares


def _recorded(source: str, reading: Reading, store: Path, *, resume: bool) -> "Trajectories":
    from forcing.datasets.episodes import gathered
    from forcing.datasets.recording import open_recording, read_recording, recognise
    from forcing.datasets.store import is_store, open_store, write_store

    name = f"{source}{reading.typed()}"  # as it was typed: the source may be gone when the run goes on
    if resume and is_store(store):
        begun = open_store(store)
        if begun.provenance.get(NAMED) != name:
            was = begun.provenance.get(NAMED)
            raise UsageError(f"resume must be with the data that the run began with, {was}, got {name}; name that")
        return begun
    if recognise(source) == "store":
        return read_recording(source, **reading.how())
    recording = open_recording(source, **reading.how())
    if not any(stream.image for stream in recording.spec.streams):
        return gathered(recording)
    print(f"{source} has cameras and is no store: converting it to {store}, which --data can name another time")
    store.parent.mkdir(parents=True, exist_ok=True)
    return open_store(write_store(_Named(recording, name), store))


@dataclass(frozen=True, slots=True)
class _Named:
    """A recording whose provenance says how it was named."""

    recording: "Recording"
    name: str

    @property
    def spec(self) -> "TrajectorySpec":
        return self.recording.spec

    def episodes(self) -> "Iterator[Episode]":
        return self.recording.episodes()

    def provenance(self) -> Mapping[str, Any]:
        return {**self.recording.provenance(), NAMED: self.name}
