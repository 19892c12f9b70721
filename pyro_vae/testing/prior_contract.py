"""The contract of every prior."""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor

from pyro_vae import networks, posteriors
from pyro_vae.likelihoods import Bernoulli
from pyro_vae.posteriors import Posterior
from pyro_vae.posteriors.layers import upper_sites
from pyro_vae.priors import Prior, check_support
from pyro_vae.testing import integration
from pyro_vae.testing.derivatives import check_gradients
from pyro_vae.testing.latent_layers import (
    call,
    check_codes,
    check_shapes,
    draw,
    log_density,
)
from pyro_vae.testing.subject import Subject, isolated, nudge
from pyro_vae.testing.training_steps import binary_images, check_training
from pyro_vae.vae import VAE

EVENT_SHAPE = (6,)
DEFAULT_POSTERIOR: dict[str | None, Callable[..., Posterior]] = {
    None: posteriors.Normal,
    "real": posteriors.Normal,
    "sphere": posteriors.PowerSpherical,
    "binary": posteriors.Bernoulli,
    "categorical": posteriors.Categorical,
    "layers": partial(posteriors.Hierarchical, top_dim=2, features=4),
}


def check_prior(
    make: Callable[[int], Prior],
    *,
    latent_dim: int | None = None,
    posterior: Callable[[Sequence[int], int], Posterior] | None = None,
    tolerance: float = 1e-3,
    compile: bool = False,
    seed: int = 0,
) -> None:
    """Check that a prior keeps the contract of `pyro_vae.priors.Prior`.

    p(z) has batch shape [] and event shape [latent_dim]; log-probabilities of samples are finite;
    `expand` works; samples are where `support` says; the density integrates to one and samples have
    its moments (for codes in layers, those of each); gradients reach every parameter and agree with
    finite differences; a state that is loaded into another prior gives the same density; and SVI
    lowers the loss of a VAE with this prior and moves all its parameters.

    The density is integrated over a grid in one or two real dimensions (tails down to those of
    Student's t with half a degree of freedom are covered; see `pyro_vae.testing.integration`), over
    the circle, and over all values of discrete codes. In more dimensions the integral is a Monte
    Carlo estimate with a standard error, which is less sharp.

    Args:
        make: the class, or a callable that takes the latent dimension.
        latent_dim: the dimension of z; by default 2, and 4 for one-hot codes.
        posterior: a callable that takes the shape of x and the latent dimension, for a prior that
            needs a particular posterior; by default one of the same support.
        tolerance: the tolerance of integrals over densities. It should be larger for densities
            with corners or estimated constants, and `math.inf` for densities that are too narrow
            for the grid.
        compile: whether to compare a compiled step with an eager one, which takes many seconds.
        seed: the seed of all noise.

    Raises:
        AssertionError: with a sentence on what is wrong.

    Examples:
        >>> import pyro.distributions as dist
        >>> import torch
        >>> from pyro_vae.priors import Prior
        >>> from pyro_vae.testing import check_prior
        >>> class Cauchy(Prior):
        ...     def __init__(self, latent_dim: int) -> None:
        ...         super().__init__()
        ...         self.log_scale = torch.nn.Parameter(torch.zeros(latent_dim))
        ...     def forward(self) -> dist.Distribution:
        ...         return dist.Cauchy(0.0, self.log_scale.exp()).to_event(1)
        >>> check_prior(Cauchy)
        >>> class Forgetful(Cauchy):
        ...     def forward(self) -> dist.Distribution:
        ...         return dist.Cauchy(0.0, self.log_scale.exp())
        >>> check_prior(Forgetful)  # doctest: +ELLIPSIS
        Traceback (most recent call last):
        AssertionError: Forgetful: p(z) has batch shape [2] and event shape [], and [] and [2] ...
    """
    subject = Subject(make)

    def build(seed: int) -> tuple[Prior, Posterior]:
        torch.manual_seed(seed)
        return _build(subject, make, latent_dim, posterior)

    with isolated(seed), subject.during("building the prior and a posterior for it"):
        prior, q = build(seed)
    dim, categories = q.latent_dim, getattr(q, "categories", 0)
    with isolated(seed):
        prior.double(), q.double()
        with subject.during("initialize"):
            prior.initialize(torch.rand(10, *EVENT_SHAPE).double())
        nudge(prior)
        with subject.during("calling the prior"):
            _check_both_modes(subject, prior, q, dim)
            for name, fn, support in _densities(prior, q):
                rule = integration.codes(support, fn.event_shape.numel(), categories)
                integration.check_density(subject, fn, rule, tolerance, name)
            for training in (True, False):
                _check_gradients(subject, prior.train(training))
        with subject.during("load_state_dict"):
            _check_state(subject, prior, build(seed + 1)[0].double())

        def vae() -> VAE:
            prior, q = build(seed)
            vae = VAE(prior, Bernoulli(dim, EVENT_SHAPE, networks.Linear), q)
            vae.initialize(images)
            return vae

        with subject.during("a step of SVI"):
            images = binary_images(EVENT_SHAPE)
            check_training(subject, vae, lambda vae: vae.prior, images, compile)


