"""Training: formulas by hand, budgets by a clock of our own, and runs that are killed, stopped and resumed."""

import itertools
import json
import re
import signal
import subprocess
import sys
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from forcing.datasets.windows import TrajectoryWindows
from forcing.policy import training
from forcing.policy.checkpoint import (
    CheckpointError,
    TrainingState,
    load_policy_file,
    load_training_state,
    save_training_state,
)
from forcing.policy.histories import Episodes
from forcing.policy.levels import LevelMix, draw_levels
from forcing.policy.policy import load_policy
from forcing.policy.preset import OptimiserConfig, Preset
from forcing.policy.resuming import snapshot
from forcing.policy.tokens import Normaliser
from forcing.policy.training import Budget, Interrupted, Progress, Trainer, train, training_loss
from forcing.policy.types import Trajectories, WindowBatch, WindowSource

NewTrainer = Callable[..., Trainer]


def _trainer(preset: Preset, lines: Trajectories, seed: int = 1) -> Trainer:
    return Trainer(preset, TrajectoryWindows(lines), Normaliser.fit(lines), seed=seed)


@pytest.fixture
def new_trainer(preset: Preset, lines: Trajectories) -> NewTrainer:
    """(seed=1, levels=None, **optimiser options) -> a trainer of the toy preset on straight lines."""

    def build(*, seed: int = 1, levels: LevelMix | None = None, **options: Any) -> Trainer:
        optimiser = replace(preset.optimiser, **options)
        return _trainer(replace(preset, optimiser=optimiser, levels=levels or preset.levels), lines, seed)

    return build


def _assert_same_state(first: Trainer, second: Trainer) -> None:
    one, other = (snapshot(trainer, Budget(steps=1)) for trainer in (first, second))
    assert set(one.tensors) == set(other.tensors)
    for name, value in one.tensors.items():
        assert torch.equal(value, other.tensors[name]), name
    assert {**one.facts, "elapsed_s": 0} == {**other.facts, "elapsed_s": 0}


@pytest.fixture(scope="module")
def trained(preset: Preset, lines: Trajectories, tmp_path_factory: pytest.TempPathFactory) -> Trainer:
    """A run of a second or two, its averaged weights in place."""
    trainer = _trainer(preset, lines)
    path = train(trainer, Budget(steps=400), tmp_path_factory.mktemp("trained"), {})
    trainer.denoiser.load_state_dict(dict(load_policy_file(path).weights))
    return trainer


def _windows(trainer: Trainer) -> WindowSource:
    assert not isinstance(trainer.windows, Episodes)
    return trainer.windows


def _clean(trainer: Trainer, horizon: int) -> Tensor:
    windows = _windows(trainer).sample(np.random.default_rng(5), 300, 8, 8 * horizon)
    return trainer.tokenizer.encode(windows, windows.past_valid)


@pytest.mark.parametrize("horizon", [1, 2, 3])
def test_lines_are_learned_far_better_than_the_best_constant_guess(trained: Trainer, horizon: int) -> None:
    clean = _clean(trained, horizon)
    with torch.no_grad():
        loss = float(training_loss(trained, clean, torch.Generator().manual_seed(5)))
    # No weight is below 1: no constant guess has a smaller loss than the variance of what is to be guessed. Hidden
    # goals and starts keep the best of guesses from 0.
    assert loss < 0.4 * float(clean[:, :-1].var(dim=0).mean())


def test_given_start_and_goal_the_line_between_them_is_drawn(trained: Trainer) -> None:
    clean = _clean(trained, 3)
    levels = torch.ones(300, 5, 3)
    levels[:, 0, :2] = levels[:, -1, 0] = 0
    shown = trained.tokenizer.per_feature(levels) == 0
    noise = torch.randn(clean.shape, generator=torch.Generator().manual_seed(7))
    with torch.no_grad():
        x0_hat = trained.denoiser(torch.where(shown, clean, noise), levels, torch.full((300,), 5))
    place = trained.tokenizer.slices["position"]
    error = (x0_hat - clean)[:, 1:-1, place].square().mean()
    # To stay where one is would be this wrong.
    still = (clean[:, :1, place][..., -2:].repeat(1, 3, 2) - clean[:, 1:-1, place]).square().mean()
    assert float(error) < 0.3 * float(still)


