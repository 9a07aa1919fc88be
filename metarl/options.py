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
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid

from metarl.agent import Mode
from metarl.agents import settings
from metarl.buffer import Rollout
from metarl.distribution import Categorical
from metarl.perceptron import affine, named, orthogonal, part
from metarl.policy import Decision, Policy, State
from metarl.rng import Streams
from metarl.types import Acted, Inputs, Params, Running, replace, tree

_NEVER = -1e9  # log-probability of what cannot be; finite, so that 0 · log 0 is 0
_HEAD_GAIN = 0.01


def layered(policy: Policy, options: settings.Layer) -> AnyPolicy:
    """The policy itself, or, where `options` ask for some, one that acts through them in its place."""
    policy = replace(policy, initial_gain=options.initial_gain)
    if not options.options:
        return policy
    widened = replace(policy, sets=options.options)
    trunk, sub = widened, None
    if options.sub_body is not None:
        trunk = replace(widened, action_head=False)
        sub = replace(
            widened, input_width=policy.obs_width, encoder=(), body=options.sub_body, memory="none",
            value_head=False, pair_input=False, readout="linear",
        )  # fmt: skip
    return OptionPolicy(options.options, trunk, sub, options.termination, options.option_length)


@tree
class Hierarchy:
    """What an option policy says about one or many time steps, given the options that run there."""

    option: Decision  # π̂(o | s, o′), and what the state is worth before the option is drawn
    action: Decision  # π(a | s, o), and what the state is worth with the option

    @property
    def heads(self) -> Params:
        """Of the pair that is drawn."""
        return {"option": self.option.heads["option"], **self.action.heads}

    @property
    def levels(self) -> dict[str, Decision]:
        """The decisions on each process of `OptionPolicy.views`."""
        return {"option": self.option, "action": self.action}


@dataclass(frozen=True)
class OptionPolicy:
    """A `Policy` to the agents that use it; parameters are passed to every call.

    Its parameters are the trunk's, ``option.…`` of the master, ``termination.…``, and, where sub-policies do not share the
    trunk, ``sub.…`` of what an option is.
    """

    count: int  # L
    trunk: Policy  # sees everything and remembers; its features choose options and tell their worth
    sub: Policy | None  # what options do, from the observation alone; None: heads of the trunk
    termination: Literal["fixed", "random", "learned"]
    length: int
    """Steps of an option: exactly; or in the mean, uniform on 1 … 2·length − 1; or in the mean before anything is learned."""

    def init(self, generator: torch.Generator) -> Params:
        """A master close to uniform, and terminations as likely as the length says."""
        params = self.trunk.init(generator)
        acting, before = (self.trunk, "") if self.sub is None else (self.sub, "sub.")
        if self.sub is not None:
            params |= named(self.sub.init(generator), "sub")
        heads = [("option", self.trunk.feature_width, 0.0)]
        if self.termination == "learned":
            heads.append((f"{before}termination", acting.feature_width, -math.log(max(self.length - 1, 0.01))))
        for head, width, bias in heads:
            params[f"{head}.weight"] = _HEAD_GAIN * orthogonal(1, self.count, width, generator)
            params[f"{head}.bias"] = torch.full((self.count,), bias)
        return params

    def start(self, rows: int, lanes: int, device: torch.device) -> State:
        """Nothing is remembered, and no option runs."""
        none = torch.zeros(rows, lanes, dtype=torch.long, device=device)
        return (*self.trunk.start(rows, lanes, device), none, none)

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
        over = begins if self.termination == "learned" else begins | (left == 0)
        features, held_after = self.trunk.attend(params, inputs, tuple(held))
        acting, heads, worth = self._read(params, features, inputs.obs)
        options = self._options(params, features, acting, before, over)
        draws = noise.aside.uniform(counter, 2)
        option = options.at(draws[..., :1]) if mode == "sample" else options.mode()
        left = torch.where(over, self._steps(draws[..., 1]), left) - 1

        actions = Decision(self._chosen(heads, option)).actions
        action = actions.sample(noise, counter) if mode == "sample" else actions.mode()
        option_log_prob = options.log_prob(option)
        extras = {"option_log_prob": option_log_prob}
        if worth is not None:
            extras["option_value"] = (options.logits.exp() * worth).sum(-1)
            extras["value"] = _of(option, worth)
        return Acted(
            replace(inputs, option=Running(before, over, option)),
            action,
            option_log_prob + actions.log_prob(action),
            extras,
        ), (*held_after, option, left)

    def attend(self, params: Params, inputs: Inputs, state: State) -> tuple[Tensor, State]:
        """Remember a step that somebody else took; what ran there is not known."""
        features, held = self.trunk.attend(params, inputs, state[:-2])
        return features, (*held, *state[-2:])

    def unroll(self, params: Params, inputs: Inputs, state: State) -> Hierarchy:
        """A whole sequence from its start, with the options that ran in it: inputs [T, N, M, …] → [T, N, M]."""
        assert inputs.option is not None
        running = inputs.option
        features = self.trunk.recall(params, inputs, state[:-2])
        acting, heads, worth = self._read(params, features, inputs.obs)
        options = self._options(params, features, acting, running.before, running.over)
        above = below = None
        if worth is not None:
            above, below = (options.logits.exp() * worth).sum(-1).detach(), _of(running.option, worth)
        return Hierarchy(
            Decision({"option": options.logits}, above), Decision(self._chosen(heads, running.option), below)
        )

    # -- as agents know it

    def views(self, rollout: Rollout) -> dict[str, Rollout]:
        """The two decision processes of DAC on the same steps.

        In the first, actions are options and the state has the option that ran before; where options have their lengths,
        nothing is decided while one runs, and `valid` is False there. In the second, the state has the option.
        """
        running, extras = rollout.inputs.option, rollout.extras
        assert running is not None
        log_prob = extras["option_log_prob"]
        decides = rollout.valid if self.termination == "learned" else rollout.valid & running.over
        return {
            "option": replace(
                rollout,
                action=running.option,
                log_prob=log_prob,
                valid=decides,
                extras={"value": extras["option_value"]},
            ),
            "action": replace(rollout, log_prob=rollout.log_prob - log_prob, extras={"value": extras["value"]}),
        }

    def drawn(self, rollout: Rollout) -> tuple[Tensor, Tensor]:
        """What its distributions were asked for: options and actions."""
        assert rollout.inputs.option is not None
        return rollout.inputs.option.option, rollout.action

    def of_master(self, names: Iterable[str]) -> set[str]:
        """Which of the parameters choose options and do nothing else."""
        apart = self.sub is not None
        return {name for name in names if name.startswith("option.") or (apart and not name.startswith("sub."))}

    def usage(self, rollout: Rollout) -> dict[str, float]:
        """What to log of the options of a rollout (see `usage`)."""
        return usage(rollout, self.count)

    # -- parts

    def _read(self, params: Params, features: Tensor, obs: Tensor) -> tuple[Tensor, Params, Tensor | None]:
        """What terminations are read from [..., F]; heads of all sub-policies side by side; q(·, o) [..., L]."""
        decision = self.trunk.decide(params, features, obs)
        worth = None if decision.estimate is None else decision.estimate.view(*obs.shape[:-1], self.count)
        if self.sub is None:
            return features, decision.heads, worth
        own = part(params, "sub")
        acting, _ = self.sub.attend(own, Inputs(obs), ())
        return acting, self.sub.decide(own, acting, obs).heads, worth

    def _options(self, params: Params, features: Tensor, acting: Tensor, before: Tensor, over: Tensor) -> Categorical:
        """π̂(· | s, before), normalised: [..., L]."""
        fresh = affine(features, params["option.weight"], params["option.bias"]).log_softmax(-1)
        ends = torch.where(over, 0.0, _NEVER)
        goes_on = torch.where(over, _NEVER, 0.0)
        if self.termination == "learned":
            name = "termination" if self.sub is None else "sub.termination"
            beta = _of(before, affine(acting, params[f"{name}.weight"], params[f"{name}.bias"]))
            ends = torch.where(over, 0.0, logsigmoid(beta))
            goes_on = torch.where(over, _NEVER, logsigmoid(-beta))
        same = before.unsqueeze(-1) == torch.arange(self.count, device=before.device)
        kept = torch.where(same, goes_on.unsqueeze(-1), _NEVER)
        return Categorical(torch.logaddexp(ends.unsqueeze(-1) + fresh, kept))

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
            if each.dim() == 3:
                each = each.unsqueeze(1)
            chosen["log_std"] = _of(option, each.expand(*option.shape, *each.shape[-2:]))
        return chosen


