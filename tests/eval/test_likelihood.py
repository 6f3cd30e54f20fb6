"""The bound of a model whose likelihood is known, and of one that learns."""

import math
from dataclasses import replace

import numpy as np
import pytest
from torch import Tensor

from forcing.datasets.windows import TrajectoryWindows
from forcing.eval.likelihood import nats_per_number
from forcing.policy.policy import load_policy
from forcing.policy.sampler import Model
from forcing.policy.schedules import Kind
from forcing.policy.types import Trajectories


def _noise(name: str) -> Trajectories:
    """A recording of the policy's streams in which every number is standard normal, once it is normalised."""
    policy = load_policy(name)
    rng, streams = np.random.default_rng(0), {}
    for stream in policy.spec.streams:
        count = 40_001 if stream.role == "observation" else 40_000
        values = rng.standard_normal((count, stream.size))
        if stream.role == "action":  # a frame is the mean of a stride of them
            values *= math.sqrt(policy.preset.layout.stride)
        streams[stream.name] = policy.normaliser.invert(stream.name, values)
    return Trajectories(spec=policy.spec, streams=streams, lengths=np.array([40_000]))


@pytest.mark.parametrize("kind", ["pyramid", "full_sequence"])
def test_the_perfect_model_of_noise_is_as_likely_as_noise(kind: Kind) -> None:
    policy = load_policy("maze2d-umaze")
    planner = replace(policy.preset.planner, schedule=replace(policy.preset.planner.schedule, kind=kind))
    policy = policy.using(planner=planner)
    model = policy.planner.model

    def shrunk(x: Tensor, levels: Tensor, lengths: Tensor) -> Tensor:
        return model.schedule.alpha_bar(levels[..., model.features]).sqrt() * x

    policy.planner.model = Model(shrunk, model.schedule, model.features)
    windows = TrajectoryWindows(_noise("maze2d-umaze"))
    entropy = -0.5 * math.log(2 * math.pi * math.e)
    found = nats_per_number(policy, windows, steps=96, count=512, seed=0)
    # A bound, and the last steps' variances leave little of the rest.
    assert entropy - 0.05 < found < entropy + 0.02


def test_what_a_network_learned_to_expect_is_likelier_than_noise() -> None:
    path = np.linspace(-1, 1, 4001)[:, None] * np.array([1.0, 0.5])
    policy = load_policy("maze2d-umaze")
    streams = {"position": path, "velocity": np.full((4001, 2), 0.05), "action": np.zeros((4000, 2))}
    straight = Trajectories(spec=policy.spec, streams=streams, lengths=np.array([4000]))
    on_straight, on_noise = (
        nats_per_number(policy, TrajectoryWindows(recording), steps=96, count=16, seed=0)
        for recording in (straight, _noise("maze2d-umaze"))
    )
    assert on_straight > on_noise + 1


@pytest.mark.parametrize("steps", [0, 40, 224])
def test_only_whole_tokens_that_a_plan_may_have_are_scored(steps: int) -> None:
    with pytest.raises(ValueError, match=f"multiple of 32 from there to 192, got {steps}"):
        nats_per_number(
            load_policy("maze2d-umaze"), TrajectoryWindows(_noise("maze2d-umaze")), steps=steps, count=1, seed=0
        )
