"""Semi-supervised learning: model M2 of Kingma, Rezende, Mohamed & Welling (2014).

    p(x, y, z) = p(x | z, y) p(z) p(y),    q(y, z | x) = q(z | x, y) q(y | x)

y is the class of x, and z is what else there is to say about x. With their -L(x, y), a bound on
log p(x, y), the objective of all examples is

    -L(x, y) = E_q(z|x,y)[log p(x|z, y) + log p(y) + log p(z) - log q(z|x, y)]    (equation 6)
    -U(x)    = sum_y q(y|x) (-L(x, y)) + H(q(y|x))                               (equation 7)
    -J       = sum_labelled -L(x, y) + sum_unlabelled -U(x)                      (equation 8)
    -J_alpha = -J + alpha sum_labelled log q(y|x)                                (equation 9)

The programs take y of shape [batch], whole numbers, negative where the class is unknown. Where it
is known, the site "y" is a point mass at the class in both programs, and the model observes the
class at the site "label". So the same programs have -L where y is known and -U where it is not, in
one batch, and their density is that of (x, y) or of x: bounds and annealing need no more.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import pyro
import pyro.distributions as dist
import torch
from pyro import poutine
from torch import Tensor, nn

from pyro_vae import bounds
from pyro_vae.codes import check_support
from pyro_vae.errors import InputError, check_range
from pyro_vae.kinds import Kind
from pyro_vae.likelihoods import Likelihood
from pyro_vae.networks import Network
from pyro_vae.objectives import ELBO
from pyro_vae.posteriors import Posterior
from pyro_vae.priors import Prior
from pyro_vae.programs.arguments import Arguments
from pyro_vae.programs.compiling import is_traced
from pyro_vae.programs.traces import Program
from pyro_vae.vae import register

UNKNOWN = -1


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
        y = _checked(y, given, len(self.log_p_y), self.log_p_y.device)
        with pyro.plate("data", given):
            with poutine.mask(mask=y >= 0):
                pyro.sample("label", dist.Categorical(logits=self.log_p_y), obs=y.clamp(min=0))
            y = pyro.sample("y", _class_given_label(self.log_p_y, y))
            if x is None or not self.training:
                z = pyro.sample("z", self.prior())
            else:
                z = pyro.sample("z", self.prior.leave_out(x, self.likelihood.kind))
            code = _append(self.prior.code(z), y, len(self.log_p_y))
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
        y = _checked(y, len(x), logits.shape[-1], x.device)
        infer = {"enumerate": "parallel"} if self.sum_out else {}
        with pyro.plate("data", len(x)):
            y = pyro.sample("y", _class_given_label(logits, y), infer=infer)
            return pyro.sample("z", self.posterior(self._with_class(features, y, logits.shape[-1])))

    def log_q_y(self, x: Tensor) -> Tensor:
        """Return log q(y|x) of each class, shape [batch, classes].

        Args:
            x: examples as the likelihood sees them, shape [batch, *event].
        """
        return self.classifier(self.kind.features(x)).log_softmax(-1)

    def log_q_label(self, x: Tensor, y: Tensor | None = None) -> Tensor:
        """Return log q(y|x) of the known classes, and 0 where y is unknown, shape [batch]."""
        log_q = self.log_q_y(x)
        y = _checked(y, len(x), log_q.shape[-1], x.device)
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
            return _append(features.flatten(1), y, classes)
        pictures = features.view(len(features), -1, *shape[-2:])
        lead = torch.broadcast_shapes(pictures.shape[:1], y.shape)
        channels = _one_hot(y, classes, pictures)[..., None, None]
        return torch.cat(
            [
                pictures.expand(*lead, *pictures.shape[1:]),
                channels.expand(*lead, classes, *shape[-2:]),
            ],
            -3,
        )


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

    Example:
        >>> import torch
        >>> from pyro_vae import likelihoods, networks, posteriors, priors
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


class SemiSupervisedELBO(ELBO):
    """The objective J_alpha: the ELBO, with a classification loss of the labelled examples.

    Its loss is that of equation 9. Its `bound`, by which models are compared, is without the
    classification loss: it bounds log p(x, y) where y is known, and log p(x) where it is not.

    Args:
        alpha: the weight of log q(y|x) of each labelled example. The paper's weight is 0.1 N in
            front of a mean over labelled examples, N being the number of all examples: with M
            labelled ones this is alpha = 0.1 N / M. If a labelled example is used r times in an
            epoch, and an unlabelled one once, divide by r.
        num_particles: the number of draws of z for each x and y.

    Raises:
        InputError: if alpha is negative, or the guide is not a `LabelledGuide`.
    """

    def __init__(self, alpha: float, num_particles: int = 1, **pyro_options: Any) -> None:
        super().__init__(num_particles, **pyro_options)
        self.alpha = check_range("alpha", alpha, 0, 1e6)

    def differentiable_loss(
        self, model: Program, guide: Program, *args: Any, **kwargs: Any
    ) -> Tensor:
        """Return J_alpha in nats, summed over the examples, to be differentiated."""
        if not isinstance(guide, LabelledGuide):
            raise InputError(
                "SemiSupervisedELBO needs the guide of a SemiSupervised, which has q(y|x): use "
                "ELBO for other guides",
                "objective",
            )
        loss = super().differentiable_loss(model, guide, *args, **kwargs)
        return loss - self.alpha * guide.log_q_label(*args, **kwargs).sum()


@dataclass(frozen=True)
class ClassEvidence:
    """What is known of log p(x, y), for each class y of each x.

    Attributes:
        log_p_x_and_y: IWAE_K of log p(x, y), nats, shape [N, classes].
        khat: the Pareto k-hat of the weights, shape [N, classes]; above 0.7 IWAE_K may be far below
            log p(x, y), and the probabilities below may be wrong.
    """

    log_p_x_and_y: Tensor
    khat: Tensor

    @property
    def log_p_x(self) -> Tensor:
        """A bound on log p(x), log sum_y p(x, y), nats, shape [N]."""
        return self.log_p_x_and_y.logsumexp(-1)

    @property
    def probabilities(self) -> Tensor:
        """p(y|x) by Bayes' rule, shape [N, classes]; an estimate, and no bound."""
        return self.log_p_x_and_y.softmax(-1)


