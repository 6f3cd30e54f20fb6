"""Where a maze's walls lie, in metres, for whoever draws it. Geometry alone."""

from dataclasses import dataclass

from forcing.envs.maze_grid import MazeMap


@dataclass(frozen=True, slots=True, kw_only=True)
class FloorPlan:
    """A maze seen from above, x to the right and y up.

    cells: rows from top to bottom, 1 is a wall. cell_m: side of a cell. left_m, bottom_m: the lower left corner.
    goal_radius_m: a goal counts as reached from this near.
    """

    cells: MazeMap
    cell_m: float
    left_m: float
    bottom_m: float
    goal_radius_m: float

    def __post_init__(self) -> None:
        for name in ("cell_m", "goal_radius_m"):
            if not getattr(self, name) > 0:
                raise ValueError(f"{name} must be positive, got {getattr(self, name)}")
        if len({len(row) for row in self.cells}) != 1:
            raise ValueError("cells must be rows of one length, and at least one row")

    @property
    def right_m(self) -> float:
        return self.left_m + self.cell_m * len(self.cells[0])

    @property
    def top_m(self) -> float:
        return self.bottom_m + self.cell_m * len(self.cells)
