"""Open sessions as pure state: who may act next, which replies are remembered, whose lease ran out.

Takes `now` [s] as an argument; knows no clock, socket or network. A refused event raises and changes nothing.

    state of a session      event                        next
    idle, step n            begin(step n)                busy
    idle                    begin(remembered request)    idle, the remembered reply
    busy                    begin, reset                 refused: SessionBusy
    busy                    answered                     idle, step n + 1, reply remembered
    busy                    abandon                      idle, step n, which takes only the same observation again,
                                                         or is among those that the robot played of its own; before a
                                                         first plan that must be waited for, any observation
    idle                    reset                        idle, step 0, replies forgotten
    idle, lease over        anything                     gone: SessionExpired for as long as its id is remembered
"""

import asyncio
import logging
import math
from collections import OrderedDict
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import numpy as np

from forcing.policy.controller import Controller
from forcing.policy.policy import Policy
from forcing.policy.types import Array
from forcing.server.engine import Planned
from forcing.server.errors import (
    FieldError,
    InvalidRequest,
    NotFound,
    Overloaded,
    SessionBusy,
    SessionExpired,
    StepConflict,
)
from forcing.server.keeping import Diary
from forcing.server.logs import about
from forcing.server.schemas import ActReply, ActRequest
from forcing.server.validation import Limits

logger = logging.getLogger(__name__)
LOST_S = 1.0  # of acts that may have been answered and not kept when the server ended
REMEMBERED_REPLIES = 16
REMEMBERED_EXPIRED = 1024


@dataclass(slots=True, eq=False)
class Session:
    """One robot's session.

    goal, seed: what the episode began with. limits: of its action. last_action: [A] that was sent; before the first 0,
    or NaN where zero may be a place and nobody knows which the robot is at.
    pending: the plan being made for it, which this module only drops. record: its episodes are kept. episode: of the
    session, the first is 0. diary: where they are written, None where sessions end with the server. restored: it goes
    on after the server was begun anew, and nothing was answered since. missed: steps before the one that was just
    observed which were answered then and not kept.
    """

    id: str
    policy: Policy
    controller: Controller
    limits: Limits
    goal: Array | None
    seed: int
    lease_s: float
    expires_at: float
    busy: bool = False
    pending: asyncio.Future[Planned] | None = None
    record: bool = False
    episode: int = 0
    diary: Diary | None = None
    restored: bool = False
    missed: int = 0
    closed: bool = False
    last_action: Array = field(init=False)
    _observed: bytes | None = None
    _replies: OrderedDict[str, tuple[bytes, ActReply]] = field(default_factory=OrderedDict)

    def __post_init__(self) -> None:
        self._forget_action()

    def _forget_action(self) -> None:
        self.last_action = np.full(self.policy.spec.action.size, np.nan if self.controller.lacks_plan else 0.0)

    def renew(self, now: float) -> None:
        """The lease starts anew."""
        self.expires_at = now + self.lease_s

    def remembered(self, request: ActRequest) -> ActReply | None:
        """The reply that this request got before. Raises InvalidRequest if its id was used for another request."""
        if request.request_id not in self._replies:
            return None
        fingerprint, reply = self._replies[request.request_id]
        if fingerprint != request.fingerprint():
            raise InvalidRequest(
                [FieldError("request_id", "a new id for a new request", f"{request.request_id!r} again")]
            )
        return reply

    def begin(self, request: ActRequest) -> bool:
        """Takes the session for one act; true if the observation is new, false if a failed act already gave it.

        Raises SessionBusy while another act is answered, StepConflict if it is another step's turn or this step was
        observed differently; it may be among the steps that were played instead.
        """
        if self.busy:
            raise SessionBusy("another act of this session is being answered; send one at a time")
        if self._observed == request.fingerprint() and request.step == self.controller.step:
            self.busy = True
            return False
        expected = self.controller.step + request.steps_played
        missed = request.step - expected
        if not (missed == 0 or (self.restored and 0 < missed <= LOST_S * self.policy.spec.control_hz)):
            raise StepConflict(
                f"step expected {expected}, got {request.step}",
                errors=[FieldError("step", str(expected), str(request.step))],
            )
        if self._observed is not None and request.steps_played == 0 and missed == 0 and not self.controller.lacks_plan:
            raise StepConflict(
                f"step {expected} was already observed; send the same observation again, go on with what the robot "
                "played at it, or reset the session"
            )
        self.busy, self.missed = True, missed
        self.took(request)
        return True

    def took(self, request: ActRequest) -> None:
        """From now on this is what was observed at its step."""
        self._observed = request.fingerprint()

    def answered(self, reply: ActReply, now: float) -> None:
        """The act was answered: its reply is remembered and the lease renewed."""
        assert self._observed is not None
        self._replies[reply.request_id] = (self._observed, reply)
        self.busy, self._observed, self.restored = False, None, False
        while len(self._replies) > REMEMBERED_REPLIES:
            self._replies.popitem(last=False)
        self.renew(now)

    def abandon(self, now: float) -> None:
        """The act failed and no action was given: the step stays, and takes the same observation again."""
        self.busy = False
        self.renew(now)

    def drop_pending(self) -> None:
        """The plan being made, if any, is for nobody."""
        if self.pending is not None:
            self.pending.cancel()
            self.pending = None

    def reset(self, controller: Controller, goal: Array | None, seed: int, now: float) -> None:
        """A new episode. Raises SessionBusy while an act is answered."""
        if self.busy:
            raise SessionBusy("an act of this session is being answered; reset when its reply has come")
        self.controller, self.goal, self.seed = controller, goal, seed
        self._observed = None
        self._forget_action()
        self._replies.clear()
        self.episode, self.restored, self.missed = self.episode + 1, False, 0
        self.drop_pending()
        self.renew(now)


