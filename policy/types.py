"""What the parts say to each other: the streams of a trajectory, recordings in memory, plans and decisions.

Plain data on numpy. Knows nothing of networks, files, simulators or sockets; every other folder may import it.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Literal, Protocol

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]
Index = NDArray[np.int64]  # of rows, steps or episodes
Role = Literal["observation", "action", "reward"]
Source = Literal["fresh", "plan", "hold"]
CHANNELS = (1, 3, 4)  # that a frame may have


@dataclass(frozen=True, slots=True, kw_only=True)
class StreamSpec:
    """One named signal over time.

    name: how recordings, checkpoints and controllers call it. role: observation, action or reward.
    shape: of one step. units: physical units, "" if none. low, high: limits of every entry of one step, flattened in
    C order; None if unlimited. rate_of: the stream that this one is the time derivative of, if any.
    """

    name: str
    role: Role
    shape: tuple[int, ...]
    units: str = ""
    low: tuple[float, ...] | None = None
    high: tuple[float, ...] | None = None
    rate_of: str | None = None

    def __post_init__(self) -> None:
        if not self.name.isidentifier():
            raise ValueError(f"stream name must be an identifier, got {self.name!r}")
        if any(size < 1 for size in self.shape):
            raise ValueError(f"stream {self.name!r}: every size in shape must be at least 1, got {self.shape}")
        for label, limit in (("low", self.low), ("high", self.high)):
            if limit is not None and len(limit) != self.size:
                raise ValueError(f"stream {self.name!r}: {label} must have {self.size} entries, got {len(limit)}")
        if (
            self.low is not None
            and self.high is not None
            and any(a > b for a, b in zip(self.low, self.high, strict=True))
        ):
            raise ValueError(f"stream {self.name!r}: low must not exceed high, got {self.low} and {self.high}")

    @property
    def size(self) -> int:
        """Numbers in one step."""
        return int(np.prod(self.shape, dtype=int))

    @property
    def places(self) -> int:
        """How many places, x, y and z in m, it begins with: all that it is of an observation in m, and one of an action
        whose policy was told that it is one."""
        if self.role == "action":
            return int(self.size >= 3)
        return self.size // 3 if self.role == "observation" and self.units == "m" and self.size % 3 == 0 else 0

    @property
    def image(self) -> bool:
        """Whether it is a camera's: observations [height, width, channels] with 1, 3 or 4 channels."""
        return self.role == "observation" and len(self.shape) == 3 and self.shape[2] in CHANNELS


@dataclass(frozen=True, slots=True, kw_only=True)
class TrajectorySpec:
    """The streams of a trajectory, in a fixed order, and how fast they tick.

    Exactly one stream is the action. control_hz: steps a second. goal: the observation stream in which goals are given,
    None if the task has none.
    """

    streams: tuple[StreamSpec, ...]
    control_hz: float
    goal: str | None = None

    def __post_init__(self) -> None:
        names = [stream.name for stream in self.streams]
        if len(set(names)) != len(names):
            raise ValueError(f"stream names must differ, got {names}")
        if not np.isfinite(self.control_hz) or self.control_hz <= 0:
            raise ValueError(f"control_hz must be positive, got {self.control_hz}")
        actions = [stream.name for stream in self.of_role("action")]
        if len(actions) != 1:
            raise ValueError(
                f"exactly one stream must have role 'action', got {actions}; put all actuators into one stream"
            )
        observed = [stream.name for stream in self.of_role("observation")]
        if self.goal is not None and self.goal not in observed:
            raise ValueError(f"goal must name an observation stream {observed}, got {self.goal!r}")
        for stream in self.streams:
            if stream.rate_of is not None and stream.rate_of not in names:
                raise ValueError(f"stream {stream.name!r}: rate_of must name a stream {names}, got {stream.rate_of!r}")

    def rate(self, name: str | None) -> str | None:
        """The stream that is the rate of the stream `name`, such as its velocity; None if none is."""
        return next((stream.name for stream in self.streams if name is not None and stream.rate_of == name), None)

    def of_role(self, role: Role) -> tuple[StreamSpec, ...]:
        return tuple(stream for stream in self.streams if stream.role == role)

    @property
    def action(self) -> StreamSpec:
        """The one action stream."""
        return self.of_role("action")[0]

    def __getitem__(self, name: str) -> StreamSpec:
        for stream in self.streams:
            if stream.name == name:
                return stream
        raise KeyError(f"unknown stream {name!r}; this trajectory has {[stream.name for stream in self.streams]}")

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_json(cls, document: Mapping[str, Any]) -> "TrajectorySpec":
        """Raises ValueError on a missing or unknown key."""
        try:
            streams = tuple(StreamSpec(**{k: _tupled(v) for k, v in s.items()}) for s in document["streams"])
            return cls(**{**document, "streams": streams})
        except (KeyError, TypeError) as error:
            raise ValueError(f"trajectory spec: {error}") from error


