"""The option layer: a policy that acts through options, and its two decision processes.

A master chooses an option; its sub-policy acts until a termination ends it; the master chooses
again::

    inputs ─ encoder ─ memory ─ body ─┬─ master π(o | ·)
                                      └─ values q(·, o)
    observation ─ body ─┬─ sub-policies π(a | s, o)          (or heads beside the master's)
                        └─ terminations β(s, o)

Executed step by step, this is a Markov policy over option and action given the previous option
(DAC, Zhang & Whiteson 2019, arXiv:1904.12691, section 3). The option is sampled from

    π̂(o | s, o′) = (1 − β(s, o′)) 1[o = o′] + β(s, o′) π(o | s),

or from π(o | s) where an episode begins; the action from π(a | s, o). So there are two ordinary
decision processes on the same steps, one with options as actions and one with the actions, and an
algorithm that learns from one process learns from each.
"""

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Literal, Protocol, runtime_checkable

import torch
from torch import Tensor
from torch.nn.functional import embedding, logsigmoid

from metarl.core.agent import Agent, Mode
from metarl.core.errors import ConfigError, MetaRLError
from metarl.core.rng import Streams
from metarl.core.rollout import Rollout
from metarl.core.types import NONE, Acted, Inputs, OptionState, Params, replace, tree, tree_map
from metarl.nn.decision import Decision
from metarl.nn.distributions import NEVER, sample_by_inversion
from metarl.nn.memory import State
from metarl.nn.mlp import named, part
from metarl.nn.policy import Policy
from metarl.options.config import OptionsConfig
from metarl.options.pretrained import PolicyOptions, PretrainedOptions
from metarl.options.segments import steps_since, usage

_HEAD_GAIN = 0.01


@tree
class Hierarchy:
    """The decisions of an option policy at one or many time steps, given the options that run."""

    levels: dict[str, Decision]
    """One for each of `OptionPolicy.decision_processes`: ``option`` with π̂(o | s, o′) and the value
    of s and o′; ``action`` with π(a | s, o) and q(s, o), unless the options are pretrained."""

    @property
    def heads(self) -> Params:
        """Those of all levels."""
        heads: Params = {}
        for level in self.levels.values():
            heads |= level.heads
        return heads


@dataclass(frozen=True)
class _Outputs:
    """What the networks say of a state [...], whatever option runs."""

    master: Tensor  # [..., L] log π(o | s)
    termination: Tensor | None  # [..., L] logits of β(s, o), if terminations are learned
    heads: Params  # [..., L · A] of all sub-policies, side by side
    q_values: Tensor | None  # [..., L] q(s, o), if there is a value head


