"""Distributions that Pyro and PyTorch lack, or have in a form that cannot be trusted."""

from pyro_vae.distributions.autoregressive import Autoregressive
from pyro_vae.distributions.continuous_bernoulli import ContinuousBernoulli
from pyro_vae.distributions.discretized_logistic import DiscretizedLogistic
from pyro_vae.distributions.normal_mixture import NormalMixture, mixture
from pyro_vae.distributions.on_sphere import PowerSpherical, UniformSphere
from pyro_vae.distributions.relaxed import LogitRelaxedBernoulli, LogRelaxedOneHot
from pyro_vae.distributions.resampled import Resampled

__all__ = [
    "Autoregressive",
    "ContinuousBernoulli",
    "DiscretizedLogistic",
    "LogRelaxedOneHot",
    "LogitRelaxedBernoulli",
    "NormalMixture",
    "PowerSpherical",
    "Resampled",
    "UniformSphere",
    "mixture",
]
