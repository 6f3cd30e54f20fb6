"""Recorders killed with SIGKILL, for real, at random moments: what was finished is there, to the digit, and the rest up
to the last step that `step` returned for."""

import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from forcing.datasets.recording import open_recording

KILLS_A_FOLDER = 10
# An environment whose every number says which episode (its seed) and step it is of; of each step that `step` returned
# for, and of each episode that ended, a line is printed.
WORK = """
import gymnasium
import numpy as np
from gymnasium import spaces
from forcing.datasets.recorder import Recorder


class Counting(gymnasium.Env):
    metadata = {"render_fps": 10}
    observation_space = spaces.Dict(
        state=spaces.Box(-np.inf, np.inf, (2,), np.float64), frame=spaces.Box(0, 255, (32, 32, 3), np.uint8)
    )
    action_space = spaces.Box(-np.inf, np.inf, (1,), np.float64)

    def observed(self):
        frame = np.full((32, 32, 3), (31 * self.episode + self.steps) % 256, np.uint8)
        return {"state": np.array([self.episode / 7, self.steps / 3]), "frame": frame}

    def reset(self, *, seed=None, options=None):
        self.episode, self.steps = seed, 0
        return self.observed(), {}

    def step(self, action):
        self.steps += 1
        return self.observed(), self.episode / 9 + self.steps, self.steps == 5 + self.episode % 40, False, {}


def work(folder, episode):
    env = Recorder(Counting(), folder, flush_s=0.01)
    for seed in range(int(episode), 10**9):
        env.reset(seed=seed)
        ended, steps = False, 0
        while not ended:
            *_, ended, _, _ = env.step(np.array([seed / 11 + steps]))
            steps += 1
            print(seed, steps, int(ended), flush=True)
"""


def said(episode: int, steps: int) -> dict[str, NDArray[Any]]:
    """What the environment said and was told in so many steps of an episode."""
    at, acts = np.arange(steps + 1), np.arange(steps)
    shade = ((31 * episode + at) % 256).astype(np.uint8)
    return {
        "state": np.stack([np.full(steps + 1, episode / 7), at / 3], axis=1),
        "frame": np.broadcast_to(shade[:, None, None, None], (steps + 1, 32, 32, 3)),
        "action": (episode / 11 + acts)[:, None],
        "reward": episode / 9 + (acts + 1),
    }


def length(episode: int) -> int:
    return 5 + episode % 40


@pytest.mark.parametrize("folder", range(5))
def test_every_finished_episode_of_a_killed_recorder_is_there_and_the_last_up_to_its_last_step(
    tmp_path: Path, victims: Callable[[str], Any], folder: int
) -> None:
    recorders, rng = victims(WORK), np.random.default_rng(folder)
    kept: dict[int, int] = {}  # episode -> steps, of the kills before
    recorders.killed(0.3, tmp_path / "warm", "0")
    for kill in range(KILLS_A_FOLDER):
        first = 10_000 * kill
        lines = recorders.killed(rng.uniform(0, 0.15), tmp_path / "counts", str(first))
        reported: dict[int, int] = {}
        for seed, steps, _ in (map(int, line.split()) for line in lines):
            reported[seed] = steps
        if not kept and not reported:
            continue  # killed before its first step
        recording = open_recording(tmp_path / "counts")
        episodes = list(recording.episodes())
        seeds = recording.provenance()["seeds"]
        assert seeds == sorted(set(seeds)), "one after another, none twice"
        found = dict(zip(seeds, episodes, strict=True))
        assert set(kept) | set(reported) <= set(found)
        last = max(seeds)
        for seed, episode in found.items():
            steps = len(episode.streams["action"])
            if seed in kept:
                assert steps == kept[seed], "what was there stays as it is"
            elif seed < last or reported.get(seed) == length(seed):
                assert steps == length(seed), "whole"
            else:
                assert reported.get(seed, 0) <= steps <= reported.get(seed, 0) + 1, "all that step returned for"
            if seed >= first:
                for name, values in said(seed, steps).items():
                    assert episode.streams[name].dtype == values.dtype
                    assert np.array_equal(episode.streams[name], values), f"{name} of {seed}"
            kept[seed] = steps
    assert len(kept) > 20, "they were killed at work"


def test_a_recording_that_grows_can_be_read_at_any_moment(tmp_path: Path, victims: Callable[[str], Any]) -> None:
    recorders = victims(WORK)
    recorders.killed(0.3, tmp_path / "warm", "0")
    killing = threading.Thread(target=recorders.killed, args=(1.0, tmp_path / "counts", "0"))
    killing.start()
    reads = 0
    while killing.is_alive():
        time.sleep(0.05)
        try:
            recording = open_recording(tmp_path / "counts")
            episodes = list(recording.episodes())
        except ValueError:
            continue  # nothing is there yet
        for seed, episode in zip(recording.provenance()["seeds"], episodes, strict=True):
            steps = len(episode.streams["action"])
            assert np.array_equal(episode.streams["state"], said(seed, steps)["state"])
            assert steps == length(seed) or episode is episodes[-1]
        reads += 1
    killing.join()
    assert reads > 2
