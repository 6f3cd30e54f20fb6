"""Those episodes of a recording that belong to a subset, such as its train split. Knows no format."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from forcing.datasets.episodes import Episode, Recording
from forcing.policy.types import TrajectorySpec


def subset_of(recording: Recording, subset: str) -> Recording:
    """The recording's episodes whose notes name `subset`.

    Raises ValueError naming the subsets there are: here if the provenance tells them (`subsets`), else at the end of
    the first reading.
    """
    told = recording.provenance().get("subsets")
    if told is not None and subset not in told:
        raise _unknown(subset, told)
    return _Subset(recording, subset)


@dataclass(frozen=True, slots=True)
class _Subset:
    recording: Recording
    subset: str

    @property
    def spec(self) -> TrajectorySpec:
        return self.recording.spec

    def episodes(self) -> Iterator[Episode]:
        found, others = 0, set[str]()
        for episode in self.recording.episodes():
            others.update(episode.note.subsets)
            if self.subset in episode.note.subsets:
                found += 1
                yield episode
        if not found:
            raise _unknown(self.subset, others)

    def provenance(self) -> Mapping[str, Any]:
        return {**self.recording.provenance(), "subset": self.subset}


def _unknown(subset: str, known: Any) -> ValueError:
    there = f"there are {sorted(known)}" if known else "the recording has none"
    return ValueError(f"subset {subset!r} has no episode; {there}")
