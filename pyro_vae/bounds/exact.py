"""Exact log p(x), where it can be computed: in closed form, or by enumeration.

Each function checks the conditions under which its result is exact. `grid` has a third: quadrature.
"""

import math
from typing import Any

import torch
from torch import Tensor

from pyro_vae.bounds.densities import Densities, prior_of
from pyro_vae.bounds.given_values import MAX_BATCH, axis_of_examples, latent_sites, with_latents
from pyro_vae.errors import InputError
from pyro_vae.programs.arguments import Arguments
from pyro_vae.programs.looking import look_at
from pyro_vae.programs.random_streams import preserve_rng_state
from pyro_vae.programs.traces import Program, Site


def gaussian(
    model: Program, x: Any, *, plate: str | None = None, tolerance: float = 1e-8
) -> Tensor:
    """Integrate out all latent variables of a model whose log p(x, z) is quadratic in them.

    If log p(x, z) = c + g'z - z'Hz / 2, then log p(x) = c + g'H^-1 g / 2 - log|H / 2 pi| / 2. This
    holds for linear-Gaussian models, such as probabilistic PCA and factor analysis, and for all of
    their latent sites together. H and g are read off the gradient of the model's log-density.

    Args:
        model: a Pyro program.
        x: the data, which the model is called with: a tensor, a tuple, which is spread into
            positional arguments, or `Arguments`.
        plate: the name of the plate of the examples; by default it is found.
        tolerance: the largest difference between the log-density and the quadratic one at random
            points, relative to the log-density.

    Returns:
        log p(x_i) in nats, `float64`, shape [N]. If some site is outside the plate of the examples,
        N is one, and this is the log p of all data together.

    Raises:
        InputError: if a latent site is discrete, or has a support without unconstrained
            coordinates; if the log-density is not quadratic, or has no maximum, or is not in double
            precision.
    """
    arguments = Arguments.of(x)
    pair = look_at(model, prior_of(model), arguments, plate=plate, most_at_once=100)
    densities = Densities(pair, arguments.take(slice(pair.batch_size)))
    if densities.variables:
        raise InputError("a latent site is discrete: sum it out by enumeration", "model")
    with preserve_rng_state(arguments):
        torch.manual_seed(0)
        parts = [_gaussian(densities, part, tolerance) for part in arguments.split(pair.batch_size)]
    return torch.cat(parts)


def _gaussian(densities: Densities, x: Arguments, tolerance: float) -> Tensor:
    """Return log p(x) of a batch of examples in closed form."""
    dims = densities.dims
    random = densities.draw(4, x)
    # The gradients at the origin and at the unit vectors determine a quadratic function.
    units = torch.eye(dims, dtype=random.dtype, device=x.device)[:, None]
    units = units.expand(-1, random.shape[1], -1)
    at = densities.point(torch.cat([torch.zeros_like(units[:1]), units, random]), x)
    if at.log_p.dtype != torch.float64:
        raise InputError("single precision is not enough: convert the model and x to double", "x")
    constant, gradient = at.log_p[0], at.grad_p[0]
    precision = (gradient - at.grad_p[1 : dims + 1]).movedim(0, 1)  # [N, D, D]
    expected = constant + (random * gradient).sum(-1)
    expected = expected - torch.einsum("knd,nde,kne->kn", random, precision, random) / 2
    actual = at.log_p[dims + 1 :]
    if not ((actual - expected).abs() <= tolerance * (1 + actual.abs())).all():
        raise InputError("log p(x, z) is not quadratic in the latent variables", "model")
    factor, failed = torch.linalg.cholesky_ex((precision + precision.mT) / 2)
    if failed.any():
        raise InputError("log p(x, z) has no maximum in the latent variables", "model")
    solved = torch.cholesky_solve(gradient[..., None], factor)[..., 0]
    log_det = 2 * factor.diagonal(dim1=-2, dim2=-1).log().sum(-1)
    return constant + (gradient * solved).sum(-1) / 2 + (dims * math.log(2 * math.pi) - log_det) / 2