@dataclass(frozen=True)
class OptionPolicy:
    """Takes the place of a `Policy`; parameters are passed to every call.

    Its parameters are the trunk's, ``option.…`` of the master, ``termination.…``, and those of a
    sub-policy that does not share the trunk, with its terminations, as ``sub.…``.
    """

    count: int  # L
    trunk: Policy  # reads all inputs; the master and the values read its features
    sub_policy: Policy | None  # all of them, on the observation; None: heads of the trunk
    pretrained: PretrainedOptions | None  # in the place of sub-policies
    termination: Literal["fixed", "random", "learned"]
    length: int
    """Steps of an option: exactly; or in the mean, uniform on 1 … 2·length − 1; or in the mean
    before training."""

    def init(self, generator: torch.Generator) -> Params:
        """A master close to uniform, and terminations with probability 1 / length."""
        params = self.trunk.init(generator)
        own = {} if self.sub_policy is None else self.sub_policy.init(generator)
        params |= self.trunk.init_head("option", self.count, _HEAD_GAIN, generator)
        if self.termination == "learned":
            network = self.sub_policy or self.trunk
            own |= network.init_head("termination", self.count, _HEAD_GAIN, generator)
            own["termination.bias"][: self.count] = -math.log(max(self.length - 1, 0.01))
        return params | (own if self.sub_policy is None else named(own, "sub"))

    def start(self, rows: int, lanes: int, device: torch.device) -> State:
        """An empty memory, no previous option, and no steps left of it."""
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
        """Sample an option by π̂, then its action; `begins` [N, M] bool: an episode begins."""
        previous, left = state[-2:]
        features, after = self.attend(params, inputs, state)
        outputs = self._outputs(params, features, inputs.obs)
        ended = begins | (previous == NONE)
        if self.termination != "learned":
            ended = ended | (left == 0)
        if self.pretrained is not None:
            ends = self.pretrained.ends(inputs.obs, noise.substream.substream, counter)
            ended = ended | select_option(previous.clamp(min=0), ends)

        log_probs = self._option_log_probs(outputs, previous, ended)
        probs = log_probs.exp()
        u = noise.substream.uniform(counter, 2)
        option = sample_by_inversion(u[..., :1], probs) if mode == "sample" else probs.argmax(-1)
        left = torch.where(ended, self._lengths(u[..., 1]), left) - 1
        log_prob = select_option(option, log_probs)
        extras = {"option_log_prob": log_prob}
        if outputs.q_values is not None:
            extras["option_value"] = (probs * outputs.q_values).sum(-1)
            extras["value"] = select_option(option, outputs.q_values)

        if self.pretrained is not None:
            actions = self.pretrained.act(inputs.obs, noise.substream.substream, counter, mode)
            action = select_option(option, actions)
        else:
            pi = Decision(self._sub_policy_heads(outputs.heads, option)).actions
            action = pi.sample(noise, counter) if mode == "sample" else pi.mode()
            log_prob = log_prob + pi.log_prob(action)
        inputs = replace(inputs, option=OptionState(previous, ended, option))
        return Acted(inputs, action, log_prob, extras), (*after[:-2], option, left)

    def attend(self, params: Params, inputs: Inputs, state: State) -> tuple[Tensor, State]:
        """Feed a recorded step to the memory; which option ran there is not known."""
        *memory, previous, left = state
        inputs = self._with_previous_option(inputs, previous)
        features, after = self.trunk.attend(params, inputs, tuple(memory))
        return features, (*after, torch.full_like(previous, NONE), torch.zeros_like(left))

    def unroll(self, params: Params, inputs: Inputs, state: State) -> Hierarchy:
        """A whole sequence and the options that ran in it: inputs [T, N, M, …] → [T, N, M]."""
        running = inputs.option
        assert running is not None
        inputs = self._with_previous_option(inputs, running.previous)
        features = self.trunk.recall(params, inputs, state[:-2])
        outputs = self._outputs(params, features, inputs.obs)
        log_probs = self._option_log_probs(outputs, running.previous, running.ended)

        value = q_value = None
        if outputs.q_values is not None:
            value = (log_probs.exp() * outputs.q_values).sum(-1)  # Σ π̂(o | s, o′) q(s, o)
            q_value = select_option(running.current, outputs.q_values)
        if self.pretrained is not None:
            return Hierarchy({"option": Decision({"option": log_probs}, value)})
        if value is not None:
            value = value.detach()  # q learns as the value of the other process
        heads = self._sub_policy_heads(outputs.heads, running.current)
        levels = {
            "option": Decision({"option": log_probs}, value),
            "action": Decision(heads, q_value),
        }
        return Hierarchy(levels)

    # -- interface shared with Policy

    def encode_images(self, params: Params, inputs: Inputs) -> Inputs:
        """The inputs as they are: it reads no images."""
        return inputs

    def decision_processes(self, rollout: Rollout) -> dict[str, Rollout]:
        """The high and the low MDP of DAC on the same steps; only the high one if pretrained.

        In the high one, the state includes the previous option, and actions are options; at steps
        where an option of fixed or random length goes on nothing is decided: `valid` is False. In
        the low one, the state includes the option.
        """
        running = rollout.inputs.option
        assert running is not None
        log_prob = rollout.extras["option_log_prob"]
        valid = rollout.valid
        if self.termination != "learned":
            valid = valid & running.ended
        high = replace(
            rollout,
            action=running.current,
            log_prob=log_prob,
            valid=valid,
            extras={"value": rollout.extras["option_value"]},
        )
        if self.pretrained is not None:
            return {"option": high}
        extras = {"value": rollout.extras["value"]}
        low = replace(rollout, log_prob=rollout.log_prob - log_prob, extras=extras)
        return {"option": high, "action": low}

    def successor_values(self, params: Params, inputs: Inputs, chosen: Tensor) -> Tensor:
        """[n]: the value of both processes after the n steps `chosen`; see `Policy`.

        After (s, o), the option of the successor s′ is drawn by π̂ in either process: both are worth
        Σ π̂(o′ | s′, o) q(s′, o′). Where lengths are random, this is the mean over those that the
        option may still have. Whether pretrained options would end by themselves is not asked.
        """
        assert inputs.option is not None
        age = 1 + steps_since(inputs.option.ended)[chosen]  # steps that the option has run
        inputs = tree_map(lambda x: x[chosen], inputs)
        outputs = self._outputs(params, self.trunk.recall(params, inputs, ()), inputs.obs)
        assert inputs.option is not None
        assert outputs.q_values is not None
        going_on = torch.zeros_like(age, dtype=torch.bool)
        probs = self._option_log_probs(outputs, inputs.option.current, going_on).exp()
        if self.termination != "learned":
            ends = (age == self.length).to(probs.dtype)
            if self.termination == "random":
                ends = 1 / (2 * self.length - age).to(probs.dtype)  # uniform on age … 2·length − 1
            probs = torch.lerp(probs, outputs.master.exp(), ends.unsqueeze(-1))
        return (probs * outputs.q_values).sum(-1)

    def sampled_actions(self, rollout: Rollout) -> Tensor | tuple[Tensor, Tensor]:
        """The samples of its distributions: options, and actions unless options are pretrained.

        Raises:
            MetaRLError: the rollout does not say which options ran.
        """
        running = rollout.inputs.option
        if running is None:
            raise MetaRLError(
                "replay: recordings do not say which options ran, and this agent learns from them"
            )
        option = running.current
        return option if self.pretrained is not None else (option, rollout.action)

    @property
    def recurrent(self) -> bool:
        """Whether its trunk remembers earlier steps."""
        return self.trunk.recurrent

    def master_parameters(self, names: Iterable[str]) -> set[str]:
        """Those of `names` that belong to the choice of options alone."""
        if self.sub_policy is None and self.pretrained is None:
            return {name for name in names if name.startswith("option.")}
        return {name for name in names if not name.startswith(("sub.", "termination."))}

    def usage(self, rollout: Rollout) -> dict[str, float]:
        """Metrics of how options were used (see `metarl.options.segments.usage`)."""
        return usage(rollout, self.count)

    # -- parts

    def _with_previous_option(self, inputs: Inputs, previous: Tensor) -> Inputs:
        """The trunk's inputs: its memory sees the previous option, the master's last action."""
        if self.trunk.memory == "none" or self.count == 1:
            return inputs
        latent = self._is_option(previous).to(inputs.obs.dtype)
        if inputs.latent is not None:
            latent = torch.cat([inputs.latent, latent], -1)
        return replace(inputs, latent=latent)

    def _outputs(self, params: Params, features: Tensor, obs: Tensor) -> _Outputs:
        """All that the networks say, from the trunk's features [..., F] and obs [..., O]."""
        decision = self.trunk.decide(params, features, obs)
        q_values = decision.estimate
        if q_values is not None:
            q_values = q_values.view(*obs.shape[:-1], self.count)
        master_features = features
        network, own, heads = self.trunk, params, decision.heads
        if self.sub_policy is not None:
            network, own = self.sub_policy, part(params, "sub")
            features, _ = network.attend(own, Inputs(obs), ())
            heads = network.decide(own, features, obs).heads
        master = self.trunk.read(params, "option", master_features, obs).log_softmax(-1)
        learned = self.termination == "learned"
        beta = network.read(own, "termination", features, obs) if learned else None
        return _Outputs(master, beta, heads, q_values)

    def _option_log_probs(self, outputs: _Outputs, previous: Tensor, ended: Tensor) -> Tensor:
        """[..., L]: log π̂(o | s, o′), o′ being the `previous` option [...]."""
        master, ended = outputs.master, ended.unsqueeze(-1)
        same = self._is_option(previous)
        if outputs.termination is None:
            goes_on = torch.where(same, 0.0, NEVER).to(master.dtype)
            return torch.where(ended, master, goes_on)
        beta = select_option(previous.clamp(min=0), outputs.termination).unsqueeze(-1)
        switch = logsigmoid(beta) + master
        stay = torch.logaddexp(logsigmoid(-beta), switch)
        return torch.where(ended, master, torch.where(same, stay, switch))

    def _is_option(self, option: Tensor) -> Tensor:
        """[..., L] bool: the one-hot of option [...], all False of NONE."""
        return option.unsqueeze(-1) == torch.arange(self.count, device=option.device)

    def _lengths(self, uniform: Tensor) -> Tensor:
        """[N, M] int64: steps of the options that begin, from `uniform` [N, M] in (0, 1)."""
        if self.termination == "random":
            return 1 + (uniform * (2 * self.length - 1)).long()
        return torch.full_like(uniform, self.length, dtype=torch.long)

    def _sub_policy_heads(self, heads: Params, option: Tensor) -> Params:
        """The heads of the running options [...]: [..., L · A] → [..., A]."""
        action = heads["action"].unflatten(-1, (self.count, -1))
        chosen = {"action": select_option(option, action)}
        if "log_std" in heads:
            log_std = heads["log_std"].unflatten(-1, (self.count, -1))  # [L, A] or [N, L, A]
            if log_std.dim() == 2:
                chosen["log_std"] = embedding(option, log_std)
            else:
                log_std = log_std.unsqueeze(1).expand(*option.shape, *log_std.shape[-2:])
                chosen["log_std"] = select_option(option, log_std)
        return chosen


