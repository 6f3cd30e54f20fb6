"""An episode up to now as planners are shown it: the last frames, or all of it. Knows no clock and no network."""

from collections.abc import Mapping, Sequence
from itertools import takewhile

import numpy as np

from forcing.policy.policy import Policy
from forcing.policy.types import Array, Believed, Reading, Recalled


def recalled(policy: Policy, history: Sequence[Believed], sent: Sequence[Array]) -> Recalled:
    """What was known and done every `token_steps` control steps, those counted from now.

    history: what was known at each step, now last. sent: the actions at the steps before, [A] each, the latest last.
    """
    token, entries = policy.preset.layout.token_steps, list(history)
    shown = entries[(len(entries) - 1) % token :: token]
    values, noise = {}, {}
    for stream in policy.seen_spec.of_role("observation"):
        nothing = np.full(stream.shape, np.nan)
        values[stream.name] = np.stack([entry.values.get(stream.name, nothing) for entry in shown])
        noise[stream.name] = np.array([entry.noise.get(stream.name, np.inf) for entry in shown])
    many = (len(shown) - 1) * token
    actions = np.array(list(sent)[len(sent) - many :], dtype=np.float64)
    return Recalled(values=values, noise=noise, actions=actions.reshape(len(shown) - 1, token, policy.spec.action.size))


def frames_of(
    policy: Policy, history: Sequence[Believed], readings: Mapping[str, Reading], age: int
) -> dict[str, Array]:
    """Stream -> [frames of a history token, *shape], newest last, of those that were sensed.

    As many of the past as the planner is shown and as were sensed as well as now (a token's stream has one level), the
    oldest of them repeated before. Of `age` steps ago, so those of a fresher stream are looked up.
    """
    found = {name: _frames(policy, history, readings, name, age) for name in history[-1].values}
    return {name: frames for name, frames in found.items() if frames is not None}


def _frames(
    policy: Policy, history: Sequence[Believed], readings: Mapping[str, Reading], name: str, age: int
) -> Array | None:
    layout, reading = policy.preset.layout, readings.get(name)
    newest = len(history) - 1 - max(0, age - ((reading and reading.age_steps) or 0))
    if newest < 0 or name not in history[newest].values:
        return None
    steps = range(policy.preset.planner.history_frames)
    entries = [history[max(0, newest - layout.stride * back)] for back in steps]
    alike = takewhile(lambda entry: entry.noise.get(name) == entries[0].noise[name], entries)
    frames = [entry.values[name] for entry in alike]
    frames += [frames[-1]] * (layout.history * layout.frames - len(frames))
    return np.stack(frames[::-1])
