"""The rows of `forcing bench plan`: what is changed against a policy's own planner and tracker, group by group."""

from collections.abc import Sequence
from dataclasses import dataclass

from forcing.policy.names import UnknownName, did_you_mean

# Plans are samples as they come: what rows on sampling compare.
ALONE = (
    "planner.attempts=1",
    "planner.keep=false",
    "planner.search=none",
    "planner.refine=none",
    "planner.polish=none",
)
# What improves on samples follows the rules there are: without the grid it leads them through walls.
WITHOUT_GRID = ("planner.support_tolerance=none", "planner.refine=none", "planner.polish=none")
# Actions as they were sampled, played until the next plan: neither a rehearsal corrects them nor an early plan.
ACTIONS = ("tracker.kind=actions", "planner.refine=none", "planner.rehearse=false", "planner.replan_error=none")
TO_THE_END = "planner.passes=none"
# Gains tuned on maze2d-large-single, seed 5000 on: with 10 and 1 PD lags by 10 cm at full speed and touches corners.
PD = ("tracker.kind=pd", "tracker.position_gain=40", "tracker.velocity_gain=3")
# Tuned with MCG off on maze2d-umaze-multi, seed 5000 on: 0, 3, 10, 30, 100 score 125, 164, 169, 165, 140.
GUIDANCE_SCALE = 10.0
BUDGETS = (1, 4, 16, 64, 256)
OFTEN = {"at every step": 1, "every 4 steps": 4, "every 16 steps": 16}


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """A line of the table.

    settings: changes, as `forcing eval --set` takes them. driver: a yardstick that drives in place of the policy.
    needs_world: dynamics or visited places, without which the row means nothing. passes: what a row of the search
    curve may spend, None elsewhere.
    """

    name: str
    group: str
    settings: tuple[str, ...] = ()
    driver: str | None = None
    needs_world: bool = False
    passes: int | None = None


def _schedule(kind: str, steps: int = 3, uncertainty: float = 1.0) -> tuple[str, ...]:
    """A scheduling matrix, all of it, and nothing improved: what a schedule is worth by itself."""
    prefix = "planner.schedule"
    matrix = (f"{prefix}.kind={kind}", f"{prefix}.sampling_steps={steps}", f"{prefix}.uncertainty_scale={uncertainty}")
    return (*matrix, TO_THE_END, *ALONE)


PYRAMID = _schedule("pyramid", uncertainty=0.5)
AUTOREGRESSIVE = _schedule("autoregressive")


def _trackers() -> list[Row]:
    names = {
        "feedback": "feedback on fitted dynamics",
        "pd": "PD on the timed plan",
        "pursuit": "pursuit of the path",
        "actions": "diffused actions, as sampled",
    }
    return [
        Row(
            name=name,
            group="tracker",
            settings={"pd": PD, "actions": ACTIONS}.get(kind, (f"tracker.kind={kind}",)),
            needs_world=kind == "feedback",
        )
        for kind, name in names.items()
    ]


def _worlds() -> list[Row]:
    off, grid = "planner.rehearse=false", "planner.support_tolerance=none"
    return [
        Row(name="plans neither rehearsed nor polished", group="world", settings=(off,), needs_world=True),
        Row(name="without the grid of visited places", group="world", settings=(grid,), needs_world=True),
        Row(name="without the grid, samples as they come", group="world", settings=WITHOUT_GRID, needs_world=True),
    ]


def _schedules() -> list[Row]:
    schedules = {
        "pyramid, u = 0.5, 3 steps, to the end": PYRAMID,
        "pyramid, u = 1, 3 steps, to the end": _schedule("pyramid"),
        "full sequence, 3 steps": _schedule("full_sequence"),
        "autoregressive, 3 steps": AUTOREGRESSIVE,
        "trapezoid, u = 0.5, 3 steps": _schedule("trapezoid", uncertainty=0.5),
        "pyramid, u = 0.5, to the end, stabilised 0.05": (*PYRAMID, "planner.stabilisation=0.05"),
        "autoregressive, stabilised 0.05": (*AUTOREGRESSIVE, "planner.stabilisation=0.05"),
    }
    return [Row(name=name, group="schedule", settings=settings) for name, settings in schedules.items()]


def _samples() -> list[Row]:
    return [
        Row(name=f"samples a horizon: {count}", group="samples", settings=(f"planner.samples={count}", *ALONE))
        for count in (1, 2, 4, 8)
    ]


def _steps() -> list[Row]:
    return [
        Row(name=f"full sequence, sampling steps: {count}", group="steps", settings=_schedule("full_sequence", count))
        for count in (1, 2, 3, 5, 10)
    ]