AnyPolicy = Policy | OptionPolicy


# ---------------------------------------------------------------------------------------------------------------------
# What options did


@tree
class Segments:
    """A rollout folded into decisions: one for every stretch of steps for which an option ran."""

    option: Tensor  # [S, N, M] int64
    duration: Tensor  # [S, N, M] int64, in steps; 0 where there are no more
    reward: Tensor  # [S, N, M] Σ γⁱ r over the stretch
    ended: Tensor  # [S, N, M] bool: an episode ended with it


def segments(rollout: Rollout, discount: float = 1.0) -> Segments:
    """Fold steps into decisions::

        option  1 1 1 0 0 1 1        option    1 0 1
        reward  a b c d e f g   →    reward    a + γ b + γ² c,  d + γ e,  f + γ g

    An option that ends and is chosen again begins a new stretch, where its length tells that it ended.

    Returns:
        What a semi-Markov process is made of (Sutton et al. 1999): its return is that of the steps,
        ``discounted_returns(reward, ended, discount ** duration)``.
    """
    running = rollout.inputs.option
    assert running is not None
    begins = (running.over | (running.option != running.before)) & rollout.valid
    number = begins.long().cumsum(0) - 1
    shape = (int(number.max()) + 1, *number.shape[1:])
    time = torch.arange(len(number), device=number.device).view(-1, 1, 1).expand_as(number)
    first = torch.cummax(torch.where(begins, time, 0), 0).values
    weighted = rollout.reward * discount ** (time - first) * rollout.valid

    def fold(x: Tensor) -> Tensor:
        return torch.zeros(shape, dtype=x.dtype, device=x.device).scatter_add_(0, number, x)

    return Segments(
        option=fold(running.option * begins),
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
    shares = torch.bincount(running.option[valid], minlength=count) / valid.sum()
    durations = segments(rollout).duration
    inside = valid & ~torch.cat([torch.ones_like(valid[:1]), rollout.done[:-1]])
    switches = (running.option != running.before) & inside
    return {
        **{f"usage_{o}": float(share) for o, share in enumerate(shares)},
        "usage_entropy": float(torch.special.entr(shares).sum()),
        "option_duration": float(durations.sum() / (durations > 0).sum()),
        "switch_rate": float(switches.sum() / inside.sum().clamp(min=1)),
    }


def _of(option: Tensor, each: Tensor) -> Tensor:
    """each [..., L] or [..., L, A] → that of the option [...]: [...] or [..., A]."""
    place = option.reshape(*option.shape, *[1] * (each.dim() - option.dim()))
    return torch.take_along_dim(each, place, option.dim()).squeeze(option.dim())
