"""Keypoints find what moves; codecs of either kind are kept, refused when damaged, and know what is unlike them."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from forcing.policy.cameras import codec_of
from forcing.policy.checkpoint import load_policy_file, save_policy
from forcing.policy.config import from_json, override
from forcing.policy.keypoints import KeypointCodec, fit_keypoints
from forcing.policy.preset import Preset
from forcing.policy.tokens import Normaliser
from forcing.policy.types import StreamSpec, Trajectories, TrajectorySpec
from forcing.policy.vision import Codec, VisionConfig, fit_codec

Bytes = NDArray[np.uint8]
SIDE, RADIUS = 32, 3.0
SMALL = VisionConfig(kind="keypoints", keypoints=2, values=2, steps=250, batch=16)
BRIEF = VisionConfig(kind="keypoints", keypoints=3, values=2, steps=3, batch=4)


def _dots(count: int, seed: int, *, height: int = SIDE, width: int = SIDE) -> tuple[Bytes, NDArray[np.float64]]:
    """[count, height, width, 3] pictures of a red dot before stripes, and its places [count, 2] in pixels."""
    rng = np.random.default_rng(seed)
    places = rng.uniform(RADIUS, np.array([height, width]) - RADIUS - 1, (count, 2))
    rows, columns = np.mgrid[:height, :width]
    off = np.hypot(rows - places[:, 0, None, None], columns - places[:, 1, None, None])
    share = np.clip(RADIUS + 0.5 - off, 0, 1)[..., None]
    stripes = np.where(columns % 8 < 4, 60.0, 90.0)[..., None] * np.ones(3)
    return np.rint(share * np.array([220.0, 40, 40]) + (1 - share) * stripes).astype(np.uint8), places


def _read(codec: Codec, seed: int = 1) -> float:
    """How far off the dot is, in pixels, where its place is read linearly from latents; fitted on half of what it is
    told of."""
    frames, places = _dots(400, seed)
    latents = np.column_stack([codec.encode(frames), np.ones(400)])
    weights = np.linalg.lstsq(latents[:200], places[:200], rcond=None)[0]
    return float(np.median(np.linalg.norm(latents[200:] @ weights - places[200:], axis=1)))


@pytest.fixture(scope="module")
def frames() -> Bytes:
    return _dots(600, 0)[0]


@pytest.fixture(scope="module")
def found(frames: Bytes) -> KeypointCodec:
    return fit_keypoints(frames, SMALL)


@pytest.fixture(scope="module")
def brief(frames: Bytes) -> KeypointCodec:
    """Hardly trained."""
    return fit_keypoints(frames[:50], BRIEF)


def test_keypoints_find_a_dot_better_than_as_many_components(frames: Bytes, found: KeypointCodec) -> None:
    components = fit_codec(frames, latents=found.latents)
    assert (found.latents, components.latents) == (6, 6)
    assert _read(found) < 1.0
    assert _read(found) < 0.3 * _read(components)


def test_a_keypoint_is_near_the_dot_before_there_is_any_training(frames: Bytes) -> None:
    begun = fit_keypoints(frames, replace(SMALL, steps=1))
    shown, places = _dots(200, 4)
    keypoints = begun.encode(shown)[:, :4].reshape(200, 2, 2)  # x of each, y of each
    told = [np.corrcoef(keypoints[:, axis, k], places[:, 1 - axis])[0, 1] for k in range(2) for axis in range(2)]
    assert max(min(told[:2]), min(told[2:])) > 0.95


def test_a_decoded_frame_shows_the_dot_where_it_is(found: KeypointCodec) -> None:
    shown, places = _dots(50, 2)
    decoded = found.decode(found.encode(shown))
    assert decoded.shape == shown.shape
    assert decoded.dtype == np.uint8
    redness = np.clip(decoded[..., 0].astype(float) - decoded[..., 1] - 60, 0, None)
    rows, columns = np.mgrid[:SIDE, :SIDE]
    middle = np.stack([(redness * axis).sum(axis=(1, 2)) for axis in (rows, columns)], axis=1)
    middle /= redness.sum(axis=(1, 2))[:, None]
    assert np.median(np.linalg.norm(middle - places, axis=1)) < 1.0


def test_latents_vary_by_one_about_zero(frames: Bytes, found: KeypointCodec) -> None:
    latents = found.encode(frames)
    assert latents.dtype == np.float32
    np.testing.assert_allclose(latents.mean(axis=0), 0, atol=1e-4)
    assert (latents.std(axis=0) < 1.001).all()
    assert latents.std(axis=0).max() == pytest.approx(1, abs=1e-3)


def test_what_is_explained_is_the_share_of_the_variance_that_is_not_lost(frames: Bytes, found: KeypointCodec) -> None:
    off = found.decode(found.encode(frames)).astype(float) - frames
    share = 1 - np.square(off).mean() / frames.astype(float).var(axis=0).mean()
    assert found.explained == pytest.approx(share, abs=0.02)


def test_the_same_frames_steps_and_seed_give_the_same_codec_and_nothing_global_changes(frames: Bytes) -> None:
    torch.manual_seed(7)
    state, threads = torch.random.get_rng_state(), torch.get_num_threads()
    told = list[int]()
    one = fit_keypoints(frames[:50], BRIEF, seed=3, report=told.append)
    assert torch.equal(torch.random.get_rng_state(), state)
    assert torch.get_num_threads() == threads
    assert told == [1, 2, 3]
    torch.manual_seed(8)
    same, other = fit_keypoints(frames[:50], BRIEF, seed=3).tensors(), fit_keypoints(frames[:50], BRIEF, seed=4)
    for name, value in one.tensors().items():
        assert torch.equal(value, same[name]), name
    assert not torch.equal(one.tensors()["network.maps.weight"], other.tensors()["network.maps.weight"])


def test_frames_together_give_what_each_gives_alone(frames: Bytes, found: KeypointCodec) -> None:
    shown = frames[:150]  # more than are encoded at a time
    together = found.encode(shown)
    alone = np.concatenate([found.encode(frame[None]) for frame in shown])
    np.testing.assert_allclose(together, alone, atol=1e-3)
    np.testing.assert_array_equal(found.decode(together[:1])[0], found.decode(together)[0])
    assert found.encode(shown[:0]).shape == (0, 6)
    assert found.decode(together[:0]).shape == (0, SIDE, SIDE, 3)


@pytest.mark.parametrize("shape", [(30, 45, 1), (7, 90, 3), (64, 64, 3), (96, 128, 4), (5, 5, 2)])
def test_frames_of_any_size_and_number_of_channels_are_encoded_and_shown_again(shape: tuple[int, int, int]) -> None:
    frames = np.random.default_rng(0).integers(0, 256, (6, *shape), dtype=np.uint8)
    codec = codec_of(fit_keypoints(frames, BRIEF).tensors())
    assert (codec.shape, codec.latents) == (shape, 8)
    assert codec.encode(frames).shape == (6, 8)
    assert codec.decode(codec.encode(frames)).shape == (6, *shape)
    assert codec.misfit(frames).shape == (6,)


def test_a_camera_that_shows_one_picture_is_shown_as_it_is(found: KeypointCodec) -> None:
    frames = np.full((20, 16, 16, 3), 77, dtype=np.uint8)
    codec = fit_keypoints(frames, BRIEF)
    np.testing.assert_allclose(codec.encode(frames), 0, atol=1e-3)
    np.testing.assert_array_equal(codec.decode(codec.encode(frames)), frames)
    assert np.isfinite(codec.misfit(frames)).all()


@pytest.mark.parametrize("kind", ["keypoints", "components"])
def test_a_frame_that_is_partly_hidden_fits_its_decoding_worse_than_any_of_the_recording(
    kind: str, frames: Bytes, found: KeypointCodec
) -> None:
    codec: Codec = found if kind == "keypoints" else fit_codec(frames)
    usual = codec.misfit(frames)
    assert usual.mean() == pytest.approx(0, abs=0.05)
    assert usual.std() == pytest.approx(1, abs=0.05)
    hidden = _dots(20, 3)[0]
    assert (np.abs(codec.misfit(hidden)) < 6).all()
    hidden[:, 8:24, 8:24] = (0, 200, 0)
    assert (codec.misfit(hidden) > usual.max() + 1).all()
    again = codec_of(codec.tensors())
    np.testing.assert_allclose(again.misfit(hidden), codec.misfit(hidden), rtol=1e-5)


def test_components_of_before_do_not_say_what_is_usual(frames: Bytes) -> None:
    tensors = fit_codec(frames).tensors()
    del tensors["usual"]
    before = codec_of(tensors)
    np.testing.assert_array_equal(before.encode(frames[:5]), fit_codec(frames).encode(frames[:5]))
    with pytest.raises(ValueError, match="does not tell what it usually loses of a frame; train the policy anew"):
        before.misfit(frames)


def test_a_policys_file_keeps_a_codec_of_keypoints(tmp_path: Path, frames: Bytes, brief: KeypointCodec) -> None:
    spec = TrajectorySpec(
        streams=(
            StreamSpec(name="front", role="observation", shape=(SIDE, SIDE, 3)),
            StreamSpec(name="action", role="action", shape=(1,)),
        ),
        control_hz=10.0,
    )
    seen = {"front": brief.encode(frames[:50]), "action": np.zeros((49, 1), np.float32)}
    latents = StreamSpec(name="front", role="observation", shape=(8,))
    encoded = TrajectorySpec(streams=(latents, spec["action"]), control_hz=10.0)
    normaliser = Normaliser.fit(Trajectories(spec=encoded, streams=seen, lengths=np.array([49])))
    preset, revisions = Preset(name="seeing", vision=BRIEF), []
    for seed in (0, 0, 1):
        cameras = {"front": fit_keypoints(frames[:50], BRIEF, seed=seed)}
        save_policy(tmp_path / "policy.safetensors", preset, spec, normaliser, {}, {}, cameras=cameras)
        kept = load_policy_file(tmp_path / "policy.safetensors")
        revisions.append(kept.revision)
        np.testing.assert_array_equal(kept.cameras["front"].encode(frames), cameras["front"].encode(frames))
        assert kept.preset.vision == BRIEF
    assert revisions[0] == revisions[1] != revisions[2]


Damage = Callable[[dict[str, torch.Tensor]], object]


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda tensors: tensors.pop("network.maps.weight"), "network.maps.weight"),
        (lambda tensors: tensors.pop("centre"), "centre"),
        (lambda tensors: tensors.update(colour=torch.zeros(4)), r"needs 'colour' of shape \(3,\)"),
        (lambda tensors: tensors.update(std=tensors["std"][1:]), r"needs 'std' of shape \(8,\), got \(7,\)"),
        (lambda tensors: tensors.update(mean=tensors["mean"][:1]), r"needs 'mean' of shape \(32, 32, 3\)"),
        (lambda tensors: tensors.update(shape=torch.tensor([48, 32, 3])), r"camera of shape \(48, 32, 3\) with 3 key"),
        (lambda tensors: tensors.update({"network.spots": torch.zeros(4)}), "needs 'network.spots'"),
        (lambda tensors: tensors.update(usual=torch.tensor([0.0, 0.0])), "a mean and a positive deviation"),
    ],
)
def test_tensors_that_do_not_fit_together_are_no_codec(damage: Damage, message: str, brief: KeypointCodec) -> None:
    tensors = brief.tensors()
    damage(tensors)
    with pytest.raises((KeyError, ValueError), match=message):
        codec_of(tensors)


def test_a_recipe_says_how_cameras_are_seen_and_one_of_before_means_components() -> None:
    recipe = override(Preset(name="seeing"), "vision.kind=keypoints", "vision.steps=7")
    assert (recipe.vision.kind, recipe.vision.steps, recipe.vision.latents) == ("keypoints", 7, 32)
    assert from_json(Preset, {"name": "old"}).vision == VisionConfig(kind="components")


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("vision.kind=pixels", "vision.kind must be one of components, keypoints, got 'pixels'"),
        ("vision.keypoints=0", "keypoints must be at least 1, got 0"),
        ("vision.steps=0", "steps must be at least 1, got 0"),
        ("vision.counted=0", "counted must be positive, got 0"),
    ],
)
def test_what_cannot_be_is_refused(setting: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        override(Preset(name="seeing"), setting)