AnyPolicy = Policy | OptionPolicy


def with_options(
    policy: Policy, config: OptionsConfig, pretrained: PretrainedOptions | None
) -> AnyPolicy:
    """The policy itself, or one in its place that acts through learned or `pretrained` options.

    Raises:
        ConfigError: the configuration asks for pretrained options, and they were not handed in; or
            for options where they do not know what to read or to choose.
    """
    if config.pretrained_options and pretrained is None:
        raise ConfigError("pretrained_options: build the agent by metarl.build, which loads them")
    policy = replace(policy, initial_gain=config.initial_gain)
    count = config.options if pretrained is None else pretrained.count
    if count == 0:
        return policy
    if policy.images is not None or policy.nvec or policy.mask is not None:
        raise ConfigError(
            "options: they read no images, and choose neither MultiDiscrete nor masked actions; "
            "set agent.options=0"
        )

    sub_policy = None
    if pretrained is None and config.sub_hidden_sizes is not None:
        sub_policy = Policy(
            policy.obs_width,
            policy.action_width,
            policy.discrete,
            hidden_sizes=config.sub_hidden_sizes,
            activation=policy.activation,
            initial_std=policy.initial_std,
            initial_gain=policy.initial_gain,
            value_head=False,
            num_heads=count,
        )
    trunk = replace(policy, num_heads=count, action_head=pretrained is None and sub_policy is None)
    if policy.memory != "none" and count > 1:
        trunk = replace(trunk, input_width=policy.input_width + count)  # the previous option
    return OptionPolicy(
        count,
        trunk,
        sub_policy,
        pretrained,
        config.termination,
        config.option_length,
    )


