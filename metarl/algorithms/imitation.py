"""Imitation on whole trials: one supervised loss for algorithm distillation (Laskin et al. 2022,
arXiv:2210.14215), DPT (Lee et al. 2023, arXiv:2306.14892) and DAgger (Ross et al. 2011,
arXiv:1011.0686).
"""

from __future__ import annotations

from collections import defaultdict

import torch
from torch import Tensor

from metarl.algorithms.config import ImitationConfig
from metarl.algorithms.policy_learner import PolicyLearner
from metarl.config.schema import schedule_value
from metarl.core.rng import Rng
from metarl.core.rollout import Rollout
from metarl.core.types import Spec
from metarl.nn.policy import Policy


class Imitation(PolicyLearner):
    """A policy that learns which action a teacher takes after a history."""

    policy: Policy

    def __init__(
        self,
        policy: Policy,
        config: ImitationConfig,
        spec: Spec,
        rng: Rng,
        device: torch.device,
    ):
        params = policy.init(rng.child("weights").generator())
        super().__init__(policy, params, config, spec, device)
        self.config = config

    def update(
        self, trials: Rollout, label: Tensor, progress: float, generator: torch.Generator
    ) -> dict[str, float]:
        """Several passes over minibatches of whole trials → mean metrics.

        The loss is − E log π(label | history), over all valid steps.

        Args:
            trials: [T, N, M, …] from the start of their trials.
            label: [T, N, M] or [T, N, M, A], the teacher's action at every step.
            progress: the share of training that is over, for the step size.
            generator: shuffles the trials.
        """
        self.inputs.update(trials)
        learning_rate = schedule_value(self.config.learning_rate, progress)
        metrics = defaultdict(list)
        for _ in range(self.config.epochs):
            order = torch.randperm(len(trials.index), generator=generator).to(self.device)
            for rows in order.tensor_split(min(self.config.minibatches, len(order))):
                loss, accuracy = self._loss(trials.rows(rows), label[:, rows])
                norm = self.descend(loss, learning_rate, self.config.max_grad_norm)
                metrics["imitation_loss"].append(loss.detach())
                metrics["accuracy"].append(accuracy)
                metrics["grad_norm"].append(norm)
        return {name: float(torch.stack(values).mean()) for name, values in metrics.items()}

    def _loss(self, trials: Rollout, label: Tensor) -> tuple[Tensor, Tensor]:
        """The loss, and how often the most likely action is the teacher's."""
        rows, lanes = trials.valid.shape[1:]
        start = self.policy.start(rows, lanes, self.device)
        inputs = self.normalize(trials.inputs)
        actions = self.policy.unroll(self.params, inputs, start).actions
        loss = -actions.log_prob(label)[trials.valid].mean()
        same = actions.mode() == label
        if not self.policy.discrete:
            same = same.all(-1)
        return loss, same[trials.valid].float().mean()
