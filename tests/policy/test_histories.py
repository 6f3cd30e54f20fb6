"""Token sequences of whole episodes, against rows drawn by hand.

A token is 3 steps. Observation i of episode e is 100 e + i, the action that follows it 1000 e + i + 0.5.
"""

from collections.abc import Sequence

import numpy as np
import pytest
from numpy.typing import NDArray

from forcing.policy.histories import Episodes, Histories, HistorySource
from forcing.policy.memory import MemoryConfig
from forcing.policy.tokens import Normaliser, Tokenizer, TokenLayout
from forcing.policy.types import StreamSpec, Trajectories, TrajectorySpec

SPEC = TrajectorySpec(
    streams=(
        StreamSpec(name="place", role="observation", shape=(1,)),
        StreamSpec(name="action", role="action", shape=(1,)),
        StreamSpec(name="reward", role="reward", shape=()),
        StreamSpec(name="twice", role="observation", shape=(2,)),
    ),
    control_hz=10.0,
    goal="place",
)
NORMALISER = Normaliser(
    mean={"place": (0.0,), "action": (0.5,), "reward": (0.0,), "twice": (0.0, 0.0)},
    std={"place": (1.0,), "action": (1.0,), "reward": (1.0,), "twice": (1.0, 2.0)},
)


def _recorded(*lengths: int) -> Trajectories:
    rows = [100.0 * e + np.arange(length + 1) for e, length in enumerate(lengths)]
    place = np.concatenate(rows)[:, None]
    actions = np.concatenate([1000.0 * e + np.arange(length) + 0.5 for e, length in enumerate(lengths)])
    streams = {
        "place": place,
        "action": actions[:, None],
        "reward": np.zeros(sum(lengths)),
        "twice": np.concatenate([place, 2 * place], axis=1),
    }
    return Trajectories(spec=SPEC, streams=streams, lengths=np.array(lengths))


def _source(*lengths: int, history: int = 8, hold: int = 2, shares: Sequence[float] | None = None) -> HistorySource:
    episodes = Episodes(_recorded(*lengths), None if shares is None else np.array(shares))
    layout = TokenLayout(token_steps=3, stride=3, history=history, horizon=2, chunks=True)
    return HistorySource(episodes, Tokenizer(episodes.spec, layout, NORMALISER), MemoryConfig(hold_tokens=hold))


def _rows(histories: Histories) -> dict[tuple[int, ...], tuple[list[list[int]], int]]:
    """Observed rows of each kind of sequence drawn -> the actions of its tokens after the first, and its length."""
    found: dict[tuple[int, ...], tuple[list[list[int]], int]] = {}
    for tokens, length in zip(histories.tokens.numpy(), histories.lengths.tolist(), strict=True):
        np.testing.assert_array_equal(tokens[:, 4], tokens[:, 0])  # `twice`, entry for entry
        np.testing.assert_array_equal(tokens[:, 5], tokens[:, 0])
        observed = tuple(int(row) for row in tokens[:length, 0])
        said = (tokens[1:length, 1:4].astype(int).tolist(), length)
        assert found.setdefault(observed, said) == said
    return found


def _draw(source: HistorySource, count: int = 600) -> Histories:
    return source.draw(np.random.default_rng(0), count, alike=1)


def test_a_token_is_the_actions_of_its_steps_and_what_they_led_to_from_any_beginning() -> None:
    """Seven steps in tokens of three: from the first, the second or the third on."""
    assert _rows(_draw(_source(7, hold=0))) == {
        (0, 3, 6): ([[0, 1, 2], [3, 4, 5]], 3),
        (1, 4, 7): ([[1, 2, 3], [4, 5, 6]], 3),
        (2, 5): ([[2, 3, 4]], 2),
    }


