"""Priors and posteriors run as Pyro programs: those of several layers draw sites of their own."""

from collections.abc import Mapping
from typing import Any, NamedTuple

import pyro
import torch
from torch import Tensor, nn

from pyro_vae.posteriors import Posterior
from pyro_vae.testing.subject import Subject, double_by_default


class Layers(NamedTuple):
    """The result of calling a prior or a posterior.

    Attributes:
        upper: the distributions of the layers above z, by the names of their sites; empty for most
            parts.
        values: the values of these sites.
        lower: the distribution of z.
    """

    upper: dict[str, Any]
    values: dict[str, Tensor]
    lower: Any


def call(part: nn.Module, *args: Tensor, values: Mapping[str, Tensor] | None = None) -> Layers:
    """Call a prior or a posterior, with given values at the sites that it would draw.

    Args:
        part: a prior or a posterior.
        args: what it is called with.
        values: values of layers by name. That of "z" matters for a posterior that draws upper
            layers after z.
    """
    program: Any = part.draw if isinstance(part, Posterior) else part
    trace = pyro.poutine.trace(pyro.poutine.condition(program, dict(values or {}))).get_trace(*args)
    sites = {name: site for name, site in trace.nodes.items() if site["type"] == "sample"}
    lower = sites.pop("z")["fn"] if isinstance(part, Posterior) else trace.nodes["_RETURN"]["value"]
    return Layers(
        {name: site["fn"] for name, site in sites.items()},
        {name: site["value"] for name, site in sites.items()},
        lower,
    )


def log_density(part: nn.Module, *args: Tensor, z: Tensor, values: Mapping[str, Tensor]) -> Tensor:
    """Return the log-density of all layers, with the same noise each time, in nats."""
    torch.manual_seed(7)
    layers = call(part, *args, values={**values, "z": z})
    total = layers.lower.log_prob(z)
    for name, distribution in layers.upper.items():
        total = total + distribution.log_prob(values[name])
    return total


def draw(distribution: Any, count: int) -> Tensor:
    """Draw without a gradient from a distribution in double precision."""
    with torch.no_grad(), double_by_default():
        return distribution.sample((count,))


def check_shapes(
    subject: Subject, distribution: Any, batch: tuple[int, ...], event: tuple[int, ...], what: str
) -> None:
    """Check the batch shape, the event shape, `sample`, `log_prob` and `expand`."""
    shapes = (tuple(distribution.batch_shape), tuple(distribution.event_shape))
    subject.require(
        shapes == (batch, event),
        f"{what} has batch shape {list(shapes[0])} and event shape {list(shapes[1])}, and "
        f"{list(batch)} and {list(event)} are expected: `to_event` moves dimensions from the first "
        "to the second",
    )
    samples = draw(distribution, 3)
    subject.require(
        samples.shape == (3, *batch, *event),
        f"three samples of {what} have shape {list(samples.shape)}, and not {[3, *batch, *event]}",
    )
    log_prob = distribution.log_prob(samples)
    subject.require(
        log_prob.shape == (3, *batch),
        f"log_prob of three samples of {what} has shape {list(log_prob.shape)}, and not "
        f"{[3, *batch]}",
    )
    subject.require(
        log_prob.isfinite().all(), f"log_prob of a sample of {what} is not a finite number"
    )
    expanded = distribution.expand(torch.Size((3, *batch)))
    subject.require(
        tuple(expanded.batch_shape) == (3, *batch)
        and expanded.log_prob(samples).shape == log_prob.shape
        and torch.allclose(expanded.log_prob(samples), log_prob),
        f"`expand` changes the density of {what}, or does not give the batch shape asked for",
    )


def check_codes(subject: Subject, z: Tensor, support: str | None, code: Tensor) -> None:
    """Check that samples lie in a part's `support`, and that the decoder can use them."""
    if support == "sphere":
        on_it = (z.norm(dim=-1) - 1).abs().max() < 1e-3
        subject.require(on_it, "support is 'sphere', and samples are not on the unit sphere")
    if support in ("binary", "categorical"):
        subject.require(
            ((z == 0) | (z == 1)).all(),
            f"support is '{support}', and in evaluation mode samples are not all 0 or 1",
        )
    subject.require(
        code.shape == z.shape and code.isfinite().all(),
        "`code` does not map samples to finite numbers of the same shape",
    )
