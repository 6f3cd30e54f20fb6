"""Mazes as grids: where a cell lies and the shortest way from one to another.

Geometry alone, in gymnasium-robotics' conventions: cells of 1 m, (row, column), row 0 at the top, the origin at the
maze's centre, x to the right and y up. Knows nothing of simulators or controllers.
"""

import math
from collections import deque
from collections.abc import Sequence

MazeMap = Sequence[Sequence[int | str]]
Cell = tuple[int, int]
Point = tuple[float, float]

WALL = 1


def cell_center(maze_map: MazeMap, cell: Cell) -> Point:
    """(x, y) in metres of the middle of a cell."""
    row, column = cell
    return column + 0.5 - len(maze_map[0]) / 2, len(maze_map) / 2 - (row + 0.5)


def cell_at(maze_map: MazeMap, position: Point) -> Cell:
    """(row, column) of the cell that contains a position in metres. Raises ValueError outside the maze."""
    x, y = position
    row, column = math.floor(len(maze_map) / 2 - y), math.floor(x + len(maze_map[0]) / 2)
    if not (0 <= row < len(maze_map) and 0 <= column < len(maze_map[0])):
        raise ValueError(f"position must lie inside the maze of {len(maze_map)} x {len(maze_map[0])} m, got {position}")
    return row, column


def shortest_path(maze_map: MazeMap, start: Cell, goal: Cell) -> list[Cell]:
    """Cells from `start` to `goal`, both included, moving to free cells above, below, left and right.

    Breadth-first search; among equally short ways the result is always the same one. Raises ValueError if `start` or
    `goal` is a wall, or if no way leads from one to the other.
    """
    for name, (row, column) in (("start", start), ("goal", goal)):
        if maze_map[row][column] == WALL:
            raise ValueError(f"{name} must be a free cell, got the wall at {(row, column)}")
    toward_goal = {goal: goal}
    frontier = deque([goal])
    while frontier and start not in toward_goal:
        row, column = frontier.popleft()
        for cell in ((row - 1, column), (row + 1, column), (row, column - 1), (row, column + 1)):
            inside = 0 <= cell[0] < len(maze_map) and 0 <= cell[1] < len(maze_map[0])
            if inside and cell not in toward_goal and maze_map[cell[0]][cell[1]] != WALL:
                toward_goal[cell] = (row, column)
                frontier.append(cell)
    if start not in toward_goal:
        raise ValueError(f"goal must be reachable, got {goal}, walled off from {start}")
    path = [start]
    while path[-1] != goal:
        path.append(toward_goal[path[-1]])
    return path
