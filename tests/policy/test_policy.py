"""Policies by name and by folder, and what tells one from another."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from forcing.policy import policy as policy_module
from forcing.policy.checkpoint import CheckpointError, load_policy_file, save_policy, save_spread
from forcing.policy.controller import Controller
from forcing.policy.planner import PlanRequest
from forcing.policy.policy import Policy, load_policy, shipped_policies
from forcing.policy.rolling import RollingConfig
from forcing.policy.spread import Spread
from forcing.policy.tracker import TrackerConfig

PolicyWriter = Callable[..., Path]


def _request(seed: int = 0) -> PlanRequest:
    frames = {"position": np.array([[0.0, 0.0], [0.5, 0.0]]), "velocity": np.zeros((2, 2))}
    return PlanRequest(step=0, frames=frames, noise={}, goal=np.array([2.0, 1.0]), seed=seed)


@pytest.fixture
def shipped(tmp_path: Path, write_policy: PolicyWriter, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A package that ships maze2d-medium and maze2d-large."""
    for seed, name in enumerate(("maze2d-medium", "maze2d-large")):
        write_policy(tmp_path / "shipped" / name, seed=seed)
    monkeypatch.setattr(policy_module, "SHIPPED", tmp_path / "shipped")
    return tmp_path / "shipped"


def test_a_policy_is_found_by_its_name_its_folder_and_its_file(
    shipped: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = shipped / "maze2d-medium"
    renamed = tmp_path / "mine.safetensors"
    renamed.write_bytes((folder / "policy.safetensors").read_bytes())
    monkeypatch.chdir(folder)
    found = [load_policy(where) for where in ("maze2d-medium", str(folder), f"{folder}/policy.safetensors", ".")]
    assert [policy.name for policy in found] == ["maze2d-medium"] * 4
    assert load_policy(str(renamed)).name == "mine"
    assert {policy.revision for policy in [*found, load_policy(str(renamed))]} == {found[0].revision}
    assert shipped_policies() == ["maze2d-large", "maze2d-medium"]


@pytest.mark.usefixtures("shipped")
@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("maze2d-medum", r"did you mean 'maze2d-medium'\?"),
        ("kitchen", r"shipped are \['maze2d-large', 'maze2d-medium'\]; a folder must hold policy\.safetensors"),
    ],
)
def test_an_unknown_name_is_answered_by_the_nearest_or_by_all(name: str, hint: str) -> None:
    with pytest.raises(CheckpointError, match=f"unknown policy '{name}'; {hint}"):
        load_policy(name)


def test_a_folder_without_a_policy_is_said_to_be_one(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"folder .* holds no policy\.safetensors; name one in which"):
        load_policy(str(tmp_path))


def test_the_revision_changes_when_a_weight_changes_and_only_then(policy: Policy, tmp_path: Path) -> None:
    file = policy._file
    weights = {name: value.clone() for name, value in file.weights.items()}
    revisions = []
    for change in (0.0, 1e-4):
        weights["head.bias"][3] += change
        save_policy(tmp_path / "policy.safetensors", file.preset, file.spec, file.normaliser, weights, dict(file.card))
        revisions.append(load_policy(str(tmp_path)).revision)
    assert revisions[0] == policy.revision
    assert revisions[1] != policy.revision
    assert len(policy.revision) == 12


def test_the_normaliser_has_a_hash_of_its_own(policy: Policy) -> None:
    scaled = replace(policy.normaliser, mean={**policy.normaliser.mean, "action": (0.0, 0.25)})
    other = Policy("other", replace(policy._file, normaliser=scaled))
    assert len(policy.normaliser_hash) == 12
    assert other.normaliser_hash != policy.normaliser_hash
    assert Policy("same", policy._file).normaliser_hash == policy.normaliser_hash


def test_weights_that_do_not_fit_their_preset_are_refused_by_name(policy: Policy) -> None:
    weights = dict(policy._file.weights)
    del weights["head.bias"]
    with pytest.raises(CheckpointError, match=r"policy 'broken': weights do not fit its preset: (.|\n)*head\.bias"):
        Policy("broken", replace(policy._file, weights=weights))


def test_loading_a_policy_leaves_torchs_own_randomness_alone(policy: Policy) -> None:
    before = torch.get_rng_state()
    Policy("again", policy._file)
    assert torch.equal(torch.get_rng_state(), before)


