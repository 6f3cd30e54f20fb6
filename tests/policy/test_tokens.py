"""Windows to tokens and back, against a window drawn by hand.

One token is 4 steps, 2 frames. A window of one token of past and one of future, "now" at step 4:

    step        0  1  2  3  4  5  6  7  8
    x           0  1  2  3  4  5  6  7  8          frames at 2, 4 (history) and 6, 8 (plan)
    y           0 10 20 30 40 50 60 70 80
    action      0  2  4  6  8 10 12 14             means 1, 5 (history) and 9, 13 (plan)
"""

import json
import re
from typing import Any

import numpy as np
import pytest
import torch

from forcing.policy.tokens import Normaliser, Tokenizer, TokenLayout
from forcing.policy.types import Role, StreamSpec, Trajectories, TrajectorySpec, WindowBatch

SPEC = TrajectorySpec(
    streams=(
        StreamSpec(name="place", role="observation", shape=(2,)),
        StreamSpec(name="reward", role="reward", shape=()),
        StreamSpec(name="action", role="action", shape=(1,)),
    ),
    control_hz=10.0,
    goal="place",
)
UNIT = Normaliser(
    mean={"place": (0.0, 0.0), "action": (0.0,), "reward": (0.0,)},
    std={"place": (1.0, 1.0), "action": (1.0,), "reward": (1.0,)},
)
LAYOUT = TokenLayout(token_steps=4, stride=2, history=1, horizon=1)
STEPS = np.arange(9.0)
WINDOW = WindowBatch(
    streams={
        "place": np.stack([STEPS, 10 * STEPS], axis=-1)[None],
        "action": 2 * STEPS[None, :8, None],
        "reward": np.zeros((1, 8)),
    },
    past_valid=np.array([4]),
)
HISTORY, PLAN, GOAL = [2, 20, 4, 40, 1, 5], [6, 60, 8, 80, 9, 13], [8, 80, 8, 80, 0, 0]


def test_frames_stand_at_the_end_of_their_stride_actions_are_its_mean_and_the_goal_is_the_last_place() -> None:
    tokens = Tokenizer(SPEC, LAYOUT, UNIT).encode(WINDOW, np.array([4]))
    assert tokens.tolist() == [[HISTORY, PLAN, GOAL]]
    assert tokens.dtype == torch.float32


@pytest.mark.parametrize(("kept", "places"), [(4, [2, 20, 4, 40]), (1, [3, 30, 4, 40]), (0, [4, 40, 4, 40])])
def test_history_that_may_not_be_shown_repeats_the_oldest_that_may(kept: int, places: list[float]) -> None:
    tokens = Tokenizer(SPEC, LAYOUT, UNIT).encode(WINDOW, np.array([kept]))
    assert tokens[0, 0, :4].tolist() == places
    assert tokens[0, 1].tolist() == PLAN


def test_each_window_of_a_batch_keeps_its_own_past() -> None:
    windows = WindowBatch(
        streams={name: np.concatenate([values, 100 + values]) for name, values in WINDOW.streams.items()},
        past_valid=np.array([4, 4]),
    )
    tokens = Tokenizer(SPEC, LAYOUT, UNIT).encode(windows, np.array([0, 4]))
    assert tokens[:, 0, :4].tolist() == [[4, 40, 4, 40], [102, 120, 104, 140]]


def test_without_a_goal_stream_the_goal_token_says_nothing() -> None:
    spec = TrajectorySpec(streams=SPEC.streams, control_hz=10.0, goal=None)
    tokenizer = Tokenizer(spec, LAYOUT, UNIT)
    assert tokenizer.goal_index is None
    assert tokenizer.encode(WINDOW, np.array([4])).tolist() == [[HISTORY, PLAN, [0] * 6]]


def test_decoding_gives_back_the_frames_in_their_units() -> None:
    units = Normaliser(mean={"place": (1.0, -2.0), "action": (3.0,)}, std={"place": (2.0, 4.0), "action": (0.5,)})
    tokenizer = Tokenizer(SPEC, LAYOUT, units)
    tokens = tokenizer.encode(WINDOW, np.array([4]))
    assert tokens[0, 1].tolist() == [2.5, 15.5, 3.5, 20.5, 12, 20]  # (6 - 1) / 2, (60 + 2) / 4, ...
    decoded = tokenizer.decode(tokens[:, :2])
    assert decoded["place"].tolist() == [[[2, 20], [4, 40], [6, 60], [8, 80]]]
    assert decoded["action"].tolist() == [[[1], [5], [9], [13]]]
    assert set(decoded) == {"place", "action"}


def test_frames_encoded_one_stream_at_a_time_are_those_of_the_whole_window() -> None:
    tokenizer = Tokenizer(SPEC, LAYOUT, UNIT)
    places = tokenizer.encode_frames("place", WINDOW.streams["place"][0, 2::2])
    assert places.tolist() == [HISTORY[:4], PLAN[:4]]