def test_the_end_of_an_episode_is_held_for_some_tokens() -> None:
    """Up to two: what follows the last whole token leads to the end, and the last action is gone on with."""
    assert _rows(_draw(_source(7, hold=2))) == {
        (0, 3, 6): ([[0, 1, 2], [3, 4, 5]], 3),
        (0, 3, 6, 7): ([[0, 1, 2], [3, 4, 5], [6, 6, 6]], 4),
        (0, 3, 6, 7, 7): ([[0, 1, 2], [3, 4, 5], [6, 6, 6], [6, 6, 6]], 5),
        (1, 4, 7): ([[1, 2, 3], [4, 5, 6]], 3),
        (1, 4, 7, 7): ([[1, 2, 3], [4, 5, 6], [6, 6, 6]], 4),
        (1, 4, 7, 7, 7): ([[1, 2, 3], [4, 5, 6], [6, 6, 6], [6, 6, 6]], 5),
        (2, 5): ([[2, 3, 4]], 2),
        (2, 5, 7): ([[2, 3, 4], [5, 6, 6]], 3),
        (2, 5, 7, 7): ([[2, 3, 4], [5, 6, 6], [6, 6, 6]], 4),
    }


def test_every_beginning_within_the_first_token_is_as_likely() -> None:
    first = _draw(_source(20), 3000).tokens[:, 0, 0]
    counts = [int((first == begin).sum()) for begin in range(3)]
    assert sum(counts) == 3000
    assert min(counts) > 900


def test_an_episode_of_hardly_a_token_begins_where_one_is_left() -> None:
    """Three steps allow one beginning, four two; two none at all."""
    assert _rows(_draw(_source(3, 2, 4, hold=0))) == {
        (0, 3): ([[0, 1, 2]], 2),
        (200, 203): ([[2000, 2001, 2002]], 2),
        (201, 204): ([[2001, 2002, 2003]], 2),
    }


@pytest.mark.parametrize("hold", [0, 1])
def test_parts_of_a_long_episode_begin_anywhere_and_have_as_many_tokens_as_a_policy_remembers_and_plans(
    hold: int,
) -> None:
    """Two and two of 20 steps: the last part is observed at 11, 14, 17 and 20, or at 14, 17 and 20, and held."""
    found = _rows(_draw(_source(20, history=2, hold=hold), 4000))
    whole = {rows: said for rows, said in found.items() if said[1] == 4}
    assert {rows[0] for rows in whole} == set(range(12 + 3 * hold))
    assert found.keys() == whole.keys()
    for (begin, *rest), (actions, _) in whole.items():
        assert rest == [min(begin + 3 * token, 20) for token in (1, 2, 3)]
        assert actions == [[min(begin + 3 * token + step, 19) for step in range(3)] for token in range(3)]


def test_shorter_sequences_beside_longer_ones_are_filled_up_with_their_end() -> None:
    histories = _draw(_source(3, 20, hold=0))
    assert histories.tokens.shape == (600, 7, 6)
    assert set(histories.lengths.tolist()) == {2, 7}
    for tokens, length in zip(histories.tokens, histories.lengths.tolist(), strict=True):
        assert bool((tokens[length:, 0] == (3 if tokens[0, 0] < 100 else 120)).all())


