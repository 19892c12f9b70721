"""The model p(x, y, z) and the guide q(y, z | x), as Pyro programs that take known classes."""

import pyro
import pyro.distributions as dist
import torch
from pyro import poutine
from torch import Tensor, nn

from pyro_vae.kinds import Kind
from pyro_vae.likelihoods import Likelihood
from pyro_vae.networks import Network
from pyro_vae.posteriors import Posterior
from pyro_vae.priors import Prior
from pyro_vae.semi_supervised.known_classes import (
    append_class,
    checked_classes,
    class_given_label,
    one_hot_class,
)
from pyro_vae.vae import register


class LabelledModel(nn.Module):
    """The program p(x|z, y) p(z) p(y), with sites "z", "label", "y" and "x" in the plate "data".

    Args:
        prior: p(z).
        likelihood: p(x|z, y); its code is z with a one-hot y behind it.
        class_probabilities: p(y), shape [classes].
    """

    log_p_y: Tensor

    def __init__(self, prior: Prior, likelihood: Likelihood, class_probabilities: Tensor) -> None:
        super().__init__()
        self.prior = prior
        self.likelihood = likelihood
        self.register_buffer("log_p_y", class_probabilities.log())

    def forward(self, x: Tensor | None = None, y: Tensor | None = None, size: int = 1) -> Tensor:
        """Run the program.

        Args:
            x: the observed data, shape [batch, *event]; without it examples are drawn.
            y: the classes, negative where they are unknown, shape [batch]; None if all are.
            size: the number of examples to draw, if neither x nor y is given.

        Returns:
            x, or the drawn examples, shape [batch, *event].

        Raises:
            InputError: if y is not of whole numbers below the number of classes, one for each x.
        """
        register("model", self)
        given = next((len(tensor) for tensor in (x, y) if tensor is not None), size)
        y = checked_classes(y, given, len(self.log_p_y), self.log_p_y.device)
        with pyro.plate("data", given):
            with poutine.mask(mask=y >= 0):
                pyro.sample("label", dist.Categorical(logits=self.log_p_y), obs=y.clamp(min=0))
            y = pyro.sample("y", class_given_label(self.log_p_y, y))
            if x is None or not self.training:
                z = pyro.sample("z", self.prior())
            else:
                z = pyro.sample("z", self.prior.leave_out(x, self.likelihood.kind))
            code = append_class(self.prior.code(z), y, len(self.log_p_y))
            if x is None:
                return pyro.sample("x", self.likelihood(code))
            return pyro.sample("x", self.likelihood.given(code, x), obs=x)


class LabelledGuide(nn.Module):
    """The program q(z|x, y) q(y|x), with sites "y" and "z" in the plate "data".

    Args:
        posterior: q(z|x, y).
        classifier: the network that maps the features of x to the logits of q(y|x).
        kind: what x is.
        sum_out: whether "y" is marked for enumeration.
    """

    def __init__(
        self, posterior: Posterior, classifier: Network, kind: Kind, sum_out: bool = True
    ) -> None:
        super().__init__()
        self.posterior = posterior
        self.classifier = classifier
        self.kind = kind
        self.sum_out = sum_out

    def forward(self, x: Tensor, y: Tensor | None = None) -> Tensor:
        """Draw a class and a code for each x.

        Args:
            x: examples as the likelihood sees them, shape [batch, *event].
            y: the classes, negative where they are unknown, shape [batch]; None if all are.

        Returns:
            z, shape [batch, latent_dim]; with all values of y, shape [classes, batch, latent_dim].
        """
        register("guide", self)
        features = self.kind.features(x)
        logits = self.classifier(features)
        y = checked_classes(y, len(x), logits.shape[-1], x.device)
        infer = {"enumerate": "parallel"} if self.sum_out else {}
        with pyro.plate("data", len(x)):
            y = pyro.sample("y", class_given_label(logits, y), infer=infer)
            return self.posterior.draw(self._with_class(features, y, logits.shape[-1]))

    def log_q_y(self, x: Tensor) -> Tensor:
        """Return log q(y|x) of each class, shape [batch, classes].

        Args:
            x: examples as the likelihood sees them, shape [batch, *event].
        """
        return self.classifier(self.kind.features(x)).log_softmax(-1)

    def log_q_label(self, x: Tensor, y: Tensor | None = None) -> Tensor:
        """Return log q(y|x) of the known classes, and 0 where y is unknown, shape [batch]."""
        log_q = self.log_q_y(x)
        y = checked_classes(y, len(x), log_q.shape[-1], x.device)
        of_label = log_q.gather(-1, y.clamp(min=0)[:, None])[:, 0]
        return torch.where(y >= 0, of_label, 0.0)

    def _with_class(self, features: Tensor, y: Tensor, classes: int) -> Tensor:
        """Return the input of q(z|x, y): y behind a vector, or as constant channels of a picture.

        Args:
            features: shape [batch, *feature_shape].
            y: shape [..., batch] or [..., 1].
            classes: the number of classes.
        """
        shape = self.posterior.event_shape
        if len(shape) == 1:
            return append_class(features.flatten(1), y, classes)
        pictures = features.view(len(features), -1, *shape[-2:])
        lead = torch.broadcast_shapes(pictures.shape[:1], y.shape)
        channels = one_hot_class(y, classes, pictures)[..., None, None]
        return torch.cat(
            [
                pictures.expand(*lead, *pictures.shape[1:]),
                channels.expand(*lead, classes, *shape[-2:]),
            ],
            -3,
        )
