"""Likelihoods p(x|z): the distribution of an example, given its code.

-log p(x|z) is the reconstruction term of the loss. Cross-entropy is a `Bernoulli`; mean squared
error is a `Gaussian` of fixed scale, up to a constant. A likelihood names the kinds of data that
it models; its `kind` says in what form stored examples are shown to it. `kinds.BaseMeasure` says
how probabilities of levels and densities on the unit interval are compared, and why neither can be
compared with binary pixels.

Densities on the whole real line (Gaussian, Laplace, Student t) lose the mass that they put outside
of [0, 1]. The same densities truncated to [0, 1] would be higher, so bounds stay lower bounds.

To add a likelihood, write a subclass of `Likelihood` in a new file of this folder, and import it
here. Add a case to `tests/test_contracts.py`. The class sets `kinds`; its constructor takes the
latent dimension and the kind or the shape of x, then the options of the command line; `forward`
returns the distribution of x for a batch of z.
"""

from pyro_vae.likelihoods.bernoulli import Bernoulli
from pyro_vae.likelihoods.by_kind import ByKind
from pyro_vae.likelihoods.category_columns import Categories, CumulativeLogit
from pyro_vae.likelihoods.count_values import Multinomial, NegativeBinomial, Poisson
from pyro_vae.likelihoods.discretized import Binomial, Categorical, DiscretizedLogistic
from pyro_vae.likelihoods.given_conditions import Given
from pyro_vae.likelihoods.likelihood import Decoder, Likelihood, Shape
from pyro_vae.likelihoods.logistic_mixture import LogisticMixture
from pyro_vae.likelihoods.pixel_by_pixel import LocalPixels, PixelCNN, PixelCNNLevels
from pyro_vae.likelihoods.pixel_densities import Beta, ContinuousBernoulli, LogitNormal
from pyro_vae.likelihoods.positive_values import Gamma, LogNormal
from pyro_vae.likelihoods.real_values import Gaussian, Laplace, StudentT
from pyro_vae.likelihoods.table_columns import Columns
from pyro_vae.likelihoods.with_holes import ObservedEntries

__all__ = [
    "Bernoulli",
    "Beta",
    "Binomial",
    "ByKind",
    "Categorical",
    "Categories",
    "Columns",
    "ContinuousBernoulli",
    "CumulativeLogit",
    "Decoder",
    "DiscretizedLogistic",
    "Gamma",
    "Gaussian",
    "Given",
    "Laplace",
    "Likelihood",
    "LocalPixels",
    "LogNormal",
    "LogisticMixture",
    "LogitNormal",
    "Multinomial",
    "NegativeBinomial",
    "ObservedEntries",
    "PixelCNN",
    "PixelCNNLevels",
    "Poisson",
    "Shape",
    "StudentT",
]
