"""The contract of every likelihood."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from pyro_vae import networks
from pyro_vae.kinds import Kind
from pyro_vae.likelihoods import Likelihood
from pyro_vae.posteriors import Normal
from pyro_vae.priors import StandardNormal
from pyro_vae.testing.derivatives import check_gradients, check_independence
from pyro_vae.testing.integration import Rule, line, unit_interval
from pyro_vae.testing.subject import Subject, isolated
from pyro_vae.testing.training_steps import check_training
from pyro_vae.vae import VAE

LATENT_DIM = 2
PIXEL_SAMPLES = 20_000


def check_likelihood(
    make: Callable[[int, Sequence[int]], Likelihood],
    *,
    event_shape: Sequence[int] = (4, 3),
    pixel_shape: Sequence[int] = (1, 1),
    stored: Tensor | None = None,
    tolerance: float = 1e-4,
    mean: bool | None = None,
    compile: bool = False,
    seed: int = 0,
) -> None:
    """Check that a likelihood keeps the contract of `pyro_vae.likelihoods.Likelihood`.

    p(x|z) has the batch shape of z, whatever its leading dimensions, and event shape `event_shape`;
    the x that `kind` shows, and samples, are in its support and have finite log-probabilities;
    all this holds after `initialize`, also for data that do not vary; the p(x|z) of an example does
    not depend on the rest of its batch, in evaluation mode; the density of a single pixel sums or
    integrates to one, never to more, and samples have its moments; `picture` has the shape of x and
    values in [0, 1]; gradients by z and by every parameter agree with finite differences; a state
    that is loaded into another likelihood gives the same density; and SVI lowers the loss of a VAE
    with this likelihood and moves all its parameters.

    Args:
        make: the class, or a callable that takes the latent dimension and the shape of x.
        event_shape: the shape of one x.
        pixel_shape: the shape of one x that is a single pixel, whose density is integrated.
        stored: examples of the kind, as they are stored, shape [N, *event_shape]; by default random
            levels 0..255. Without them, single pixels and constant images are checked too.
        tolerance: the share of a pixel's density that may be missing, as where it is cut off.
        mean: whether `picture` has to be the mean of p(x|z); by default, where the distribution
            knows a finite mean.
        compile: whether to compare a compiled step with an eager one, which takes many seconds.
        seed: the seed of all noise.

    Raises:
        AssertionError: with a sentence on what is wrong.

    Examples:
        >>> from functools import partial
        >>> from pyro_vae import likelihoods, networks
        >>> from pyro_vae.testing import check_likelihood
        >>> check_likelihood(partial(likelihoods.Bernoulli, decoder=networks.Linear))
    """
    subject = Subject(make)

    def build(latent_dim: int = LATENT_DIM, shape: Sequence[int] = event_shape) -> Likelihood:
        with subject.during("building the likelihood"):
            return make(latent_dim, shape)

    with isolated(seed):
        examples = torch.randint(256, (50, *event_shape), dtype=torch.uint8)
        images = examples if stored is None else stored
        likelihood = build()
        _check_kind(subject, likelihood, event_shape)
        kind = likelihood.kind
        with subject.during("initialize"):
            likelihood.initialize(kind.stored_features(images))
        with subject.during("kind.observe"):
            x = kind.observe(images)
        with subject.during("calling the likelihood"):
            _check_shapes(subject, likelihood, x)
            if stored is None:
                _check_constant_images(subject, build, event_shape)
                pixel = build(1, pixel_shape).double()
                pixel.initialize(torch.rand(100, *pixel_shape).double())
                _check_pixel(subject, pixel.eval(), tolerance, mean)
            _check_gradients(subject, likelihood.double().train(), x[:20].double())
        with subject.during("load_state_dict"):
            _check_state(subject, likelihood, build().double(), x.double())
        with subject.during("a step of SVI"):

            def vae() -> VAE:
                torch.manual_seed(seed)
                encoder = Normal(kind.feature_shape, LATENT_DIM, networks.Linear)
                made = VAE(StandardNormal(LATENT_DIM), build(), encoder)
                made.initialize(kind.stored_features(images))
                return made

            check_training(subject, vae, lambda vae: vae.likelihood, x, compile)


def _check_kind(subject: Subject, likelihood: Likelihood, event_shape: Sequence[int]) -> None:
    subject.require(
        isinstance(likelihood, Likelihood),
        "it is not a subclass of pyro_vae.likelihoods.Likelihood",
    )
    subject.require(
        isinstance(getattr(likelihood, "kind", None), Kind),
        "`kind` is not an object of pyro_vae.kinds, such as Binary() or UnitInterval()",
    )
    subject.require(
        tuple(likelihood.event_shape) == tuple(event_shape),
        f"event_shape is {list(likelihood.event_shape)}, and it was made with {list(event_shape)}",
    )


def _check_shapes(subject: Subject, likelihood: Likelihood, x: Tensor) -> None:
    event, batch = tuple(likelihood.event_shape), len(x)
    z = torch.randn(7, batch, LATENT_DIM)
    first = x[:1].expand(batch, *event)  # with the conditions of the first example, if any
    for training in (True, False):
        p = likelihood.train(training).given(z, x)
        shapes = (tuple(p.batch_shape), tuple(p.event_shape))
        subject.require(
            shapes == ((7, batch), event),
            f"for z of shape [7, {batch}, {LATENT_DIM}], p(x|z) has batch shape {list(shapes[0])} "
            f"and event shape {list(shapes[1])}, and [7, {batch}] and {list(event)} are expected",
        )
        subject.require(
            p.support.check(x).all(),
            f"x of the kind {likelihood.kind.name} is outside of p's support",
        )
        log_p = p.log_prob(x)
        subject.require(
            log_p.shape == (7, batch) and log_p.isfinite().all(),
            f"log p(x|z) of x of the kind {likelihood.kind.name} is not a finite number for each x",
        )
        one = likelihood.under(x[0])(torch.zeros(LATENT_DIM))
        subject.require(
            tuple(one.batch_shape) == () and one.log_prob(first).shape == (batch,),
            "for a single z, p(x|z) does not have batch shape []",
        )
        drawn = one.sample((5,))
        again = likelihood.given(torch.zeros(5, LATENT_DIM), drawn)
        subject.require(
            drawn.shape == (5, *event) and again.log_prob(drawn).isfinite().all(),
            "samples do not have the shape of x, or have no finite log p(x|z)",
        )
    picture = likelihood.under(x[:3]).picture(z[:2, :3])
    shown = tuple(likelihood.kind.intensities(x[:1]).shape[1:])
    subject.require(
        picture.shape == (2, 3, *shown) and ((picture >= 0) & (picture <= 1)).all(),
        f"`picture` does not give numbers in [0, 1] of shape {[2, 3, *shown]} for z of shape "
        f"[2, 3, {LATENT_DIM}]",
    )
    # The same x for each z: the likelihood is in evaluation mode.
    check_independence(
        subject, lambda z: likelihood.given(z, first[: len(z)]).log_prob(x[0]), z[0, :6], "p(x|z)"
    )
    leading = likelihood.given(z, x).log_prob(x).flatten()
    repeated = x.repeat(7, *[1] * len(event))
    flat = likelihood.given(z.flatten(0, 1), repeated).log_prob(repeated)
    subject.require(
        torch.allclose(leading, flat, rtol=1e-4, atol=1e-4),
        "log p(x|z) depends on how many leading dimensions z has",
    )


def _check_constant_images(
    subject: Subject, build: Callable[[], Likelihood], event_shape: Sequence[int]
) -> None:
    for level in (0, 128, 255):
        likelihood = build()
        images = torch.full((10, *event_shape), level, dtype=torch.uint8)
        likelihood.initialize(likelihood.kind.stored_features(images))
        x = likelihood.kind.observe(images)
        log_p = likelihood(torch.randn(10, LATENT_DIM)).log_prob(x)
        log_p.sum().backward()
        gradients = [p.grad for p in likelihood.parameters() if p.grad is not None]
        subject.require(
            log_p.isfinite().all() and all(gradient.isfinite().all() for gradient in gradients),
            f"after `initialize` with images that are {level} throughout, log p(x|z) or its "
            "gradient is not finite",
        )


def _pixel_values(p: Any) -> Rule:
    """Return all values of one pixel, or a rule for its integral, by the distribution's support."""
    shape = p.event_shape
    within = lambda values: p.support.check(values.reshape(-1, *shape))  # noqa: E731
    if p.support.is_discrete:
        values = torch.arange(4096, dtype=torch.float64)
        values = values[within(values)]
        return Rule(values[:, None], torch.zeros(len(values), dtype=torch.float64))
    above, below = within(torch.tensor([2.0, -1.0], dtype=torch.float64)).tolist()
    if not above:
        return unit_interval()
    points, log_weights = line(20_001)[:2]
    positive = points[:, 0] > 0
    return Rule(points, log_weights) if below else Rule(points[positive], log_weights[positive])


