"""What is wrong with a recording: every check there is, one after another. Each knows its own subject alone."""

from pathlib import Path
from typing import Any

from forcing.datasets.checks_episodes import check_episodes
from forcing.datasets.checks_frames import check_frames
from forcing.datasets.checks_frozen import check_frozen
from forcing.datasets.checks_motion import check_motion
from forcing.datasets.checks_numbers import check_numbers
from forcing.datasets.checks_units import check_units
from forcing.datasets.findings import Finding
from forcing.datasets.recording import read_recording, recognise
from forcing.datasets.store import verify_frames
from forcing.datasets.units import undone, unit_faults
from forcing.policy.types import Trajectories


def check(trajectories: Trajectories) -> list[Finding]:
    """Everything found wrong, errors first; empty if nothing is.

    Motion is judged with wrong units undone, so that they are found once and not at every step.
    """
    faults = unit_faults(trajectories)
    consistent = undone(trajectories, faults)
    found = [
        *check_episodes(trajectories),
        *check_numbers(trajectories),
        *check_units(trajectories, faults),
        *check_motion(consistent),
        *check_frozen(consistent),
        *check_frames(trajectories),
    ]
    return sorted(found, key=lambda finding: finding.severity)


def check_source(source: str | Path, **how: Any) -> list[Finding]:
    """`check` of a recording in any format; one that cannot be read (ragged, cut short) is an error found.

    how: as `read_recording` takes it.
    """
    try:
        trajectories = read_recording(source, **how)
        if recognise(source) == "store":
            verify_frames(source)
    except ValueError as error:
        return [unreadable(error)]
    return check(trajectories)


def unreadable(error: ValueError) -> Finding:
    """What reading a recording said, as a finding."""
    rule, _, remedy = str(error).partition("; ")
    remedy = remedy or "nothing else was checked"
    return Finding(kind="unreadable", severity="error", stream="", rule=rule, count=1, where=(), remedy=remedy)
