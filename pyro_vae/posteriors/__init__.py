"""Posteriors q(z|x): the guide's side, amortised by an encoder network.

The gap between log p(x) and the ELBO is KL(q(z|x) || p(z|x)). Part of it is the family's fault, the
approximation gap, and a richer family closes it: correlated normals, flows. The rest is the
encoder's, the amortisation gap (Cremer, Li & Duvenaud 2018): see `refinement`.

To add one, subclass `Posterior`: the constructor takes the shape of x, the latent dimension, and
then the options of the command line; `forward` returns the distribution of z for a batch of x.
"""

from pyro_vae.posteriors.autoregressive_flows import IAF, SplineFlow
from pyro_vae.posteriors.discrete import Bernoulli, Categorical
from pyro_vae.posteriors.normals import FullNormal, LowRankNormal, Normal
from pyro_vae.posteriors.posterior import Encoder, Posterior
from pyro_vae.posteriors.spherical import PowerSpherical
from pyro_vae.posteriors.two_layers import Hierarchical

__all__ = [
    "IAF",
    "Bernoulli",
    "Categorical",
    "Encoder",
    "FullNormal",
    "Hierarchical",
    "LowRankNormal",
    "Normal",
    "Posterior",
    "PowerSpherical",
    "SplineFlow",
]
