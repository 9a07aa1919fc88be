"""MAML with policy gradients (Finn et al. 2017, arXiv:1703.03400): adapted parameters are belief.

Every task has its own copy of the policy. The inner loop takes a policy-gradient step on a few of
its episodes; the outer loop moves the common initialization θ so that the policies *after* the step
do better, differentiating through the step: by a trust region (TRPO, Schulman et al. 2015,
arXiv:1502.05477), by clipped ratios (ProMP, Rothfuss et al. 2019, arXiv:1810.06784), or, without a
derivative, towards the adapted parameters (Reptile, Nichol et al. 2018, arXiv:1803.02999).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean

import torch
from torch import Tensor
from torch.nn.utils import get_total_norm
from torch.utils._pytree import tree_flatten, tree_unflatten

from metarl.agents.learning_agent import LearningAgent, expand_to_lanes, return_metrics
from metarl.agents.maml.config import MAMLConfig
from metarl.algorithms.inner_loop import (
    STEP_SIZE,
    Chain,
    Episodes,
    InnerLoss,
    clipped_ratio,
    likelihood_ratio,
    log_likelihood,
)
from metarl.algorithms.learner import Learner, set_learning_rate
from metarl.algorithms.losses import standardize
from metarl.algorithms.returns import discounted_returns, gae, linear_baseline, next_step
from metarl.algorithms.second_order import Linearization, gradients, leaves, linearize, products
from metarl.algorithms.trust_region import trust_region_step
from metarl.config.schema import schedule_value
from metarl.core.agent import Mode, World
from metarl.core.rng import Rng, Streams
from metarl.core.rollout import Rollout
from metarl.core.types import (
    Acted,
    Belief,
    Inputs,
    Params,
    Spec,
    TaskInfo,
    first_cue,
    replace,
    tree,
    tree_map,
    where,
)
from metarl.nn.distributions import from_heads
from metarl.nn.image_encoder import make_image_encoder
from metarl.nn.policy import Policy
from metarl.options.option_policy import options_from_policy, with_options
from metarl.options.pretrained import PretrainedOptions

_INNER_LOSSES = {"log_likelihood": log_likelihood, "likelihood_ratio": likelihood_ratio}


@tree
class Adapted:
    """The belief about N tasks: their policies so far."""

    params: Params  # [N, …]
    steps: Tensor  # [N] int64: inner steps taken
    shown: Tensor | None  # [N, P] the task, if it is shown


@dataclass(frozen=True)
class _Query:
    """Rollouts of N adapted policies, and these policies as they were then."""

    chain: Chain  # of the inner steps that led to them
    policy: Linearization  # after the last step, on `episodes`
    episodes: Episodes
    credit: Tensor  # [N] return after adaptation, standardized over tasks
    steps: Tensor  # [N] int64: inner steps taken

    def kl(self, heads: Params) -> Tensor:
        """[]: KL(`heads` ‖ the old policies), mean over each task's steps, then over tasks."""
        return self.episodes.mean(from_heads(heads).kl(from_heads(self.policy.heads))).mean()


