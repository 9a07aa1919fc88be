"""Exact first and second derivatives of policies and of losses on them, at given parameters.

Second-order methods take three products at the same point again and again: the Jacobian of the
heads times a tangent (`jvp`), its transpose times a cotangent (`vjp`), and the Hessian of a loss
times a tangent (`hvp`). `linearize` offers them for N tasks at once, each with its own copy of the
parameters: an MLP by hand (Pearlmutter 1994), any other policy by automatic differentiation.

Heads are the parameters of the action distribution: ``action`` [T, N, M, A], means or logits, and
``log_std`` [N, A].
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Protocol

import torch
from torch import Tensor

from metarl.core.types import Inputs, Params, tree_map
from metarl.nn.mlp import (
    ACTIVATIONS,
    flatten_steps,
    linear,
    unflatten_steps,
)
from metarl.nn.policy import Policy
from metarl.options.option_policy import AnyPolicy

Loss = Callable[[Params], Tensor]
"""Heads → loss of each task [N]."""


@dataclass(frozen=True)
class LossDerivatives:
    """A loss on a policy's heads, as a function of its parameters: to second order."""

    value: Tensor  # [N]
    gradient: Params  # [N, …] of each task's loss with respect to its own parameters
    hvp: Callable[[Params], Params]
    """Tangent [N, …] → the Hessian times it, the derivative of the gradient along it."""


class Linearization(Protocol):
    """A policy at parameters [N, …] and inputs [T, N, M, …]: to first order."""

    heads: Params
    """Without a graph."""

    def jvp(self, tangent: Params) -> Params:
        """The derivative of the heads along `tangent` [N, …] of the parameters."""

    def vjp(self, cotangent: Params) -> Params:
        """[N, …]: the gradient of ⟨heads, cotangent⟩ with respect to the parameters."""

    def differentiate(self, loss: Loss) -> LossDerivatives:
        """A loss on the heads, with its derivatives with respect to the parameters."""


def linearize(policy: AnyPolicy, params: Params, inputs: Inputs) -> Linearization:
    """The policy at `params` [N, …], one copy per task, on whole episodes `inputs` [T, N, M, …]."""
    if isinstance(policy, Policy) and policy.mlp_layers is not None:
        return MLPLinearization(policy, params, inputs.flat())
    return AutogradLinearization(policy, params, inputs)


def leaves(heads: Params) -> Params:
    """The same tensors as leaves of a new graph."""
    return {name: value.detach().requires_grad_() for name, value in heads.items()}


def gradients(loss: Tensor, of: Params, *, create_graph: bool = False) -> Params:
    """∂loss / ∂of for loss []; with a graph of its own if asked to `create_graph`."""
    found = torch.autograd.grad(
        loss,
        list(of.values()),
        create_graph=create_graph,
        materialize_grads=True,
    )
    return dict(zip(of, found, strict=True))


def products(
    functions: Params,
    of: Params,
    cotangent: Params,
    *,
    create_graph: bool = False,
) -> Params:
    """The vector-Jacobian product Σ cotangent · ∂functions / ∂of; the graph stays."""
    names = [name for name, value in functions.items() if value.requires_grad]
    if not names:
        return tree_map(torch.zeros_like, of)
    found = torch.autograd.grad(
        [functions[name] for name in names],
        list(of.values()),
        [cotangent[name] for name in names],
        retain_graph=True,
        create_graph=create_graph,
        materialize_grads=True,
    )
    return dict(zip(of, found, strict=True))


# -------------------------------------------------------------------------------------------------
# Any policy


