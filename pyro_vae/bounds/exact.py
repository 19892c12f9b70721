"""Exact log p(x), where it can be computed: by quadrature, in closed form, by enumeration.

Each function checks the conditions under which its result is exact.
"""

import math
from typing import Any

import pyro
import torch
from pyro import poutine
from torch import Tensor

from pyro_vae.bounds.densities import Densities, prior_of
from pyro_vae.errors import InputError
from pyro_vae.programs.arguments import Arguments
from pyro_vae.programs.looking import look_at
from pyro_vae.programs.random_streams import preserve_rng_state
from pyro_vae.programs.traces import PARTICLES, Program, log_prob_per_example, sample_sites

MAX_BATCH = 200_000  # pairs of a latent value and an example that are decoded at once


def quadrature(
    model: Program,
    x: Tensor,
    *,
    site: str = "z",
    plate: str = "data",
    half_width: float = 6.0,
    points: int = 400,
    tolerance: float = 1e-3,
) -> Tensor:
    """Integrate a latent variable of one or two dimensions out, by the trapezoid rule.

    For smooth integrands that vanish at the boundary the rule converges faster than any power of
    the spacing. Both conditions are checked, so the result can be taken as exact.

    Args:
        model: a Pyro program, called as `model(x)`, whose one latent site has event shape [1] or
            [2]. Every site has to be in the data plate, and there may be no other plate.
        x: the examples, along the first dimension.
        site: the name of the latent site.
        plate: the name of the data plate.
        half_width: half the width of the grid, [-half_width, half_width] in each dimension.
        points: the number of grid points in each dimension.
        tolerance: the largest difference, in nats, from the result on every second point.

    Returns:
        log p(x_i) in nats, `float64`, shape [len(x)].

    Raises:
        ValueError: if there is another latent site, or this one has more than two dimensions, or
            the grid is too narrow or too coarse for it.
    """
    with torch.no_grad(), preserve_rng_state(x):
        dims, dtype = _latent_dims(model, x[:1], site)
        line = torch.linspace(-half_width, half_width, points, device=x.device, dtype=dtype)
        index = torch.cartesian_prod(*[torch.arange(points, device=x.device)] * dims)
        index = index.reshape(-1, dims)
        everywhere = torch.ones(len(index), dtype=torch.bool, device=x.device)
        every_second = (index % 2 == 0).all(1)
        at_the_edge = ~((index > 0) & (index < points - 1)).all(1)
        subsets = (everywhere, every_second, at_the_edge)
        log_sums = [torch.full((len(x),), -math.inf, dtype=torch.float64, device=x.device)] * 3
        for part in torch.arange(len(index), device=x.device).split(max(1, MAX_BATCH // len(x))):
            z = line[index[part]][:, None, :]  # the same for all examples, and decoded once
            particles = pyro.plate(PARTICLES, len(part), dim=-2)
            trace = poutine.trace(particles(poutine.condition(model, {site: z}))).get_trace(x)
            log_joint = log_prob_per_example(trace, plate, 2).double()
            for i, subset in enumerate(subsets):
                log_sums[i] = log_sums[i].logaddexp(log_joint[subset[part]].logsumexp(0))
    log_volume = dims * math.log(2 * half_width / (points - 1))
    log_p, coarse, edge = (log_sum + log_volume for log_sum in log_sums)
    coarse = coarse + dims * math.log(2)
    if not (edge - log_p).max() <= math.log(tolerance):
        raise ValueError(
            f"the posterior reaches the edge of the grid: half_width has to be above {half_width}"
        )
    if not (coarse - log_p).abs().max() <= tolerance:
        raise ValueError(f"a grid of {points} points is too coarse: the posterior is narrower")
    return log_p


def _latent_dims(model: Program, x: Tensor, site: str) -> tuple[int, torch.dtype]:
    """Return how many dimensions a model's one latent site has, and its type."""
    nodes = dict(sample_sites(poutine.trace(model).get_trace(x)))
    latent = [name for name, node in nodes.items() if not node["is_observed"]]
    if latent != [site]:
        raise ValueError(f"quadrature is for one latent site, '{site}', and the model has {latent}")
    prior = nodes[site]["fn"]
    dims = prior.event_shape.numel()
    if prior.event_dim != 1 or dims > 2:
        raise ValueError(
            f"site '{site}' has event shape {list(prior.event_shape)}: quadrature is for one or "
            "two dimensions"
        )
    return dims, nodes[site]["value"].dtype


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
        InputError: if a latent site is discrete, or has a support without coordinates.
        ValueError: if the log-density is not quadratic, or has no maximum, or is not in double
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
        raise ValueError("single precision is not enough: convert the model and x to double")
    constant, gradient = at.log_p[0], at.grad_p[0]
    precision = (gradient - at.grad_p[1 : dims + 1]).movedim(0, 1)  # [N, D, D]
    expected = constant + (random * gradient).sum(-1)
    expected = expected - torch.einsum("knd,nde,kne->kn", random, precision, random) / 2
    actual = at.log_p[dims + 1 :]
    if not ((actual - expected).abs() <= tolerance * (1 + actual.abs())).all():
        raise ValueError("log p(x, z) is not quadratic in the latent variables")
    factor, failed = torch.linalg.cholesky_ex((precision + precision.mT) / 2)
    if failed.any():
        raise ValueError("log p(x, z) has no maximum in the latent variables")
    solved = torch.cholesky_solve(gradient[..., None], factor)[..., 0]
    log_det = 2 * factor.diagonal(dim1=-2, dim2=-1).log().sum(-1)
    return constant + (gradient * solved).sum(-1) / 2 + (dims * math.log(2 * math.pi) - log_det) / 2


def enumeration(
    model: Program, x: Tensor, *, plate: str = "data", max_values: int = 2**20
) -> Tensor:
    """Sum discrete latent variables out, over all combinations of their values.

    Args:
        model: a Pyro program, called as `model(x)`, whose latent sites are all discrete and in no
            plate but the data plate.
        x: the examples, along the first dimension.
        plate: the name of the data plate.
        max_values: the largest number of combinations that is accepted for one example.

    Returns:
        log p(x_i) in nats, `float64`, shape [len(x)].

    Raises:
        ValueError: if a latent site is not discrete, or is in another plate, or its possible values
            depend on the value of another site, or there are too many combinations.
    """
    with torch.no_grad(), preserve_rng_state(x):
        supports = {}
        for name, node in sample_sites(poutine.trace(model).get_trace(x[:1])):
            if not node["is_observed"]:
                frames = [frame.name for frame in node["cond_indep_stack"]]
                if frames != [plate]:
                    raise ValueError(f"site '{name}' has to be in the plate '{plate}' alone")
                supports[name] = _all_values(name, node["fn"], max_values)
        sizes = [len(values) for values in supports.values()]
        total = math.prod(sizes)
        if total > max_values:
            raise ValueError(_too_many(total, max_values))
        zero = torch.full((len(x),), -math.inf, dtype=torch.float64, device=x.device)  # log 0
        log_p, log_prior_mass = zero, zero
        for part in torch.arange(total, device=x.device).split(max(1, MAX_BATCH // len(x))):
            index = torch.unravel_index(part, sizes)
            values = {
                name: support[i][:, None].expand(-1, len(x), *support.shape[1:])
                for (name, support), i in zip(supports.items(), index, strict=True)
            }
            particles = pyro.plate(PARTICLES, len(part), dim=-2)
            trace = poutine.trace(particles(poutine.condition(model, values))).get_trace(x)
            log_joint = log_prob_per_example(trace, plate, 2).double()
            log_p = log_p.logaddexp(log_joint.logsumexp(0))
            for name, _ in sample_sites(trace):
                if name not in supports:
                    trace.remove_node(name)
            log_prior = log_prob_per_example(trace, plate, 2).double().expand_as(log_joint)
            log_prior_mass = log_prior_mass.logaddexp(log_prior.logsumexp(0))
    if not (log_prior_mass.abs() < 1e-4).all():  # the prior probabilities have to sum to one
        raise ValueError(
            "the possible values of one latent site depend on another site: some are missing"
        )
    return log_p


def _too_many(values: int, max_values: int) -> str:
    return f"together the latent variables have {values} values, more than max_values={max_values}"


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
            raise ValueError(_too_many(len(single) ** variables, max_values))
        index = torch.cartesian_prod(*[torch.arange(len(single), device=single.device)] * variables)
        return single[index.reshape(-1, variables)].reshape(-1, *fn.event_shape)
    if not fn.has_enumerate_support:
        raise ValueError(f"site '{name}' cannot be enumerated: {type(fn).__name__} is not finite")
    return fn.enumerate_support(expand=False).reshape(-1, *fn.event_shape)
