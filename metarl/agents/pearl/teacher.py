"""Teachers of PEARL's encoder, in training alone: what acts has no part of them.

The critics' error says little of z before the critics are good, which they become where z is known.
A teacher says it at once: of the training tasks' rows (`TaskTeacher`), or of what steps lead to
(`OutcomeTeacher`).
"""

from __future__ import annotations

from typing import Protocol

import torch
from torch import Tensor
from torch.nn.functional import mse_loss, softplus

from metarl.agents.learning_agent import expand_to_lanes
from metarl.agents.pearl.config import PEARLConfig
from metarl.core.agent import RevealsTasks, World
from metarl.core.errors import ConfigError
from metarl.core.predictions import Predictions, Questions
from metarl.core.rng import Rng
from metarl.core.types import Params, Spec, tree
from metarl.data.transitions import Transitions
from metarl.nn.distributions import repeatable_normal
from metarl.nn.gaussian_product import Posterior
from metarl.nn.mlp import MLP, named

_SMALLEST_VARIANCE = 1e-4


@tree
class Lesson:
    """What a gradient step is told by a teacher."""

    z: Tensor  # [N, Z] what critics and policy learn on
    loss: Tensor  # [] of encoder and teacher
    metrics: dict[str, Tensor]  # [] each


class Teacher(Protocol):
    """Networks that the encoder learns from."""

    def init(self, rng: Rng) -> Params:
        """Their first parameters, called ``network.parameter``."""

    def rows(self, world: World) -> Tensor | None:
        """[S, P]: what it knows of the training tasks; None: nothing."""

    def lesson(
        self,
        networks: dict[str, Params],
        posterior: Posterior,
        normal: Tensor,
        batch: Transitions,
        rows: Tensor | None,
    ) -> Lesson:
        """The lesson on N tasks.

        Args:
            networks: the parameters of each network.
            posterior: [N, Z] q(z|c), by the encoder.
            normal: [N, Z] standard normal numbers that z is made of.
            batch: [N, B] transitions.
            rows: [N, P] those of `rows` that belong to the tasks.
        """


class NoTeacher:
    """The critics alone teach the encoder, by z ~ q(z|c) (Rakelly et al. 2019, Algorithm 1)."""

    def init(self, rng: Rng) -> Params:
        """None."""
        return {}

    def rows(self, world: World) -> Tensor | None:
        """Nothing."""
        return None

    def lesson(
        self,
        networks: dict[str, Params],
        posterior: Posterior,
        normal: Tensor,
        batch: Transitions,
        rows: Tensor | None,
    ) -> Lesson:
        """z, with its gradient, and no loss."""
        z = posterior.draw(normal)
        return Lesson(z, z.new_zeros(()), {})


class TaskTeacher:
    """Infers z from the task row x, standardized, and teaches q(z|c) to agree with q(z|x).

    With a decoder x̂ of mean squared error it is a variational autoencoder of rows (Kingma & Welling
    2014, arXiv:1312.6114), whose posterior the encoder's is fitted to::

        L = E ‖x̂(z) − x‖² / 2σ² + KL(q(z|x) ‖ N(0, I)) + KL(sg q(z|x) ‖ q(z|c)),    z ~ q(z|x)

    where sg lets no gradient pass: the context never changes what z means. Critics and policy
    learn on the same z, and so on the true task from the beginning. As the forward divergence, the
    last term makes q(z|c) cover all tasks that the context leaves possible.
    """

    def __init__(self, config: PEARLConfig, spec: Spec):
        self.config = config
        self.goal_width = spec.goal_width
        self.teacher = MLP(spec.task_width, config.teacher_sizes, 2 * config.latent_width)
        self.decoder = MLP(config.latent_width, config.teacher_sizes, spec.task_width)

    def init(self, rng: Rng) -> Params:
        """Of "teacher" and "decoder"."""
        teacher = self.teacher.init(rng.child("teacher").generator())
        decoder = self.decoder.init(rng.child("decoder").generator())
        return named(teacher, "teacher") | named(decoder, "decoder")

    def rows(self, world: World) -> Tensor | None:
        """[S, P]: the training tasks' rows, standardized; no other row is ever asked for."""
        assert world.train_set is not None
        if not isinstance(world, RevealsTasks):
            raise ConfigError(
                f"world: {type(world).__name__} has no task_rows, which agent.teacher=task needs; "
                "set agent.teacher to outcomes or none"
            )
        return standardized(world.task_rows(world.train_set), self.goal_width)

    def lesson(
        self,
        networks: dict[str, Params],
        posterior: Posterior,
        normal: Tensor,
        batch: Transitions,
        rows: Tensor | None,
    ) -> Lesson:
        """z ~ q(z|x), which critics and policy do not change."""
        assert rows is not None
        taught = self.posterior(networks["teacher"], rows)
        z = taught.draw(normal)
        error = self._squared_error(networks["decoder"], z, rows)
        prior_kl = taught.kl().mean()
        fixed = Posterior(taught.precision.detach(), taught.shift.detach())
        context_kl = fixed.kl_to(posterior).mean()
        loss = error / (2 * self.config.teacher_std**2) + prior_kl + context_kl

        with torch.no_grad():
            inferred = self._squared_error(networks["decoder"], posterior.mean, rows)
        metrics = {
            "row_error": error.detach().sqrt(),
            "inferred_row_error": inferred.sqrt(),
            "row_kl": prior_kl.detach(),
            "context_kl": context_kl.detach(),
        }
        return Lesson(z.detach(), loss, metrics)

    def posterior(self, params: Params, rows: Tensor) -> Posterior:
        """q(z|x) [N, Z] of standardized rows [N, P]."""
        mean, spread = self.teacher(params, rows).chunk(2, -1)
        return Posterior.normal(mean, softplus(spread) + _SMALLEST_VARIANCE)

    def _squared_error(self, params: Params, z: Tensor, rows: Tensor) -> Tensor:
        """[]: summed over the entries of a row."""
        return (self.decoder(params, z) - rows).square().sum(-1).mean()


