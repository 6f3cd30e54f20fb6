"""What recorded goals are worth: counted while a recording is read, kept in its provenance. Knows no file."""

from dataclasses import dataclass, field
from typing import Any

from forcing.datasets.episodes import FIRST_FEW
from forcing.policy.types import Array


@dataclass(slots=True)
class GoalLog:
    """Counts over episodes of the desired goals [L + 1, *shape] that the recorder wrote.

    A goal is stale if the first observation carries another one than the second: the recorder had not yet been told
    the new goal. A goal that changes later was changed while the episode ran.
    """

    episodes: int = 0
    stale_first: list[int] = field(default_factory=list)
    changed_later: list[int] = field(default_factory=list)

    def add(self, episode: int, desired: Array) -> None:
        flat = desired.reshape(len(desired), -1)
        changed = (flat[1:] != flat[:-1]).any(axis=1)
        self.episodes += 1
        if changed[:1].any():
            self.stale_first.append(episode)
        if changed[1:].any():
            self.changed_later.append(episode)

    def to_json(self) -> dict[str, Any] | None:
        """Counts and the first few episodes of each kind; None if the recording names no goals."""
        if self.episodes == 0:
            return None
        kinds = {"stale_first": self.stale_first, "changed_later": self.changed_later}
        return {kind: {"count": len(found), "episodes": found[:FIRST_FEW]} for kind, found in kinds.items()}
