"""The variational autoencoder: a Pyro model p(x|z) p(z) and a Pyro guide q(z|x), as modules.

    log p(x) = ELBO + KL(q(z|x) || p(z|x)),    ELBO = E_q[log p(x|z)] - KL(q(z|x) || p(z))

(Kingma & Welling 2014, equations 1 to 3). The ELBO is a lower bound because the KL is not
negative. Its two terms are the reconstruction and the cost of the code.

A few parts behave differently in training mode and in evaluation mode (`vae.eval()`). In
training mode only, discrete codes are relaxed, an example's own exemplar is left out, and a scale
is fitted to the batch. Reported numbers are for evaluation mode.

With conditions y (see `kinds.Conditional`) all of this is given y: x stands for [x, y], and bounds
are on log p(x|y).
"""

import pyro
import torch
from torch import Tensor, nn

from pyro_vae.errors import InputError
from pyro_vae.kinds import Conditional, Kind, UnitInterval
from pyro_vae.likelihoods import Likelihood
from pyro_vae.networks import Network
from pyro_vae.posteriors import Posterior
from pyro_vae.priors import Prior, check_support


class Model(nn.Module):
    """The Pyro program p(x|z) p(z), with sites "z" and "x" in the plate "data".

    With a hierarchical prior, model and guide also have the sites "z_top", "z_top2", ..

    Args:
        prior: p(z).
        likelihood: p(x|z).
    """

    def __init__(self, prior: Prior, likelihood: Likelihood) -> None:
        super().__init__()
        self.prior = prior
        self.likelihood = likelihood

    def forward(self, x: Tensor | None = None, size: int = 1, y: Tensor | None = None) -> Tensor:
        """Run the program.

        Args:
            x: the observed data, shape [batch, *event]; without it examples are drawn.
            size: the number of examples to draw.
            y: their conditions, shape [size, Dy], as the likelihood sees them; only for data with
                conditions, which need them.

        Returns:
            x, or the drawn examples, shape [size, *event]; with their conditions, if they have any.

        Raises:
            InputError: if y does not fit.
        """
        register("model", self)
        if x is None:
            return self._draw(size, y)
        kind = self.likelihood.kind
        with pyro.plate("data", len(x)):
            prior = self.prior.under(x, kind)
            z = pyro.sample("z", prior.leave_out(x, kind) if self.training else prior())
            return pyro.sample("x", self.likelihood.given(self.prior.code(z), x), obs=x)

    def _draw(self, size: int, y: Tensor | None) -> Tensor:
        prior, likelihood = self.prior, self.likelihood
        if isinstance(likelihood.kind, Conditional):
            like = _like(likelihood.kind, size, y)
            prior, likelihood = prior.under(like, likelihood.kind), likelihood.under(like)
        elif y is not None:
            raise InputError("this model has no conditions: leave y out", "y")
        with pyro.plate("data", size):
            z = pyro.sample("z", prior())
            return pyro.sample("x", likelihood(self.prior.code(z)))


class Guide(nn.Module):
    """The Pyro program q(z|x), with the site "z" in the plate "data".

    Args:
        posterior: q(z|x).
        kind: what x is; the posterior sees the features that the kind makes of x. By default x
            itself.
    """

    def __init__(self, posterior: Posterior, kind: Kind | None = None) -> None:
        super().__init__()
        self.posterior = posterior
        self.kind = kind or UnitInterval()

    def forward(self, x: Tensor) -> Tensor:
        """Draw a code for each x.

        Args:
            x: examples as the likelihood sees them, shape [batch, *event].

        Returns:
            z, shape [batch, latent_dim].
        """
        register("guide", self)
        with pyro.plate("data", len(x)):
            return self.posterior.draw(self.kind.features(x))


class VAE(nn.Module):
    """A model and its guide.

    Args:
        prior: p(z).
        likelihood: p(x|z).
        posterior: q(z|x).

    Raises:
        InputError: if prior and posterior have different latent spaces, or one of them has a
            network that makes pictures.

    Examples:
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
        for part in (posterior, prior):
            _check_networks(part)
        prior.build(posterior)
        prior.build_for(likelihood.kind)
        posterior.build(prior)
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

    def draw_codes(self, count: int, like: Tensor | None = None) -> Tensor:
        """Draw codes from the prior, as the likelihood gets them, shape [count, latent_dim].

        It is the model without its site "x": drawing pixels can take far longer.

        Args:
            count: the number of codes.
            like: examples with the conditions that codes are drawn for, shape [count, *event]; only
                a prior p(z|y) needs them.
        """
        prior = self.prior if like is None else self.prior.under(like, self.likelihood.kind)
        with torch.no_grad(), pyro.plate("data", count):
            return self.prior.code(pyro.sample("z", prior()))

    def initialize(self, images: Tensor) -> None:
        """Set first values from the data: output biases, scales, pseudo-inputs, exemplars.

        Args:
            images: the features of training examples, `likelihood.kind.stored_features(stored)`,
                shape [N, *kind.feature_shape]; for pixels, intensities in [0, 1].
        """
        self.prior.initialize(images)
        self.likelihood.initialize(images)


def _check_networks(part: Prior | Posterior) -> None:
    """Refuse a prior or a posterior with a network that makes pictures.

    It would take the shape of the parameters of z for the height and width of a picture.

    Raises:
        InputError: with the option to change.
    """
    for name, child in part.named_children():
        networks = [*child] if isinstance(child, nn.ModuleList) else [child]
        for network in networks:
            if not (isinstance(network, Network) and network.only_decodes):
                continue
            raise InputError(
                f"{type(network).__name__} makes pictures, and the {name.removesuffix('s')} of a "
                f"{type(part).__name__} makes parameters of z: choose MLP, or for pictures "
                "ConvEncoder or ResidualEncoder",
                name.removesuffix("s"),
            )


def _like(kind: Conditional, size: int, y: Tensor | None) -> Tensor:
    """Return examples with conditions y, whose other values do not matter, [size, *shape].

    Raises:
        InputError: if y does not have the shape of so many conditions, or has no such categories.
    """
    expected = (size, *kind.given.shape)
    if y is None or tuple(y.shape) != expected:
        found = "none are given" if y is None else f"these have the shape {list(y.shape)}"
        raise InputError(
            f"drawing {size} examples needs their conditions y, of shape {list(expected)}, and "
            f"{found}",
            "y",
        )
    sizes = kind.given.num_categories.to(y.device)
    is_category = (y >= 0) & (y < sizes) & (y == y.round())
    if not (y.isfinite() & (is_category | (sizes == 0))).all():
        raise InputError(
            "some conditions y are not finite, or are not codes of categories: see the kind of y",
            "y",
        )
    return torch.cat([kind.filler[: kind.size].to(y).expand(size, -1), y], -1)


def register(name: str, module: nn.Module) -> None:
    """Register a module's parameters with Pyro, and replace older entries of the same names.

    If the store already has another module's parameters under these names, `pyro.module` would give
    those to the optimiser, and this module would silently not train.
    """
    store = pyro.get_param_store()
    for key, parameter in module.named_parameters(prefix=name):
        if parameter.requires_grad:
            if not parameter.is_contiguous():  # the store would copy it and train the copy
                parameter.data = parameter.data.contiguous()
            if key in store and store[key] is not parameter:
                store[key] = parameter
            pyro.param(key, parameter)
