"""What checks of a recording say: findings, where they are and how they read. Knows no rule and no file."""

from dataclasses import dataclass, field
from typing import Literal

import numpy as np

from forcing.datasets.episodes import FIRST_FEW
from forcing.policy.types import Index, Role, Trajectories

Severity = Literal["error", "warning"]
Kind = Literal[
    "unreadable",
    "not finite",
    "outside limits",
    "outlier",
    "constant",
    "jump",
    "unusual change",
    "wrong rate",
    "wrong unit",
    "frozen",
    "clock jump",
    "clock",
    "short",
    "duplicate",
    "overlap",
    "leak",
    "stale goal",
    "blank frames",
    "frozen camera",
    "frame type",
]
Places = tuple[tuple[int, int], ...]

SHORTEST_S = 0.1
SHORTEST_STEPS = 2


def no_spans() -> Index:
    """Of findings that concern the recording as a whole."""
    return np.zeros((0, 3), np.int64)


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One rule that a recording breaks.

    kind: of fault. severity: an error makes training or planning wrong, a warning may be meant. stream: "" if it
    concerns whole episodes. count: how often. where: (episode, step) of the first few. remedy: what to do. spans:
    [n, 3] all places, as episode, first row and the row after the last: observations of an observation stream, steps
    of an action, of jumps and of clocks.
    """

    kind: Kind
    severity: Severity
    stream: str
    rule: str
    count: int
    where: Places
    remedy: str
    spans: Index = field(default_factory=no_spans, compare=False, repr=False)

    def __str__(self) -> str:
        subject = f"stream {self.stream!r}: " if self.stream else ""
        places = ", ".join(f"{episode}:{step}" for episode, step in self.where)
        at = f" at episode:step {places}{', …' if self.count > len(self.where) else ''}" if places else ""
        times = "once" if self.count == 1 else f"{self.count} times"
        return f"{self.severity}: {subject}{self.rule} ({times}{at}); {self.remedy}"


def found_in_spans(
    kind: Kind, severity: Severity, stream: str, spans: Index, rule: str, remedy: str, count: int | None = None
) -> Finding:
    """A finding at these places, which count once each if `count` is not given."""
    where = tuple((int(episode), int(first)) for episode, first, _ in spans[:FIRST_FEW])
    total = len(spans) if count is None else count
    return Finding(
        kind=kind, severity=severity, stream=stream, rule=rule, count=total, where=where, remedy=remedy, spans=spans
    )


def found_in_rows(
    trajectories: Trajectories,
    kind: Kind,
    severity: Severity,
    stream: str,
    rows: Index,
    rule: str,
    remedy: str,
    role: Role = "action",
) -> Finding:
    """A finding in these rows of a stream of that role; each row counts, and `where` lists the first few of them."""
    episodes, within = _located(rows[:FIRST_FEW], trajectories, role)
    where = tuple(zip(episodes.tolist(), within.tolist(), strict=True))
    spans = row_spans(rows, trajectories, role)
    return Finding(
        kind=kind, severity=severity, stream=stream, rule=rule, count=len(rows), where=where, remedy=remedy, spans=spans
    )


def found_in_episodes(
    kind: Kind, severity: Severity, episodes: Index, lengths: Index, rule: str, remedy: str
) -> Finding:
    """A finding about whole episodes."""
    spans = np.stack([episodes, np.zeros_like(episodes), lengths[episodes]], axis=1)
    return found_in_spans(kind, severity, "", spans, rule, remedy)


def row_spans(rows: Index, trajectories: Trajectories, role: Role) -> Index:
    """[n, 3] episode, first and end within it, of rising rows of a stream of this role; neighbours joined."""
    episodes, within = _located(rows, trajectories, role)
    new = np.ones(len(rows), bool)
    new[1:] = (np.diff(rows) > 1) | (np.diff(episodes) > 0)
    first = np.flatnonzero(new)
    last = np.append(first[1:], len(rows))[: len(first)] - 1
    return np.stack([episodes[first], within[first], within[last] + 1], axis=1)


def shortest_steps(control_hz: float) -> int:
    """Steps below which an episode, or what is left of one, teaches nothing."""
    return max(SHORTEST_STEPS, round(SHORTEST_S * control_hz))


def _located(rows: Index, trajectories: Trajectories, role: Role) -> tuple[Index, Index]:
    """Episode and row within it of rows of a stream of this role."""
    starts = trajectories.starts(role)
    episodes = np.searchsorted(starts, rows, side="right") - 1
    return episodes, rows - starts[episodes]
