"""Posteriors q(z|x): the distributions of the guide, whose parameters an encoder network computes.

log p(x) minus the ELBO is KL(q(z|x) || p(z|x)). One part of it, the approximation gap, comes from
the family of q, and a richer family makes it smaller: correlated normals, flows. The other part,
the amortisation gap, comes from the encoder (Cremer, Li & Duvenaud 2018): `refinement` measures it.

To add one, subclass `Posterior` in a file of this folder: the constructor takes `event_shape` and
`latent_dim`, then the options of the command line, and `forward` returns the distribution of z for
a batch of x. Name the class in this file, and add a case to `tests/test_contracts.py`. The command
line then takes it by its name.
"""

from pyro_vae.posteriors.autoregressive_flows import IAF, SplineFlow
from pyro_vae.posteriors.bottom_up import BottomUp
from pyro_vae.posteriors.discrete import Bernoulli, Categorical
from pyro_vae.posteriors.ladder import Ladder
from pyro_vae.posteriors.normals import FullNormal, LowRankNormal, Normal
from pyro_vae.posteriors.posterior import Encoder, Posterior
from pyro_vae.posteriors.spherical import PowerSpherical
from pyro_vae.posteriors.top_down import Hierarchical

__all__ = [
    "IAF",
    "Bernoulli",
    "BottomUp",
    "Categorical",
    "Encoder",
    "FullNormal",
    "Hierarchical",
    "Ladder",
    "LowRankNormal",
    "Normal",
    "Posterior",
    "PowerSpherical",
    "SplineFlow",
]
