"""What travels: one pydantic schema for JSON and msgpack, requests strict and closed, replies plain.

Knows nothing of policies: which streams, shapes and limits are right is checked in `validation`.
"""

import contextlib
import hashlib
from typing import Annotated, Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, WithJsonSchema

from forcing.policy.types import Array
from forcing.policy.vision import as_bytes

Want = Literal["action_chunk", "spread", "timing"]
MOST_PLAYED = 100_000  # far more than any robot plays before it stops, and no more than a body may hold
_EVERYTHING: list[Want] = ["action_chunk", "spread", "timing"]


def _to_array(value: Any) -> NDArray[np.float64]:
    """A number, nested list of numbers or numeric array as float64; ValueError on anything else or ragged."""
    try:
        array = np.asarray(value)
    except (ValueError, OverflowError) as error:
        raise ValueError("a number or evenly nested lists of numbers") from error
    if array.dtype.kind not in "biuf":
        raise ValueError("a number or evenly nested lists of numbers")
    return np.asarray(array, dtype=np.float64)


def _to_observed(value: Any) -> Array:
    """As `_to_array`, but whole numbers from 0 to 255 in the shape of a frame as uint8, however they were sent."""
    if isinstance(value, np.ndarray) and value.ndim == 3:
        if value.dtype == np.uint8:
            return value
        if value.dtype == np.bool_:
            raise ValueError("numbers: a picture of booleans is a mask, and nothing that a camera saw")
    array = _to_array(value)
    frame = as_bytes(array) if array.ndim == 3 else None
    return array if frame is None else frame


def _to_reading(value: Any) -> Array:
    """As `_to_observed`, with null for a number that a sensor did not have: NaN."""
    with contextlib.suppress(ValueError, OverflowError):  # which `_to_array` words
        array = np.asarray(value)
        if array.dtype == object and all(entry is None or type(entry) in (int, float) for entry in array.flat):
            return array.astype(np.float64)
    return _to_observed(value)


_NUMBERS = WithJsonSchema(
    {
        "description": "number, nested lists of numbers, or in msgpack {__ndarray__, data, dtype, shape}",
        "anyOf": [{"type": "number"}, {"type": "array"}, {"type": "object"}],
    }
)
Numbers = Annotated[Any, BeforeValidator(_to_array), _NUMBERS]
Observed = Annotated[Any, BeforeValidator(_to_observed), _NUMBERS]
Sensed = Annotated[
    Any,
    BeforeValidator(_to_reading),
    WithJsonSchema(
        {
            "description": "number, nested lists of numbers, null for one that was not read, or in msgpack "
            "{__ndarray__, data, dtype, shape}",
            "anyOf": [{"type": "number"}, {"type": "null"}, {"type": "array"}, {"type": "object"}],
        }
    ),
]
Seed = Annotated[int, Field(ge=0, lt=2**63)]
Finite = Annotated[float, Field(allow_inf_nan=False)]
Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
StreamName = Annotated[str, Field(max_length=200)]


class _Request(BaseModel):
    model_config = ConfigDict(strict=True, extra="forbid", frozen=True)


