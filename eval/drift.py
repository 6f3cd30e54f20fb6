"""How far what a network imagines is from what happened, token after token: in latents, in pixels, and in where cubes
are.

Cubes are where the streams say, or where a detector finds them in the frames that latents stand for.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from forcing.envs.swap_detector import find_cubes
from forcing.eval.held_out import POSITIONS, HeldOut
from forcing.policy.cameras import Codecs
from forcing.policy.tokens import Tokenizer
from forcing.policy.types import Array

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True, kw_only=True)
class Drift:
    """Errors of E episodes at T tokens.

    object_mm: [E, T] distance from where a cube was, mean of both. latent: [E, T] root mean square over all
    observations as the network sees them, in normalised units. pixel: [E, T] root mean square over all cameras, in
    grey levels; None without cameras. unseen: share of cubes, of all imagined frames, that the detector did not find;
    they count as where they were found last.
    """

    object_mm: Floats
    latent: Floats
    pixel: Floats | None
    unseen: float

    def curves(self) -> dict[str, list[list[float]] | None]:
        """As plain JSON."""
        return {
            "object_mm": np.round(self.object_mm, 2).tolist(),
            "latent": np.round(self.latent, 4).tolist(),
            "pixel": None if self.pixel is None else np.round(self.pixel, 2).tolist(),
        }


def drift(tokenizer: Tokenizer, codecs: Codecs, held: HeldOut, truth: Tensor, imagined: Tensor) -> Drift:
    """truth, imagined: [E, T, D], normalised."""
    observed = [s.name for s in tokenizer.streams if s.role == "observation"]
    off = [(imagined - truth)[..., tokenizer.slices[name]].square().sum(dim=-1) for name in observed]
    width = sum(tokenizer.slices[name].stop - tokenizer.slices[name].start for name in observed)
    values = tokenizer.decode(imagined)
    frames = shown(codecs, values)
    cubes, unseen = where_cubes_are(values, frames)
    return Drift(
        object_mm=1000 * np.linalg.norm(cubes - held.cubes_m, axis=-1).mean(axis=-1),
        latent=np.sqrt(np.asarray(sum(off), dtype=np.float64) / width),
        pixel=_pixel_error(frames, held) if frames else None,
        unseen=unseen,
    )


def shown(codecs: Codecs, values: Mapping[str, Array]) -> dict[str, Array]:
    """Camera -> [E, T, h, w, c] the frames that decoded latents stand for."""
    frames = {}
    for name, codec in codecs.items():
        latents = values[name]
        decoded = codec.decode(latents.reshape(-1, latents.shape[-1]).astype(np.float32))
        frames[name] = decoded.reshape(*latents.shape[:2], *decoded.shape[1:])
    return frames


def where_cubes_are(values: Mapping[str, Array], frames: Mapping[str, Array]) -> tuple[Floats, float]:
    """[E, T, 2, 3] in m, and the share that was not found, which is where it was found last.

    A cube that was not found yet is where it is found first; one that never is, in the middle of all others.
    """
    if set(POSITIONS) <= values.keys():
        return np.stack([values[name] for name in POSITIONS], axis=2), 0.0
    found = find_cubes(frames).position_m
    missing = np.asarray(np.isnan(found).any(axis=-1))
    return _held(found, missing), float(missing.mean())


def _held(found: Floats, missing: NDArray[np.bool_]) -> Floats:
    tokens = np.arange(found.shape[1])[None, :, None]
    last = np.maximum.accumulate(np.where(missing, -1, tokens), axis=1)
    first = np.argmin(missing, axis=1)[:, None]
    held = np.take_along_axis(found, np.where(last < 0, first, last)[..., None], axis=1)
    return np.where(np.isnan(held), np.nanmean(found, axis=(0, 1, 2)), held)


def _pixel_error(frames: Mapping[str, Array], held: HeldOut) -> Floats:
    """[E, T], an episode at a time: of all together only bytes are in memory."""
    return np.array(
        [
            np.sqrt(np.mean([_squares(of[number], held.streams[name][number]) for name, of in frames.items()], axis=0))
            for number in range(len(held.numbers))
        ]
    )


def _squares(one: Array, other: Array) -> Floats:
    """[T] mean squares of the difference of frames [T, h, w, c]."""
    squares: Floats = np.square(one.astype(np.float64) - other).mean(axis=(1, 2, 3))
    return squares
