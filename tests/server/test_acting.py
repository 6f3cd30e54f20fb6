"""One control step without sockets: when its deadline begins, and what never leaves."""

import asyncio
import threading
import time
from dataclasses import replace
from typing import cast

import numpy as np
import pytest

from forcing.policy.controller import Controller
from forcing.policy.policy import Policy
from forcing.policy.types import Array, Decision
from forcing.server.acting import Actor, Answer
from forcing.server.engine import Engine
from forcing.server.errors import NonFiniteAction
from forcing.server.metrics import Metrics
from forcing.server.schemas import ActRequest
from forcing.server.sessions import Session
from forcing.server.validation import Limits


def _session(policy: Policy, controller: Controller) -> Session:
    return Session(
        id="a",
        policy=policy,
        controller=controller,
        limits=Limits(np.full(2, -1.0), np.full(2, 1.0), np.full(2, np.inf)),
        goal=None,
        seed=0,
        lease_s=10.0,
        expires_at=10.0,
    )


def _request(deadline_ms: float | None) -> ActRequest:
    observation = {"position": [0.0, 0.0], "velocity": [0.0, 0.0]}
    return ActRequest.model_validate(
        {"request_id": "r", "step": 0, "observation": observation, "deadline_ms": deadline_ms}
    )


def _act(session: Session, metrics: Metrics, *, deadline_ms: float | None, received: float) -> Answer:
    engine = Engine(workers=1, queue_limit=0)
    try:
        actor = Actor(engine, metrics)
        return asyncio.run(actor.act(session, _request(deadline_ms), new=True, received=received))
    finally:
        engine.close()


def test_the_time_a_request_has_already_waited_counts_towards_its_deadline(gated: Policy) -> None:
    gate = cast(threading.Event, gated.gate)  # type: ignore[attr-defined]
    gate.clear()
    session, started = _session(gated, Controller(gated, goal=None, seed=0)), time.perf_counter()
    answer = _act(session, Metrics(), deadline_ms=1000, received=started - 0.9)
    waited_s = time.perf_counter() - started
    gate.set()
    assert answer.decision.source == "hold"
    assert 0.1 <= waited_s < 0.8


class Faulty(Controller):
    """Hands out what no controller should."""

    action: Array
    chunk: Array

    def decide(self) -> Decision:
        return replace(super().decide(), action=self.action, action_chunk=self.chunk)


FINE, BAD = np.zeros((3, 2)), np.array([[0.0, 0.0], [0.0, 0.0], [0.0, np.nan]])


@pytest.mark.parametrize(
    ("action", "chunk"), [(np.array([np.inf, 0.0]), FINE), (np.array([np.nan, 0.0]), FINE), (FINE[0], BAD)]
)
def test_an_action_that_is_not_finite_stays_here_whatever_the_controller_says(
    policy: Policy, action: Array, chunk: Array
) -> None:
    controller, metrics = Faulty(policy, goal=None, seed=0), Metrics()
    controller.action, controller.chunk = action, chunk
    with pytest.raises(NonFiniteAction, match=r"policy 'tiny' decided on a non-finite action at step 0; no action was"):
        _act(_session(policy, controller), metrics, deadline_ms=None, received=time.perf_counter())
    assert b"forcing_nonfinite_plans_total 1.0" in metrics.exposition()