def test_the_loss_is_the_weighted_error_of_noisy_features_that_have_a_target(new_trainer: NewTrainer) -> None:
    trainer = new_trainer(snr_cap=3.0)
    windows = _windows(trainer).sample(np.random.default_rng(0), 6, 8, 16)
    clean = trainer.tokenizer.encode(windows, windows.past_valid)
    guess = torch.linspace(-1, 1, clean.numel()).view(clean.shape)
    trainer.denoiser = _Guess(guess)
    loss = float(training_loss(trainer, clean, torch.Generator().manual_seed(2)))

    levels = draw_levels(trainer.preset.levels, trainer.shape, 6, 2, torch.Generator().manual_seed(2))
    errors = []
    for b, token, feature in np.ndindex(*clean.shape):
        stream = feature // 4  # two frames of two numbers each
        level = float(levels[b, token, stream])
        if level == 0 or (token == 3 and stream != 0):
            continue
        alpha_bar = np.exp(-(0.1 * level + 0.5 * (20.0 - 0.1) * level**2)) if level < 1 else 0.0
        weight = min(1 + alpha_bar / (1 - alpha_bar), 3.0)
        errors.append(weight * (float(guess[b, token, feature]) - float(clean[b, token, feature])) ** 2)
    assert 0 < len(errors) < clean.numel()
    assert loss == pytest.approx(np.sum(errors) / len(errors), rel=1e-5)


class _Guess(torch.nn.Module):
    """Answers the same whatever it is shown."""

    def __init__(self, guess: Tensor) -> None:
        super().__init__()
        self.guess = guess

    def forward(self, x: Tensor, levels: Tensor, lengths: Tensor) -> Tensor:
        return self.guess


def test_what_the_network_is_shown_is_the_clean_token_where_its_level_is_zero(new_trainer: NewTrainer) -> None:
    seen: list[Tensor] = []
    trainer = new_trainer(levels=LevelMix(history_clean=1.0, history_actions=1.0, goal_clean=1.0, goal_masked=0.0))
    windows = _windows(trainer).sample(np.random.default_rng(0), 4, 8, 8)
    clean = trainer.tokenizer.encode(windows, windows.past_valid)
    trainer.denoiser.register_forward_pre_hook(lambda _, arguments: seen.append(arguments[0]))
    training_loss(trainer, clean, torch.Generator().manual_seed(0))
    place = trainer.tokenizer.slices["position"]
    assert torch.equal(seen[0][:, 0], clean[:, 0])
    assert torch.equal(seen[0][:, -1, place], clean[:, -1, place])
    assert not torch.isclose(seen[0][:, 1], clean[:, 1]).any()


def test_averaged_weights_are_those_of_the_formula_after_two_steps(new_trainer: NewTrainer) -> None:
    trainer, name = new_trainer(ema=0.2), "head.bias"
    expected = trainer.denoiser.state_dict()[name].clone()
    for decay in (2 / 11, 0.2):  # (1 + 1) / (10 + 1), then (1 + 2) / (10 + 2), which ema cuts off
        trainer.advance(Budget(steps=10))
        expected = decay * expected + (1 - decay) * trainer.denoiser.state_dict()[name]
        torch.testing.assert_close(trainer.ema[name], expected)
    assert not torch.equal(trainer.ema[name], trainer.denoiser.state_dict()[name])


def _rate(trainer: Trainer) -> float:
    return float(trainer.optimiser.param_groups[0]["lr"])


