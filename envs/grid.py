"""Grids of cells: plans as text, and moves as a table that is computed once."""

import torch
from torch import Tensor

Cell = tuple[int, int]
"""Column from the left, row from the bottom."""

STAY, UP, RIGHT, DOWN, LEFT = (0, 0), (0, 1), (1, 0), (0, -1), (-1, 0)


def cells(plan: str, mark: str, *, from_top: bool = False) -> list[Cell]:
    """The cells that `plan` draws as `mark`, row by row, from the bottom unless `from_top`."""
    rows = list(enumerate(reversed(plan.splitlines())))
    if from_top:
        rows.reverse()
    found: list[Cell] = []
    for row, line in rows:
        found += [(column, row) for column, drawn in enumerate(line) if drawn == mark]
    return found


def squares(corners: list[Cell], shift: float) -> Tensor:
    """[W, 4]: the unit squares to draw, whose lower left corners are `corners` + `shift`."""
    corner = torch.tensor(corners) + shift
    return torch.cat([corner, torch.ones_like(corner)], dim=1)


def successors(free: list[Cell], moves: tuple[Cell, ...]) -> Tensor:
    """[S, A] int64: the place in `free` of the cell that each move leads to; others stay."""
    place = {cell: number for number, cell in enumerate(free)}
    rows = []
    for column, row in free:
        stay = place[column, row]
        rows.append([place.get((column + right, row + up), stay) for right, up in moves])
    return torch.tensor(rows)