def _guidance() -> list[Row]:
    """Objectives beside the clamped goal, then the goal reached by its gradient."""
    beside = [
        Row(
            name=f"goal clamped, guided to {word}, scale {scale:g}",
            group="guidance",
            settings=(f"planner.{name}_scale={scale}", *ALONE),
        )
        for name, word in (("sooner", "arrive sooner"), ("smooth", "be smooth"))
        for scale in (0.1, 1.0)
    ]
    single = (*PYRAMID, "planner.samples=1")
    clamped = Row(name="goal clamped, 1 sample, pyramid to the end", group="guidance", settings=single)
    rows = [*beside, clamped, _guided("goal by selection alone", 0, 0.0), _guided("goal by guidance, MCG off", 0)]
    return rows + [_guided(f"goal by guidance, MCG N = {futures}", futures) for futures in (1, 4, 16)]


def _guided(name: str, futures: int, scale: float = GUIDANCE_SCALE) -> Row:
    guided = ("planner.goal_by=guidance", f"planner.futures={futures}", f"planner.guidance_scale={scale}")
    settings = (*PYRAMID, "planner.samples=1", "planner.rollout_steps=2", *guided)
    return Row(name=f"{name}, 1 sample", group="guidance", settings=settings)


def _alone_but(part: str) -> tuple[str, ...]:
    """`ALONE` without what it says of one part."""
    return tuple(setting for setting in ALONE if setting != f"planner.{part}=none")


def _improved() -> list[Row]:
    """What is done with samples before one becomes the plan, and how much of it."""
    no_refining, no_polish = "planner.refine=none", "planner.polish=none"
    settings: dict[str, tuple[str, ...]] = {
        "samples as they come": ALONE,
        "refined, not polished": (no_polish,),
        "polished, not refined": (no_refining,),
        "searched in place of both, 12 passes": (
            "planner.samples=4",
            "planner.search.budget=12",
            no_refining,
            no_polish,
        ),
        "refined in 20 rounds": ("planner.refine.rounds=20",),
        "polished in 64 rounds": ("planner.polish.rounds=64",),
        "the plan that is followed does not compete": ("planner.keep=false",),
    }
    return [
        Row(name=name, group="improved", settings=changes, needs_world="polish" in name)
        for name, changes in settings.items()
    ]


def _searches() -> list[Row]:
    """A search with one root a horizon, beside sampling that spends as many row-passes, three passes a sample, and
    beside refining one sample a horizon with the passes that are left."""
    rows = []
    for budget in BUDGETS:
        samples, passes = max(1, budget // 3), min(3, budget)
        ways: dict[str, tuple[str, ...]] = {
            "search": (*_alone_but("search"), "planner.samples=1", f"planner.search.budget={budget}"),
            "sampling": (*ALONE, f"planner.samples={samples}", f"planner.passes={passes}"),
        }
        if budget > passes:
            rounds = f"planner.refine.rounds={budget - passes}"
            ways["refining"] = (*_alone_but("refine"), "planner.samples=1", f"planner.passes={passes}", rounds)
        rows += [
            Row(name=f"{way}, {budget} passes", group="search", settings=settings, passes=budget)
            for way, settings in ways.items()
        ]
    return rows


def _rolling() -> list[Row]:
    """A plan made from noise each time, beside one that is kept up, as often."""
    rows = [
        Row(name=f"from noise {often}", group="rolling", settings=(f"planner.replan_steps={steps}",))
        for often, steps in OFTEN.items()
    ]
    for passes, word in ((1, "1 pass"), (2, "2 passes")):
        rows += [
            Row(
                name=f"kept up by {word} {often}",
                group="rolling",
                settings=(f"rolling.passes={passes}", f"planner.replan_steps={steps}"),
            )
            for often, steps in OFTEN.items()
        ]
    never = ("planner.replan_steps=100000",)
    return [*rows, Row(name="from noise once, and when the robot has strayed", group="rolling", settings=never)]


def _yardsticks() -> list[Row]:
    names = {"straight": "no planner: straight at the goal", "expert": "waypoint expert, knows the map"}
    return [Row(name=name, group="yardsticks", driver=driver) for driver, name in names.items()]


ROWS = (
    Row(name="as shipped", group="shipped"),
    *_improved(),
    *_trackers(),
    *_worlds(),
    *_schedules(),
    *_samples(),
    *_steps(),
    *_searches(),
    *_guidance(),
    *_rolling(),
    *_yardsticks(),
)
GROUPS = tuple(dict.fromkeys(row.group for row in ROWS))


def rows_of(groups: Sequence[str]) -> list[Row]:
    """The rows of these groups, all if none is named. Raises UnknownName."""
    for group in groups:
        if group not in GROUPS:
            raise UnknownName(f"unknown rows {group!r}; {did_you_mean(group, GROUPS)}")
    return [row for row in ROWS if not groups or row.group in groups]
