"""What an error of a policy that remembers costs, by hand; and that such a policy learns from whole episodes."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal, cast

import numpy as np
import pytest
import torch
from torch import Tensor

from forcing.datasets.windows import TrajectoryWindows
from forcing.policy.causal import CausalDenoiser
from forcing.policy.histories import Episodes, Histories
from forcing.policy.memory import MemoryConfig, RecallMix, Streams
from forcing.policy.memory_training import recall_loss, streams_of
from forcing.policy.preset import OptimiserConfig, Preset
from forcing.policy.tokens import Normaliser
from forcing.policy.training import Budget, Interrupted, Trainer, train
from forcing.policy.types import Trajectories, TrajectorySpec

CPU = torch.device("cpu")
# Of 64 sequences of three tokens: hand 2, actions 6, load 1.
ERROR = torch.tensor([1.0, 2.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 3.0])
ACTIONS, OBSERVED = float(np.square([0.1, 0.2, 0.3, 0.4, 0.5, 0.6]).mean()), float(np.square([1.0, 2.0, 3.0]).mean())
# All that is guessed is pure noise, where an error's weight is 1.
NOISE = RecallMix(behind=1.0, pure=1.0, led=0.0, lost=0.0)


class Off:
    """Guesses what is there, off by so much in every feature; writes down what it was shown."""

    def __init__(self, clean: Tensor, error: Tensor) -> None:
        self.clean, self.error, self.shown = clean, error, list[tuple[Tensor, ...]]()

    def __call__(self, x: Tensor, levels: Tensor) -> Tensor:
        self.shown.append((x, levels))
        return self.clean + self.error

    def behind(self, known: Tensor, known_levels: Tensor, x: Tensor, levels: Tensor) -> Tensor:
        self.shown.append((known, known_levels, x, levels))
        return self.clean + self.error


def _loss(
    arm: Any, error: Tensor, mix: RecallMix, *, length: int = 3, share: float = 0.5, seed: int = 0, alike: bool = False
) -> tuple[float, Off]:
    memory = MemoryConfig(mix=mix, observation_share=share, streams_alike=alike)
    preset: Preset = replace(arm.preset, memory=memory)
    clean = torch.randn(64, 3, 9, generator=torch.Generator().manual_seed(1))
    histories, network = Histories(clean, torch.full((64,), length)), Off(clean, error)
    streams, generator = streams_of(arm.tokenizer, frozenset()), torch.Generator().manual_seed(seed)
    denoiser = cast(CausalDenoiser, network)
    return float(recall_loss(denoiser, preset, arm.tokenizer, streams, histories, generator, CPU)), network


@pytest.mark.parametrize("share", [0.0, 0.5, 2.0])
def test_errors_of_actions_count_1_and_those_of_all_observations_together_their_share(arm: Any, share: float) -> None:
    """A mean over tokens of the mean squares; the first has no actions."""
    expected = (share * OBSERVED + 2 * (ACTIONS + share * OBSERVED)) / 3
    assert _loss(arm, ERROR, NOISE, share=share)[0] == pytest.approx(expected, rel=1e-5)


def test_streams_of_more_numbers_count_no_more_where_all_are_alike(arm: Any) -> None:
    """Of the arm's observations one has two numbers, the other one."""
    squares = {
        stream.name: ERROR[arm.tokenizer.slices[stream.name]].square().mean() for stream in arm.tokenizer.streams
    }
    observed = float((squares["hand"] + squares["load"]) / 2)
    assert observed != pytest.approx(OBSERVED, rel=0.05)
    expected = (0.5 * observed + 2 * (ACTIONS + 0.5 * observed)) / 3
    assert _loss(arm, ERROR, NOISE, alike=True)[0] == pytest.approx(expected, rel=1e-5)


def test_tokens_behind_the_end_of_an_episode_do_not_count(arm: Any) -> None:
    error = ERROR.repeat(3, 1)
    error[2] = 100.0
    expected = (0.5 * OBSERVED + ACTIONS + 0.5 * OBSERVED) / 2
    assert _loss(arm, error, NOISE, length=2)[0] == pytest.approx(expected, rel=1e-5)
    assert _loss(arm, error, NOISE)[0] > 100


def test_actions_that_are_known_are_not_guessed(arm: Any) -> None:
    assert _loss(arm, ERROR, replace(NOISE, led=1.0))[0] == pytest.approx(0.5 * OBSERVED, rel=1e-5)


def test_errors_count_by_their_level_as_the_recipe_says(arm: Any) -> None:
    """Of sequences of one shared level each, the weight is min(1 + signal to noise, 5)."""
    loss, network = _loss(arm, ERROR, RecallMix(behind=0.0, independent=0.0, shared=1.0, pyramid=0.0))
    ((_, levels),) = network.shown
    share = arm.preset.noise.alpha_bar(levels[:, 1, 0].double()).numpy()
    weight = np.minimum(1 + share / (1 - share), 5)
    expected = weight.mean() * (0.5 * OBSERVED + 2 * (ACTIONS + 0.5 * OBSERVED)) / 3
    assert loss == pytest.approx(expected, rel=1e-4)


