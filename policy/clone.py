"""The plainest thing that recordings can teach: from where I am and where I shall be, to what was done there.

A network without plan, time or noise, cloned with goals seen in hindsight (Andrychowicz et al., arXiv:1707.01495; as
imitation, Ghosh et al., arXiv:1912.06088). A yardstick for planners. Needs torch, numpy and safetensors alone.
"""

import json
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from forcing.policy.checkpoint import CheckpointError, read_tensors, tensors_digest, write_tensors
from forcing.policy.config import from_json
from forcing.policy.tokens import Normaliser
from forcing.policy.training import Budget, Interrupted, Progress
from forcing.policy.types import Array, Trajectories, TrajectorySpec

FILE_NAME = "clone.safetensors"


@dataclass(frozen=True, slots=True, kw_only=True)
class CloneConfig:
    """width, depth: of the hidden layers. batch: pairs of state and goal a step. constant: share of the budget at full
    learning rate, before it falls to zero on a line."""

    width: int = 256
    depth: int = 3
    batch: int = 1024
    learning_rate: float = 1e-3
    constant: float = 0.5

    def __post_init__(self) -> None:
        for name in ("width", "depth", "batch"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, got {getattr(self, name)}")
        if not self.learning_rate > 0:
            raise ValueError(f"learning_rate must be positive, got {self.learning_rate}")
        if not 0 <= self.constant < 1:
            raise ValueError(f"constant must be from 0 to below 1, got {self.constant}")


class Clone:
    """A trained clone; `action` may be called from any thread."""

    def __init__(
        self,
        name: str,
        config: CloneConfig,
        spec: TrajectorySpec,
        normaliser: Normaliser,
        weights: Mapping[str, Tensor],
        revision: str,
    ) -> None:
        """Raises ValueError if the weights do not fit, or if the spec has no goal stream."""
        self.name, self.spec, self.normaliser, self.revision = name, spec, normaliser, revision
        self._goal = _goal_stream(spec)
        self._network = build_network(config, spec)
        try:
            self._network.load_state_dict(dict(weights))
        except RuntimeError as error:
            raise ValueError(f"clone {name!r}: weights do not fit its network: {error}") from error
        self._network.eval().requires_grad_(False)

    def action(self, observation: Mapping[str, Array], goal: Array) -> NDArray[np.float64]:
        """[A] flat, inside the limits, from stream -> [*shape] and a goal, in physical units.

        Raises KeyError if a stream is missing, FloatingPointError if the network's output is not finite.
        """
        seen = [_flat(self.normaliser, s.name, observation[s.name]) for s in self.spec.of_role("observation")]
        inputs = np.concatenate([*seen, _flat(self.normaliser, self._goal, goal)])
        action = self.spec.action
        with torch.no_grad():
            output = self._network(torch.from_numpy(inputs)[None])[0].numpy()
        if not np.isfinite(output).all():
            raise FloatingPointError(f"clone {self.name!r} answered {output}; check the observation, or train it again")
        result = self.normaliser.invert(action.name, output)
        return np.clip(
            result, -np.inf if action.low is None else action.low, np.inf if action.high is None else action.high
        )


def build_network(config: CloneConfig, spec: TrajectorySpec) -> nn.Module:
    """[B, states + goal] normalised -> [B, actions] normalised; its weights are drawn from torch's generator."""
    sizes = [sum(stream.size for stream in spec.of_role("observation")) + spec[_goal_stream(spec)].size]
    layers: list[nn.Module] = []
    for width in [config.width] * config.depth:
        layers += [nn.Linear(sizes[-1], width), nn.SiLU()]
        sizes.append(width)
    return nn.Sequential(*layers, nn.Linear(sizes[-1], spec.action.size))


class HindsightPairs:
    """Recorded steps with goals that were reached later, normalised."""

    def __init__(self, trajectories: Trajectories, normaliser: Normaliser) -> None:
        """Raises ValueError if the recording has no goal stream."""
        spec = trajectories.spec
        goal = _goal_stream(spec)
        scaled = {
            s.name: normaliser.apply(s.name, trajectories.streams[s.name].reshape(-1, s.size))
            for s in spec.streams
            if s.role != "reward"
        }
        self.states = np.concatenate([scaled[s.name] for s in spec.of_role("observation")], axis=1)
        self.goals, self.actions = scaled[goal], scaled[spec.action.name]
        self._first = trajectories.starts("action")
        self._ends = trajectories.starts("observation") + trajectories.lengths

    def draw(self, rng: np.random.Generator, count: int) -> tuple[Tensor, Tensor]:
        """[count, states + goal] and [count, actions]: steps uniform over the recording, each with the place of a later
        observation of its episode, uniform over all that are left."""
        step = rng.integers(0, len(self.actions), size=count)
        episode = np.searchsorted(self._first, step, side="right") - 1
        row = step + episode  # each earlier episode has one observation more than actions
        later = rng.integers(row + 1, self._ends[episode] + 1)
        inputs = np.concatenate([self.states[row], self.goals[later]], axis=1)
        return torch.from_numpy(inputs), torch.from_numpy(self.actions[step])


def train_clone(
    trajectories: Trajectories,
    config: CloneConfig,
    budget: Budget,
    out: Path,
    card: Mapping[str, Any],
    *,
    seed: int = 0,
    report: Callable[[Progress], None] = lambda progress: None,
    stop: Callable[[], bool] = lambda: False,
) -> Path:
    """The path of the trained clone, `out`/clone.safetensors, written when the budget is spent.

    The same seed and a budget in steps give the same clone. Raises Interrupted, after saving what there is, if `stop()`
    becomes true; FloatingPointError if the loss is not finite; ValueError if the recording has no goal stream.
    """
    out.mkdir(parents=True, exist_ok=True)
    normaliser, rng = Normaliser.fit(trajectories), np.random.default_rng(seed)
    pairs = HindsightPairs(trajectories, normaliser)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = build_network(config, trajectories.spec)
    optimiser = torch.optim.Adam(network.parameters(), lr=config.learning_rate)
    began = told = time.monotonic()
    step, told_step, losses = 0, 0, []
    while (spent := _spent(budget, step, time.monotonic() - began)) < 1 and not stop():
        optimiser.param_groups[0]["lr"] = config.learning_rate * min(1.0, (1 - spent) / (1 - config.constant))
        losses.append(_improve(network, optimiser, pairs.draw(rng, config.batch), step))
        step += 1
        now = time.monotonic()
        if now - told >= 1.0:
            rate, total = (step - told_step) / (now - told), round(step / max(spent, 1e-9))
            report(
                Progress(
                    step=step,
                    total_steps=max(step, total),
                    loss=float(np.mean(losses)),
                    windows_per_s=rate * config.batch,
                    remaining_s=(total - step) / rate,
                )
            )
            told, told_step, losses = now, step, []
    header = {
        "config": asdict(config),
        "spec": trajectories.spec.to_json(),
        "normaliser": normaliser.to_json(),
        "card": {**card, "steps": step, "minutes": round((time.monotonic() - began) / 60, 2)},
    }
    write_tensors(out / FILE_NAME, "clone", header, network.state_dict())
    if spent < 1:
        raise Interrupted(f"stopped at step {step}; {out} holds the clone as it is")
    return out / FILE_NAME


def is_clone(folder: str) -> bool:
    """Whether a folder holds a clone."""
    return (Path(folder) / FILE_NAME).is_file()


def load_clone(folder: str) -> Clone:
    """Raises CheckpointError, naming the file and what is wrong with it."""
    path = Path(folder).resolve() / FILE_NAME
    header, weights = read_tensors(path, "clone")
    try:
        return Clone(
            path.parent.name,
            from_json(CloneConfig, header["config"]),
            TrajectorySpec.from_json(header["spec"]),
            Normaliser.from_json(header["normaliser"]),
            weights,
            tensors_digest(json.dumps({**header, "card": {}}, sort_keys=True), weights)[:12],
        )
    except (KeyError, TypeError, ValueError) as error:
        raise CheckpointError(f"{path}: {error}") from error


def _improve(network: nn.Module, optimiser: torch.optim.Optimizer, pairs: tuple[Tensor, Tensor], step: int) -> float:
    inputs, actions = pairs
    loss = (network(inputs) - actions).square().mean()
    optimiser.zero_grad(set_to_none=True)
    loss.backward()
    if not bool(torch.isfinite(loss)):
        raise FloatingPointError(f"loss is {float(loss)} at step {step + 1}; lower learning_rate or check the data")
    optimiser.step()
    return float(loss.detach())


def _spent(budget: Budget, step: int, elapsed_s: float) -> float:
    """Share of the budget."""
    if budget.steps is not None:
        return step / budget.steps
    assert budget.minutes is not None
    return elapsed_s / (60 * budget.minutes)


def _goal_stream(spec: TrajectorySpec) -> str:
    if spec.goal is None:
        raise ValueError("a clone needs a goal stream, the recording has none; name one when you write it")
    return spec.goal


def _flat(normaliser: Normaliser, name: str, value: Array) -> NDArray[np.float32]:
    return normaliser.apply(name, np.asarray(value, dtype=np.float64).reshape(-1))
