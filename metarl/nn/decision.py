"""What a policy says about one or many time steps."""

from __future__ import annotations

from functools import cached_property

from torch import Tensor

from metarl.core.types import Params, tree
from metarl.nn.distributions import (
    Pair,
    Primitive,
    SquashedGaussian,
    from_heads,
    from_squashed_head,
)


@tree
class Decision:
    """The action distribution, and the value."""

    heads: Params  # parameters of the action distribution
    estimate: Tensor | None = None  # [...] value, of a policy with a value head

    @property
    def levels(self) -> dict[str, Decision]:
        """This, as the decision on the one process of `Policy.decision_processes`."""
        return {"action": self}

    @cached_property
    def actions(self) -> Primitive | SquashedGaussian:
        """[...]: the action distribution."""
        if "squashed" in self.heads:
            return from_squashed_head(self.heads["squashed"])
        actions = from_heads(self.heads)
        assert not isinstance(actions, Pair)
        return actions

    @property
    def value(self) -> Tensor:
        """[...]: the expected return, of a policy with a value head."""
        assert self.estimate is not None, "this policy has no value head"
        return self.estimate