def test_the_learning_rate_warms_up_stays_and_falls_to_nothing(new_trainer: NewTrainer) -> None:
    trainer = new_trainer(learning_rate=0.1, warmup_steps=4, constant=0.5)
    rates = []
    for _ in range(16):
        trainer.advance(Budget(steps=16))
        rates.append(_rate(trainer))
    expected = [0.025, 0.05, 0.075, 0.1, 0.1, 0.1, 0.1, 0.1, *(0.1 * left / 8 for left in range(8, 0, -1))]
    assert rates == pytest.approx(expected)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> None:
    """A quarter of a second passes with every look at the clock, so that a step takes that long."""
    ticks = itertools.count()
    monkeypatch.setattr(training, "time", SimpleNamespace(monotonic=lambda: next(ticks) / 4))


@pytest.mark.usefixtures("clock")
def test_a_budget_of_minutes_ends_on_time_and_with_the_learning_rate_at_nothing(
    new_trainer: NewTrainer, tmp_path: Path
) -> None:
    trainer = new_trainer(learning_rate=0.1, warmup_steps=1, constant=0.6)
    train(trainer, Budget(minutes=0.5), tmp_path, {})
    assert (trainer.step, trainer.elapsed_s, trainer.decay_start) == (120, 30.0, 72)
    assert _rate(trainer) == pytest.approx(0.1 / 48)
    assert load_policy_file(tmp_path / "policy.safetensors").card["minutes"] == 0.5


