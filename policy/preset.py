"""Everything that decides how a policy is built, trained and used, apart from the data; presets are named instances."""

from dataclasses import dataclass, field, replace
from typing import Literal, get_args

from forcing.policy.belief import BeliefConfig
from forcing.policy.denoiser import DenoiserConfig
from forcing.policy.levels import LevelMix
from forcing.policy.memory import MemoryConfig, RecallMix
from forcing.policy.noise import NoiseSchedule
from forcing.policy.planner import PlannerConfig
from forcing.policy.polishing import PolishConfig
from forcing.policy.refinement import RefineConfig
from forcing.policy.rolling import RollingConfig
from forcing.policy.schedules import Schedule
from forcing.policy.tokens import TokenLayout
from forcing.policy.tracker import TrackerConfig
from forcing.policy.vision import VisionConfig
from forcing.policy.weights import Weight

Precision = Literal["float32", "bfloat16"]


@dataclass(frozen=True, slots=True, kw_only=True)
class OptimiserConfig:
    """How weights are found.

    batch_tokens: tokens in a batch, windows of one length each. learning_rate: AdamW's, after `warmup_steps` and
    until the share `constant` of the run is over, then falling linearly to 0. ema: decay of the averaged weights per
    step. weight: of an error by its noise level, see `weights.loss_weight`; by default min(1 + signal-to-noise ratio,
    snr_cap), which never vanishes at high noise. snr_cap: largest weight, of all kinds but `uniform`.
    clip: largest gradient norm. precision: of the network's products, where a policy remembers; bfloat16 takes half the
    time where the processor multiplies such numbers (avx512_bf16, amx), and longer where it does not.
    """

    batch_tokens: int = 512
    learning_rate: float = 1.5e-3
    weight_decay: float = 0.01
    warmup_steps: int = 200
    constant: float = 0.6
    ema: float = 0.998
    weight: Weight = "snr_plus_one"
    snr_cap: float = 5.0
    clip: float = 1.0
    precision: Precision = "float32"

    def __post_init__(self) -> None:
        for name in ("batch_tokens", "warmup_steps"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, got {getattr(self, name)}")
        for name in ("learning_rate", "snr_cap", "clip"):
            if not getattr(self, name) > 0:
                raise ValueError(f"{name} must be positive, got {getattr(self, name)}")
        if self.weight not in get_args(Weight):
            raise ValueError(f"weight must be one of {', '.join(get_args(Weight))}, got {self.weight!r}")
        if self.precision not in get_args(Precision):
            raise ValueError(f"precision must be one of {', '.join(get_args(Precision))}, got {self.precision!r}")
        if not 0 < self.constant < 1:
            raise ValueError(f"constant must be above 0 and below 1, got {self.constant}")
        if not 0 <= self.ema < 1:
            raise ValueError(f"ema must be at least 0 and below 1, got {self.ema}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Preset:
    """A recipe: token layout, network, noise, optimiser, planner, tracker, how readings are doubted, None to believe
    them all, how the plan that is followed is kept up, None to make another one each time, how cameras are seen, and
    how the policy remembers its episode, None if it plans to a goal from what it sees now."""

    name: str
    layout: TokenLayout = field(default_factory=TokenLayout)
    denoiser: DenoiserConfig = field(default_factory=DenoiserConfig)
    noise: NoiseSchedule = field(default_factory=NoiseSchedule)
    levels: LevelMix = field(default_factory=LevelMix)
    optimiser: OptimiserConfig = field(default_factory=OptimiserConfig)
    planner: PlannerConfig = field(default_factory=PlannerConfig)
    tracker: TrackerConfig = field(default_factory=TrackerConfig)
    belief: BeliefConfig | None = field(default_factory=BeliefConfig)
    rolling: RollingConfig | None = None
    vision: VisionConfig = field(default_factory=VisionConfig)
    memory: MemoryConfig | None = None

    def __post_init__(self) -> None:
        if self.layout.chunks != (self.memory is not None):
            raise ValueError(
                f"layout.chunks must be {self.memory is not None} with{'' if self.memory else 'out'} memory, "
                f"got {self.layout.chunks}"
            )
        if self.memory is None:
            self._check_without_memory()
        else:
            self._check_with_memory()

    def _check_without_memory(self) -> None:
        for name, value, needed in (
            ("denoiser.dropout", self.denoiser.dropout, 0.0),
            ("denoiser.pointing", self.denoiser.pointing, False),
            ("optimiser.precision", self.optimiser.precision, "float32"),
        ):
            if value != needed:
                raise ValueError(f"{name} must be {needed} without memory, where nothing reads it, got {value}")

    def _check_with_memory(self) -> None:
        if self.layout.stride != self.layout.token_steps:
            raise ValueError(
                f"layout.stride must be token_steps {self.layout.token_steps} with memory, got {self.layout.stride}"
            )
        if self.rolling is not None or self.belief is not None:
            raise ValueError("belief and rolling must be none with memory; readings are recalled as they came")
        if self.tracker.kind != "actions":
            raise ValueError(f"tracker.kind must be actions with memory, got {self.tracker.kind!r}")
        planned = self.layout.horizon * self.layout.token_steps
        for name, steps in (
            ("tracker.chunk_steps", self.tracker.chunk_steps),
            ("planner.replan_steps", self.planner.replan_steps),
        ):
            if steps > planned:
                raise ValueError(
                    f"{name} must be at most {planned} with memory, the steps of a plan (layout.horizon tokens of "
                    f"layout.token_steps), got {steps}"
                )
        if self.denoiser.pointing and self.memory is not None and self.memory.moves_from is not None:
            raise ValueError(
                "denoiser.pointing must be false with memory.moves_from, where an action is no place to be"
            )
        if not self.denoiser.causal:
            raise ValueError("denoiser.causal must be true with memory: no token sees later ones, got false")
        if self.levels != LevelMix():
            raise ValueError(f"levels must be left as they are with memory, memory.mix says how, got {self.levels}")
        for name in _OF_CANDIDATES:
            value, usual = getattr(self.planner, name), getattr(PlannerConfig(), name)
            if value != usual:
                raise ValueError(
                    f"planner.{name} must be {_word(usual)} with memory, where no candidate is judged, "
                    f"got {_word(value)}"
                )


# What a planner does with candidates that it can judge: a policy that remembers has no rule to do so.
_OF_CANDIDATES = (
    "goal_by", "smooth_scale", "sooner_scale", "futures", "keep", "kinematic_tolerance", "end_tolerance",
    "support_tolerance", "half_life", "hold_distance", "history_frames", "attempts", "search", "refine", "polish",
    "stabilisation",
)  # fmt: skip


def _word(value: object) -> str:
    """As `config.override` reads it."""
    return str(value).lower() if value is None or isinstance(value, bool) else str(value)


# For policies that carry dynamics and visited places: few samples, and the best of them improved.
_IMPROVING = PlannerConfig(samples=2, refine=RefineConfig(rounds=5), polish=PolishConfig(rounds=16), keep=True)


def _maze2d(maze: str, horizon: int) -> Preset:
    """For dreams of a Maze2D recording (`forcing data dream`). Tuned on episodes from seed 5000 on
    (docs/experiments.md)."""
    planner = replace(
        _IMPROVING,
        replan_steps=16,
        kinematic_tolerance=0.2,
        end_tolerance=0.48,
        support_tolerance=0.005,
        hold_distance=0.48,
        replan_error=0.05,
    )
    tracker = TrackerConfig(kind="feedback")
    return Preset(name=f"maze2d-{maze}", layout=TokenLayout(horizon=horizon), planner=planner, tracker=tracker)


def _ogbench(name: str, horizon: int) -> Preset:
    """For dreams of an OGBench point maze recording, whose robot moves by 0.2 m a step at most and has no inertia.

    First plans of the giant maze break some rule far ahead however often they are sampled. Tuned on episodes from seed
    5000 on (docs/experiments.md).
    """
    planner = replace(
        _IMPROVING,
        attempts=3 if name.startswith("giant") else 12,
        kinematic_tolerance=0.5,
        end_tolerance=0.5,
        support_tolerance=0.1,
        half_life=64,
        hold_distance=0.5,
        replan_error=1.0,
    )
    return Preset(
        name=f"ogbench-pointmaze-{name}",
        layout=TokenLayout(horizon=horizon),
        planner=planner,
        tracker=TrackerConfig(kind="feedback"),
    )


# For recordings nobody has tuned for: short tokens, the planned actions played as they are.
_GENERIC = Preset(
    name="generic",
    layout=TokenLayout(token_steps=8, stride=1, horizon=8),
    planner=PlannerConfig(replan_steps=4),
    tracker=TrackerConfig(kind="actions"),
)


_EYES = VisionConfig(kind="keypoints", steps=12000, counted=32.0)
_NEARLY_CLEAN = RecallMix(slightly=0.05)
# For who may lose one camera and must go on with the other: docs/experiments.md.
_ONE_EYED = RecallMix(slightly=0.3, lost=0.5, alone=0.7, for_good=0.7, early=0.7)


def _remembering(
    name: str,
    *,
    history: int = 64,
    dropout: float = 0.15,
    hold_tokens: int = 24,
    wait_steps: int = 0,
    mix: RecallMix = _NEARLY_CLEAN,
) -> Preset:
    """For demonstrations of an arm: chunks of actions from all that the episode has shown (docs/experiments.md)."""
    token_steps = 5
    return Preset(
        name=name,
        layout=TokenLayout(token_steps=token_steps, stride=token_steps, history=history, horizon=2, chunks=True),
        denoiser=DenoiserConfig(width=128, depth=4, heads=4, causal=True, dropout=dropout),
        optimiser=OptimiserConfig(batch_tokens=1920, learning_rate=1e-3, constant=0.5, ema=0.998),
        planner=PlannerConfig(
            schedule=Schedule(sampling_steps=8, uncertainty_scale=4.0), samples=5, passes=None, replan_steps=token_steps
        ),
        tracker=TrackerConfig(kind="actions", chunk_steps=token_steps),
        belief=None,
        memory=MemoryConfig(mix=mix, hold_tokens=hold_tokens, wait_steps=wait_steps),
    )


def _pointing(name: str, *, hold_tokens: int, history: int = 64) -> Preset:
    """Where things are seen as places, and all that is done is told by them (docs/decisions/0025-pointing.md)."""
    preset = _remembering(name, history=history, hold_tokens=hold_tokens)
    assert preset.memory is not None
    return replace(
        preset,
        denoiser=replace(preset.denoiser, pointing=True),
        memory=replace(preset.memory, moved_m=0.1),
    )


def _modelling(name: str, *, token_steps: int = 3, history: int = 5) -> Preset:
    """For models of the world: what actions lead to, from a short past, token after token (docs/imagination.md)."""
    mix = RecallMix(behind=1.0, slightly=1.0, lost=0.0, known_actions=1.0)
    return Preset(
        name=name,
        layout=TokenLayout(token_steps=token_steps, stride=token_steps, history=history, horizon=1, chunks=True),
        denoiser=DenoiserConfig(width=96, depth=3, heads=4, causal=True),
        optimiser=OptimiserConfig(batch_tokens=480, learning_rate=2e-3, warmup_steps=100, ema=0.99),
        planner=PlannerConfig(schedule=Schedule(sampling_steps=2), samples=1, replan_steps=token_steps),
        tracker=TrackerConfig(kind="actions", chunk_steps=token_steps),
        belief=None,
        memory=MemoryConfig(
            mix=mix,
            moves_from="effector_position",
            hold_tokens=0,
            observation_share=1.0,
            streams_alike=True,
            recall_level=0.1,
        ),
    )


_HORIZONS = {"medium": 10, "large": 14, "giant": 22}
PRESETS = {
    preset.name: preset
    for preset in (
        *(_maze2d(maze, horizon) for maze, horizon in {"umaze": 6, "medium": 9, "large": 13}.items()),
        *(
            _ogbench(f"{maze}-{kind}", horizon)
            for maze, horizon in _HORIZONS.items()
            for kind in ("navigate", "stitch")
        ),
        _GENERIC,
        _remembering("remembering"),
        _remembering("swap"),
        replace(
            _remembering("swap-cameras", dropout=0.3, hold_tokens=32, wait_steps=100, mix=_ONE_EYED),
            vision=_EYES,
        ),
        *(_pointing(f"cube-{kind}", hold_tokens=16) for kind in ("single", "double")),
        _pointing("metaworld", hold_tokens=8, history=40),
        *(_pointing(f"fetch-{kind}", hold_tokens=2, history=10) for kind in ("push", "pick-and-place")),
        _modelling("swap-world"),
        replace(_modelling("swap-cameras-world"), vision=_EYES),
    )
}
