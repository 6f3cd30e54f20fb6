import pytest

from forcing.policy.names import did_you_mean


@pytest.mark.parametrize(
    ("name", "known", "answer"),
    [
        ("maze", ["map", "mazes"], "did you mean 'mazes'?"),
        ("kitchen", ["umaze", "large"], "known are umaze, large"),
        ("kitchen", [], "known are none"),
    ],
)
def test_a_near_miss_is_answered_by_the_nearest_name_and_anything_else_by_all(
    name: str, known: list[str], answer: str
) -> None:
    assert did_you_mean(name, known) == answer


def test_what_is_said_where_nothing_is_near_can_be_chosen() -> None:
    assert did_you_mean("kitchen", ["umaze"], otherwise="a folder would do") == "a folder would do"
    assert did_you_mean("umase", ["umaze"], otherwise="a folder would do") == "did you mean 'umaze'?"
