"""Pretrained options: of a trained run or written by hand, to be chosen and never to be changed."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor

from metarl.config.registry import own
from metarl.core.agent import Mode
from metarl.core.errors import ConfigError, MetaRLError, one_line
from metarl.core.rng import Streams
from metarl.core.types import Inputs, Params, Spec
from metarl.nn.distributions import sample_by_inversion
from metarl.nn.policy import Policy


@runtime_checkable
class Option(Protocol):
    """A custom option, for all lanes at once; its constructor takes the family's `Spec`."""

    def act(self, obs: Tensor, noise: Streams, counter: int) -> Tensor:
        """obs [N, M, O] → actions [N, M] int64, or [N, M, A] in [−1, 1].

        All randomness comes from `noise` at `counter`.
        """

    def ends(self, obs: Tensor) -> Tensor:
        """obs [N, M, O] that it led to → [N, M] bool: whether it terminates there."""


class PretrainedOptions(Protocol):
    """L options side by side."""

    @property
    def count(self) -> int: ...

    def act(
        self,
        obs: Tensor,
        noise: Streams,
        counter: int,
        mode: Mode,
    ) -> Tensor:
        """obs [N, M, O] → the action of each option, [N, M, L] or [N, M, L, A]."""

    def ends(self, obs: Tensor, noise: Streams, counter: int) -> Tensor:
        """obs [N, M, O] → [N, M, L] bool: whether each terminates there; random in every mode."""


@runtime_checkable
class ActsAsOptions(Protocol):
    """An agent whose trained policy may serve other agents as options."""

    def as_options(self) -> PretrainedOptions | None:
        """Its options, or its flat policy as one; None if it needs more than the observation."""


def custom_option(name: str, spec: Spec) -> PretrainedOptions:
    """The custom option called ``path/to/file.py:Class``.

    Raises:
        ConfigError: nothing of that name, or nothing that can be an option.
    """
    made: Any = own("option", name)
    try:
        option = made(spec) if isinstance(made, type) else made
    except Exception as error:
        raise ConfigError(
            f"pretrained_options: {name} cannot be made from the family's Spec: {one_line(error)}"
        ) from error
    if not isinstance(option, Option):
        raise ConfigError(
            f"pretrained_options: {name} needs the methods act and ends of {__name__}.Option"
        )
    return _CustomOption(option, name, spec)


@dataclass(frozen=True)
class PolicyOptions:
    """The heads of a policy that sees only the observation: each set of heads is an option."""

    policy: Policy
    params: Params
    """Without a head ``termination`` among them the options do not end."""
    normalize: Callable[[Inputs], Inputs] | None
    """To inputs as the policy takes them; None: as they are."""

    @property
    def count(self) -> int:
        return self.policy.num_heads

    def act(
        self,
        obs: Tensor,
        noise: Streams,
        counter: int,
        mode: Mode,
    ) -> Tensor:
        inputs, features = self._features(obs)
        heads = self.policy.decide(self.params, features, inputs.obs).heads
        each = heads["action"].unflatten(-1, (self.count, -1))  # [N, M, L, A]
        if self.policy.discrete:
            if mode == "greedy":
                return each.argmax(-1)
            uniform = noise.uniform(counter, self.count).unsqueeze(-1)
            return sample_by_inversion(uniform, each.softmax(-1))
        if mode == "greedy":
            return each
        normal = noise.normal(counter, heads["action"].shape[-1]).view_as(each)
        std = heads["log_std"].exp().unflatten(-1, (self.count, -1))
        return torch.addcmul(each, std, normal)

    def ends(self, obs: Tensor, noise: Streams, counter: int) -> Tensor:
        if "termination.weight" not in self.params:
            return torch.zeros(*obs.shape[:2], self.count, dtype=torch.bool, device=obs.device)
        inputs, features = self._features(obs)
        beta = self.policy.read(self.params, "termination", features, inputs.obs).sigmoid()
        return noise.substream.uniform(counter, self.count) < beta

    def _features(self, obs: Tensor) -> tuple[Inputs, Tensor]:
        inputs = Inputs(obs)
        if self.normalize is not None:
            inputs = self.normalize(inputs)
        features, _ = self.policy.attend(self.params, inputs, ())
        return inputs, features


@dataclass(frozen=True)
class _CustomOption:
    """A custom option whose answers are checked at every step."""

    option: Option
    name: str
    spec: Spec
    count: int = 1

    def act(
        self,
        obs: Tensor,
        noise: Streams,
        counter: int,
        mode: Mode,
    ) -> Tensor:
        last = self.spec.action_width - 1
        shape: tuple[int, ...] = obs.shape[:2]
        dtype = torch.int64
        if not self.spec.discrete:
            shape, dtype = (*shape, last + 1), torch.float32
        action = self._checked(
            shape,
            dtype,
            "act",
            obs,
            noise,
            counter,
        )
        if self.spec.discrete and not action.equal(action.clamp(0, last)):
            raise MetaRLError(f"option {self.name}: act gives an action outside 0 to {last}")
        if not action.isfinite().all():
            raise MetaRLError(f"option {self.name}: act gives an action that is not finite")
        return action.unsqueeze(2)

    def ends(self, obs: Tensor, noise: Streams, counter: int) -> Tensor:
        return self._checked(obs.shape[:2], torch.bool, "ends", obs).unsqueeze(2)

    def _checked(
        self,
        shape: tuple[int, ...],
        dtype: torch.dtype,
        method: str,
        obs: Tensor,
        *others: Any,
    ) -> Tensor:
        """What the `method` returns, of this shape and type."""
        try:
            x = torch.as_tensor(getattr(self.option, method)(obs, *others), device=obs.device)
        except Exception as error:
            raise MetaRLError(f"option {self.name}: {method} fails: {one_line(error)}") from error
        if x.shape != shape or x.dtype != dtype:
            raise MetaRLError(
                f"option {self.name}: {method} gives {x.dtype} of shape {list(x.shape)} "
                f"for observations of {self.spec.name}; give {dtype} of shape {list(shape)}"
            )
        return x


class ConcatenatedOptions:
    """Several, side by side, each with random streams of its own."""

    def __init__(self, parts: Sequence[PretrainedOptions]):
        self._parts = parts
        self.count = sum(part.count for part in parts)

    def act(
        self,
        obs: Tensor,
        noise: Streams,
        counter: int,
        mode: Mode,
    ) -> Tensor:
        streams = self._streams(noise)
        return torch.cat([part.act(obs, own, counter, mode) for part, own in streams], dim=2)

    def ends(self, obs: Tensor, noise: Streams, counter: int) -> Tensor:
        streams = self._streams(noise)
        return torch.cat([part.ends(obs, own, counter) for part, own in streams], dim=2)

    def _streams(self, noise: Streams) -> Iterator[tuple[PretrainedOptions, Streams]]:
        """Each part with its stream; the options of a run use its substream too, to end."""
        for part in self._parts:
            yield part, noise
            noise = noise.substream.substream