def _tupled(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value


class Frames(Protocol):
    """Rows of a camera's stream that are read when they are asked for: an array in memory, or one of a store."""

    @property
    def shape(self) -> tuple[int, ...]: ...

    @property
    def dtype(self) -> np.dtype[Any]: ...

    def __getitem__(self, rows: slice, /) -> Array:
        """Of a step of 1, in memory."""
        ...


def blocks(frames: Frames, most_bytes: int) -> range:
    """Where blocks of about so many bytes begin that may be in memory together, of `step` rows each, at least 1."""
    row_bytes = int(np.prod(frames.shape[1:])) * frames.dtype.itemsize
    return range(0, frames.shape[0], max(most_bytes // max(row_bytes, 1), 1))


@dataclass(frozen=True, slots=True, kw_only=True)
class EpisodeNote:
    """What is recorded of an episode besides its streams. task: what was to be done, in words. subsets: that it belongs
    to, such as train or valid."""

    task: str = ""
    subsets: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Trajectories:
    """Recorded episodes, one after another: numbers in memory, frames of cameras wherever they are.

    lengths: [E] control steps of each episode. streams: an episode of length L has L + 1 observations and L actions and
    rewards (observation i, then action i, then observation i + 1), so observation streams are
    [sum(lengths) + E, *shape] and the others [sum(lengths), *shape]. All finite (`forcing data check` says if not).
    frames: rows of the spec's image streams, which are not among `streams`. notes: [E], or none at all.
    """

    spec: TrajectorySpec
    streams: Mapping[str, Array]
    lengths: NDArray[np.int64]
    provenance: Mapping[str, Any] = field(default_factory=dict)
    frames: Mapping[str, Frames] = field(default_factory=dict)
    notes: tuple[EpisodeNote, ...] = ()

    def __post_init__(self) -> None:
        steps, episodes = int(self.lengths.sum()), len(self.lengths)
        if episodes == 0 or self.lengths.min() < 1:
            raise ValueError("every episode must have at least 1 step, and there must be at least 1 episode")
        if self.notes and len(self.notes) != episodes:
            raise ValueError(f"there must be a note for each of {episodes} episodes or none, got {len(self.notes)}")
        for stream in self.spec.streams:
            found = (self.frames if stream.image else self.streams).get(stream.name)
            if found is None:
                raise ValueError(f"stream {stream.name!r} is missing; got {sorted({*self.streams, *self.frames})}")
            rows = steps + episodes if stream.role == "observation" else steps
            expected = (rows, *stream.shape)
            if found.shape != expected:
                raise ValueError(f"stream {stream.name!r} has shape {found.shape}, its episodes need {expected}")

    def numbers(self) -> "Trajectories":
        """Without the streams of cameras."""
        kept = tuple(stream for stream in self.spec.streams if not stream.image)
        return replace(self, spec=replace(self.spec, streams=kept), frames={}) if self.frames else self

    def require_finite(self) -> None:
        """Raises ValueError, naming the stream, if any number is not."""
        for name, values in self.streams.items():
            if not np.isfinite(values).all():
                raise ValueError(f"stream {name!r} has non-finite values; `forcing data check` says where")

    def starts(self, role: Role) -> NDArray[np.int64]:
        """[E] row at which each episode begins in streams of this role."""
        extra = 1 if role == "observation" else 0
        return np.concatenate([[0], np.cumsum(self.lengths + extra)[:-1]]).astype(np.int64)

    def before_steps(self) -> NDArray[np.int64]:
        """[sum(lengths)] row of the observation that each step began with; the next row is where it ended."""
        rows = np.arange(int(self.lengths.sum()) + len(self.lengths))
        return np.delete(rows, self.starts("observation") + self.lengths)

    def episode(self, index: int) -> dict[str, Array]:
        """One episode's streams: observations [L + 1, *shape], the others [L, *shape]."""
        length = int(self.lengths[index])
        result = {}
        for stream in self.spec.streams:
            start = int(self.starts(stream.role)[index])
            rows = length + 1 if stream.role == "observation" else length
            source: Frames = (self.frames if stream.image else self.streams)[stream.name]
            result[stream.name] = source[start : start + rows]
        return result


@dataclass(frozen=True, slots=True)
class WindowBatch:
    """Windows around an anchor step each ("now"), never crossing an episode.

    streams: observations [B, past + future + 1, *shape], where index `past` is now; actions and rewards
    [B, past + future, *shape], where index `past` is the action taken now. Before an episode's first step the first
    row is repeated. past_valid: [B] how many of the `past` steps were really recorded.
    """

    streams: Mapping[str, Array]
    past_valid: NDArray[np.int64]


class WindowSource(Protocol):
    """Where training gets its windows."""

    @property
    def spec(self) -> TrajectorySpec: ...

    def anchors(self, future: int) -> int:
        """How many steps have at least `future` steps of their episode after them."""
        ...

    def sample(
        self, rng: np.random.Generator, count: int, past: int, future: int, *, drawn: int | None = None
    ) -> WindowBatch:
        """`count` windows, anchors uniform over all that fit. Raises ValueError if no episode is long enough.

        drawn: windows drawn before, by which a source that cannot hold everything knows what to draw from, so that a
        run that is resumed goes on with the same windows; counted by the source if not given.
        """
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Recalled:
    """What is recalled of an episode, every so many control steps, up to now; for policies that remember.

    values: observation stream -> [n, *shape], NaN where it is not known. noise: observation stream -> [n] its standard
    error in its own units, infinite where it is not known. actions: [n - 1, steps between, A], those that led from each
    to the next, NaN where nobody says.
    """

    values: Mapping[str, Array]
    noise: Mapping[str, NDArray[np.float64]]
    actions: Array


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """A plan, in physical units.

    start: observation stream -> [*shape] where the model believes the robot was at `made_at_step`: what was observed,
    where that was exact. steps: [F] control steps from `made_at_step` to each planned frame, rising. streams: [F,
    *shape]; an action frame is the mean action since the frame before. level: [F, S] noise level still on each frame
    and stream, in the spec's order of streams; of the sample that a polished plan was made of. spread: stream name ->
    [F, *shape]; of observation streams, where that was measured, a standard error such that 1.28 times it covers 80 %
    of what the robot comes to (`spread.Spread`); of the others the standard deviation between the samples of this
    horizon, before any were improved, and that of the recording where there are fewer than two. candidates: every
    candidate in the goal stream, [C, F_max, size], NaN past its own horizon; costs: [C] what they were ranked by;
    chosen: index of this plan among them. feasible: whether it keeps all rules by which they were judged, or nearly
    (`Judged.sound`). passes: network passes that were taken for them. A
    first plan that comes late counts as made when it came.

    The rest of an earlier plan that is kept is a plan too, made when it was kept: it has the earlier one's levels
    unless it was refined, and its end is held until its last token is whole. A token that was refined has at most the
    level it was noised to. A polished plan stands last among the candidates.
    """

    made_at_step: int
    start: Mapping[str, Array]
    steps: NDArray[np.int64]
    streams: Mapping[str, Array]
    level: Array
    spread: Mapping[str, Array]
    candidates: Array
    costs: Array
    chosen: int
    feasible: bool
    passes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Obstacles:
    """Balls that a plan must stay out of, in the units of the stream they are in.

    centres: [M, d]. radii: [M]. margin: distance that guidance keeps from them besides; selection asks for none.
    """

    centres: Array
    radii: Array
    margin: float = 0.0

    def __post_init__(self) -> None:
        centres, radii = np.asarray(self.centres), np.asarray(self.radii)
        if centres.ndim != 2 or radii.shape != centres.shape[:1]:
            raise ValueError(f"centres must be [M, d] and radii [M], got {centres.shape} and {radii.shape}")
        if not np.isfinite(centres).all():
            raise ValueError(f"centres must be finite, got {centres.tolist()}")
        if not (np.isfinite(radii) & (radii > 0)).all():
            raise ValueError(f"radii must be positive, got {radii.tolist()}")
        if not (np.isfinite(self.margin) and self.margin >= 0):
            raise ValueError(f"margin must be at least 0, got {self.margin}")


@dataclass(frozen=True, slots=True)
class Reading:
    """What came of one sensor at a control step. value: [*shape], physical units, finite. noise: its standard error in
    the same units, None if nobody says. age_steps: control steps since it was read, None if nobody says."""

    value: Array
    noise: float | None = None
    age_steps: int | None = None


@dataclass(frozen=True, slots=True)
class SensorReport:
    """What is thought of one sensor. noise: its standard error, as told or as estimated, in its units; None if nothing
    tells. rejected: this step's reading was left aside. stuck: it repeats itself while the robot moves. unheard_steps:
    control steps without a reading, 0 if there is one now. surprise: of a policy that remembers, -log10 of the share of
    recorded readings that were as unlikely, given what the policy foresaw; None if nothing tells."""

    noise: float | None
    rejected: bool
    stuck: bool
    unheard_steps: int
    surprise: float | None = None


@dataclass(frozen=True, slots=True)
class Believed:
    """What is believed now. values: stream -> [*shape], physical units, of streams that are known at all. noise: stream
    -> standard error of its value, 0 where a reading is taken as it is. sensors: of every stream. late: control steps
    that readings seem to be late, or are said to be."""

    values: dict[str, Array]
    noise: dict[str, float]
    sensors: dict[str, SensorReport]
    late: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Decision:
    """What a controller is told to do at one control step.

    action: [A] flat, inside the limits. action_chunk: [H, A] this action and the next H - 1, should no answer come.
    source: fresh (a plan made for this very observation), plan (an earlier plan, still followed) or hold (no plan, or
    nothing is seen: stay). valid_until_step: the last step at which action_chunk may still be played. noise_level: of
    the planned frame that is being followed, 0 to 1. spread: of that frame's position, in its units. feasible: of the
    plan that is being followed, False while none is. clipped: an action was cut to its limits. sensors: observation
    stream -> what is thought of its sensor. late_steps: that readings seem to be late.
    """

    step: int
    action: Array
    action_chunk: Array
    source: Source
    valid_until_step: int
    noise_level: float
    spread: float
    feasible: bool
    clipped: bool
    sensors: Mapping[str, SensorReport] = field(default_factory=dict)
    late_steps: float = 0.0