class SessionTable:
    """All open sessions, at most `capacity`, and the ids of those that expired lately."""

    def __init__(self, capacity: int) -> None:
        if capacity < 1:
            raise ValueError(f"capacity must be at least 1 session, got {capacity}")
        self._capacity = capacity
        self._open: dict[str, Session] = {}
        self._expired: OrderedDict[str, None] = OrderedDict()

    def __iter__(self) -> Iterator[Session]:
        return iter(self._open.values())

    def __len__(self) -> int:
        return len(self._open)

    def add(self, now: float, create: Callable[[], Session]) -> Session:
        """The session that `create` makes, now open. Raises Overloaded, without calling it, if there is no room."""
        self.expire(now)
        if len(self._open) >= self._capacity:
            wait_s = max(1, math.ceil(min(session.expires_at for session in self) - now))
            raise Overloaded(
                f"all {self._capacity} sessions are taken; delete one that is not used", retry_after_s=wait_s
            )
        session = create()
        self._open[session.id] = session
        return session

    def get(self, session_id: str, now: float) -> Session:
        """An open session. Raises SessionExpired, or NotFound if it was deleted or the id is unknown."""
        self.expire(now)
        if session_id in self._open:
            return self._open[session_id]
        if session_id in self._expired:
            raise SessionExpired("the session had no request for as long as its lease_s; open a new one")
        raise NotFound(f"unknown session {session_id!r:.80}; open one with POST /v1/sessions")

    def remove(self, session_id: str, now: float) -> Session:
        """The session, now closed. Raises as `get`."""
        session = self.get(session_id, now)
        del self._open[session_id]
        self._close(session)
        return session

    def expire(self, now: float) -> None:
        """Closes every idle session whose lease is over."""
        for session in [s for s in self if not s.busy and s.expires_at <= now]:
            del self._open[session.id]
            self._expired[session.id] = None
            self._close(session)
            with about(session.id):
                logger.info("expired")
        while len(self._expired) > REMEMBERED_EXPIRED:
            self._expired.popitem(last=False)

    @staticmethod
    def _close(session: Session) -> None:
        """An act that is being answered is for nobody."""
        session.closed = True
        session.drop_pending()
        if session.diary is not None:
            session.diary.end(keep=session.record)