@pytest.mark.usefixtures("clock")
@pytest.mark.parametrize("stop_at", [15, 50])
def test_a_budget_of_minutes_counts_the_minutes_before_an_interruption(
    new_trainer: NewTrainer, tmp_path: Path, stop_at: int
) -> None:
    trainer = new_trainer()
    with pytest.raises(Interrupted):
        train(trainer, Budget(minutes=0.25), tmp_path, {}, stop=lambda: trainer.step >= stop_at)
    resumed, whole = new_trainer(), new_trainer()
    train(resumed, Budget(minutes=0.25), tmp_path, {}, resume=True)
    train(whole, Budget(minutes=0.25), tmp_path / "whole", {})
    assert resumed.step == 60
    _assert_same_state(resumed, whole)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({}, "exactly one of steps and minutes must be given"),
        ({"steps": 3, "minutes": 1.0}, "exactly one of steps and minutes must be given"),
        ({"steps": 0}, "budget must be positive, got 0"),
        ({"minutes": -1.0}, "budget must be positive, got -1"),
        ({"minutes": float("nan")}, "budget must be positive, got nan"),
    ],
)
def test_a_wrong_budget_is_refused(fields: dict[str, float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Budget(**fields)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"learning_rate": 0.0}, "learning_rate must be positive, got 0.0"),
        ({"constant": 1.0}, "constant must be above 0 and below 1, got 1.0"),
        # With minutes the end is derived from where the decay begins.
        ({"constant": 0.0}, "constant must be above 0 and below 1, got 0.0"),
        ({"ema": 1.0}, "ema must be at least 0 and below 1, got 1.0"),
        ({"warmup_steps": 0}, "warmup_steps must be at least 1, got 0"),
    ],
)
def test_optimiser_settings_that_cannot_work_are_refused(fields: dict[str, float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        OptimiserConfig(**fields)  # type: ignore[arg-type]


class _Spoiled(TrajectoryWindows):
    """Windows that hold a NaN from the fourth draw on."""

    draws = 0

    def sample(
        self, rng: np.random.Generator, count: int, past: int, future: int, *, drawn: int | None = None
    ) -> WindowBatch:
        windows = super().sample(rng, count, past, future, drawn=drawn)
        self.draws += 1
        if self.draws >= 4:
            windows.streams["velocity"][0, -1] = np.nan
        return windows


def test_a_loss_that_is_not_finite_ends_the_run_and_leaves_the_last_good_state(
    preset: Preset, lines: Trajectories, tmp_path: Path
) -> None:
    trainer = Trainer(preset, _Spoiled(lines), Normaliser.fit(lines))
    with pytest.raises(
        FloatingPointError, match=r"loss is nan and its gradient nan at step 4; lower learning_rate or check the data"
    ):
        train(trainer, Budget(steps=10), tmp_path, {}, save_every_s=0.0)
    assert load_training_state(tmp_path / "resume.safetensors").facts["step"] == 3
    load_policy(str(tmp_path))


def test_a_token_longer_than_any_episode_is_refused(preset: Preset, lines: Trajectories) -> None:
    long = replace(preset, layout=replace(preset.layout, token_steps=400))
    with pytest.raises(ValueError, match="no episode has the 400 steps of one token; use shorter tokens or longer"):
        Trainer(long, TrajectoryWindows(lines), Normaliser.fit(lines))


def test_horizons_are_drawn_as_the_root_of_the_windows_they_have(preset: Preset, lines: Trajectories) -> None:
    longer = replace(preset, layout=replace(preset.layout, horizon=9))
    trainer = Trainer(longer, TrajectoryWindows(lines), Normaliser.fit(lines))
    counts = [sum(max(0, int(length) - 8 * t + 1) for length in lines.lengths) for t in range(1, 6)]
    assert trainer.horizons == [1, 2, 3, 4, 5]  # no episode has more than 40 steps
    assert trainer.horizon_shares == pytest.approx(np.sqrt(counts) / np.sqrt(counts).sum())


def test_another_seed_makes_other_weights_and_the_same_seed_the_same(new_trainer: NewTrainer) -> None:
    first, second, other = new_trainer(seed=1), new_trainer(seed=1), new_trainer(seed=2)
    for trainer in (first, second, other):
        trainer.advance(Budget(steps=5))
    _assert_same_state(first, second)
    assert not torch.equal(first.ema["embed.weight"], other.ema["embed.weight"])


def test_building_a_trainer_leaves_torchs_own_randomness_alone(new_trainer: NewTrainer) -> None:
    before = torch.get_rng_state()
    new_trainer().advance(Budget(steps=5))
    assert torch.equal(torch.get_rng_state(), before)


def test_a_stopped_run_saves_the_step_it_was_at_and_goes_on_to_the_same_weights(
    new_trainer: NewTrainer, tmp_path: Path
) -> None:
    stopped, resumed, whole = new_trainer(), new_trainer(), new_trainer()
    with pytest.raises(Interrupted, match="stopped at step 13; --resume goes on from there"):
        train(stopped, Budget(steps=30), tmp_path, {}, stop=lambda: stopped.step == 13)
    assert load_training_state(tmp_path / "resume.safetensors").facts["step"] == 13
    assert load_policy_file(tmp_path / "policy.safetensors").card["steps"] == 13
    assert load_policy_file(tmp_path / "policy.safetensors").card["unfinished"] == "step 13 of 30"
    train(resumed, Budget(steps=30), tmp_path, {}, resume=True)
    train(whole, Budget(steps=30), tmp_path / "whole", {})
    _assert_same_state(resumed, whole)
    policies = [load_policy_file(folder / "policy.safetensors") for folder in (tmp_path, tmp_path / "whole")]
    assert all("unfinished" not in policy.card for policy in policies)
    assert all(torch.equal(value, policies[1].weights[name]) for name, value in policies[0].weights.items())
    assert torch.equal(policies[0].weights["head.bias"], whole.ema["head.bias"])


@pytest.mark.usefixtures("clock")
def test_the_step_at_which_the_decay_begins_is_saved_as_soon_as_the_clock_has_named_it(
    new_trainer: NewTrainer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    killed, budget = new_trainer(), Budget(minutes=0.25)

    def kill() -> bool:
        if killed.decay_start is not None and killed.step > killed.decay_start + 1:
            raise KeyboardInterrupt
        return False

    with pytest.raises(KeyboardInterrupt):
        train(killed, budget, tmp_path, {}, save_every_s=1e9, stop=kill)
    facts = load_training_state(tmp_path / "resume.safetensors").facts
    assert (facts["decay_start"], facts["step"]) == (36, 37)  # 0.6 of 15 s in quarters of a second
    resumed, whole = new_trainer(), new_trainer()
    train(whole, budget, tmp_path / "whole", {})
    ticks = itertools.count()
    monkeypatch.setattr(training, "time", SimpleNamespace(monotonic=lambda: next(ticks) * 3))  # a slower machine
    train(resumed, budget, tmp_path, {}, resume=True)
    _assert_same_state(resumed, whole)


def test_there_must_be_a_run_to_resume(new_trainer: NewTrainer, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"resume\.safetensors does not exist"):
        train(new_trainer(), Budget(steps=2), tmp_path, {}, resume=True)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"name": "other"}, "preset of the saved run is 'toy', of this one 'other'; resume with"),
        ({"layout": {"horizon": 2}}, "layout.horizon of the saved run is 3, of this one 2"),
        ({"denoiser": {"causal": True}}, "denoiser.causal of the saved run is False, of this one True"),
        ({"noise": {"kind": "cosine"}}, "noise.kind of the saved run is 'linear', of this one 'cosine'"),
        ({"levels": {"goal_masked": 0.1}}, "levels.goal_masked of the saved run is 0.2, of this one 0.1"),
        (
            {"optimiser": {"learning_rate": 0.001}},
            "optimiser.learning_rate of the saved run is 0.003, of this one 0.001",
        ),
    ],
)
def test_a_run_with_another_recipe_is_not_resumed(
    new_trainer: NewTrainer,
    preset: Preset,
    lines: Trajectories,
    tmp_path: Path,
    change: dict[str, Any],
    message: str,
) -> None:
    train(new_trainer(), Budget(steps=2), tmp_path, {})
    parts = {k: replace(getattr(preset, k), **v) if isinstance(v, dict) else v for k, v in change.items()}
    with pytest.raises(ValueError, match=re.escape(message)):
        train(_trainer(replace(preset, **parts), lines), Budget(steps=2), tmp_path, {}, resume=True)