class OutcomeTeacher:
    """Predicts rewards and next observations from (s, a, z), z ~ q(z|c).

    Its squared error teaches the encoder what tells tasks apart (as in VariBAD, Zintgraf et al.
    2020, arXiv:1910.08348); critics and their gradient to the encoder stay as they are. The
    deviation of the reward is fitted to what is left of the error, for predictions alone.
    """

    def __init__(self, config: PEARLConfig, spec: Spec):
        if spec.images:
            raise ConfigError(
                f"agent.teacher outcomes: it predicts no images, and {spec.name} has some; set "
                "agent.teacher=task or none"
            )
        self.config = config
        self.spec = spec
        inputs = spec.obs_width + spec.action_width + config.latent_width
        self.decoder = MLP(inputs, config.teacher_sizes, 1 + spec.obs_width)

    def init(self, rng: Rng) -> Params:
        """Of "decoder" and "noise"."""
        decoder = self.decoder.init(rng.child("decoder").generator())
        return named(decoder, "decoder") | {"noise.log_std": torch.zeros(())}

    def rows(self, world: World) -> Tensor | None:
        """Nothing."""
        return None

    def lesson(
        self,
        networks: dict[str, Params],
        posterior: Posterior,
        normal: Tensor,
        batch: Transitions,
        rows: Tensor | None,
    ) -> Lesson:
        """z ~ q(z|c), with its gradient."""
        z = posterior.draw(normal)
        reward = self.config.reward_scale * batch.reward
        outcomes = torch.cat([reward.unsqueeze(-1), batch.next_obs], dim=-1)
        predicted = self._decode(networks, batch.obs, batch.action, z)
        error = mse_loss(predicted, outcomes)
        log_std = networks["noise"]["log_std"]
        left = mse_loss(predicted[..., 0].detach(), reward)
        noise_loss = 0.5 * left * (-2 * log_std).exp() + log_std  # − log N(0, σ²), but a constant
        loss = self.config.decoder_coef * error + noise_loss
        return Lesson(z, loss, {"outcome_error": error.detach()})

    def predict(
        self, networks: dict[str, Params], posterior: Posterior, questions: Questions
    ) -> Predictions:
        """[N, Q] rewards, averaged over samples of z ~ posterior [N, Z]."""
        rows = len(posterior.mean)
        normal = repeatable_normal(posterior.mean).unsqueeze(1)
        z = posterior.draw(normal).flatten(0, 1)  # [S·N, Z]
        obs = questions.obs.expand(len(z), -1, -1)
        action = questions.action.expand(len(z), *questions.action.shape)
        answers = self._decode(networks, obs, action, z)[..., 0].unflatten(0, (-1, rows))
        noise = (2 * networks["noise"]["log_std"]).exp()
        variance = answers.var(0, correction=0) + noise
        scale = self.config.reward_scale
        return Predictions(answers.mean(0) / scale, variance / scale**2)

    def _decode(
        self, networks: dict[str, Params], obs: Tensor, action: Tensor, z: Tensor
    ) -> Tensor:
        """[N, B, 1 + O]: scaled reward and next observation of steps [N, B], given z [N, Z]."""
        action = self.spec.encode_action(action)
        latent = expand_to_lanes(z, obs)
        assert latent is not None
        inputs = torch.cat([obs, action, latent], dim=-1)
        return self.decoder(networks["decoder"], inputs)


def make_teacher(config: PEARLConfig, spec: Spec) -> Teacher:
    """The one that the configuration names."""
    if config.teacher == "task":
        return TaskTeacher(config, spec)
    if config.teacher == "outcomes":
        return OutcomeTeacher(config, spec)
    return NoTeacher()


def standardized(rows: Tensor, goal_width: int) -> Tensor:
    """Rows [S, P] with mean 0 and deviation 1 in every entry; 0 in those that do not vary.

    The first `goal_width` entries, a goal, have one scale, so that the widest has deviation 1. With
    a scale each a half circle is as high as wide, and more than half of the teachers of one latent
    entry tear it: tasks on both sides of the tear, which contexts confuse, get z far apart.
    """
    varies = rows.amax(0) > rows.amin(0)
    std, mean = torch.std_mean(rows, dim=0, correction=0)
    std = torch.where(varies, std, 0.0)
    if goal_width:
        std[:goal_width] = std[:goal_width].amax()
    return torch.where(varies, (rows - mean) / torch.where(varies, std, 1.0), 0.0)
