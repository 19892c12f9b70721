"""The contract of every posterior."""

import copy
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor

from pyro_vae import networks, priors
from pyro_vae.likelihoods import Bernoulli
from pyro_vae.posteriors import Posterior
from pyro_vae.posteriors.layers import upper_sites
from pyro_vae.priors import Prior
from pyro_vae.testing import integration
from pyro_vae.testing.derivatives import check_gradients, check_independence
from pyro_vae.testing.latent_layers import call, check_codes, check_shapes, draw, log_density
from pyro_vae.testing.subject import Subject, isolated, nudge
from pyro_vae.testing.training_steps import binary_images, check_training
from pyro_vae.vae import VAE

DEFAULT_PRIOR: dict[str, Callable[..., Prior]] = {
    "real": priors.StandardNormal,
    "sphere": priors.UniformSphere,
    "binary": priors.Bernoulli,
    "categorical": priors.Categorical,
    "layers": partial(priors.Hierarchical, network=networks.Linear),
}


def check_posterior(
    make: Callable[[Sequence[int], int], Posterior],
    *,
    event_shape: Sequence[int] = (6,),
    latent_dim: int | None = None,
    prior: Callable[[int], Prior] | None = None,
    tolerance: float = 1e-3,
    smooth_draws: bool = True,
    compile: bool = False,
    seed: int = 0,
) -> None:
    """Check that a posterior keeps the contract of `pyro_vae.posteriors.Posterior`.

    q(z|x) has the batch shape of x, whatever its leading dimensions, and event shape [latent_dim];
    samples are where `support` says, with finite log-probabilities, also for x far from the data;
    the q of an example does not depend on the rest of its batch; the density integrates to one and
    samples have its moments, as in `check_prior`; gradients of the density, and of draws that are
    reparameterised, reach every parameter and agree with finite differences; a state that is loaded
    into another posterior gives the same density; and SVI lowers the loss of a VAE with this
    posterior and moves all its parameters.

    Args:
        make: the class, or a callable that takes the shape of x and the latent dimension.
        event_shape: the shape of one x.
        latent_dim: the dimension of z; by default 2, and 4 for one-hot codes.
        prior: a callable that takes the latent dimension, for a posterior that needs a particular
            prior; by default one of the same support.
        tolerance: the tolerance of integrals over densities. It should be larger for densities
            with corners, and `math.inf` for densities that are too narrow for the grid.
        smooth_draws: whether a reparameterised draw is a smooth function of the parameters for the
            same noise; not so for those of rejection samplers with implicit gradients.
        compile: whether to compare a compiled step with an eager one, which takes many seconds.
        seed: the seed of all noise.

    Raises:
        AssertionError: with a sentence on what is wrong.

    Examples:
        >>> from functools import partial
        >>> from pyro_vae import networks, posteriors
        >>> from pyro_vae.testing import check_posterior
        >>> check_posterior(partial(posteriors.Normal, encoder=networks.Linear))
    """
    subject = Subject(make)
    if latent_dim is None:
        kind = getattr(make, "func", make)
        latent_dim = 4 if getattr(kind, "support", None) == "categorical" else 2
    dim = latent_dim

    def make_prior(q: Posterior) -> Prior:
        options = {"categories": q.categories} if hasattr(q, "categories") else {}
        return prior(dim) if prior else DEFAULT_PRIOR[q.support](dim, **options)

    def build(seed: int) -> Posterior:
        torch.manual_seed(seed)
        q = make(event_shape, dim)
        if isinstance(q, Posterior) and q.upper_dims:  # it may share networks with its prior
            p = make_prior(q)
            p.build(q)
            q.build(p)
        return q

    with isolated(seed):
        with subject.during("building the posterior"):
            q = build(seed).double()
        nudge(q)
        x = torch.rand(6, *event_shape).double()
        with subject.during("calling the posterior"):
            _check_attributes(subject, q, event_shape, dim)
            for training in (True, False):
                _check_mode(subject, q.train(training), x, dim)
            _check_densities(subject, q.eval(), x[0], tolerance)
            z, values = _codes(q.train(), x)
            check_gradients(
                subject, q, lambda: log_density(q, x, z=z, values=values).sum(), "log q(z|x)"
            )
            if call(q, x).lower.has_rsample and smooth_draws:
                check_gradients(subject, q, lambda: _sum_of_draws(q, x), "a draw from q(z|x)")
        with subject.during("load_state_dict"):
            _check_state(subject, q, build(seed + 1).double(), x)

        def vae() -> VAE:
            torch.manual_seed(seed)
            q = make(event_shape, dim)
            return VAE(make_prior(q), Bernoulli(dim, event_shape, networks.Linear), q)

        with subject.during("a step of SVI"):
            images = binary_images(event_shape)
            check_training(subject, vae, lambda vae: vae.posterior, images, compile)