def test_a_run_with_another_seed_budget_or_recording_is_not_resumed(
    new_trainer: NewTrainer, preset: Preset, lines: Trajectories, tmp_path: Path
) -> None:
    train(new_trainer(), Budget(steps=2), tmp_path, {})
    before = (tmp_path / "resume.safetensors").read_bytes()
    moved = replace(lines, streams={**lines.streams, "position": lines.streams["position"] + 1})
    for trainer, budget, message in (
        (new_trainer(seed=9), Budget(steps=2), r"seed of the saved run is 1, of this one 9"),
        (new_trainer(), Budget(steps=4), r"budget\.steps of the saved run is 2, of this one 4"),
        (new_trainer(), Budget(minutes=1), r"budget\.minutes of the saved run is None, of this one 1"),
        (
            _trainer(preset, moved),
            Budget(steps=2),
            r"normaliser\.mean\.position of the saved run is \[.*\], of this one",
        ),
    ):
        with pytest.raises(ValueError, match=message):
            train(trainer, budget, tmp_path, {}, resume=True)
    assert (tmp_path / "resume.safetensors").read_bytes() == before


def test_a_finished_run_is_written_again_with_the_present_planner_and_tracker(
    new_trainer: NewTrainer, preset: Preset, lines: Trajectories, tmp_path: Path
) -> None:
    first = load_policy_file(train(new_trainer(), Budget(steps=2), tmp_path, {}))
    planner, tracker = replace(preset.planner, samples=7), replace(preset.tracker, kind="pd")
    other = _trainer(replace(preset, planner=planner, tracker=tracker), lines)
    again = load_policy_file(train(other, Budget(steps=2), tmp_path, {}, resume=True))
    assert (again.preset.planner, again.preset.tracker, again.card["steps"]) == (planner, tracker, 2)
    assert all(torch.equal(value, again.weights[name]) for name, value in first.weights.items())


