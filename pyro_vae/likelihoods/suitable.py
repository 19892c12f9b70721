"""Which likelihood suits which kind of data."""

from pyro_vae import kinds
from pyro_vae.likelihoods.bernoulli import Bernoulli
from pyro_vae.likelihoods.category_columns import Categories, CumulativeLogit
from pyro_vae.likelihoods.count_values import NegativeBinomial
from pyro_vae.likelihoods.discretized import DiscretizedLogistic
from pyro_vae.likelihoods.likelihood import Likelihood
from pyro_vae.likelihoods.pixel_densities import ContinuousBernoulli
from pyro_vae.likelihoods.positive_values import LogNormal
from pyro_vae.likelihoods.real_values import Gaussian

SUITABLE: dict[type[kinds.Kind], type[Likelihood]] = {
    kinds.Binary: Bernoulli,
    kinds.Levels: DiscretizedLogistic,
    kinds.UnitInterval: ContinuousBernoulli,
    kinds.Real: Gaussian,
    kinds.Positive: LogNormal,
    kinds.Counts: NegativeBinomial,
    kinds.Categories: Categories,
    kinds.Ordered: CumulativeLogit,
}