def class_evidence(
    m2: SemiSupervised, x: Tensor, num_samples: int = 100, **options: Any
) -> ClassEvidence:
    """Estimate log p(x, y) for each class y by importance sampling from q(z|x, y).

    Args:
        m2: the model and its guide, in evaluation mode.
        x: examples as the likelihood sees them, shape [N, *event].
        num_samples: K, the number of draws of z for each x and y.
        options: the other options of `bounds.evaluate`.
    """
    results = []
    for c in range(len(m2.model.log_p_y)):
        y = torch.full((len(x),), c, device=x.device)
        results.append(bounds.evaluate(m2.model, m2.guide, Arguments(x, y), num_samples, **options))
    return ClassEvidence(
        torch.stack([result.bound.values for result in results], -1),
        torch.stack([result.khat for result in results], -1),
    )


def _checked(y: Tensor | None, count: int, classes: int, device: torch.device) -> Tensor:
    """Return y, or unknown classes if it is None, shape [count].

    Raises:
        InputError: if y is not of whole numbers below `classes`, or of another shape.
    """
    if y is None:
        return torch.full((count,), UNKNOWN, device=device)
    if y.shape != (count,) or y.is_floating_point():
        raise InputError(
            f"y has to be whole numbers, one for each of {count} examples, and it is {y.dtype} of "
            f"shape {list(y.shape)}",
            "y",
        )
    if not is_traced([y]) and not (y < classes).all():
        raise InputError(
            f"y has the class {int(y.max())}, and there are {classes}: count them from 0", "y"
        )
    return y.long()


def _class_given_label(logits: Tensor, y: Tensor) -> dist.Distribution:
    """Return a distribution over classes: a point mass where y is known.

    Args:
        logits: those of the distribution where y is unknown, shape [classes] or [batch, classes].
        y: the classes, negative where they are unknown, shape [batch].
    """
    is_label = y[:, None] == torch.arange(logits.shape[-1], device=y.device)
    at_label = torch.zeros_like(logits).masked_fill(~is_label, -torch.inf)
    return dist.Categorical(logits=torch.where(y[:, None] >= 0, at_label, logits))


def _one_hot(y: Tensor, classes: int, like: Tensor) -> Tensor:
    """Return y as one-hot vectors of the type of another tensor, shape [..., classes]."""
    return (y[..., None] == torch.arange(classes, device=y.device)).to(like.dtype)


def _append(vectors: Tensor, y: Tensor, classes: int) -> Tensor:
    """Return vectors with a one-hot y behind them, for all values of y.

    Args:
        vectors: shape [..., batch, size].
        y: shape [..., batch] or [..., 1].
        classes: the number of classes.
    """
    lead = torch.broadcast_shapes(vectors.shape[:-1], y.shape)
    one_hot = _one_hot(y, classes, vectors)
    return torch.cat([vectors.expand(*lead, -1), one_hot.expand(*lead, -1)], -1)


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
