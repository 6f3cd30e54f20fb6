"""A trained policy: what it observes and does, and how it plans. Found by name or by folder."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from functools import cached_property, partial
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch

from forcing.policy.belief import BeliefConfig, Believer
from forcing.policy.cameras import Codecs, encoded_spec
from forcing.policy.causal import CausalDenoiser
from forcing.policy.checkpoint import CheckpointError, PolicyFile, load_policy_file
from forcing.policy.history_planner import HistoryPlanner
from forcing.policy.memory import MemoryConfig
from forcing.policy.names import UnknownName, did_you_mean
from forcing.policy.network import as_model, build_denoiser
from forcing.policy.planner import Planner, PlannerConfig, PlanRequest, attempted
from forcing.policy.preset import PRESETS, Preset
from forcing.policy.rehearsal import Feedback
from forcing.policy.rolling import RollingConfig, RollingPlanner
from forcing.policy.spread import Spread, arrival_of
from forcing.policy.surprise import Surprise
from forcing.policy.tokens import Normaliser, Tokenizer
from forcing.policy.tracker import TrackerConfig
from forcing.policy.types import Array, Plan, TrajectorySpec
from forcing.policy.vision import as_bytes
from forcing.policy.world import World

SHIPPED = Path(__file__).parent / "shipped"
FILE_NAME = "policy.safetensors"
# Far beyond any robot's next room, and far below where the network's arithmetic ends.
FARTHEST = 1000.0
GREY_LEVELS = "whole numbers from 0 to 255, as cameras give them"


class UnknownPolicy(CheckpointError, UnknownName):
    """Neither shipped nor a folder of a policy."""


class Policy:
    """Immutable after loading; `plan` may be called from any thread."""

    def __init__(self, name: str, file: PolicyFile) -> None:
        self.name: str = name
        self.preset: Preset = file.preset
        self.spec: TrajectorySpec = file.spec
        self.cameras: Codecs = file.cameras
        # What the network sees, and plans are made of: latents where robots send frames.
        self.seen_spec: TrajectorySpec = encoded_spec(file.spec, file.cameras)
        self.normaliser: Normaliser = file.normaliser
        self.card: Mapping[str, Any] = file.card
        self.revision: str = file.revision
        self._file = file
        tokenizer = Tokenizer(self.seen_spec, file.preset.layout, file.normaliser)
        with torch.random.fork_rng(devices=[]):  # its first weights are drawn and thrown away: nobody's numbers change
            denoiser = build_denoiser(file.preset, tokenizer)
        try:
            denoiser.load_state_dict(dict(file.weights))
        except RuntimeError as error:
            raise CheckpointError(f"policy {name!r}: weights do not fit its preset: {error}") from error
        denoiser.eval().requires_grad_(False)
        self.parameters: int = sum(weight.numel() for weight in denoiser.parameters())
        self.world: World | None = file.world
        self.spread: Spread | None = file.spread
        self.surprise: Surprise | None = file.surprise
        self.feedback: Feedback | None = None if file.world is None else file.world.feedback(tokenizer)
        self._planner: Planner | None = None
        self.history_planner: HistoryPlanner | None = None
        if isinstance(denoiser, CausalDenoiser):
            assert file.preset.memory is not None
            self.history_planner = HistoryPlanner(
                denoiser, file.preset.noise, tokenizer, file.preset.planner, file.preset.memory
            )
        else:
            model, rolling = as_model(file.preset, tokenizer, denoiser), file.preset.rolling
            self._planner = (Planner if rolling is None else partial(RollingPlanner, rolling=rolling))(
                model,
                tokenizer,
                file.preset.planner,
                feedback=self.feedback,
                support=None if file.world is None else file.world.support,
            )
        self.believer: Believer | None = None
        if file.preset.belief is not None and file.world is not None:
            self.believer = Believer(file.preset.belief, file.world.dynamics, self.seen_spec, file.normaliser)
        if file.preset.memory is not None and file.preset.memory.doubt and file.surprise is None:
            raise CheckpointError(
                f"policy {name!r} cannot doubt what it sees before it knows what is usual; "
                f"measure that with: forcing calibrate {name} --data DATA"
            )
        if file.preset.tracker.kind == "feedback" and self.feedback is None:
            raise CheckpointError(
                f"policy {name!r}: a feedback tracker needs dynamics, and its recording showed none; "
                "train it with --set tracker.kind=pursuit"
            )

    def __reduce__(self) -> tuple[type["Policy"], tuple[str, PolicyFile]]:
        """What a process of ours needs to have the same policy."""
        return type(self), (self.name, self._file)

    @property
    def unfinished(self) -> str | None:
        """What to tell people of a policy whose training goes on, or was stopped; None of one that was trained to its
        end."""
        if (reached := self.card.get("unfinished")) is None:
            return None
        return f"policy {self.name!r} is of an unfinished run, {reached}; if it was stopped, --resume goes on with it"

    @cached_property
    def normaliser_hash(self) -> str:
        """First 12 hex digits of the sha256 of the normaliser as JSON."""
        return hashlib.sha256(json.dumps(self.normaliser.to_json(), sort_keys=True).encode()).hexdigest()[:12]

    def check_acts(self) -> None:
        """Raises CheckpointError for a model of the world: what it made of actions would be no action."""
        if self.preset.memory is not None and not self.preset.memory.acts:
            raise CheckpointError(
                f"policy {self.name!r} is a model of the world and cannot act; see what it imagines with: "
                "forcing bench imagine --policy RUN --data DATA, RUN its folder"
            )

    @property
    def planner(self) -> Planner:
        """That of a policy which plans to a goal from what it sees now. Raises ValueError for one that remembers."""
        if self._planner is None:
            raise ValueError(
                f"policy {self.name!r} acts from its episode's history; it knows no candidates and no rules"
            )
        return self._planner

    @property
    def obstacle_stream(self) -> str | None:
        """The stream in which obstacles are given, None if plans know no places to stay out of."""
        name = None if self._planner is None else self._planner.selector.name
        return None if name in self.cameras else name

    def plan(self, request: PlanRequest) -> Plan:
        """The same request gives the same plan. Raises FloatingPointError if the network's output is not finite."""
        with torch.no_grad():
            if self.history_planner is not None:
                return self.history_planner.plan(request)
            return self._with_spread(request, self.planner.plan(request))

    def plan_many(self, requests: Sequence[PlanRequest]) -> list[Plan | Exception]:
        """As `plan` of each, what it raises in place of a plan that cannot be made; a policy that keeps plans up
        (`rolling`) makes several at less cost than one by one."""
        if not isinstance(self._planner, RollingPlanner):
            return [attempted(self.plan, request) for request in requests]
        try:
            with torch.no_grad():
                plans = self._planner.plan_many(requests)
        except Exception:  # of one of them, before they parted
            return [attempted(self.plan, request) for request in requests]
        return [
            plan if isinstance(plan, Exception) else self._with_spread(request, plan)
            for request, plan in zip(requests, plans, strict=True)
        ]

    def _with_spread(self, request: PlanRequest, plan: Plan) -> Plan:
        if self.spread is None:
            return plan
        arrival = len(plan.steps)
        if self.spec.goal is not None and request.goal is not None:
            arrival = arrival_of(plan.streams[self.spec.goal], request.goal, self.planner.hold_distance)
        known = self.spread.of(len(plan.steps), arrival, request.doubt, self.seen_spec, self.normaliser)
        return replace(plan, spread={**plan.spread, **known})

    def seen(self, name: str, value: Array) -> Array:
        """What the network sees of an observation, [*shape]: latents [k] of a camera's frame, any other as it is.

        Raises ValueError if a frame has other numbers than whole ones from 0 to 255.
        """
        if name not in self.cameras:
            return value
        frame = as_bytes(np.asarray(value))
        if frame is None:
            raise ValueError(f"observation {name!r} must be {GREY_LEVELS}")
        latents: Array = self.cameras[name].encode(frame[None])[0].astype(np.float64)
        return latents

    def misfit(self, name: str, value: Array) -> float:
        """By how many standard deviations more than usual a camera's codec loses of a frame, one that can be `seen`."""
        frame = as_bytes(np.asarray(value))
        assert frame is not None
        return float(self.cameras[name].misfit(frame[None])[0])

    def level_of(self, name: str, sigma: float) -> float:
        """Level at which a stream's value with the standard error `sigma`, in its units, enters."""
        return float(self.preset.noise.level_of(torch.tensor(sigma / self.normaliser.scale(name))))

    def away(self, name: str, value: Array) -> float:
        """How far a stream's value, as it is `seen`, is from the mean of the recordings, in standard deviations.

        More than `FARTHEST` is refused.
        """
        with np.errstate(over="ignore"):  # what float32 cannot hold is infinitely far
            return float(np.abs(self.normaliser.apply(name, np.asarray(value).reshape(-1))).max())

    def using(
        self,
        *,
        planner: PlannerConfig | None = None,
        tracker: TrackerConfig | None = None,
        belief: BeliefConfig | Literal["same"] | None = "same",
        rolling: RollingConfig | Literal["same"] | None = "same",
        memory: MemoryConfig | None = None,
    ) -> "Policy":
        """The same weights, planned or tracked otherwise, or with readings otherwise doubted, or plans kept up, or the
        past otherwise recalled. Raises CheckpointError if the policy lacks what that needs."""
        preset = replace(
            self.preset,
            planner=planner or self.preset.planner,
            tracker=tracker or self.preset.tracker,
            belief=self.preset.belief if belief == "same" else belief,
            rolling=self.preset.rolling if rolling == "same" else rolling,
            memory=memory or self.preset.memory,
        )
        # Its spread was measured of plans that were made and followed as before; kept up as often they miss by as much
        # (docs/experiments.md).
        spread = self.spread if replace(preset, rolling=self.preset.rolling) == self.preset else None
        how = hashlib.sha256(json.dumps(asdict(preset), sort_keys=True).encode()).hexdigest()[:6]
        revision = f"{self._file.revision.partition('-')[0]}-adjusted-{how}"
        surprise = self.surprise if _foresees_alike(preset, self.preset) else None
        adjusted = replace(self._file, preset=preset, revision=revision, spread=spread, surprise=surprise)
        return Policy(self.name, adjusted)


