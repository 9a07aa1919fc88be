"""An agent that keeps every promise, small enough to be broken on purpose."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from metarl.core.agent import Mode, World
from metarl.core.rng import Rng, Streams
from metarl.core.rollout import Rollout
from metarl.core.types import (
    Acted,
    Belief,
    Inputs,
    Spec,
    TaskInfo,
    first_cue,
    one_hot,
    replace,
)


class Tiny:
    """REINFORCE with a linear softmax policy and momentum; discrete actions only.

    It prefers actions that paid on a task (the belief's row) and tires of the last action within an
    episode (the lane). Observations are centered by a running mean.
    """

    task_input = "none"
    lanes = 2

    def __init__(self, config: Any, spec: Spec, rng: Rng, device: torch.device) -> None:
        self.spec = spec
        shape = (spec.obs_width, spec.action_width)
        self.weights = 0.5 * torch.randn(shape, generator=rng.generator())
        self.momentum = torch.zeros(shape)
        self.mean = torch.zeros(spec.obs_width)
        self.count = 0

    # -- a trial

    def begin(self, info: TaskInfo, lanes: int) -> Belief:
        bonus = torch.zeros(info.rows, self.spec.action_width)
        tired = torch.zeros(info.rows, lanes, self.spec.action_width)
        return Belief(first_cue(self.spec, info.rows, lanes, info.device), row=bonus, lane=tired)

    def logits(self, obs: Tensor, bonus: Tensor, tired: Tensor) -> Tensor:
        return (obs - self.mean) @ self.weights + bonus - tired

    def act(
        self, belief: Belief, obs: Tensor, noise: Streams, counter: int, mode: Mode
    ) -> tuple[Acted, Belief]:
        last = belief.cue[..., : self.spec.action_width]
        tired = 0.5 * belief.lane + 0.1 * last
        log_probs = self.logits(obs, belief.row.unsqueeze(1), tired).log_softmax(-1)
        if mode == "greedy":
            action = log_probs.argmax(-1)
        else:
            uniform = noise.uniform(counter, 1)
            action = (log_probs.exp().cumsum(-1)[..., :-1] < uniform).sum(-1)
        log_prob = log_probs.gather(-1, action.unsqueeze(-1)).squeeze(-1)
        acted = Acted(Inputs(obs, cue=belief.cue), action, log_prob, {"tired": tired})
        return acted, replace(belief, lane=tired)

    def adapt(self, belief: Belief, rollout: Rollout) -> Belief:
        paid = (rollout.reward * rollout.valid).unsqueeze(-1)
        taken = one_hot(rollout.action, self.spec.action_width)
        return replace(belief, row=belief.row + 0.1 * (paid * taken).sum((0, 2)))

    def replay(self, belief: Belief, rollout: Rollout) -> Belief:
        last = rollout.reshape_lanes(belief.cue.shape[1]).last_cue(self.spec)
        return replace(self.adapt(belief, rollout), cue=last)

    # -- training

    def iterate(self, world: World, rng: Rng) -> dict[str, float]:
        tasks = world.tasks(4, rng)
        belief = self.begin(world.task_info(self, tasks), self.lanes)
        rollout, belief = world.collect(self, belief, tasks, 1, rng.child("first"))
        belief = self.adapt(belief, rollout)
        rollout, _ = world.collect(self, belief, tasks, 1, rng.child("second"))
        loss = self.descend(rollout, belief.row, rng)
        self.count += 1
        mean = rollout.inputs.obs.mean((0, 1, 2))
        self.mean = self.mean + (mean - self.mean) / self.count
        return {"return": float(rollout.episode_returns().mean()), "loss": loss}

    def descend(self, rollout: Rollout, bonus: Tensor, rng: Rng) -> float:
        returns = rollout.episode_returns().sum(0)
        weights = self.weights.requires_grad_()
        bonus, tired = bonus.unsqueeze(1), rollout.extras["tired"]
        log_probs = self.logits(rollout.inputs.obs, bonus, tired).log_softmax(-1)
        log_prob = log_probs.gather(-1, rollout.action.unsqueeze(-1)).squeeze(-1)
        loss = -((returns - returns.mean() + 0.1) * (log_prob * rollout.valid).sum(0)).mean()
        (gradient,) = torch.autograd.grad(loss, weights)
        self.momentum = 0.9 * self.momentum + gradient
        self.weights = weights.detach() - 0.1 * self.momentum
        return float(loss.detach())

    # -- state

    def state_dict(self) -> dict[str, Any]:
        return {**self.acting_state(), "momentum": self.momentum, "count": self.count}

    def acting_state(self) -> dict[str, Any]:
        return {"weights": self.weights, "mean": self.mean}

    def warm_start(self, state: dict[str, Any]) -> None:
        self.weights, self.mean = state["weights"].clone(), state["mean"].clone()
        self.momentum = torch.zeros_like(self.weights)
        self.count = 0

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.warm_start(state)
        self.momentum, self.count = state["momentum"].clone(), state["count"]
