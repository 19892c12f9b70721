"""The sites of a model and its guide: what each is for, and whether a bound follows from them."""

import itertools
from typing import Any

import torch
from pyro import poutine
from pyro.distributions import Delta, ImproperUniform, Unit
from pyro.distributions.constraints import sphere
from torch import Tensor

from pyro_vae.errors import InputError
from pyro_vae.programs.arguments import Arguments
from pyro_vae.programs.masks import draws_that_count
from pyro_vae.programs.traces import Site, plates, sample_sites


def check_latent_sites(
    model: poutine.Trace,
    guide: poutine.Trace,
    summed_out: frozenset[str],
    *,
    factors: bool = False,
) -> None:
    """Check that model and guide have the same latent sites, and that these have densities.

    Args:
        model: a trace of the model.
        guide: a trace of the guide, with the same values.
        summed_out: the names of sites that are summed out, which the guide need not have.
        factors: whether the guide may have `pyro.factor`.

    Raises:
        InputError: if a site is missing on one side, has no density, or has another shape in the
            guide than in the model.
    """
    latent = {name: site for name, site in sample_sites(model) if not site["is_observed"]}
    guided = dict(sample_sites(guide))
    for name in latent.keys() - guided.keys() - summed_out:
        if latent[name]["infer"].get("enumerate") == "sequential":
            raise InputError(
                f"At site '{name}', model-side sequential enumeration is not implemented: mark it "
                "for parallel enumeration, or give the guide this site",
                "model",
            )
        raise InputError(f"the guide has no site '{name}', which the model samples", "guide")
    for name, site in guided.items():
        auxiliary = site["infer"].get("is_auxiliary")
        if isinstance(base(site["fn"]), Unit):
            _check_factor(name, base(site["fn"]), factors)
            continue
        if (name not in latent and not auxiliary) or site["is_observed"]:
            raise InputError(
                f"the guide's site '{name}' is not a latent site of the model, and is not marked "
                "as auxiliary",
                "guide",
            )
    for name, site in latent.items():
        fn = base(site["fn"])
        if isinstance(fn, ImproperUniform | Unit):
            raise InputError(
                f"the model's site '{name}' has no normalised density ({type(fn).__name__}), and "
                "so log p(x) does not exist: give it a proper prior",
                "model",
            )
        point = isinstance(fn, Delta) and name in guided
        if point and not isinstance(base(guided[name]["fn"]), Delta):
            raise InputError(
                f"the model's site '{name}' is a Delta, which has no density: use "
                "pyro.deterministic",
                "model",
            )
        if name in guided:
            _check_shapes(name, site, guided[name])
            _check_measure(name, site, guided[name])


def _check_factor(name: str, unit: Unit, allowed: bool) -> None:
    """Check a `pyro.factor` of the guide."""
    if not allowed:
        raise InputError(
            f"the guide's factor '{name}' is not a density, so it gives no bound: leave it out",
            "guide",
        )
    if "has_rsample" not in vars(unit):
        raise InputError(
            f"the guide's factor '{name}' is missing specification of has_rsample: set it to True "
            "if it comes from reparameterised values, and otherwise to False",
            "guide",
        )


def _check_shapes(name: str, model_site: Site, guide_site: Site) -> None:
    """Check that a site has the same shape in both programs, up to dimensions of size 1."""
    one, other = ([*site["fn"].batch_shape] for site in (model_site, guide_site))
    dims = max(len(one), len(other))
    padded = [[1] * (dims - len(shape)) + shape for shape in (one, other)]
    events = [site["fn"].event_dim for site in (model_site, guide_site)]
    if events[0] != events[1]:
        raise InputError(
            f"Model and guide event_dims disagree at site '{name}': {events[0]} in the model, "
            f"{events[1]} in the guide",
            "guide",
        )
    if model_site["fn"].event_shape != guide_site["fn"].event_shape or padded[0] != padded[1]:
        shapes = [list(site["fn"].shape()) for site in (model_site, guide_site)]
        raise InputError(
            f"Model and guide shapes disagree at site '{name}': {shapes[0]} in the model, "
            f"{shapes[1]} in the guide",
            "guide",
        )


def _check_measure(name: str, model_site: Site, guide_site: Site) -> None:
    """Check that the densities of a site refer to the same measure in both programs.

    A point of the guide is looked at elsewhere.
    """
    if isinstance(base(guide_site["fn"]), Delta):
        return
    kinds = [_measure(site["fn"]) for site in (model_site, guide_site)]
    if kinds[0] != kinds[1]:
        raise InputError(
            f"site '{name}' is {kinds[0]} in the model, and {kinds[1]} in the guide: the two "
            "densities cannot be compared",
            "guide",
        )


def _measure(fn: Any) -> str:
    """Return what kind of values a distribution has."""
    try:
        support = fn.support
    except NotImplementedError:
        return "continuous"
    if support.is_discrete:
        return "discrete"
    while hasattr(support, "base_constraint"):
        support = support.base_constraint
    return "on a sphere" if isinstance(support, type(sphere)) else "continuous"


