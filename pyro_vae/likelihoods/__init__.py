"""Likelihoods p(x|z): what an image is, given its code.

-log p(x|z) is the reconstruction term of the loss. Cross-entropy is a `Bernoulli`; mean squared
error is a `Gaussian` of fixed scale, up to a constant. `support` says what x may be, and so in what
form images are shown to the likelihood; `observations` says how probabilities of levels and
densities on the unit interval are compared, and that neither can be with binary pixels.

Densities on the whole line (Gaussian, Laplace, Student t) waste what they put outside [0, 1]: they
are below the same densities truncated, and their bounds stay bounds.

To add one, subclass `Likelihood`: the constructor takes the latent dimension, the shape of x, and
then the options of the command line; `forward` returns the distribution of x for a batch of z.
"""

from pyro_vae.likelihoods.bernoulli import Bernoulli
from pyro_vae.likelihoods.densities import (
    Beta,
    ContinuousBernoulli,
    Gaussian,
    Laplace,
    LogitNormal,
    StudentT,
)
from pyro_vae.likelihoods.discretized import Binomial, Categorical, DiscretizedLogistic
from pyro_vae.likelihoods.likelihood import Decoder, Likelihood
from pyro_vae.likelihoods.pixel_by_pixel import PixelCNN, PixelCNNLevels

__all__ = [
    "Bernoulli",
    "Beta",
    "Binomial",
    "Categorical",
    "ContinuousBernoulli",
    "Decoder",
    "DiscretizedLogistic",
    "Gaussian",
    "Laplace",
    "Likelihood",
    "LogitNormal",
    "PixelCNN",
    "PixelCNNLevels",
    "StudentT",
]
