"""The protocol of sessions as a table of events, without sockets or clocks."""

from collections.abc import Callable

import numpy as np
import pytest

from forcing.policy.controller import Controller
from forcing.policy.policy import Policy
from forcing.server.errors import (
    InvalidRequest,
    NotFound,
    Overloaded,
    SessionBusy,
    SessionExpired,
    StepConflict,
)
from forcing.server.schemas import ActReply, ActRequest
from forcing.server.sessions import REMEMBERED_EXPIRED, REMEMBERED_REPLIES, Session, SessionTable
from forcing.server.validation import Limits

Maker = Callable[..., Session]


@pytest.fixture
def make(policy: Policy) -> Maker:
    def session(name: str = "a", expires_at: float = 10.0) -> Session:
        return Session(
            id=name,
            policy=policy,
            controller=Controller(policy, goal=None, seed=0),
            limits=Limits(np.full(2, -1.0), np.full(2, 1.0), np.full(2, np.inf)),
            goal=None,
            seed=0,
            lease_s=10.0,
            expires_at=expires_at,
        )

    return session


def act(step: int, request_id: str = "r", x: float = 0.0) -> ActRequest:
    observation = {"position": [x, 0.0], "velocity": [0.0, 0.0]}
    return ActRequest.model_validate({"request_id": request_id, "step": step, "observation": observation})


def reply(step: int) -> ActReply:
    return ActReply(
        request_id="r",
        step=step,
        action=[0.0, 0.0],
        source="hold",
        valid_until_step=step,
        noise_level=1.0,
        feasible=True,
        clipped=False,
        sensors={},
        late_steps=0.0,
        revision="0",
    )


def take(session: Session, request: ActRequest, now: float = 0.0) -> ActReply:
    """One whole act, with a controller that holds."""
    session.begin(request)
    session.controller.observe(request.observation)
    session.controller.decide()
    answer = reply(request.step).model_copy(update={"request_id": request.request_id})
    session.answered(answer, now)
    return answer


def test_a_repeated_request_gets_the_very_reply_of_the_first(make: Maker) -> None:
    session = make()
    first = take(session, act(0, "one"))
    take(session, act(1, "two"))
    assert session.remembered(act(0, "one")) is first
    assert session.remembered(act(2, "three")) is None
    assert session.controller.step == 2


def test_a_request_id_used_for_another_request_is_refused(make: Maker) -> None:
    session = make()
    take(session, act(0, "one"))
    with pytest.raises(InvalidRequest, match=r"request_id: expected a new id"):
        session.remembered(act(0, "one", x=1.0))


def test_replies_are_forgotten_in_the_order_they_were_given(make: Maker) -> None:
    session = make()
    for step in range(REMEMBERED_REPLIES + 1):
        take(session, act(step, f"r{step}"))
    assert session.remembered(act(0, "r0")) is None
    assert session.remembered(act(1, "r1")) is not None


@pytest.mark.parametrize("step", [0, 2, 7])
def test_a_step_out_of_order_is_refused_and_changes_nothing(make: Maker, step: int) -> None:
    session = make()
    take(session, act(0, "one"))
    with pytest.raises(StepConflict, match=f"expected 1, got {step}") as refusal:
        session.begin(act(step, "two"))
    assert (refusal.value.errors[0].expected, refusal.value.errors[0].got) == ("1", str(step))
    assert session.begin(act(1, "three"))


def test_one_act_at_a_time_and_no_reset_meanwhile(make: Maker, policy: Policy) -> None:
    session = make()
    session.begin(act(0, "one"))
    with pytest.raises(SessionBusy):
        session.begin(act(0, "two"))
    with pytest.raises(SessionBusy):
        session.reset(Controller(policy, goal=None, seed=1), None, 1, now=0.0)
    assert session.seed == 0


def test_after_a_failed_act_the_step_takes_only_the_observation_it_was_given(make: Maker) -> None:
    session = make()
    assert session.begin(act(0, "one", x=1.0))
    session.abandon(now=0.0)
    with pytest.raises(StepConflict, match="already observed"):
        session.begin(act(0, "two", x=2.0))
    assert not session.begin(act(0, "three", x=1.0)), "the controller has this observation already"


def test_a_reset_begins_at_step_0_and_forgets_replies_and_observations(make: Maker, policy: Policy) -> None:
    session = make()
    take(session, act(0, "one"))
    session.begin(act(1, "two", x=1.0))
    session.abandon(now=0.0)
    session.reset(Controller(policy, goal=None, seed=5), None, 5, now=3.0)
    assert (session.controller.step, session.seed, session.expires_at) == (0, 5, 13.0)
    assert session.remembered(act(0, "one")) is None
    assert session.begin(act(0, "two", x=2.0))


def test_each_act_renews_the_lease_and_silence_ends_it(make: Maker) -> None:
    table = SessionTable(capacity=2)
    session = table.add(0.0, make)
    take(session, act(0), now=9.0)
    assert table.get("a", now=18.9) is session
    with pytest.raises(SessionExpired):
        table.get("a", now=19.0)
    with pytest.raises(NotFound):
        table.get("never", now=19.0)


def test_a_session_that_is_being_answered_does_not_expire(make: Maker) -> None:
    table = SessionTable(capacity=1)
    session = table.add(0.0, make)
    session.begin(act(0))
    assert table.get("a", now=1000.0) is session


def test_a_full_table_says_when_the_next_lease_ends(make: Maker) -> None:
    table = SessionTable(capacity=2)
    table.add(0.0, lambda: make("a", 10.0))
    table.add(0.0, lambda: make("b", 7.5))
    with pytest.raises(Overloaded) as refusal:
        table.add(2.0, lambda: make("c"))
    assert refusal.value.retry_after_s == 6
    table.add(7.5, lambda: make("c"))
    assert sorted(session.id for session in table) == ["a", "c"]


def test_a_deleted_session_is_unknown(make: Maker) -> None:
    table = SessionTable(capacity=1)
    table.add(0.0, make)
    table.remove("a", now=0.0)
    with pytest.raises(NotFound):
        table.get("a", now=0.0)
    with pytest.raises(NotFound):
        table.remove("a", now=0.0)


def test_expired_ids_are_remembered_for_a_while_only(make: Maker) -> None:
    table = SessionTable(capacity=1)
    for number in range(REMEMBERED_EXPIRED + 1):
        table.add(float(number), lambda number=number: make(str(number), number + 0.5))  # type: ignore[misc]
    table.expire(1e9)
    with pytest.raises(SessionExpired):
        table.get("1", now=1e9)
    with pytest.raises(NotFound):
        table.get("0", now=1e9)
