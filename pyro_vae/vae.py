"""The variational autoencoder: a Pyro model p(x|z) p(z) and a Pyro guide q(z|x), as modules.

    log p(x) = ELBO + KL(q(z|x) || p(z|x)),    ELBO = E_q[log p(x|z)] - KL(q(z|x) || p(z))

(Kingma & Welling 2014, equations 1 to 3). The ELBO is a lower bound because the KL is not
negative; its two terms are the reconstruction and the price of the code.

A few parts are one thing in training mode and another in evaluation mode (`vae.eval()`): discrete
codes are relaxed, and an exemplar left out, in training only. What is reported is the latter.
"""

import pyro
from torch import Tensor, nn

from pyro_vae.kinds import Kind, UnitInterval
from pyro_vae.likelihoods import Likelihood
from pyro_vae.posteriors import Posterior
from pyro_vae.priors import Prior, check_support


class Model(nn.Module):
    """The Pyro program p(x|z) p(z), with sites "z" and "x" in the plate "data".

    A hierarchical prior adds the site "z_top", in model and guide.

    Args:
        prior: p(z).
        likelihood: p(x|z).
    """

    def __init__(self, prior: Prior, likelihood: Likelihood) -> None:
        super().__init__()
        self.prior = prior
        self.likelihood = likelihood

    def forward(self, x: Tensor | None = None, size: int = 1) -> Tensor:
        """Run the program.

        Args:
            x: the data to observe, shape [batch, *event]; without it images are drawn.
            size: how many images to draw.

        Returns:
            x, or the drawn images, shape [size, *event].
        """
        _register("model", self)
        with pyro.plate("data", size if x is None else len(x)):
            if x is None or not self.training:
                prior = self.prior()
            else:
                prior = self.prior.leave_out(x, self.likelihood.kind)
            z = pyro.sample("z", prior)
            return pyro.sample("x", self.likelihood(self.prior.code(z)), obs=x)


class Guide(nn.Module):
    """The Pyro program q(z|x), with the site "z" in the plate "data".

    Args:
        posterior: q(z|x).
        kind: what x is; the posterior is shown its features, intensities for pixels.
    """

    def __init__(self, posterior: Posterior, kind: Kind | None = None) -> None:
        super().__init__()
        self.posterior = posterior
        self.kind = kind or UnitInterval()

    def forward(self, x: Tensor) -> Tensor:
        """Draw a code for each x.

        Args:
            x: shape [batch, *event].

        Returns:
            z, shape [batch, latent_dim].
        """
        _register("guide", self)
        with pyro.plate("data", len(x)):
            return pyro.sample("z", self.posterior(self.kind.features(x)))


class VAE(nn.Module):
    """A model and the guide that goes with it.

    Args:
        prior: p(z).
        likelihood: p(x|z).
        posterior: q(z|x).

    Raises:
        InputError: if the codes of the prior and of the posterior are not in the same place.

    Example:
        >>> import torch
        >>> from pyro_vae import VAE, likelihoods, posteriors, priors
        >>> vae = VAE(
        ...     prior=priors.Mixture(2, components=10),
        ...     likelihood=likelihoods.Bernoulli(2, [28, 28]),
        ...     posterior=posteriors.Normal([28, 28], 2),
        ... )
        >>> vae.model(size=5).shape
        torch.Size([5, 28, 28])
    """

    def __init__(self, prior: Prior, likelihood: Likelihood, posterior: Posterior) -> None:
        super().__init__()
        check_support(prior, posterior)
        prior.attach(posterior)
        self.model = Model(prior, likelihood)
        self.guide = Guide(posterior, likelihood.kind)

    @property
    def prior(self) -> Prior:
        """p(z)."""
        return self.model.prior

    @property
    def likelihood(self) -> Likelihood:
        """p(x|z)."""
        return self.model.likelihood

    @property
    def posterior(self) -> Posterior:
        """q(z|x)."""
        return self.guide.posterior

    def initialize(self, images: Tensor) -> None:
        """Start the parts that start from the data: output biases, scales, pseudo-inputs.

        Args:
            images: training images, shape [N, *event], intensities in [0, 1].
        """
        self.prior.initialize(images)
        self.likelihood.initialize(images)


def _register(name: str, module: nn.Module) -> None:
    """Register a module's parameters with Pyro, whoever had their names before.

    Where the store already holds another module's parameters under these names, `pyro.module`
    would hand those to the optimiser, and this module would never train, without a word.
    """
    store = pyro.get_param_store()
    for key, parameter in module.named_parameters(prefix=name):
        if parameter.requires_grad:
            if not parameter.is_contiguous():  # the store would make a copy, and train that
                parameter.data = parameter.data.contiguous()
            if key in store and store[key] is not parameter:
                store[key] = parameter
            pyro.param(key, parameter)