def test_sequences_of_one_batch_are_alike_in_length_and_as_often_drawn_as_any() -> None:
    source = _source(3, 6, 12, 18, shares=[1, 1, 1, 1], hold=0)

    def drawn(alike: int) -> tuple[float, NDArray[np.float64]]:
        """Tokens that only fill up, of a sequence in the mean, and how often each episode is drawn."""
        rng = np.random.default_rng(0)
        batches = [source.draw(rng, 30, alike) for _ in range(200)]
        filled = [float((batch.lengths.max() - batch.lengths).float().mean()) for batch in batches]
        first = np.concatenate([batch.tokens[:, 0, 0].numpy() for batch in batches])
        return float(np.mean(filled)), np.bincount((first // 100).astype(int), minlength=4) / len(first)

    (alike, often), (any_, as_often) = drawn(4), drawn(1)
    assert alike < 0.4 * any_
    np.testing.assert_allclose(often, as_often, atol=0.03)


def test_episodes_are_drawn_by_their_shares_and_by_their_length_without() -> None:
    def often(source: HistorySource) -> NDArray[np.float64]:
        first = _draw(source, 3000).tokens[:, 0, 0].numpy()
        return np.bincount((first // 100).astype(int), minlength=3) / 3000

    np.testing.assert_allclose(often(_source(6, 2, 18)), [0.25, 0, 0.75], atol=0.03)
    np.testing.assert_allclose(often(_source(6, 9, 18, shares=[3, 0, 1])), [0.75, 0, 0.25], atol=0.03)
    np.testing.assert_allclose(often(_source(6, 2, 18, shares=[1, 100, 1])), [0.5, 0, 0.5], atol=0.03)


def test_a_usual_sequence_is_told_for_the_size_of_a_batch() -> None:
    assert _source(6, 12, hold=4).usual == 6  # 3 and 5 tokens, and up to four more that are held
    assert _source(6, 120, history=4).usual == 6, "no more than a policy remembers and plans"


def test_the_same_generator_draws_the_same() -> None:
    source = _source(7, 20)
    one, other = _draw(source), _draw(source)
    np.testing.assert_array_equal(one.tokens, other.tokens)
    np.testing.assert_array_equal(one.lengths, other.lengths)


def test_episodes_without_the_steps_of_a_token_are_refused() -> None:
    with pytest.raises(ValueError, match="no episode has the 3 steps of one token; use shorter tokens or longer rec"):
        _source(2, 1)


def test_a_goal_is_no_matter_of_episodes() -> None:
    assert _recorded(7).spec.goal == "place"
    assert Episodes(_recorded(7)).spec.goal is None


def test_all_places_of_an_episode_are_moved_together_along_the_floor_and_nothing_else() -> None:
    """Two places of an observation in m, one of each action; in units of what is usual of each."""
    streams = (
        StreamSpec(name="places", role="observation", shape=(6,), units="m"),
        StreamSpec(name="turn", role="observation", shape=(3,)),
        StreamSpec(name="action", role="action", shape=(4,)),
    )
    spec = TrajectorySpec(streams=streams, control_hz=10.0)
    recorded = Trajectories(
        spec=spec,
        streams={"places": np.zeros((8, 6)), "turn": np.zeros((8, 3)), "action": np.zeros((7, 4))},
        lengths=np.array([7]),
    )
    unit = {"places": (0.0,) * 6, "turn": (0.0,) * 3, "action": (0.0,) * 4}
    usual = {"places": (1.0, 2.0, 4.0, 8.0, 16.0, 1.0), "turn": (1.0,) * 3, "action": (0.5, 0.25, 1.0, 1.0)}
    layout = TokenLayout(token_steps=3, stride=3, history=8, horizon=2, chunks=True)
    tokenizer = Tokenizer(spec, layout, Normaliser(mean=unit, std=usual))
    source = HistorySource(Episodes(recorded), tokenizer, MemoryConfig(moved_m=0.1, hold_tokens=0))
    tokens = source.draw(np.random.default_rng(0), 2000).tokens.numpy()
    where = tokenizer.slices
    places, action = tokens[:, :, where["places"]] * usual["places"], tokens[:, :, where["action"]]
    x, y = places[:, 0, 0], places[:, 0, 1]
    np.testing.assert_allclose([x.std(), y.std(), np.corrcoef(x, y)[0, 1]], [0.1, 0.1, 0.0], atol=0.05)
    nothing = np.zeros_like(x)
    for token in range(tokens.shape[1]):
        np.testing.assert_allclose(places[:, token].T, [x, y, nothing, x, y, nothing], atol=1e-6)
        for step in range(3):
            done = action[:, token, 4 * step : 4 * step + 4] * usual["action"]
            np.testing.assert_allclose(done.T, [x, y, nothing, nothing], atol=1e-6)
    assert not tokens[:, :, where["turn"]].any()
