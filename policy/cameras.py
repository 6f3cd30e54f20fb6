"""Recordings with cameras as networks train on them: each camera's stream of frames becomes one of latents.

Codecs (`vision`) are fitted once and travel with the policy, whose spec keeps the frames' shapes. Knows no file.
"""

from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial

import numpy as np
from torch import Tensor

from forcing.policy.keypoints import KeypointCodec, fit_keypoints
from forcing.policy.tokens import Normaliser
from forcing.policy.types import StreamSpec, Trajectories, TrajectorySpec, blocks
from forcing.policy.vision import BLOCK_BYTES, Codec, FrameCodec, VisionConfig, fit_codec

Codecs = Mapping[str, Codec]
"""Camera's stream -> its codec."""
COMPONENTS = VisionConfig()


def fit_codecs(
    trajectories: Trajectories,
    vision: VisionConfig = COMPONENTS,
    *,
    seed: int = 0,
    report: Callable[[str, int], None] = lambda camera, done: None,
) -> dict[str, Codec]:
    """A codec for each camera. Raises ValueError if goals are given in one, or its frames are not uint8.

    report: called with a camera and the steps done so far, where codecs are trained.
    """
    for stream in trajectories.spec.streams:
        if not stream.image:
            continue
        if stream.name == trajectories.spec.goal:
            raise ValueError(
                f"goal {stream.name!r} is a camera's stream, and goals are given in numbers; "
                "convert the recording with another goal stream, or none"
            )
        dtype = trajectories.frames[stream.name].dtype
        if dtype != np.uint8:
            raise ValueError(
                f"stream {stream.name!r} must be frames of uint8, got {dtype}; convert the recording again"
            )
    if vision.kind == "components":
        return {
            name: fit_codec(frames, latents=vision.components, seed=seed)
            for name, frames in trajectories.frames.items()
        }
    return {
        name: fit_keypoints(frames, vision, seed=seed, report=partial(report, name))
        for name, frames in trajectories.frames.items()
    }


def codec_of(tensors: Mapping[str, Tensor]) -> Codec:
    """The codec that a checkpoint keeps as these. Raises KeyError if one is missing, ValueError if they do not fit
    together."""
    return FrameCodec.from_tensors(tensors) if "components" in tensors else KeypointCodec.from_tensors(tensors)


def encoded(
    trajectories: Trajectories, codecs: Codecs, report: Callable[[int], None] = lambda done: None
) -> Trajectories:
    """The recording with latents, [rows, k] float32 in memory, in place of each camera's frames, which are gone through
    once, a block at a time. report: called with the frames done so far, of all cameras."""
    streams, done = dict(trajectories.streams), 0
    for name, frames in trajectories.frames.items():
        latents = np.empty((frames.shape[0], codecs[name].latents), dtype=np.float32)
        starts = blocks(frames, BLOCK_BYTES)
        for start in starts:
            block = frames[start : start + starts.step]
            latents[start : start + len(block)] = codecs[name].encode(block)
            report(done := done + len(block))
        streams[name] = latents
    return replace(trajectories, spec=encoded_spec(trajectories.spec, codecs), streams=streams, frames={})


def fit_normaliser(trajectories: Trajectories, codecs: Codecs, vision: VisionConfig = COMPONENTS) -> Normaliser:
    """Of an encoded recording: as `Normaliser.fit`, but all latents of a camera together vary by as much as
    `vision.counted` numbers (docs/decisions/0019). Raises ValueError on a non-finite value."""
    fitted = Normaliser.fit(trajectories)
    wider = {
        name: tuple(float(std * np.sqrt(max(1, codec.latents / vision.counted))) for std in fitted.std[name])
        for name, codec in codecs.items()
    }
    return replace(fitted, std={**fitted.std, **wider})


def encoded_spec(spec: TrajectorySpec, codecs: Codecs) -> TrajectorySpec:
    """What a network sees: each camera's stream is numbers of shape (k,)."""
    return _with_shapes(spec, {name: (codec.latents,) for name, codec in codecs.items()})


def raw_spec(spec: TrajectorySpec, codecs: Codecs) -> TrajectorySpec:
    """What a robot sends, from what a network sees: each camera's stream is frames of shape (h, w, c)."""
    return _with_shapes(spec, {name: codec.shape for name, codec in codecs.items()})


def _with_shapes(spec: TrajectorySpec, shapes: Mapping[str, tuple[int, ...]]) -> TrajectorySpec:
    """Frames and latents have neither units nor limits of their own."""
    streams = tuple(
        StreamSpec(name=stream.name, role="observation", shape=shapes[stream.name]) if stream.name in shapes else stream
        for stream in spec.streams
    )
    return replace(spec, streams=streams)