def test_a_training_state_of_an_earlier_version_that_names_its_preset_alone_still_resumes(
    new_trainer: NewTrainer, tmp_path: Path
) -> None:
    whole, resumed = new_trainer(), new_trainer()
    for _ in range(3):
        whole.advance(Budget(steps=6))
    state = snapshot(whole, Budget(steps=6))
    old = ("step", "elapsed_s", "windows_seen", "decay_start", "rng", "preset")
    facts = {name: state.facts[name] for name in old}
    save_training_state(TrainingState(tensors=state.tensors, facts=facts), tmp_path / "resume.safetensors")
    train(resumed, Budget(steps=6), tmp_path, {}, resume=True)
    for _ in range(3):
        whole.advance(Budget(steps=6))
    _assert_same_state(resumed, whole)


def test_a_training_state_from_before_a_setting_existed_has_that_settings_default(
    new_trainer: NewTrainer, tmp_path: Path
) -> None:
    whole, resumed = new_trainer(), new_trainer()
    whole.advance(Budget(steps=2))
    state = snapshot(whole, Budget(steps=2))
    facts = {**state.facts, "levels": {k: v for k, v in state.facts["levels"].items() if k != "next_token"}}
    save_training_state(TrainingState(tensors=state.tensors, facts=facts), tmp_path / "resume.safetensors")
    forced = new_trainer(levels=LevelMix(pyramid=0.0, next_token=0.25))
    with pytest.raises(ValueError, match=r"levels\.next_token of the saved run is 0\.0, of this one 0\.25"):
        train(forced, Budget(steps=2), tmp_path, {}, resume=True)
    train(resumed, Budget(steps=2), tmp_path, {}, resume=True)
    whole.advance(Budget(steps=2))
    _assert_same_state(resumed, whole)


def test_half_of_the_histories_show_now_alone_and_the_others_any_part_of_the_past(
    new_trainer: NewTrainer, monkeypatch: pytest.MonkeyPatch
) -> None:
    trainer, kept = new_trainer(batch_tokens=2000), []
    encode = trainer.tokenizer.encode

    def watched(windows: WindowBatch, kept_past: np.ndarray) -> Tensor:
        kept.append(np.where(windows.past_valid == 8, kept_past, -1))  # -1: the episode is too young to tell
        return encode(windows, kept_past)

    monkeypatch.setattr(trainer.tokenizer, "encode", watched)
    for _ in range(5):
        trainer.advance(Budget(steps=10))
    told = np.concatenate(kept)
    told = told[told >= 0]
    assert len(told) > 1000
    shares = np.bincount(told, minlength=9) / len(told)
    assert shares == pytest.approx([1 / 2 + 1 / 18, *[1 / 18] * 8], abs=0.05)
    assert (shares > 0).all()


def test_no_step_follows_a_gradient_longer_than_clip(new_trainer: NewTrainer) -> None:
    norms = []
    for clip in (1e9, 0.01):
        trainer = new_trainer(clip=clip)
        trainer.advance(Budget(steps=5))
        gradients = [weight.grad for weight in trainer.denoiser.parameters() if weight.grad is not None]
        norms.append(float(torch.cat([gradient.flatten() for gradient in gradients]).norm()))
    assert norms[0] > 0.1
    assert norms[1] == pytest.approx(0.01, rel=1e-3)


@pytest.mark.usefixtures("clock")
def test_progress_is_reported_with_rate_and_time_left(new_trainer: NewTrainer, tmp_path: Path) -> None:
    reports: list[Progress] = []
    trainer = new_trainer()
    train(trainer, Budget(steps=40), tmp_path, {}, report=reports.append)
    assert [entry.step for entry in reports] == sorted(entry.step for entry in reports)
    first = reports[0]
    assert first.total_steps == 40
    assert first.remaining_s == pytest.approx((40 - first.step) * 0.25)  # a step takes a quarter of a second
    assert first.windows_per_s > 0
    assert np.isfinite([entry.loss for entry in reports]).all()


