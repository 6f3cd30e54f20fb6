"""Drives of a policy in its own world, and the spread that is read off them."""

from dataclasses import replace

import numpy as np
import pytest

from forcing.policy.calibration import Harshness, NoCalibration, calibrate
from forcing.policy.policy import Policy, load_policy


@pytest.fixture(scope="module")
def umaze() -> Policy:
    return load_policy("maze2d-umaze")


def test_the_same_seed_gives_the_same_spread_and_progress_is_told(umaze: Policy) -> None:
    done: list[int] = []
    first, again = (calibrate(umaze, drives=4, seed=3, report=done.append) for _ in range(2))
    layout = umaze.preset.layout
    frames = layout.horizon * layout.frames
    for name, value in first.tensors().items():
        assert value.shape == ((2, 4) if name == "doubts" else (2, 4, frames))
        np.testing.assert_array_equal(value, again.tensors()[name])
        assert np.isfinite(value.numpy()).all()
        assert (value.numpy() >= 0).all()
    assert (np.diff(first.doubts, axis=1) > 0).all()
    assert done == [1, 2, 3, 4] * 2


def test_a_policy_without_dynamics_cannot_drive_in_its_own_world(policy: Policy) -> None:
    with pytest.raises(NoCalibration, match="'toy' has no dynamics, so it cannot be driven"):
        calibrate(policy)


def test_a_policy_that_finds_no_plan_says_so(umaze: Policy, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("forcing.policy.calibration.TRIES", 2)
    strict = umaze.using(planner=replace(umaze.preset.planner, kinematic_tolerance=1e-9, refine=None, polish=None))
    with pytest.raises(NoCalibration, match="'maze2d-umaze' finds no plan in its own world that keeps the rules"):
        calibrate(strict, drives=2)


def test_a_world_without_contacts_and_with_far_walls_is_kinder(umaze: Policy) -> None:
    harsh, kind = (
        calibrate(umaze, drives=8, seed=1, harshness=harshness)
        for harshness in (Harshness(contacts=0.05), Harshness(contacts=0.0, room=1.0))
    )
    assert kind.moving[0].mean() < 0.5 * harsh.moving[0].mean()


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"contacts": 1.5}, "contacts must be between 0 and 1, got 1.5"),
        ({"contacts": np.nan}, "contacts must be between 0 and 1, got nan"),
        ({"room": 0.0}, "room must be finite and positive, got 0.0"),
    ],
)
def test_a_world_that_cannot_be_is_refused(fields: dict[str, float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Harshness(**fields)
