"""D4RL's pointmaze as streams: a point mass in the plane, its position and velocity in one vector of four.

Shared by the readers of Minari and of D4RL's older files.
"""

from forcing.policy.types import Array, StreamSpec, TrajectorySpec

CONTROL_HZ = 100.0  # MuJoCo's timestep of 0.01 s, one frame a step


def pointmaze_spec(
    *, control_hz: float = CONTROL_HZ, low: tuple[float, ...] | None = (-1, -1), high: tuple[float, ...] | None = (1, 1)
) -> TrajectorySpec:
    """Streams position (2,) m, velocity (2,) m/s, action (2,) and reward (); the goal is a position."""
    streams = (
        StreamSpec(name="position", role="observation", shape=(2,), units="m"),
        StreamSpec(name="velocity", role="observation", shape=(2,), units="m/s", rate_of="position"),
        StreamSpec(name="action", role="action", shape=(2,), low=low, high=high),
        StreamSpec(name="reward", role="reward", shape=()),
    )
    return TrajectorySpec(streams=streams, control_hz=control_hz, goal="position")


def pointmaze_streams(observation: Array) -> dict[str, Array]:
    """position and velocity [T, 2] of observations [T, 4]."""
    return {"position": observation[:, :2], "velocity": observation[:, 2:]}
