"""A model and its guide, and how the two may be run: what `look_at` found by running them once."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import pyro
import torch
from pyro import poutine
from pyro.distributions.util import scale_and_mask
from pyro.poutine.messenger import Messenger
from torch import Tensor

from pyro_vae.errors import InputError
from pyro_vae.programs.arguments import Arguments
from pyro_vae.programs.enumeration import log_prob_summed_out, without_enumeration
from pyro_vae.programs.masks import counted, mask_of
from pyro_vae.programs.traces import (
    PARTICLES,
    Program,
    Site,
    log_prob_per_example,
    per_example,
    plates,
    sample_sites,
    with_values,
)

Change = Callable[[Tensor], Tensor]
EvidenceOf = Literal["each example", "the data set"]


@dataclass(frozen=True)
class Pair:
    """A model and its guide, and what was found about them.

    Attributes:
        model: the model.
        guide: the guide.
        plate: the name of the plate of the examples, which all sites are in. None if some site is
            outside all plates: then there is one number for all data, and "batch" means one.
        nesting: the number of dimensions that the plates of both programs use.
        vectorize: whether K draws can be made at once, in an outermost plate; otherwise the
            programs run once for each draw.
        summed_out: the names of the model's sites that are summed out exactly. The guide does not
            have them, or has them, and none of its other sites depends on them.
        noise: for each `Delta` site of the guide that is computed elementwise from one auxiliary
            site, the name of this site. A mask on the latent variable applies to its noise.
        batch_size: the number of examples that the programs are run with; 0 if that was not asked.
        guide_enumerates: whether some site of the guide is marked for enumeration. `draw` draws it
            like any other.
    """

    model: Program
    guide: Program
    plate: str | None = None
    nesting: int = 0
    vectorize: bool = True
    summed_out: frozenset[str] = frozenset()
    noise: Mapping[str, str] = field(default_factory=dict)
    batch_size: int = 0
    guide_enumerates: bool = False

    @property
    def evidence_of(self) -> EvidenceOf:
        """What log p is: that of each example, or of the data set as a whole."""
        return "each example" if self.plate else "the data set"

    def draw(
        self,
        arguments: Arguments,
        count: int,
        *,
        change: Callable[[int | None], Change] | None = None,
        around_guide: Callable[[int | None], Messenger] | None = None,
        always_a_dimension: bool = True,
        scaled: bool = False,
    ) -> "Draws":
        """Draw from the guide, and run the model with these values.

        Args:
            arguments: what both programs are called with.
            count: K, the number of draws.
            change: a function that returns what is applied to each value that the guide drew before
                the model gets it. Its argument is the number of the draw, or None if all draws are
                made at once. By default the model gets the values unchanged.
            around_guide: a function of the same argument that returns a handler for the guide.
            always_a_dimension: whether a single draw has a dimension of its own, too.
            scaled: whether the log-probability of each site is multiplied by the site's scale, as
                in Pyro's ELBOs.
        """
        at_once = None
        if count == 1 and not always_a_dimension:
            runs = [self._run(arguments, None, 0, change, around_guide)]
        elif self.vectorize:
            runs = [self._run(arguments, count, None, change, around_guide)]
            at_once = count
        else:
            runs = [self._run(arguments, None, 0, change, around_guide)]
            # Means of log-weights may be over other examples in each run, as in Pyro's ELBOs.
            same = None if scaled else _subsamples(*runs[0])
            runs += [
                self._run(arguments, None, k, change, around_guide, same) for k in range(1, count)
            ]
        return Draws(self, arguments, runs, at_once, scaled)

    def _run(
        self,
        arguments: Arguments,
        count: int | None,
        number: int | None,
        change: Callable[[int | None], Change] | None,
        around_guide: Callable[[int | None], Messenger] | None,
        subsamples: poutine.Trace | None = None,
    ) -> tuple[poutine.Trace, poutine.Trace]:
        """Return the traces of the model and of the guide, with `count` draws in a plate."""
        model, guide = self.model, self._guide()
        if subsamples:
            model = poutine.replay(model, trace=subsamples)
            guide = poutine.replay(guide, trace=subsamples)
        if count is not None:
            particles = pyro.plate(PARTICLES, count, dim=-1 - self.nesting)
            model, guide = particles(model), particles(guide)
        if around_guide is not None:
            guide = around_guide(number)(guide)
        guide_trace = arguments.call(poutine.trace(guide).get_trace)
        replayed = guide_trace if change is None else with_values(guide_trace, change(number))
        if self.summed_out:
            replayed = without_enumeration(replayed)
            model = self._enumerated(model, particles=count is not None)
        model = poutine.replay(model, trace=replayed)
        return arguments.call(poutine.trace(model).get_trace), guide_trace

    def run_guide(self, arguments: Arguments, count: int | None, trace: poutine.Trace) -> Any:
        """Return a trace of the guide alone, with the values of another trace."""
        guide = self._guide()
        if count is not None:
            guide = pyro.plate(PARTICLES, count, dim=-1 - self.nesting)(guide)
        return arguments.call(poutine.trace(poutine.replay(guide, trace=trace)).get_trace)

    def _guide(self) -> Program:
        """Return the guide without the sites that are summed out."""
        if not self.summed_out:
            return self.guide
        return poutine.block(self.guide, hide=sorted(self.summed_out))

    def _enumerated(self, model: Program, particles: bool) -> Program:
        """Return the model with all values of the sites that are summed out."""

        def mark(site: Site) -> dict[str, Any]:
            return {"enumerate": "parallel"} if site["name"] in self.summed_out else {}

        first_dim = -1 - self.nesting - particles
        return poutine.enum(poutine.infer_config(model, mark), first_available_dim=first_dim)


def _subsamples(*traces: poutine.Trace) -> poutine.Trace:
    """Return the indices that plates drew: all draws of z are of the same examples."""
    found = poutine.Trace()
    for trace in traces:
        for name, site in trace.nodes.items():
            if poutine.util.site_is_subsample(site):
                found.nodes.setdefault(name, site)
    return found


class Draws:
    """K draws of the latent variables of each example: the traces of both programs.

    Args:
        pair: the programs.
        arguments: what they were called with.
        runs: the traces of the model and of the guide, of one run with all draws, or of one run
            for each draw.
        at_once: the number of draws of a run that has a dimension for them, and otherwise None.
        scaled: as in `Pair.draw`.
    """

    def __init__(
        self,
        pair: Pair,
        arguments: Arguments,
        runs: list[tuple[poutine.Trace, poutine.Trace]],
        at_once: int | None,
        scaled: bool,
    ) -> None:
        self.pair = pair
        self.arguments = arguments
        self.runs = runs
        self.at_once = at_once
        self.scaled = scaled
        self.batch_dims = 0 if at_once is None else pair.nesting + 1

    def log_p(self, include: Callable[[Site], bool] | None = None) -> Tensor:
        """Return log p(x, z) in nats, shape [K, batch], or the part of some of its sites.

        Args:
            include: whether a site is part of the sum; by default all are.

        Raises:
            InputError: if sites are summed out, and `include` asks for a part.
        """
        if include is not None and self.pair.summed_out:
            raise InputError(
                f"site '{min(self.pair.summed_out)}' of the model is summed out, which leaves "
                "log p(x, z) as a whole, and not log p(x|z) and log p(z): give the guide this site",
                "model",
            )
        return self._stack(
            self._log_p(model, include or (lambda site: True)) for model, _ in self.runs
        )

    def log_q(self, include: Callable[[Site], bool] | None = None) -> Tensor:
        """Return log q(z|x) in nats, shape [K, batch], or the part of some of its sites.

        The part of no site is zero, shape [K, 1].
        """
        log_q = self._stack(
            self._log_q(model, guide, include or (lambda site: True)) for model, guide in self.runs
        )
        if log_q.dim() == 2:
            return log_q
        count = self.at_once or len(self.runs)
        zeros = torch.zeros(count, 1, dtype=log_q.dtype, device=self.arguments.device)
        return zeros if include else zeros.expand_as(self.log_p())

    def log_p_of_sites(self, model: poutine.Trace) -> Iterator[tuple[Site, Tensor]]:
        """Yield the sites of the model in a run, with their log-probabilities, not summed."""
        model.compute_log_prob()
        for _, site in sample_sites(model):
            yield site, scale_and_mask(site["unscaled_log_prob"], self._scale(site), site["mask"])

    def log_q_of_sites(
        self, model: poutine.Trace, guide: poutine.Trace
    ) -> Iterator[tuple[Site, Tensor]]:
        """Yield the sites of the guide in a run, with their log-probabilities, not summed."""
        guide.compute_log_prob()
        for site, mask in self._with_masks(model, guide):
            yield site, counted(site, mask, self._scale(site))

    def log_q_with(self, change: Change) -> Tensor:
        """Return log q of the same values after a change that keeps them, shape [K, batch].

        The guide runs once more. With `Tensor.detach` the gradient is that of the score.
        """
        terms = []
        for model, guide in self.runs:
            fixed = self.pair.run_guide(self.arguments, self.at_once, with_values(guide, change))
            terms.append(self._log_q(model, fixed, lambda site: True))
        return self._stack(iter(terms))

    def sum_of_site(self, values: Tensor, site: Site) -> Tensor:
        """Return values of a site, summed over all dimensions but the draws and the examples.

        Args:
            values: one for each element of the batch shape of the site.
            site: the site of one of the traces.
        """
        return per_example(values, site, self.pair.plate, self.batch_dims)

    def sites(self, model: bool) -> Iterator[Site]:
        """Yield the sample sites of all traces of one of the programs."""
        for run in self.runs:
            for _, site in sample_sites(run[0 if model else 1]):
                yield site

    def _stack(self, terms: Iterator[Tensor]) -> Tensor:
        """Return one tensor, [K, batch], of the results of all runs."""
        results = list(terms)
        return results[0] if self.batch_dims else torch.stack(results)

    def _log_p(self, trace: poutine.Trace, include: Callable[[Site], bool]) -> Tensor:
        if self.pair.summed_out:
            return self._log_p_summed_out(trace)
        total = log_prob_per_example(
            trace, self.pair.plate, self.batch_dims, include, scaled=self.scaled
        )
        if total.dim():
            return total
        return total.expand(self.at_once, 1) if self.at_once else total.unsqueeze(-1)  # no site

    def _log_p_summed_out(self, trace: poutine.Trace) -> Tensor:
        plate, particles = self.pair.plate, self.batch_dims > 0
        dims = self.pair.nesting + particles
        kept = {0} if particles else set()
        for _, site in sample_sites(trace):
            kept |= {dims + frame.dim for frame in plates(site) if frame.name == plate}
        total = torch.zeros(())
        for term in log_prob_summed_out(
            trace, self.pair.summed_out, frozenset({PARTICLES, plate or PARTICLES})
        ):
            values = term.reshape((1,) * (dims - term.dim()) + term.shape)
            summed = [dim for dim in range(dims) if dim not in kept]
            total = total + (values.sum(summed) if summed else values)
        return total if plate else total.unsqueeze(-1)

    def _log_q(
        self, model: poutine.Trace, guide: poutine.Trace, include: Callable[[Site], bool]
    ) -> Tensor:
        total = torch.zeros(())
        for site, values in self.log_q_of_sites(model, guide):
            if include(site):
                total = total + self.sum_of_site(values, site)
        return total

    def _with_masks(
        self, model: poutine.Trace, guide: poutine.Trace
    ) -> Iterator[tuple[Site, Tensor | None]]:
        """Yield the sites of the guide, with the model's mask of each of them."""
        masks = {name: mask_of(site) for name, site in sample_sites(model)}
        masks |= {noise: masks[latent] for latent, noise in self.pair.noise.items()}
        for name, site in sample_sites(guide):
            yield site, masks.get(name)

    def _scale(self, site: Site) -> Tensor | float:
        return site["scale"] if self.scaled else 1.0
