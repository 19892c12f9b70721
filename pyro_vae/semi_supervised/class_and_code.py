"""The model and its guide, made of parts that go together."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from pyro_vae.errors import InputError
from pyro_vae.likelihoods import Likelihood
from pyro_vae.networks import Network
from pyro_vae.posteriors import Posterior
from pyro_vae.posteriors.codes import check_support
from pyro_vae.priors import Prior
from pyro_vae.semi_supervised.labelled_programs import LabelledGuide, LabelledModel


class SemiSupervised(nn.Module):
    """A model of x and its class y, and its guide, which is a classifier too.

    Train it with `SemiSupervisedELBO`, by `training.fit` or by `pyro.infer.SVI`.

    Args:
        prior: p(z), with codes of the posterior's `latent_dim`.
        likelihood: p(x|z, y), for codes of latent_dim + classes numbers.
        posterior: q(z|x, y). Its event shape is [features + classes], where the features of x
            are flattened, or, for pictures, [channels + classes, height, width].
        classifier: the network of q(y|x), from the kind's `feature_shape` to [classes].
        class_probabilities: p(y), positive; by default it is uniform.
        sum_out: whether the objective sums over all classes of y, at the cost of as many passes
            through the networks. Set it to False if all classes are known: the sum has one term.
            If some are not, y is then drawn, with the gradient of the score function.

    Raises:
        InputError: if the parts do not go together.

    Examples:
        >>> import torch
        >>> from pyro_vae import likelihoods, networks, posteriors, priors
        >>> from pyro_vae.semi_supervised import SemiSupervised
        >>> m2 = SemiSupervised(
        ...     prior=priors.StandardNormal(2),
        ...     likelihood=likelihoods.Bernoulli(2 + 10, [28, 28]),
        ...     posterior=posteriors.Normal([28 * 28 + 10], 2),
        ...     classifier=networks.MLP([28, 28], [10]),
        ... )
        >>> m2.model(y=torch.arange(10)).shape  # an image of each class
        torch.Size([10, 28, 28])
    """

    def __init__(
        self,
        prior: Prior,
        likelihood: Likelihood,
        posterior: Posterior,
        classifier: Network,
        class_probabilities: Sequence[float] | None = None,
        *,
        sum_out: bool = True,
    ) -> None:
        super().__init__()
        check_support(prior, posterior)
        if "posterior" in prior.built_parts:
            raise InputError(
                f"the prior {type(prior).__name__} is made of posteriors of x alone, and this "
                "posterior is of x and y: choose another prior, Mixture for example",
                "prior",
            )
        prior.build(posterior)
        posterior.build(prior)
        kind, classes = likelihood.kind, classifier.out_shape.numel()
        _check_shapes(likelihood, posterior, classifier)
        p = torch.tensor(class_probabilities or [1 / classes] * classes)
        if len(p) != classes or not (p > 0).all() or abs(p.sum().item() - 1) > 1e-4:
            raise InputError(
                f"class_probabilities have to be {classes} positive numbers whose sum is 1",
                "class_probabilities",
            )
        self.model = LabelledModel(prior, likelihood, p / p.sum())
        self.guide = LabelledGuide(posterior, classifier, kind, sum_out)

    def initialize(self, images: Tensor) -> None:
        """Set first values from the data, as `VAE.initialize` does.

        Args:
            images: the features of training examples, shape [N, *kind.feature_shape].
        """
        self.model.prior.initialize(images)
        self.model.likelihood.initialize(images)

    @torch.no_grad()
    def classify(self, x: Tensor) -> Tensor:
        """Return q(y|x), shape [batch, classes].

        Args:
            x: examples as the likelihood sees them, shape [batch, *event].
        """
        return self.guide.log_q_y(x).exp()


def _check_shapes(likelihood: Likelihood, posterior: Posterior, classifier: Network) -> None:
    """Refuse networks whose shapes do not go together."""
    features, classes = likelihood.kind.feature_shape, classifier.out_shape.numel()
    if classifier.in_shape != features or len(classifier.out_shape) != 1:
        raise InputError(
            f"the classifier maps {list(classifier.in_shape)} to {list(classifier.out_shape)}: "
            f"make it a network from the shape of the features, {list(features)}, to [classes]",
            "classifier",
        )
    allowed = [[features.numel() + classes]]
    if len(features) > 1:
        allowed.append([features[:-2].numel() + classes, *features[-2:]])
    if [*posterior.event_shape] not in allowed:
        raise InputError(
            f"the posterior is of the shape {list(posterior.event_shape)}: make it for features "
            f"and classes together, {' or '.join(map(str, allowed))}",
            "posterior",
        )
    code = likelihood.decoder.in_shape.numel()
    if code != posterior.latent_dim + classes:
        raise InputError(
            f"the likelihood's codes have {code} numbers: make it for latent_dim + classes, "
            f"{posterior.latent_dim + classes}",
            "likelihood",
        )