def _check_pixel(
    subject: Subject, likelihood: Likelihood, tolerance: float, mean: bool | None
) -> None:
    """Check the density, the samples and the picture of one pixel for several z."""
    shape, features = likelihood.event_shape, likelihood.kind.features
    with torch.no_grad():
        for z in torch.linspace(-4, 4, 5).double()[:, None]:
            p = likelihood(z)
            points, log_w = _pixel_values(p)[:2]
            mass = (p.log_prob(points.reshape(-1, *shape)) + log_w).exp()
            total = mass.sum().item()
            subject.require(
                1 - tolerance < total < 1 + 1e-4,
                f"the probability or density of one pixel adds up to {total:.6g}, and not to 1",
            )
            drawn = features(p.sample((PIXEL_SAMPLES,)).flatten().double())
            values = features(points[:, 0])
            for label, function in (("tanh(x)", torch.tanh), ("cos(9 x)", lambda v: (9 * v).cos())):
                expected = (mass * function(values)).sum()
                variance = (mass * (function(values) - expected) ** 2).sum() / PIXEL_SAMPLES
                found = function(drawn).mean()
                subject.require(
                    abs(found - expected) < 4.5 * variance.sqrt() + tolerance,
                    f"samples of one pixel do not follow p(x|z): the mean of {label} is "
                    f"{found:.4g} over samples, and {expected:.4g} by integration",
                )
            if _mean_is_known(p) if mean is None else mean:
                expected = (mass * values).sum().clamp(0, 1)
                found = likelihood.picture(z).flatten()[0]
                subject.require(
                    abs(found - expected) < 2e-3,
                    f"`picture` is {found:.4g}, and the mean of p(x|z) is {expected:.4g}",
                )


