"""The evidence lower bound of whole trials (Zintgraf et al. 2020, arXiv:1910.08348, equation 7).

From the belief at every step t, *all* transitions of the trial are predicted, past and future:

    mean over t of {E_z Σ_i [log p(r_i | …, z) + c log p(s′_i | …, z)] − λ KL(q_t ‖ q_{t−1})}

with z ~ q_t and q_{−1} = N(0, I). Its gradient trains encoder and decoders, and no policy.

What a policy that adapts does later tells of the task: an arm that is pulled often is a good one.
So p(r_i | …, z) given the history and such an action is not what pulling it now would pay. Where i
are transitions of the same task under actions that know nothing of it, it is: the optimum is the
posterior predictive of Bayes.
"""

from __future__ import annotations

from collections import defaultdict
from typing import Any

import torch
from torch import Tensor

from metarl.algorithms.config import ELBOConfig
from metarl.algorithms.learner import Learner
from metarl.algorithms.losses import masked_mean
from metarl.config.schema import schedule_value
from metarl.core.errors import ConfigError
from metarl.core.predictions import Predictions, Questions
from metarl.core.rng import Rng
from metarl.core.rollout import Rollout
from metarl.core.types import Inputs, Spec, tree, tree_map
from metarl.nn.belief_model import BeliefModel, Outcomes, Steps
from metarl.nn.distributions import Gaussian, repeatable_normal
from metarl.nn.normalizer import Normalizer

_WINDOW = 10.0
"""Statistics of beliefs remember about so many iterations: encoders change."""
_ROUNDING = 1e-4
"""Of rewards, as a share of the difference between both."""


@tree
class _Trials:
    """N whole trials."""

    inputs: Inputs  # [T, N, M, …] of the encoder
    valid: Tensor  # [T, N, M] bool
    outcomes: Outcomes  # [I, N, M, …] what is decoded
    asked: Tensor  # [I, N, M] bool

    def rows(self, chosen: Tensor) -> _Trials:
        """The trials `chosen` [n]: [T, n, M, …]."""
        return tree_map(lambda x: x.index_select(1, chosen), self)


