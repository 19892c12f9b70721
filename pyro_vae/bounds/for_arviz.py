"""Draws from model and guide, and bounds, in the form that ArviZ takes."""

import math
import os
import warnings
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyro
import torch
from pyro import poutine
from pyro.distributions import Unit
from pyro.infer import infer_discrete
from torch import Tensor

from pyro_vae import checkpoint
from pyro_vae.bounds.arviz_versions import load_arviz
from pyro_vae.bounds.khat import good_k
from pyro_vae.errors import InputError
from pyro_vae.programs.agreement import between_particles
from pyro_vae.programs.arguments import Arguments
from pyro_vae.programs.looking import look_at
from pyro_vae.programs.pair import Draws, Pair
from pyro_vae.programs.random_streams import preserve_rng_state
from pyro_vae.programs.site_values import by_example
from pyro_vae.programs.sites import base
from pyro_vae.programs.traces import (
    PARTICLES,
    Program,
    Site,
    is_latent,
    is_observed,
    log_prob_per_example,
    plates,
    sample_sites,
)

CHAINS = 4
LAYOUT = 2**20  # bytes; what a file has beside its numbers is less


def inference_data(
    model: Program,
    guide: Program,
    x: Any,
    num_draws: int = 25,
    *,
    khat: Tensor | None = None,
    plate: str | None = None,
    vectorize: bool | None = None,
    seed: int = 0,
) -> Any:
    """Draw from model and guide, and label the draws for ArviZ.

    Args:
        model: a Pyro program.
        guide: a Pyro program, the model's guide.
        x: the data, which both programs are called with: a tensor, a tuple, which is spread into
            positional arguments, or `Arguments`. All examples are taken at once.
        num_draws: the number of draws in each of four chains. All draws are independent. They are
            divided into chains only because ArviZ expects chains.
        khat: the Pareto k-hat of each example's weights, shape [N], for `sample_stats`.
        plate: the name of the plate of the examples; by default it is found.
        vectorize: whether to make all draws at once; by default if the programs allow it.
        seed: the seed of the draws; the global random state is restored.

    Returns:
        `arviz.InferenceData` in ArviZ 0.x, `xarray.DataTree` in 1.x. The group `posterior` has
        draws from q(z|x). `sample_stats` has their log-weights log p(x, z) - log q(z|x), which
        correct them to draws from p(z|x), and `khat`. `log_likelihood` is log p(x|z) in nats: the
        sum of an example's sites that are not latent, factors included. `posterior_predictive`,
        `prior`, `prior_predictive` and `observed_data` have their usual meaning; factors have no
        values and are not in them.

        The plate of the examples is the dimension `example`; the dimensions of other plates and of
        events follow it. If some site is outside the plate of the examples, all data together are
        a single example, and each site has the dimensions of its plates and events alone. Discrete
        sites that are summed out of the log-weights are drawn from their distribution given x and
        the other latent values. Real values that a mask takes out are NaN. A "/" in the name of a
        site becomes a ".", because files cannot have it.

    Raises:
        InputError: if no bound follows from the programs, or a site has other shapes in other runs.
    """
    import xarray

    arviz, old = load_arviz()
    arguments = Arguments.of(x)
    pair = look_at(model, guide, arguments, plate=plate, vectorize=vectorize)
    pair = _as_data_can_be_drawn(pair, arguments)
    many = pair.model
    if pair.vectorize:
        many = pyro.plate(PARTICLES, CHAINS * num_draws, dim=-1 - pair.nesting)(many)
    with torch.no_grad(), preserve_rng_state(arguments):
        torch.manual_seed(seed)
        draws = pair.draw(arguments, CHAINS * num_draws)
        log_w = draws.log_p() - draws.log_q()
        joint = _with_discrete_sites(many, draws)
        predictive = [
            _run(poutine.uncondition(poutine.replay(many, trace=trace)), arguments)
            for trace in joint
        ]
        prior = [_run(poutine.uncondition(many), arguments) for _ in joint]
        log_likelihood = [
            log_prob_per_example(trace, pair.plate, draws.batch_dims, is_observed)
            for trace in joint
        ]
    log_p_x = log_likelihood[0] if draws.batch_dims else torch.stack(log_likelihood)
    sites = [
        (name, site)
        for name, site in sample_sites(joint[0])
        if not isinstance(base(site["fn"]), Unit)
    ]
    latent = [name for name, site in sites if is_latent(site)]
    observed = [name for name, site in sites if is_observed(site)]
    data = {name: _values(joint, name, draws) for name in observed}
    posterior = {name: _values(joint, name, draws) for name in latent}
    groups: dict[str, dict[str, np.ndarray]] = {
        "posterior": _in_chains(posterior),
        "sample_stats": _in_chains({"log_weight": log_w.cpu().numpy()}),
        "log_likelihood": _in_chains({"log_p_x": log_p_x.cpu().numpy()}),
        "posterior_predictive": _in_chains({n: _values(predictive, n, draws) for n in observed}),
        "prior": _in_chains({name: _values(prior, name, draws) for name in latent}),
        "prior_predictive": _in_chains({n: _values(prior, n, draws) for n in observed}),
        "observed_data": {
            _label(name): values[0] for name, values in data.items() if _is_constant(values)
        },
    }
    dims = {"log_weight": ["example"], "log_p_x": ["example"]}
    for name, site in sites:
        if any(frame.name == pair.plate for frame in plates(site)):
            others = (posterior | data)[name].ndim - 2
            dims[_label(name)] = ["example", *(f"{_label(name)}_dim_{d}" for d in range(others))]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        result = arviz.from_dict(**groups, dims=dims) if old else arviz.from_dict(groups, dims=dims)
    if khat is not None:
        result["sample_stats"]["khat"] = xarray.DataArray(khat.cpu().numpy(), dims="example")
    return result


