"""A recipe for a recording that nobody has tuned for, inferred from its rate, its streams and its episodes' lengths.

Says why each setting was chosen. Knows no file and no network; what it chooses is a start, and `--set` changes it.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from forcing.policy.preset import PRESETS, Preset
from forcing.policy.tokens import TokenLayout
from forcing.policy.types import TrajectorySpec
from forcing.policy.vision import LATENTS

INFERRED = "generic"  # the preset that stands for what is inferred
SHORTEST_TOKEN_S, LONGEST_TOKEN_S = 0.1, 0.4
FUTURE_S = 2.0  # that a plan looks ahead: two seconds are what policies that play chunks of actions are trained on
FEWEST_TOKENS = 4  # of a plan: a pyramid of fewer has no steps
MOST_TO_GOAL = 16  # tokens of a plan that leads to a goal
FRAMES = 8  # of each stream in a token at the most
FITTING = 0.9  # share of episodes that are as long as the longest plan
REPLAN_S = 0.25
WINDOWS = 64  # of the longest kind in a batch
LEAST_BATCH, LARGEST_BATCH = 512, 1024  # tokens
# Numbers in a token up to which a width does.
WIDTHS = ((256, 96), (1024, 128), (np.inf, 192))


@dataclass(frozen=True, slots=True)
class Choice:
    """A setting, as `--set` names it, its value, and why."""

    key: str
    value: int
    why: str


def inferred(spec: TrajectorySpec, lengths: NDArray[np.int64]) -> tuple[Preset, list[Choice]]:
    """The recipe, and every choice in it.

    spec: of the recording, cameras as frames. lengths: [E] control steps of its episodes.
    """
    hz, reach = spec.control_hz, int(np.quantile(lengths, 1 - FITTING, method="lower"))
    token = _token_steps(hz, reach)
    stride = max(1, token // FRAMES)
    horizon, because = _horizon(spec, lengths, token)
    late = float((lengths < horizon * token).mean())
    fit = f"; {late:.0%} of the episodes are shorter" if late else "; no episode is shorter"
    sizes = [LATENTS if stream.image else stream.size for stream in spec.streams if stream.role != "reward"]
    numbers = token // stride * sum(sizes)
    width = next(width for most, width in WIDTHS if numbers <= most)
    batch = int(np.clip(WINDOWS * (horizon + 2), LEAST_BATCH, LARGEST_BATCH))
    moving = any(stream.rate_of is not None for stream in spec.streams)
    shown = 1 if moving or token // stride == 1 else 2
    replan = min(max(1, round(REPLAN_S * hz)), horizon * token)
    generic = PRESETS[INFERRED]
    preset = replace(
        generic,
        layout=TokenLayout(token_steps=token, stride=stride, history=1, horizon=horizon),
        denoiser=replace(generic.denoiser, width=width),
        optimiser=replace(generic.optimiser, batch_tokens=batch),
        planner=replace(generic.planner, replan_steps=replan, history_frames=shown),
    )
    frames = f"{token // stride} frame{'s' if token > stride else ''} of each stream a token, {_s(stride / hz)} apart"
    return preset, [
        Choice("layout.token_steps", token, f"{_s(token / hz)} a token at {hz:g} Hz{_unused(lengths, token)}"),
        Choice("layout.stride", stride, frames),
        Choice("layout.history", 1, "of the past a plan is shown a token at the most"),
        Choice("layout.horizon", horizon, f"{_s(horizon * token / hz)} ahead, {because}{fit}"),
        Choice("denoiser.width", width, f"{numbers} numbers a token"),
        Choice("optimiser.batch_tokens", batch, f"{batch // (horizon + 2)} windows of the longest kind"),
        Choice("planner.history_frames", shown, _why_shown(moving, shown)),
        Choice("planner.replan_steps", replan, f"a new plan every {_s(replan / hz)}"),
    ]


def told(choices: Sequence[Choice], settings: Sequence[str]) -> list[str]:
    """A line for each choice; one that a setting KEY=VALUE takes the place of says so."""
    given = {key: value for key, _, value in (setting.partition("=") for setting in settings)}
    return [
        f"{choice.key} = {given[choice.key]}, as --set says (inferred: {choice.value})"
        if choice.key in given
        else f"{choice.key} = {choice.value}: {choice.why}"
        for choice in choices
    ]


def _token_steps(hz: float, reach: int) -> int:
    """A power of two: as long as tokens may be, shorter where episodes would have fewer than `FEWEST_TOKENS`."""
    token = 1
    while 2 * token <= LONGEST_TOKEN_S * hz * (1 + 1e-9):
        token *= 2
    while token > 1 and FEWEST_TOKENS * token > reach and token / 2 >= SHORTEST_TOKEN_S * hz * (1 - 1e-9):
        token //= 2
    while token > reach > 0:
        token //= 2
    return token


def _horizon(spec: TrajectorySpec, lengths: NDArray[np.int64], token: int) -> tuple[int, str]:
    """Tokens of the longest plan, and why so many."""
    reach = int(np.quantile(lengths, 1 - FITTING, method="lower"))
    fitting = max(1, reach // token)
    wanted, why = max(1, round(FUTURE_S * spec.control_hz / token)), f"of about {_s(FUTURE_S)} wanted"
    if spec.goal is not None:
        wanted, why = MOST_TO_GOAL, f"as plans lead to a goal in {spec.goal!r}, of {MOST_TO_GOAL} tokens at most"
    if fitting < wanted:
        return fitting, "as far as nine episodes in ten go"
    return wanted, why


def _unused(lengths: NDArray[np.int64], token: int) -> str:
    share = float((lengths < token).mean())
    return f"; {share:.0%} of the episodes are shorter than that and not trained on" if share else ""


def _why_shown(moving: bool, shown: int) -> str:
    if moving:
        return "rates are recorded, so that one frame tells what moves"
    return "no rates are recorded: what moves shows between two frames" if shown > 1 else "a token has one frame"


def _s(seconds: float) -> str:
    return f"{seconds:.3g} s"
