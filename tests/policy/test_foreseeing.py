"""What is usual of observations, measured on a recording of random walks by a planner that says: all stays as it is."""

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch
from torch import Tensor

from forcing.policy.foreseeing import FRAMES, NothingForeseen, measured, moments
from forcing.policy.memory import MemoryConfig, may_lack
from forcing.policy.planner import PlanRequest
from forcing.policy.policy import Policy
from forcing.policy.surprise import AFTER, Seen
from forcing.policy.types import Frames, Recalled, Trajectories
from forcing.policy.vision import fit_codec

if TYPE_CHECKING:
    from tests.policy.conftest import Arm

STEP = 0.05  # standard deviation of a walk's step, normalised
TOKEN = 3


@dataclass
class Staying:
    """A planner that foresees what it was shown last of each stream, 0 of one that it never was."""

    tokenizer: Any
    memory: MemoryConfig = field(default_factory=MemoryConfig)
    shown: list[tuple[Tensor, Tensor]] = field(default_factory=list)

    def foreseen(self, known: Tensor, levels: Tensor, generator: torch.Generator) -> Tensor:
        self.shown.append((known, levels))
        ahead = torch.zeros(len(known), self.tokenizer.layout.horizon, known.shape[2])
        for index, stream in enumerate(self.tokenizer.streams):
            told = torch.nonzero(levels[0, :, index] < 1)[:, 0]
            if len(told):
                ahead[..., self.tokenizer.slices[stream.name]] = known[
                    :, None, told[-1], self.tokenizer.slices[stream.name]
                ]
        return ahead


@pytest.fixture
def walks(arm: "Arm") -> Trajectories:
    """60 episodes of 60 steps."""
    rng, lengths = np.random.default_rng(0), np.full(60, 60)
    streams = {}
    for name, size in (("hand", 2), ("load", 1)):
        steps = STEP * rng.standard_normal((60, 61, size))
        steps[:, 0] = 0
        std, mean = np.array(arm.normaliser.std[name]), np.array(arm.normaliser.mean[name])
        streams[name] = (mean + std * steps.cumsum(axis=1)).reshape(-1, *arm.spec[name].shape)
    streams["action"] = rng.uniform(0.25, 0.5, (60 * 60, 2))
    return Trajectories(spec=arm.spec, streams=streams, lengths=lengths, provenance={})


def test_residuals_grow_with_steps_ahead_and_with_tokens_unheard_as_a_walk_does(
    arm: "Arm", walks: Trajectories
) -> None:
    usual = measured(Staying(arm.tokenizer), walks, {}, {})  # type: ignore[arg-type]
    ahead = np.arange(1, 7)
    for name in ("hand", "load"):
        for way in range(2):
            for after in range(3):  # 0, 1 and 2 tokens of the 4 that are remembered
                expected = STEP * np.sqrt(TOKEN * AFTER[after] + ahead)
                found = usual.streams[name].scale[way, after].mean(axis=1)
                np.testing.assert_allclose(found, expected, rtol=0.15)
    assert (usual.streams["hand"].freedom >= 8).all(), "steps of the walk are normal"


def test_of_a_walk_as_many_readings_are_surprising_as_ought_to_be(arm: "Arm", walks: Trajectories) -> None:
    usual = measured(Staying(arm.tokenizer), walks, {}, {}).streams["hand"]  # type: ignore[arg-type]
    rng = np.random.default_rng(5)
    drawn = STEP * np.sqrt(TOKEN) * rng.standard_normal((5000, 2))
    seen = Seen(residual=np.zeros(2), ahead=TOKEN, unheard=(0, 0), noise=0.0, misfit=None)
    found = np.array([usual.surprise(replace(seen, residual=residual)) for residual in drawn], dtype=np.float64)
    for decades in (1, 2):
        assert (found > decades).mean() == pytest.approx(10.0**-decades, rel=0.5)


def test_what_is_hidden_is_pure_noise_to_the_planner_and_nothing_else_is(arm: "Arm", walks: Trajectories) -> None:
    planner = Staying(arm.tokenizer)
    measured(planner, walks, {}, {})  # type: ignore[arg-type]
    patterns = {tuple(map(tuple, (levels[0] == 1).int().T.tolist())) for _, levels in planner.shown}
    nothing, last, two = (0, 0, 0, 0), (0, 0, 0, 1), (0, 0, 1, 1)
    actions = (1, 1, 1, 1)  # which are not shown
    assert (nothing, actions, nothing) in patterns
    for hidden in (last, two):
        assert {(hidden, actions, nothing), (nothing, actions, hidden), (hidden, actions, hidden)} <= patterns
    for known, levels in planner.shown:
        assert not known[(levels == 1)[..., arm.tokenizer.stream_of_feature]].any()


