"""A camera's codec that finds things: a small convolutional auto-encoder whose latents are mostly places in the frame.

A keypoint is where one of the encoder's maps is highest, on average over the frame (soft-argmax); the decoder draws a
spot there. So a thing that moves is two latents, which follow it evenly. After Jakab et al. (2018), arXiv:1806.07823,
and Finn et al. (2016), arXiv:1509.06113; what is ours is where keypoints begin, at colours that stand out, and not all
over the frame (docs/decisions/0020). Knows no policy and no recording's format.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from math import cos, log, pi

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from forcing.policy.colours import Tellers, tell_colours
from forcing.policy.grids import Floats, averaged, spread_out
from forcing.policy.types import Array, Frames
from forcing.policy.vision import LIMIT, ROUNDING, Usual, VisionConfig, as_pixels, sampled

SIDE = 64  # cells a side at the most
CHANNELS = 16
STILL = 0.02  # least standard deviation a latent is divided by; of a keypoint, of half the frame
TOGETHER = 128  # frames that are encoded at a time
SAMPLE, MEASURED, COLOURED = 16384, 4096, 256  # frames for training, for statistics, and to find colours in
LEARNING_RATE, WARMUP, CLIP = 6e-3, 0.1, 1.0
KEPT = "network."  # before the names of weights in a checkpoint
FIRST_SPOT = 0.1  # a spot's radius, of half the frame
FAINT, SHARP = 0.1, 6.0  # first weights beside those that tell colours, as shares; of a colour's own cells in a map


class AutoEncoder(nn.Module):
    """From folded frames, [N, 4c, h, w], to raw latents [N, 2 * keypoints + values], and to frames less their mean.

    Raw latents are x of each keypoint, then y of each, -1 to 1 from edge to edge, and the values. The channels of four
    neighbours are one place's of a folded frame (`_folded`): layers at full resolution would cost four times as much.
    """

    rows: Tensor
    columns: Tensor

    def __init__(self, keypoints: int, values: int, size: tuple[int, int], channels: int, wide: int) -> None:
        """size: [h, w], multiples of 4. channels: 4c. wide: of the layers."""
        super().__init__()
        self.keypoints = keypoints
        self.seen = nn.ModuleList([_conv(channels, wide), _conv(wide, wide)])
        self.maps = nn.Conv2d(wide, keypoints, 1)
        self.narrowed = nn.ModuleList([_conv(wide, wide, stride=2), _conv(wide, wide, stride=2)])
        self.values = nn.Linear(wide * (size[0] // 4) * (size[1] // 4), values)
        self.spots = nn.Parameter(torch.full((keypoints,), log(FIRST_SPOT)))
        self.place = nn.Parameter(torch.zeros(wide, *size))
        self.told = nn.Linear(values, wide * 16)
        self.drawn = nn.ModuleList([_conv(keypoints, wide), _conv(wide, wide)])
        self.painted = _conv(wide, channels)
        self.register_buffer("rows", torch.linspace(-1, 1, size[0]), persistent=False)
        self.register_buffer("columns", torch.linspace(-1, 1, size[1]), persistent=False)
        self.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # twice as fast on a processor

    @torch.no_grad()
    def look_for(self, tellers: Tellers) -> None:
        """Has each keypoint begin at the cells that one of as many functions of a colour is highest at."""
        every = range(self.keypoints)
        colours = torch.from_numpy(tellers.weights).float()
        first, *others = (layer for layer in self.seen if isinstance(layer, nn.Conv2d))
        for layer in (first, *others, self.maps):
            assert layer.bias is not None
            layer.weight[: self.keypoints] *= FAINT
            layer.bias[: self.keypoints] = 0
        assert first.bias is not None
        first.weight[every, :, 1, 1] += colours.repeat(1, 4) / 4
        first.bias[every] = torch.from_numpy(tellers.bias).float()
        for layer in others:
            layer.weight[every, every, 1, 1] += 1
        self.maps.weight[every, every, 0, 0] += SHARP

    def encode(self, folded: Tensor) -> Tensor:
        """[N, 4c, h, w] to raw latents."""
        features = folded
        for layer in self.seen:
            features = F.relu(layer(features))
        maps = self.maps(features)
        where = F.softmax(maps.flatten(2), dim=-1).reshape(maps.shape)
        x, y = (where.sum(dim=2) * self.columns).sum(dim=-1), (where.sum(dim=3) * self.rows).sum(dim=-1)
        for layer in self.narrowed:
            features = F.relu(layer(features))
        return torch.cat([x, y, self.values(features.flatten(1))], dim=1)

    def decode(self, latents: Tensor) -> Tensor:
        """Raw latents to [N, 4c, h, w]."""
        x, y, values = latents.tensor_split((self.keypoints, 2 * self.keypoints), dim=1)
        narrow = 0.5 * torch.exp(-2 * self.spots)[:, None]
        across = torch.exp(-narrow * (self.columns - x[..., None]).square())
        down = torch.exp(-narrow * (self.rows - y[..., None]).square())
        spots = (down[..., :, None] * across[..., None, :]).contiguous(memory_format=torch.channels_last)
        told = self.told(values).reshape(len(values), -1, 4, 4)
        features = self.drawn[0](spots) + self.place + F.interpolate(told, size=self.place.shape[1:], mode="bilinear")
        for layer in self.drawn[1:]:
            features = layer(F.relu(features))
        shown: Tensor = self.painted(F.relu(features))
        return shown


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class KeypointCodec:
    """The codec of keypoints.

    shape: [h, w, c] of a frame, uint8. network: takes frames averaged to its grid, less `colour` [c], divided by
    `scale` and folded, and shows them less `mean` [rows, columns, c]; all in grey levels. centre, std: [k] of raw
    latents over the recording. explained: share of the grid's variance that latents hold. usual: of the grid's cells.
    """

    shape: tuple[int, int, int]
    network: AutoEncoder
    colour: Tensor
    mean: Tensor
    scale: float
    centre: Floats
    std: Floats
    explained: float
    usual: Usual

    @property
    def latents(self) -> int:
        return len(self.std)

    @torch.no_grad()
    def encode(self, frames: Array) -> Floats:
        """See `vision.Codec`."""
        found = [self._latents(grid) for grid in self.grids(frames)]
        return np.concatenate([np.empty((0, self.latents), np.float32), *found])

    @torch.no_grad()
    def decode(self, latents: Array) -> NDArray[np.uint8]:
        """See `vision.Codec`."""
        shown = [np.empty((0, *self.shape), np.uint8)]
        for start in range(0, len(latents), TOGETHER):
            grid = self._shown(latents[start : start + TOGETHER])
            shown.append(as_pixels(spread_out(grid.numpy(), *self.shape[:2])))
        return np.concatenate(shown)

    def misfit(self, frames: Array) -> Floats:
        """See `vision.Codec`."""
        return self.usual.misfit(self.lost(frames))

    @torch.no_grad()
    def lost(self, frames: Array) -> Floats:
        """[N]: mean square error of each frame [N, h, w, c] on the grid, in grey levels squared."""
        found = [torch.empty(0)]
        for grid in self.grids(frames):
            found.append((self._shown(self._latents(grid)) - grid).square().mean(dim=(1, 2, 3)))
        lost: Floats = torch.cat(found).numpy()
        return lost

    def tensors(self) -> dict[str, Tensor]:
        """See `vision.Codec`."""
        weights = {KEPT + name: value for name, value in self.network.state_dict().items()}
        return weights | {
            "shape": torch.tensor(self.shape),
            "colour": self.colour,
            "mean": self.mean,
            "scale": torch.tensor([self.scale], dtype=torch.float64),
            "centre": torch.from_numpy(self.centre),
            "std": torch.from_numpy(self.std),
            "explained": torch.tensor([self.explained], dtype=torch.float64),
            "usual": self.usual.tensor(),
        }

    @classmethod
    def from_tensors(cls, tensors: Mapping[str, Tensor]) -> "KeypointCodec":
        """Raises KeyError if one is missing, ValueError if they do not fit together."""
        height, width, channels = (int(size) for size in tensors["shape"])
        keypoints, wide, _, _ = tensors[KEPT + "maps.weight"].shape
        values = tensors[KEPT + "values.bias"].shape[0]
        size = (_side(height), _side(width))
        network = AutoEncoder(keypoints, values, (size[0] // 2, size[1] // 2), 4 * channels, wide)
        shapes = {KEPT + name: tuple(value.shape) for name, value in network.state_dict().items()}
        shapes |= {"colour": (channels,), "mean": (*size, channels)}
        shapes |= {"centre": (2 * keypoints + values,), "std": (2 * keypoints + values,)}
        for name, shape in shapes.items():
            if tuple(tensors[name].shape) != shape:
                raise ValueError(
                    f"a camera of shape {(height, width, channels)} with {keypoints} keypoints and {values} values "
                    f"needs {name!r} of shape {shape}, got {tuple(tensors[name].shape)}"
                )
        network.load_state_dict({name: tensors[KEPT + name] for name in network.state_dict()})
        return cls(
            shape=(height, width, channels),
            network=network.requires_grad_(False),
            colour=tensors["colour"],
            mean=tensors["mean"],
            scale=float(tensors["scale"][0]),
            centre=tensors["centre"].numpy(),
            std=tensors["std"].numpy(),
            explained=float(tensors["explained"][0]),
            usual=Usual.of_tensor(tensors["usual"]),
        )

    def grids(self, frames: Array) -> Iterator[Tensor]:
        """Frames averaged to the grid, [n, rows, columns, c], some at a time."""
        for start in range(0, len(frames), TOGETHER):
            yield torch.from_numpy(averaged(frames[start : start + TOGETHER], *self.mean.shape[:2]))

    def raw(self, grid: Tensor) -> Tensor:
        """[n, k] raw latents of frames on the grid."""
        latents: Tensor = self.network.encode(_folded((grid - self.colour) / self.scale))
        return latents

    def _latents(self, grid: Tensor) -> Floats:
        found: Floats = np.clip((self.raw(grid).numpy() - self.centre) / self.std, -LIMIT, LIMIT)
        return found

    def _shown(self, latents: Array) -> Tensor:
        raw = (np.asarray(latents) * self.std + self.centre).astype(np.float32)
        return _unfolded(self.network.decode(torch.from_numpy(raw))) * self.scale + self.mean


def fit_keypoints(
    frames: Frames, config: VisionConfig, *, seed: int = 0, report: Callable[[int], None] = lambda done: None
) -> KeypointCodec:
    """The codec of a camera, trained for `config.steps` to show a random sample of its frames again from latents.

    frames: [N, h, w, c] uint8, of which a block at a time is in memory, and the sample. The same frames, config and
    seed give the same codec on the same machine. report: called with the steps done so far. Raises FloatingPointError
    if the loss is not finite.
    """
    rng = np.random.default_rng(seed)
    sample = sampled(frames, SAMPLE, rng, lambda block: as_pixels(averaged(block, *_sides(block.shape))))
    some = sample[:: max(1, len(sample) // MEASURED)]
    mean = some.mean(axis=0, dtype=np.float64).astype(np.float32)
    scale = max(float(np.sqrt(np.mean([np.square(frame - mean).mean() for frame in some]))), ROUNDING)
    colour = mean.mean(axis=(0, 1))
    height, width, channels = (int(size) for size in frames.shape[1:])
    size = (mean.shape[0] // 2, mean.shape[1] // 2)
    with one_thread(), torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        codec = KeypointCodec(
            shape=(height, width, channels),
            network=AutoEncoder(config.keypoints, config.values, size, 4 * channels, max(CHANNELS, config.keypoints)),
            colour=torch.from_numpy(colour),
            mean=torch.from_numpy(mean),
            scale=scale,
            centre=np.zeros(config.latents, np.float32),
            std=np.ones(config.latents, np.float32),
            explained=0.0,
            usual=Usual(mean=0.0, std=1.0),
        )
        few = averaged(some[rng.choice(len(some), min(COLOURED, len(some)), replace=False)], *size)
        tellers = tell_colours(
            (few - colour) / scale, (averaged(mean[None], *size)[0] - colour) / scale, config.keypoints, rng
        )
        if tellers is not None:
            codec.network.look_for(tellers)
        _train(codec, sample, config, rng, report)
        return _measured(codec, some)


def _train(
    codec: KeypointCodec,
    sample: NDArray[np.uint8],
    config: VisionConfig,
    rng: np.random.Generator,
    report: Callable[[int], None],
) -> None:
    """Trains the codec's network, and then holds it fixed."""
    network = codec.network
    optimiser = torch.optim.AdamW(network.parameters(), lr=LEARNING_RATE, betas=(0.9, 0.99), weight_decay=0.0)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimiser, lambda step: _rate(step / config.steps))
    for step in range(config.steps):
        grid = torch.from_numpy(sample[rng.integers(0, len(sample), config.batch)]).float()
        shown = network.decode(codec.raw(grid))
        loss = (shown - _folded((grid - codec.mean) / codec.scale)).square().mean()
        if not torch.isfinite(loss):
            raise FloatingPointError(f"the loss of a camera's codec is {float(loss.detach())} after {step} steps")
        optimiser.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(network.parameters(), CLIP)
        optimiser.step()
        schedule.step()
        report(step + 1)
    network.requires_grad_(False)


