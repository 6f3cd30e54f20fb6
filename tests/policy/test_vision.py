"""Frames to latents and back, where components, shares and averages are known; and policies that carry codecs."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from forcing.datasets.windows import TrajectoryWindows
from forcing.policy import cameras, vision
from forcing.policy.cameras import encoded, encoded_spec, fit_codecs, fit_normaliser, raw_spec
from forcing.policy.checkpoint import load_policy_file, save_policy
from forcing.policy.controller import Controller
from forcing.policy.policy import Policy, load_policy
from forcing.policy.preset import Preset
from forcing.policy.tokens import Normaliser
from forcing.policy.tracker import TrackerConfig
from forcing.policy.training import Budget, Trainer, train
from forcing.policy.types import Array, Obstacles, StreamSpec, Trajectories, TrajectorySpec
from forcing.policy.vision import FrameCodec, as_bytes, fit_codec

Bytes = NDArray[np.uint8]
SPEC = TrajectorySpec(
    streams=(
        StreamSpec(name="hand", role="observation", shape=(2,), units="m"),
        StreamSpec(name="front", role="observation", shape=(12, 16, 3), units="grey", low=(0.0,) * 576),
        StreamSpec(name="action", role="action", shape=(2,), low=(-1.0, -1.0), high=(1.0, 1.0)),
    ),
    control_hz=10.0,
)


def _patterns(rng: np.random.Generator, count: int, shape: tuple[int, int, int]) -> tuple[Bytes, NDArray[np.float64]]:
    """Grey 128 with two patterns of ±1 beside each other, of strengths [count, 2] with deviations 40 and 20."""
    height, width, channels = shape
    strength = np.rint(np.clip(rng.normal(0, (40, 20), (count, 2)), -120, 120))
    left = (np.arange(width) < width // 2).astype(float)
    checks = np.where((np.arange(height)[:, None] + np.arange(width)) % 2, 1.0, -1.0)
    patterns = np.stack([checks * left, checks * (1 - left)])
    frames = 128 + np.tensordot(strength, patterns, axes=1)
    return np.repeat(frames[..., None], channels, axis=3).astype(np.uint8), strength


def test_latents_are_the_strengths_of_what_varies_in_order_with_variance_one() -> None:
    frames, strength = _patterns(np.random.default_rng(0), 400, (12, 16, 3))
    codec = fit_codec(frames)
    assert codec.latents == 2  # as many as the frames span, not 32
    assert codec.explained == pytest.approx(1.0)
    latents = codec.encode(frames)
    assert latents.dtype == np.float32
    np.testing.assert_allclose(latents.mean(axis=0), 0, atol=1e-5)
    np.testing.assert_allclose(latents.std(axis=0), 1, rtol=1e-5)
    # 8 · 12 · 3 cells of ±1 a pattern, so that a strength s is s · sqrt(288) along its component.
    np.testing.assert_allclose(
        codec.std, np.linalg.svd(strength - strength.mean(axis=0))[1] * np.sqrt(288 / 400), rtol=1e-4
    )
    np.testing.assert_array_equal(codec.decode(latents), frames)


def test_as_many_latents_as_asked_for_hold_the_share_of_variance_that_they_say() -> None:
    frames, strength = _patterns(np.random.default_rng(1), 400, (12, 16, 1))
    codec = fit_codec(frames, latents=1)
    values = np.linalg.svd(strength - strength.mean(axis=0))[1] ** 2
    assert codec.explained == pytest.approx(values[0] / values.sum(), rel=1e-4)
    off = codec.decode(codec.encode(frames)).astype(float) - frames
    assert np.square(off).sum() == pytest.approx(values[1] * 96, rel=0.05)  # of the other, but for rounding


def test_the_components_are_those_of_an_exact_decomposition() -> None:
    rng = np.random.default_rng(2)
    mixed = rng.normal(size=(300, 40)) * np.geomspace(60, 1, 40) @ np.linalg.qr(rng.normal(size=(192, 40)))[0].T
    frames = np.clip(np.rint(128 + mixed), 0, 255).astype(np.uint8).reshape(300, 8, 8, 3)
    codec, flat = fit_codec(frames, latents=6), frames.reshape(300, -1) - frames.reshape(300, -1).mean(axis=0)
    _, values, exact = np.linalg.svd(flat, full_matrices=False)
    np.testing.assert_allclose(np.abs(np.sum(codec.components * exact[:6], axis=1)), 1, atol=1e-4)
    np.testing.assert_allclose(codec.std, values[:6] / np.sqrt(300), rtol=1e-4)
    assert (codec.components[np.arange(6), np.abs(codec.components).argmax(axis=1)] > 0).all()


def test_the_same_frames_and_seed_give_the_same_codec_wherever_they_are_read_from() -> None:
    frames, _ = _patterns(np.random.default_rng(3), 50, (12, 16, 3))
    one, other = fit_codec(frames), fit_codec(_Watched(frames))
    for name, value in one.tensors().items():
        assert torch.equal(value, other.tensors()[name]), name


def test_large_frames_are_averaged_over_areas() -> None:
    rng = np.random.default_rng(4)
    frames = rng.integers(0, 256, (3, 48, 80, 2), dtype=np.uint8)
    cells = vision._cells(frames).reshape(3, 32, 32, 2)
    # Of 48 rows a cell has one and a half, of 80 columns two and a half.
    rows = frames[:, 0].astype(float) + frames[:, 1] / 2
    first = (rows[:, 0] + rows[:, 1] + rows[:, 2] / 2) / (1.5 * 2.5)
    np.testing.assert_allclose(cells[:, 0, 0], first, rtol=1e-5)
    np.testing.assert_allclose(cells.mean(axis=(1, 2)), frames.mean(axis=(1, 2)), rtol=1e-5)
    flat = np.full((20, 48, 80, 2), 90, np.uint8)
    flat[::2] = 200
    np.testing.assert_array_equal(fit_codec(flat).decode(fit_codec(flat).encode(flat)), flat)


def test_a_camera_that_shows_one_picture_has_one_latent_that_stays_zero() -> None:
    frames = np.full((20, 8, 8, 3), 77, dtype=np.uint8)
    codec = fit_codec(frames)
    assert codec.encode(frames).tolist() == [[0.0]] * 20
    np.testing.assert_array_equal(codec.decode(codec.encode(frames)), frames)


def test_a_frame_unlike_any_other_is_cut_to_the_limit() -> None:
    frames = np.full((50, 8, 8, 1), 100, dtype=np.uint8)
    frames[::2, 0, 0] = 103
    glare = np.full((1, 8, 8, 1), 255, dtype=np.uint8)
    assert np.abs(fit_codec(frames).encode(glare)).max() == vision.LIMIT


class _Watched:
    """Frames that know how many rows were ever read at a time."""

    def __init__(self, frames: Array) -> None:
        self._frames, self.shape, self.dtype, self.most = frames, frames.shape, frames.dtype, 0

    def __getitem__(self, rows: slice, /) -> Array:
        found: Array = self._frames[rows]
        self.most = max(self.most, len(found))
        return found


def test_frames_are_read_in_blocks_of_bounded_size(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(vision, "BLOCK_BYTES", 7 * 576)
    monkeypatch.setattr(cameras, "BLOCK_BYTES", 7 * 576)
    monkeypatch.setattr(vision, "SAMPLE", 20)
    recorded = _recording()
    frames = recorded.frames["front"][:]
    watched = _Watched(frames)
    streamed = Trajectories(
        spec=recorded.spec, streams=recorded.streams, lengths=recorded.lengths, frames={"front": watched}
    )
    codecs, told = fit_codecs(streamed), list[int]()
    assert 1 <= watched.most <= 7
    assert vision.sampled(watched, 20, np.random.default_rng(0), vision._cells).shape == (20, 576)
    seen = encoded(streamed, codecs, told.append)
    assert watched.most == 7
    assert told == [*range(7, watched.shape[0], 7), watched.shape[0]]
    np.testing.assert_allclose(seen.streams["front"], codecs["front"].encode(frames), atol=1e-4)


def _recording() -> Trajectories:
    """20 episodes of 30 steps whose action is what the picture shows, and the hand does not tell."""
    rng = np.random.default_rng(5)
    lengths = np.full(20, 30)
    frames, strength = _patterns(rng, 20 * 31, (12, 16, 3))
    action = np.delete(strength / (120, 60), np.arange(30, 620, 31), axis=0)
    streams = {"hand": rng.normal(size=(620, 2)).astype(np.float32), "action": action.astype(np.float32)}
    return Trajectories(spec=SPEC, streams=streams, lengths=lengths, frames={"front": frames})


def test_a_recording_in_latents_keeps_everything_else() -> None:
    recorded = _recording()
    codecs = fit_codecs(recorded)
    seen = encoded(recorded, codecs)
    assert seen.frames == {}
    assert seen.streams["front"].shape == (620, 2)
    assert seen.spec["front"] == StreamSpec(name="front", role="observation", shape=(2,))
    assert (seen.spec["hand"], seen.spec["action"]) == (SPEC["hand"], SPEC["action"])
    assert seen.streams["hand"] is recorded.streams["hand"]
    assert [stream.shape for stream in raw_spec(encoded_spec(SPEC, codecs), codecs).streams] == [
        (2,), (12, 16, 3), (2,)
    ]  # fmt: skip


def test_a_cameras_latents_count_as_four_numbers_however_many_they_are() -> None:
    rng = np.random.default_rng(6)
    frames = rng.integers(0, 256, (620, 12, 16, 3), dtype=np.uint8)
    for recorded, latents in ((_with(_recording(), frames=frames), 32), (_recording(), 2)):
        codecs = fit_codecs(recorded)
        seen = encoded(recorded, codecs)
        normaliser = fit_normaliser(seen, codecs)
        varied = normaliser.apply("front", seen.streams["front"]).var(axis=0)
        assert len(varied) == latents
        assert varied.sum() == pytest.approx(min(4, latents), rel=1e-3)
        assert normaliser.std["hand"] == Normaliser.fit(seen).std["hand"]


def test_goals_in_pictures_and_frames_of_other_numbers_are_refused() -> None:
    recorded = _recording()
    spec = TrajectorySpec(streams=SPEC.streams, control_hz=10.0, goal="front")
    with pytest.raises(ValueError, match="goal 'front' is a camera's stream, and goals are given in numbers"):
        fit_codecs(_with(recorded, spec=spec))
    with pytest.raises(ValueError, match="stream 'front' must be frames of uint8, got float32"):
        fit_codecs(_with(recorded, frames=recorded.frames["front"][:].astype(np.float32)))


def _with(recorded: Trajectories, *, spec: TrajectorySpec = SPEC, frames: Array | None = None) -> Trajectories:
    shown = recorded.frames["front"] if frames is None else frames
    return Trajectories(spec=spec, streams=recorded.streams, lengths=recorded.lengths, frames={"front": shown})


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        (np.array([[0, 255]], dtype=np.int64), [[0, 255]]),
        (np.array([0.0, 7.0]), [0, 7]),
        (np.array([3, 4], dtype=np.uint8), [3, 4]),
        (np.array([0.5, 7.0]), None),
        (np.array([-1, 7]), None),
        (np.array([256.0]), None),
        (np.array([np.nan, 1.0]), None),
        (np.array([np.inf]), None),
        (np.array([True, False]), None),
    ],
)
def test_grey_levels_are_whole_numbers_of_a_byte_however_they_are_written(values: Array, expected: object) -> None:
    found = as_bytes(values)
    assert (None if found is None else found.tolist()) == expected
    assert found is None or found.dtype == np.uint8


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, preset: Preset) -> Path:
    """Of a policy trained a little on the recording."""
    out, recorded = tmp_path_factory.mktemp("runs") / "seeing", _recording()
    codecs = fit_codecs(recorded)
    seen = encoded(recorded, codecs)
    preset = replace(preset, tracker=TrackerConfig(kind="actions"))
    trainer = Trainer(preset, TrajectoryWindows(seen), Normaliser.fit(seen), cameras=codecs)
    train(trainer, Budget(steps=3), out, {"task": "seeing"})
    return out


@pytest.fixture(scope="module")
def seeing(folder: Path) -> Policy:
    return load_policy(str(folder))


def _act(policy: Policy, frame: Array, **told: object) -> Array:
    controller = Controller(policy, goal=None, seed=0)
    controller.observe({"hand": np.zeros(2), "front": frame}, **told)  # type: ignore[arg-type]
    request = controller.request()
    assert request is not None
    controller.install(policy.plan(request))
    return controller.decide().action


def test_a_policy_keeps_its_cameras_and_shows_the_frames_that_it_wants(folder: Path, seeing: Policy) -> None:
    fitted = fit_codecs(_recording())["front"]
    assert isinstance(fitted, FrameCodec)
    for name, value in fitted.tensors().items():
        assert torch.equal(seeing.cameras["front"].tensors()[name], value), name
    assert seeing.spec["front"].shape == (12, 16, 3)
    assert seeing.seen_spec["front"].shape == (2,)
    kept = load_policy_file(folder / "policy.safetensors")
    again = folder / "again.safetensors"
    brighter = replace(fitted, mean=fitted.mean + 1)
    for codec, same in ((fitted, True), (brighter, False)):
        save_policy(again, kept.preset, kept.spec, kept.normaliser, kept.weights, {}, cameras={"front": codec})
        assert (load_policy_file(again).revision == kept.revision) is same  # a codec decides what a policy does


def test_the_same_frame_gives_the_same_action_and_another_frame_another(seeing: Policy) -> None:
    frames = _recording().frames["front"][:2]
    first = _act(seeing, frames[0])
    assert np.isfinite(first).all()
    np.testing.assert_array_equal(first, _act(seeing, frames[0].astype(np.int64)))
    assert not np.array_equal(first, _act(seeing, frames[1]))


def test_a_controller_keeps_latents_and_no_frames(seeing: Policy) -> None:
    controller = Controller(seeing, goal=None, seed=0)
    controller.observe({"hand": np.zeros(2), "front": _recording().frames["front"][:1][0]})
    request = controller.request()
    assert request is not None
    assert request.frames["front"].shape[1:] == (2,)
    assert {values.shape for entry in controller._history for values in entry.values.values()} == {(2,)}
    plan = seeing.plan(request)
    assert plan.streams["front"].shape[1:] == (2,)


def test_a_camera_may_be_missing_and_is_told_no_noise(seeing: Policy) -> None:
    controller = Controller(seeing, goal=None, seed=0)
    controller.observe({"hand": np.zeros(2)}, missing=["front"])
    request = controller.request()
    assert request is not None
    assert set(request.frames) == {"hand"}
    controller.install(seeing.plan(request))
    assert np.isfinite(controller.decide().action).all()
    with pytest.raises(ValueError, match="noise 'front' must be left out: it is a camera"):
        _act(seeing, np.zeros((12, 16, 3), np.uint8), noise={"front": 0.1})


@pytest.mark.parametrize(
    ("frame", "message"),
    [
        (np.zeros((12, 16), np.uint8), r"observation 'front' has shape \(12, 16\), the policy 'seeing' expects"),
        (np.full((12, 16, 3), 0.5), "observation 'front' must be whole numbers from 0 to 255"),
        (np.full((12, 16, 3), np.nan), "observation 'front' must be whole numbers from 0 to 255"),
    ],
)
def test_what_is_no_frame_is_refused(seeing: Policy, frame: Array, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        _act(seeing, frame)


def test_obstacles_where_the_first_stream_is_a_camera_are_refused(seeing: Policy) -> None:
    spec = TrajectorySpec(streams=(SPEC["front"], SPEC["hand"], SPEC["action"]), control_hz=10.0)
    file = seeing._file
    camera_first = Policy("first", replace(file, spec=spec))
    controller = Controller(camera_first, goal=None, seed=0)
    with pytest.raises(ValueError, match="obstacles must be absent: policy 'first' knows no places to stay out of"):
        controller.set_obstacles(Obstacles(centres=np.zeros((1, 2)), radii=np.ones(1)))


Damage = Callable[[dict[str, torch.Tensor]], None]


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda tensors: tensors.pop("std"), "std"),
        (lambda tensors: tensors.update(mean=tensors["mean"][1:]), "needs 576 cells"),
        (lambda tensors: tensors.update(components=tensors["components"][:1]), "needs 576 cells"),
    ],
)
def test_tensors_that_do_not_fit_together_are_no_codec(damage: Damage, message: str) -> None:
    tensors = fit_codecs(_recording())["front"].tensors()
    damage(tensors)
    with pytest.raises((KeyError, ValueError), match=message):
        FrameCodec.from_tensors(tensors)