class AutogradLinearization:
    """By automatic differentiation, of twice differentiable policies."""

    def __init__(
        self,
        policy: AnyPolicy,
        params: Params,
        inputs: Inputs,
    ):
        obs = inputs.obs
        rows, lanes = obs.shape[1:3]
        like = next(iter(params.values()))
        start = policy.start(rows, lanes, obs.device)
        start = tree_map(lambda x: x.to(like), start)
        self._params = leaves(params)
        with torch.enable_grad():
            self._heads = policy.unroll(self._params, inputs, start).heads
        self.heads = tree_map(Tensor.detach, self._heads)

    def jvp(self, tangent: Params) -> Params:
        """The derivative of `vjp`, which is linear in its cotangent, along the tangent."""
        cotangent, gradient = self._transposed
        return products(gradient, cotangent, tangent)

    def vjp(self, cotangent: Params) -> Params:
        return products(self._heads, self._params, cotangent)

    def differentiate(self, loss: Loss) -> LossDerivatives:
        with torch.enable_grad():
            value = loss(self._heads)
            gradient = gradients(value.sum(), self._params, create_graph=True)
        hvp = partial(products, gradient, self._params)
        return LossDerivatives(value.detach(), tree_map(Tensor.detach, gradient), hvp)

    @cached_property
    def _transposed(self) -> tuple[Params, Params]:
        """A cotangent, and `vjp` as a function of it."""
        cotangent = leaves(tree_map(torch.zeros_like, self.heads))
        return cotangent, products(self._heads, self._params, cotangent, create_graph=True)


# -------------------------------------------------------------------------------------------------
# Multi-layer perceptrons


class MLPLinearization:
    """By hand: every activation and its derivative is kept, so a product is its matrix products.

        z_l = W_l a_{l−1} + b_l,  a_l = φ(z_l),  a_0 = inputs,  heads = z_L

    All steps of a task are one axis, [N, B = T·M, width]. With Ṗ for the derivative of P along a
    tangent (Pearlmutter 1994, "Fast exact multiplication by the Hessian"):

        jvp   ż_l = Ẇ_l a_{l−1} + W_l ȧ_{l−1} + ḃ_l,   ȧ_l = φ′(z_l) ⊙ ż_l
        vjp   δ_l = φ′(z_l) ⊙ (W_{l+1}ᵀ δ_{l+1}),      ∂W_l = δ_l a_{l−1}ᵀ,  ∂b_l = Σ δ_l
        hvp   both, and the derivative of the second along the first
    """

    def __init__(
        self,
        policy: Policy,
        params: Params,
        inputs: Tensor,
    ):
        assert policy.mlp_layers is not None
        *hidden, last = self.names = policy.mlp_layers
        self.params = params
        self.weights = [params[f"{name}.weight"] for name in self.names]
        self.tanh = policy.activation == "tanh"
        self._steps = len(inputs)

        activate = ACTIVATIONS[policy.activation]
        a = flatten_steps(inputs)
        self.activations = [a]  # a_0 … a_{L−1}
        for name in hidden:
            a = activate(linear(params, name, a))
            self.activations.append(a)
        self.heads = self.to_heads(linear(params, last, a), params)

    def jvp(self, tangent: Params) -> Params:
        return self.to_heads(self.activation_tangents(tangent)[-1], tangent)

    def vjp(self, cotangent: Params) -> Params:
        gradient = self.to_params(cotangent)
        delta = flatten_steps(cotangent["action"])
        for layer in reversed(range(len(self.names))):
            self.set_layer(gradient, layer, delta)
            if layer:
                buffer = self.delta_buffers[layer - 1]
                delta = torch.bmm(delta, self.weights[layer], out=buffer)
                delta.mul_(self.slopes[layer - 1])
        return gradient

    def differentiate(self, loss: Loss) -> LossDerivatives:
        heads = leaves(self.heads)
        with torch.enable_grad():
            value = loss(heads)
            slope = gradients(value.sum(), heads, create_graph=True)
        hessian = _MLPHessian(self, heads, slope)
        return LossDerivatives(value.detach(), self.vjp(hessian.cotangent), hessian.product)

    @cached_property
    def slopes(self) -> list[Tensor]:
        """φ′ of every hidden layer, from its activations."""
        hidden = self.activations[1:]
        if self.tanh:
            return [torch.addcmul(a.new_ones(()), a, a, value=-1) for a in hidden]
        return [(a > 0).to(a.dtype) for a in hidden]

    def activation_tangents(self, tangent: Params) -> list[Tensor]:
        """ȧ of every hidden layer, then ż of the last: [N, B, width] each."""
        tangents: list[Tensor] = []
        for layer, name in enumerate(self.names):
            weight = tangent[f"{name}.weight"].mT
            bias = tangent[f"{name}.bias"].unsqueeze(1)
            buffer = self.tangent_buffers[layer]
            z = torch.baddbmm(bias, self.activations[layer], weight, out=buffer)
            if layer:
                z.baddbmm_(tangents[-1], self.weights[layer].mT)
            if layer < len(self.slopes):
                z.mul_(self.slopes[layer])
            tangents.append(z)
        return tangents

    @cached_property
    def tangent_buffers(self) -> list[Tensor | None]:
        """Memory of ȧ_l, reused: fresh memory takes longer than a product; ż_L is returned."""
        return [*map(torch.empty_like, self.activations[1:]), None]

    @cached_property
    def delta_buffers(self) -> list[Tensor]:
        """Memory of δ_l of every hidden layer, reused."""
        return [*map(torch.empty_like, self.activations[1:])]

    def set_layer(
        self,
        gradient: Params,
        layer: int,
        delta: Tensor,
    ) -> None:
        """∂W_l and ∂b_l."""
        name = self.names[layer]
        gradient[f"{name}.weight"] = _sum_of_outer(delta, self.activations[layer])
        gradient[f"{name}.bias"] = delta.sum(1)

    def to_heads(self, outputs: Tensor, params: Params) -> Params:
        """Outputs [N, B, A] of the last layer as [T, N, M, A]; the free log-deviation, if any."""
        heads = {"action": unflatten_steps(outputs, self._steps)}
        if "action.log_std" in params:
            heads["log_std"] = params["action.log_std"]
        return heads

    def to_params(self, cotangent: Params) -> Params:
        """A gradient in the order of the parameters; `set_layer` fills in all but the deviation."""
        gradient = self.params.copy()
        if "log_std" in cotangent:
            gradient["action.log_std"] = cotangent["log_std"]
        return gradient


