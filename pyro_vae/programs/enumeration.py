"""Discrete sites that are marked for enumeration, summed out of a model exactly.

Pyro runs such a site once, with all its values in a dimension of its own, left of all plates
(`poutine.enum`). The sum over the values is then a contraction of the log-probabilities, which
takes plates into account: a variable outside a plate is summed after the product over the plate.
"""

from collections import OrderedDict

from pyro import poutine
from pyro.ops.contract import contract_tensor_tree
from pyro.ops.packed import scale_and_mask, unpack
from torch import Tensor

from pyro_vae.errors import InputError
from pyro_vae.programs.traces import plates, sample_sites


def enumerated_sites(trace: poutine.Trace) -> list[str]:
    """Return the names of the latent sites of a trace that are marked for parallel enumeration."""
    return [
        name
        for name, site in sample_sites(trace)
        if not site["is_observed"] and site["infer"].get("enumerate") == "parallel"
    ]


def is_enumerated(guide: poutine.Trace) -> bool:
    """Return whether a site of a guide is marked for enumeration, or for several local samples."""
    return any(
        not site["is_observed"] and site["infer"].get("enumerate")
        for _, site in sample_sites(guide)
    )


def check_summed_out(trace: poutine.Trace, names: frozenset[str]) -> None:
    """Refuse sites that are marked for a number of samples, whose sum is not the exact one.

    Args:
        trace: a trace of the model.
        names: the names of the sites that are to be summed out.

    Raises:
        InputError: if there is such a site.
    """
    for name in sorted(names):
        if trace.nodes[name]["infer"].get("num_samples"):
            raise InputError(
                f"the model's site '{name}' is marked for enumeration with num_samples, which is "
                "not an exact sum: leave num_samples out, or give the guide this site",
                "model",
            )


def without_enumeration(trace: poutine.Trace) -> poutine.Trace:
    """Copy a trace, without what an earlier enumeration noted at its sites.

    Pyro gives replayed sites the same notes, and the next enumeration would add its own to them.
    """
    copy = trace.copy()
    for name, site in sample_sites(trace):
        kept = {k: v for k, v in site["infer"].items() if not k.startswith(("_dim", "_enumerate"))}
        copy.nodes[name] = {**site, "infer": kept}
    return copy


def log_prob_summed_out(
    trace: poutine.Trace, names: frozenset[str], keep: frozenset[str]
) -> list[Tensor]:
    """Sum enumerated sites out of the log-probability of a model.

    Args:
        trace: the trace of a model that ran under `poutine.enum`.
        names: the names of the enumerated sites.
        keep: the names of plates that every site is in. Nothing is summed over them.

    Returns:
        The terms of the log-probability, in nats. The dimensions of plates are in their usual
        places, and those of plates that are not in `keep` are still to be added up. Scales do not
        count: they would be inside the logarithm of a sum.
    """
    trace.compute_log_prob()
    trace.pack_tensors()
    factors: OrderedDict[frozenset[str], list[Tensor]] = OrderedDict()
    for name, site in sample_sites(trace):
        symbols = frozenset(
            trace.plate_to_symbol[frame.name] for frame in plates(site) if frame.name not in keep
        )
        packed = site["packed"]
        # The probabilities of a site that is masked and summed out still add up to one.
        mask = None if name in names else packed["mask"]
        log_prob = scale_and_mask(packed["unscaled_log_prob"], mask=mask)
        factors.setdefault(symbols, []).append(log_prob)
    summed = {trace.nodes[name]["infer"]["_enumerate_symbol"] for name in names}
    return [
        unpack(term, trace.symbol_to_dim)
        for terms in contract_tensor_tree(factors, summed).values()
        for term in terms
    ]
