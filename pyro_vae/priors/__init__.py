"""Priors p(z).

The prior is what the posterior is pulled towards in training (it regularises), what z is drawn
from to make new images (it generates), and what makes the way from one code to another pass
through codes that mean something (it interpolates). At the optimum it is the aggregated posterior
q(z) = E_x q(z|x); the further from that, the lower the ELBO (Hoffman & Johnson 2016).

To add one, subclass `Prior`: the constructor takes the latent dimension and then the options of the
command line, `forward` returns the distribution of one z.
"""

from pyro_vae.codes import check_support
from pyro_vae.priors.committed import AR1
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