def _check_attributes(subject: Subject, q: Posterior, event_shape: Sequence[int], dim: int) -> None:
    subject.require(
        isinstance(q, Posterior), "it is not a subclass of pyro_vae.posteriors.Posterior"
    )
    subject.require(
        tuple(q.event_shape) == tuple(event_shape) and q.latent_dim == dim,
        f"event_shape and latent_dim are {list(q.event_shape)} and {q.latent_dim}, and it was made "
        f"with {list(event_shape)} and {dim}",
    )
    subject.require(
        q.support in DEFAULT_PRIOR,
        f"support is {q.support!r}, and it has to be one of {list(DEFAULT_PRIOR)}",
    )


def _check_mode(subject: Subject, q: Posterior, x: Tensor, dim: int) -> None:
    """Check shapes, samples and independence in the mode that a posterior is in."""
    batch = len(x)
    distribution = call(q, x).lower
    check_shapes(subject, distribution, (batch,), (dim,), "q(z|x)")
    for leading in ((), (2, batch)):
        shape = tuple(call(q, x[0].expand(*leading, *q.event_shape)).lower.batch_shape)
        subject.require(
            shape == leading,
            f"for x with leading dimensions {list(leading)}, q(z|x) has batch shape {list(shape)}",
        )
    z, values = _codes(q, x)
    subject.require(z.dtype == torch.float64, "after .double() samples are not float64")
    check_codes(subject, z, None if q.training else q.support, q.code(z))
    repeated = {name: value.repeat(2, *[1] * (value.dim() - 1)) for name, value in values.items()}
    together = log_density(q, x, z=z, values=values)
    twice = log_density(q, x.repeat(2, *[1] * (x.dim() - 1)), z=z.repeat(2, 1), values=repeated)
    stacked = log_density(
        q,
        x.expand(2, *x.shape),
        z=z.expand(2, *z.shape),
        values={name: value.expand(2, *value.shape) for name, value in values.items()},
    )
    subject.require(
        torch.allclose(stacked.flatten(), twice),
        "log q(z|x) depends on how many leading dimensions x has",
    )

    # The same z for all: examples change their places in the batch.
    same = {name: value[:1].expand(batch, *value.shape[1:]) for name, value in values.items()}

    def of_same_code(x: Tensor) -> Tensor:
        part = {name: value[: len(x)] for name, value in same.items()}
        return log_density(q, x, z=z[:1].expand(len(x), dim), values=part)

    check_independence(subject, of_same_code, x, "q(z|x)")
    subject.require(together.isfinite().all(), "log q(z|x) of a sample is not a finite number")
    layers = call(copy.deepcopy(q).float(), torch.full_like(x[:1], 1e3).float())
    log_q = layers.lower.log_prob(layers.lower.sample())
    for name, fn in layers.upper.items():
        log_q = log_q + fn.log_prob(layers.values[name])
    subject.require(
        log_q.isfinite().all(),
        "for x of 1000, in single precision, log q(z|x) of a sample is not finite",
    )


def _codes(q: Posterior, x: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
    """Draw z, and the upper layers that it was drawn with, for each x."""
    layers = call(q, x)
    values = {name: value.detach() for name, value in layers.values.items()}
    return draw(layers.lower, 1)[0], values


def _sum_of_draws(q: Posterior, x: Tensor) -> Tensor:
    torch.manual_seed(3)
    layers = call(q, x)
    draws = layers.lower.rsample(), *layers.values.values()
    return sum((z * torch.arange(1.0, z.shape[-1] + 1)).sin().sum() for z in draws)


def _check_densities(subject: Subject, q: Posterior, x: Tensor, tolerance: float) -> None:
    layers = call(q, x)
    densities: list[tuple[str, Any, Posterior | None]] = [
        ("q(z|x)", layers.lower, None if layers.upper else q)
    ]
    for name, fn in layers.upper.items():
        is_uppermost = name == upper_sites(len(layers.upper))[-1]
        densities.append((f"q({name}|x)", fn, q.top if is_uppermost else None))
    for name, fn, family in densities:
        support, categories = getattr(family, "support", "real"), getattr(family, "categories", 0)
        rule = integration.codes(support, fn.event_shape.numel(), categories)
        integration.check_density(subject, fn, rule, tolerance, name)


def _check_state(subject: Subject, q: Posterior, other: Posterior, x: Tensor) -> None:
    other.load_state_dict(q.state_dict())
    for training in (True, False):
        z, values = _codes(q.train(training), x)
        densities = [
            log_density(each.train(training), x, z=z, values=values) for each in (q, other)
        ]
        subject.require(
            torch.allclose(densities[0], densities[1]),
            "another posterior with the same state_dict has another density: something that the "
            "density depends on is not saved; make it a parameter or a buffer",
        )