class _Reply(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class ActionLimits(_Request):
    """Limits of a session on the flat action, tighter than the policy's own. low, high: [A], in the action's units.
    change: [A] by how much each entry may differ from that of the step before, the first step's from 0, or freely where
    0 may be a place (policies that remember)."""

    low: list[Finite] | None = None
    high: list[Finite] | None = None
    change: list[Positive] | None = None


class Ball(_Request):
    """An obstacle, in the shape and units of goals; of the first observation stream where a policy takes none."""

    centre: Numbers
    radius: Positive


Balls = Annotated[list[Ball], Field(max_length=100)]


class OpenRequest(_Request):
    """POST /v1/sessions. goal: in the goal stream's shape and units. obstacles: plans stay out of them. control_hz: if
    given, must be the policy's. record: episodes are kept on the server's disk, act by act."""

    policy: str = Field(max_length=500)
    goal: Numbers | None = None
    obstacles: Balls = Field(default_factory=list)
    seed: Seed = 0
    control_hz: Positive | None = None
    limits: ActionLimits | None = None
    lease_s: Annotated[float, Field(gt=0, le=3600, allow_inf_nan=False)] = 60.0
    record: bool = False


class ResetRequest(_Request):
    """POST /v1/sessions/{id}/reset: a new episode from step 0. What is left out stays as it was."""

    goal: Numbers | None = None
    seed: Seed | None = None


class ActRequest(_Request):
    """POST /v1/sessions/{id}/act: the observation of one control step.

    request_id: chosen by the client; a repeated one gets the same reply. step: 0 first, then one more each time, and as
    many more as were played. played: [K, A] actions that the robot took of its own at the K control steps before this
    one, as no answer came or none was asked for. noise: stream -> standard deviation of its error, in its units; what
    is left out is estimated; a camera has none. missing: streams left out of observation. age_ms: stream -> how long
    ago it was read; where none is given at all, that is estimated. A stream with a number that is not finite or absurd,
    or older than 2 s, is left aside and reported as rejected. goal, obstacles: from now on, as before if left out.
    deadline_ms: answer within this time, from the present plan if need be. want: optional parts of the reply.
    """

    request_id: str = Field(min_length=1, max_length=200)
    step: int = Field(ge=0)
    played: Numbers | None = None
    observation: dict[StreamName, Sensed]
    noise: dict[StreamName, Annotated[float, Field(ge=0, allow_inf_nan=False)]] | None = None
    missing: list[StreamName] = Field(default_factory=list, max_length=100)
    age_ms: dict[StreamName, Annotated[float, Field(ge=0, allow_inf_nan=False)]] | None = None
    goal: Numbers | None = None
    obstacles: Balls | None = None
    deadline_ms: Positive | None = None
    want: list[Want] = Field(default_factory=lambda: list(_EVERYTHING))

    @property
    def steps_played(self) -> int:
        """Control steps before this one without an act."""
        return 0 if self.played is None else len(self.played)

    def fingerprint(self) -> bytes:
        """A digest of everything but request_id: equal for the same request in either encoding."""
        digest = hashlib.blake2b(digest_size=16)
        for name, array in sorted(self.observation.items()):
            digest.update(repr((name, array.shape)).encode() + array.tobytes())
        goal = None if self.goal is None else self.goal.tolist()
        noise, ages = sorted((self.noise or {}).items()), sorted((self.age_ms or {}).items())
        balls = None if self.obstacles is None else [(ball.centre.tolist(), ball.radius) for ball in self.obstacles]
        rest = (
            self.step,
            None if self.played is None else self.played.tolist(),
            noise,
            ages,
            sorted(self.missing),
            goal,
            balls,
            self.deadline_ms,
            sorted(self.want),
        )
        digest.update(repr(rest).encode())
        return digest.digest()


class OneShotRequest(_Request):
    """POST /v1/act: observations, oldest first, one a control step, and a goal; no session is kept."""

    policy: str = Field(max_length=500)
    history: list[dict[StreamName, Observed]] = Field(min_length=1, max_length=256)
    goal: Numbers | None = None
    seed: Seed = 0


class Timing(_Reply):
    """Where a request's time went. queue_ms: waiting for a worker. plan_ms: planning. Both 0 if no plan was due."""

    queue_ms: float
    plan_ms: float
    total_ms: float


class SensorReply(_Reply):
    """What the server thinks of one sensor.

    noise: its standard error in its units, as told or as estimated, null if nothing tells. noise_level: the level at
    which such a reading enters, 0 exact to 1 worthless. rejected: this step's reading was left aside. stuck: it repeats
    itself while the robot moves. unheard_steps: control steps without a reading, 0 if there is one now. surprise: of a
    policy that remembers, how rare so unlikely a reading is in its recording, given what the policy foresaw, 3 for one
    in a thousand; null if nothing tells.
    """

    noise: float | None
    noise_level: float | None
    rejected: bool
    stuck: bool
    unheard_steps: int
    surprise: float | None = None


class ActReply(_Reply):
    """One decision. action: [A]. action_chunk: [H, A], `action` first; may be played until `valid_until_step`.

    source: fresh (planned for this observation), plan (an earlier plan, still followed) or hold (no plan, or nothing
    is seen: stay). noise_level: of the planned frame that is followed, 0 to 1. spread: of that frame's position, in its
    units.
    feasible: whether the plan that is followed keeps all the planner's rules, or nearly: that it ends at the goal, can
    be driven, keeps to visited places and out of obstacles; false while none is followed. sensors: observation
    stream -> what its readings are worth. late_steps: that readings seem to be late, or are said to be.
    """

    request_id: str
    step: int
    action: list[float]
    action_chunk: list[list[float]] | None = None
    source: Literal["fresh", "plan", "hold"]
    valid_until_step: int
    noise_level: float | None
    spread: float | None = None
    feasible: bool
    clipped: bool
    sensors: dict[str, SensorReply]
    late_steps: float
    timing: Timing | None = None
    revision: str


class OneShotReply(_Reply):
    """An action chunk [H, A] for the newest observation of a history."""

    policy: str
    revision: str
    action: list[float]
    action_chunk: list[list[float]]
    source: Literal["fresh", "plan", "hold"]
    noise_level: float | None
    spread: float | None
    feasible: bool
    clipped: bool
    timing: Timing


class SessionReply(_Reply):
    """An open session. step: of the next act. expires_in_s: without a request; every act renews it."""

    session_id: str
    policy: str
    revision: str
    step: int
    control_hz: float
    goal: Any
    seed: int
    lease_s: float
    expires_in_s: float


class PlanBody(_Reply):
    """A plan of F frames. start: where the model believes the robot was at made_at_step, physical units. steps: [F],
    control steps after made_at_step. streams, spread: [F, *shape], physical units; of a camera [F, k] latents, as in
    start and candidates.

    level: [F, S] noise level of each frame and stream, streams in the policy's order. candidates: [C, F_max, size of
    the goal], null past a candidate's own horizon. costs: [C], null if infinite.
    """

    made_at_step: int
    start: dict[str, Any]
    steps: list[int]
    streams: dict[str, Any]
    level: list[list[float]]
    spread: dict[str, Any]
    candidates: Any
    costs: list[float | None]
    chosen: int
    feasible: bool
    passes: int


class PlanReply(_Reply):
    """The plan that a session follows now, null if it has none yet. step: of the next act."""

    session_id: str
    step: int
    plan: PlanBody | None


class PolicySummary(_Reply):
    id: str
    revision: str
    control_hz: float


class PoliciesReply(_Reply):
    policies: list[PolicySummary]


class StreamReply(_Reply):
    """One stream of a policy; low and high are flattened in C order, null where unlimited."""

    name: str
    role: str
    shape: list[int]
    units: str
    low: list[float | None] | None
    high: list[float | None] | None
    rate_of: str | None


class PolicyReply(_Reply):
    """What a policy expects and gives. goal: the observation stream in which goals are given."""

    id: str
    revision: str
    control_hz: float
    goal: str | None
    streams: list[StreamReply]
    normaliser_hash: str
    card: dict[str, Any]


class Health(_Reply):
    status: str


class FieldProblem(_Reply):
    field: str
    expected: str
    got: str


class Problem(_Reply):
    """RFC 9457 problem details, sent as application/problem+json whatever was asked for."""

    type: str
    title: str
    status: int
    detail: str
    errors: list[FieldProblem] | None = None
