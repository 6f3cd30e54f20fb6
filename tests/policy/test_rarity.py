"""How rare a number is."""

import numpy as np
import pytest
from scipy import stats

from forcing.policy.rarity import SHARES, Tail, either


def test_rarity_is_the_decades_by_which_the_survival_function_falls() -> None:
    values = stats.expon.rvs(size=50_000, random_state=0)
    tail = Tail.of(values)
    for value in (1.0, 3.0, 6.0, 15.0):
        assert tail.rarity(value) == pytest.approx(-np.log10(stats.expon.sf(value)), abs=0.15, rel=0.05)


def test_rarity_is_read_off_where_there_are_values_whatever_their_distribution() -> None:
    values = stats.norm.rvs(size=50_000, random_state=1)
    for share in (0.5, 0.1, 0.01, 0.001):
        assert Tail.of(values).rarity(stats.norm.isf(share)) == pytest.approx(-np.log10(share), abs=0.05)


def test_few_values_are_gone_on_with_as_an_exponential_tail() -> None:
    values = stats.expon.isf((np.arange(200) + 0.5) / 200)  # as even as they can be
    assert Tail.of(values).rarity(stats.expon.isf(1e-4)) == pytest.approx(4, abs=0.5)


def test_rarity_never_falls_and_begins_at_nothing() -> None:
    tail = Tail.of(np.repeat([0.0, 1.0, 5.0], [500, 400, 100]))  # with many that are the same
    found = [tail.rarity(value) for value in np.linspace(-2, 20, 200)]
    assert found[0] == 0
    assert (np.diff(found) >= 0).all()
    assert found[-1] > 3


def test_one_value_that_is_always_the_same_makes_all_others_rare() -> None:
    tail = Tail.of(np.zeros(100))
    assert tail.rarity(-1.0) == 0
    assert tail.rarity(0.1) > 100


def test_the_rarer_of_two_is_half_as_rare_as_alone() -> None:
    shares = np.random.default_rng(0).uniform(size=(5000, 2))
    found = np.array([either(*each) for each in -np.log10(shares)])
    assert (found > 1).mean() == pytest.approx(1 - 0.95**2, abs=0.02)
    assert either(2.0, 5.0) == either(5.0, 2.0) == pytest.approx(5 - np.log10(2))
    assert either(0.0, 0.1) == 0


def test_a_tail_comes_back_from_its_tensor_and_another_one_is_refused() -> None:
    tail = Tail.of(np.arange(1000.0))
    again = Tail.of_tensor(tail.tensor())
    assert [again.rarity(value) for value in (3.0, 990.0, 2000.0)] == [
        tail.rarity(value) for value in (3.0, 990.0, 2000.0)
    ]
    falling = tail.tensor()
    falling[0] = 1e9
    for tensor in (falling, tail.tensor()[:-1]):
        with pytest.raises(ValueError, match=f"must be {len(SHARES)} rising levels"):
            Tail.of_tensor(tensor)
