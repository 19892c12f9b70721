"""Exact log p(x), where it can be computed: by quadrature, in closed form, by enumeration.

Each function checks the conditions under which its result is exact.
"""

import math
from typing import Any

import pyro
import torch
from pyro import poutine
from pyro.distributions import SineBivariateVonMises, SineSkewed, VonMises
from torch import Tensor
from torch.distributions import biject_to
from torch.distributions.transforms import Transform

from pyro_vae.bounds.densities import Densities, prior_of
from pyro_vae.errors import InputError
from pyro_vae.programs.arguments import Arguments
from pyro_vae.programs.looking import look_at
from pyro_vae.programs.pair import Draws, Pair
from pyro_vae.programs.random_streams import preserve_rng_state
from pyro_vae.programs.sites import base
from pyro_vae.programs.traces import PARTICLES, Program, Site, plates, sample_sites

MAX_BATCH = 200_000  # pairs of a latent value and an example that are decoded at once
CIRCULAR = (VonMises, SineBivariateVonMises, SineSkewed)  # angles: their supports are called real


def quadrature(
    model: Program,
    x: Any,
    *,
    site: str | None = None,
    plate: str | None = None,
    vectorize: bool | None = None,
    half_width: float | None = None,
    points: int = 400,
    tolerance: float = 1e-3,
) -> Tensor:
    """Integrate a latent variable of one or two dimensions out, by the trapezoid rule.

    The grid is in unconstrained coordinates u: a positive z is exp(u), and so on, by the bijections
    that PyTorch registers. Angles have a grid of the circle. For smooth integrands that vanish at
    the boundary, or are periodic, the rule converges faster than any power of the spacing. These
    conditions are checked, so the result can be taken as exact.

    Args:
        model: a Pyro program with one latent site, of one or two dimensions for each example.
        x: the data, which the model is called with: a tensor, a tuple, which is spread into
            positional arguments, or `Arguments`.
        site: the name of the latent site; by default the only one.
        plate: the name of the plate of the examples; by default it is found.
        vectorize: whether to run the model with many points of the grid at once; by default if the
            model allows it.
        half_width: half the width of the grid, [-half_width, half_width] in each dimension of u. By
            default 6 for real values, and 12 for others, since densities of log z and the like have
            longer tails.
        points: the number of grid points in each dimension.
        tolerance: the largest difference, in nats, from the result on every second point.

    Returns:
        log p(x_i) in nats, `float64`, shape [N]. If some site is outside the plate of the examples,
        N is one, and this is the log p of all data together.

    Raises:
        InputError: if there is another latent site, or this one has more than two dimensions, or a
            support without unconstrained coordinates, or the grid is too narrow or too coarse.
    """
    arguments = Arguments.of(x)
    pair = look_at(model, prior_of(model), arguments, plate=plate, vectorize=vectorize)
    with torch.no_grad(), preserve_rng_state(arguments):
        grid = _Grid(pair, arguments, site)
        if half_width is None:
            half_width = 6.0 if grid.is_real else 12.0
        if grid.is_circular:
            half_width, points = math.pi, points + (points % 2 == 0)
        line = torch.linspace(-half_width, half_width, points, device=grid.device, dtype=grid.dtype)
        index = torch.cartesian_prod(*[torch.arange(points, device=grid.device)] * grid.dims)
        index = index.reshape(-1, grid.dims)
        margin = max(1, points // 20)
        everywhere = torch.ones(len(index), dtype=torch.bool, device=grid.device)
        every_second = (index % 2 == 0).all(1)
        at_the_edge = ~((index >= margin) & (index < points - margin)).all(1)
        subsets = (everywhere, every_second, at_the_edge)
        log_sums = [torch.tensor(-math.inf, dtype=torch.float64, device=grid.device)] * 3
        at_once = max(1, MAX_BATCH // max(1, len(arguments)))
        for part in torch.arange(len(index), device=grid.device).split(at_once):
            log_joint = grid.log_joint(line[index[part]])
            if grid.is_circular:  # both ends are the same point
                ends = (index[part] == 0) | (index[part] == points - 1)
                log_joint = log_joint - math.log(2) * ends.sum(1, keepdim=True)
            for i, subset in enumerate(subsets):
                log_sums[i] = log_sums[i].logaddexp(log_joint[subset[part]].logsumexp(0))
    log_volume = grid.dims * math.log(2 * half_width / (points - 1))
    log_p, coarse, edge = (log_sum + log_volume for log_sum in log_sums)
    coarse = coarse + grid.dims * math.log(2)
    if not grid.is_circular and not (edge - log_p).max() <= math.log(tolerance):
        raise InputError(
            f"the posterior reaches the edge of the grid: half_width has to be above {half_width}",
            "half_width",
        )
    if not (coarse - log_p).abs().max() <= tolerance:
        raise InputError(
            f"a grid of {points} points is too coarse: the posterior is narrower", "points"
        )
    return log_p


class _Grid:
    """The unconstrained coordinates of a model's one latent site.

    Args:
        pair: the model, with its prior as the guide.
        arguments: what the model is called with.
        name: the name of the latent site; None for the only one.

    Raises:
        InputError: if there is another latent site, or this one cannot be integrated out.
    """

    def __init__(self, pair: Pair, arguments: Arguments, name: str | None) -> None:
        self.pair = pair
        self.arguments = arguments
        sites = _latent_sites(pair.model, arguments)
        if len(sites) != 1 or name not in (None, *sites):
            wanted = "" if name is None else f", '{name}'"
            raise InputError(
                f"quadrature is for one latent site{wanted}, and the model has {list(sites)}",
                "model" if name is None else "site",
            )
        ((self.name, site),) = sites.items()
        fn, value = site["fn"], site["value"]
        if fn.support.is_discrete:
            raise InputError(f"site '{self.name}' is discrete: use enumeration", "model")
        self.transform = _bijection(self.name, fn)
        self.is_circular = isinstance(base(fn), CIRCULAR)
        u = self.transform.inv(value)
        self.is_real = bool((u.shape == value.shape) and (u == value).all())
        self.axis = _axis(site, pair.plate)
        self.shape = [*u.shape]
        self.examples = 1
        if self.axis is not None:
            self.examples, self.shape[self.axis] = self.shape[self.axis], 1
        self.dims = math.prod(self.shape)
        if self.dims not in (1, 2):
            raise InputError(
                f"site '{self.name}' has {self.dims} dimensions: quadrature is for one or two "
                "dimensions",
                "model",
            )
        self.dtype, self.device = value.dtype, value.device
        self.batch_dims = {self.name: len(fn.batch_shape)}
        # A value that all examples share is decoded once, if the model broadcasts it.
        self.share = False
        self.share = pair.vectorize and self._may_share()

    def log_joint(self, points: Tensor) -> Tensor:
        """Return log p(x, z) + log |dz/du| at points u, shape [points, dims], for each example.

        Returns:
            Nats, `float64`, shape [points, N].
        """
        u = points.reshape(-1, *self.shape)
        z = self.transform(u)
        log_det = self.transform.log_abs_det_jacobian(u, z)
        if self.axis is None:
            log_det = log_det.reshape(len(u), -1, 1)
        else:
            log_det = log_det.movedim(1 + self.axis, -1)
            log_det = log_det.reshape(len(u), -1, log_det.shape[-1])
            if not self.share:
                sizes = [*z.shape]
                sizes[1 + self.axis] = self.examples
                z = z.expand(sizes)
        log_p = _conditioned(self.pair, self.arguments, {self.name: z}, self.batch_dims).log_p()
        return log_p.double() + log_det.sum(1).double()

    def _may_share(self) -> bool:
        """Return whether the model gives the same log p for one value as for its copies."""
        points = torch.randn(2, self.dims, dtype=self.dtype, device=self.device)
        copied = self.log_joint(points)
        self.share = True
        try:
            shared = self.log_joint(points)
        except Exception:  # programs raise errors of any type
            return False
        return shared.shape == copied.shape and torch.allclose(shared, copied, 1e-5, 1e-5)


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
        sites = _latent_sites(model, arguments)
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
            draws = _conditioned(
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


def _latent_sites(model: Program, arguments: Arguments) -> dict[str, Site]:
    """Return the latent sites of a model, which are not masked.

    Raises:
        InputError: if one is masked.
    """
    trace = arguments.call(poutine.trace(model).get_trace)
    sites = {name: site for name, site in sample_sites(trace) if not site["is_observed"]}
    for name, site in sites.items():
        if site["mask"] is not None and site["mask"] is not True:
            raise InputError(f"site '{name}' is masked: its density has no integral", "model")
    return sites


def _axis(site: Site, plate: str | None) -> int | None:
    """Return the dimension of the examples in the batch shape of a site; None if there is none."""
    dims = [frame.dim for frame in plates(site) if frame.name == plate]
    return len(site["fn"].batch_shape) + dims[0] if dims else None


def _bijection(name: str, fn: Any) -> Transform:
    """Return the bijection from unconstrained coordinates to the support of a site."""
    try:
        return biject_to(fn.support)
    except NotImplementedError as error:
        raise InputError(
            f"site '{name}' is in {fn.support}, for which there are no unconstrained coordinates",
            "model",
        ) from error


def _conditioned(
    pair: Pair, arguments: Arguments, values: dict[str, Tensor], batch_dims: dict[str, int]
) -> Draws:
    """Run a model with given values of all its latent sites.

    Args:
        pair: the model, with its prior as the guide.
        arguments: what it is called with.
        values: the values of each site, [P, *batch, *event], one for each run.
        batch_dims: the number of batch dimensions of each site.

    Raises:
        InputError: if the model has other latent sites, for some of the values.
    """
    count = len(next(iter(values.values())))
    if pair.vectorize:
        padded = {
            name: value.reshape(count, *[1] * (pair.nesting - batch_dims[name]), *value.shape[1:])
            for name, value in values.items()
        }
        particles = pyro.plate(PARTICLES, count, dim=-1 - pair.nesting)
        programs = [particles(poutine.condition(pair.model, padded))]
    else:
        programs = [
            poutine.condition(pair.model, {name: value[k] for name, value in values.items()})
            for k in range(count)
        ]
    runs = [(arguments.call(poutine.trace(run).get_trace), poutine.Trace()) for run in programs]
    draws = Draws(pair, arguments, runs, int(pair.vectorize))
    for site in draws.sites(model=True):
        if not site["is_observed"]:
            raise InputError(
                f"site '{site['name']}' exists for some values of other sites only, and is not "
                "integrated out",
                "model",
            )
    return draws


def _values_of_site(name: str, site: Site, plate: str | None, max_values: int) -> Tensor:
    """Return all values of a site for one example, in all its other plates together.

    Returns:
        Values of shape [count, *batch, *event]. All examples have the same.
    """
    values = _all_values(name, site["fn"], max_values)
    batch, axis = [*site["fn"].batch_shape], _axis(site, plate)
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
    return fn.enumerate_support(expand=False).reshape(-1, *fn.event_shape)
