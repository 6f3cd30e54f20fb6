"""What a policy that remembers foresees of its own recording, beside what came: how far off it usually is.

For each recorded token the network is shown what came before, as a controller would, and plans. Streams are hidden for
the last tokens besides, one alone or all that a policy learns to go without, as where a camera is covered: then less is
foreseen. Knows no file.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from forcing.policy.cameras import Codecs
from forcing.policy.histories import rows_of
from forcing.policy.history_planner import HistoryPlanner, between
from forcing.policy.memory import may_lack
from forcing.policy.surprise import AFTER, Residuals, Surprise, residuals_of
from forcing.policy.types import Frames, Trajectories, TrajectorySpec
from forcing.policy.vision import sampled

HEARD, HIDDEN = 6000, 512  # moments that are planned from, with everything heard, and with each thing that is hidden
PLACES = 16  # in episodes, of moments with something hidden: many that are alike are planned from at once
FRAMES = 4096  # whose misfit is taken
TOGETHER = 128  # moments at a time

Floats = NDArray[np.float64]


class NothingForeseen(ValueError):
    """No episode is as long as a plan."""


@dataclass(frozen=True, slots=True)
class Hidden:
    """streams: names of those that are not heard, for so many tokens."""

    streams: frozenset[str]
    tokens: int


def moments(spec: TrajectorySpec, cameras: Codecs) -> int:
    """How many are planned from to measure what is usual."""
    return HEARD + HIDDEN * len(_wanted(spec, cameras))


def _wanted(spec: TrajectorySpec, cameras: Codecs) -> list[Hidden]:
    """What is hidden, one after another, in an order that is always the same."""
    each = [(stream.name,) for stream in spec.of_role("observation")]
    which = list(dict.fromkeys([*map(frozenset, each), frozenset(may_lack(spec, cameras))]))
    return [Hidden(streams, tokens) for streams in which for tokens in AFTER[1:]]


def measured(
    planner: HistoryPlanner,
    trajectories: Trajectories,
    frames: Mapping[str, Frames],
    cameras: Codecs,
    *,
    seed: int = 0,
    report: Callable[[int], None] = lambda done: None,
) -> Surprise:
    """What is usual of each observation stream.

    trajectories: the recording in numbers. frames: of its cameras. report: called with the moments done so far, of
    `moments`. Raises NothingForeseen if no episode is long enough, ValueError if a camera's codec does not tell what it
    loses.
    """
    names = [stream.name for stream in trajectories.spec.of_role("observation")]
    lacked = frozenset(may_lack(trajectories.spec, cameras))
    drawn, nothing, done = _Moments(planner, trajectories), Hidden(frozenset(), 0), 0
    some = drawn.some(HIDDEN, np.random.default_rng(seed))  # the same whatever is hidden
    found = dict[Hidden, dict[str, Floats]]()
    for hidden in (nothing, *_wanted(trajectories.spec, cameras)):
        rng = np.random.default_rng((seed, len(found)))
        chosen = some if hidden.tokens else drawn.any(HEARD, rng)
        found[hidden] = drawn.residuals(chosen, hidden, rng)
        report(done := done + (HIDDEN if hidden.tokens else HEARD))
    streams, rng = dict[str, Residuals](), np.random.default_rng((seed, len(found)))
    for name in names:
        groups = [
            [found[nothing][name], *(found[Hidden(which, tokens)][name] for tokens in AFTER[1:])]
            for which in (frozenset({name}), lacked)
        ]
        misfits = None
        if name in cameras:
            misfits = sampled(frames[name], FRAMES, rng, cameras[name].misfit).astype(np.float64)
        streams[name] = residuals_of(groups, misfits)
    return Surprise(streams=streams)


class _Moments:
    """Moments of a recording at which a policy plans, with what came after."""

    def __init__(self, planner: HistoryPlanner, trajectories: Trajectories) -> None:
        self._planner, tokenizer = planner, planner.tokenizer
        self._token, self._ahead = tokenizer.layout.token_steps, tokenizer.layout.horizon * tokenizer.layout.token_steps
        self._recorded = rows_of(trajectories, tokenizer)
        # From whose tokens on all that is planned was recorded.
        counts = np.maximum(0, (trajectories.lengths - self._ahead) // self._token + 1)
        if not counts.any():
            raise NothingForeseen(f"no episode has the {self._ahead} steps of a plan; use longer recordings")
        self._episodes = np.repeat(np.arange(len(counts)), counts)
        self._number = np.concatenate([np.arange(count) for count in counts])

    def any(self, many: int, rng: np.random.Generator) -> NDArray[np.int64]:
        """Indices of `many` moments, or of all there are."""
        return rng.permutation(len(self._episodes))[:many]

    def some(self, many: int, rng: np.random.Generator) -> NDArray[np.int64]:
        """The same, of few places: the numbers of tokens in their episodes."""
        places = np.unique(self._number[self.any(PLACES, rng)])
        alike = np.flatnonzero(np.isin(self._number, places))
        return rng.permutation(alike)[:many]

    def residuals(self, chosen: NDArray[np.int64], hidden: Hidden, rng: np.random.Generator) -> dict[str, Floats]:
        """Observation stream -> [m, J, size] at these moments. A stream that is hidden for longer than there is a past
        was never heard."""
        streams = self._planner.tokenizer.spec.of_role("observation")
        parts: dict[str, list[Floats]] = {stream.name: [] for stream in streams}
        generator = torch.Generator().manual_seed(int(rng.integers(2**62)))
        for episodes, number in self._alike(chosen):
            for name, off in self._off(episodes, number, hidden, generator).items():
                parts[name].append(off)
        return {name: np.concatenate(each) for name, each in parts.items()}

    def _alike(self, chosen: NDArray[np.int64]) -> Iterator[tuple[NDArray[np.int64], int]]:
        """Episodes with the number of one token in each."""
        for number in np.unique(self._number[chosen]):
            episodes = self._episodes[chosen][self._number[chosen] == number]
            for start in range(0, len(episodes), TOGETHER):
                yield episodes[start : start + TOGETHER], int(number)

    @torch.no_grad()
    def _off(
        self, episodes: NDArray[np.int64], number: int, hidden: Hidden, generator: torch.Generator
    ) -> dict[str, Floats]:
        planner, tokenizer = self._planner, self._planner.tokenizer
        past = np.arange(max(0, number + 1 - tokenizer.layout.history), number + 1) * self._token  # steps
        shown = np.arange(len(past)) < len(past) - hidden.tokens
        tokens = torch.zeros(len(episodes), len(past), tokenizer.width)
        levels = torch.ones(len(episodes), len(past), len(tokenizer.streams))
        for index, stream in enumerate(tokenizer.streams):
            where, first = tokenizer.slices[stream.name], self._recorded.starts[stream.name][episodes][:, None]
            if stream.role == "action":
                if planner.memory.show_actions and len(past) > 1:
                    rows = first + np.arange(past[0], past[-1])
                    tokens[:, 1:, where] = self._rows(stream.name, rows).reshape(len(episodes), len(past) - 1, -1)
                    levels[:, 1:, index] = planner.memory.recall_level
                continue
            known = torch.from_numpy(shown if stream.name in hidden.streams else np.ones(len(past), np.bool_))
            tokens[:, known, where] = self._rows(stream.name, first + past)[:, known]
            levels[:, known, index] = planner.memory.recall_level
        ahead = planner.foreseen(tokens, levels, generator).numpy().astype(np.float64)
        result = {}
        for stream in tokenizer.spec.of_role("observation"):
            first = self._recorded.starts[stream.name][episodes][:, None] + past[-1]
            start = self._rows(stream.name, first)[:, 0].numpy().astype(np.float64)
            if stream.name in hidden.streams:
                start = np.full_like(start, np.nan)
            foreseen = between(start, ahead[..., tokenizer.slices[stream.name]], self._token)
            came = self._rows(stream.name, first + np.arange(1, self._ahead + 1)).numpy()
            result[stream.name] = came - foreseen
        return result

    def _rows(self, name: str, rows: NDArray[np.int64]) -> torch.Tensor:
        return torch.from_numpy(self._recorded.values[name][rows])
