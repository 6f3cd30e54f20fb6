"""How unlikely what is observed is, stream by stream, to a policy that remembers: the anomaly score.

Its plans foresee what will be observed. What comes instead is off by a residual, whose entries are taken as independent
Student's t: pushes, slips and dropped cubes make tails that are powers. A frame is as likely as its latents, given what
was foreseen, and then as itself, given its latents: by how much its codec loses of it (`vision.Usual`). All of it is
measured on the recording (`foreseeing`). Knows no network and no file.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import lgamma, log, pi

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from forcing.policy.rarity import Tail, either
from forcing.policy.types import TrajectorySpec

AFTER = (0, 1, 2, 4, 8, 16)  # tokens without a stream after which its residuals are measured
WAYS = 2  # in which a stream is not heard: alone, or with all that a policy learns to go without
FREEDOMS = (1.0, 2.0, 4.0, 8.0, np.inf)  # that a t may have; the last is normal
LEAST = 0.01  # recorded standard deviations: nothing is foreseen better
ROUNDS = 30  # of fitting a scale

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True, kw_only=True)
class Seen:
    """One reading beside what was foreseen of it.

    residual: [size], in recorded standard deviations, None where nothing was foreseen. ahead: control steps that it was
    foreseen, from 1. unheard: tokens that the stream had not been heard then, and that all had not which a policy
    learns to go without. noise: standard error of the reading, in recorded standard deviations. misfit: of a frame.
    """

    residual: Floats | None
    ahead: int
    unheard: tuple[int, int]
    noise: float
    misfit: float | None


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Residuals:
    """How far a stream of `size` entries is from what was foreseen, in recorded standard deviations.

    scale: [WAYS, K, J, size] of the t, after each of `AFTER`, by control steps ahead. freedom: [size] of the t. tails:
    [WAYS][K] of `unlikely`, of all steps ahead. misfit: tail of a camera's, None of numbers.
    """

    scale: Floats
    freedom: Floats
    tails: tuple[tuple[Tail, ...], ...]
    misfit: Tail | None = None

    def surprise(self, seen: Seen) -> float | None:
        """-log10 of the share of recorded readings that were as unlikely; None where nothing tells.

        Of the two ways in which a stream may have been unheard the kinder counts.
        """
        found = None
        if seen.residual is not None and 1 <= seen.ahead <= self.scale.shape[2]:
            ways = []
            for way, tokens in enumerate(seen.unheard):
                after = min(int(np.searchsorted(AFTER, tokens)), len(AFTER) - 1)
                scale = np.hypot(self.scale[way, after, seen.ahead - 1], seen.noise)
                ways.append(self.tails[way][after].rarity(float(unlikely(seen.residual / scale, self.freedom))))
            found = min(ways)
        if seen.misfit is None or self.misfit is None:
            return found
        lost = self.misfit.rarity(seen.misfit)
        return lost if found is None else either(found, lost)

    def tensors(self) -> dict[str, Tensor]:
        """As a checkpoint keeps it."""
        tails = torch.stack([torch.stack([tail.tensor() for tail in way]) for way in self.tails])
        kept = {"scale": torch.from_numpy(self.scale), "freedom": torch.from_numpy(self.freedom), "tails": tails}
        return kept if self.misfit is None else kept | {"misfit": self.misfit.tensor()}

    @classmethod
    def of_tensors(cls, tensors: Mapping[str, Tensor], name: str) -> "Residuals":
        """name: of the stream. Raises KeyError if one is missing, ValueError if they do not fit together."""
        scale, freedom, tails = (tensors[part].numpy() for part in ("scale", "freedom", "tails"))
        fits = scale.ndim == 4 and scale.shape[3:] == freedom.shape
        if not fits or not scale.shape[:2] == tails.shape[:2] == (WAYS, len(AFTER)) or not (scale > 0).all():
            raise ValueError(
                f"residuals of {name!r} need positive scales [{WAYS}, {len(AFTER)}, J, n], freedom [n] and tails, "
                f"got {scale.shape}, {freedom.shape} and {tails.shape}"
            )
        return cls(
            scale=scale,
            freedom=freedom,
            tails=tuple(tuple(Tail.of_tensor(tail) for tail in way) for way in tensors["tails"]),
            misfit=Tail.of_tensor(tensors["misfit"]) if "misfit" in tensors else None,
        )


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Surprise:
    """What is usual of each observation stream. streams: name -> its residuals."""

    streams: Mapping[str, Residuals]

    def tensors(self) -> dict[str, Tensor]:
        """As a checkpoint keeps it."""
        return {
            f"{stream}.{name}": value
            for stream, usual in self.streams.items()
            for name, value in usual.tensors().items()
        }

    @classmethod
    def of_tensors(cls, tensors: Mapping[str, Tensor], spec: TrajectorySpec) -> "Surprise":
        """spec: as networks see it. Raises KeyError if one is missing, ValueError if they do not fit it."""
        streams = {}
        for stream in spec.of_role("observation"):
            prefix = f"{stream.name}."
            own = {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}
            streams[stream.name] = Residuals.of_tensors(own, stream.name)
            if streams[stream.name].freedom.shape != (stream.size,):
                entries = len(streams[stream.name].freedom)
                raise ValueError(f"residuals of {stream.name!r} must have {stream.size} entries, got {entries}")
        return cls(streams=streams)


def unlikely(residual: Floats, freedom: Floats) -> Floats:
    """[...]: negative log likelihood of residuals [..., n] in units of their scales, each Student's t.

    The scales' own logs are left out: they are the same for all that it is compared with.
    """
    square = np.square(residual)
    normal = np.isinf(freedom)
    many = np.where(normal, 1.0, freedom)
    tails = np.where(normal, square / 2, (many + 1) / 2 * np.log1p(square / many))
    constant = sum(_constant(float(one)) for one in freedom)
    result: Floats = tails.sum(axis=-1) + constant
    return result


def _constant(freedom: float) -> float:
    if np.isinf(freedom):
        return log(2 * pi) / 2
    return lgamma(freedom / 2) - lgamma((freedom + 1) / 2) + log(pi * freedom) / 2


def residuals_of(groups: Sequence[Sequence[Floats]], misfits: Floats | None = None) -> Residuals:
    """What is read off residuals: [WAYS][K] of [m, J, n], in recorded standard deviations. misfits: [m] of frames.

    Freedom is the likeliest of those that were heard (the first of each way), scales the likeliest of each, and no less
    than after fewer tokens unheard.
    """
    heard = groups[0][0]
    likeliest = np.argmax(
        [-_cost(heard, scale_of(heard, np.full(heard.shape[-1], freedom)), freedom) for freedom in FREEDOMS],
        axis=0,
    )
    freedom = np.array(FREEDOMS)[likeliest]
    scale = np.stack([np.stack([scale_of(group, freedom) for group in way]) for way in groups])
    scale = np.maximum.accumulate(scale, axis=1)
    tails = tuple(
        tuple(Tail.of(unlikely(group / scales, freedom).reshape(-1)) for group, scales in zip(way, chosen, strict=True))
        for way, chosen in zip(groups, scale, strict=True)
    )
    return Residuals(scale=scale, freedom=freedom, tails=tails, misfit=None if misfits is None else Tail.of(misfits))


def scale_of(residual: Floats, freedom: Floats) -> Floats:
    """[J, n] likeliest scales of t about 0, of residuals [m, J, n]; at least `LEAST`.

    Expectation maximisation, each residual weighed by what it is worth (Lange, Little and Taylor, J. Am. Stat. Assoc.
    84, 1989, section 3).
    """
    square = np.square(residual)
    least = LEAST**2
    normal = np.isinf(freedom)
    many = np.where(normal, 1.0, freedom)
    scale = np.maximum(np.median(square, axis=0) / 0.4549, least)  # the median of a squared normal number
    for _ in range(ROUNDS):
        weight = np.where(normal, 1.0, (many + 1) / (many + square / scale))
        scale = np.maximum((weight * square).mean(axis=0), least)
    return np.sqrt(scale)


def _cost(residual: Floats, scale: Floats, freedom: float) -> Floats:
    """[n] negative log likelihood of residuals [m, J, n]."""
    each = unlikely((residual / scale)[..., None], np.array([freedom])) + np.log(scale)
    result: Floats = each.sum(axis=(0, 1))
    return result