def test_past_and_guess_are_noised_apart_each_to_its_level(arm: Any) -> None:
    _, network = _loss(arm, ERROR, RecallMix(behind=1.0, slightly=0.5, lost=0.0))
    ((known, known_levels, ahead, levels),) = network.shown
    noises = []
    for tokens, their_levels in ((known, known_levels), (ahead, levels)):
        share = arm.preset.noise.alpha_bar(their_levels)[..., arm.tokenizer.stream_of_feature]
        torch.testing.assert_close(tokens[share == 1], network.clean[share == 1])
        noise = torch.where(share < 1, (tokens - share.sqrt() * network.clean) / (1 - share).sqrt(), torch.nan)
        some = noise[noise.isfinite()]
        assert float(some.mean()) == pytest.approx(0, abs=0.15)
        assert float(some.std()) == pytest.approx(1, abs=0.15)
        noises.append(noise)
    both = (noises[0] * noises[1]).flatten()
    assert float(both[both.isfinite()].mean()) == pytest.approx(0, abs=0.15)


def test_that_share_of_batches_is_guessed_behind_a_past(arm: Any) -> None:
    kinds = [len(_loss(arm, ERROR, RecallMix(behind=0.25), seed=seed)[1].shown[0]) for seed in range(200)]
    assert kinds.count(4) == pytest.approx(50, abs=25)
    assert set(kinds) == {2, 4}


def test_streams_are_actions_cameras_or_neither(arm: Any) -> None:
    assert streams_of(arm.tokenizer, frozenset({"load"})) == Streams(
        actions=(False, True, False), cameras=(False, False, True)
    )


def _still(spec: TrajectorySpec, episodes: int = 20, steps: int = 15) -> Trajectories:
    """An arm that stays, and is told to, wherever it is."""
    rng = np.random.default_rng(0)
    places = rng.uniform([0.25, -0.5], [0.75, 0.5], (episodes, 2))
    streams = {
        "hand": np.repeat(places, steps + 1, axis=0),
        "action": np.repeat(places, steps, axis=0),
        "load": np.zeros(episodes * (steps + 1)),
    }
    return Trajectories(spec=spec, streams=streams, lengths=np.full(episodes, steps))


@pytest.fixture
def new_trainer(arm: Any) -> Callable[..., Trainer]:
    recorded = _still(arm.spec)
    optimiser = OptimiserConfig(batch_tokens=128, warmup_steps=5, learning_rate=1e-2, ema=0.9)

    def build(*, precision: Literal["float32", "bfloat16"] = "float32", **fields: Any) -> Trainer:
        preset = replace(arm.preset, optimiser=replace(optimiser, precision=precision), **fields)
        return Trainer(preset, Episodes(recorded), Normaliser.fit(recorded))

    return build


@pytest.mark.parametrize("kind", ["transformer", "recurrent"])
def test_either_network_learns_where_to_stay(new_trainer: Callable[..., Trainer], arm: Any, kind: str) -> None:
    trainer = new_trainer(denoiser=replace(arm.preset.denoiser, kind=kind))
    losses = [trainer.advance(Budget(steps=50)) for _ in range(50)]
    assert np.mean(losses[-10:]) < 0.7 * np.mean(losses[:10])


def test_a_batch_has_as_many_sequences_as_fit_its_tokens(new_trainer: Callable[..., Trainer]) -> None:
    """15 steps are 6 tokens, and 8 more are held; but 6 are the most, which pass twice. 128 tokens are 10 of those."""
    trainer = new_trainer()
    trainer.advance(Budget(steps=2))
    assert trainer.windows_seen == 10


def test_what_remembers_learns_from_episodes_and_from_nothing_else(arm: Any) -> None:
    recorded = _still(arm.spec)
    with pytest.raises(ValueError, match="preset 'arm' remembers, and learns from whole episodes, not from windows"):
        Trainer(arm.preset, TrajectoryWindows(recorded), Normaliser.fit(recorded))


@pytest.mark.parametrize("kind", ["transformer", "recurrent"])
@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_what_is_dropped_out_follows_from_the_seed_and_a_run_that_is_gone_on_with_ends_at_the_same_weights(
    new_trainer: Callable[..., Trainer], arm: Any, tmp_path: Path, kind: str, precision: Literal["float32", "bfloat16"]
) -> None:
    def fresh(dropout: float = 0.3) -> Trainer:
        return new_trainer(denoiser=replace(arm.preset.denoiser, kind=kind, dropout=dropout), precision=precision)

    stopped, resumed, whole, none = fresh(), fresh(), fresh(), fresh(0.0)
    before = torch.get_rng_state()
    with pytest.raises(Interrupted):
        train(stopped, Budget(steps=12), tmp_path, {}, stop=lambda: stopped.step == 5)
    train(resumed, Budget(steps=12), tmp_path, {}, resume=True)
    train(whole, Budget(steps=12), tmp_path / "whole", {})
    train(none, Budget(steps=12), tmp_path / "none", {})
    assert torch.equal(torch.get_rng_state(), before)
    assert all(torch.equal(value, whole.ema[name]) for name, value in resumed.ema.items())
    assert not torch.equal(none.ema["embed.weight"], whole.ema["embed.weight"])


def test_products_in_bfloat16_are_another_rounding_of_the_same_loss(new_trainer: Callable[..., Trainer]) -> None:
    rounded, exact = (
        new_trainer(precision=precision).advance(Budget(steps=1)) for precision in ("bfloat16", "float32")
    )
    assert rounded != exact
    assert rounded == pytest.approx(exact, rel=0.02)
