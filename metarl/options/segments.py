"""What options did: a rollout folded into decisions, and how its options were used."""

from __future__ import annotations

import torch
from torch import Tensor

from metarl.core.errors import MetaRLError
from metarl.core.rollout import Rollout
from metarl.core.types import tree


@tree
class Segments:
    """A rollout folded into decisions: one for every stretch of steps for which an option ran."""

    option: Tensor  # [S, N, M] int64
    duration: Tensor  # [S, N, M] int64, in steps; 0 where there are no more
    reward: Tensor  # [S, N, M] Σ γⁱ r over the stretch
    ended: Tensor  # [S, N, M] bool: an episode ended with it


def segments(rollout: Rollout, gamma: float = 1.0) -> Segments:
    """Fold steps into decisions::

        option  1 1 1 0 0 1 1        option    1 0 1
        reward  a b c d e f g   →    reward    a + γ b + γ² c,  d + γ e,  f + γ g

    An option that ends and is chosen again begins a new stretch, where its length tells that it ended.

    Returns:
        What a semi-Markov process is made of (Sutton et al. 1999): its return is that of the steps,
        ``discounted_returns(reward, ended, discount ** duration)``.

    Raises:
        MetaRLError: no options ran.
    """
    running = rollout.inputs.option
    if running is None:
        raise MetaRLError(
            "segments: this rollout was lived through without options; fold one of an agent that has some"
        )
    begins = running.begins & rollout.valid
    number = (begins.long().cumsum(0) - 1).clamp(min=0)  # a lane may have no step
    shape = (int(number.max()) + 1, *number.shape[1:])
    time = torch.arange(len(number), device=number.device).view(-1, 1, 1).expand_as(number)
    first = torch.cummax(torch.where(begins, time, 0), 0).values
    weighted = rollout.reward * gamma ** (time - first) * rollout.valid

    def fold(x: Tensor) -> Tensor:
        return torch.zeros(shape, dtype=x.dtype, device=x.device).scatter_add_(0, number, x)

    return Segments(
        option=fold(running.current * begins),
        duration=fold(rollout.valid.long()),
        reward=fold(weighted),
        ended=fold((rollout.done & rollout.valid).long()) > 0,
    )


def usage(rollout: Rollout, count: int) -> dict[str, float]:
    """How `count` options were used.

    Returns:
        ``usage_o``, the share of steps that each option ran; ``usage_entropy`` of these shares, in nats;
        ``option_duration``, mean steps of a stretch; ``switch_rate``, how often one option followed another, a step at
        which an episode does not begin.
    """
    running, valid = rollout.inputs.option, rollout.valid
    assert running is not None
    shares = torch.bincount(running.current[valid], minlength=count) / valid.sum()
    durations = segments(rollout).duration
    inside = valid & ~torch.cat([torch.ones_like(valid[:1]), rollout.done[:-1]])
    switches = (running.current != running.previous) & inside
    return {
        **{f"usage_{o}": float(share) for o, share in enumerate(shares)},
        "usage_entropy": float(torch.special.entr(shares).sum()),
        "option_duration": float(durations.sum() / (durations > 0).sum()),
        "switch_rate": float(switches.sum() / inside.sum().clamp(min=1)),
    }