def options_from_policy(
    policy: AnyPolicy, params: Params, normalize: Callable[[Inputs], Inputs] | None = None
) -> PretrainedOptions | None:
    """A policy as options for other agents: its own options, or itself as one.

    None if it needs more than the observation.
    """
    if isinstance(policy, OptionPolicy):
        if policy.pretrained is not None:
            return policy.pretrained
        if policy.sub_policy is not None:
            return PolicyOptions(policy.sub_policy, part(params, "sub"), normalize)
        policy = policy.trunk
    if policy.memory != "none" or policy.input_width != policy.obs_width:
        return None
    return PolicyOptions(policy, params, normalize)


@runtime_checkable
class HasPolicy(Protocol):
    """An agent that acts by a policy."""

    policy: AnyPolicy


def option_count(agent: Agent) -> int:
    """The number of options that `agent` acts through; 0: none."""
    if isinstance(agent, HasPolicy) and isinstance(agent.policy, OptionPolicy):
        return agent.policy.count
    return 0


def select_option(option: Tensor, x: Tensor) -> Tensor:
    """The entry of option [...] in x [..., L] or x [..., L, A]: [...] or [..., A]."""
    if x.dim() == option.dim() + 1:
        return x.gather(-1, option.unsqueeze(-1)).squeeze(-1)
    index = option[..., None, None].expand(*option.shape, 1, x.shape[-1])
    return x.gather(-2, index).squeeze(-2)
