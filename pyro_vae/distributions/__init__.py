"""Distributions that Pyro and PyTorch lack, or have in a form that is not accurate enough.

To add one, subclass `Expandable` in a file of its own in this folder: set `batched` and `shared`,
write `log_prob` and `sample` (or `rsample`), and name the class in this file. What all of them have
in common is tested in `tests/distributions/test_distributions.py`: add yours to `EVERY` there.
"""

from pyro_vae.distributions.autoregressive import Autoregressive
from pyro_vae.distributions.continuous_bernoulli import ContinuousBernoulli
from pyro_vae.distributions.cumulative_logit import CumulativeLogit
from pyro_vae.distributions.discretized_logistic import DiscretizedLogistic
from pyro_vae.distributions.expandable import Expandable
from pyro_vae.distributions.gamma import Gamma
from pyro_vae.distributions.logistic import Logistic
from pyro_vae.distributions.multinomial import Multinomial
from pyro_vae.distributions.negative_binomial import NegativeBinomial
from pyro_vae.distributions.normal_mixture import NormalMixture, mixture
from pyro_vae.distributions.observed_entries import ObservedEntries
from pyro_vae.distributions.on_sphere import PowerSpherical, UniformSphere
from pyro_vae.distributions.poisson import Poisson
from pyro_vae.distributions.relaxed import LogitRelaxedBernoulli, LogRelaxedOneHot
from pyro_vae.distributions.resampled import Resampled
from pyro_vae.distributions.side_by_side import SideBySide
from pyro_vae.distributions.with_conditions import WithConditions
from pyro_vae.distributions.zero_inflated import ZeroInflated

__all__ = [
    "Autoregressive",
    "ContinuousBernoulli",
    "CumulativeLogit",
    "DiscretizedLogistic",
    "Expandable",
    "Gamma",
    "LogRelaxedOneHot",
    "Logistic",
    "LogitRelaxedBernoulli",
    "Multinomial",
    "NegativeBinomial",
    "NormalMixture",
    "ObservedEntries",
    "Poisson",
    "PowerSpherical",
    "Resampled",
    "SideBySide",
    "UniformSphere",
    "WithConditions",
    "ZeroInflated",
    "mixture",
]
