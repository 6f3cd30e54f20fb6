"""Files that are written, read back, damaged, taken for others, and left by killed writers."""

import json
import os
import signal
import subprocess
import sys
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors import SafetensorError
from safetensors.torch import save_file

from forcing.policy import checkpoint
from forcing.policy.checkpoint import (
    CheckpointError,
    PolicyFile,
    TrainingState,
    load_policy_file,
    load_training_state,
    save_policy,
    save_spread,
    save_training_state,
)
from forcing.policy.config import from_json
from forcing.policy.planner import PlannerConfig
from forcing.policy.preset import Preset
from forcing.policy.schedules import Schedule
from forcing.policy.spread import Spread
from forcing.policy.tokens import Normaliser
from forcing.policy.types import TrajectorySpec

WEIGHTS = {"a": torch.arange(6.0).reshape(2, 3) / 7, "b.c": torch.tensor([-1.5]), "scalar": torch.tensor(3)}
CARD = {"task": "toy", "note": "Weiß, 雪", "steps": 12, "scores": {"toy": 1.5}}


@pytest.fixture
def path(tmp_path: Path, preset: Preset, spec: TrajectorySpec, normaliser: Normaliser) -> Path:
    file = tmp_path / "policy.safetensors"
    save_policy(file, preset, spec, normaliser, WEIGHTS, CARD)
    return file


def test_a_policy_comes_back_as_it_was(
    path: Path, spec: TrajectorySpec, normaliser: Normaliser, preset: Preset
) -> None:
    # A nested dataclass with values of its own, so that nothing is right by default.
    preset = replace(preset, planner=PlannerConfig(schedule=Schedule(kind="trapezoid", sampling_steps=7), futures=3))
    save_policy(path, preset, spec, normaliser, WEIGHTS, CARD)
    file = load_policy_file(path)
    assert (file.preset, file.spec, file.normaliser, file.card) == (preset, spec, normaliser, CARD)
    assert set(file.weights) == set(WEIGHTS)
    for name, value in WEIGHTS.items():
        assert torch.equal(file.weights[name], value)
        assert file.weights[name].dtype == value.dtype
    assert [entry.name for entry in path.parent.iterdir()] == [path.name]


def test_a_spread_is_kept_beside_the_policy_and_is_no_part_of_its_revision(path: Path) -> None:
    before = load_policy_file(path)
    measured = Spread(
        doubts=np.arange(4.0).reshape(2, 2), moving=np.full((2, 2, 3), 0.25), resting=np.arange(12.0).reshape(2, 2, 3)
    )
    for _ in range(2):  # the second takes the first one's place
        save_spread(path, measured, {"drives": 8})
    after = load_policy_file(path)
    assert after.spread is not None
    for name, value in measured.tensors().items():
        assert torch.equal(after.spread.tensors()[name], value)
    assert after.revision == before.revision
    assert after.card == {**CARD, "spread": {"drives": 8}}
    assert (after.preset, after.spec, after.normaliser) == (before.preset, before.spec, before.normaliser)
    assert {name: value.tolist() for name, value in after.weights.items()} == {
        name: value.tolist() for name, value in before.weights.items()
    }


def test_a_training_state_comes_back_as_it_was(tmp_path: Path) -> None:
    facts = {"step": 3, "elapsed_s": 0.1, "decay_start": None, "rng": {"state": 2**127 + 1}}
    save_training_state(TrainingState(tensors=WEIGHTS, facts=facts), tmp_path / "resume.safetensors")
    state = load_training_state(tmp_path / "resume.safetensors")
    assert state.facts == facts
    assert all(torch.equal(state.tensors[name], value) for name, value in WEIGHTS.items())


def test_no_fact_can_pass_a_training_state_off_as_another_file(tmp_path: Path) -> None:
    path = tmp_path / "resume.safetensors"
    save_training_state(TrainingState(tensors=WEIGHTS, facts={"kind": "policy", "version": 99, "step": 3}), path)
    assert load_training_state(path).facts == {"step": 3}


def test_the_revision_follows_whatever_decides_behaviour_and_not_the_card(
    path: Path, preset: Preset, spec: TrajectorySpec, normaliser: Normaliser
) -> None:
    before = load_policy_file(path).revision
    save_policy(path, preset, spec, normaliser, WEIGHTS, {**CARD, "steps": 13})
    assert load_policy_file(path).revision == before
    revisions = {before}
    for changed, weights in (
        (preset, {**WEIGHTS, "b.c": torch.tensor([-1.5000001])}),
        (preset, {**WEIGHTS, "a": WEIGHTS["a"].reshape(3, 2)}),
        (replace(preset, planner=replace(preset.planner, samples=preset.planner.samples + 1)), WEIGHTS),
    ):
        save_policy(path, changed, spec, normaliser, weights, CARD)
        revisions.add(load_policy_file(path).revision)
    assert len(revisions) == 4


def test_any_flipped_byte_is_found_and_the_file_named(path: Path) -> None:
    whole = path.read_bytes()
    for position in range(0, len(whole), 3):
        damaged = bytearray(whole)
        damaged[position] ^= 1 << position % 8
        path.write_bytes(damaged)
        with pytest.raises(CheckpointError, match=r"policy\.safetensors"):
            load_policy_file(path)
    path.write_bytes(whole)
    load_policy_file(path)


def test_a_truncated_file_is_refused_wherever_it_ends(path: Path) -> None:
    whole = path.read_bytes()
    for size in (0, 1, 7, 8, 100, len(whole) // 2, len(whole) - 1):
        path.write_bytes(whole[:size])
        with pytest.raises(CheckpointError, match=r"policy\.safetensors is damaged or no safetensors file"):
            load_policy_file(path)


def test_another_programs_safetensors_file_is_refused(path: Path) -> None:
    save_file({"a": torch.zeros(2)}, path)
    with pytest.raises(CheckpointError, match=r"policy\.safetensors was not written by forcing"):
        load_policy_file(path)


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"nowhere/resume\.safetensors does not exist"):
        load_training_state(tmp_path / "nowhere" / "resume.safetensors")