def _foresees_alike(one: Preset, other: Preset) -> bool:
    """Whether what is usual for one is so for the other: it was measured of plans that were made in the same way."""
    if one.memory is None or other.memory is None:
        return False
    alike = {name: getattr(other.memory, name) for name in ("doubt", "false_alarms", "wait_steps")}
    often = other.planner.replan_steps
    memory, planner = (
        replace(one.memory, **alike),
        replace(one.planner, replan_steps=often),
    )
    return (memory, planner) == (other.memory, other.planner)


def shipped_policies() -> list[str]:
    """Names of the policies in the package."""
    return sorted(path.parent.name for path in SHIPPED.glob(f"*/{FILE_NAME}"))


def find_policy(name_or_dir: str) -> Path:
    """The file of a shipped policy, or of one in a folder. Raises UnknownPolicy with the nearest name."""
    for path in (SHIPPED / name_or_dir / FILE_NAME, Path(name_or_dir) / FILE_NAME, Path(name_or_dir)):
        if path.is_file():
            return path
    if Path(name_or_dir).is_dir():
        raise UnknownPolicy(f"folder {name_or_dir} holds no {FILE_NAME}; name one in which a training has begun")
    names = shipped_policies()
    if name_or_dir in PRESETS:
        how = f"forcing train {name_or_dir} --data DATA"
        raise UnknownPolicy(f"no policy is shipped for {name_or_dir!r}; train one ({how}) and name its folder")
    hint = did_you_mean(name_or_dir, names, otherwise=f"shipped are {names}; a folder must hold {FILE_NAME}")
    raise UnknownPolicy(f"unknown policy {name_or_dir!r}; {hint}")


def load_policy(name_or_dir: str) -> Policy:
    """Raises UnknownPolicy, which is a CheckpointError, on an unknown name; CheckpointError on a damaged file."""
    path = find_policy(name_or_dir).resolve()  # "." has no name
    return Policy(path.parent.name if path.name == FILE_NAME else path.stem, load_policy_file(path))
