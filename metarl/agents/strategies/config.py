"""Configurations of the classical strategies; no torch is imported, so errors show at once.

Strategies learn nothing in training: they are baselines for the learned agents.
"""

from typing import Literal

from pydantic import Field, NonNegativeFloat, PositiveInt

from metarl.config.registry import Settings


class RandomConfig(Settings):
    """Uniformly random actions, in any family."""

    configures = "metarl.agents.strategies.strategy:Random"


# -------------------------------------------------------------------------------------------------
# Bandits: discrete actions, episodes of one step


class BanditConfig(Settings):
    """What all rules for bandits share."""

    configures = "metarl.agents.strategies.bandits:Bandit"

    rewards: Literal["bernoulli", "gaussian"] = "bernoulli"
    """rewards of arms: 0 or 1, or normal of variance 1; prior of means U[0, 1]"""


class GreedyConfig(BanditConfig):
    """The arm of the highest posterior mean."""


class EpsilonGreedyConfig(BanditConfig):
    """The arm of the highest posterior mean, or sometimes a random one.

    Sutton & Barto 2018, section 2.2.
    """

    epsilon: float = Field(0.05, ge=0, le=1)
    """probability of a random arm instead of the best one"""


class ThompsonConfig(BanditConfig):
    """Thompson sampling: each arm with the probability that it is the best.

    Thompson 1933, Biometrika 25.
    """


class UCB1Config(BanditConfig):
    """UCB1: the arm of the highest upper confidence bound (Auer et al. 2002).

    Pulls are counted as in Duan et al. 2016.
    """

    bonus: NonNegativeFloat = 0.2
    """c, the width of the confidence bound; 1 in theory, 0.2 best on validation"""


class GittinsConfig(BanditConfig):
    """The finite-horizon Gittins index, near the Bayes optimum.

    Gittins 1979; Kaufmann 2018, arXiv:1601.01190.
    """

    rewards: Literal["bernoulli"] = "bernoulli"
    """rewards of the arms; the index is that of Bernoulli arms"""


class BestArmConfig(Settings):
    """The oracle: the arm of the highest mean, which it is shown."""

    configures = "metarl.agents.strategies.bandits:BestArm"


# -------------------------------------------------------------------------------------------------
# Tabular Markov decision processes: discrete actions, observations that are one-hot states


class MDPConfig(Settings):
    """What all rules that estimate the MDP share.

    The prior: mean rewards N(prior_mean, 1), rewards of variance 1, transitions Dirichlet(1, …, 1).
    """

    configures = "metarl.agents.strategies.mdps:MDP"

    prior_mean: float = 1.0
    """prior mean of the mean rewards; 0 in TabulaRL, and so in RL²'s table"""


class PSRLConfig(MDPConfig):
    """PSRL: solve one MDP sampled from the posterior in every episode.

    Osband et al. 2013, arXiv:1306.0940.
    """


class OPSRLConfig(MDPConfig):
    """Optimistic PSRL: the largest Q of several sampled MDPs.

    Osband & Van Roy 2016; TabulaRL.
    """

    samples: PositiveInt = 5
    """MDPs sampled per episode; on validation tasks 2 to 10 are alike"""


class BEBConfig(MDPConfig):
    """Bayesian exploration bonus: solve the posterior mean MDP with a bonus for rare pairs.

    Kolter & Ng 2009; TabulaRL.
    """

    scaling: NonNegativeFloat = 1.6e-4
    """factor of the transition bonus; best: 1.6e-4 (10 episodes), 6e-4 (100)"""


class CertaintyEquivalenceConfig(MDPConfig):
    """Certainty equivalence: solve the posterior mean MDP as if it were the true one."""


class ValueIterationConfig(Settings):
    """The oracle: solves the true MDP, which it is shown (Bellman 1957)."""

    configures = "metarl.agents.strategies.mdps:Oracle"
