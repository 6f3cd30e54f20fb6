"""What an error of a policy that remembers costs, by hand; and that such a policy learns from whole episodes."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from forcing.datasets.windows import TrajectoryWindows
from forcing.policy.histories import Episodes, Histories
from forcing.policy.memory import MemoryConfig, RecallMix, Streams
from forcing.policy.memory_training import recall_loss, streams_of
from forcing.policy.preset import OptimiserConfig, Preset
from forcing.policy.tokens import Normaliser, Tokenizer
from forcing.policy.training import Budget, Trainer
from forcing.policy.types import Trajectories, TrajectorySpec

ALONE = {"recalled": 0.0, "independent": 0.0, "shared": 0.0, "pyramid": 0.0, "next_token": 0.0, "cloned": 0.0}
CPU = torch.device("cpu")


class Off(nn.Module):
    """Guesses what is there, off by so much in every feature."""

    def __init__(self, clean: Tensor, error: Tensor) -> None:
        super().__init__()
        self.clean, self.error = clean, error

    def forward(self, x: Tensor, levels: Tensor, lengths: Tensor) -> Tensor:
        return self.clean + self.error


def _loss(arm: Any, error: Tensor, *, lengths: Tensor, share: float = 0.5, **mix: float) -> float:
    """Of 64 sequences of three tokens: [hand 2, actions 6, load 1]."""
    memory = MemoryConfig(mix=RecallMix(**{**ALONE, **mix}), observation_share=share)
    preset: Preset = replace(arm.preset, memory=memory)
    clean = torch.randn(64, 3, 9, generator=torch.Generator().manual_seed(1))
    histories = Histories(clean, lengths)
    streams = streams_of(arm.tokenizer, frozenset())
    generator = torch.Generator().manual_seed(0)
    return float(recall_loss(Off(clean, error), preset, arm.tokenizer, streams, histories, generator, CPU))


def test_errors_of_actions_count_1_and_those_of_all_observations_together_their_share(arm: Any) -> None:
    """One token is guessed from pure noise, where an error's weight is 1: the mean square of six action entries, and
    half that of three observed ones."""
    error = torch.tensor([1.0, 2.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 3.0])
    expected = np.square([0.1, 0.2, 0.3, 0.4, 0.5, 0.6]).mean() + 0.5 * np.square([1.0, 2.0, 3.0]).mean()
    whole = torch.full((64,), 3)
    assert _loss(arm, error, lengths=whole, cloned=1.0) == pytest.approx(expected, rel=1e-5)
    assert _loss(arm, error, lengths=whole, cloned=1.0, share=0.0) == pytest.approx(0.91 / 6, rel=1e-5)


def test_tokens_behind_the_end_of_an_episode_do_not_count(arm: Any) -> None:
    """Of sequences of two tokens, those in which the third would be guessed cost nothing."""
    error = torch.zeros(3, 9)
    error[2] = 100.0
    assert _loss(arm, error, lengths=torch.full((64,), 2), cloned=1.0) == 0.0
    assert _loss(arm, error, lengths=torch.full((64,), 3), cloned=1.0) > 1.0
    assert _loss(arm, torch.ones(9), lengths=torch.full((64,), 1), cloned=1.0) == 0.0


def test_actions_before_the_first_observation_do_not_count(arm: Any) -> None:
    error = torch.zeros(3, 9)
    error[0, 2:8] = 100.0
    assert _loss(arm, error, lengths=torch.full((64,), 3), independent=1.0) == 0.0
    error[0, 0] = 1.0
    assert _loss(arm, error, lengths=torch.full((64,), 3), independent=1.0) > 0.0


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

    def build(**fields: Any) -> Trainer:
        preset = replace(arm.preset, optimiser=optimiser, **fields)
        return Trainer(preset, Episodes(recorded), Normaliser.fit(recorded))

    return build


@pytest.mark.parametrize("kind", ["transformer", "recurrent"])
def test_where_the_arm_is_told_to_stay_is_soon_learned_from_where_it_is(
    new_trainer: Callable[..., Trainer], arm: Any, kind: str
) -> None:
    """The action of the second token, from the first observation alone, and that again if it is missing later."""
    trainer = new_trainer(denoiser=replace(arm.preset.denoiser, kind=kind))
    budget = Budget(steps=60)
    losses = [trainer.advance(budget) for _ in range(60)]
    assert np.mean(losses[-10:]) < 0.5 * np.mean(losses[:10])
    tokenizer: Tokenizer = trainer.tokenizer
    clean = trainer._histories.draw(np.random.default_rng(5), 32).tokens[:, :3]
    levels = torch.zeros(32, 3, 3)
    levels[:, :, 1] = 1.0  # no actions
    levels[:, 1:] = 1.0  # nothing after the first observation
    with torch.no_grad():
        guess = trainer.denoiser(clean, levels, torch.full((32,), 3))
    actions = tokenizer.slices["action"]
    for token in (1, 2):
        error = (guess - clean)[:, token, actions].square().mean()
        assert float(error) < 0.35 * float(clean[:, token, actions].square().mean())


def test_a_batch_has_as_many_sequences_as_fit_its_tokens(new_trainer: Callable[..., Trainer]) -> None:
    """15 steps are 6 tokens, and 8 more are held; but 6 are the most. 128 tokens are 21 of those."""
    trainer = new_trainer()
    trainer.advance(Budget(steps=2))
    assert trainer.windows_seen == 21


def test_what_remembers_learns_from_episodes_and_from_nothing_else(arm: Any) -> None:
    recorded = _still(arm.spec)
    with pytest.raises(ValueError, match="preset 'arm' remembers, and learns from whole episodes, not from windows"):
        Trainer(arm.preset, TrajectoryWindows(recorded), Normaliser.fit(recorded))