def _sum_of_outer(delta: Tensor, a: Tensor) -> Tensor:
    """Σ_B δ aᵀ [N, W, I]; with the narrower one on the left, a thin layer takes a quarter."""
    if a.shape[-1] < delta.shape[-1]:
        return torch.bmm(a.mT, delta).mT.contiguous()
    return torch.bmm(delta.mT, a)


@dataclass(frozen=True)
class _MLPHessian:
    """Of a loss with respect to the parameters of `net`."""

    net: MLPLinearization
    heads: Params
    slope: Params  # the loss's gradient with respect to the heads, as a function of them

    @cached_property
    def cotangent(self) -> Params:
        """The same without its graph."""
        return tree_map(Tensor.detach, self.slope)

    @cached_property
    def _backward(self) -> tuple[list[Tensor], list[Tensor]]:
        """δ_l of every layer, and φ″ / φ′ ⊙ W_{l+1}ᵀ δ_{l+1} of hidden ones (tanh: φ″ / φ′ = −2 a).

        Only Hessian products need them; a line search does not.
        """
        net = self.net
        deltas = [flatten_steps(self.cotangent["action"])]
        curvatures: list[Tensor] = []
        for layer in reversed(range(1, len(net.names))):
            incoming = torch.bmm(deltas[0], net.weights[layer])
            deltas.insert(0, incoming * net.slopes[layer - 1])
            if net.tanh:
                curvatures.insert(0, incoming.mul_(net.activations[layer]).mul_(-2))
        return deltas, curvatures

    def product(self, tangent: Params) -> Params:
        """[N, …]: the Hessian times `tangent`."""
        net = self.net
        deltas, curvatures = self._backward
        tangents = net.activation_tangents(tangent)
        heads = net.to_heads(tangents[-1], tangent)
        cotangent = products(self.slope, self.heads, heads)

        gradient = net.to_params(cotangent)
        delta = flatten_steps(cotangent["action"])
        for layer in reversed(range(len(net.names))):
            name = net.names[layer]
            net.set_layer(gradient, layer, delta)
            if layer:
                gradient[f"{name}.weight"].baddbmm_(deltas[layer].mT, tangents[layer - 1])
                buffer = net.delta_buffers[layer - 1]
                delta = torch.bmm(delta, net.weights[layer], out=buffer)
                delta.baddbmm_(deltas[layer], tangent[f"{name}.weight"])
                delta.mul_(net.slopes[layer - 1])
                if curvatures:
                    delta.addcmul_(curvatures[layer - 1], tangents[layer - 1])
        return gradient