def _build(
    subject: Subject,
    make: Callable[[int], Prior],
    latent_dim: int | None,
    posterior: Callable[[Sequence[int], int], Posterior] | None,
) -> tuple[Prior, Posterior]:
    """Make a prior, and a posterior that goes with it."""
    if latent_dim is None:
        kind = getattr(make, "func", make)
        latent_dim = 4 if getattr(kind, "support", None) == "categorical" else 2
    prior = make(latent_dim)
    subject.require(isinstance(prior, Prior), "it is not a subclass of pyro_vae.priors.Prior")
    subject.require(
        prior.support in DEFAULT_POSTERIOR,
        f"support is {prior.support!r}, and it has to be one of "
        f"{[name for name in DEFAULT_POSTERIOR if name]} or None",
    )
    if posterior is None:
        posterior = partial(DEFAULT_POSTERIOR[prior.support], encoder=networks.Linear)
    q = posterior(EVENT_SHAPE, latent_dim)
    check_support(prior, q)
    prior.build(q)
    return prior, q


def _check_both_modes(subject: Subject, prior: Prior, q: Posterior, dim: int) -> None:
    """Check shapes, samples and codes in both modes."""
    for training in (False, True):
        prior.train(training), q.train(training)
        layers = call(prior)
        for name, fn in layers.upper.items():
            check_shapes(subject, fn, (), tuple(fn.event_shape), f"the distribution of '{name}'")
        check_shapes(subject, layers.lower, (), (dim,), "p(z)")
        z, values = _draw(prior)
        subject.require(z.dtype == torch.float64, "after .double() samples are not float64")
        support = q.support if prior.support is None else prior.support
        check_codes(subject, z, None if training else support, prior.code(z))
        log_p = call(prior, values=values).lower.log_prob(z)
        subject.require(log_p.isfinite().all(), "log p(z) of a sample is not a finite number")
        if not layers.upper:
            pairs = log_density(prior, z=z.reshape(5, 10, dim), values={})
            subject.require(
                torch.allclose(pairs.flatten(), log_density(prior, z=z, values={})),
                "log p(z) depends on how many leading dimensions z has",
            )
        if not layers.upper and not training:
            accepted = q(torch.rand(50, *EVENT_SHAPE).double()).log_prob(z)
            subject.require(
                accepted.isfinite().all(), "samples are outside of the posterior's support"
            )


def _draw(prior: Prior) -> tuple[Tensor, dict[str, Tensor]]:
    """Draw 50 z, and the upper layers that they were drawn with."""
    layers = call(prior)
    if not layers.upper:
        return draw(layers.lower, 50), {}
    values = {name: draw(fn, 50) for name, fn in layers.upper.items()}
    return draw(call(prior, values=values).lower, 1)[0], values


def _check_gradients(subject: Subject, prior: Prior) -> None:
    z, values = _draw(prior)
    check_gradients(
        subject, prior, lambda: log_density(prior, z=z, values=values).sum(), "log p(z)"
    )


def _densities(prior: Prior, q: Posterior) -> list[tuple[str, Any, str | None]]:
    """Return the densities to integrate: their names, distributions and supports."""
    prior.eval(), q.eval()
    layers = call(prior)
    if not layers.upper:
        support = q.support if prior.support is None else prior.support
        return [("p(z)", layers.lower, support)]
    found: list[tuple[str, Any, str | None]] = []
    for name, fn in layers.upper.items():
        is_uppermost = name == upper_sites(len(layers.upper))[-1]
        found.append((f"p({name})", fn, q.top.support if is_uppermost else "real"))
    for _ in range(3):
        values = {name: draw(fn, 1)[0] for name, fn in layers.upper.items()}
        found.append((f"p(z | {', '.join(values)})", call(prior, values=values).lower, "real"))
    return found


def _check_state(subject: Subject, prior: Prior, other: Prior) -> None:
    """Check that the density comes back with the state, in both modes."""
    other.load_state_dict(prior.state_dict())
    for training in (True, False):
        z, values = _draw(prior.train(training))
        densities = [
            log_density(each.train(training), z=z, values=values) for each in (prior, other)
        ]
        subject.require(
            torch.allclose(densities[0], densities[1]),
            "another prior with the same state_dict has another density: something that the "
            "density depends on is not saved; make it a parameter or a buffer",
        )
