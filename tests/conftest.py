"""A small recording in each format that we read, of the same kind of robot; and commands, run in this process."""

import json
import shutil
import warnings
import zipfile
from collections.abc import Callable, Mapping
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import gymnasium
import h5py
import minari
import numpy as np
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
import zarr
from gymnasium import spaces
from minari.data_collector import EpisodeBuffer
from numpy.typing import NDArray
from tests.command_line import Said, call

from forcing.datasets.recorder import Recorder
from forcing.datasets.store import write_store
from forcing.policy.types import EpisodeNote, StreamSpec, Trajectories, TrajectorySpec

LENGTHS = (40, 36, 44, 40)
D4RL_LENGTHS = (120, 100, 140, 120)
SIDE, HZ = 24, 20
SAMPLES = Path(__file__).parent / "datasets" / "samples"


@dataclass(frozen=True, slots=True)
class Recorded:
    """Where a recording is, and what must be said besides to read it. first: rows of some streams of its first episode,
    from where it was made."""

    path: Path
    options: str = ""
    first: Mapping[str, NDArray[Any]] = field(default_factory=dict)


@pytest.fixture(scope="session")
def forcing() -> Callable[..., Said]:
    """`call`, for tests that name its type alone."""
    return call


def frame(dot: NDArray[Any], rng: np.random.Generator) -> NDArray[np.uint8]:
    """A bright dot in the dark at [x, y] within -1 and 1, with pixel noise."""
    picture = rng.integers(20, 30, (SIDE, SIDE, 3), dtype=np.uint8)
    row, column = np.mgrid[:SIDE, :SIDE]
    centre = (np.clip(dot, -1, 1) + 1) / 2 * (SIDE - 7) + 3
    picture[np.square(column - centre[0]) + np.square(row - centre[1]) < 9] = (230, 60, 40)
    return picture


def driven(length: int, seed: int) -> dict[str, NDArray[Any]]:
    """A hand drawn to a place and pushed about on the way: hand, front [length + 1], action, reward [length]."""
    rng = np.random.default_rng(seed)
    place, hand, actions = rng.uniform(-0.8, 0.8, 2), [rng.uniform(-0.9, 0.9, 2)], []
    for _ in range(length):
        actions.append(np.clip(2 * (place - hand[-1]) + rng.normal(0, 0.2, 2), -1, 1).astype(np.float32))
        hand.append(hand[-1] + 0.1 * actions[-1])
    return {
        "hand": np.array(hand, np.float32),
        "front": np.stack([frame(at, rng) for at in hand]),
        "action": np.array(actions),
        "reward": -np.linalg.norm(np.array(hand[1:]) - place, axis=1).astype(np.float32),
    }


