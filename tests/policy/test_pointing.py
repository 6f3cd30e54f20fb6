"""Where actions go, told from the places that were just seen: against sums in m by hand."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from forcing.policy.checkpoint import save_policy
from forcing.policy.network import build_denoiser
from forcing.policy.pointing import Pointing, places_of
from forcing.policy.policy import load_policy
from forcing.policy.preset import PRESETS
from forcing.policy.tokens import Normaliser, Tokenizer, TokenLayout
from forcing.policy.types import StreamSpec, TrajectorySpec

THINGS = StreamSpec(name="things", role="observation", shape=(6,), units="m")
TURN = StreamSpec(name="turn", role="observation", shape=(3,))
ACTION = StreamSpec(name="action", role="action", shape=(4,))
NORMALISER = Normaliser(
    mean={"things": (0.1, 0.2, 0.3, -0.4, 0.0, 0.5), "turn": (0.0,) * 3, "action": (0.4, 0.1, 0.2, 0.5)},
    std={"things": (0.1, 0.2, 0.3, 0.4, 0.5, 0.6), "turn": (1.0,) * 3, "action": (0.2, 0.1, 0.4, 0.5)},
)


def _tokenizer(*streams: StreamSpec) -> Tokenizer:
    layout = TokenLayout(token_steps=2, stride=2, history=8, horizon=2, chunks=True)
    return Tokenizer(TrajectorySpec(streams=streams, control_hz=10.0), layout, NORMALISER)


@pytest.mark.parametrize(
    ("favoured", "metres"),
    [
        (0, (0.7, 0.8, 0.9)),
        (1, (-0.1, -0.2, -0.3)),
    ],
)
def test_a_place_that_is_pointed_at_is_where_the_action_goes(favoured: int, metres: tuple[float, float, float]) -> None:
    tokenizer = _tokenizer(THINGS, TURN, ACTION)
    pointing = Pointing(places_of(tokenizer), width=4)
    torch.nn.init.zeros_(pointing.shares.weight)
    torch.nn.init.zeros_(pointing.shares.bias)
    shares = pointing.shares.bias.data.view(2, 2)
    shares[1, favoured] = 100.0  # of the second step; the first goes half-way
    before = torch.zeros(1, 1, tokenizer.width)
    before[0, 0, tokenizer.slices["things"]] = torch.from_numpy(
        NORMALISER.apply("things", torch.tensor([0.7, 0.8, 0.9, -0.1, -0.2, -0.3]).double().numpy())
    )
    added = pointing(torch.zeros(1, 1, 4), before)
    actions = NORMALISER.invert("action", added[0, 0, tokenizer.slices["action"]].detach().view(2, 4).numpy())
    assert actions[1].tolist() == pytest.approx([*metres, 0.5], abs=1e-6)
    assert actions[0].tolist() == pytest.approx([0.3, 0.3, 0.3, 0.5], abs=1e-6)
    assert not added[0, 0, tokenizer.slices["things"]].any()
    assert not added[0, 0, tokenizer.slices["turn"]].any()


@pytest.mark.parametrize(
    "streams",
    [(TURN, ACTION), (THINGS, StreamSpec(name="action", role="action", shape=(2,)))],
    ids=["nothing seen", "no place is acted at"],
)
def test_where_there_is_no_place_to_point_at_it_says_so(streams: tuple[StreamSpec, ...]) -> None:
    names = ", ".join(stream.name for stream in streams)
    with pytest.raises(ValueError, match=rf"denoiser.pointing must be false .* got {names}$"):
        places_of(_tokenizer(*streams))


def test_ways_between_things_are_told_and_stay_when_all_are_moved_together() -> None:
    tokenizer = _tokenizer(THINGS, TURN, ACTION)
    torch.manual_seed(0)
    pointing = Pointing(places_of(tokenizer), width=8)
    things = torch.tensor([0.7, 0.8, 0.9, -0.1, -0.2, -0.3]).double().numpy()

    def told(metres: np.ndarray) -> torch.Tensor:
        token = torch.zeros(1, 1, tokenizer.width)
        token[0, 0, tokenizer.slices["things"]] = torch.from_numpy(NORMALISER.apply("things", metres))
        return pointing.between(token)

    moved = told(things + np.tile([0.3, -0.2, 0.1], 2))
    torch.testing.assert_close(moved, told(things), atol=1e-4, rtol=1e-4)
    assert not torch.allclose(told(things + np.array([0.002, 0, 0, 0, 0, 0])), told(things), atol=1e-2)  # 2 mm


def test_one_place_alone_is_pointed_at() -> None:
    tokenizer = _tokenizer(StreamSpec(name="things", role="observation", shape=(3,), units="m"), ACTION)
    unit = Normaliser(
        mean={"things": (0.0,) * 3, "action": (0.0,) * 4}, std={"things": (2.0,) * 3, "action": (1.0,) * 4}
    )
    tokenizer = Tokenizer(tokenizer.spec, tokenizer.layout, unit)
    pointing = Pointing(places_of(tokenizer), width=8)
    token = torch.zeros(1, 1, tokenizer.width)
    token[0, 0, tokenizer.slices["things"]] = torch.tensor([1.0, 2.0, 3.0])
    assert pointing.embed is None
    assert not pointing.between(token).any()
    added = pointing(torch.zeros(1, 1, 8), token)[0, 0, tokenizer.slices["action"]].view(2, 4)
    assert added.tolist() == [[2.0, 4.0, 6.0, 0.0]] * 2


def test_a_policy_that_points_is_saved_and_plans_as_before(tmp_path: Path) -> None:
    usual = PRESETS["fetch-push"]
    preset = replace(usual, denoiser=replace(usual.denoiser, width=16, depth=1))
    tokenizer = Tokenizer(TrajectorySpec(streams=(THINGS, TURN, ACTION), control_hz=10.0), preset.layout, NORMALISER)
    denoiser = build_denoiser(preset, tokenizer)
    path = tmp_path / "policy.safetensors"
    save_policy(path, preset, tokenizer.spec, NORMALISER, denoiser.state_dict(), {"task": "arm"})
    loaded = load_policy(str(path)).history_planner
    assert loaded is not None
    x, levels = torch.randn(2, 3, tokenizer.width), torch.rand(2, 3, len(tokenizer.streams))
    lengths = torch.full((2,), 3)
    with torch.no_grad():
        torch.testing.assert_close(loaded.model().denoise(x, levels, lengths), denoiser.eval()(x, levels))
