"""What can go wrong in the service, as one exception tree, and each as an RFC 9457 problem document.

    ServiceError
    ├── MalformedBody            400  the bytes are not JSON / msgpack
    ├── Unauthorized             401  no token, or a wrong one
    ├── NotFound                 404  no such policy, session or route
    ├── Conflict                 409
    │   ├── StepConflict              the session expects another step, or saw another observation for this one
    │   └── SessionBusy               an act for this session is still being answered
    ├── SessionExpired           410  its lease ran out
    ├── BodyTooLarge             413
    ├── UnsupportedMediaType     415
    ├── InvalidRequest           422  a field breaks its rule: `errors` says which, what was expected and what came
    ├── Overloaded               429  too many sessions, plans or requests; Retry-After says when to come back
    ├── PlanningFailed           500  the policy raised
    ├── NonFiniteAction          500  the policy planned NaN or infinity; no action was sent
    ├── NotSupported             501  in the contract, not in this version
    ├── NotReady                 503  warming up or shutting down
    └── NoPlanYet                503  the deadline is over, there is no plan, and no action that would be safe without

Knows nothing of FastAPI.
"""

import http
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import Any, ClassVar

from forcing.policy import names

PROBLEM_MEDIA_TYPE = "application/problem+json"
_MOST_ERRORS = 20


@dataclass(frozen=True, slots=True)
class FieldError:
    """One field that breaks its rule; `field` is a dotted path into the body, such as `observation.position`."""

    field: str
    expected: str
    got: str

    def __str__(self) -> str:
        return f"{self.field}: expected {self.expected}, got {self.got}"


class ServiceError(Exception):
    """A refusal that the client may read; `detail` never holds a traceback."""

    status: ClassVar[int] = 500
    code: ClassVar[str] = "internal-error"
    title: ClassVar[str] = "The server failed"

    def __init__(self, detail: str, *, errors: Sequence[FieldError] = (), retry_after_s: float | None = None) -> None:
        super().__init__(detail)
        self.detail = detail
        self.errors = tuple(errors)
        self.retry_after_s = retry_after_s


class MalformedBody(ServiceError):
    status, code, title = 400, "malformed-body", "The body cannot be decoded"


class Unauthorized(ServiceError):
    status, code, title = 401, "unauthorized", "The server wants its token"


class NotFound(ServiceError):
    status, code, title = 404, "not-found", "No such thing here"


class Conflict(ServiceError):
    status, code, title = 409, "conflict", "The session is in another state"


class StepConflict(Conflict):
    code, title = "step-conflict", "The session expects another step"


class SessionBusy(Conflict):
    code, title = "session-busy", "The session is answering another request"


class SessionExpired(ServiceError):
    status, code, title = 410, "session-expired", "The session's lease ran out"


class BodyTooLarge(ServiceError):
    status, code, title = 413, "body-too-large", "The body is too large"


class UnsupportedMediaType(ServiceError):
    status, code, title = 415, "unsupported-media-type", "The content type is not spoken here"


class InvalidRequest(ServiceError):
    status, code, title = 422, "invalid-request", "A field breaks its rule"

    def __init__(self, errors: Sequence[FieldError]) -> None:
        told = errors[:_MOST_ERRORS]
        more = [f"and {len(errors) - len(told)} more"] if len(errors) > len(told) else []
        super().__init__("; ".join([*map(str, told), *more]), errors=told)

    @classmethod
    def one(cls, field: str, expected: str, got: str) -> "InvalidRequest":
        """Of a single field."""
        return cls([FieldError(field, expected, got)])


class Overloaded(ServiceError):
    status, code, title = 429, "overloaded", "The server has no room for this now"


class PlanningFailed(ServiceError):
    code, title = "planning-failed", "The policy failed to plan"


class NonFiniteAction(ServiceError):
    code, title = "nonfinite-action", "The policy planned a non-finite action"


class NotSupported(ServiceError):
    status, code, title = 501, "not-supported", "This version does not support the field"


class NotReady(ServiceError):
    status, code, title = 503, "not-ready", "The server is not ready"


class NoPlanYet(ServiceError):
    status, code, title = 503, "no-plan-yet", "There is no plan yet"


def unforeseen() -> ServiceError:
    """What a client is told of an error that nobody thought of."""
    return ServiceError("an unforeseen error; the server's log says more")


def problem_document(error: ServiceError) -> dict[str, Any]:
    """The RFC 9457 document of an error: type, title, status, detail and, for bad fields, errors."""
    document: dict[str, Any] = {
        "type": f"urn:forcing:problem:{error.code}",
        "title": error.title,
        "status": error.status,
        "detail": error.detail,
    }
    if error.errors:
        document["errors"] = [asdict(item) for item in error.errors]
    return document


def http_problem(status: int, detail: str) -> dict[str, Any]:
    """The document of a status that the web framework answers by itself (405 and the like)."""
    return {"type": "about:blank", "title": http.HTTPStatus(status).phrase, "status": status, "detail": detail}


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """`; did you mean 'x'?` for a near miss, else the list of known names."""
    return f"; {names.did_you_mean(name, sorted(known))}"
