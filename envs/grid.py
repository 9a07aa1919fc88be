"""Moves on a grid of cells, worked out once as a table."""

from __future__ import annotations

from collections.abc import Collection, Sequence

import torch
from torch import Tensor

Cell = tuple[int, int]
"""Column from the left, row from the bottom."""

STAY, UP, RIGHT, DOWN, LEFT = (0, 0), (0, 1), (1, 0), (0, -1), (-1, 0)


def successors(
    cells: Sequence[Cell], moves: Sequence[Cell], walls: Collection[frozenset[Cell]] = ()
) -> Tensor:
    """[S, A] int64: the cell that each move leads to; who would leave the cells or cross a wall between two stays."""
    number = {cell: place for place, cell in enumerate(cells)}

    def after(cell: Cell, move: Cell) -> int:
        there = (cell[0] + move[0], cell[1] + move[1])
        return (
            number[cell] if frozenset((cell, there)) in walls else number.get(there, number[cell])
        )

    return torch.tensor([[after(cell, move) for move in moves] for cell in cells])
