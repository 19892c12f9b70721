"""The cost of a code, its information about x, and its worth to the decoder.

    rate        R = E_x KL(q(z|x) || p(z)) = I(x; z) + KL(q(z) || p(z))
    distortion  D = -E_x E_q[log p(x|z)],    ELBO = -(R + D)

Here q(z) = E_x q(z|x) is the aggregated posterior, and I(x; z) is the mutual information under q
(Hoffman & Johnson 2016; Alemi et al. 2018). q(z) is not known. N examples give two estimates of it
at the code of one of them, and both are biased (Poole et al. 2019):

- The mean over all N, which includes the example's own q(z|x), is too large at its code. On
  average I comes out too small, and never above log N. It is exact if the N examples are the whole
  population.
- The mean over the N - 1 others is too small there. On average I comes out too large.

In expectation the truth is between the two. Both come from the same draws. R is above I, too.

With conditions y, x stands for x and y together. If the prior is p(z | y), then R is the mean KL to
it, which may be below I, and R - I is no KL: it is unknown.
"""

import math
from dataclasses import dataclass
from typing import Any

import pyro
import torch
from pyro import poutine
from torch import Tensor

from pyro_vae.diagnostics.local_codes import check_codes, latent_sites, look_at_codes
from pyro_vae.diagnostics.means import mean_and_error
from pyro_vae.errors import InputError
from pyro_vae.programs.arguments import Arguments
from pyro_vae.programs.pair import Draws, Pair
from pyro_vae.programs.random_streams import preserve_rng_state
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

PART = 250  # examples whose codes are drawn at once
CODES = 200  # codes that are scored at once under the posteriors of all examples


@dataclass(frozen=True)
class Information:
    """What `measure` returns: a value for each example, in nats, shape [N].

    The quantities of the module's docstring are the means over the examples.

    Attributes:
        rate: R.
        distortion: D.
        prior_distortion: -log p(x|z) with z drawn from the prior: the distortion if the decoder is
            told nothing about x. If it is no more than D, the decoder does not use z.
        mutual_information: I(x; z), estimated from below; at most log N.
        mutual_information_above: I(x; z), estimated from above.
        prior_is_conditional: whether p(z) differs between examples.
    """

    rate: Tensor
    distortion: Tensor
    prior_distortion: Tensor
    mutual_information: Tensor
    mutual_information_above: Tensor
    prior_is_conditional: bool = False

    @property
    def marginal_kl(self) -> Tensor:
        """KL(q(z) || p(z)), estimated from above: R minus the mutual information from below.

        NaN if the prior is conditional.
        """
        kl = self.rate - self.mutual_information
        return torch.full_like(kl, math.nan) if self.prior_is_conditional else kl

    @property
    def gain(self) -> Tensor:
        """The increase of log p(x|z) when z is drawn from q(z|x) instead of p(z)."""
        return self.prior_distortion - self.distortion

    def to_dict(self) -> dict[str, Any]:
        """Return the mean over examples and its standard error, for each quantity, in nats."""
        return {
            name: mean_and_error(getattr(self, name))
            for name in (
                *("rate", "distortion", "prior_distortion", "gain"),
                *("mutual_information", "mutual_information_above", "marginal_kl"),
            )
        }


def measure(
    model: Program, guide: Program, x: Any, seed: int = 0, *, plate: str | None = None
) -> Information:
    """Measure rate, distortion and mutual information, from one draw of z for each example.

    The density of each example's code is computed under the posterior of every example. These are
    N^2 densities, and for each of them an autoregressive flow needs one pass for each dimension of
    z. Memory holds the densities of 200 N codes at once.

    Args:
        model: a Pyro program, in evaluation mode, whose latent sites are all in the plate of the
            examples.
        guide: a Pyro program, the model's guide, which draws the latent sites themselves, and not
            auxiliary noise from which it computes them.
        x: the data, which both programs are called with: a tensor, a tuple, which is spread into
            positional arguments, or `Arguments`. There are two examples at least.
        seed: seed of the draws.
        plate: the name of the plate of the examples; by default it is found.

    Raises:
        InputError: if there is only one example, or the latent sites are no code of single
            examples, or the guide has no density of a given code.
    """
    arguments = Arguments.of(x)
    return measure_pair(look_at_codes(model, guide, arguments, plate, PART), arguments, seed)


