"""What a controller observes beside what its plan foresaw: how surprising each reading is (`surprise`).

Knows no clock, no socket and no network.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np

from forcing.policy.memory import may_lack
from forcing.policy.policy import Policy
from forcing.policy.surprise import Seen
from forcing.policy.types import Believed, Plan, Reading


def surprises(
    policy: Policy,
    plan: Plan | None,
    before: Sequence[Believed],
    step: int,
    readings: Mapping[str, Reading],
    misfits: Mapping[str, float],
) -> dict[str, float]:
    """Stream -> how surprising its reading at `step` is, of those about which anything is known.

    plan: the one that is followed, None without one. before: what was known at the steps before, the last one at
    `step` - 1. misfits: of cameras' frames.
    """
    assert policy.surprise is not None
    found = {}
    silent = {} if plan is None else _silent(policy, before, step - plan.made_at_step)
    common = min((silent.get(name, 0) for name in may_lack(policy.seen_spec, policy.cameras)), default=0)
    for name, reading in readings.items():
        std = np.asarray(policy.normaliser.std[name])
        ahead = 0 if plan is None else step - plan.made_at_step - (reading.age_steps or 0)
        residual = None
        if plan is not None and 1 <= ahead <= len(plan.steps):
            residual = (reading.value - plan.streams[name][ahead - 1]).reshape(-1) / std
        seen = Seen(
            residual=residual,
            ahead=ahead,
            unheard=(silent.get(name, 0), common),
            noise=(reading.noise or 0.0) / float(std.mean()),
            misfit=misfits.get(name),
        )
        surprise = policy.surprise.streams[name].surprise(seen)
        if surprise is not None:
            found[name] = surprise
    return found


def _silent(policy: Policy, before: Sequence[Believed], since: int) -> dict[str, int]:
    """Observation stream -> tokens at the end of what a plan was made from, `since` steps ago, without it."""
    made_at = len(before) - since
    shown = [before[index] for index in range(made_at, -1, -policy.preset.layout.token_steps)] if since > 0 else []
    result = {}
    for stream in policy.spec.of_role("observation"):
        heard = (number for number, entry in enumerate(shown) if stream.name in entry.values)
        result[stream.name] = next(heard, len(shown))
    return result


def with_surprises(now: Believed, surprises: Mapping[str, float]) -> Believed:
    sensors = {name: replace(now.sensors[name], surprise=surprise) for name, surprise in surprises.items()}
    return replace(now, sensors={**now.sensors, **sensors})