def pointmass(length: int, seed: int) -> dict[str, NDArray[Any]]:
    """v' = v + a/20, x' = x + v'/100: position, velocity [length + 1], action [length], as D4RL's maze2d."""
    rng = np.random.default_rng(seed)
    action = np.repeat(rng.uniform(-1, 1, (length // 4 + 1, 2)), 4, axis=0)[:length]
    velocity = np.cumsum(np.concatenate([rng.uniform(-1, 1, (1, 2)), action / 20]), axis=0)
    position = np.cumsum(np.concatenate([rng.uniform(1, 4, (1, 2)), velocity[1:] / 100]), axis=0)
    return {"position": position, "velocity": velocity, "action": action}


def minari_dataset(root: Path, name: str, space: spaces.Space[Any], observed: Callable[[Any], Any], kind: str) -> Path:
    """The folder of a dataset that Minari wrote; frames as they are."""
    buffers = []
    for seed, length in enumerate(LENGTHS):
        made = driven(length, seed)
        buffers.append(
            EpisodeBuffer(
                observations=observed(made),
                actions=made["action"],
                rewards=made["reward"].astype(float),
                terminations=np.zeros(length, bool),
                truncations=np.arange(length) == length - 1,
            )
        )
    with warnings.catch_warnings(), pytest.MonkeyPatch.context() as patch:
        warnings.simplefilter("ignore", UserWarning)
        patch.setenv("MINARI_DATASETS_PATH", str(root))
        minari.create_dataset_from_buffers(
            name,
            buffers,
            observation_space=space,
            action_space=spaces.Box(-1, 1, (2,)),
            description="a hand",
            data_format=kind,
            jpeg_encoding=False,
        )
    return root / name


def d4rl_file(path: Path) -> Path:
    """As maze2d's: rows of all episodes below one another, the last of each flagged."""
    parts = [pointmass(length, seed) for seed, length in enumerate(D4RL_LENGTHS)]
    last = np.concatenate([np.arange(len(part["position"])) == len(part["action"]) for part in parts])
    position, velocity = (np.concatenate([part[name] for part in parts]) for name in ("position", "velocity"))
    action = np.concatenate([np.concatenate([part["action"], np.zeros((1, 2))]) for part in parts])
    columns = {
        "observations": np.concatenate([position, velocity], axis=1).astype(np.float32),
        "actions": action.astype(np.float32),
        "rewards": np.zeros(len(last), np.float32),
        "terminals": np.zeros(len(last), bool),
        "timeouts": last,
        "infos/qpos": position,
        "infos/qvel": velocity,
        "infos/goal": np.ones((len(last), 2)),
    }
    with h5py.File(path, "w") as file:
        for name, values in columns.items():
            file.create_dataset(name, data=values, compression="gzip")
    return path


def robomimic_file(path: Path) -> Path:
    """As robomimic's dataset_states_to_obs.py writes them, with what came of each action, and masks."""
    environment = {"env_name": "Reach", "type": 1, "env_kwargs": {"control_freq": HZ}}
    with h5py.File(path, "w") as file:
        data = file.create_group("data")
        for seed, length in enumerate(LENGTHS):
            made, group = driven(length, seed), data.create_group(f"demo_{seed}")
            group["actions"], group["rewards"] = made["action"].astype(float), made["reward"].astype(float)
            group["dones"] = (np.arange(length) == length - 1).astype(np.int64)
            for name, source in {"robot0_eef_pos": "hand", "agentview_image": "front"}.items():
                group[f"obs/{name}"], group[f"next_obs/{name}"] = made[source][:-1], made[source][1:]
            group.attrs["num_samples"] = length
        data.attrs["total"] = sum(LENGTHS)
        data.attrs["env_args"] = json.dumps(environment)
        file["mask/train"] = np.array(["demo_0", "demo_1", "demo_2"], "S8")
        file["mask/valid"] = np.array(["demo_3"], "S8")
    return path


def replay_buffer(path: Path) -> Path:
    """As pusht_cchi_v7_replay.zarr: zarr format 2, an action a row, whole numbers in float32 for pixels."""
    parts = [driven(length, seed) for seed, length in enumerate(LENGTHS)]
    root = zarr.open_group(path, mode="w", zarr_format=2)
    rows = {
        "action": np.concatenate([part["action"][[*range(len(part["action"])), -1]] for part in parts]),
        "img": np.concatenate([part["front"] for part in parts]).astype(np.float32),
        "state": np.concatenate([part["hand"] for part in parts]),
    }
    data, meta = root.create_group("data"), root.create_group("meta")
    for name, values in rows.items():
        data.create_array(name, shape=values.shape, chunks=(50, *values.shape[1:]), dtype=values.dtype)[...] = values
    meta.create_array("episode_ends", shape=(len(LENGTHS),), dtype=np.int64)[...] = np.cumsum(np.array(LENGTHS) + 1)
    return path


def zipped(folder: Path, path: Path) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as archive:
        for file in sorted(folder.rglob("*")):
            if file.is_file():
                archive.write(file, file.relative_to(folder).as_posix())
    return path


class Reach(gymnasium.Env[Any, Any]):
    """The hand, as an environment."""

    metadata = {"render_modes": [], "render_fps": HZ}  # noqa: RUF012  # as Gymnasium has it
    observation_space = spaces.Dict(hand=spaces.Box(-2, 2, (2,)), front=spaces.Box(0, 255, (SIDE, SIDE, 3), np.uint8))
    action_space = spaces.Box(-1, 1, (2,))

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed)
        self._hand, self._steps = self.np_random.uniform(-0.9, 0.9, 2), 0
        return self._observed(), {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        self._hand, self._steps = self._hand + 0.1 * np.asarray(action), self._steps + 1
        return self._observed(), 0.0, False, self._steps == LENGTHS[0], {}

    def _observed(self) -> dict[str, Any]:
        return {"hand": self._hand.astype(np.float32), "front": frame(self._hand, self.np_random)}


def recorder_folder(folder: Path) -> tuple[Path, dict[str, NDArray[Any]]]:
    """What a Recorder kept, and what the first episode was."""
    said: list[dict[str, Any]] = []
    done: list[NDArray[Any]] = []
    with closing(Recorder(Reach(), folder)) as env:
        for seed in range(len(LENGTHS)):
            observation, _ = env.reset(seed=seed)
            rng, place, over = np.random.default_rng(seed), np.random.default_rng(seed).uniform(-0.8, 0.8, 2), False
            said.append(observation)
            while not over:
                action = np.clip(2 * (place - observation["hand"]) + rng.normal(0, 0.2, 2), -1, 1).astype(np.float32)
                observation, _, _, over, _ = env.step(action)
                said.append(observation)
                done.append(action)
    observed = {name: np.array([each[name] for each in said[: LENGTHS[0] + 1]]) for name in ("hand", "front")}
    return folder, {**observed, "action": np.array(done[: LENGTHS[0]])}


def lerobot_sample(name: str, table: str) -> Recorded:
    """One that LeRobot wrote; of each episode the last action leads nowhere."""
    rows = pq.read_table(SAMPLES / name / table).filter(pc.field("episode_index") == 0)
    state, action = (np.array(rows[key].to_pylist(), np.float32) for key in ("observation.state", "action"))
    return Recorded(SAMPLES / name, first={"state": state, "action": action[:-1]})


def own_recording() -> Trajectories:
    """With all that a store keeps: units, limits, a rate of another stream, a goal, tasks and subsets."""
    parts = [driven(length, seed) for seed, length in enumerate(LENGTHS)]
    for part in parts:
        part["speed"] = np.gradient(part["hand"], 1 / HZ, axis=0).astype(np.float32)
    rows = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
    spec = TrajectorySpec(
        streams=(
            StreamSpec(name="hand", role="observation", shape=(2,), units="m", low=(-2.0, -2.5), high=(2.0, 2.5)),
            StreamSpec(name="speed", role="observation", shape=(2,), units="m/s", rate_of="hand"),
            StreamSpec(name="front", role="observation", shape=(SIDE, SIDE, 3)),
            StreamSpec(name="action", role="action", shape=(2,), units="m/s", low=(-1.0, -1.0), high=(1.0, 1.0)),
            StreamSpec(name="reward", role="reward", shape=()),
        ),
        control_hz=HZ,
        goal="hand",
    )
    notes = tuple(EpisodeNote(task=f"reach {seed % 2}", subsets=("train", "all")[seed % 2 :]) for seed in range(4))
    frames = {"front": rows.pop("front")}
    return Trajectories(spec=spec, streams=rows, frames=frames, lengths=np.array(LENGTHS), notes=notes)


@pytest.fixture(scope="session")
def recordings(tmp_path_factory: pytest.TempPathFactory) -> Mapping[str, Recorded]:
    """Format -> a real small recording in it. They are shared: copy one before changing it."""
    folder, hz = tmp_path_factory.mktemp("recordings"), f"--control-hz {HZ}"
    hand, front = spaces.Box(-2, 2, (2,)), spaces.Box(0, 255, (SIDE, SIDE, 3), np.uint8)
    nested = spaces.Dict(arm=spaces.Dict(hand=hand), front=front)
    numbers = minari_dataset(folder / "m", "lab/hand-v0", hand, lambda made: made["hand"], "hdf5")
    arrow = minari_dataset(
        folder / "m",
        "lab/arm-v0",
        nested,
        lambda made: {"arm": {"hand": made["hand"]}, "front": made["front"]},
        "arrow",
    )
    buffer = replay_buffer(folder / "reach.zarr")
    robomimic, kept = robomimic_file(folder / "reach_image.hdf5"), recorder_folder(folder / "recorded")
    one, maze = driven(LENGTHS[0], 0), pointmass(D4RL_LENGTHS[0], 0)
    actions = {name: one[name] for name in ("action", "reward")}
    rows = {"state": one["hand"], "img": one["front"], "action": one["action"]}
    own = {name: one[name] for name in ("hand", "front", "action", "reward")}
    return {
        "minari-hdf5": Recorded(numbers, hz, {"observation": one["hand"], **actions}),
        "minari-arrow": Recorded(arrow, hz, {"arm_hand": one["hand"], "front": one["front"], **actions}),
        "d4rl": Recorded(
            d4rl_file(folder / "maze2d-umaze.hdf5"), "", {name: each.astype(np.float32) for name, each in maze.items()}
        ),
        "lerobot-v3-image": lerobot_sample("lerobot-v3-image", "data/chunk-000/file-000.parquet"),
        "lerobot-v3-video": lerobot_sample("lerobot-v3-video", "data/chunk-000/file-000.parquet"),
        "lerobot-v21-image": lerobot_sample("lerobot-small-v21-image", "data/chunk-000/episode_000000.parquet"),
        "lerobot-v21-video": lerobot_sample("lerobot-small-v21-video", "data/chunk-000/episode_000000.parquet"),
        "robomimic": Recorded(
            robomimic, "", {"robot0_eef_pos": one["hand"], "agentview_image": one["front"], **actions}
        ),
        "replay-buffer": Recorded(buffer, hz, rows),
        "replay-buffer-zip": Recorded(zipped(buffer, folder / "reach.zarr.zip"), hz, rows),
        "recorder": Recorded(kept[0], "", kept[1]),
        "store": Recorded(write_store(own_recording(), folder / "own.zarr"), "", own),
    }


@pytest.fixture
def copied(recordings: Mapping[str, Recorded], tmp_path: Path) -> Callable[[str], Recorded]:
    """(format) -> a copy of the recording, to be broken, in a folder of its own."""

    def copy(kind: str) -> Recorded:
        made = recordings[kind]
        target = tmp_path / "source" / made.path.name
        target.parent.mkdir()
        if made.path.is_dir():
            shutil.copytree(made.path, target)
        else:
            shutil.copy(made.path, target)
        return Recorded(target, made.options)

    return copy
