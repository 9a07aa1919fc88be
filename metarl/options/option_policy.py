"""The option layer: a policy that acts through options, and two views of what it lived through.

A master chooses an option; the option's sub-policy acts until a termination ends it; the master chooses again::

    inputs ─ encoder ─ memory ─ body ─┬─ master π(o | ·)
                                      └─ worth q(·, o)
    observation ─ body ─┬─ sub-policies π(a | s, o)          (or heads beside the master's)
                        └─ terminations β(s, o)

Executed step by step, this is a Markov policy of option and action given the option that ran before (Zhang & Whiteson 2019,
DAC, arXiv:1904.12691, section 3): the option is drawn from

    π̂(o | s, o′) = (1 − β(s, o′)) 1[o = o′] + β(s, o′) π(o | s),    π̂(o | s) = π(o | s) where an episode begins,

and the action from π(a | s, o). So there are two ordinary decision processes on the same steps, one whose actions are
options and one whose actions are actions, and whatever learns from one process learns from each.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor
from torch.nn.functional import embedding, logsigmoid

from metarl.core.agent import Agent, Mode
from metarl.core.errors import MetaRLError
from metarl.core.rng import Streams
from metarl.core.rollout import Rollout
from metarl.core.types import NONE, Acted, Inputs, OptionState, Params, replace, tree
from metarl.nn.distributions import sample_by_inversion
from metarl.nn.mlp import named, part
from metarl.nn.policy import Decision, Policy, State
from metarl.options.config import OptionsConfig
from metarl.options.pretrained import PolicyOptions, PretrainedOptions
from metarl.options.segments import usage

_NEVER = -1e9  # log-probability of what cannot be; finite, so that 0 · log 0 is 0
_HEAD_GAIN = 0.01


def with_options(
    policy: Policy, options: OptionsConfig, skills: PretrainedOptions | None
) -> AnyPolicy:
    """The policy itself, or, where `options` ask for some, one that acts through them in its place; or through `skills`."""
    policy = replace(policy, initial_gain=options.initial_gain)
    if not options.options and skills is None:
        return policy
    count = options.options if skills is None else skills.count
    beside = skills is None and options.sub_hidden_sizes is None
    told = count if policy.memory != "none" and count > 1 else 0
    trunk = replace(
        policy, num_heads=count, action_head=beside, input_width=policy.input_width + told
    )
    sub = None
    if skills is None and options.sub_hidden_sizes is not None:
        sub = Policy(
            policy.obs_width,
            policy.action_width,
            policy.discrete,
            hidden_sizes=options.sub_hidden_sizes,
            activation=policy.activation,
            initial_std=policy.initial_std,
            initial_gain=policy.initial_gain,
            value_head=False,
            num_heads=count,
        )
    return OptionPolicy(count, trunk, sub, skills, options.termination, options.option_length)


def options_from_policy(
    policy: AnyPolicy, params: Params, scaled: Callable[[Inputs], Inputs]
) -> PretrainedOptions | None:
    """What a policy does, as options for others: its own options, or itself as one; None if it needs more than obs."""
    if isinstance(policy, OptionPolicy):
        if policy.skills is not None:
            return policy.skills
        if policy.sub is not None:
            return PolicyOptions(policy.sub, part(params, "sub"), scaled)
        policy = policy.trunk
    alone = policy.memory == "none" and policy.input_width == policy.obs_width
    return PolicyOptions(policy, params, scaled) if alone else None


def option_count(agent: Agent) -> int:
    """How many options `agent` acts through; 0: none."""
    policy = getattr(agent, "policy", None)
    return policy.count if isinstance(policy, OptionPolicy) else 0


@tree
class Hierarchy:
    """What an option policy says about one or many time steps, given the options that run there."""

    levels: dict[str, Decision]
    """On each process of `OptionPolicy.decision_processes`: ``option``, π̂(o | s, o′), and what the state is worth before the option is
    drawn; ``action``, π(a | s, o), and what it is worth with the option, where the options are not ready."""

    @property
    def heads(self) -> Params:
        """Of all that is drawn, side by side."""
        return {name: head for level in self.levels.values() for name, head in level.heads.items()}


@dataclass(frozen=True)
class OptionPolicy:
    """A `Policy` to the agents that use it; parameters are passed to every call.

    Its parameters are the trunk's, ``option.…`` of the master, ``termination.…``, and, where sub-policies do not share the
    trunk, ``sub.…`` of what an option is.
    """

    count: int  # L
    trunk: Policy  # sees everything and remembers; its features choose options and tell their worth
    sub: (
        Policy | None
    )  # what options do, from the observation alone; None: heads of the trunk, or what is ready
    skills: PretrainedOptions | None  # options that are ready
    termination: Literal["fixed", "random", "learned"]
    length: int
    """Steps of an option: exactly; or in the mean, uniform on 1 … 2·length − 1; or in the mean before anything is learned."""

    def init(self, generator: torch.Generator) -> Params:
        """A master close to uniform, and terminations as likely as the length says."""
        params = self.trunk.init(generator)
        own = {} if self.sub is None else self.sub.init(generator)
        params |= self.trunk.init_head("option", self.count, _HEAD_GAIN, generator)
        if self.termination == "learned":
            ends = (self.sub or self.trunk).init_head(
                "termination", self.count, _HEAD_GAIN, generator
            )
            ends["termination.bias"][: self.count] = -math.log(max(self.length - 1, 0.01))
            own |= ends
        return params | (own if self.sub is None else named(own, "sub"))

    def start(self, rows: int, lanes: int, device: torch.device) -> State:
        """Nothing is remembered, and no option runs."""
        none = torch.full((rows, lanes), NONE, device=device)
        return (*self.trunk.start(rows, lanes, device), none, torch.zeros_like(none))

    def act(
        self,
        params: Params,
        inputs: Inputs,
        state: State,
        begins: Tensor,
        noise: Streams,
        counter: int,
        mode: Mode,
    ) -> tuple[Acted, State]:
        """Go on with the option that runs, or draw another where it ends, and act as it says.

        `begins` [N, M] bool: where an episode begins, and with it an option.
        """
        *held, before, left = state
        begins = begins | (before == NONE)
        features, held_after = self.trunk.attend(
            params, self._with_previous_option(inputs, before), tuple(held)
        )
        acting, heads, q_values = self._read(params, features, inputs.obs)
        over = begins if self.termination == "learned" else begins | (left == 0)
        if self.skills is not None:
            over = over | _of(
                before.clamp(min=0),
                self.skills.ends(inputs.obs, noise.substream.substream, counter),
            )
        probs, log_probs = self._options(params, features, acting, inputs.obs, before, over)
        draws = noise.substream.uniform(counter, 2)
        option = (
            sample_by_inversion(draws[..., :1], probs) if mode == "sample" else probs.argmax(-1)
        )
        left = torch.where(over, self._steps(draws[..., 1]), left) - 1

        log_prob = _of(option, log_probs)
        extras = {"option_log_prob": log_prob}
        if q_values is not None:
            extras["option_value"] = (probs * q_values).sum(-1)
            extras["value"] = _of(option, q_values)
        if self.skills is not None:
            action = _of(
                option, self.skills.act(inputs.obs, noise.substream.substream, counter, mode)
            )
        else:
            actions = Decision(self._chosen(heads, option)).actions
            action = actions.sample(noise, counter) if mode == "sample" else actions.mode()
            log_prob = log_prob + actions.log_prob(action)
        inputs = replace(inputs, option=OptionState(before, over, option))
        return Acted(inputs, action, log_prob, extras), (*held_after, option, left)

    def attend(self, params: Params, inputs: Inputs, state: State) -> tuple[Tensor, State]:
        """Remember a step that somebody else took; what ran there is not known."""
        *held, before, left = state
        features, held_after = self.trunk.attend(
            params, self._with_previous_option(inputs, before), tuple(held)
        )
        return features, (*held_after, torch.full_like(before, NONE), torch.zeros_like(left))

    def unroll(self, params: Params, inputs: Inputs, state: State) -> Hierarchy:
        """A whole sequence from its start, with the options that ran in it: inputs [T, N, M, …] → [T, N, M]."""
        assert inputs.option is not None
        running = inputs.option
        features = self.trunk.recall(
            params, self._with_previous_option(inputs, running.previous), state[:-2]
        )
        acting, heads, q_values = self._read(params, features, inputs.obs)
        probs, log_probs = self._options(
            params, features, acting, inputs.obs, running.previous, running.ended
        )
        before = None if q_values is None else (probs * q_values).sum(-1)
        after = None if q_values is None else _of(running.current, q_values)
        if self.skills is not None:
            return Hierarchy({"option": Decision({"option": log_probs}, before)})
        above = Decision(
            {"option": log_probs}, None if before is None else before.detach()
        )  # q learns below
        return Hierarchy(
            {"option": above, "action": Decision(self._chosen(heads, running.current), after)}
        )

    # -- as agents know it

    def decision_processes(self, rollout: Rollout) -> dict[str, Rollout]:
        """The two decision processes of DAC on the same steps; the first alone where options are ready.

        In the first, actions are options and the state has the option that ran before; where options have their lengths,
        nothing is decided while one runs, and `valid` is False there. In the second, the state has the option.
        """
        running, extras = rollout.inputs.option, rollout.extras
        assert running is not None
        log_prob = extras["option_log_prob"]
        decides = rollout.valid if self.termination == "learned" else rollout.valid & running.ended
        above = replace(
            rollout,
            action=running.current,
            log_prob=log_prob,
            valid=decides,
            extras={"value": extras["option_value"]},
        )
        if self.skills is not None:
            return {"option": above}
        below = replace(
            rollout, log_prob=rollout.log_prob - log_prob, extras={"value": extras["value"]}
        )
        return {"option": above, "action": below}

    def sampled_actions(self, rollout: Rollout) -> Tensor | tuple[Tensor, Tensor]:
        """What its distributions were asked for: options, and actions where options are not ready.

        Raises:
            MetaRLError: nobody knows which options ran.
        """
        if rollout.inputs.option is None:
            raise MetaRLError(
                "replay: recorded episodes do not say which options ran, which this agent learns from"
            )
        option = rollout.inputs.option.current
        return option if self.skills is not None else (option, rollout.action)

    def master_parameters(self, names: Iterable[str]) -> set[str]:
        """Which of the parameters choose options and say neither what they do nor when they end."""
        if self.sub is None and self.skills is None:
            return {name for name in names if name.startswith("option.")}
        return {name for name in names if not name.startswith(("sub.", "termination."))}

    def usage(self, rollout: Rollout) -> dict[str, float]:
        """What to log of the options of a rollout (see `usage`)."""
        return usage(rollout, self.count)

    # -- parts

    def _with_previous_option(self, inputs: Inputs, before: Tensor) -> Inputs:
        """What the trunk sees: a memory is told which option ran, which is the master's own last action."""
        if self.trunk.memory == "none" or self.count == 1:
            return inputs
        ran = self._is(before).to(inputs.obs.dtype)
        return replace(
            inputs, latent=ran if inputs.latent is None else torch.cat([inputs.latent, ran], -1)
        )

    def _read(
        self, params: Params, features: Tensor, obs: Tensor
    ) -> tuple[Tensor, Params, Tensor | None]:
        """What terminations are read from [..., F]; heads of all sub-policies side by side; q(·, o) [..., L]."""
        decision = self.trunk.decide(params, features, obs)
        q_values = (
            None
            if decision.estimate is None
            else decision.estimate.view(*obs.shape[:-1], self.count)
        )
        if self.sub is None:
            return features, decision.heads, q_values
        own = part(params, "sub")
        acting, _ = self.sub.attend(own, Inputs(obs), ())
        return acting, self.sub.decide(own, acting, obs).heads, q_values

    def _options(
        self,
        params: Params,
        features: Tensor,
        acting: Tensor,
        obs: Tensor,
        before: Tensor,
        over: Tensor,
    ) -> tuple[Tensor, Tensor]:
        """π̂(· | s, before) and its logarithm, [..., L] each."""
        fresh = self.trunk.read(params, "option", features, obs).log_softmax(-1)
        same, over = self._is(before), over.unsqueeze(-1)
        if self.termination != "learned":
            never = torch.where(same, 0.0, _NEVER).to(fresh.dtype)
            return torch.where(over, fresh.exp(), same.to(fresh.dtype)), torch.where(
                over, fresh, never
            )
        own, name = (
            (self.trunk, "termination") if self.sub is None else (self.sub, "sub.termination")
        )
        beta = _of(before.clamp(min=0), own.read(params, name, acting, obs)).unsqueeze(-1)
        drawn = logsigmoid(beta) + fresh
        log_probs = torch.where(
            over, fresh, torch.where(same, torch.logaddexp(logsigmoid(-beta), drawn), drawn)
        )
        return log_probs.exp(), log_probs

    def _is(self, option: Tensor) -> Tensor:
        """option [...] → bool [..., L]: which of them it is."""
        return option.unsqueeze(-1) == torch.arange(self.count, device=option.device)

    def _steps(self, share: Tensor) -> Tensor:
        """How long options last that begin here: share [N, M] uniform on (0, 1) → [N, M] int64."""
        if self.termination == "random":
            return 1 + (share * (2 * self.length - 1)).long()
        return torch.full_like(share, self.length, dtype=torch.long)

    def _chosen(self, heads: Params, option: Tensor) -> Params:
        """The heads of the sub-policies that run: [..., L · A] → [..., A]."""
        chosen = {"action": _of(option, heads["action"].unflatten(-1, (self.count, -1)))}
        if "log_std" in heads:
            each = heads["log_std"].unflatten(-1, (self.count, -1))  # [L, A] or [N, L, A]
            shared = each.dim() == 2
            chosen["log_std"] = (
                embedding(option, each)
                if shared
                else _of(option, each.unsqueeze(1).expand(*option.shape, *each.shape[-2:]))
            )
        return chosen


AnyPolicy = Policy | OptionPolicy


def _of(option: Tensor, each: Tensor) -> Tensor:
    """each [..., L] or [..., L, A] → that of the option [...]: [...] or [..., A]."""
    if each.dim() == option.dim() + 1:
        return each.gather(-1, option.unsqueeze(-1)).squeeze(-1)
    return each.gather(
        -2, option[..., None, None].expand(*option.shape, 1, each.shape[-1])
    ).squeeze(-2)
