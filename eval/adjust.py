"""A trained policy, planned or tracked otherwise: settings as text, fit to travel to worker processes."""

from dataclasses import dataclass

from forcing.policy.config import override
from forcing.policy.policy import Policy

CHANGEABLE = ("planner", "tracker", "belief", "rolling", "memory")


@dataclass(frozen=True, slots=True)
class Adjusted:
    """Changes how a policy plans, tracks, doubts, keeps plans up and recalls; called with one, returns the changed one.

    settings: `planner.samples=1` and the like, as `forcing train --set` takes them. Raises ValueError for settings that
    only training can change.
    """

    settings: tuple[str, ...]

    def __post_init__(self) -> None:
        for setting in self.settings:
            if setting.partition("=")[0].partition(".")[0] not in CHANGEABLE:
                raise ValueError(
                    f"a trained policy's settings begin with {', '.join(CHANGEABLE[:-1])} or {CHANGEABLE[-1]}, "
                    f"got {setting!r}; what training decides is set by `forcing train --set`"
                )

    def __call__(self, policy: Policy) -> Policy:
        """Raises ValueError if a value does not fit, UnknownName if there is no such setting, CheckpointError if the
        policy lacks what they need. The policy itself if nothing changes."""
        if not self.settings:
            return policy
        preset = override(policy.preset, *self.settings)
        return policy.using(
            planner=preset.planner,
            tracker=preset.tracker,
            belief=preset.belief,
            rolling=preset.rolling,
            memory=preset.memory,
        )