def measure_pair(pair: Pair, arguments: Arguments, seed: int) -> Information:
    """Do the same for programs that have been looked at.

    Args:
        pair: the programs, from `look_at_codes`.
        arguments: what they are called with, for all examples.
        seed: seed of the draws.

    Raises:
        InputError: as `measure`.
    """
    if len(arguments) < 2:
        raise InputError("mutual information needs two examples or more", "x")
    with torch.no_grad(), preserve_rng_state(arguments):
        torch.manual_seed(seed)
        parts = [_measure_part(pair, part, arguments) for part in arguments.split(pair.batch_size)]
        log_q, log_prior, log_likelihood, log_likelihood_of_prior, pairs = map(
            torch.cat, zip(*parts, strict=True)
        )
        count = len(log_q)
        own = torch.eye(count, dtype=torch.bool, device=log_q.device)
        mean_of_all = pairs.logsumexp(1) - math.log(count)
        mean_of_others = pairs.masked_fill(own, -math.inf).logsumexp(1) - math.log(count - 1)
        return Information(
            rate=log_q - log_prior,
            distortion=-log_likelihood,
            prior_distortion=-log_likelihood_of_prior,
            mutual_information=pairs.diagonal() - mean_of_all,
            mutual_information_above=pairs.diagonal() - mean_of_others,
            prior_is_conditional=_prior_is_conditional(pair, arguments),
        )


def _prior_is_conditional(pair: Pair, arguments: Arguments) -> bool:
    """Return whether some code has another log p(z) with the next example."""
    places = torch.arange(len(arguments))
    for start in range(0, len(arguments), pair.batch_size):
        own = places[start : start + pair.batch_size]
        part, following = (arguments.take(at % len(places)) for at in (own, own + 1))
        draws = pair.draw(part, 1, always_a_dimension=False)
        model = poutine.replay(pair.model, trace=draws.runs[0][0])
        trace = following.call(poutine.trace(model).get_trace)
        other = log_prob_per_example(trace, pair.plate, 0, is_latent)
        if not torch.allclose(other, draws.log_p(is_latent)[0], rtol=1e-4, atol=1e-4):
            return True
    return False


def _measure_part(pair: Pair, part: Arguments, arguments: Arguments) -> tuple[Tensor, ...]:
    """Draw a code for each example of a part of the data, and return log-densities.

    Returns:
        For each code log q(z|x), log p(z) and log p(x|z), and log p(x|z) of a z from the prior; and
        log q(z | x_j) for all examples x_j, shape [part, N].
    """
    draws = pair.draw(part, 1, always_a_dimension=False)
    guide_trace = draws.runs[0][1]
    check_codes(latent_sites(guide_trace), pair.plate)
    for name, site in sample_sites(guide_trace):
        if site["infer"].get("is_auxiliary"):
            raise InputError(
                "mutual information needs the density of each code given every example, and this "
                f"guide computes its codes from the auxiliary site '{name}'",
                "guide",
            )
    log_q = draws.log_q()[0]
    log_prior, log_likelihood = draws.log_p(is_latent)[0], draws.log_p(is_observed)[0]
    prior_trace = part.call(poutine.trace(pair.model).get_trace)
    log_likelihood_of_prior = log_prob_per_example(prior_trace, pair.plate, 0, is_observed)
    pairs = _log_q_of_all(draws, arguments)
    return log_q, log_prior, log_likelihood, log_likelihood_of_prior, pairs


def _log_q_of_all(draws: Draws, arguments: Arguments) -> Tensor:
    """Return log q(z_i | x_j) for the codes z_i of a draw, and all x_j, shape [codes, N]."""
    pair, trace = draws.pair, draws.runs[0][1]
    size = draws.log_q().shape[1]
    in_parts = pair.batch_size < len(arguments)
    count = len(arguments) if in_parts else size
    rows = []
    for codes in torch.arange(size).split(CODES if pair.vectorize else 1):
        given = poutine.Trace()
        for name, site in sample_sites(trace):
            value = _repeat_for_each(codes.to(site["value"].device), count, site, pair)
            given.add_node(name, **{**site, "value": value})
        guide = poutine.replay(pair.guide, trace=given)
        if pair.vectorize:
            guide = pyro.plate(PARTICLES, len(codes), dim=-1 - pair.nesting)(guide)
        scored = arguments.call(poutine.trace(guide).get_trace)
        dims = pair.nesting + 1 if pair.vectorize else 0
        log_q = log_prob_per_example(scored, pair.plate, dims)
        rows.append(log_q if pair.vectorize else log_q[None])
    return torch.cat(rows)


def _repeat_for_each(codes: Tensor, count: int, site: Site, pair: Pair) -> Tensor:
    """Return the values of a site for some examples, each repeated for `count` examples.

    Args:
        codes: the indices of the examples, shape [I]; one index if draws are not vectorised.
        count: the number of examples that each value is repeated for.
        site: the site of a trace that was run without a plate of draws.
        pair: the programs.

    Returns:
        Values of the site's shape, with `count` examples and, if draws are vectorised, I draws.
    """
    dim = next(frame.dim for frame in plates(site) if frame.name == pair.plate)
    batch_dims = len(site["fn"].batch_shape)
    axis = batch_dims + dim
    values = site["value"].movedim(axis, 0)[codes].unsqueeze(axis + 1)
    sizes = [*values.shape]
    sizes[axis + 1] = count
    values = values.expand(sizes)
    if not pair.vectorize:
        return values[0]
    return values.reshape(len(codes), *[1] * (pair.nesting - batch_dims), *sizes[1:])