def test_actions_are_shown_where_the_policy_is_used_so(arm: "Arm", walks: Trajectories) -> None:
    planner = Staying(arm.tokenizer, MemoryConfig(show_actions=True))
    measured(planner, walks, {}, {})  # type: ignore[arg-type]
    where = arm.tokenizer.slices["action"]
    episodes = arm.normaliser.apply("action", walks.streams["action"]).reshape(60, 60, 2)
    known, levels = next(shown for shown in planner.shown if shown[0].shape[1] == 2)  # of the second token
    assert levels[0, :, 1].tolist() == [1.0, 0.0]
    starts = {tuple(np.round(first.reshape(-1), 4)) for first in episodes[:, :TOKEN]}
    assert {tuple(np.round(row.numpy(), 4)) for row in known[:, 1, where]} <= starts


def test_what_is_foreseen_is_what_is_planned(remembering: Policy, arm: "Arm") -> None:
    rng, planner = np.random.default_rng(3), remembering.history_planner
    assert planner is not None
    hand, load = 0.5 + 0.1 * rng.standard_normal((3, 2)), rng.uniform(0, 2, 3)
    recalled = Recalled(
        values={"hand": hand, "load": load},
        noise={"hand": np.zeros(3), "load": np.zeros(3)},
        actions=np.zeros((2, TOKEN, 2)),
    )
    request = PlanRequest(step=6, frames={}, noise={}, goal=None, seed=4, recalled=recalled)
    plan = remembering.plan(request)
    known, levels = planner.tokens_of(recalled)
    generator = torch.Generator().manual_seed(4 * 1_000_003 + 6)
    with torch.no_grad():
        ahead = planner.foreseen(known, levels, generator)
    assert ahead.shape == (1, 2, arm.tokenizer.width)
    decoded = arm.tokenizer.decode(ahead)
    for name in ("hand", "load"):
        np.testing.assert_allclose(plan.streams[name][TOKEN - 1 :: TOKEN], decoded[name][0], atol=1e-6)


def test_several_pasts_are_planned_behind_at_once_and_the_sample_in_the_middle_is_taken(
    remembering: Policy, arm: "Arm"
) -> None:
    several = remembering.using(planner=replace(remembering.preset.planner, samples=3)).history_planner
    assert several is not None
    known = torch.randn(2, 4, arm.tokenizer.width, generator=torch.Generator().manual_seed(0))
    levels = torch.zeros(2, 4, 3)
    with torch.no_grad():
        together = several.foreseen(known, levels, torch.Generator().manual_seed(1))
    assert together.shape == (2, 2, arm.tokenizer.width)
    assert not torch.allclose(together[0], together[1])


def test_a_camera_is_told_by_what_its_codec_loses(arm: "Arm", walks: Trajectories) -> None:
    rng = np.random.default_rng(0)
    frames: Frames = rng.integers(0, 20, (len(walks.streams["load"]), 8, 8, 1), dtype=np.uint8)
    codec = fit_codec(frames, latents=2)
    usual = measured(Staying(arm.tokenizer), walks, {"load": frames}, {"load": codec})  # type: ignore[arg-type]
    misfit = usual.streams["load"].misfit
    assert misfit is not None
    assert usual.streams["hand"].misfit is None
    recorded = codec.misfit(frames[:FRAMES])
    for share in (0.5, 0.05):
        assert misfit.rarity(float(np.quantile(recorded, 1 - share))) == pytest.approx(-np.log10(share), abs=0.1)
    assert misfit.rarity(float(codec.misfit(np.full((1, 8, 8, 1), 255, np.uint8))[0])) > 6


def test_a_policy_learns_to_go_without_cameras_or_without_anything_where_it_has_none(arm: "Arm") -> None:
    frames = np.random.default_rng(0).integers(0, 255, (50, 8, 8, 1), dtype=np.uint8)
    assert may_lack(arm.spec, {}) == ("hand", "load")
    assert may_lack(arm.spec, {"load": fit_codec(frames, latents=1)}) == ("load",)


def test_progress_ends_at_what_was_announced(arm: "Arm", walks: Trajectories) -> None:
    told: list[int] = []
    measured(Staying(arm.tokenizer), walks, {}, {}, report=told.append)  # type: ignore[arg-type]
    assert told == sorted(told)
    assert told[-1] == moments(walks.spec, {})


def test_the_same_seed_measures_the_same(remembering: Policy, walks: Trajectories) -> None:
    planner = remembering.history_planner
    assert planner is not None
    one, again, other = (measured(planner, walks, {}, {}, seed=seed).tensors() for seed in (0, 0, 1))
    assert all(torch.equal(one[name], again[name]) for name in one)
    assert any(not torch.equal(one[name], other[name]) for name in one)


def test_episodes_that_are_too_short_are_refused(arm: "Arm", walks: Trajectories) -> None:
    streams = {
        "hand": walks.streams["hand"][:6],
        "load": walks.streams["load"][:6],
        "action": walks.streams["action"][:5],
    }
    short = replace(walks, streams=streams, lengths=np.array([5]))
    with pytest.raises(NothingForeseen, match="no episode has the 6 steps of a plan"):
        measured(Staying(arm.tokenizer), short, {}, {})  # type: ignore[arg-type]