def _as_data_can_be_drawn(pair: Pair, arguments: Arguments) -> Pair:
    """Return the pair, without vectorisation if draws of the data do not allow it.

    `look_at` has compared log-probabilities of the data that are given. Where sites depend on the
    data before them, drawn data have a dimension for the draws, and given data have not.
    """
    if not pair.vectorize:
        return pair
    program = poutine.uncondition(pair.model)
    with torch.no_grad(), preserve_rng_state(arguments):
        unconditioned = Pair(program, program, pair.plate, pair.nesting)
        reason = between_particles(unconditioned, arguments)
    if reason is None:
        return pair
    warnings.warn(
        "the programs run once for each draw, which is slower: they cannot draw several data sets "
        f"at once: {reason}",
        stacklevel=3,
    )
    return replace(pair, vectorize=False)


def _run(program: Program, arguments: Arguments) -> poutine.Trace:
    return arguments.call(poutine.trace(program).get_trace)


def _with_discrete_sites(many: Program, draws: Draws) -> list[poutine.Trace]:
    """Return the traces of the model, with draws of the sites that are summed out.

    Args:
        many: the model, in the plate of the draws if all are made at once.
        draws: the draws of the other latent sites.
    """
    pair = draws.pair
    if not pair.summed_out:
        return [model for model, _ in draws.runs]

    def mark(site: Site) -> dict[str, Any]:
        return {"enumerate": "parallel"} if site["name"] in pair.summed_out else {}

    marked = poutine.infer_config(many, mark)
    first_dim = -1 - pair.nesting - pair.vectorize
    return [
        _run(infer_discrete(poutine.replay(marked, trace=guide), first_dim), draws.arguments)
        for _, guide in draws.runs
    ]


def _values(traces: list[poutine.Trace], name: str, draws: Draws) -> np.ndarray:
    """Return the values of a site, shape [draws, example, other plates.., event..].

    There is no dimension of examples if the site is not in their plate.
    """
    values = []
    for trace in traces:
        if name not in trace.nodes:
            raise InputError(f"site '{name}' is missing in some runs of the programs", "model")
        values.append(by_example(trace.nodes[name], draws.pair.plate).cpu().numpy())
    if draws.batch_dims:
        return values[0]
    if len({value.shape for value in values}) > 1:
        raise InputError(f"site '{name}' has other shapes in other runs of the programs", "model")
    return np.stack(values)


def _is_constant(values: np.ndarray) -> bool:
    """Return whether observed values are the same in all draws, as data are."""
    first = np.broadcast_to(values[:1], values.shape)
    return bool(((values == first) | ((values != values) & (first != first))).all())


def _in_chains(group: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Return a group with draws divided into chains, [chain, draw, ..]."""
    return {
        _label(name): values.reshape(CHAINS, -1, *values.shape[1:])
        for name, values in group.items()
    }


def _label(name: str) -> str:
    return name.replace("/", ".")


def save(data: Any, path: Path) -> None:
    """Write the result of `inference_data` as NetCDF, for `arviz.from_netcdf`.

    The file is either complete or not there.

    Raises:
        OSError: if it cannot be written.
    """
    unfinished = path.with_name(f".{path.name}.unfinished")
    try:
        with checkpoint.naming(path):
            _reserve(unfinished, sum(each.nbytes for each in data.values()) + LAYOUT)
            data.to_netcdf(str(unfinished), engine="h5netcdf")
        unfinished.replace(path)
    finally:
        unfinished.unlink(missing_ok=True)


def _reserve(path: Path, size: int) -> None:
    """Raise an `OSError` if the disk has no space for a file: HDF5 may crash on a full disk."""
    if hasattr(os, "posix_fallocate"):
        with path.open("wb") as file:
            os.posix_fallocate(file.fileno(), 0, size)


def elpd_data(values: Tensor, khat: Tensor, num_samples: int) -> Any:
    """Return log p(x) of each example, or a bound on it, for `arviz.compare` and `arviz.plot_khat`.

    ArviZ expects sums over the examples, and the log density of each example given all others
    (leave-one-out). Held-out examples need no such correction: their log p(x) takes its place.

    Args:
        values: log p(x_i) or a bound on it, in nats, shape [N].
        khat: the Pareto k-hat of each example's weights, shape [N].
        num_samples: the number of weights of each example.
    """
    import xarray

    arviz, old = load_arviz()
    pointwise = xarray.DataArray(values.cpu().numpy(), dims="example", name="elpd_i")
    khats = xarray.DataArray(khat.cpu().numpy(), dims="example", name="pareto_k")
    total, se = values.sum().item(), (values.std() * len(values) ** 0.5).item()
    good = good_k(num_samples)
    heavy = bool((khat > good).any())
    if old:
        fields = {
            "elpd_loo": total,
            "se": se,
            "p_loo": math.nan,
            "n_samples": num_samples,
            "n_data_points": len(values),
            "warning": heavy,
            "loo_i": pointwise,
            "pareto_k": khats,
            "scale": "log",
            "good_k": good,
        }
        return arviz.ELPDData(data=list(fields.values()), index=list(fields))
    from arviz_stats.utils import ELPDDataLOO

    return ELPDDataLOO(
        elpd=total,
        se=se,
        p=math.nan,
        n_samples=num_samples,
        n_data_points=len(values),
        scale="log",
        warning=heavy,
        good_k=good,
        elpd_i=pointwise,
        pareto_k=khats,
    )
