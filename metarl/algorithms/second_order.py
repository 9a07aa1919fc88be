"""A policy near given parameters: how its heads, and losses on them, change with the parameters, exactly.

Second-order methods ask three questions again and again at the same point: how the heads move with the parameters
(`jvp`), how the parameters should move for the heads (`vjp`), and how a loss's gradient turns (a Hessian's product
with a vector). `linearize` answers them for N tasks at once, each with its own copy of the parameters: a perceptron by
hand, any other policy by automatic differentiation.

Heads are what a distribution is made of: ``action`` [T, N, M, A], means or logits, and ``log_std`` [N, A].
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from typing import Protocol

import torch
from torch import Tensor

from metarl.core.types import Inputs, Params, tree_map
from metarl.nn.policy import Policy
from metarl.options.option_policy import AnyPolicy

Loss = Callable[[Params], Tensor]
"""Heads → loss of each task [N]."""


class Linearization(Protocol):
    """A policy at parameters [N, …] and inputs [T, N, M, …]."""

    heads: Params
    """Without a graph."""

    def jvp(self, tangent: Params) -> Params:
        """How the heads move when the parameters move along `tangent` [N, …]."""

    def vjp(self, cotangent: Params) -> Params:
        """[N, …]: the gradient, with respect to the parameters, of ⟨heads, cotangent⟩."""

    def differentiate(self, loss: Loss) -> LossDerivatives:
        """A loss on the heads, with its derivatives."""


class LossDerivatives(Protocol):
    """A loss near the point."""

    value: Tensor
    """[N]."""
    gradient: Params
    """[N, …] of each task's loss with respect to its own parameters."""

    def hvp(self, tangent: Params) -> Params:
        """[N, …]: how the gradient turns when the parameters move along `tangent`, which is Hessian · tangent."""


def linearize(policy: AnyPolicy, params: Params, inputs: Inputs) -> Linearization:
    """The policy near `params`, one copy a task [N, …], on whole episodes `inputs` [T, N, M, …]."""
    if isinstance(policy, Policy) and policy.mlp_layers is not None:
        return MLPLinearization(policy, params, inputs.flat())
    return AutogradLinearization(policy, params, inputs)


def leaves(heads: Params) -> Params:
    """The same heads, to be differentiated by."""
    return {name: value.detach().requires_grad_() for name, value in heads.items()}


def gradients(loss: Tensor, of: Params, *, again: bool = False) -> Params:
    """The gradient of `loss` []; differentiable `again` if asked for. Zero for what it does not depend on."""
    found = torch.autograd.grad(loss, list(of.values()), create_graph=again, materialize_grads=True)
    return dict(zip(of, found, strict=True))


def products(functions: Params, of: Params, cotangent: Params) -> Params:
    """Σ cotangent · ∂functions / ∂of; the graph stays."""
    outputs = {name: value for name, value in functions.items() if value.requires_grad}
    if not outputs:
        return {name: torch.zeros_like(value) for name, value in of.items()}
    found = torch.autograd.grad(
        list(outputs.values()),
        list(of.values()),
        [cotangent[name] for name in outputs],
        retain_graph=True,
        materialize_grads=True,
    )
    return dict(zip(of, found, strict=True))


# ---------------------------------------------------------------------------------------------------------------------
# Any policy


class AutogradLinearization:
    """By automatic differentiation, of twice differentiable policies."""

    def __init__(self, policy: AnyPolicy, params: Params, inputs: Inputs) -> None:
        self._params = leaves(params)
        rows, lanes = inputs.obs.shape[1:3]
        start = tree_map(
            lambda x: x.to(inputs.obs.dtype), policy.start(rows, lanes, inputs.obs.device)
        )
        with torch.enable_grad():
            self._heads = policy.unroll(self._params, inputs, start).heads
        self.heads = {name: value.detach() for name, value in self._heads.items()}

    def jvp(self, tangent: Params) -> Params:
        """The derivative, along the tangent, of `vjp`, which is linear in its cotangent."""
        return products(self._vjp_graph, self._probe, tangent)

    def vjp(self, cotangent: Params) -> Params:
        return products(self._heads, self._params, cotangent)

    def differentiate(self, loss: Loss) -> LossDerivatives:
        with torch.enable_grad():
            value = loss(self._heads)
            gradient = gradients(value.sum(), self._params, again=True)
        return _AutogradLossDerivatives(value.detach(), gradient, self._params)

    @cached_property
    def _probe(self) -> Params:
        return leaves({name: torch.zeros_like(value) for name, value in self.heads.items()})

    @cached_property
    def _vjp_graph(self) -> Params:
        with torch.enable_grad():
            total = torch.stack(
                [(self._heads[name] * probe).sum() for name, probe in self._probe.items()]
            ).sum()
            return gradients(total, self._params, again=True)