def _mean_is_known(p: Any) -> bool:
    try:
        return bool(p.mean.isfinite().all())
    except NotImplementedError:
        return False


def _check_gradients(subject: Subject, likelihood: Likelihood, x: Tensor) -> None:
    z = torch.randn(len(x), LATENT_DIM).double()

    def in_evaluation(z: Tensor) -> Any:
        return likelihood.eval().given(z, x[: len(z)])

    def in_training(z: Tensor) -> Any:
        return likelihood.train().given(z, x[: len(z)])

    for density in (in_evaluation, in_training):

        def of_parameters(density: Callable[[Tensor], Any] = density) -> Tensor:
            torch.manual_seed(2)
            return density(z).log_prob(x).sum()

        def of_z(z: Tensor, density: Callable[[Tensor], Any] = density) -> Tensor:
            return density(z).log_prob(x[:2])

        check_gradients(subject, likelihood, of_parameters, "log p(x|z)")
        with subject.during("the gradient by z, compared with finite differences,"):
            leaf = z[:2].clone().requires_grad_()
            torch.autograd.gradcheck(of_z, leaf, atol=1e-4, rtol=1e-3)


def _check_state(subject: Subject, likelihood: Likelihood, other: Likelihood, x: Tensor) -> None:
    other.load_state_dict(likelihood.state_dict())
    z = torch.randn(len(x), LATENT_DIM).double()
    found = [each.eval().given(z, x).log_prob(x) for each in (likelihood, other)]
    subject.require(
        torch.allclose(*found),
        "another likelihood with the same state_dict has another density: something that the "
        "density depends on is not saved; make it a parameter or a buffer",
    )
