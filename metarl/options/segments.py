"""Options as temporally extended actions: a rollout folded into decisions, and usage metrics."""

import torch
from torch import Tensor

from metarl.core.errors import MetaRLError
from metarl.core.rollout import Rollout, sum_by_place
from metarl.core.types import tree


@tree
class Segments:
    """A rollout folded into decisions: one for each segment of steps in which an option ran."""

    option: Tensor  # [S, N, M] int64
    duration: Tensor  # [S, N, M] int64, in steps; 0 after the last segment
    reward: Tensor  # [S, N, M] Σ γⁱ r over the segment
    ended: Tensor  # [S, N, M] bool: an episode ended with it


def segments(rollout: Rollout, gamma: float = 1.0) -> Segments:
    """Fold steps into decisions::

        option  1 1 1 0 0 1 1        option    1 0 1
        reward  a b c d e f g   →    reward    a + γ b + γ² c,  d + γ e,  f + γ g

    An option that ends and is chosen again begins a new segment, if its length says that it ended.

    Returns:
        A semi-Markov process (Sutton et al. 1999): its return is that of the steps,
        ``discounted_returns(reward, ended, gamma ** duration)``.

    Raises:
        MetaRLError: a rollout without options.
    """
    running = rollout.inputs.option
    if running is None:
        raise MetaRLError("segments: a rollout without options; use an agent that has some")
    begins = running.begins & rollout.valid
    number = (begins.long().cumsum(0) - 1).clamp(min=0)  # a lane may have no valid step
    count = int(number.max()) + 1
    reward = rollout.reward * gamma ** steps_since(begins) * rollout.valid

    def fold(x: Tensor) -> Tensor:
        """Sums [S, N, M] of x [T, N, M] over segments."""
        return sum_by_place(x, number, count)

    return Segments(
        option=fold(running.current * begins),
        duration=fold(rollout.valid.long()),
        reward=fold(reward),
        ended=fold((rollout.done & rollout.valid).long()) > 0,
    )


def steps_since(begins: Tensor) -> Tensor:
    """[T, N, M] int64: how many steps ago the option of a step began, given where options do."""
    time = torch.arange(len(begins), device=begins.device).view(-1, 1, 1)
    return time - torch.where(begins, time, 0).cummax(0).values


def usage(rollout: Rollout, count: int) -> dict[str, float]:
    """Metrics of how `count` options were used.

    Returns:
        ``usage_o``, the share of steps of each option; ``usage_entropy`` of these shares, in nats;
        ``option_duration``, mean steps of a segment; ``switch_rate``, the probability that the
        option changes, at steps within an episode.
    """
    running, valid = rollout.inputs.option, rollout.valid
    assert running is not None
    shares = torch.bincount(running.current[valid], minlength=count) / valid.sum()
    metrics = {f"usage_{option}": float(share) for option, share in enumerate(shares)}

    durations = segments(rollout).duration
    within = valid & ~torch.cat([torch.ones_like(valid[:1]), rollout.done[:-1]])
    switches = (running.current != running.previous) & within
    return metrics | {
        "usage_entropy": float(torch.special.entr(shares).sum()),
        "option_duration": float(durations.sum() / (durations > 0).sum()),
        "switch_rate": float(switches.sum() / within.sum().clamp(min=1)),
    }
