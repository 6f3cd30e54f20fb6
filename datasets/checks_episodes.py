"""Episodes judged as wholes: too short, in the recording twice, in training and validation at once, stale goals."""

import re
from collections.abc import Iterator

import numpy as np

from forcing.datasets.duplicates import Overlap, Repeated, repeated
from forcing.datasets.episodes import FIRST_FEW
from forcing.datasets.findings import SHORTEST_S, Finding, found_in_episodes, found_in_spans, shortest_steps
from forcing.policy.types import Trajectories

TRAINING = {"train", "training"}
HELD_OUT = {"valid", "validation", "val", "test", "testing", "eval", "evaluation", "holdout"}


def check_episodes(trajectories: Trajectories) -> Iterator[Finding]:
    """What is wrong with whole episodes, and between them."""
    yield from _short(trajectories)
    yield from _stale_goals(trajectories)
    found = repeated(trajectories)
    yield from _duplicates(trajectories, found)
    yield from _overlaps(trajectories, found.pairs)
    yield from _leaks(trajectories, found)


def held_out_twins(subsets: tuple[str, ...]) -> dict[str, str]:
    """Training subset -> the subset held out from it, of all pairs of these that are named alike: `train` and
    `valid`, `small_train` and `small_valid`."""
    named = [(subset, re.split(r"[^a-z0-9]+", subset.lower())) for subset in subsets]
    rest = {
        subset: tuple(word for word in words if word not in HELD_OUT)
        for subset, words in named
        if HELD_OUT & set(words)
    }
    return {
        subset: other
        for subset, words in named
        if TRAINING & set(words)
        for other, left in rest.items()
        if left == tuple(word for word in words if word not in TRAINING)
    }


def leaked_subsets(trajectories: Trajectories, found: Repeated) -> dict[int, tuple[str, ...]]:
    """Episode -> training subsets that it must leave: it, or a copy of it, is in the subset held out from them."""
    if not trajectories.notes:
        return {}
    alike = [tuple(int(episode) for episode in group) for group in found.groups]
    alike += [(pair.earlier, pair.later) for pair in found.pairs]
    seen = {episode: set(note.subsets) for episode, note in enumerate(trajectories.notes)}
    for group in alike:
        together = set().union(*(trajectories.notes[episode].subsets for episode in group))
        for episode in group:
            seen[episode] |= together
    leaving = {}
    for episode, note in enumerate(trajectories.notes):
        twins = held_out_twins(tuple(sorted(seen[episode])))
        if subsets := tuple(subset for subset in note.subsets if subset in twins):
            leaving[episode] = subsets
    return leaving


def _short(trajectories: Trajectories) -> Iterator[Finding]:
    shortest = shortest_steps(trajectories.spec.control_hz)
    episodes = np.flatnonzero(trajectories.lengths < shortest)
    if episodes.size:
        rule = f"an episode should have at least {shortest} steps ({SHORTEST_S} s)"
        remedy = "harmless if few: windows that do not fit are never drawn; if many, look at how episodes are cut"
        yield found_in_episodes("short", "warning", episodes, trajectories.lengths, rule, remedy)


def _stale_goals(trajectories: Trajectories) -> Iterator[Finding]:
    stale = ((trajectories.provenance.get("goals") or {}).get("stale_first")) or {"count": 0}
    if stale["count"]:
        yield Finding(
            kind="stale goal",
            severity="warning",
            stream=trajectories.spec.goal or "",
            rule="the first observation of an episode should carry its own goal, not that of the episode before",
            count=int(stale["count"]),
            where=tuple((int(episode), 0) for episode in stale["episodes"]),
            remedy="read recorded goals from step 1 on; training here does not use them",
        )


def _duplicates(trajectories: Trajectories, found: Repeated) -> Iterator[Finding]:
    if found.copies.size:
        shown = ", ".join("=".join(str(episode) for episode in group[:FIRST_FEW]) for group in found.groups[:FIRST_FEW])
        rule = f"every episode should be there once; to the last byte equal are {shown}"
        remedy = "copied twice, or merged with itself: remove the copies, as --fix does"
        yield found_in_episodes("duplicate", "warning", found.copies, trajectories.lengths, rule, remedy)


def _overlaps(trajectories: Trajectories, pairs: list[Overlap]) -> Iterator[Finding]:
    for whole in (True, False):
        chosen = [pair for pair in pairs if pair.whole == whole]
        if not chosen:
            continue
        shown = ", ".join(
            f"{pair.later} in {pair.earlier} from {pair.offset} ({pair.shared} observations)"
            for pair in chosen[:FIRST_FEW]
        )
        spans = np.array([(pair.later, 0, min(pair.shared, trajectories.lengths[pair.later])) for pair in chosen])
        if whole:
            rule = f"no episode should lie in another: {shown}"
            yield found_in_spans("duplicate", "warning", "", spans, rule, "remove them, as --fix does")
        else:
            rule = f"episodes should not share their observations: {shown}"
            remedy = "one drive cut into several recordings: harmless but for its weight, if both stay in one subset"
            yield found_in_spans("overlap", "warning", "", spans, rule, remedy)


def _leaks(trajectories: Trajectories, found: Repeated) -> Iterator[Finding]:
    leaked = leaked_subsets(trajectories, found)
    if leaked:
        subsets = sorted({subset for leaving in leaked.values() for subset in leaving})
        rule = f"no episode of subset {', '.join(map(repr, subsets))} may be in the one held out from it, nor a copy"
        remedy = "scores on held-out episodes would flatter: --fix takes them out of training"
        yield found_in_episodes("leak", "error", np.array(sorted(leaked)), trajectories.lengths, rule, remedy)