class ELBO(Learner):
    """A belief model with its optimizer, and the statistics that whiten what it predicts."""

    def __init__(
        self,
        model: BeliefModel,
        config: ELBOConfig,
        spec: Spec,
        rng: Rng,
        device: torch.device,
    ):
        super().__init__(model.init(rng.child("belief").generator()), device)
        self.model = model
        self.config = config
        self.spec = spec
        self.obs = Normalizer.initial(spec.obs_width, device)
        self.change = Normalizer.initial(spec.obs_width, device)
        self.reward = Normalizer.initial(1, device)
        self.beliefs = Normalizer.initial(2 * model.latent_width, device)
        """Of means and log-variances, for a policy that acts on them."""

    def update(
        self,
        trials: Rollout,
        inputs: Inputs,
        targets: Rollout,
        progress: float,
        generator: torch.Generator,
    ) -> dict[str, float]:
        """Several passes over minibatches of whole trials → mean metrics, in nats.

        Args:
            trials: [T, N, M, …] from the start of their trials.
            inputs: [T, N, M, …] what the encoder saw in them.
            targets: [I, N, M, …] what is decoded: the same trials, or others of the same tasks.
            progress: the share of training that is over, for the step size.
            generator: of minibatches, of the steps that are decoded, and of z.
        """
        self._update_statistics(targets)
        batch = _Trials(inputs, trials.valid, self._outcomes(targets), targets.valid)
        learning_rate = schedule_value(self.config.elbo_learning_rate, progress)
        metrics = defaultdict(list)
        for _ in range(self.config.elbo_epochs):
            order = torch.randperm(len(trials.index), generator=generator).to(self.device)
            for rows in order.tensor_split(min(self.config.elbo_minibatches, len(order))):
                loss, parts = self._loss(batch.rows(rows), generator)
                self.descend(loss, learning_rate, self.config.max_grad_norm)
                for name, value in parts.items():
                    metrics[name].append(value)
        return {name: float(torch.stack(values).mean()) for name, values in metrics.items()}

    def _loss(self, batch: _Trials, generator: torch.Generator) -> tuple[Tensor, dict[str, Tensor]]:
        """− ELBO / T, for trials of T valid steps."""
        valid = batch.valid
        rows, lanes = valid.shape[1:]
        lengths = valid.sum(0)  # [N, M]: valid steps come first
        asked_lengths = batch.asked.sum(0)
        start = self.model.start(rows, lanes, self.device)
        belief = self.model.unroll(self.params, batch.inputs, start)
        kl = belief.kl(_before(belief))

        times = self._pick(int(lengths.amax()), self.config.elbo_times, generator)
        steps = self._pick(int(asked_lengths.amax()), self.config.elbo_steps, generator)
        mean, log_std = belief.mean[times], belief.log_std[times]
        z = mean + log_std.exp() * torch.randn(mean.shape, generator=generator).to(mean)
        outcomes = tree_map(lambda x: x[steps].movedim(0, 2), batch.outcomes)
        asked = batch.asked[steps].movedim(0, 2)
        pairs = valid[times].movedim(0, 2).unsqueeze(3) & asked.unsqueeze(2)
        of_reward, of_next = self.model.log_likelihood(self.params, z.movedim(0, 2), outcomes)

        reward_loss = -masked_mean(of_reward, pairs)
        trial_kl = (kl * valid).sum(0).mean()
        metrics = {"reward_loss": reward_loss.detach(), "belief_kl": trial_kl.detach()}
        loss = reward_loss + self.config.kl_coef * masked_mean(kl / lengths.clamp(min=1), valid)
        if of_next is not None:
            next_loss = -masked_mean(of_next, pairs)
            metrics["next_obs_loss"] = next_loss.detach()
            loss = loss + self.config.next_obs_coef * next_loss
        metrics["belief_std"] = masked_mean(belief.log_std.exp().mean(-1), valid).detach()
        return loss, metrics

    def _pick(self, steps: int, count: int, generator: torch.Generator) -> Tensor:
        """[min(count, steps)] int64: different steps of T."""
        return torch.randperm(steps, generator=generator)[:count].to(self.device)

    # -- what is predicted

    @torch.no_grad()
    def surprise(self, belief: Gaussian, trials: Rollout) -> Tensor:
        """[T, N, M]: − log p(r_t, s_{t+1} | …, z) in nats, by the mean of the belief before it."""
        each = tree_map(lambda x: x.unsqueeze(3), self._outcomes(trials))
        z = belief.mean.unsqueeze(3)
        of_reward, of_next = self.model.log_likelihood(self.params, z, each)
        total = of_reward if of_next is None else of_reward + self.config.next_obs_coef * of_next
        return -total.squeeze((3, 4))

    @torch.no_grad()
    def predict(self, belief: Gaussian, questions: Questions) -> Predictions:
        """[N, M, Q, …]: the answers of z ~ q(z) [N, M, Z], averaged over samples of it."""
        mean, std = belief.mean.unsqueeze(-2), belief.log_std.exp().unsqueeze(-2)
        z = mean + std * repeatable_normal(belief.mean)  # [N, M, S, Z]
        asked = Steps(
            self._scaled(questions.obs), questions.action, self._scaled(questions.next_obs)
        )
        mean, variance = self._reward(z, asked)
        return Predictions(mean, variance, self._successor(z, asked, questions))

    def _reward(self, z: Tensor, asked: Steps) -> tuple[Tensor, Tensor]:
        """[N, M, Q] each: mean and variance of the reward in its own units."""
        answer = self.model.reward(self.params, z, asked)  # [N, M, S, Q]
        if self.config.reward_values is not None:
            low, high = self.config.reward_values
            probability = answer.sigmoid().mean(2)
            spread = (high - low) ** 2 * probability * (1 - probability)
            return low + (high - low) * probability, spread
        mean = self.reward.denormalize(answer.mean(2).unsqueeze(-1)).squeeze(-1)
        noise = (2 * self.params["reward.log_std"]).exp()
        return mean, (noise + answer.var(2, correction=0)) * self.reward.std.square()

    def _successor(self, z: Tensor, asked: Steps, questions: Questions) -> Tensor | None:
        """[N, M, Q, C]: probabilities of the given successors."""
        if questions.successors is None or self.model.next_obs != "onehot":
            return None
        probability = self.model.successor(self.params, z, asked).softmax(-1).mean(2)
        return probability @ questions.successors.mT

    # -- scales

    def rescale(self, beliefs: Tensor, valid: Tensor) -> None:
        """Take means and log-variances [..., 2 Z] that a policy has seen into account."""
        self.beliefs = self.beliefs.update(beliefs, valid.unsqueeze(-1), _WINDOW)

    def _update_statistics(self, trials: Rollout) -> None:
        if self.model.next_obs == "onehot":
            self._check_onehot(trials.next_obs, trials.valid)
        valid = trials.valid.unsqueeze(-1)
        both = torch.cat([trials.inputs.obs, trials.next_obs])
        self.obs = self.obs.update(both, torch.cat([valid, valid]))
        self.change = self.change.update(trials.next_obs - trials.inputs.obs, valid)
        self.reward = self.reward.update(trials.reward.unsqueeze(-1), valid)

    def _outcomes(self, trials: Rollout) -> Outcomes:
        """The transitions [T, N, M, …] on the model's scales."""
        if self.config.reward_values is not None:
            reward = self._which_reward(trials, *self.config.reward_values)
        else:
            reward = self.reward.normalize(trials.reward.unsqueeze(-1)).squeeze(-1)
        steps = Steps(self._scaled(trials.inputs.obs), trials.action, self._scaled(trials.next_obs))
        return Outcomes(
            steps,
            reward,
            self.change.normalize(trials.next_obs - trials.inputs.obs),
        )

    def _which_reward(self, trials: Rollout, low: float, high: float) -> Tensor:
        """[T, N, M]: 1 where the reward is `high`, 0 where it is `low`.

        Raises:
            ConfigError: it is neither.
        """
        share = (trials.reward - low) / (high - low)
        which = share.round()
        known = ((share - which).abs() < _ROUNDING) & (which >= 0) & (which <= 1)
        if not known[trials.valid].all():
            other = float(trials.reward[trials.valid & ~known][0])
            raise ConfigError(
                f"agent.reward_values: {self.spec.name} pays {other:g}, which is neither {low:g} "
                f"nor {high:g}; leave it out for rewards of any size"
            )
        return which

    def _check_onehot(self, obs: Tensor, valid: Tensor) -> None:
        """Raises a ConfigError for observations [T, N, M, O] that are not one-hot."""
        seen = obs[valid]
        if not ((seen.sum(-1) == 1) & (seen.amax(-1) == 1)).all():
            raise ConfigError(
                f"agent.next_obs_decoder onehot: observations of {self.spec.name} are not one-hot; "
                "set it to normal or none"
            )

    def _scaled(self, obs: Tensor) -> Tensor:
        """[..., O]."""
        return obs if self.model.next_obs == "onehot" else self.obs.normalize(obs)

    # -- checkpoints

    def acting_state(self) -> dict[str, Any]:
        """Parameters, and statistics."""
        moments = {
            "obs": self.obs.state_dict(),
            "change": self.change.state_dict(),
            "reward": self.reward.state_dict(),
            "belief": self.beliefs.state_dict(),
        }
        return super().acting_state() | {"moments": moments}

    def warm_start(self, state: dict[str, Any]) -> None:
        """Take over an acting state; a fresh optimizer.

        Raises:
            ConfigError: parameters of another architecture.
        """
        super().warm_start(state)
        moments = state["moments"]
        self.obs = Normalizer.from_state_dict(moments["obs"], self.device)
        self.change = Normalizer.from_state_dict(moments["change"], self.device)
        self.reward = Normalizer.from_state_dict(moments["reward"], self.device)
        self.beliefs = Normalizer.from_state_dict(moments["belief"], self.device)


def _before(belief: Gaussian) -> Gaussian:
    """The beliefs [T, …] of one step earlier; the prior N(0, I) before the first."""
    return tree_map(lambda x: torch.cat([torch.zeros_like(x[:1]), x[:-1]]), belief)
