"""Priors p(z).

A prior has three roles. In training it regularises: the KL pulls the posterior towards it. In
generation it is what z is drawn from to make new images. In interpolation it is the reason why the
codes between two codes decode to something sensible. The best prior is the aggregated posterior
q(z) = E_x q(z|x); the further the prior is from it, the lower is the ELBO (Hoffman & Johnson 2016).

To add a prior, write a subclass of `Prior` in a new file of this folder, and import it here. Add a
case to `tests/test_contracts.py`. The constructor takes the latent dimension and then the options
of the command line; `forward` returns the distribution of one z; `Prior` explains the optional
steps.
"""

from pyro_vae.posteriors.codes import check_support
from pyro_vae.priors.committed import AR1
from pyro_vae.priors.conditional_normal import ConditionalNormal
from pyro_vae.priors.factorial import (
    Bernoulli,
    Categorical,
    Laplace,
    LearnedNormal,
    StandardNormal,
    StudentT,
    UniformSphere,
)
from pyro_vae.priors.flow import Flow
from pyro_vae.priors.hierarchical import Hierarchical
from pyro_vae.priors.lars import LARS
from pyro_vae.priors.mixtures import Exemplar, Mixture, Vamp
from pyro_vae.priors.prior import Prior

__all__ = [
    "AR1",
    "LARS",
    "Bernoulli",
    "Categorical",
    "ConditionalNormal",
    "Exemplar",
    "Flow",
    "Hierarchical",
    "Laplace",
    "LearnedNormal",
    "Mixture",
    "Prior",
    "StandardNormal",
    "StudentT",
    "UniformSphere",
    "Vamp",
    "check_support",
]
