"""Exact log p(x) of models with one or two latent dimensions, by the trapezoid rule."""

import math
from typing import Any

import torch
from torch import Tensor

from pyro_vae.bounds.coordinates import bijection, is_circle
from pyro_vae.bounds.densities import prior_of
from pyro_vae.bounds.given_values import MAX_BATCH, axis_of_examples, latent_sites, with_latents
from pyro_vae.errors import InputError
from pyro_vae.programs.arguments import Arguments
from pyro_vae.programs.looking import look_at
from pyro_vae.programs.pair import Pair
from pyro_vae.programs.random_streams import preserve_rng_state
from pyro_vae.programs.traces import Program


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
        sites = latent_sites(pair.model, arguments)
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
        self.transform = bijection(self.name, fn)
        self.is_circular = is_circle(self.name, fn, value)
        u = self.transform.inv(value)
        self.is_real = bool((u.shape == value.shape) and (u == value).all())
        self.axis = axis_of_examples(site, pair.plate)
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
        # A value that all examples share is decoded once, if model and support allow it.
        self.share = False
        self.share = pair.vectorize and self._may_share()

    def log_joint(self, points: Tensor) -> Tensor:
        """Return log p(x, z) + log |dz/du| at points u, shape [points, dims], for each example.

        Returns:
            Nats, `float64`, shape [points, N].
        """
        u = points.reshape(-1, *self.shape)
        if self.axis is not None and not self.share:
            sizes = [*u.shape]
            sizes[1 + self.axis] = self.examples
            u = u.expand(sizes)
        z = self.transform(u)
        log_det = self.transform.log_abs_det_jacobian(u, z)
        if self.axis is None:
            log_det = log_det.reshape(len(u), -1, 1)
        else:
            log_det = log_det.movedim(1 + self.axis, -1)
            log_det = log_det.reshape(len(u), -1, log_det.shape[-1])
        log_p = with_latents(self.pair, self.arguments, {self.name: z}, self.batch_dims).log_p()
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
