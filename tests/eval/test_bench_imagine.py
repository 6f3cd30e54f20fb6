"""What networks imagine of episodes they were not trained on, by hand and by the bench, by untrained networks."""

import io
import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from gymnasium import spaces
from PIL import Image
from rich.console import Console

from forcing.datasets.minari_writer import write_minari
from forcing.datasets.recording import read_recording
from forcing.envs.swap_detector import Found
from forcing.eval import drift as drifting
from forcing.eval.bench_imagine import (
    DF,
    FULL,
    SEEN,
    STILL,
    TEACHER,
    ImagineBench,
    at,
    method_of,
    run_bench,
    told_as,
    verdict,
)
from forcing.eval.drift import drift, where_cubes_are
from forcing.eval.held_out import Told, check_held_out, held_out, tokens_of, told_to
from forcing.eval.imagine_picture import draw_imagine
from forcing.eval.imagine_table import PICTURE, imagine_table
from forcing.eval.report import Report
from forcing.policy.cameras import encoded, fit_codecs, fit_normaliser, raw_spec
from forcing.policy.checkpoint import save_policy
from forcing.policy.config import override
from forcing.policy.denoiser import DenoiserConfig
from forcing.policy.moves import told_as_moves
from forcing.policy.network import build_denoiser
from forcing.policy.policy import Policy, load_policy
from forcing.policy.preset import PRESETS, Preset
from forcing.policy.tokens import Tokenizer
from forcing.policy.vision import VisionConfig

PLACES = {f"{cube}_position": spaces.Box(-np.inf, np.inf, (3,), np.float32) for cube in ("red", "blue")}
HAND = {"effector_position": spaces.Box(-np.inf, np.inf, (3,), np.float32)}
VIEWS = {name: spaces.Box(0, 255, (64, 64, 3), np.uint8) for name in ("front", "side")}
MOVE = np.array([0.0, 0.01, -0.02], np.float32)  # in m, from where the hand is
DONE = 0.5 * MOVE
EXECUTED = {"action": "infos/executed"}
LENGTHS = (40, 20, 50, 36)  # control steps of the recorded episodes

BASE = replace(
    PRESETS["swap-world"],
    denoiser=DenoiserConfig(width=8, depth=1, heads=2, causal=True),
    vision=VisionConfig(components=4),
    memory=replace(PRESETS["swap-world"].memory, moves_from=None),  # type: ignore[type-var]
)
SETTINGS = {
    DF: (),
    FULL: (
        "memory.mix.behind=0",
        "memory.mix.independent=0",
        "memory.mix.shared=1",
        "memory.mix.pyramid=0",
        "memory.equal_levels=true",
        "layout.history=3",
        "layout.horizon=3",
    ),
    TEACHER: ("memory.mix.slightly=0", "memory.recall_level=0"),
}


