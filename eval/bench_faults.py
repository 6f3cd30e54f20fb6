"""`forcing bench faults`: what faulty sensors cost, believed, declared noisy, filtered, or doubted by the policy."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from forcing.eval.bench_records import Records
from forcing.eval.console import rows_table
from forcing.eval.fronts import ConstantVelocity, Declared, Front
from forcing.eval.report import Report, plus_minus
from forcing.eval.trial import Trial
from forcing.policy.names import UnknownName, did_you_mean
from forcing.policy.policy import load_policy

# All ways plan alike, and as a fleet would: some must not take ten times longer because noise asks for plan after plan.
LIVE = ("planner.refine=none", "planner.polish=none", "planner.replan_error=none")
BELIEVED = (*LIVE, "belief=none")
CLEAN = "none"
# Name -> the fault as `forcing eval --faults` takes it. The three of `mixed` are what the single ones are of.
FAULTS = {
    CLEAN: "",
    "noise 0.1": "noise=0.1",
    "noise 0.2": "noise=0.2",
    "noise 0.5": "noise=0.5",
    "bursts of 20": "dropout=0.3/20",
    "bursts of 50": "dropout=0.5/50",
    "freezes of 50": "freeze=0.5/50",
    "delay 5": "delay=5/2",
    "delay 15": "delay=15/5",
    "10 % spikes": "spikes=0.1/3",
    "30 % spikes": "spikes=0.3/3",
    "bias 0.3": "bias=0.3",
    "mixed": "noise=0.2+dropout=0.3/20+spikes=0.1/3",
    "bursts of 20, harsher": "dropout=0.8/20",
    "bursts of 50, harsher": "dropout=0.9/50",
    "freezes of 50, harsher": "freeze=0.8/50",
}
NOISE = {"noise 0.1": 0.1, "noise 0.2": 0.2, "noise 0.5": 0.5}
LEVEL = 0.2  # of the way that declares everything as noisy as that
# Tuned on 6 drives of maze2d-medium-multi from seed 7000 on, under noise of 0.2 (docs/experiments.md).
KALMAN = (0.2, 0.2, 30.0)
TRUST, FIXED, FILTERED, DOUBTED, TOLD = "believed", "one level", "Kalman filter", "doubted", "declared"
HEADER = ("fault", TRUST, FIXED, FILTERED, DOUBTED, TOLD)


@dataclass(frozen=True, slots=True)
class Way:
    """How readings are taken. settings: as `forcing eval --set` takes them."""

    name: str
    settings: tuple[str, ...]
    front: Front | None = None


def ways_of(fault: str, control_hz: float) -> list[Way]:
    """The ways that a fault is met: every one is told nothing of it, but the last under noise."""
    ways = [
        Way(TRUST, BELIEVED),
        Way(FIXED, BELIEVED, Declared(LEVEL)),
        Way(FILTERED, BELIEVED, ConstantVelocity(*KALMAN, dt_s=1 / control_hz)),
        Way(DOUBTED, LIVE),
    ]
    return [*ways, Way(TOLD, LIVE, Declared(NOISE[fault]))] if fault in NOISE else ways


def run_bench(trial: Trial, *, policy: str | None, faults: Sequence[str], report: Path | None) -> None:
    """Every way under each of `faults`, all if none is named, on the same episodes, printed as a table.

    What the report has already, with the same weights and episodes, is not measured again. Raises UnknownName if there
    is no such fault, UnknownPolicy.
    """
    for fault in faults:
        if fault not in FAULTS:
            raise UnknownName(f"unknown fault {fault!r}; {did_you_mean(fault, list(FAULTS))}")
    name = policy or trial.task.policy
    loaded = load_policy(name)
    wanted = trial.wanted(loaded)
    records = Records(report, wanted, trial.console.print, needs="faults")
    for fault in faults or FAULTS:
        for way in ways_of(fault, loaded.spec.control_hz):
            row = f"{fault}: {way.name}"
            if records.find(row, faults=FAULTS[fault], settings=way.settings, front=repr(way.front)) is not None:
                continue
            entry = trial.run(name, loaded, way.settings, faults=FAULTS[fault], front=way.front)
            entry |= {"row": row, "fault": fault, "way": way.name, "faults": FAULTS[fault]}
            records.add(entry | wanted | {"settings": list(way.settings), "front": repr(way.front)})
            trial.console.print(f"{row}: {plus_minus(entry['normalized_mean'], entry['normalized_sem'])}")
    title = f"{trial.task.name}, {name}: {trial.episodes} episodes from {trial.seed}"
    trial.console.print(rows_table(title, HEADER, faults_rows(records.entries)))


def faults_rows(entries: Sequence[Report]) -> list[list[str]]:
    """A row for each fault that was measured, under `HEADER`."""
    found: dict[str, dict[str, str]] = {}
    for entry in entries:
        found.setdefault(entry["fault"], {})[entry["way"]] = plus_minus(
            entry["normalized_mean"], entry["normalized_sem"]
        )
    return [[fault, *(found[fault].get(way, "") for way in HEADER[1:])] for fault in FAULTS if fault in found]