def test_a_later_version_asks_for_an_upgrade(
    path: Path, preset: Preset, spec: TrajectorySpec, normaliser: Normaliser, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as later:
        later.setattr(checkpoint, "VERSION", checkpoint.VERSION + 1)
        save_policy(path, preset, spec, normaliser, WEIGHTS, CARD)
    with pytest.raises(CheckpointError, match=r"policy\.safetensors has version 2, .* reads up to 1; upgrade forcing"):
        load_policy_file(path)


def test_a_policy_is_no_training_state_and_a_training_state_no_policy(path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"policy\.safetensors must be a training file, got a policy file"):
        load_training_state(path)
    save_training_state(TrainingState(tensors=WEIGHTS, facts={}), path)
    with pytest.raises(CheckpointError, match=r"policy\.safetensors must be a policy file, got a training file"):
        load_policy_file(path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"widht": 3}, r"policy\.safetensors: preset has unknown keys \['widht'\]; known are \['name', 'layout'"),
        ({"layout": {"strde": 4}}, r"policy\.safetensors: preset\.layout has unknown keys \['strde'\]"),
        ({"layout": {"stride": 0}}, r"policy\.safetensors: stride must be at least 1, got 0"),
        ({"denoiser": None}, r"policy\.safetensors: preset\.denoiser must have keys of its own, got None"),
    ],
)
def test_a_preset_that_does_not_fit_is_refused_by_key(
    path: Path, monkeypatch: pytest.MonkeyPatch, change: dict[str, object], message: str
) -> None:
    def altered(config: Preset) -> dict[str, object]:
        return {**asdict(config), **change}

    file = load_policy_file(path)
    with monkeypatch.context() as writing:
        writing.setattr(checkpoint, "asdict", altered)
        save_policy(path, file.preset, file.spec, file.normaliser, WEIGHTS, CARD)
    with pytest.raises(CheckpointError, match=message):
        load_policy_file(path)


def test_presets_survive_json(preset: Preset) -> None:
    document = json.loads(json.dumps(asdict(preset)))
    assert from_json(Preset, document) == preset
    del document["name"]
    with pytest.raises(ValueError, match=r"config: .*missing.*'name'"):
        from_json(Preset, document)


# Replaces the file over and over, each time with weights that hold one number throughout.
WRITER = """
import sys
from pathlib import Path
import torch
from safetensors import SafetensorError
from forcing.policy.checkpoint import TrainingState, save_training_state

torch.set_num_threads(1)
for round in range(1, 1_000_000):
    tensors = {str(i): torch.full((100_000,), float(round)) for i in range(4)}
    save_training_state(TrainingState(tensors=tensors, facts={"round": round}), Path(sys.argv[1]))
    print(round, flush=True)
"""


def test_a_killed_writer_leaves_a_whole_file(tmp_path: Path) -> None:
    path = tmp_path / "resume.safetensors"
    with subprocess.Popen([sys.executable, "-c", WRITER, str(path)], stdout=subprocess.PIPE, text=True) as writer:
        assert writer.stdout is not None
        finished = [int(writer.stdout.readline()) for _ in range(2)][-1]
        while not list(tmp_path.glob(".*.tmp")):  # in the middle of the next
            assert writer.poll() is None
        writer.send_signal(signal.SIGKILL)
    state = load_training_state(path)
    assert state.facts["round"] >= finished
    assert all(bool((value == state.facts["round"]).all()) for value in state.tensors.values())

    others = [tmp_path / f".resume.safetensors.{os.getppid()}.tmp", tmp_path / f".policy.safetensors.{writer.pid}.tmp"]
    for other in others:
        other.touch()
    save_training_state(TrainingState(tensors=WEIGHTS, facts={}), path)
    assert sorted(tmp_path.iterdir()) == sorted([path, *others]), "a living writer's and another file's are left alone"


def test_who_reads_the_old_file_while_it_is_replaced_reads_all_of_it(
    path: Path, preset: Preset, spec: TrajectorySpec, normaliser: Normaliser
) -> None:
    before = path.read_bytes()
    with path.open("rb", buffering=0) as reader:
        start = reader.read(100)
        save_policy(path, preset, spec, normaliser, {"a": torch.zeros(2)}, {})
        assert start + reader.read() == before
    assert path.read_bytes() != before


def test_a_disk_that_refuses_leaves_the_old_file_and_nothing_beside_it(
    path: Path, preset: Preset, spec: TrajectorySpec, normaliser: Normaliser, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    before: PolicyFile = load_policy_file(path)
    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(OSError, match="No space left"):
        save_policy(path, preset, spec, normaliser, {"a": torch.zeros(2)}, {})
    assert load_policy_file(path).revision == before.revision
    assert [entry.name for entry in path.parent.iterdir()] == [path.name]


def test_a_disk_that_refuses_is_an_error_and_the_old_file_stays(
    path: Path, preset: Preset, spec: TrajectorySpec, normaliser: Normaliser, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = path.read_bytes()

    def full(*_: object, **__: object) -> None:
        raise SafetensorError("No space left on device (os error 28)")

    monkeypatch.setattr("forcing.policy.checkpoint.save_file", full)
    with pytest.raises(OSError, match=r"could not be written \(No space left .*; what was there before is unchanged"):
        save_policy(path, preset, spec, normaliser, WEIGHTS, CARD)
    assert path.read_bytes() == before
    assert [entry.name for entry in path.parent.iterdir()] == [path.name]
