"""PEARL (Rakelly et al. 2019, arXiv:1903.08254): the posterior over a latent variable is belief.

An encoder turns every transition of a task into a Gaussian factor; their product, which does not
depend on their order, is the posterior q(z|c) given the context c. The policy acts on a z that is
sampled anew in every episode (posterior sampling). Soft actor-critic (Haarnoja et al. 2018,
arXiv:1812.05905) learns from a replay buffer; the encoder learns from the critics' loss and the KL
divergence from the prior, on recent context. In training it may have a teacher.
"""

from collections import defaultdict
from typing import Any

import torch
from torch import Tensor

from metarl.agents.learning_agent import LearningAgent, expand_to_lanes, return_metrics
from metarl.agents.pearl.config import PEARLConfig
from metarl.agents.pearl.encoder import ContextEncoder
from metarl.agents.pearl.shards import LessonJob, update_in_shards
from metarl.agents.pearl.teacher import OutcomeTeacher, make_teacher
from metarl.algorithms.gradients import GradientShards, gradient_shards
from metarl.algorithms.sac import SAC, Batch
from metarl.config.schema import schedule_value
from metarl.core.agent import Mode, World
from metarl.core.errors import ConfigError
from metarl.core.predictions import Predictions, Questions
from metarl.core.rng import Rng, Streams, send
from metarl.core.rollout import Rollout
from metarl.core.types import (
    Acted,
    Belief,
    Inputs,
    Spec,
    TaskInfo,
    Tasks,
    first_cue,
    maybe_any,
    replace,
    tree,
    tree_map,
    where,
)
from metarl.data.replay import Replay
from metarl.data.transitions import Transitions, hindsight, transition_columns
from metarl.nn.gaussian_product import Factors, Posterior
from metarl.nn.image_encoder import make_image_encoder
from metarl.nn.policy import Policy


@tree
class TaskPosterior:
    """The belief about N tasks."""

    posterior: Posterior  # [N, Z]
    episodes: Tensor  # [N] int64: episodes so far
    shown: Tensor | None  # [N, P] the task, if it is shown


