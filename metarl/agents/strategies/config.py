"""The options of the classical strategies; imports no torch, so that mistakes are reported at once.

Strategies learn nothing in training: they are the scale on which learned agents are read.
"""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import Field

from metarl.config.registry import Settings


class RandomConfig(Settings):
    """Uniformly random actions, in any family."""

    configures: ClassVar[str] = "metarl.agents.strategies.strategy:Random"


# ---------------------------------------------------------------------------------------------------------------------
# Bandits: discrete actions, episodes of one step


class BanditConfig(Settings):
    """What every rule for bandits must know."""

    configures: ClassVar[str] = "metarl.agents.strategies.bandits:Bandit"

    rewards: Literal["bernoulli", "gaussian"] = Field(
        "bernoulli",
        description="what arms pay: 0 or 1, or normal rewards of variance 1; the prior of means is U[0, 1]",
    )


class GreedyConfig(BanditConfig):
    """The arm of the highest posterior mean."""


class EpsilonGreedyConfig(BanditConfig):
    """The arm of the highest posterior mean, or sometimes any arm (Sutton & Barto 2018, section 2.2)."""

    epsilon: float = Field(
        0.05, ge=0, le=1, description="probability of any arm instead of the best one"
    )


class ThompsonConfig(BanditConfig):
    """Thompson sampling: each arm with the probability that it is the best (Thompson 1933, Biometrika 25)."""


class UCB1Config(BanditConfig):
    """UCB1: the arm of the highest upper confidence bound (Auer et al. 2002; counts as in Duan et al. 2016)."""

    bonus: float = Field(
        0.2,
        ge=0,
        description="c, the factor of the confidence width; 1 in theory, 0.2 is best on validation tasks",
    )


class GittinsConfig(BanditConfig):
    """The finite-horizon Gittins index, near the Bayes optimum (Gittins 1979; Kaufmann 2018, arXiv:1601.01190)."""

    rewards: Literal["bernoulli"] = Field(
        "bernoulli", description="what arms pay; the index is of arms that pay 0 or 1"
    )


# ---------------------------------------------------------------------------------------------------------------------
# Tabular Markov decision processes: discrete actions, observations that are one-hot states


class MDPConfig(Settings):
    """What every rule that estimates a decision process must know.

    The prior: mean rewards N(prior_mean, 1), rewards of variance 1, transitions Dirichlet(1, …, 1).
    """

    configures: ClassVar[str] = "metarl.agents.strategies.mdps:MDP"

    prior_mean: float = Field(
        1.0, description="prior mean of the mean rewards; TabulaRL, and so RL²'s table, has 0"
    )


class PSRLConfig(MDPConfig):
    """PSRL: solve one process drawn from the posterior, an episode long (Osband et al. 2013, arXiv:1306.0940)."""


class OPSRLConfig(MDPConfig):
    """Optimistic PSRL: the best that any of several drawn processes promises (Osband & Van Roy 2016, TabulaRL)."""

    samples: int = Field(
        5, ge=1, description="processes drawn for an episode; on validation tasks 2 to 10 are alike"
    )


class BEBConfig(MDPConfig):
    """Bayesian exploration bonus: solve the mean process with a bonus for rare pairs (Kolter & Ng 2009; TabulaRL)."""

    scaling: float = Field(
        1.6e-4,
        ge=0,
        description="factor of the bonus for transitions; best on validation tasks: 1.6e-4 for 10 episodes, 6e-4 for 100",
    )


class CertaintyEquivalenceConfig(MDPConfig):
    """Certainty equivalence: solve the posterior's mean process as if it were the truth."""


class ValueIterationConfig(Settings):
    """The oracle: solves the process that it is shown (Bellman 1957)."""

    configures: ClassVar[str] = "metarl.agents.strategies.mdps:MDP"
