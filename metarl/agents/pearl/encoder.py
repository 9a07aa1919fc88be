"""PEARL's context encoder: every transition is a normal factor, and their product gives q(z|c)."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import softplus

from metarl.agents.pearl.config import PEARLConfig
from metarl.core.rng import Rng
from metarl.core.types import Params, Spec, one_hot
from metarl.nn.gaussian_product import Factors, JointPosterior, Posterior
from metarl.nn.mlp import MLP, named

Product = Posterior | JointPosterior
"""What the factors are multiplied into."""

_SMALLEST_VARIANCE = 1e-7
_SMALLEST_PRECISION = 1e-4
_FIRST_PRECISION = -4.0  # before the softplus: a first factor says little beside the prior


class ContextEncoder:
    """Ψ(z|c) of single transitions c, the prior that they are multiplied with, and q(z|c).

    The network "encoder" gives, as the option `factors` says,

    * gaussian: mean and variance; the prior is no factor (Rakelly et al. 2019).
    * natural: shift μ/σ² and precision 1/σ²; the prior N(0, I) is a factor like others.
    * full: a direction u and a value v, a measurement v = u·w + ε of `joint_width` numbers w. From
      their posterior N(m, C) the network "readout" makes q(z|c), which is the prior where C is.
    """

    def __init__(self, config: PEARLConfig, spec: Spec):
        self.spec = spec
        self.config = config
        self.width = config.latent_width
        inputs = spec.obs_width + spec.action_width + 1
        if config.next_obs_input:
            inputs += spec.obs_width
        joint = config.joint_width
        self.is_full = config.factors == "full" and self.width > 0
        outputs = joint + 1 if self.is_full else 2 * self.width
        self.network = MLP(inputs, config.encoder_sizes, outputs)
        moments = joint + joint * (joint + 1) // 2
        self.readout = MLP(moments, config.encoder_sizes[-1:], 2 * self.width)

    def init(self, rng: Rng) -> Params:
        """The first parameters, called ``network.parameter``."""
        if not self.width:
            return {}
        params = named(self.network.init(rng.child("encoder").generator()), "encoder")
        if self.is_full:
            params |= named(self.readout.init(rng.child("readout").generator()), "readout")
        return params

    def prior(self, rows: int, device: torch.device) -> Product:
        """Before any context of N `rows`."""
        if self.is_full:
            return JointPosterior.prior(rows, self.config.joint_width, device=device)
        precision = float(self.config.factors == "natural")
        return Posterior.prior(rows, self.width, device=device, precision=precision)

    def factors(
        self,
        networks: dict[str, Params],
        obs: Tensor,
        action: Tensor,
        reward: Tensor,
        next_obs: Tensor,
    ) -> Factors:
        """[..., Z] of each transition [...], or [..., D, D]."""
        if not self.width:
            nothing = torch.zeros(*reward.shape, 0, device=reward.device)
            return Factors(nothing, nothing)
        if self.spec.discrete:
            action = one_hot(action, self.spec.action_width)
        context = [obs, action, reward.unsqueeze(-1)]
        if self.config.next_obs_input:
            context.append(next_obs)
        outputs = self.network(networks["encoder"], torch.cat(context, dim=-1))
        if self.is_full:
            return Factors.measured(outputs[..., :-1], outputs[..., -1])
        first, spread = outputs.chunk(2, -1)
        if self.config.factors == "natural":
            return Factors(softplus(spread + _FIRST_PRECISION) + _SMALLEST_PRECISION, first)
        return Factors.normal(first, softplus(spread).clamp(min=_SMALLEST_VARIANCE))

    def posterior(self, networks: dict[str, Params], product: Product) -> Posterior:
        """q(z|c) [N, Z]."""
        if isinstance(product, Posterior):
            return product
        mean, covariance = product.moments()
        below = torch.tril_indices(*covariance.shape[-2:])
        inputs = torch.cat([mean, covariance[..., below[0], below[1]]], dim=-1)
        shift, spread = self.readout(networks["readout"], inputs).chunk(2, -1)
        learned = 1 - covariance.diagonal(dim1=-2, dim2=-1).mean(-1, keepdim=True)
        return Posterior(1 + learned * softplus(spread), learned * shift)
