"""`forcing bench obstacles`: first plans past a disc that stands in their way, told of it in several ways.

Nothing is driven: the mazes have no such disc. What counts is whether a plan stays out of it and still arrives.
"""

import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np

from forcing.eval.adjust import Adjusted
from forcing.eval.bench_records import Records
from forcing.eval.console import rows_table
from forcing.eval.plan_metrics import PlanFigures, disc_depth, measure_plan, summary_of_plans
from forcing.eval.plan_rows import ALONE
from forcing.eval.report import Report
from forcing.eval.result_files import number
from forcing.eval.rollout import first_request
from forcing.eval.trial import Trial
from forcing.policy.planner import PlanRequest
from forcing.policy.policy import Policy, load_policy
from forcing.policy.types import Obstacles, Plan

HEADER = ("row", "entering", "deepest, m", "arriving", "steps longer", "walls cut", "ms")
# A path around a disc of 0.2 m, straight between frames that are 0.2 m apart, cuts 0.026 m off.
GRAZE_M = 0.03
UNGUIDED = "planner.avoid_scale=0"
# Tuned on 6 plans from seed 5000: 0, 10, 30, 100, 300 let 1, 1, 1, 0, 0 of them in.
GUIDED = "planner.avoid_scale=100"
MANY = (*ALONE, "planner.passes=none", "planner.schedule.sampling_steps=6", "planner.samples=8")


@dataclass(frozen=True, slots=True, kw_only=True)
class Way:
    """A row. settings: as `forcing eval --set` takes them. told: whether the planner knows of the disc."""

    name: str
    settings: tuple[str, ...] = ()
    told: bool = True


WAYS = (
    Way(name="samples as they come, not told", settings=ALONE, told=False),
    Way(name="samples as they come, selection alone", settings=(*ALONE, UNGUIDED)),
    Way(name="samples as they come, selection and guidance", settings=(*ALONE, GUIDED)),
    Way(name="8 samples of more steps, not told", settings=MANY, told=False),
    Way(name="8 samples of more steps, selection alone", settings=(*MANY, UNGUIDED)),
    Way(name="8 samples of more steps, selection and guidance", settings=(*MANY, GUIDED)),
    Way(
        name="8 samples of more steps, selection and guidance, MCG N = 4", settings=(*MANY, GUIDED, "planner.futures=4")
    ),
    Way(name="refined and polished, not told", told=False),
    Way(name="refined and polished, selection alone", settings=(UNGUIDED,)),
    Way(name="refined and polished, selection and guidance of scale 10 (as shipped)"),
)


def run_bench(trial: Trial, *, policy: str | None, radius_m: float, report: Path | None) -> None:
    """Every way on the first plans of the trial's episodes, printed as a table.

    The disc stands where the shipped planner, not told, would be when it has driven half of its way to the goal. Ways
    that the report has already, with the same weights, episodes and radius, are not measured again. Raises ValueError
    if radius_m is not above 0, UnknownPolicy.
    """
    if not radius_m > 0:
        raise ValueError(f"radius-m must be above 0, got {radius_m}")
    name, seeds = policy or trial.task.policy, range(trial.seed, trial.seed + trial.episodes)
    loaded = load_policy(name)
    facts = trial.wanted(loaded)
    wanted = facts | {"radius_m": radius_m}
    records = Records(report, wanted, trial.console.print, needs="entering_share")
    cases = [_blocked(trial, loaded, seed, radius_m) for seed in seeds]
    for way in WAYS:
        if records.find(way.name, settings=way.settings) is None:
            planned = _planned(trial, Adjusted(way.settings)(loaded), cases, told=way.told)
            records.add(wanted | {"row": way.name, "settings": list(way.settings), "command": trial.command} | planned)
    title = f"{trial.task.name}, {name}: {trial.episodes} first plans from {trial.seed}, discs of {radius_m:g} m"
    trial.console.print(rows_table(title, HEADER, [obstacles_row(entry) for entry in records.entries]))


def obstacles_row(entry: Report) -> list[str]:
    """A row's cells, under `HEADER`."""
    return [
        entry["row"],
        number(entry["entering_share"], 2),
        number(entry["deepest_m"], 2),
        number(entry["arriving_share"], 2),
        number(entry["longer_mean"]),
        number(entry["crossing_share"], 2),
        number(entry["plan_ms_p50"]),
    ]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Case:
    """An episode's first request, told of the disc, and the steps that its way took before there was one."""

    request: PlanRequest
    disc: Obstacles
    steps: int | None


def _blocked(trial: Trial, policy: Policy, seed: int, radius_m: float) -> _Case:
    request = first_request(trial.task, policy, seed)
    plan = policy.plan(request)
    steps = _figures(trial, policy, request, plan).predicted_steps
    half = np.searchsorted(plan.steps, (steps or int(plan.steps[-1])) / 2)
    disc = Obstacles(centres=plan.streams["position"][half][None], radii=np.array([radius_m]))
    return _Case(request=request, disc=disc, steps=steps)


def _planned(trial: Trial, policy: Policy, cases: Sequence[_Case], *, told: bool) -> Report:
    """The plans' figures. longer_mean: control steps that they predict more than the ways before there was a disc,
    where both arrive."""
    figures, depths, longer, plan_ms = list[PlanFigures](), list[float](), list[int](), list[float]()
    for case in cases:
        request = replace(case.request, obstacles=case.disc) if told else case.request
        began = time.perf_counter()
        plan = policy.plan(request)
        plan_ms.append(1e3 * (time.perf_counter() - began))
        figures.append(_figures(trial, policy, request, plan))
        depths.append(disc_depth(plan, case.disc.centres[0], float(case.disc.radii[0])))
        if figures[-1].predicted_steps is not None and case.steps is not None:
            longer.append(figures[-1].predicted_steps - case.steps)
    detail = [asdict(one) | {"disc_depth_m": depth} for one, depth in zip(figures, depths, strict=True)]
    return {
        **summary_of_plans([(one, None) for one in figures]),
        "entering_share": float(np.mean(np.array(depths) > GRAZE_M)),
        "deepest_m": max(depths),
        "longer_mean": float(np.mean(longer)) if longer else None,
        "plan_ms_p50": float(np.median(plan_ms)),
        "detail": detail,
    }


def _figures(trial: Trial, policy: Policy, request: PlanRequest, plan: Plan) -> PlanFigures:
    assert request.goal is not None, "tasks have goals"
    return measure_plan(trial.task, plan, np.asarray(request.goal), policy.preset.layout.token_steps)