# A run that says where it is after every step.
RUN = """
import json
import sys
from pathlib import Path

import numpy as np
import torch

from forcing.datasets.windows import TrajectoryWindows
from forcing.policy.config import from_json
from forcing.policy.preset import Preset
from forcing.policy.tokens import Normaliser
from forcing.policy.training import Budget, Trainer, train
from forcing.policy.types import Trajectories, TrajectorySpec

torch.set_num_threads(1)
given = json.loads(Path(sys.argv[1]).read_text())
arrays = dict(np.load(sys.argv[2]))
lines = Trajectories(spec=TrajectorySpec.from_json(given["spec"]), lengths=arrays.pop("lengths"), streams=arrays)
trainer = Trainer(from_json(Preset, given["preset"]), TrajectoryWindows(lines), Normaliser.fit(lines), seed=1)
budget, out = Budget(steps=int(sys.argv[3])), Path(sys.argv[4])
train(trainer, budget, out, {}, save_every_s=0.02, stop=lambda: print(trainer.step, flush=True))
"""
WITHOUT_THE_REST = """
import sys

class Missing:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {blocked}:
            raise ImportError(name + " is not there")

sys.meta_path.insert(0, Missing())
"""


@pytest.fixture
def command(tmp_path: Path, preset: Preset, lines: Trajectories) -> Callable[..., list[str]]:
    """(steps, out, before="") -> the command that trains so many steps into `out`, after the code `before`."""
    given, arrays = tmp_path / "given.json", tmp_path / "lines.npz"
    given.write_text(json.dumps({"spec": lines.spec.to_json(), "preset": asdict(preset)}))
    np.savez(arrays, allow_pickle=False, lengths=lines.lengths, **lines.streams)

    def build(steps: int, out: Path, before: str = "") -> list[str]:
        return [sys.executable, "-c", before + RUN, str(given), str(arrays), str(steps), str(out)]

    return build


def test_a_run_killed_at_any_moment_goes_on_to_the_weights_of_an_uninterrupted_one(
    command: Callable[..., list[str]], new_trainer: NewTrainer, tmp_path: Path
) -> None:
    out, steps = tmp_path / "killed", 60
    with subprocess.Popen(command(steps, out), stdout=subprocess.PIPE, text=True) as run:
        assert run.stdout is not None
        # 20 steps after the first that follows a save: between saves, as a rule.
        saved = next(int(step) for step in run.stdout if (out / "resume.safetensors").exists())
        reached = next(int(step) for step in run.stdout if int(step) >= saved + 20)
        run.send_signal(signal.SIGKILL)
    assert run.returncode == -signal.SIGKILL
    assert 0 < load_training_state(out / "resume.safetensors").facts["step"] < steps
    assert reached < steps

    resumed, whole = new_trainer(), new_trainer()
    train(resumed, Budget(steps=steps), out, {}, resume=True)
    train(whole, Budget(steps=steps), tmp_path / "whole", {})
    _assert_same_state(resumed, whole)


def test_training_needs_torch_numpy_and_safetensors_alone(command: Callable[..., list[str]], tmp_path: Path) -> None:
    blocked = {
        *("gymnasium", "gymnasium_robotics", "mujoco", "minari", "h5py", "zarr", "fastapi", "starlette", "uvicorn"),
        *("pydantic", "msgpack", "prometheus_client", "httpx", "tyro", "rich", "matplotlib", "imageio", "PIL"),
    }
    before = WITHOUT_THE_REST.format(blocked=blocked)
    finished = subprocess.run(command(5, tmp_path / "out", before), capture_output=True, text=True, check=False)
    assert (finished.returncode, finished.stdout.split()) == (0, ["1", "2", "3", "4", "5"]), finished.stderr
    assert load_policy(str(tmp_path / "out")).card["steps"] == 5
