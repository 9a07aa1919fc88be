"""Options that are ready: what a trained run does, or what somebody wrote, to be chosen and never to be changed."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Protocol

import torch
from torch import Tensor

from metarl.config.registry import one_line, own
from metarl.core.agent import Mode
from metarl.core.errors import MetaRLError
from metarl.core.rng import Streams
from metarl.core.types import Inputs, Params, Spec
from metarl.nn.distributions import sample_by_inversion
from metarl.nn.policy import Policy


class Option(Protocol):
    """One option of one's own, for all lanes at once, wherever it runs; its constructor takes the family's `Spec`."""

    def act(self, obs: Tensor, noise: Streams, counter: int) -> Tensor:
        """obs [N, M, O] → actions [N, M] int64, or [N, M, A] in [−1, 1]; all chance comes from `noise` at `counter`."""

    def ends(self, obs: Tensor) -> Tensor:
        """obs [N, M, O] that it led to → [N, M] bool: whether it is over there."""


class PretrainedOptions(Protocol):
    """L options side by side."""

    count: int

    def act(self, obs: Tensor, noise: Streams, counter: int, mode: Mode) -> Tensor:
        """obs [N, M, O] → what each would do, [N, M, L] or [N, M, L, A]."""

    def ends(self, obs: Tensor, noise: Streams, counter: int) -> Tensor:
        """obs [N, M, O] → whether each is over there, [N, M, L] bool; a matter of chance in every mode."""


def custom_option(name: str, spec: Spec) -> PretrainedOptions:
    """The option of one's own called ``path/to/file.py:Class``.

    Raises:
        MetaRLError: nothing of that name, or nothing that can be an option.
    """
    made: Any = own("option", name)
    try:
        option = made(spec) if isinstance(made, type) else made
    except Exception as error:
        raise MetaRLError(
            f"pretrained_options: {name} cannot be made from the family's Spec: {one_line(error)}"
        ) from error
    for method in ("act", "ends"):
        if not callable(getattr(option, method, None)):
            raise MetaRLError(
                f"pretrained_options: {name} has no method {method}; see metarl.options.pretrained.Option"
            )
    return _CustomOption(option, name, spec)


class PolicyOptions:
    """The options of a policy that sees the observation alone: one of each of its sets of heads."""

    def __init__(self, policy: Policy, params: Params, scaled: Callable[[Inputs], Inputs]) -> None:
        """`scaled`: observations as the policy takes them; without a head ``termination`` among `params` they do not end."""
        self.count = policy.num_heads
        self._policy, self._params, self._normalize_inputs = policy, params, scaled

    def act(self, obs: Tensor, noise: Streams, counter: int, mode: Mode) -> Tensor:
        inputs, features = self._features(obs)
        heads = self._policy.decide(self._params, features, inputs.obs).heads
        each: Tensor = heads["action"].unflatten(-1, (self.count, -1))
        if mode == "greedy":
            return each.argmax(-1) if self._policy.discrete else each
        if self._policy.discrete:
            return sample_by_inversion(
                noise.uniform(counter, self.count).unsqueeze(-1), each.softmax(-1)
            )
        normal = noise.normal(counter, heads["action"].shape[-1]).unflatten(-1, (self.count, -1))
        std = heads["log_std"].exp().unflatten(-1, (self.count, -1))
        return torch.addcmul(each, std, normal)

    def ends(self, obs: Tensor, noise: Streams, counter: int) -> Tensor:
        if "termination.weight" not in self._params:
            return torch.zeros(*obs.shape[:2], self.count, dtype=torch.bool, device=obs.device)
        inputs, features = self._features(obs)
        beta = self._policy.read(self._params, "termination", features, inputs.obs).sigmoid()
        return noise.substream.uniform(counter, self.count) < beta

    def _features(self, obs: Tensor) -> tuple[Inputs, Tensor]:
        inputs = self._normalize_inputs(Inputs(obs))
        return inputs, self._policy.attend(self._params, inputs, ())[0]


class _CustomOption:
    """An option of one's own, looked at wherever it acts."""

    count = 1

    def __init__(self, option: Option, name: str, spec: Spec) -> None:
        self._option, self._name, self._spec = option, name, spec

    def act(self, obs: Tensor, noise: Streams, counter: int, mode: Mode) -> Tensor:
        action = self._answer("act", obs, noise, counter)
        shape = obs.shape[:2] if self._spec.discrete else (*obs.shape[:2], self._spec.action_width)
        dtype = torch.int64 if self._spec.discrete else torch.float32
        self._check("act", action, shape, dtype)
        if self._spec.discrete and not ((action >= 0) & (action < self._spec.action_width)).all():
            raise MetaRLError(
                f"option {self._name}: act gives an action that is none of 0 to {self._spec.action_width - 1}"
            )
        if not self._spec.discrete and not action.isfinite().all():
            raise MetaRLError(f"option {self._name}: act gives an action that is not finite")
        return action.unsqueeze(2)

    def ends(self, obs: Tensor, noise: Streams, counter: int) -> Tensor:
        over = self._answer("ends", obs)
        self._check("ends", over, obs.shape[:2], torch.bool)
        return over.unsqueeze(2)

    def _answer(self, method: str, obs: Tensor, *given: Any) -> Tensor:
        try:
            return torch.as_tensor(getattr(self._option, method)(obs, *given), device=obs.device)
        except Exception as error:
            raise MetaRLError(f"option {self._name}: {method} fails: {one_line(error)}") from error

    def _check(
        self, method: str, given: Tensor, shape: tuple[int, ...], dtype: torch.dtype
    ) -> None:
        if given.shape != shape or given.dtype != dtype:
            raise MetaRLError(
                f"option {self._name}: {method} gives {given.dtype} of shape {list(given.shape)} "
                f"for observations of {self._spec.name}; give {dtype} of shape {list(shape)}"
            )


class ConcatenatedOptions:
    """Several, side by side, each with chance of its own."""

    def __init__(self, parts: Sequence[PretrainedOptions]) -> None:
        self._parts = parts
        self.count = sum(part.count for part in parts)

    def act(self, obs: Tensor, noise: Streams, counter: int, mode: Mode) -> Tensor:
        return torch.cat(
            [part.act(obs, own, counter, mode) for part, own in self._each(noise)], dim=2
        )

    def ends(self, obs: Tensor, noise: Streams, counter: int) -> Tensor:
        return torch.cat([part.ends(obs, own, counter) for part, own in self._each(noise)], dim=2)

    def _each(self, noise: Streams) -> list[tuple[PretrainedOptions, Streams]]:
        streams = []
        for part in self._parts:
            streams.append((part, noise))
            noise = (
                noise.substream.substream
            )  # a run's options act by the first and end by the second
        return streams
