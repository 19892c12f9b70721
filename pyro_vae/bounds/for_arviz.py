"""Draws from model and guide, and bounds, in the form that ArviZ takes."""

import math
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pyro
import torch
from pyro import poutine
from torch import Tensor

from pyro_vae.bounds.arviz_versions import load_arviz
from pyro_vae.bounds.khat import good_k
from pyro_vae.programs.random_streams import preserve_rng_state
from pyro_vae.programs.traces import (
    PARTICLES,
    Program,
    log_prob_per_example,
    plate_nesting,
    sample_sites,
    traces,
)

CHAINS = 4


def inference_data(
    model: Program,
    guide: Program,
    x: Tensor,
    num_draws: int = 25,
    *,
    khat: Tensor | None = None,
    plate: str = "data",
    seed: int = 0,
) -> Any:
    """Draw from model and guide, and label the draws for ArviZ.

    Args:
        model: a Pyro program, called as `model(x)`.
        guide: a Pyro program, called as `guide(x)`.
        x: the examples, along the first dimension; every site has to be in the data plate.
        num_draws: the number of draws in each of four chains. All draws are independent. They are
            divided into chains only because ArviZ expects chains.
        khat: the Pareto k-hat of each example's weights, shape [len(x)], for `sample_stats`.
        plate: the name of the data plate.
        seed: the seed of the draws; the global random state is restored.

    Returns:
        `arviz.InferenceData` in ArviZ 0.x, `xarray.DataTree` in 1.x. The group `posterior` has
        draws from q(z|x). `sample_stats` has their log-weights log p(x, z) - log q(z|x), which
        correct them to draws from p(z|x), and `khat`. `log_likelihood` is log p(x|z) in nats,
        summed over the sites of an example. `posterior_predictive`, `prior`, `prior_predictive` and
        `observed_data` have their usual meaning. The data plate is the dimension `example`.
    """
    import xarray

    arviz, old = load_arviz()
    nesting = plate_nesting(model, guide, x)
    particles = pyro.plate(PARTICLES, CHAINS * num_draws, dim=-1 - nesting)
    many = particles(model)
    with torch.no_grad(), preserve_rng_state(x):
        torch.manual_seed(seed)
        joint, q = traces(many, particles(guide), x)
        replayed = poutine.uncondition(poutine.replay(many, trace=q))
        predictive = poutine.trace(replayed).get_trace(x)
        prior = poutine.trace(poutine.uncondition(many)).get_trace(x)
        log_w = log_prob_per_example(joint, plate, nesting + 1)
        log_w = log_w - log_prob_per_example(q, plate, nesting + 1)
        sites = sample_sites(joint)
        observed = {name: node for name, node in sites if node["is_observed"]}
        latent = [name for name, node in sites if not node["is_observed"]]
        for name in latent:
            joint.remove_node(name)
        log_likelihood = log_prob_per_example(joint, plate, nesting + 1)
    groups: dict[str, dict[str, np.ndarray]] = {
        "posterior": {name: _draws(q.nodes[name], plate) for name in latent},
        "sample_stats": {"log_weight": _in_chains(log_w.cpu().numpy())},
        "log_likelihood": {"log_p_x": _in_chains(log_likelihood.cpu().numpy())},
        "posterior_predictive": {n: _draws(predictive.nodes[n], plate) for n in observed},
        "prior": {name: _draws(prior.nodes[name], plate) for name in latent},
        "prior_predictive": {name: _draws(prior.nodes[name], plate) for name in observed},
        "observed_data": {n: _by_example(node, plate, 0) for n, node in observed.items()},
    }
    dims = {"log_weight": ["example"], "log_p_x": ["example"]}
    for name, values in {**groups["prior"], **groups["prior_predictive"]}.items():
        dims[name] = ["example", *(f"{name}_dim_{d}" for d in range(values.ndim - 3))]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        data = arviz.from_dict(**groups, dims=dims) if old else arviz.from_dict(groups, dims=dims)
    if khat is not None:
        data["sample_stats"]["khat"] = xarray.DataArray(khat.cpu().numpy(), dims="example")
    return data


def _by_example(node: dict[str, Any], plate: str, first: int) -> np.ndarray:
    """Return the values of a site, with the data plate's dimension moved to `first`."""
    value = node["value"]
    (dim,) = (f.dim for f in node["cond_indep_stack"] if f.vectorized and f.name == plate)
    return value.movedim(value.dim() - node["fn"].event_dim + dim, first).cpu().numpy()


def _draws(node: dict[str, Any], plate: str) -> np.ndarray:
    """Return the values of a site, shape [chain, draw, example, ...]."""
    return _in_chains(_by_example(node, plate, 1))


def _in_chains(values: np.ndarray) -> np.ndarray:
    return values.reshape(CHAINS, -1, *values.shape[1:])


def save(data: Any, path: Path) -> None:
    """Write the result of `inference_data` as NetCDF, for `arviz.from_netcdf`.

    The file is either complete or not there.
    """
    unfinished = path.with_name(f".{path.name}.unfinished")
    try:
        data.to_netcdf(str(unfinished), engine="h5netcdf")
        unfinished.replace(path)
    finally:
        unfinished.unlink(missing_ok=True)


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
