"""PEARL's context encoder: every transition is a normal factor of the posterior over z."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import softplus

from metarl.agents.pearl.config import PEARLConfig
from metarl.core.rng import Rng
from metarl.core.types import Params, Spec
from metarl.nn.gaussian_product import Factors, Posterior
from metarl.nn.image_encoder import ImageEncoder
from metarl.nn.mlp import MLP, named

_SMALLEST_VARIANCE = 1e-7
_SMALLEST_PRECISION = 1e-4
_FIRST_PRECISION = -4.0  # before the softplus: a first factor says little beside the prior


class ContextEncoder:
    """Ψ(z|c) of single transitions c, and the prior that they are multiplied with.

    The network gives mean and variance, and the prior is no factor (Rakelly et al. 2019); or, with
    factors natural, shift μ/σ² and precision 1/σ², and the prior N(0, I) is a factor like others:
    Bayes' rule.
    """

    def __init__(self, config: PEARLConfig, spec: Spec, images: ImageEncoder | None = None):
        """`images`: whose features it reads, those of the network "images"."""
        self.config = config
        self.spec = spec
        self.images = images
        self.natural = config.factors == "natural"
        obs_width = spec.obs_width if images is None else images.width
        inputs = obs_width + spec.action_width + 1
        if config.next_obs_input:
            inputs += obs_width
        self.network = MLP(inputs, config.encoder_sizes, 2 * config.latent_width)

    def init(self, rng: Rng) -> Params:
        """The first parameters of the network "encoder", called ``network.parameter``."""
        if not self.config.latent_width:
            return {}
        return named(self.network.init(rng.child("encoder").generator()), "encoder")

    def prior(self, rows: int, device: torch.device) -> Posterior:
        """[N, Z]: before any context of N `rows`."""
        width, precision = self.config.latent_width, float(self.natural)
        return Posterior.prior(rows, width, device=device, precision=precision)

    def factors(
        self,
        networks: dict[str, Params],
        obs: Tensor,
        action: Tensor,
        reward: Tensor,
        next_obs: Tensor,
    ) -> Factors:
        """[..., Z] of each transition [...]."""
        if not self.config.latent_width:
            nothing = torch.zeros(*reward.shape, 0, device=reward.device)
            return Factors(nothing, nothing)
        if self.images is not None:
            obs = self.images(networks["images"], obs)
        context = [obs, self.spec.encode_action(action), reward.unsqueeze(-1)]
        if self.config.next_obs_input:
            if self.images is not None:
                next_obs = self.images(networks["images"], next_obs)
            context.append(next_obs)
        outputs = self.network(networks["encoder"], torch.cat(context, dim=-1))
        first, spread = outputs.chunk(2, -1)
        if self.natural:
            return Factors(softplus(spread + _FIRST_PRECISION) + _SMALLEST_PRECISION, first)
        return Factors.normal(first, softplus(spread).clamp(min=_SMALLEST_VARIANCE))