def computed_sites(model: poutine.Trace, guide: poutine.Trace) -> list[str]:
    """Return the names of the guide's `Delta` sites for continuous latent variables.

    A point that is one of the values of a discrete variable has a probability, and needs no care.
    """
    sites = dict(sample_sites(model))
    return [
        name
        for name, site in sample_sites(guide)
        if isinstance(base(site["fn"]), Delta)
        and name in sites
        and not isinstance(base(sites[name]["fn"]), Delta)
        and not sites[name]["fn"].support.is_discrete
    ]


def auxiliary_sites(guide: poutine.Trace) -> list[str]:
    """Return the names of the guide's sites that are not latent sites of the model.

    Raises:
        InputError: if one of them is discrete.
    """
    names = []
    for name, site in sample_sites(guide):
        if site["infer"].get("is_auxiliary") and not isinstance(base(site["fn"]), Unit):
            names.append(name)
            if site["fn"].support.is_discrete:
                raise InputError(
                    f"the guide's auxiliary site '{name}' is discrete: no density follows for the "
                    "latent variables that are computed from it",
                    "guide",
                )
    return names


def base(distribution: Any) -> Any:
    """Return what a distribution is without masks, expansions and independent dimensions."""
    while hasattr(distribution, "base_dist") and not hasattr(distribution, "transforms"):
        distribution = distribution.base_dist
    return distribution


def check_values(model: poutine.Trace, first: int = 0) -> None:
    """Check that all observed values are in the support of what observes them.

    Args:
        model: a trace of the model.
        first: the number of the first example, for the message.

    Raises:
        InputError: with the site, and one of the values that are not.
    """
    for name, site in sample_sites(model):
        value, fn = site["value"], site["fn"]
        if not site["is_observed"] or not isinstance(value, Tensor) or isinstance(base(fn), Unit):
            continue
        try:
            valid = fn.support.check(value)
        except NotImplementedError:  # the distribution says nothing about its support
            continue
        count = draws_that_count(site)
        if count is not None:
            valid = valid | ~count
        if not valid.all():
            wrong = value[~valid.expand(value.shape[: valid.dim()])] if valid.dim() else value
            raise InputError(
                f"site '{name}' observes {wrong.flatten()[0]:g}, which is not in the support of "
                f"its distribution, {type(base(fn)).__name__}: {fn.support}",
                "x",
            )


def check_precision(trace: poutine.Trace) -> None:
    """Refuse log-probabilities in half precision, which have two or three digits.

    Args:
        trace: a trace whose log-probabilities have been computed.

    Raises:
        InputError: with the first site that has them.
    """
    for name, site in sample_sites(trace):
        log_prob = site["unscaled_log_prob"]
        if isinstance(log_prob, Tensor) and log_prob.dtype in (torch.bfloat16, torch.float16):
            raise InputError(
                f"the log-probabilities of site '{name}' are in {log_prob.dtype}, which is too "
                "coarse for a bound: convert the data and the programs to float32",
                "x",
            )


def plate_of_examples(
    sites: list[tuple[str, Site]],
    arguments: Arguments,
    wanted: str | None = None,
    *,
    any_will_do: bool = False,
) -> str | None:
    """Return the name of the plate of the examples, which all sites are in.

    Args:
        sites: the sites of both programs.
        arguments: what the programs were called with.
        wanted: the name that the caller gave, or None.
        any_will_do: whether the caller sums over all plates in the end.

    Returns:
        The name that was given; or else the only plate that all sites share; or else, of several,
        the one with the size of the first dimension of an argument, or the outermost if any will
        do. None if no such plate holds the examples: some site is outside all plates, or model and
        guide name the plate of the examples differently.

    Raises:
        InputError: if it cannot be told which of several plates it is.
    """
    if wanted is not None or not sites:
        return wanted
    sizes: dict[str, set[int]] = {}
    for _, site in sites:
        for frame in plates(site):
            of_plate = sizes.setdefault(frame.name, set())
            of_plate.update(int(n) for n in (frame.size, frame.full_size) if n is not None)
    shared = [
        name
        for name in (frame.name for frame in plates(sites[0][1]))
        if all(name in {frame.name for frame in plates(site)} for _, site in sites)
    ]
    count = len(arguments)
    fits = [name for name in shared if count in sizes[name]]
    if not shared or (len(shared) == 1 and _is_inside(shared[0], count, sites)):
        return None
    if not fits and any(count in sizes[name] for name in sizes.keys() - {*shared}):
        return None  # the examples are in plates of other names
    if len(shared) == 1:
        return shared[0]
    if any_will_do:
        return (fits or shared)[0]
    lengths = {len(tensor) for tensor in arguments.tensors() if tensor.dim()}
    possible = [name for name in shared if lengths & sizes[name] or sizes[name] <= {-1}]
    if len(possible) == 1:
        return possible[0]
    raise InputError(
        f"the plate of the examples may be '{shared[0]}' or '{shared[1]}', since all sites are in "
        "both: name it by plate",
        "plate",
    )


def _is_inside(name: str, size: int, sites: list[tuple[str, Site]]) -> bool:
    """Return whether a plate is inside another one of this size, in some site."""
    for _, site in sites:
        outer = itertools.takewhile(lambda frame: frame.name != name, plates(site))
        if any(size in (frame.size, frame.full_size) for frame in outer):
            return True
    return False
