"""`forcing bench imagine`: what networks imagine, far beyond the length of their training, against what happened.

Each is given how a held-out episode began and all its actions. Networks of the same recording, size and training are
compared by how their levels were drawn.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from rich.console import Console
from torch import Tensor

from forcing.eval.bench_records import Records
from forcing.eval.console import rows_table
from forcing.eval.drift import Drift, drift, shown
from forcing.eval.held_out import Told, check_held_out, held_out, tokens_of, told_to
from forcing.eval.imagined_film import Reel, write_imagined_film
from forcing.eval.report import Report, plus_minus, standard_error
from forcing.policy.imagination import Imagining, imagine, imagining_of
from forcing.policy.policy import Policy, load_policy
from forcing.policy.preset import Preset
from forcing.policy.tokens import Tokenizer

DF, FULL, TEACHER = METHODS = ("Diffusion Forcing", "full-sequence", "teacher forcing")
STILL, SEEN = "nothing moves", "what really happened, as it is seen"
TIMES = (1, 2, 5, 10)  # lengths of training at which errors are told
DRAWS = 10_000  # of the bootstrap
HEADER = ("imagined by", *(f"{times} ×, mm" for times in TIMES), "median", "pixels", "latents", "cubes lost")


@dataclass(frozen=True, slots=True, kw_only=True)
class ImagineBench:
    """policies: names or folders. data: a recording that none of them was trained on. episodes: at most. times: how
    many lengths of training are imagined. film: where to write one of the first episode, None for none."""

    policies: Sequence[str]
    data: str
    episodes: int
    times: int
    seed: int
    film: Path | None


@dataclass(frozen=True, slots=True)
class _Dreamer:
    """A policy's network, and how it imagines."""

    policy: Policy
    tokenizer: Tokenizer
    how: Imagining


def run_bench(bench: ImagineBench, *, report: Path | None, command: str, console: Console) -> None:
    """Errors of every policy's imagination, and of two yardsticks: nothing moves; what happened, coded and decoded.

    Raises UnknownPolicy; ValueError if policies are no models of the world, of different lengths, or were trained on
    these episodes, or if these are too short.
    """
    dreamers = [_dreamer(name) for name in bench.policies]
    length, token_steps, told = _common(dreamers)
    observed = min(dreamer.policy.preset.layout.history for dreamer in dreamers)
    if bench.film is not None and not dreamers[0].policy.cameras:
        raise ValueError(f"film shows what cameras see, and policy {dreamers[0].policy.name!r} has none; leave it out")
    held = held_out(bench.data, token_steps=token_steps, tokens=bench.times * length, most=bench.episodes, told=told)
    for dreamer in dreamers:
        check_held_out(dreamer.policy, held)
    wanted = {
        "data": held.description,
        "episodes": list(held.numbers),
        "too_short": held.left_out,
        "seed": bench.seed,
        "length": length,
        "token_steps": token_steps,
        "observed": observed,
        **asdict(told),
        "times": bench.times,
    }
    records = Records(report, wanted, console.print, needs="curves")
    reels = []
    for number, dreamer in enumerate(dreamers):
        truth = tokens_of(dreamer.policy, dreamer.tokenizer, held)
        if number == 0:
            for row, tokens in ((STILL, _still(truth, observed)), (SEEN, truth)):
                of_row = drift(dreamer.tokenizer, dreamer.policy.cameras, held, truth, tokens)
                records.add(wanted | _entry(row, None, of_row, command))
        imagined = _imagined(dreamer, truth, observed, bench.seed)
        of_policy = drift(dreamer.tokenizer, dreamer.policy.cameras, held, truth, imagined)
        console.print(f"{dreamer.policy.name}: {method_of(dreamer.policy.preset)}, imagined")
        records.add(wanted | _entry(dreamer.policy.name, dreamer, of_policy, command))
        reels.append(_reel(dreamer, imagined, of_policy))
    console.print(rows_table(title_of(records.entries[0]), HEADER, map(drift_row, records.entries)))
    if (said := verdict(records.entries)) is not None:
        console.print(said)
    if held.left_out:
        console.print(f"{held.left_out} of the episodes before the last of them were too short")
    if report is not None:
        console.print(f"report: {report}")
    if bench.film is not None:
        real = Reel("what happened", {name: held.streams[name][0] for name in dreamers[0].policy.cameras}, None)
        write_imagined_film([real, *reels], token_steps / dreamers[0].policy.spec.control_hz, observed, bench.film)
        console.print(f"wrote {bench.film}")


def method_of(preset: Preset) -> str:
    """How levels were drawn in its training."""
    assert preset.memory is not None
    mix = preset.memory.mix
    if mix.behind == 0 and mix.shared == 1:
        return FULL
    return TEACHER if mix.behind == 1 and mix.slightly == 0 else DF


def _dreamer(name: str) -> _Dreamer:
    policy = load_policy(name)
    memory, planner = policy.preset.memory, policy.history_planner
    if memory is None or planner is None or memory.acts:
        raise ValueError(
            f"policy {name!r} must be a model of the world, trained with memory.mix.known_actions=1; "
            "train one: forcing train swap-world --data DATA"
        )
    passes = policy.preset.planner.schedule.sampling_steps
    return _Dreamer(policy, planner.tokenizer, imagining_of(policy.preset.layout, memory, passes))