class _AutogradLossDerivatives:
    def __init__(self, value: Tensor, gradient: Params, params: Params) -> None:
        self.value = value
        self.gradient = {name: part.detach() for name, part in gradient.items()}
        self._graph, self._params = gradient, params

    def hvp(self, tangent: Params) -> Params:
        return products(self._graph, self._params, tangent)


# ---------------------------------------------------------------------------------------------------------------------
# Perceptrons


class MLPLinearization:
    """By hand: every activation and its derivative is kept, so that a product costs no more than its matrix products.

        z_l = W_l a_{l−1} + b_l,  a_l = φ(z_l),  a_0 = inputs,  heads = z_L

    Rows are all steps of a task, [N, B = T·M, width]. With Ṗ for the derivative of P along a tangent (Pearlmutter 1994,
    "Fast exact multiplication by the Hessian"):

        push    ż_l = Ẇ_l a_{l−1} + W_l ȧ_{l−1} + ḃ_l,   ȧ_l = φ′(z_l) ⊙ ż_l
        pull    δ_l = φ′(z_l) ⊙ (W_{l+1}ᵀ δ_{l+1}),      ∂W_l = δ_l a_{l−1}ᵀ,  ∂b_l = Σ δ_l
        turn    both, and the derivative of the second along the first
    """

    def __init__(self, policy: Policy, params: Params, inputs: Tensor) -> None:
        assert policy.mlp_layers is not None
        self._names = policy.mlp_layers
        self._tanh = policy.activation == "tanh"
        self._params = params
        self._steps = inputs.shape[0]
        self._rooms: dict[tuple[str, int], Tensor] = {}
        self._active = [inputs.movedim(1, 0).flatten(1, 2)]
        for name in self._names[:-1]:
            z = self._affine(self._active[-1], name)
            self._active.append(z.tanh_() if self._tanh else z.relu_())
        self.heads = self._as_heads(self._affine(self._active[-1], self._names[-1]), params)

    def jvp(self, tangent: Params) -> Params:
        moved = self._jvp(tangent)
        return self._as_heads(moved[-1], tangent)

    def vjp(self, cotangent: Params) -> Params:
        return self._vjp(cotangent, None)

    def differentiate(self, loss: Loss) -> LossDerivatives:
        return _MLPLossDerivatives(self, loss)

    @cached_property
    def _slopes(self) -> list[Tensor]:
        """φ′ of every hidden layer, from its activations."""
        if self._tanh:
            return [torch.addcmul(a.new_ones(()), a, a, value=-1) for a in self._active[1:]]
        return [(a > 0).to(a.dtype) for a in self._active[1:]]

    def _affine(self, x: Tensor, name: str) -> Tensor:
        return torch.baddbmm(
            self._params[f"{name}.bias"].unsqueeze(1), x, self._params[f"{name}.weight"].mT
        )

    def _jvp(self, tangent: Params) -> list[Tensor]:
        """ȧ of every hidden layer, then ż of the last: [N, B, width] each."""
        moved: list[Tensor] = []
        for i, name in enumerate(self._names):
            weight, bias = tangent[f"{name}.weight"].mT, tangent[f"{name}.bias"].unsqueeze(1)
            hidden = i < len(self._slopes)
            z = torch.baddbmm(
                bias, self._active[i], weight, out=self._room("moved", i) if hidden else None
            )
            if moved:
                z.baddbmm_(moved[-1], self._params[f"{name}.weight"].mT)
            moved.append(z.mul_(self._slopes[i]) if hidden else z)
        return moved

    def _vjp(self, cotangent: Params, kept: _Kept | None) -> Params:
        """The gradient; with `kept`, what it was made of is stored there."""
        gradient: Params = {}
        delta = self._as_rows(cotangent["action"])
        for i in range(len(self._names) - 1, -1, -1):
            self._collect(gradient, self._names[i], delta, self._active[i])
            if kept is not None:
                kept.delta[i] = delta
            if i:
                room = self._room("delta", i - 1) if kept is None else None
                incoming = torch.bmm(delta, self._params[f"{self._names[i]}.weight"], out=room)
                delta = torch.mul(incoming, self._slopes[i - 1], out=room)
                if kept is not None and self._tanh:
                    kept.curve[i - 1] = incoming.mul_(self._active[i]).mul_(-2)
        return self._as_params(gradient, cotangent)

    def _room(self, purpose: str, layer: int) -> Tensor:
        """[N, B, width of the hidden layer]: memory that is used again, for fresh memory takes longer than a product."""
        key = (purpose, layer)
        if key not in self._rooms:
            self._rooms[key] = torch.empty_like(self._active[layer + 1])
        return self._rooms[key]

    def _collect(self, gradient: Params, name: str, delta: Tensor, active: Tensor) -> None:
        gradient[f"{name}.weight"] = torch.bmm(delta.mT, active)
        gradient[f"{name}.bias"] = delta.sum(1)

    def _as_heads(self, last: Tensor, params: Params) -> Params:
        """The last layer [N, B, A] as [T, N, M, A], with the free deviation where actions are continuous."""
        heads = {"action": last.unflatten(1, (self._steps, -1)).movedim(1, 0)}
        return heads | ({"log_std": params["action.log_std"]} if "action.log_std" in params else {})

    def _as_rows(self, action: Tensor) -> Tensor:
        return action.movedim(1, 0).flatten(1, 2)

    def _as_params(self, gradient: Params, cotangent: Params) -> Params:
        """In the order of the parameters, so that trees of them match."""
        named = gradient | (
            {"action.log_std": cotangent["log_std"]} if "log_std" in cotangent else {}
        )
        return {name: named[name] for name in self._params}