class PEARL(LearningAgent):
    """The agent. The row of its belief is each task's posterior; the lane is the episode's z."""

    def __init__(
        self,
        config: PEARLConfig,
        spec: Spec,
        rng: Rng,
        device: torch.device,
    ):
        self.config = config
        self.task_input = config.task_input
        self.spec = spec
        self.device = device
        if config.hindsight and not (spec.achieved_goal and config.task_input in ("row", "goal")):
            raise ConfigError(
                "hindsight: set task_input to goal, and choose a family with goal_reward and "
                f"achieved_goal ({spec.name}: {spec.achieved_goal})"
            )
        images = make_image_encoder(config, spec)
        self.encoder = ContextEncoder(config, spec, images)
        self.teacher = make_teacher(config, spec)
        networks = rng.child("weights")
        weights = self.encoder.init(networks) | self.teacher.init(networks)

        task = spec.shown_width(config.task_input)
        state = Policy.width(spec, task=task, latent=config.latent_width)
        self.sac = self.learner = SAC(config, spec, state, rng, device, weights, images)
        self.buffer = self._empty_buffer()

    def _empty_buffer(self) -> Replay:
        columns = transition_columns(self.spec)
        visits = self.config.context_visits
        return Replay(columns, self.config.capacity, self.device, visits=visits)

    # -- inference and acting

    def begin(self, info: TaskInfo, lanes: int) -> Belief:
        """The prior."""
        prior = self.encoder.prior(info.rows, info.device)
        episodes = torch.zeros(info.rows, dtype=torch.long, device=info.device)
        return Belief(
            cue=first_cue(self.spec, info.rows, lanes, info.device),
            row=TaskPosterior(prior, episodes, info.shown),
            lane=torch.zeros(info.rows, lanes, self.config.latent_width, device=info.device),
        )

    @torch.no_grad()
    def act(
        self,
        belief: Belief,
        obs: Tensor,
        noise: Streams,
        counter: int,
        mode: Mode,
    ) -> tuple[Acted, Belief]:
        """Act on z, which is sampled where an episode begins, in every mode.

        With `exploration_mode` sample the first episodes are no less random than in training.
        """
        begins = belief.cue[..., -1] == 1
        if maybe_any(begins):
            z = where(begins, self._sample_latent(belief.row, noise, counter), belief.lane)
            belief = replace(belief, lane=z)
        inputs = Inputs(obs, latent=belief.lane, task=expand_to_lanes(belief.row.shown, obs))
        acted = self.sac.act(inputs, begins, noise, counter, mode)
        if mode == "greedy" and self.config.exploration_mode == "sample":
            explores = self._explores(belief.row).unsqueeze(1).expand_as(begins)
            if maybe_any(explores):
                sampled = self.sac.act(inputs, begins, noise, counter, "sample")
                acted = where(explores, sampled, acted)
        return acted, belief

    @torch.no_grad()
    def adapt(self, belief: Belief, rollout: Rollout) -> Belief:
        """Multiply the factors of all transitions into the posterior."""
        row: TaskPosterior = belief.row
        factors = self._factors(
            _by_task(rollout.inputs.obs),
            _by_task(rollout.action),
            _by_task(rollout.reward),
            _by_task(rollout.next_obs),
        )
        posterior = row.posterior.update(factors, _by_task(rollout.valid))
        episodes = row.episodes + (rollout.done & rollout.valid).sum((0, 2))
        return replace(belief, row=TaskPosterior(posterior, episodes, row.shown))

    def replay(self, belief: Belief, rollout: Rollout) -> Belief:
        """The same from a recorded rollout: whoever acted does not matter."""
        rollout = rollout.reshape_lanes(belief.cue.shape[1])
        return replace(self.adapt(belief, rollout), cue=rollout.last_cue(self.spec))

    def inferred(self, belief: Belief) -> tuple[Tensor, Tensor]:
        """Mean and standard deviation of z for every task, [N, Z] each."""
        posterior: Posterior = belief.row.posterior
        return posterior.mean, posterior.std

    @property
    def predicts(self) -> bool:
        """Whether a decoder of outcomes was trained."""
        return isinstance(self.teacher, OutcomeTeacher)

    @torch.no_grad()
    def predict(self, belief: Belief, obs: Tensor, questions: Questions) -> Predictions:
        """[N, M, Q]: the rewards that it expects, the same in every lane; whatever `obs` [N, M, O].

        Raises:
            ConfigError: no decoder of outcomes was trained.
        """
        if not isinstance(self.teacher, OutcomeTeacher):
            raise ConfigError(
                f"PEARL with agent.teacher={self.config.teacher} predicts no outcomes; train it "
                "with agent.teacher=outcomes"
            )
        predicted = self.teacher.predict(self.sac.networks, belief.row.posterior, questions)
        lanes = obs.shape[1]
        return tree_map(lambda x: x.unsqueeze(1).expand(-1, lanes, -1), predicted)

    @property
    def acting(self) -> str:
        """The episodes with z from the prior, and those with z from the posterior."""
        config = self.config
        if not config.latent_width:
            return ""
        first = config.exploration_episodes
        sampled = ", actions sampled" if config.exploration_mode == "sample" else ""
        episodes = "episode" if first == 1 else f"{first} episodes"
        prior = f"z from the prior in the first {episodes}{sampled}; then "
        below = config.mean_below
        mean = f", or its mean where deviations are below {below:g}" if below else ""
        return f"{prior if first else ''}z from the posterior{mean}"

    def _explores(self, row: TaskPosterior) -> Tensor:
        """[N] bool: whether a task's next episode is one of the first, on the prior."""
        return row.episodes < self.config.exploration_episodes

    def _sample_latent(self, row: TaskPosterior, noise: Streams, counter: int) -> Tensor:
        """[N, M, Z]: z from the posterior, or its mean; from the prior in the first episodes."""
        explores = self._explores(row).unsqueeze(1)
        posterior = tree_map(lambda x: x.masked_fill(explores, 0.0).unsqueeze(1), row.posterior)
        z = posterior.draw(noise.split(counter, 1).normal(0, self.config.latent_width).squeeze(2))
        certain = (posterior.std < self.config.mean_below).all(-1) & ~explores
        return torch.where(certain.unsqueeze(-1), posterior.mean, z)

    def _factors(
        self,
        obs: Tensor,
        action: Tensor,
        reward: Tensor,
        next_obs: Tensor,
    ) -> Factors:
        """[..., Z]: the factor Ψ(z|c) of each transition [..., …]."""
        return self.encoder.factors(self.sac.networks, obs, action, reward, next_obs)

    # -- meta-training

    def iterate(self, world: World, rng: Rng) -> dict[str, float]:
        """Collect data from some training tasks, then learn from the replay of all of them."""
        if world.train_set is None:
            raise ConfigError("train_tasks: PEARL has a replay buffer for each; set their number")
        config = self.config
        if not len(self.buffer):
            self._collect(world, world.train_set, config.initial_episodes, 0, rng.child("initial"))
        tasks = world.tasks(config.tasks, rng)
        later = config.posterior_episodes + config.extra_episodes
        rollouts = self._collect(world, tasks, config.prior_episodes, later, rng.child("visit"))

        self.sac.set_progress(world.progress)
        kl_coef = schedule_value(config.kl_coef, world.progress)
        generator = rng.child("updates").generator()
        shown = world.task_info(self, world.train_set).shown
        rows = self.teacher.rows(world)
        shards = gradient_shards(self, world)
        totals: dict[str, Any] = defaultdict(float)
        for _ in range(config.updates):
            chosen = self._draw_tasks(generator)
            batch, context = self._sample_batches(world, shown, chosen, generator)
            known = None if rows is None else rows[send(chosen, self.device)]
            step = self._update(batch, context, kl_coef, generator, known, shards)
            for name, value in step.items():
                totals[name] += value
        means = {name: float(total) / config.updates for name, total in totals.items()}
        return return_metrics(rollouts) | means

    def _collect(
        self,
        world: World,
        tasks: Tasks,
        episodes: int,
        later: int,
        rng: Rng,
    ) -> list[Rollout]:
        """Episodes with z from the prior, then `later` ones with z from the posterior.

        The first of both are the new context (Algorithm 1); the extra ones are for the critics.
        """
        self.buffer.begin_context(tasks.index)
        belief = self.begin(world.task_info(self, tasks), self.lanes)
        rollout, belief = world.collect(self, belief, tasks, episodes, rng.child("prior"))
        self.buffer.add(rollout, context=True)
        rollouts = [rollout]
        for k in range(later):
            belief = self.adapt(belief, rollout)
            rollout, belief = world.collect(self, belief, tasks, 1, rng.child("posterior", k))
            self.buffer.add(rollout, context=k < self.config.posterior_episodes)
            rollouts.append(rollout)
        return rollouts

    def _draw_tasks(self, generator: torch.Generator) -> Tensor:
        """[N]: the training tasks of a gradient step, on the CPU."""
        size = (self.config.meta_batch_size,)
        return torch.randint(self.buffer.tasks, size, generator=generator)

    def _sample_batches(
        self, world: World, shown: Tensor | None, tasks: Tensor, generator: torch.Generator
    ) -> tuple[Transitions, Transitions | None]:
        """Transitions of any age of `tasks` [N] for SAC, and their context for the encoder."""
        config = self.config
        future = "next_obs" if config.hindsight else None
        columns = self.buffer.sample(tasks, config.batch_size, generator, future=future)
        batch = Transitions(**columns)
        if shown is not None:
            batch = replace(batch, task=expand_to_lanes(shown[send(tasks, self.device)], batch.obs))
        if config.hindsight:
            uniform = send(torch.rand(batch.reward.shape, generator=generator), self.device)
            batch = replace(batch, future=self.spec.achieved(columns["future"]))
            batch = hindsight(batch, uniform < config.hindsight, self.spec, world.goal_reward)
        if not config.latent_width:
            return batch, None
        if config.context_sampling == "steps":
            context = self.buffer.context(tasks, config.context_size, generator)
        else:
            episodes = config.prior_episodes + config.posterior_episodes
            context = self.buffer.prefixes(tasks, episodes, generator, config.context_dropout)
        return batch, Transitions(**context)

    def _update(
        self,
        batch: Transitions,
        context: Transitions | None,
        kl_coef: float,
        generator: torch.Generator,
        rows: Tensor | None = None,
        shards: GradientShards | None = None,
    ) -> dict[str, Tensor]:
        """A step of soft actor-critic, whose critics also train the encoder (Algorithm 1).

        The teacher may know the tasks' `rows` [N, P].
        """
        normal = self._draw_normal(len(batch.obs), generator)
        if shards is not None:
            if self.sac.images is not None:
                raise ConfigError(
                    "gradient_shards: an agent on SAC that sees images computes its gradients at "
                    "once; leave it at 1"
                )
            lesson = LessonJob(batch, context, normal, rows, kl_coef)
            return update_in_shards(self.sac, lesson, generator, shards)
        transitions, loss, metrics = self.lesson(batch, context, normal, rows, kl_coef)
        return self.sac.update(transitions, generator, loss) | metrics

    def lesson(
        self,
        batch: Transitions,
        context: Transitions | None,
        normal: Tensor,
        rows: Tensor | None,
        kl_coef: float,
        share: float = 1.0,
    ) -> tuple[Batch, Tensor, dict[str, Tensor]]:
        """What N tasks give to a step: transitions, what is added to the critics' loss, metrics [].

        L_critic + β L_KL, where L_KL is *summed* over tasks and entries of z; and a teacher's loss.

        Args:
            normal: [N, Z] standard normal numbers that z is made of.
            share: of the tasks of a gradient step, all of which have one mean.
        """
        posterior = self._infer_posterior(context, len(batch.obs))
        lesson = self.teacher.lesson(self.sac.networks, posterior, normal, batch, rows)
        transitions = Batch(
            self.inputs(batch.obs, lesson.z, batch.task),
            batch.action.flatten(0, 1),
            batch.training_reward.flatten(),
            self.inputs(batch.next_obs, lesson.z.detach(), batch.task),
            batch.terminated.flatten(),
        )
        kl = posterior.kl().sum()
        metrics = {"kl": kl.detach()}
        for name, value in lesson.metrics.items():
            metrics[name] = share * value
        return transitions, kl_coef * kl + share * lesson.loss, metrics

    def _draw_normal(self, tasks: int, generator: torch.Generator) -> Tensor:
        """[N, Z]."""
        shape = (tasks, self.config.latent_width)
        return send(torch.randn(shape, generator=generator), self.device)

    def _infer_posterior(self, context: Transitions | None, tasks: int) -> Posterior:
        """q(z|c) for the context c [N, C] of N `tasks`; the prior without."""
        prior = self.encoder.prior(tasks, self.device)
        if context is None:
            return prior
        return prior.update(self._context_factors(context))

    def _context_factors(self, context: Transitions) -> Factors:
        """[N, C, Z]: 0, which says nothing, where a step is not valid and no network is needed."""
        arrays = (context.obs, context.action, context.reward, context.next_obs)
        valid = context.valid
        if valid is None:
            return self._factors(*arrays)
        factors = self._factors(*[x[valid] for x in arrays])
        nothing = factors.shift.new_zeros(*valid.shape, self.config.latent_width)
        return tree_map(lambda x: nothing.index_put((valid,), x), factors)

    def inputs(self, obs: Tensor, z: Tensor, task: Tensor | None) -> Inputs:
        """The inputs of policy and critics at obs [N, B, O], z [N, Z] and task [N, B, P]."""
        inputs = Inputs(obs, latent=expand_to_lanes(z, obs), task=task)
        return tree_map(lambda x: x.flatten(0, 1), inputs)

    # -- checkpoints

    def state_dict(self) -> dict[str, Any]:
        """The engine's state, and the replay buffer, which is not copied."""
        return super().state_dict() | {"replay": self.buffer.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue where `state_dict` was taken."""
        super().load_state_dict(state)
        self.buffer = self._empty_buffer()
        if "replay" in state:
            self.buffer.load_state_dict(state["replay"])

    def warm_start(self, state: dict[str, Any]) -> None:
        """Take over an acting state; the replay buffer is empty."""
        super().warm_start(state)
        self.buffer = self._empty_buffer()


def _by_task(x: Tensor) -> Tensor:
    """All steps of a task side by side, lane by lane: [T, N, M, …] → [N, M·T, …]."""
    return x.movedim(0, 2).flatten(1, 2)
