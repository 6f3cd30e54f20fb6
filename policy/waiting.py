"""For how long a robot that sees nothing is held where it is, before it goes on from memory.

Knows no plan, no action and no clock.
"""

from collections.abc import Collection

from forcing.policy.memory import may_lack
from forcing.policy.policy import Policy


class Waiting:
    """Of one episode (`MemoryConfig.wait_steps`). due: whether the present step is waited."""

    def __init__(self, policy: Policy) -> None:
        memory = policy.preset.memory
        self.due = False
        self._sight = () if memory is None else may_lack(policy.seen_spec, policy.cameras)
        self._most = 0 if memory is None else memory.wait_steps
        self._waited = 0  # steps, since anything was seen
        self._sees = False

    def look(self, heard: Collection[str], can_hold: bool) -> None:
        """heard: streams that were read at this step. can_hold: whether it is known where the robot was last sent."""
        self._sees = any(name in heard for name in self._sight)
        self.due = can_hold and not self._sees and self.left > 0

    @property
    def left(self) -> int:
        """Steps that may be waited yet."""
        return self._most - self._waited

    def passed(self, waited: bool) -> None:
        """The step is over, and was waited or not."""
        self._waited = 0 if self._sees else self._waited + waited
