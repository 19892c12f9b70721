"""Distributions that Pyro and PyTorch lack, or have in a form that is not accurate enough.

To add one, subclass `Expandable` in a file of its own in this folder: set `batched` and `shared`,
write `log_prob` and `sample` (or `rsample`), and name the class in this file. The tests of all of
them are in `tests/distributions/test_distributions.py`: add yours to `EVERY` there.
"""

from pyro_vae.distributions.autoregressive import Autoregressive
from pyro_vae.distributions.continuous_bernoulli import ContinuousBernoulli
from pyro_vae.distributions.discretized_logistic import DiscretizedLogistic
from pyro_vae.distributions.expandable import Expandable
from pyro_vae.distributions.normal_mixture import NormalMixture, mixture
from pyro_vae.distributions.on_sphere import PowerSpherical, UniformSphere
from pyro_vae.distributions.relaxed import LogitRelaxedBernoulli, LogRelaxedOneHot
from pyro_vae.distributions.resampled import Resampled

__all__ = [
    "Autoregressive",
    "ContinuousBernoulli",
    "DiscretizedLogistic",
    "Expandable",
    "LogRelaxedOneHot",
    "LogitRelaxedBernoulli",
    "NormalMixture",
    "PowerSpherical",
    "Resampled",
    "UniformSphere",
    "mixture",
]
