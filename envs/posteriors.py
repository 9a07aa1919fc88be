"""What families that know their posterior share: sums over the steps that an observer has seen.

Every lane is a trial of its own, seen by an observer of its own.
"""

import torch
from torch import Tensor

from metarl.core.rollout import Rollout


def sums_by_place(
    rollout: Rollout,
    place: Tensor,
    value: Tensor,
    places: int,
    times: Tensor,
) -> Tensor:
    """[K, N, M, places] float64: `value` [T, N, M] added up by `place` [T, N, M].

    Each of K sums is over the first `times` [K] steps of a lane: its valid steps come first, so
    these are steps 0 to time − 1. Padding may hold anything.
    """
    place = place.where(rollout.valid, 0).movedim(0, -1)  # [N, M, T]
    value = value.double().where(rollout.valid, 0.0).movedim(0, -1)
    sums: list[Tensor] = []
    for time in times.tolist():
        zero = value.new_zeros(*value.shape[:-1], places)
        sums.append(zero.scatter_add_(-1, place[..., :time], value[..., :time]))
    return torch.stack(sums)


def visits_by_place(
    rollout: Rollout,
    place: Tensor,
    places: int,
    times: Tensor,
) -> Tensor:
    """[K, N, M, places] float64: how often each `place` [T, N, M] was seen, as `sums_by_place`."""
    return sums_by_place(rollout, place, torch.ones_like(rollout.reward), places, times)