def _rate(done: float) -> float:
    """Share of the learning rate after this share of the run: it rises at first, then falls along a cosine."""
    return min(done / WARMUP + 1e-3, 0.5 + 0.5 * cos(pi * max(0.0, done - WARMUP) / (1 - WARMUP)))


def _measured(codec: KeypointCodec, sample: NDArray[np.uint8]) -> KeypointCodec:
    """The trained codec with what only frames tell of it."""
    with torch.no_grad():
        raw = torch.cat([codec.raw(grid) for grid in codec.grids(sample)]).numpy()
    centre = raw.mean(axis=0, dtype=np.float64).astype(np.float32)
    std = np.maximum(raw.std(axis=0), STILL).astype(np.float32)
    scaled = replace(codec, centre=centre, std=std)
    lost = scaled.lost(sample)
    explained = 1 - float(lost.mean()) / codec.scale**2
    return replace(scaled, explained=explained, usual=Usual.of(lost))


@contextmanager
def one_thread() -> Iterator[None]:
    """Sums are taken in one order, which weights depend on; and to a network this small threads give little."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _conv(taken: int, given: int, *, stride: int = 1) -> nn.Conv2d:
    return nn.Conv2d(taken, given, 3, stride=stride, padding=1)


def _folded(grid: Tensor) -> Tensor:
    """[N, h, w, c] to [N, 4c, h/2, w/2], the four cells of each square in one place."""
    count, height, width, channels = grid.shape
    squares = grid.reshape(count, height // 2, 2, width // 2, 2, channels).transpose(2, 3)
    return squares.reshape(count, height // 2, width // 2, 4 * channels).permute(0, 3, 1, 2)


def _unfolded(folded: Tensor) -> Tensor:
    """[N, 4c, h/2, w/2] to [N, h, w, c]."""
    count, channels, height, width = folded.shape
    squares = folded.permute(0, 2, 3, 1).reshape(count, height, width, 2, 2, channels // 4).transpose(2, 3)
    return squares.reshape(count, 2 * height, 2 * width, channels // 4)


def _sides(shape: Sequence[int]) -> tuple[int, int]:
    """The grid's, of frames [N, h, w, c]."""
    return _side(shape[1]), _side(shape[2])


def _side(size: int) -> int:
    """Cells along a side: what can be halved three times."""
    return max(8, min(size, SIDE) // 8 * 8)