def test_a_stream_with_two_axes_comes_back_in_its_shape() -> None:
    spec = TrajectorySpec(
        streams=(
            StreamSpec(name="grid", role="observation", shape=(2, 3)),
            StreamSpec(name="switch", role="action", shape=()),
        ),
        control_hz=1.0,
    )
    units = Normaliser(mean={"grid": tuple(range(6)), "switch": (0.5,)}, std={"grid": (2.0,) * 6, "switch": (1.0,)})
    tokenizer = Tokenizer(spec, LAYOUT, units)
    grid, switch = np.arange(2 * 9 * 6.0).reshape(2, 9, 2, 3), np.zeros((2, 8))
    tokens = tokenizer.encode(
        WindowBatch(streams={"grid": grid, "switch": switch}, past_valid=np.array([4, 4])), np.array([4, 4])
    )
    decoded = tokenizer.decode(tokens[:, :-1])
    assert decoded["grid"].tolist() == grid[:, 2::2].tolist()
    assert decoded["switch"].tolist() == [[0.0] * 4] * 2


def test_every_feature_has_the_level_of_its_own_stream() -> None:
    levels = torch.tensor([[[0.25, 0.75], [0.0, 1.0]]])
    assert Tokenizer(SPEC, LAYOUT, UNIT).per_feature(levels).tolist() == [
        [[0.25] * 4 + [0.75] * 2, [0.0] * 4 + [1.0] * 2]
    ]


def _recording(place: np.ndarray) -> Trajectories:
    steps = len(place) - 1
    streams = {"place": place, "action": np.full((steps, 1), 7.0), "reward": np.zeros(steps)}
    return Trajectories(spec=SPEC, streams=streams, lengths=np.array([steps]))


def test_the_normaliser_is_numpys_mean_and_std_and_leaves_what_never_changes_unscaled() -> None:
    place = np.random.default_rng(0).normal([3.0, -5.0], [0.1, 20.0], (200, 2)).astype(np.float32)
    fitted = Normaliser.fit(_recording(place))
    wide = place.astype(np.float64)
    np.testing.assert_allclose(fitted.mean["place"], wide.mean(axis=0), rtol=1e-12)
    np.testing.assert_allclose(fitted.std["place"], wide.std(axis=0), rtol=1e-12)
    assert (fitted.mean["action"], fitted.std["action"]) == ((7.0,), (1.0,))
    scaled = fitted.apply("place", place)
    np.testing.assert_allclose(scaled.mean(axis=0), 0, atol=1e-5)
    np.testing.assert_allclose(scaled.std(axis=0), 1, rtol=1e-5)
    np.testing.assert_allclose(fitted.invert("place", scaled), place, rtol=1e-5)


def test_a_normaliser_survives_json_and_another_document_is_refused() -> None:
    document = json.loads(json.dumps(UNIT.to_json()))
    assert Normaliser.from_json(document) == UNIT
    for wrong in ({"mean": document["mean"]}, {**document, "scale": {}}, {"mean": 3, "std": 3}):
        with pytest.raises(ValueError, match="normaliser: "):
            Normaliser.from_json(wrong)


@pytest.mark.parametrize("roles", [(), ("action", "action")])
def test_a_trajectory_has_exactly_one_action_stream(roles: tuple[Role, ...]) -> None:
    streams = [StreamSpec(name=f"motor{i}", role=role, shape=(1,)) for i, role in enumerate(roles)]
    place = StreamSpec(name="place", role="observation", shape=(2,))
    names = re.escape(str([stream.name for stream in streams]))
    with pytest.raises(ValueError, match=f"exactly one stream must have role 'action', got {names}; put all"):
        TrajectorySpec(streams=(place, *streams), control_hz=10.0)
    assert SPEC.action is SPEC["action"]


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_a_value_that_is_not_finite_is_refused_by_stream(bad: float) -> None:
    place = np.zeros((5, 2))
    place[3, 1] = bad
    with pytest.raises(ValueError, match=r"stream 'place' has non-finite values.*forcing data check"):
        Normaliser.fit(_recording(place))


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("horizon", 0, "horizon must be at least 1, got 0"),
        ("history", -1, "history must be at least 1, got -1"),
        ("stride", 3, "stride must divide token_steps 4, got 3"),
    ],
)
def test_a_layout_that_makes_no_sense_is_refused(field: str, value: int, message: str) -> None:
    fields: dict[str, Any] = {"token_steps": 4, "stride": 2, "history": 1, "horizon": 1, field: value}
    with pytest.raises(ValueError, match=message):
        TokenLayout(**fields)


def test_more_tokens_than_attention_can_hold_are_refused() -> None:
    assert TokenLayout(horizon=1022).max_length == 1024
    with pytest.raises(ValueError, match="at most 1024 tokens, got 100002"):
        TokenLayout(horizon=100_000)