def enumeration(
    model: Program,
    x: Any,
    *,
    plate: str | None = None,
    vectorize: bool | None = None,
    max_values: int = 2**20,
) -> Tensor:
    """Sum discrete latent variables out, over all combinations of their values.

    Args:
        model: a Pyro program whose latent sites are all discrete.
        x: the data, which the model is called with: a tensor, a tuple, which is spread into
            positional arguments, or `Arguments`.
        plate: the name of the plate of the examples; by default it is found.
        vectorize: whether to run the model with many combinations at once; by default if the model
            allows it.
        max_values: the largest number of combinations that is accepted for one example, or for all
            data if some site is outside the plate of the examples.

    Returns:
        log p(x_i) in nats, `float64`, shape [N]. If some site is outside the plate of the examples,
        N is one, and this is the log p of all data together.

    Raises:
        InputError: if a latent site is not discrete, or its possible values depend on the value of
            another site, or there are too many combinations.
    """
    arguments = Arguments.of(x)
    pair = look_at(model, prior_of(model), arguments, plate=plate, vectorize=vectorize)
    with torch.no_grad(), preserve_rng_state(arguments):
        sites = latent_sites(model, arguments)
        if not sites:
            raise InputError("the model has no latent site to sum out", "model")
        supports = {
            name: _values_of_site(name, site, pair.plate, max_values)
            for name, site in sites.items()
        }
        sizes = [len(values) for values in supports.values()]
        total = math.prod(sizes)
        if total > max_values:
            raise _too_many(total, max_values)
        device = arguments.device
        log_p = log_prior_mass = torch.tensor(-math.inf, dtype=torch.float64, device=device)
        at_once = max(1, MAX_BATCH // max(1, len(arguments)))
        for part in torch.arange(total, device=device).split(at_once):
            index = torch.unravel_index(part, sizes)
            values = {
                name: support[i] for (name, support), i in zip(supports.items(), index, strict=True)
            }
            draws = with_latents(
                pair, arguments, values, {n: len(s["fn"].batch_shape) for n, s in sites.items()}
            )
            log_joint = draws.log_p().double()
            log_prior = draws.log_p(lambda site: site["name"] in supports).double()
            log_p = log_p.logaddexp(log_joint.logsumexp(0))
            log_prior_mass = log_prior_mass.logaddexp(log_prior.expand_as(log_joint).logsumexp(0))
    if not (log_prior_mass.abs() < 1e-4).all():  # the prior probabilities have to sum to one
        raise InputError(
            "the possible values of one latent site depend on another site: some are missing",
            "model",
        )
    return log_p


def _values_of_site(name: str, site: Site, plate: str | None, max_values: int) -> Tensor:
    """Return all values of a site for one example, in all its other plates together.

    Returns:
        Values of shape [count, *batch, *event]. All examples have the same.
    """
    values = _all_values(name, site["fn"], max_values)
    batch, axis = [*site["fn"].batch_shape], axis_of_examples(site, plate)
    examples = 1
    if axis is not None:
        examples, batch[axis] = batch[axis], 1
    variables = math.prod(batch)
    if len(values) ** variables > max_values:
        raise _too_many(len(values) ** variables, max_values)
    event = values.shape[1:]
    if variables > 1:
        values = _combinations(values, variables)
    values = values.reshape(-1, *batch, *event)
    if axis is None:
        return values
    sizes = [*values.shape]
    sizes[1 + axis] = examples
    return values.expand(sizes)


def _combinations(values: Tensor, variables: int) -> Tensor:
    """Return all combinations of values of several variables, [count^variables, variables, ..]."""
    index = torch.cartesian_prod(*[torch.arange(len(values), device=values.device)] * variables)
    return values[index.reshape(-1, variables)]


def _too_many(values: int, max_values: int) -> InputError:
    return InputError(
        f"together the latent variables have {values} values, more than max_values={max_values}",
        "max_values",
    )


def _all_values(name: str, fn: Any, max_values: int) -> Tensor:
    """Return all values that a site can have, shape [count, *event]."""
    if isinstance(fn, torch.distributions.TransformedDistribution):
        values = _all_values(name, fn.base_dist, max_values)
        for transform in fn.transforms:
            values = transform(values)
        return values
    if isinstance(fn, torch.distributions.Independent):
        single = _all_values(name, fn.base_dist, max_values)
        variables = fn.event_shape.numel() // single[0].numel()
        if len(single) ** variables > max_values:
            raise _too_many(len(single) ** variables, max_values)
        return _combinations(single, variables).reshape(-1, *fn.event_shape)
    if not fn.has_enumerate_support:
        raise InputError(
            f"site '{name}' cannot be enumerated: {type(fn).__name__} is not finite", "model"
        )
    try:
        support: Tensor = fn.enumerate_support(expand=False)
    except NotImplementedError as error:
        raise InputError(
            f"the possible values of site '{name}' depend on another site, or on the example",
            "model",
        ) from error
    return support.reshape(-1, *fn.event_shape)
