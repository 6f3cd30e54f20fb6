"""The recordings of `forcing bench data`, made with a seed: moving pictures and random walks, in every format compared.

A folder of one recording holds store.zarr (ours), minari/ (a root with bench/data-v0), plain.zarr (one array a stream,
in chunks) and memmap/ (one .npy a stream).
"""

import subprocess
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import zarr

from forcing.datasets.episodes import Episode, InMemory
from forcing.datasets.minari_export import export_minari
from forcing.datasets.store import write_store
from forcing.policy.types import Array, StreamSpec, Trajectories, TrajectorySpec

MINARI_ID = "bench/data-v0"
PLAIN_CHUNKS = {"frames": 32, "numbers": 1024}
PICTURE_STEPS = 199  # an episode of 200 frames
WALK_STEPS = 400
SCENES = 8  # of a larger recording
NOISE = 2.0  # of a camera, in its levels


@dataclass(frozen=True, slots=True)
class MovingPictures:
    """A `Recording` of a camera: soft shapes that move before a soft ground, with the noise of a sensor.

    side: of a frame, in pixels. scenes: after as many episodes pictures repeat, brighter or darker.
    """

    episodes_count: int
    side: int = 96
    seed: int = 0
    scenes: int = 1 << 30

    @property
    def spec(self) -> TrajectorySpec:
        return TrajectorySpec(
            streams=(
                StreamSpec(name="camera", role="observation", shape=(self.side, self.side, 3)),
                StreamSpec(name="action", role="action", shape=(2,)),
            ),
            control_hz=10.0,
        )

    def episodes(self) -> Iterator[Episode]:
        kept: dict[int, Array] = {}
        for index in range(self.episodes_count):
            rng = np.random.default_rng((self.seed, index))
            scene = index % self.scenes
            if scene not in kept:
                frames = _scene(PICTURE_STEPS + 1, self.side, np.random.default_rng((self.seed, scene)))
                if self.scenes <= self.episodes_count:
                    kept[scene] = frames
            else:
                frames = kept[scene] + np.uint8(index // self.scenes)
            action = rng.uniform(-1, 1, (PICTURE_STEPS, 2)).astype(np.float32)
            yield Episode({"camera": frames, "action": action}, f"episode {index}")

    def provenance(self) -> Mapping[str, Any]:
        return {"source": "forcing bench data", "seed": self.seed}


def random_walks(episodes: int, seed: int) -> Trajectories:
    """Positions, velocities and actions in two dimensions, 100 Hz."""
    rng = np.random.default_rng(seed)
    spec = TrajectorySpec(
        streams=(
            StreamSpec(name="position", role="observation", shape=(2,), units="m"),
            StreamSpec(name="velocity", role="observation", shape=(2,), units="m/s", rate_of="position"),
            StreamSpec(name="action", role="action", shape=(2,), low=(-1.0, -1.0), high=(1.0, 1.0)),
        ),
        control_hz=100.0,
    )
    velocity = rng.standard_normal((episodes, WALK_STEPS + 1, 2)).astype(np.float32)
    streams: dict[str, Array] = {
        "position": (np.cumsum(velocity, axis=1) / 100).reshape(-1, 2),
        "velocity": velocity.reshape(-1, 2),
        "action": rng.uniform(-1, 1, (episodes * WALK_STEPS, 2)).astype(np.float32),
    }
    return Trajectories(spec=spec, streams=streams, lengths=np.full(episodes, WALK_STEPS))


def write_pictures(recording: MovingPictures, folder: Path) -> None:
    """All formats of it; made once, and read from the memory map for the others."""
    (folder / "memmap").mkdir(parents=True)
    rows, side = recording.episodes_count * (PICTURE_STEPS + 1), recording.side
    camera = np.lib.format.open_memmap(
        folder / "memmap" / "camera.npy", mode="w+", dtype=np.uint8, shape=(rows, side, side, 3)
    )
    actions = []
    for index, episode in enumerate(recording.episodes()):
        start = index * (PICTURE_STEPS + 1)
        camera[start : start + PICTURE_STEPS + 1] = episode.streams["camera"]
        actions.append(episode.streams["action"])
    camera.flush()
    action = np.concatenate(actions)
    np.save(folder / "memmap" / "action.npy", action)
    lengths = np.full(recording.episodes_count, PICTURE_STEPS)
    made = Trajectories(spec=recording.spec, streams={"action": action}, lengths=lengths, frames={"camera": camera})
    _write(made, folder, PLAIN_CHUNKS["frames"])


def write_walks(walks: Trajectories, folder: Path) -> None:
    """All formats of it."""
    (folder / "memmap").mkdir(parents=True)
    for name, values in walks.streams.items():
        np.save(folder / "memmap" / f"{name}.npy", values)
    _write(walks, folder, PLAIN_CHUNKS["numbers"])


def write_larger(folder: Path, episodes: int, seed: int) -> float:
    """The peak of memory in MiB of a process that streams so many episodes of pictures into store.zarr."""
    code = (
        "from pathlib import Path; from forcing.datasets.store import write_store; "
        "from forcing.eval.bench_data_files import MovingPictures; from forcing.eval.bench_data_worker import peak_mb; "
        f"write_store(MovingPictures({episodes}, seed={seed}, scenes={SCENES}), Path({str(folder)!r}) / 'store.zarr'); "
        "print(peak_mb())"
    )
    return float(subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout)


def _write(made: Trajectories, folder: Path, chunk: int) -> None:
    np.save(folder / "lengths.npy", made.lengths)
    write_store(made, folder / "store.zarr")
    plain = zarr.create_group(zarr.storage.LocalStore(folder / "plain.zarr"))
    for stream in made.spec.streams:
        values = np.asarray((made.frames if stream.image else made.streams)[stream.name])
        plain.create_array(stream.name, data=values, chunks=(min(chunk, len(values)), *stream.shape))
    export_minari(InMemory(made), folder / "minari", MINARI_ID)


def _scene(frames: int, side: int, rng: np.random.Generator) -> Array:
    """[frames, side, side, 3] uint8."""
    y, x = np.mgrid[0:side, 0:side].astype(np.float32) / side
    time = np.arange(frames, dtype=np.float32)[:, None, None] / 30
    waves = rng.uniform(0.5, 2.0, (3, 2))
    ground = [110 + 50 * np.sin(2 * np.pi * (a * x + b * y)) for a, b in waves]
    centre = 0.5 + 0.3 * np.sin(time * rng.uniform(0.5, 2.0, 2) + rng.uniform(0, 6, 2))  # [frames, 1, 2]
    shape = np.exp(-((x - centre[..., :1]) ** 2 + (y - centre[..., 1:]) ** 2) / 0.02)
    pictures = np.empty((frames, side, side, 3), np.uint8)
    for channel in range(3):
        noise = NOISE * rng.standard_normal(shape.shape, dtype=np.float32)
        pictures[..., channel] = np.clip(ground[channel] + 60 * shape + noise, 0, 255)
    return pictures
