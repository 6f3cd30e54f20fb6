"""A recording with its faults taken out, where that needs no guess, and every change that was made.

What is broken is cut out and what is doubled is left out; numbers are changed in two cases only: actions are clipped to
limits that are declared, and a unit's factor is undone where the recording itself proves it.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from forcing.datasets.checks_episodes import leaked_subsets
from forcing.datasets.checks_numbers import outside_limits
from forcing.datasets.cutting import Part, parts_of, taken
from forcing.datasets.duplicates import repeated
from forcing.datasets.episodes import FIRST_FEW
from forcing.datasets.findings import Finding, Kind, row_spans, shortest_steps
from forcing.datasets.units import undone, unit_faults
from forcing.policy.types import EpisodeNote, Index, Trajectories

STEP_KINDS: tuple[Kind, ...] = ("jump", "clock jump")
OBSERVATION_KINDS: tuple[Kind, ...] = ("frozen", "frozen camera", "blank frames")
MOST_CUTS = 0.01  # of all steps: a recording that drops frames more often would fall to pieces
REASONS: Mapping[Kind, str] = {
    "outlier": "without limits nothing says what was meant: declare the action's limits and mend again",
    "constant": "a dead entry is harmless, or the stream is to be left out when it is read",
    "unusual change": "such changes may be meant",
    "wrong rate": "pass the right control_hz when reading",
    "clock": "the clock is no use as it is; leave its stream out when reading",
    "overlap": "both episodes have steps that the other has not",
    "stale goal": "the goals are no stream; training does not use them",
    "frame type": "what the numbers mean is not recorded",
    "unreadable": "what cannot be read cannot be mended",
}


@dataclass(frozen=True, slots=True)
class Change:
    """One kind of change to a recording. what: was done. spans: [n, 3] where, as in `Finding`, by the numbers that
    episodes had before any change."""

    what: str
    spans: Index

    def __str__(self) -> str:
        places = ", ".join(f"{episode}:{first}" for episode, first, _ in self.spans[:FIRST_FEW])
        more = ", …" if len(self.spans) > FIRST_FEW else ""
        return f"{self.what}: {len(self.spans)}, at episode:step {places}{more}"

    def to_json(self) -> dict[str, Any]:
        return {"what": self.what, "episode_first_end": self.spans.tolist()}


@dataclass(frozen=True, slots=True)
class Mended:
    """A recording without what could be mended, the changes that made it, and what was left as it is, and why."""

    trajectories: Trajectories
    changes: tuple[Change, ...]
    left: tuple[str, ...]


def mended(trajectories: Trajectories, findings: Sequence[Finding]) -> Mended:
    """What `findings`, of `check`, say of `trajectories` mended; the changes are in the provenance as `mended` too.

    Raises ValueError if nothing would be left.
    """
    values, changes = _with_values_mended(trajectories, findings)
    removed, noted, about_episodes = _about_episodes(values, findings)
    kept_observations, kept_steps, cuts = _cuts(values, findings)
    parts, cast_off = _parts(values, removed, kept_observations, kept_steps)
    changes += [*about_episodes, *cuts, *cast_off]
    renumbered = bool(removed or cuts or cast_off)
    result = taken(noted, parts) if renumbered else noted
    if changes:
        result = replace(result, provenance=_provenance(trajectories, changes, renumbered))
    return Mended(result, tuple(changes), tuple(_left(trajectories, findings)))


def _with_values_mended(trajectories: Trajectories, findings: Sequence[Finding]) -> tuple[Trajectories, list[Change]]:
    """Units undone and actions clipped."""
    changes: list[Change] = []
    if any(finding.kind == "wrong unit" for finding in findings):
        faults = [fault for fault in unit_faults(trajectories) if fault.proven]
        for fault in faults:
            what = f"stream {fault.stream!r}, entries {list(fault.entries)}, divided by {fault.factor:.6g} in episodes"
            changes.append(Change(what, fault.spans(trajectories)))
        trajectories = undone(trajectories, faults)
    action = trajectories.spec.action
    if any(finding.kind == "outside limits" and finding.stream == action.name for finding in findings):
        values = trajectories.streams[action.name]
        outside = np.flatnonzero(outside_limits(action, values).any(axis=1))
        if outside.size:
            low, high = (None if side is None else np.reshape(side, action.shape) for side in (action.low, action.high))
            clipped = np.clip(values, low, high).astype(values.dtype)
            trajectories = replace(trajectories, streams={**trajectories.streams, action.name: clipped})
            spans = row_spans(outside, trajectories, "action")
            changes.append(Change(f"stream {action.name!r} clipped to its limits in stretches", spans))
    return trajectories, changes


def _about_episodes(
    trajectories: Trajectories, findings: Sequence[Finding]
) -> tuple[set[int], Trajectories, list[Change]]:
    """Episodes to leave out, the recording with training subsets that leak taken off its notes, and these changes."""
    kinds = {finding.kind for finding in findings}
    if not kinds & {"duplicate", "leak"}:
        return set(), trajectories, []
    found = repeated(trajectories)
    leaked = leaked_subsets(trajectories, found)
    notes = list(trajectories.notes)
    for episode, subsets in leaked.items():
        rest = tuple(subset for subset in notes[episode].subsets if subset not in subsets)
        notes[episode] = EpisodeNote(task=notes[episode].task, subsets=rest)
    removed = set()
    for group in found.groups:  # the one that stays is the one held out, if any is
        stays = next((int(episode) for episode in group if notes and notes[episode].subsets), int(group[0]))
        removed |= {int(episode) for episode in group} - {stays}
    orphans = {episode for episode in leaked if not notes[episode].subsets} - removed
    removed |= {pair.later for pair in found.pairs if pair.whole and pair.earlier not in removed | orphans} - orphans
    moved = set(leaked) - removed - orphans
    changes = [
        _episode_change("episodes left out that are there twice", removed, trajectories),
        _episode_change("episodes taken out of training subsets, being held out", moved, trajectories),
        _episode_change("episodes left out of training, copies being held out", orphans, trajectories),
    ]
    return removed | orphans, replace(trajectories, notes=tuple(notes)), [each for each in changes if len(each.spans)]


def _cuts(
    trajectories: Trajectories, findings: Sequence[Finding]
) -> tuple[NDArray[np.bool_], NDArray[np.bool_], list[Change]]:
    """Observations [sum(lengths) + E] and steps [sum(lengths)] to keep, and what was cut out."""
    steps, episodes = int(trajectories.lengths.sum()), len(trajectories.lengths)
    kept_observations, kept_steps = np.ones(steps + episodes, bool), np.ones(steps, bool)
    observations, actions = trajectories.starts("observation"), trajectories.starts("action")
    changes = []
    for finding in findings:
        if not _cuttable(finding, steps):
            continue
        of_steps = finding.kind in STEP_KINDS or trajectories.spec[finding.stream].role != "observation"
        kept, starts = (kept_steps, actions) if of_steps else (kept_observations, observations)
        for episode, first, end in finding.spans:
            kept[starts[episode] + first : starts[episode] + end] = False
        changes.append(Change(f"stream {finding.stream!r}, {finding.kind}: stretches cut out", finding.spans))
    return kept_observations, kept_steps, changes


def _cuttable(finding: Finding, steps: int) -> bool:
    if finding.kind in STEP_KINDS:
        return finding.severity == "error" or finding.count <= max(1, MOST_CUTS * steps)
    return finding.kind == "not finite" or finding.kind in OBSERVATION_KINDS


def _parts(
    trajectories: Trajectories, removed: set[int], kept_observations: NDArray[np.bool_], kept_steps: NDArray[np.bool_]
) -> tuple[list[Part], list[Change]]:
    """What is left of each episode, and what was too short of it."""
    shortest = shortest_steps(trajectories.spec.control_hz)
    starts = zip(trajectories.starts("observation"), trajectories.starts("action"), trajectories.lengths, strict=True)
    kept: list[Part] = []
    short: list[Part] = []
    for episode, (observation, step, length) in enumerate(starts):
        if episode in removed:
            continue
        observed = kept_observations[observation : observation + length + 1]
        for part in parts_of(observed, kept_steps[step : step + length], episode):
            (kept if part.steps >= shortest else short).append(part)
    spans = np.array([(part.episode, part.first, part.last) for part in short], np.int64).reshape(-1, 3)
    what = f"episodes, or what is left of them, left out for having fewer than {shortest} steps"
    return kept, [Change(what, spans)] if short else []


def _episode_change(what: str, episodes: set[int], trajectories: Trajectories) -> Change:
    chosen = np.array(sorted(episodes), np.int64)
    return Change(what, np.stack([chosen, np.zeros_like(chosen), trajectories.lengths[chosen]], axis=1))


def _provenance(trajectories: Trajectories, changes: Sequence[Change], renumbered: bool) -> dict[str, Any]:
    """With the list of changes. What names episodes by their numbers moves there, if these are no longer theirs."""
    record: dict[str, Any] = {"changes": [change.to_json() for change in changes]}
    provenance = dict(trajectories.provenance)
    if renumbered and provenance.get("goals"):
        record["goals_before"] = provenance.pop("goals")
    if provenance.get("mended"):
        record["earlier"] = provenance["mended"]
    return {**provenance, "mended": record}


def _left(trajectories: Trajectories, findings: Sequence[Finding]) -> Iterator[str]:
    """Why each finding that nothing was done about was left."""
    steps = int(trajectories.lengths.sum())
    for finding in findings:
        subject = f"stream {finding.stream!r}, {finding.kind}" if finding.stream else finding.kind
        if finding.kind in REASONS:
            yield f"{subject}: {REASONS[finding.kind]}"
        elif finding.kind == "outside limits" and finding.stream != trajectories.spec.action.name:
            yield f"{subject}: a sensor's numbers are not clipped; correct the limits if they are wrong"
        elif finding.kind in STEP_KINDS and not _cuttable(finding, steps):
            yield f"{subject}: {finding.count} cuts in {steps} steps would leave pieces; it is how the recorder works"
        elif finding.kind == "wrong unit" and finding.severity == "warning":
            yield f"{subject}: which numbers are wrong, or by which factor, the recording does not prove"