@dataclass(frozen=True)
class _Kept:
    """What a gradient was made of: δ of every layer, and φ″ / φ′ times what comes into a hidden one: for tanh −2 a g."""

    delta: dict[int, Tensor] = field(default_factory=dict)  # [N, B, width of the layer]
    curve: dict[int, Tensor] = field(default_factory=dict)  # [N, B, width of the hidden layer]


class _MLPLossDerivatives:
    def __init__(self, net: MLPLinearization, loss: Loss) -> None:
        self._net = net
        self._heads = leaves(net.heads)
        with torch.enable_grad():
            value = loss(self._heads)
            self._cotangent = gradients(value.sum(), self._heads, again=True)
        self.value = value.detach()
        self.gradient = net.vjp(self._fixed)

    @property
    def _fixed(self) -> Params:
        return {name: value.detach() for name, value in self._cotangent.items()}

    @cached_property
    def _kept(self) -> _Kept:
        """Only where the slope is turned: a line search does not."""
        kept = _Kept()
        self._net._vjp(self._fixed, kept)
        return kept

    def hvp(self, tangent: Params) -> Params:
        net, names, kept = self._net, self._net._names, self._kept
        moved = net._jvp(tangent)
        turned = products(self._cotangent, self._heads, net._as_heads(moved[-1], tangent))
        gradient: Params = {}
        delta = net._as_rows(turned["action"])
        for i in range(len(names) - 1, -1, -1):
            net._collect(gradient, names[i], delta, net._active[i])
            if i:
                gradient[f"{names[i]}.weight"].baddbmm_(kept.delta[i].mT, moved[i - 1])
                delta = torch.bmm(
                    delta, net._params[f"{names[i]}.weight"], out=net._room("delta", i - 1)
                )
                delta.baddbmm_(kept.delta[i], tangent[f"{names[i]}.weight"]).mul_(
                    net._slopes[i - 1]
                )
                if net._tanh:
                    delta.addcmul_(kept.curve[i - 1], moved[i - 1])
        return net._as_params(gradient, turned)
