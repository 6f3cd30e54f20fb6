"""A run that was stopped and is gone on with: everything that the rest of it depends on, taken and put back."""

import json
from collections.abc import Iterator, Mapping
from dataclasses import asdict, is_dataclass
from typing import TYPE_CHECKING, Any

from torch import Tensor

from forcing.policy.checkpoint import TrainingState
from forcing.policy.config import from_json

if TYPE_CHECKING:
    from forcing.policy.training import Budget, Trainer


def snapshot(trainer: "Trainer", budget: "Budget") -> TrainingState:
    """Everything that the rest of the run depends on."""
    tensors = {f"weights.{name}": value for name, value in trainer.denoiser.state_dict().items()}
    tensors |= {f"ema.{name}": value for name, value in trainer.ema.items()}
    for index, entry in trainer.optimiser.state_dict()["state"].items():
        tensors |= {f"optimiser.{index}.{key}": value for key, value in entry.items()}
    tensors["generator"] = trainer.generator.get_state()
    facts = {
        "step": trainer.step,
        "elapsed_s": trainer.elapsed_s,
        "windows_seen": trainer.windows_seen,
        "decay_start": trainer.decay_start,
        "rng": trainer.rng.bit_generator.state,
        **_settings(trainer, budget),
    }
    return TrainingState(
        tensors={name: value.detach().cpu().contiguous() for name, value in tensors.items()}, facts=facts
    )


def _settings(trainer: "Trainer", budget: "Budget") -> dict[str, Any]:
    """What decides the weights of a run, as JSON gives it back. Planner and tracker do not, and may change."""
    preset = trainer.preset
    settings = {
        "preset": preset.name,
        "seed": trainer.seed,
        "budget": asdict(budget),
        "layout": asdict(preset.layout),
        "denoiser": asdict(preset.denoiser),
        "noise": asdict(preset.noise),
        "levels": asdict(preset.levels),
        "memory": None if preset.memory is None else asdict(preset.memory),
        "optimiser": asdict(preset.optimiser),
        "normaliser": trainer.tokenizer.normaliser.to_json(),
    }
    result: dict[str, Any] = json.loads(json.dumps(settings))
    return result


def _differences(saved: Any, now: Any, name: str) -> Iterator[tuple[str, Any, Any]]:
    """(name, saved value, present value) of every entry that differs, below any depth of keys."""
    if isinstance(saved, Mapping) and isinstance(now, Mapping):
        for key in sorted({*saved, *now}):
            yield from _differences(saved.get(key), now.get(key), f"{name}.{key}")
    elif saved != now:
        yield name, saved, now


def _with_defaults(part: Any, saved: Any, name: str) -> Any:
    """`saved`, completed by today's defaults if it is the settings of a `part` of the preset."""
    if not is_dataclass(part) or isinstance(part, type):
        return saved
    return json.loads(json.dumps(asdict(from_json(type(part), saved, name))))


def restore(trainer: "Trainer", state: TrainingState, budget: "Budget") -> None:
    """Sets the trainer to where `state` was taken.

    Raises ValueError, naming the setting and both values, if the state is of a run with another budget, seed, recipe
    or data; what an older file does not tell is not compared, and settings that it did not know have their defaults.
    """
    for key, now in _settings(trainer, budget).items():
        then = _with_defaults(getattr(trainer.preset, key, None), state.facts.get(key, now), key)
        for name, saved, present in _differences(then, now, key):
            raise ValueError(
                f"{name} of the saved run is {saved!r}, of this one {present!r}; "
                "resume with the settings and data it began with, or start a new run in another folder"
            )
    weights = {
        name.removeprefix("weights."): value for name, value in state.tensors.items() if name.startswith("weights.")
    }
    trainer.denoiser.load_state_dict(weights)
    for name, value in state.tensors.items():
        if name.startswith("ema."):
            trainer.ema[name.removeprefix("ema.")].copy_(value)
    moments: dict[int, dict[str, Tensor]] = {}
    for name, value in state.tensors.items():
        if name.startswith("optimiser."):
            _, index, key = name.split(".", 2)
            moments.setdefault(int(index), {})[key] = value
    optimiser = trainer.optimiser.state_dict()
    optimiser["state"] = moments
    trainer.optimiser.load_state_dict(optimiser)
    trainer.generator.set_state(state.tensors["generator"])
    trainer.rng.bit_generator.state = state.facts["rng"]
    trainer.step, trainer.elapsed_s = int(state.facts["step"]), float(state.facts["elapsed_s"])
    trainer.windows_seen, trainer.decay_start = int(state.facts["windows_seen"]), state.facts["decay_start"]