def test_the_same_weights_may_be_planned_and_tracked_otherwise(policy: Policy) -> None:
    planner, tracker = replace(policy.preset.planner, samples=5), TrackerConfig(kind="pd")
    other = policy.using(planner=planner, tracker=tracker)
    assert (other.preset.planner, other.preset.tracker) == (planner, tracker)
    assert other.name == policy.name
    assert other.revision.startswith(f"{policy.revision}-adjusted-")
    assert (
        other.revision
        == policy.using(planner=planner, tracker=tracker).revision
        != policy.using(tracker=tracker).revision
    )
    assert len(other.plan(_request()).costs) == 15  # three horizons
    assert len(policy.plan(_request()).costs) == 6
    assert policy.using(tracker=tracker).preset.planner == policy.preset.planner


def test_plans_made_in_many_threads_at_once_are_those_made_one_by_one(policy: Policy) -> None:
    alone = [policy.plan(_request(seed)) for seed in range(12)]
    with ThreadPoolExecutor(4) as pool:
        together = list(pool.map(policy.plan, [_request(seed) for seed in range(12)]))
    for one, other in zip(alone, together, strict=True):
        assert np.array_equal(one.candidates, other.candidates, equal_nan=True)


def test_parameters_are_those_of_the_network_and_take_no_gradient(policy: Policy) -> None:
    # A toy token has 12 numbers; width 32, 2 blocks, 5 places counted from both ends.
    block = 2 * 2 * 32 + (32 + 1) * 96 + (32 + 1) * 32 + (32 + 1) * 128 + (128 + 1) * 32
    embeddings = (3 * 12 + 1) * 32 + (4 * 3 + 1) * 32 + (32 + 1) * 32 + 2 * 5 * 32
    assert policy.parameters == embeddings + 2 * block + 2 * 32 + (32 + 1) * 12


@pytest.mark.parametrize("name", shipped_policies())
def test_what_is_shipped_still_loads_and_plans(name: str) -> None:
    policy = load_policy(name)
    assert load_policy_file(policy_module.find_policy(name)).card["task"] == name
    seen = {
        stream.name: np.zeros(stream.shape, np.uint8)
        if stream.image
        else np.asarray(policy.normaliser.mean[stream.name]).reshape(stream.shape)
        for stream in policy.spec.of_role("observation")
    }
    goal = None if policy.spec.goal is None else seen[policy.spec.goal] + 0.5
    controller = Controller(policy, goal=goal, seed=0)
    controller.observe(seen)
    request = controller.request()
    assert request is not None
    plan = policy.plan(request)
    assert all(np.isfinite(values).all() for values in plan.streams.values())
    assert plan.streams["action"].shape == (len(plan.steps), policy.spec.action.size)


def test_a_measured_spread_takes_the_place_of_that_between_samples(
    tmp_path: Path, write_policy: PolicyWriter, policy: Policy
) -> None:
    frames = policy.preset.layout.horizon * policy.preset.layout.frames
    table = np.broadcast_to(np.array([0.5, 2.0])[:, None], (2, 2, frames)).copy()
    measured = Spread(doubts=np.array([[0.0, 1.0], [0.0, 1.0]]), moving=table, resting=table.copy())
    folder = write_policy(tmp_path / "toy")
    save_spread(folder / "policy.safetensors", measured, {})
    told, sampled = (
        load_policy(str(folder)).plan(replace(_request(), doubt={"velocity": 0.375})),
        policy.plan(_request()),
    )
    # Recorded standard deviations are 2 and 4 m, 0.5 and 0.25 m/s.
    np.testing.assert_allclose(told.spread["position"], np.tile([1.0, 2.0], (len(told.steps), 1)))
    np.testing.assert_allclose(told.spread["velocity"], np.tile([1.0, 0.5], (len(told.steps), 1)))
    np.testing.assert_array_equal(told.spread["action"], sampled.spread["action"])
    np.testing.assert_array_equal(told.streams["position"], sampled.streams["position"])
    # It was measured with this planner, and says nothing of another.
    calibrated = load_policy(str(folder))
    assert calibrated.using(planner=replace(policy.preset.planner, samples=3)).spread is None
    assert calibrated.using(planner=policy.preset.planner).spread is not None
    kept_up = calibrated.using(rolling=RollingConfig())
    assert kept_up.spread is not None
    assert kept_up.using(rolling=None).spread is not None
    assert kept_up.using(planner=replace(policy.preset.planner, replan_steps=3)).spread is None