class MAML(LearningAgent):
    """The agent. The row of its belief is each task's policy; the lane is the policy's memory."""

    def __init__(
        self,
        config: MAMLConfig,
        spec: Spec,
        rng: Rng,
        device: torch.device,
        pretrained: PretrainedOptions | None = None,
    ):
        self.config = config
        self.task_input = config.task_input
        self.lanes = config.episodes_per_task
        self.spec = spec
        self.device = device
        flat = Policy.for_spec(
            spec,
            make_image_encoder(config, spec),
            cue=config.memory != "none",
            task=spec.shown_width(config.task_input),
            memory=config.memory,
            memory_width=config.memory_width,
            hidden_sizes=config.hidden_sizes,
            activation=config.activation,
            initial_std=config.initial_std,
            value_head=False,
        )
        self.policy = with_options(flat, config, pretrained)
        params = self.policy.init(rng.child("weights").generator())

        master = self.policy.master_parameters(params)
        self._adapted = master if config.adapted == "master" else set(params)
        fixed = set() if config.learn_master else master
        if config.learn_step_sizes:
            for name in list(params):
                if name in self._adapted:
                    params[STEP_SIZE + name] = torch.full_like(params[name], config.step_sizes[0])
        self._learned = [name for name in params if name not in fixed]
        # derivatives are taken with respect to each task's parameters
        self.learner = Learner(params, device, requires_grad=False)

    # -- adaptation to a task

    def begin(self, info: TaskInfo, lanes: int) -> Belief:
        """θ for every task."""
        params = tree_map(lambda x: x.clone().expand(info.rows, *x.shape), self._policy_params)
        steps = torch.zeros(info.rows, dtype=torch.long, device=info.device)
        return Belief(
            cue=first_cue(self.spec, info.rows, lanes, info.device),
            row=Adapted(params, steps, info.shown),
            lane=self.policy.start(info.rows, lanes, info.device),
        )

    def act(
        self,
        belief: Belief,
        obs: Tensor,
        noise: Streams,
        counter: int,
        mode: Mode,
    ) -> tuple[Acted, Belief]:
        """Choose actions by each task's own policy; its memory starts anew with every episode."""
        row: Adapted = belief.row
        inputs = self._inputs(row, obs, belief.cue)
        begins = belief.cue[..., -1] == 1
        rows, lanes = begins.shape
        memory = where(begins, self.policy.start(rows, lanes, self.device), belief.lane)
        acted, memory = self.policy.act(
            row.params,
            inputs,
            memory,
            begins,
            noise,
            counter,
            mode,
        )
        return acted, replace(belief, lane=memory)

    def adapt(self, belief: Belief, rollout: Rollout) -> Belief:
        """A policy-gradient step of every task on its own episodes (MAML, Algorithm 3)."""
        _, belief = self._inner_step(self._chain(belief.row, log_likelihood), belief, rollout)
        return belief

    def replay(self, belief: Belief, rollout: Rollout) -> Belief:
        """A step on recorded episodes; unbiased if they were recorded with this policy."""
        rows, lanes = rollout.valid.shape[1:]
        first = first_cue(self.spec, rows, lanes, self.device).unsqueeze(0)
        cues = torch.cat([first, rollout.cues(self.spec)[:-1]])
        inputs = self._inputs(belief.row, rollout.inputs.obs, cues)
        adapted = self.adapt(belief, replace(rollout, inputs=inputs))
        last = rollout.reshape_lanes(belief.cue.shape[1]).last_cue(self.spec)
        return replace(adapted, cue=last)

    def _inputs(self, row: Adapted, obs: Tensor, cue: Tensor) -> Inputs:
        """The policy's inputs on obs [..., N, M, O].

        The cue is for policies with memory, and says nothing of an earlier episode.
        """
        inputs = Inputs(obs, task=expand_to_lanes(row.shown, obs))
        if self.config.memory == "none":
            return inputs
        begins = cue[..., -1:]
        return replace(inputs, cue=torch.cat([cue[..., :-1] * (1 - begins), begins], dim=-1))

    def as_options(self) -> PretrainedOptions | None:
        """Its options, or its flat policy as one; None if it needs more than the observation."""
        return options_from_policy(self.policy, self._policy_params)

    # -- the inner loop

    def _chain(self, row: Adapted, inner_loss: InnerLoss) -> Chain:
        """No step yet, from the tasks' present parameters.

        Parameters that are not adapted have a step size of 0.
        """
        step_sizes = {}
        for name, value in self._policy_params.items():
            alpha = self.config.step_sizes[0] if name in self._adapted else 0.0
            step_sizes[name] = self.params.get(STEP_SIZE + name, torch.full_like(value, alpha))
        return Chain(self.policy, inner_loss, step_sizes, row.params, self.config.first_order)

    def _inner_step(self, chain: Chain, belief: Belief, rollout: Rollout) -> tuple[Chain, Belief]:
        """θ' = θ − α ∇L(θ) on the rollout, one step further (MAML, equation 1)."""
        row: Adapted = belief.row
        chain = chain.step(self._episodes(rollout), self._factor(row.steps))
        return chain, replace(belief, row=replace(row, params=chain.params, steps=row.steps + 1))

    def _factor(self, steps: Tensor) -> Tensor:
        """[N]: the next step size relative to the first, after `steps` [N] inner steps."""
        sizes = torch.tensor(self.config.step_sizes, device=self.device)
        return (sizes / sizes[0])[steps.clamp(max=len(sizes) - 1)]

    def _episodes(self, rollout: Rollout) -> Episodes:
        """Advantages by a linear baseline, fitted and standardized for every task on its own.

        The baseline sees no images. The end of an episode is terminal: there is no bootstrapping at
        the horizon.
        """
        episodes = rollout.one_episode_per_lane()
        reward, done = episodes.reward, episodes.done
        time = torch.arange(len(reward), device=self.device).view(-1, 1, 1).expand_as(reward)
        returns = discounted_returns(reward, done, self.config.gamma)
        obs = episodes.inputs.obs
        if self.spec.images:
            obs = self.spec.without_images(obs)
        value = linear_baseline(obs, time, returns, episodes.valid)
        next_value = next_step(value) * ~done
        advantage = gae(
            reward,
            value,
            next_value,
            done,
            self.config.gamma,
            self.config.gae_lambda,
        )
        return Episodes(
            episodes.inputs,
            self.policy.sampled_actions(episodes),
            episodes.log_prob,
            standardize(advantage, episodes.valid, (0, 2), summands=returns),
            episodes.valid,
        )

    # -- the outer loop

    def iterate(self, world: World, rng: Rng) -> dict[str, float]:
        """Adapt to some tasks, roll out the adapted policies, and improve θ by these rollouts."""
        tasks = world.tasks(self.config.tasks, rng)
        belief = self.begin(world.task_info(self, tasks), self.lanes)
        chain = self._chain(belief.row, _INNER_LOSSES[self.config.inner_loss])
        rollouts = []
        for k in range(self.config.inner_steps):
            rollout, belief = world.collect(self, belief, tasks, 1, rng.child("before", k))
            chain, belief = self._inner_step(chain, belief, rollout)
            rollouts.append(rollout)
        after, belief = world.collect(self, belief, tasks, 1, rng.child("after"))

        outer_steps = {
            "trpo": self._trust_region,
            "ppo": self._proximal,
            "reptile": self._towards_adapted,
        }
        query = self._query(chain, after, belief.row.steps)
        metrics = outer_steps[self.config.outer](chain, query, world.progress)
        return {**return_metrics([*rollouts, after]), **metrics, **self.policy.usage(after)}

    def _query(self, chain: Chain, after: Rollout, steps: Tensor) -> _Query:
        """The rollouts `after` the inner steps, with advantages."""
        episodes = self._episodes(after)
        policy = linearize(self.policy, chain.params, episodes.inputs)
        returns = after.episode_returns().mean((0, 2))
        credit = standardize(returns, torch.ones_like(returns))
        return _Query(chain, policy, episodes, credit, steps)

    def _trust_region(self, chain: Chain, query: _Query, progress: float) -> dict[str, float]:
        """TRPO on the adapted policies (arXiv:1502.05477, appendix C).

        At the present θ the gradient of their mean KL divergence is zero, so its Hessian is
        mean Jᵢᵀ Fᵢ Jᵢ: Jᵢ the derivative of the inner steps, Fᵢ the Fisher matrix of policy i.
        """
        heads = leaves(query.policy.heads)
        with torch.enable_grad():
            kl_gradient = gradients(query.kl(heads), heads, create_graph=True)
        not_learned = tree_map(torch.zeros_like, self.params)

        def fisher_product(v: Tensor) -> Tensor:
            tangent = query.policy.jvp(chain.jvp(self._named(v, not_learned)))
            cotangent = products(kl_gradient, heads, tangent)
            return self._vector(chain.vjp(query.policy.vjp(cotangent)))

        def evaluate(theta: Tensor) -> tuple[float, float]:
            there = chain.replay_from(self._named(theta, self.params))
            policy = linearize(self.policy, there.params, query.episodes.inputs)
            loss = self._loss(there, _heads(there, policy), query)
            return float(loss), float(query.kl(policy.heads))

        loss, gradient = self._gradient(chain, query.policy, query)
        theta, metrics = trust_region_step(
            self._vector(self.params),
            loss,
            self._vector(gradient),
            fisher_product,
            evaluate,
            max_kl=schedule_value(self.config.max_kl, progress),
            damping=self.config.damping,
            iterations=self.config.cg_iterations,
            tries=self.config.line_search_steps,
        )
        self._copy_into_params(self._named(theta, self.params))
        return metrics | {"grad_norm": float(self._vector(gradient).norm())}

    def _proximal(self, chain: Chain, query: _Query, progress: float) -> dict[str, float]:
        """ProMP (arXiv:1810.06784, Algorithm 1): several steps of Adam on the same rollouts."""
        policy = query.policy
        set_learning_rate(
            self.learner.optimizer, schedule_value(self.config.learning_rate, progress)
        )
        norms = []
        for _ in range(self.config.epochs):
            _, gradient = self._gradient(chain, policy, query)
            norms.append(float(self._vector(gradient).norm()))
            for name in self._learned:
                self.params[name].grad = gradient[name]
            self.learner.optimizer.step()
            chain = chain.replay_from(self.params)
            policy = linearize(self.policy, chain.params, query.episodes.inputs)
        return {"kl": float(query.kl(policy.heads)), "grad_norm": fmean(norms)}

    def _towards_adapted(self, chain: Chain, query: _Query, progress: float) -> dict[str, float]:
        """Reptile: θ ← θ + ε (θ' − θ), θ' being the mean after one more step, on the query."""
        adapted = chain.step(query.episodes, self._factor(query.steps)).params
        epsilon = schedule_value(self.config.outer_step_size, progress)
        moves = {n: adapted[n].mean(0) - self.params[n] for n in self._learned if n in adapted}
        for name, move in moves.items():
            self.params[name].add_(move, alpha=epsilon)
        # "the Reptile gradient" of its section 3
        return {"grad_norm": float(get_total_norm(moves.values()))}

    def _gradient(self, chain: Chain, policy: Linearization, query: _Query) -> tuple[float, Params]:
        """The outer loss and its gradient with respect to θ; `policy` is that after the chain."""
        heads = [leaves(part) for part in _heads(chain, policy)]
        with torch.enable_grad():
            loss = self._loss(chain, heads, query)
        flat, structure = tree_flatten(heads)
        gradient = torch.autograd.grad(loss, flat, materialize_grads=True)
        *before, after = tree_unflatten(gradient, structure)
        return float(loss.detach()), chain.vjp(policy.vjp(after), along=before)

    def _loss(self, chain: Chain, heads: Sequence[Params], query: _Query) -> Tensor:
        """[]: the outer loss, from the heads before each inner step and after the last."""
        *before, after = map(from_heads, heads)
        if self.config.outer == "ppo":
            # ProMP: the clipped surrogate, and η · KL(old ‖ now) of the policies before each step
            loss = clipped_ratio(query.episodes, after, self.config.clip_range).mean()
            for step, now, old in zip(chain.steps, before, query.chain.steps, strict=True):
                kl = step.episodes.mean(from_heads(old.policy.heads).kl(now)).mean()
                loss = loss + self.config.kl_coef / len(before) * kl
        else:
            loss = likelihood_ratio(query.episodes, after).mean()

        if self.config.exploration_credit:
            # E-MAML (Stadie et al. 2018, equation 4): actions before a step earn the return after
            for step, now in zip(chain.steps, before, strict=True):
                credit = query.credit.view(1, -1, 1).expand_as(step.episodes.advantage)
                exploring = likelihood_ratio(replace(step.episodes, advantage=credit), now).mean()
                loss = loss + self.config.exploration_credit * exploring
        return loss

    # -- θ by names, and as one vector

    @property
    def _policy_params(self) -> Params:
        """θ without the step sizes."""
        return {
            name: value for name, value in self.params.items() if not name.startswith(STEP_SIZE)
        }

    def _vector(self, params: Params) -> Tensor:
        """[D]: the learned ones of `params`, one after another."""
        return torch.cat([params[name].flatten() for name in self._learned])

    def _named(self, vector: Tensor, others: Params) -> Params:
        """The learned parameters from a vector [D], the rest from `others`."""
        params = dict(others)
        first = 0
        for name in self._learned:
            value = self.params[name]
            params[name] = vector[first : first + value.numel()].view_as(value)
            first += value.numel()
        return params

    def _copy_into_params(self, params: Params) -> None:
        """In place, so that they stay the optimizer's."""
        for name, value in params.items():
            self.params[name].copy_(value)


def _heads(chain: Chain, policy: Linearization) -> list[Params]:
    """Of the policies before each step, then of the adapted one."""
    return [*(step.policy.heads for step in chain.steps), policy.heads]