def _episodes(cameras: bool, seed: int) -> Iterator[dict[str, Any]]:
    """Numbers that tell episode and step; frames with a red and a blue square."""
    rng = np.random.default_rng(seed)
    for episode, length in enumerate(LENGTHS):
        step = np.arange(length + 1, dtype=np.float32)[:, None]
        cubes = {name: np.float32(0.01 * step + np.array([episode, number, 0])) for number, name in enumerate(PLACES)}
        hand = {"effector_position": np.repeat(step, 3, axis=1)}
        frames = rng.integers(60, 80, (2, length + 1, 64, 64, 3)).astype(np.uint8)
        for t in range(length + 1):
            frames[:, t, 20:34, 5 + t // 2 : 19 + t // 2] = (220, 30, 30)
            frames[:, t, 40:54, 30:44] = (30, 30, 220)
        seen = dict(zip(VIEWS, frames, strict=True)) if cameras else cubes
        yield {
            "observations": hand | seen,
            "actions": hand["effector_position"][:-1] + MOVE,
            "rewards": np.zeros(length),
            "terminations": np.zeros(length, dtype=bool),
            "truncations": np.arange(length) == length - 1,
            "infos": (cubes if cameras else {})
            | {"executed": np.append(hand["effector_position"][:-1] + DONE, [[0, 0, 0]], axis=0)},
        }


def _recorded(folder: Path, *, cameras: bool, seed: int) -> str:
    path = write_minari(
        folder,
        f"toy/{'cameras' if cameras else 'state'}-v{seed}",
        _episodes(cameras, seed),
        description=f"toy, --seed {seed}.",
        observation_space=spaces.Dict({**HAND, **(VIEWS if cameras else PLACES)}),
        action_space=spaces.Box(-1000, 1000, (3,), np.float32),
        control_hz=20.0,
        units={"effector_position": "m"},
    )
    return str(path)


def _policy(folder: Path, data: str, preset: Preset, name: str, **streams: str) -> str:
    """Untrained, saved as training would save it. streams: as `read_recording` takes them."""
    recorded = read_recording(data, streams=streams)
    cameras = fit_codecs(recorded, preset.vision)
    seen = encoded(recorded, cameras)
    if preset.memory is not None and preset.memory.moves_from is not None:
        seen = told_as_moves(seen, preset.memory.moves_from)
    tokenizer = Tokenizer(seen.spec, preset.layout, fit_normaliser(seen, cameras, preset.vision))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        weights = build_denoiser(preset, tokenizer).state_dict()
    card = {"data_provenance": dict(recorded.provenance), "seed": 0, "steps": 1, "minutes": 0.1, "command": "train"}
    (folder / name).mkdir()
    save_policy(
        folder / name / "policy.safetensors",
        preset,
        raw_spec(seen.spec, cameras),
        tokenizer.normaliser,
        weights,
        card,
        cameras=cameras,
    )
    return str(folder / name)


@pytest.fixture(scope="module")
def state(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, str, list[str]]:
    """A training recording, a held-out one, and a policy of each method."""
    folder = tmp_path_factory.mktemp("state")
    train, test = (_recorded(folder, cameras=False, seed=seed) for seed in (0, 1))
    names = [
        _policy(folder, train, override(BASE, *settings), method.split()[0].lower())
        for method, settings in SETTINGS.items()
    ]
    return train, test, names


@pytest.fixture(scope="module")
def cameras(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, str]:
    """A held-out recording with cameras, and a policy."""
    folder = tmp_path_factory.mktemp("cameras")
    train, test = (_recorded(folder, cameras=True, seed=seed) for seed in (0, 1))
    return test, _policy(folder, train, BASE, "seeing")


def _run(policies: list[str], data: str, report: Path | None, times: int = 2, **more: Any) -> str:
    bench = ImagineBench(policies=policies, data=data, times=times, **{"episodes": 9, "seed": 0, "film": None, **more})
    console = Console(file=io.StringIO(), width=160)
    run_bench(bench, report=report, command="the command", console=console)
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def test_held_out_are_the_first_episodes_that_are_long_enough_a_row_a_token(state: tuple[str, str, list[str]]) -> None:
    held = held_out(state[1], token_steps=3, tokens=12, most=2)
    assert held.numbers == (0, 2)  # 33 steps are needed
    assert held.left_out == 1
    np.testing.assert_array_equal(held.streams["effector_position"][1, :, 0], 3 * np.arange(12))
    np.testing.assert_array_equal(held.actions[0, :, :, 0], np.arange(33).reshape(11, 3))
    np.testing.assert_allclose(held.cubes_m[1, 5], [[2.15, 0.15, 0.15], [2.15, 1.15, 0.15]], rtol=1e-6)
    assert held_out(state[1], token_steps=3, tokens=12, most=9).numbers == (0, 2, 3)


def test_behind_cameras_infos_tell_where_cubes_were(
    cameras: tuple[str, str], state: tuple[str, str, list[str]]
) -> None:
    one, other = (held_out(data, token_steps=3, tokens=12, most=3) for data in (cameras[0], state[1]))
    np.testing.assert_array_equal(one.cubes_m, other.cubes_m)
    assert one.streams["front"].shape == (3, 12, 64, 64, 3)


def test_too_short_episodes_are_named(state: tuple[str, str, list[str]]) -> None:
    with pytest.raises(ValueError, match="no episode has the 177 steps of 60 tokens"):
        held_out(state[1], token_steps=3, tokens=60, most=9)


def test_a_token_holds_an_observation_and_the_actions_that_led_to_it(state: tuple[str, str, list[str]]) -> None:
    policy, held = load_policy(state[2][0]), held_out(state[1], token_steps=3, tokens=12, most=2)
    assert policy.history_planner is not None
    tokenizer = policy.history_planner.tokenizer
    values = tokenizer.decode(tokens_of(policy, tokenizer, held))
    np.testing.assert_allclose(values["effector_position"][0, :, 0], 3 * np.arange(12), atol=1e-4)
    np.testing.assert_allclose(values["action"][0, 3:, 0], np.arange(33), atol=1e-4)


def _seen(policy: Policy, data: str, tokens: int = 12) -> tuple[Any, Any, Any]:
    assert policy.history_planner is not None
    tokenizer, held = policy.history_planner.tokenizer, held_out(data, token_steps=3, tokens=tokens, most=2)
    return tokenizer, held, tokens_of(policy, tokenizer, held)


def test_errors_are_of_cubes_in_millimetres_and_of_all_observations_in_standard_deviations(
    state: tuple[str, str, list[str]],
) -> None:
    policy = load_policy(state[2][0])
    tokenizer, held, truth = _seen(policy, state[1])
    imagined = truth.clone()
    where = tokenizer.slices["red_position"]
    std = np.asarray(tokenizer.normaliser.std["red_position"])
    # From token 7 on red is 3 cm off along x and 4 cm along y, blue where it was: 25 mm in the mean.
    off = np.array([0.03, 0.04, 0.0]) / std
    imagined[:, 7:, where] += torch.from_numpy(off).float()
    found = drift(tokenizer, {}, held, truth, imagined)
    np.testing.assert_allclose(found.object_mm[:, :7], 0, atol=1e-3)
    np.testing.assert_allclose(found.object_mm[:, 7:], 25, atol=1e-2)
    np.testing.assert_allclose(found.latent[:, 7:], np.sqrt(np.square(off).sum() / 9), rtol=1e-4)  # 9 observed numbers
    assert found.pixel is None
    assert found.unseen == 0


def test_imagined_actions_do_not_count(state: tuple[str, str, list[str]]) -> None:
    tokenizer, held, truth = _seen(load_policy(state[2][0]), state[1])
    other = truth.clone()
    other[..., tokenizer.slices["action"]] += 5
    assert float(drift(tokenizer, {}, held, truth, other).latent.max()) == 0


def test_pixels_are_compared_as_they_are_decoded(cameras: tuple[str, str]) -> None:
    policy = load_policy(cameras[1])
    tokenizer, held, truth = _seen(policy, cameras[0])
    found = drift(tokenizer, policy.cameras, held, truth, truth)
    assert found.pixel is not None
    frames = {name: policy.cameras[name].decode(policy.cameras[name].encode(held.streams[name][1])) for name in VIEWS}
    squares = [np.square(frames[name].astype(float) - held.streams[name][1]).mean(axis=(1, 2, 3)) for name in VIEWS]
    np.testing.assert_allclose(found.pixel[1], np.sqrt(np.mean(squares, axis=0)), rtol=1e-2)
    np.testing.assert_allclose(found.latent, 0)


def test_a_cube_that_is_not_found_is_where_it_was_found_last(monkeypatch: pytest.MonkeyPatch) -> None:
    position = np.arange(5.0)[None, :, None, None] * np.ones((1, 5, 2, 3))
    position[0, 3:, 0] = np.nan
    position[0, :2, 1] = np.nan
    monkeypatch.setattr(drifting, "find_cubes", lambda frames: Found(position, np.ones((1, 5, 2, 2))))
    where, unseen = where_cubes_are({}, {"front": np.zeros((1, 5, 64, 64, 3), np.uint8)})
    assert where[0, :, 0, 0].tolist() == [0, 1, 2, 2, 2]
    assert where[0, :, 1, 0].tolist() == [2, 2, 2, 3, 4]
    assert unseen == 0.4


def test_the_bench_compares_methods_on_the_same_episodes_and_repeats_itself(
    state: tuple[str, str, list[str]], tmp_path: Path
) -> None:
    _, test, names = state
    said = _run(names, test, tmp_path / "bench-imagine.json")
    entries: list[Report] = json.loads((tmp_path / "bench-imagine.json").read_text())
    assert [entry["method"] for entry in entries] == [STILL, SEEN, DF, FULL, TEACHER]
    assert [entry["episodes"] for entry in entries] == [[0, 2, 3]] * 5
    for entry in entries:
        for curve in ("object_mm", "latent"):
            values = np.array(entry["curves"][curve])
            assert values.shape == (3, 12)
    # 3 tokens are observed by all; cubes move by 0.01 m along each axis in a step.
    still, seen, *imagined = (np.array(entry["curves"]["object_mm"]) for entry in entries)
    np.testing.assert_allclose(still[:, -1], 27 * 10 * 3**0.5, rtol=1e-3)
    assert float(seen.max()) < 0.01
    assert all(float(errors[:, :3].max()) < 0.01 < float(errors[:, 3:].min()) for errors in imagined)
    assert [entry.get("imagining", {}).get("fresh") for entry in entries] == [None, None, 1, 3, 1]
    assert entries[2]["imagining"]["stabilisation"] > 0
    assert "better baseline's" in said
    _run(names, test, tmp_path / "again.json")
    assert json.loads((tmp_path / "again.json").read_text()) == entries
    _run(names, test, tmp_path / "other.json", seed=1)
    other = json.loads((tmp_path / "other.json").read_text())
    assert other[2]["curves"] != entries[2]["curves"]
    assert other[0]["curves"] == entries[0]["curves"]
    table = imagine_table(tmp_path)
    assert sum(line.startswith(f"| {DF} (diffusion)") for line in table) == 1
    assert table[-1] == PICTURE
    assert draw_imagine(tmp_path, tmp_path / "drift.png")
    with Image.open(tmp_path / "drift.png") as picture:
        assert picture.size[0] == 1600


def test_a_film_shows_every_token_of_what_happened_and_what_was_imagined(
    cameras: tuple[str, str], tmp_path: Path
) -> None:
    data, policy = cameras
    _run([policy], data, None, film=tmp_path / "film.gif")
    with Image.open(tmp_path / "film.gif") as film:
        assert getattr(film, "n_frames") == 12  # noqa: B009  # PIL has it where a format has frames
        assert film.size[0] == 2 * (128 + 16)
        film.seek(5)
        shown = np.asarray(film.convert("RGB"))
    real = held_out(data, token_steps=3, tokens=12, most=1).streams["front"][0, 5]
    top = next(row for row in range(shown.shape[0]) if (shown[row, 10:130] != 255).all())
    view = shown[top : top + 128 : 2, 8:136:2].astype(int)
    assert np.abs(view - real).mean() < 10  # a palette of few colours


def test_a_film_of_a_model_without_cameras_is_refused_before_anything_is_imagined(
    state: tuple[str, str, list[str]], tmp_path: Path
) -> None:
    with pytest.raises(ValueError, match=r"film shows what cameras see, and policy .* has none"):
        _run(state[2][:1], state[1], tmp_path / "none.json", film=tmp_path / "film.gif")
    assert not (tmp_path / "none.json").exists()


def test_actions_are_told_as_moves_from_where_the_hand_was_at_each_step(state: tuple[str, str, list[str]]) -> None:
    held = held_out(state[1], token_steps=3, tokens=12, most=2, told=Told(moves_from="effector_position"))
    np.testing.assert_allclose(held.actions, np.broadcast_to(MOVE, (2, 11, 3, 3)), atol=1e-5)
    with pytest.raises(ValueError, match="must be an observation of a place"):
        held_out(state[1], token_steps=3, tokens=12, most=2, told=Told(moves_from="wrist"))


def test_actions_are_told_as_they_were_executed_if_policies_learned_them_so(
    state: tuple[str, str, list[str]], tmp_path: Path
) -> None:
    train, test, names = state
    told = _policy(tmp_path, train, override(BASE, "memory.moves_from=effector_position"), "done", **EXECUTED)
    held = held_out(test, token_steps=3, tokens=12, most=2, told=told_to(load_policy(told)))
    np.testing.assert_allclose(held.actions, np.broadcast_to(DONE, (2, 11, 3, 3)), atol=1e-5)
    _run([told], test, tmp_path / "done.json")
    entries = json.loads((tmp_path / "done.json").read_text())
    assert {told_as(entry) for entry in entries} == {"moves, infos/executed"}
    with pytest.raises(ValueError, match=r"told actions alike, got .*actions_from='infos/executed'"):
        _run([names[0], told], test, None)


@pytest.mark.parametrize(
    ("provenance", "actions_from"),
    [
        ({}, None),
        ({"source_names": {"action": "action", "hand": "effector_position"}}, None),
        ({"source_names": {"action": "infos/executed"}}, "infos/executed"),
        ({"recordings": [{"source_names": {"action": "infos/executed"}}] * 2}, "infos/executed"),
        ({"recordings": [{}, {"source_names": {"hand": "wrist"}}]}, None),
    ],
)
def test_how_actions_were_told_is_known_of_one_recording_and_of_several(
    provenance: dict[str, Any], actions_from: str | None, state: tuple[str, str, list[str]]
) -> None:
    policy = load_policy(state[2][0])
    policy.card = {"data_provenance": provenance}
    assert told_to(policy) == Told(actions_from=actions_from)


def test_recordings_that_told_actions_in_two_ways_are_refused(state: tuple[str, str, list[str]]) -> None:
    policy = load_policy(state[2][0])
    policy.card = {"data_provenance": {"recordings": [{}, {"source_names": {"action": "infos/executed"}}]}}
    with pytest.raises(ValueError, match="was told actions from action, infos/executed, by one recording so"):
        told_to(policy)


def test_a_model_that_is_told_moves_imagines_from_moves_and_is_compared_with_its_like(
    state: tuple[str, str, list[str]], tmp_path: Path
) -> None:
    train, test, names = state
    told = _policy(tmp_path, train, override(BASE, "memory.moves_from=effector_position"), "told")
    said = _run([told], test, tmp_path / "moves.json")
    assert "actions told as moves" in said
    entries = json.loads((tmp_path / "moves.json").read_text())
    assert {entry["moves_from"] for entry in entries} == {"effector_position"}
    with pytest.raises(ValueError, match=r"told actions alike, got .*moves_from='effector_position'"):
        _run([names[0], told], test, None)


def test_networks_that_saw_these_episodes_are_refused(state: tuple[str, str, list[str]]) -> None:
    with pytest.raises(ValueError, match="was trained on these episodes"):
        _run(state[2], state[0], None)


SWAP = "OGBench cube oracle with action noise 0.2 on swap: --steps 58391 --seed 1."


@pytest.mark.parametrize(
    ("description", "same"),
    [
        (SWAP, True),
        (SWAP.replace("58391", "40000"), True),
        (SWAP.replace("swap", "swap-cameras"), True),
        (SWAP.replace("swap: --steps 58391", "swap-cameras: --steps 9"), True),
        (SWAP.replace("seed 1", "seed 10"), False),
        (SWAP.replace("cube oracle", "other oracle"), False),
        (SWAP.replace("swap:", "swap-longer:"), False),
    ],
)
@pytest.mark.parametrize("inside", [(), ("converted_from",), ("recordings", 1, "mended")])
def test_recordings_that_begin_alike_are_the_same_episodes(
    state: tuple[str, str, list[str]], description: str, same: bool, inside: tuple[Any, ...]
) -> None:
    trained: Any = {"source": "minari", "description": SWAP}
    for key in reversed(inside):
        trained = [{"description": "another"}, trained] if key == 1 else {"source": "other", key: trained}
    policy = load_policy(state[2][0])
    policy.card = {"data_provenance": trained}
    held = replace(
        held_out(state[1], token_steps=3, tokens=12, most=1),
        description=description,
        descriptions=frozenset({description}),
    )
    if not same:
        check_held_out(policy, held)
        return
    with pytest.raises(ValueError, match="was trained on these episodes"):
        check_held_out(policy, held)


def test_policies_that_act_are_refused(state: tuple[str, str, list[str]], tmp_path: Path) -> None:
    acting = _policy(tmp_path, state[0], override(BASE, "memory.mix.known_actions=0.5"), "acting")
    with pytest.raises(ValueError, match="must be a model of the world"):
        _run([acting], state[1], None)


def test_policies_that_observe_or_are_told_otherwise_are_refused(
    state: tuple[str, str, list[str]], cameras: tuple[str, str]
) -> None:
    with pytest.raises(ValueError, match=r"observes 'front' of shape \(64, 64, 3\); the recording has .*red_position"):
        _run([cameras[1]], state[1], None)
    policy, held = load_policy(state[2][0]), held_out(state[1], token_steps=3, tokens=12, most=1)
    with pytest.raises(ValueError, match="is told actions of 3 numbers, the recording's have 2"):
        check_held_out(policy, replace(held, actions=held.actions[..., :2]))


def test_sequences_of_different_lengths_are_not_compared(state: tuple[str, str, list[str]], tmp_path: Path) -> None:
    longer = _policy(tmp_path, state[0], override(BASE, "layout.history=7"), "longer")
    with pytest.raises(ValueError, match=r"one length, got \(tokens, steps\) \[\(6, 3\), \(8, 3\)\]"):
        _run([state[2][0], longer], state[1], None)


@pytest.mark.parametrize("method", SETTINGS)
def test_a_recipe_tells_its_method(method: str) -> None:
    assert method_of(override(BASE, *SETTINGS[method])) == method


def _entry(method: str, errors: list[float]) -> Report:
    curve = [[0.0] * 19 + [error] for error in errors]
    return {"method": method, "length": 2, "times": 10, "curves": {"object_mm": curve}}


def test_the_verdict_is_the_ratio_to_the_better_baseline() -> None:
    entries = [
        _entry(DF, [10.0, 30.0]),
        _entry(DF, [20.0, 40.0]),
        _entry(FULL, [50.0] * 2),
        _entry(TEACHER, [80.0] * 2),
    ]
    said = verdict(entries)
    # (15 + 35) / 2 of 50; a resample has one episode twice, or both.
    assert said is not None
    assert "at 10 times the training length is 0.50 of the better baseline's" in said
    assert "0.30 to 0.70" in said
    assert verdict(entries[:3]) is None
    last = at(entries[0], "object_mm", 10)
    assert last is not None
    assert last.tolist() == [10, 30]
    assert at(entries[0], "object_mm", 11) is None
