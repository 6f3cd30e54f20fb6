"""Streams that tell the time, and what they say of the steps. Knows no file."""

import re

from forcing.datasets.motion import changes
from forcing.policy.types import Array, StreamSpec, Trajectories

WORDS = {"timestamp", "timestamps", "time", "clock", "stamp"}
RISING_SHARE = 0.9


def is_clock(trajectories: Trajectories, stream: StreamSpec) -> bool:
    """Whether an observation tells the time: by its name, one number a step, and by hardly ever falling."""
    if stream.role != "observation" or stream.size != 1 or not WORDS & set(re.split(r"[^a-z]+", stream.name.lower())):
        return False
    ticked = ticks(trajectories, stream)
    return bool((ticked >= 0).mean() >= RISING_SHARE)


def clocks(trajectories: Trajectories) -> tuple[StreamSpec, ...]:
    """The streams that tell the time."""
    return tuple(stream for stream in trajectories.spec.streams if is_clock(trajectories, stream))


def ticks(trajectories: Trajectories, stream: StreamSpec) -> Array:
    """[sum(lengths)] what the clock shows after each step less what it showed before, in its own unit."""
    return changes(trajectories.streams[stream.name], trajectories.starts("observation"))[:, 0]