def _common(dreamers: Sequence[_Dreamer]) -> tuple[int, int, Told]:
    """Tokens of a training sequence, control steps of a token, and how all were told what was done."""
    found = {(dreamer.how.length, dreamer.policy.preset.layout.token_steps) for dreamer in dreamers}
    if len(found) > 1:
        raise ValueError(f"policies must have tokens and sequences of one length, got (tokens, steps) {sorted(found)}")
    told = {told_to(dreamer.policy) for dreamer in dreamers}
    if len(told) > 1:
        raise ValueError(f"policies must be told actions alike, got {', '.join(sorted(map(str, told)))}")
    return *found.pop(), told.pop()


def _imagined(dreamer: _Dreamer, truth: Tensor, observed: int, seed: int) -> Tensor:
    assert dreamer.policy.history_planner is not None
    model = dreamer.policy.history_planner.model()
    return imagine(model, truth, observed, dreamer.tokenizer.actions, dreamer.how, torch.Generator().manual_seed(seed))


def _still(truth: Tensor, observed: int) -> Tensor:
    still = truth.clone()
    still[:, observed:] = truth[:, observed - 1 : observed]
    return still


def _reel(dreamer: _Dreamer, imagined: Tensor, of_policy: Drift) -> Reel:
    frames = shown(dreamer.policy.cameras, dreamer.tokenizer.decode(imagined[:1]))
    return Reel(
        method_of(dreamer.policy.preset), {name: each[0] for name, each in frames.items()}, of_policy.object_mm[0]
    )


def _entry(row: str, dreamer: _Dreamer | None, measured: Drift, command: str) -> Report:
    about: Report = {"row": row, "settings": [], "method": row}
    if dreamer is not None:
        card = dreamer.policy.card
        about |= {
            "method": method_of(dreamer.policy.preset),
            "weights": dreamer.policy.revision,
            "parameters": dreamer.policy.parameters,
            "imagining": asdict(dreamer.how),
            "trained": {name: card.get(name) for name in ("command", "seed", "steps", "minutes")},
        }
    return about | {"curves": measured.curves(), "unseen": round(measured.unseen, 4), "command": command}


def at(entry: Report, curve: str, times: int) -> NDArray[np.float64] | None:
    """[E] errors at the last token of so many lengths of training; None if they were not measured or imagined."""
    values = entry["curves"][curve]
    if values is None or times > entry["times"]:
        return None
    return np.asarray(values)[:, times * entry["length"] - 1]


def drift_row(entry: Report) -> list[str]:
    """A row's cells, under `HEADER`; pixels and latents at the end."""
    last = at(entry, "object_mm", entry["times"])
    assert last is not None
    cells = []
    for times in TIMES:
        values = at(entry, "object_mm", times)
        cells.append("" if values is None else plus_minus(float(values.mean()), standard_error(values.tolist())))
    pixels, latents = (at(entry, curve, entry["times"]) for curve in ("pixel", "latent"))
    return [
        entry["row"] if entry["row"] == entry["method"] else f"{entry['method']} ({entry['row']})",
        *cells,
        f"{np.median(last):.1f}",
        "" if pixels is None else f"{pixels.mean():.1f}",
        "" if latents is None else f"{latents.mean():.2f}",
        f"{100 * entry['unseen']:.1f} %",
    ]


def title_of(entry: Report) -> str:
    """What all entries have in common, in words."""
    length, observed, episodes = entry["length"], entry["observed"], len(entry["episodes"])
    imagined = entry["times"] * length - observed
    return (
        f"{episodes} episodes, {observed} tokens observed and {imagined} imagined; trained on "
        f"sequences of {length} tokens, {length * entry['token_steps']} steps; actions told as {told_as(entry)}"
    )


def told_as(entry: Report) -> str:
    """How the networks were told what was done, and in which recorded actions if not in the recording's own."""
    told, source = "places" if entry.get("moves_from") is None else "moves", entry.get("actions_from")
    return told if source is None else f"{told}, {source}"


def verdict(entries: Sequence[Report]) -> str | None:
    """How Diffusion Forcing's object error at the end compares with the better baseline's, None if one is missing."""
    found = {method: _of_method(entries, method) for method in METHODS}
    if found[DF] is None or found[FULL] is None or found[TEACHER] is None:
        return None
    errors = np.stack([found[method] for method in METHODS])  # type: ignore[misc]
    drawn = errors[:, np.random.default_rng(0).integers(errors.shape[1], size=(DRAWS, errors.shape[1]))].mean(axis=-1)
    ratio, ratios = (each[0] / np.minimum(each[1], each[2]) for each in (errors.mean(axis=-1), drawn))
    low, high = np.percentile(ratios, (2.5, 97.5))
    return (
        f"{DF}'s object position error at {entries[0]['times']} times the training length is {ratio:.2f} of the better "
        f"baseline's (95 % of resampled episodes: {low:.2f} to {high:.2f})"
    )


def _of_method(entries: Sequence[Report], method: str) -> NDArray[np.float64] | None:
    """[E] object errors at the end, mean over the policies of a method; None if there is none."""
    errors = [at(entry, "object_mm", entry["times"]) for entry in entries if entry["method"] == method]
    return np.mean(errors, axis=0) if errors else None  # type: ignore[arg-type]
