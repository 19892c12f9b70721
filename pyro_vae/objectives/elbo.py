"""The ELBO: its KL sampled or in closed form, weighted, on a schedule, with free bits.

    loss = -E_q[log p(x|z)] + beta(t) KL

The weight beta(t) may rise over a warm-up: see `kl_schedule`.

With free bits, the KL in the loss is sum_g max(free_bits, KL_g), where KL_g is the mean over the
batch of the KL of a group g of dimensions (Kingma et al. 2016, equation 15).
"""

from collections.abc import Iterator
from typing import Any, Literal

import torch
from pyro import poutine
from pyro.distributions import Delta, Independent
from pyro.distributions.util import scale_and_mask
from torch import Tensor
from torch.distributions import kl_divergence
from torch.nn.functional import pad

from pyro_vae import bounds
from pyro_vae.errors import InputError, check_range
from pyro_vae.objectives.draws import TrainingDraws
from pyro_vae.objectives.enumerated import enumerated_loss
from pyro_vae.objectives.kl_schedule import KLSchedule
from pyro_vae.objectives.objective import Objective
from pyro_vae.objectives.score_function import Run, score_term
from pyro_vae.programs.arguments import Arguments
from pyro_vae.programs.pair import Draws, Pair
from pyro_vae.programs.traces import Program, Site, sample_sites

FULL_WEIGHT = KLSchedule(beta=1.0, warmup=0.0, warmup_share=0.0, start=0.0, cycles=1)


class _WeightedKL(Objective):
    """What `ELBO` and `AnalyticELBO` share: the loss, and these options.

    Args:
        num_particles: number of draws of z for each x; the loss is their mean.
        beta: weight of the KL (Higgins et al. 2017).
        warmup: number of epochs over which the weight rises to beta; by default none.
        start: weight at the beginning of each warm-up.
        cycles: number of warm-ups.
        free_bits: nats of KL that a group of dimensions can use at no cost, in the mean over a
            batch (Kingma et al. 2016, equation 15).
        group: number of consecutive dimensions in a group; 0 for all dimensions of a site.
        warmup_share: share of training over which the weight rises to beta, in place of `warmup`.
            Training has to have a last epoch or a budget. By default runs with codes in several
            layers take a quarter.

    Raises:
        InputError: if an option is out of its range, both kinds of warm-up are given, or the cycles
            take longer than training.
    """

    def __init__(
        self,
        num_particles: int = 1,
        beta: float = 1.0,
        warmup: float | None = None,
        start: float = 0.0,
        cycles: int = 1,
        free_bits: float = 0.0,
        group: int = 1,
        *,
        warmup_share: float | None = None,
        **pyro_options: Any,
    ) -> None:
        super().__init__(num_particles, pyro_options)
        self.schedule = KLSchedule(beta, warmup or 0.0, warmup_share or 0.0, start, cycles)
        self.beta, self.start, self.cycles = beta, start, cycles
        self.warmup, self.warmup_share = self.schedule.warmup, self.schedule.warmup_share
        self.free_bits = check_range("free_bits", free_bits, 0, 1e6)
        self.group = int(check_range("group", group, 0, 1e6))
        self.kl_weight = torch.tensor(beta, dtype=torch.float32)
        self.anneal(0)

    def anneal(self, epoch: float, progress: float = 0.0) -> None:
        """Set the KL's weight to its value on the schedule.

        Args:
            epoch: the number of epochs that are done.
            progress: the share of training that is done, from 0 to 1.
        """
        self.kl_weight.fill_(self.schedule.weight(epoch, progress))

    def bound(self, log_w: Tensor) -> Tensor:
        """Return the ELBO in nats, shape [batch]."""
        return bounds.elbo(log_w)

    @property
    def linear(self) -> bool:
        """True, except with free bits."""
        return not self.free_bits

    def differentiable_loss(
        self, model: Program, guide: Program, *args: Any, **kwargs: Any
    ) -> Tensor:
        """Return the weighted loss, summed over the examples, to be differentiated."""
        draws = self.draw(model, guide, Arguments(*args, **kwargs))
        log_likelihood = draws.log_likelihood
        if self.free_bits:
            draws.require_reparameterised("free_bits", "set free_bits to 0", "free_bits")
            kl_sum = self._kl_with_free_bits(draws)
            return draws.scaled(self.kl_weight * kl_sum - log_likelihood.mean(0).sum())
        kl = self._kl(draws)
        loss = self.kl_weight * kl.mean(0).sum() - log_likelihood.mean(0).sum()
        if draws.not_reparameterised():
            score = score_term(draws.draws, self._costs) / self.num_particles
            loss = loss + score - score.detach()
        return loss

    def _kl(self, draws: TrainingDraws) -> Tensor:
        """Return an estimate of the KL from each draw, in nats, shape [K, batch]."""
        kl = draws.log_q - draws.log_prior
        if any(not site["fn"].has_rsample for site in draws.draws.sites(model=False)):
            # The gradient of their log q, with z held fixed, has mean zero, and would be noise.
            log_q = draws.draws.log_q(lambda site: not site["fn"].has_rsample)
            kl = kl - (log_q - log_q.detach())
        return kl

    def _costs(self, draws: Draws, run: Run) -> Iterator[tuple[Site, Tensor]]:
        """Yield the terms of the loss of a run, each with a site in whose plates it is."""
        for site, log_prob in draws.log_p_of_sites(run[0]):
            yield site, -log_prob if site["is_observed"] else -self.kl_weight * log_prob
        for site, log_prob in draws.log_q_of_sites(*run):
            yield site, self.kl_weight * log_prob

    def _site_kl(self, posterior: Any, prior: Any, z: Tensor) -> Tensor:
        """Return one estimate per draw of the KL of one site, in the batch shape of the site."""
        return posterior.log_prob(z) - prior.log_prob(z)

    def _kl_with_free_bits(self, draws: TrainingDraws) -> Tensor:
        """Return sum_g max(free_bits, KL_g), times the size of the batch.

        KL_g is the mean over the batch: a group has to carry information in the batch as a whole,
        not in each of its examples.
        """
        size = draws.log_q.shape[1]
        total = draws.log_q.new_zeros(())
        runs = [list(_site_pairs(*run)) for run in draws.draws.runs]
        for pairs in zip(*runs, strict=True):
            groups = [
                self._kl_of_groups(site, prior_site, draws.draws.batch_dims)
                for site, prior_site in pairs
            ]
            mean = torch.stack(groups).mean(0)
            total = total + mean.clamp(min=self.free_bits).sum() * size
        return total

    def _kl_of_groups(self, site: Site, prior_site: Site, batch_dims: int) -> Tensor:
        """Return the KL of each group of dimensions of a site, in the mean over the batch."""
        name = site["name"]
        posterior, prior, z = site["fn"], prior_site["fn"], site["value"]
        if site["mask"] is not None or prior_site["mask"] is not None:
            raise InputError(
                f"site '{name}' is masked, and free bits do not support masks", "free_bits"
            )
        if self.group > 0:
            posterior, prior = _independent(name, posterior), _independent(name, prior)
        kl = self._site_kl(posterior, prior, z)
        dims = kl.dim() - (self.group > 0)
        if dims > max(batch_dims, 1):
            raise InputError(
                f"site '{name}' is in a plate other than the data's, and free bits support only "
                "the data plate",
                "free_bits",
            )
        groups = kl.flatten(0, dims - 1).mean(0)
        if self.group > 0:
            groups = pad(groups, (0, -len(groups) % self.group)).view(-1, self.group).sum(1)
        return groups


class ELBO(_WeightedKL):
    """E_q[log p(x|z)] - beta KL(q(z|x) || p(z)), the KL by Monte Carlo.

    With beta = 1 this is `pyro.infer.Trace_ELBO` (Kingma & Welling 2014, equation 2). For beta >= 1
    it is a bound on log p(x). With free bits it remains a bound, because they raise the KL in the
    loss, in the mean over a batch, and so lower the objective. Models are chosen by the ELBO with
    beta = 1 and without free bits.

    It also is `TraceEnum_ELBO`: sites that are marked for enumeration are summed out, in the model
    and in the guide alike. This needs the full weight of the KL, and the plain gradient. A site
    that is not reparameterised gets the score-function gradient, its cost split by plates.

    The log-probability of each site is multiplied by its scale. With scales other than 1 the result
    is the weighted ELBO that Pyro has, and not a bound on log p(x), unless they stand for a random
    part of the data.

    The guide may be a point (AutoDelta), as for MAP estimates. A point has no density, so the loss
    is -log p(x, z) at that point. This is no bound on log p(x), and it depends on the units of z.
    The same holds if some of the latent variables are points. All other objectives refuse points.

    Args:
        gradient: gradient for the guide: plain, or stl (sticking the landing; Roeder, Wu & Duvenaud
            2017), which is unbiased here for any number of draws.

    Raises:
        InputError: if an option is out of its range; in the first step, if free bits apply to
            single dimensions, and the posterior or the prior has no independent dimensions.
    """

    def __init__(
        self,
        num_particles: int = 1,
        beta: float = 1.0,
        warmup: float | None = None,
        start: float = 0.0,
        cycles: int = 1,
        free_bits: float = 0.0,
        group: int = 1,
        gradient: Literal["plain", "stl"] = "plain",
        *,
        warmup_share: float | None = None,
        **pyro_options: Any,
    ) -> None:
        super().__init__(
            num_particles,
            beta,
            warmup,
            start,
            cycles,
            free_bits,
            group,
            warmup_share=warmup_share,
            **pyro_options,
        )
        self.gradient = gradient
        if gradient == "stl" and self.free_bits:
            raise InputError(
                "sticking the landing (stl) and free bits do not go together: use the gradient "
                "plain, or set free_bits to 0",
                "gradient",
            )

    def differentiable_loss(
        self, model: Program, guide: Program, *args: Any, **kwargs: Any
    ) -> Tensor:
        """Return the weighted loss, summed over the examples, to be differentiated."""
        arguments = Arguments(*args, **kwargs)
        unweighted = self.schedule == FULL_WEIGHT and not self.free_bits
        if unweighted and self.gradient == "plain":
            pair = self.pair(model, guide, arguments)
            if pair.summed_out or pair.guide_enumerates:
                return self._enumerated(pair, arguments, differentiable=True)
        return super().differentiable_loss(model, guide, *args, **kwargs)

    def loss(self, model: Program, guide: Program, *args: Any, **kwargs: Any) -> float:
        """Return the negative ELBO, summed over the examples."""
        arguments = Arguments(*args, **kwargs)
        with torch.no_grad():
            pair = self.pair(model, guide, arguments)
            if pair.summed_out or pair.guide_enumerates:
                return self._enumerated(pair, arguments, differentiable=False).item()
        return super().loss(model, guide, *args, **kwargs)

    def _enumerated(self, pair: Pair, arguments: Arguments, *, differentiable: bool) -> Tensor:
        return enumerated_loss(
            pair, arguments, self.num_particles, self._plates, differentiable=differentiable
        )

    def _kl(self, draws: TrainingDraws) -> Tensor:
        kl = super()._kl(draws)
        if self.gradient == "plain" or not kl.requires_grad:
            return kl
        draws.require_reparameterised("sticking the landing", "use the gradient plain", "gradient")
        score = draws.score()
        return kl - (score - score.detach())


class AnalyticELBO(_WeightedKL):
    """E_q[log p(x|z)] - beta KL(q(z|x) || p(z)), the KL in closed form.

    Pairs of posterior and prior without a closed form are refused, whereas
    `pyro.infer.TraceMeanField_ELBO` silently uses Monte Carlo for them. The objective is a bound
    under the same conditions as `ELBO`, and models are chosen in the same way. `_WeightedKL`
    documents the options.

    Raises:
        InputError: if an option is out of its range; in the first step, if no closed form is
            registered.
    """

    def loss(self, model: Program, guide: Program, *args: Any, **kwargs: Any) -> float:
        """Return the negative ELBO, its KL in closed form, summed over the examples."""
        with torch.no_grad():
            draws = self.draw(model, guide, Arguments(*args, **kwargs))
            gain = draws.log_likelihood - self._kl(draws)
            return -draws.scaled(gain.mean(0).sum()).item()

    def _kl(self, draws: TrainingDraws) -> Tensor:
        terms = []
        for run in draws.draws.runs:
            total = draws.log_q.new_zeros(())
            for site, kl in self._kl_of_sites(draws.draws, run):
                total = total + draws.draws.sum_of_site(kl, site)
            terms.append(total)
        kl = terms[0] if draws.draws.batch_dims else torch.stack(terms)
        return kl if kl.dim() == 2 else torch.zeros_like(draws.log_q)  # no latent site

    def _costs(self, draws: Draws, run: Run) -> Iterator[tuple[Site, Tensor]]:
        for site, log_prob in draws.log_p_of_sites(run[0]):
            if site["is_observed"]:
                yield site, -log_prob
        for site, kl in self._kl_of_sites(draws, run):
            yield site, self.kl_weight * kl

    def _kl_of_sites(self, draws: Draws, run: Run) -> Iterator[tuple[Site, Tensor]]:
        """Yield the sites of the guide in a run, with their KL, in the batch shape of the site.

        Raises:
            InputError: if the KL of the programs is not the sum of the KLs of their sites.
        """
        pairs = list(_site_pairs(*run))
        _check_order(*run)
        for site, prior_site in pairs:
            kl = self._site_kl(site["fn"], prior_site["fn"], site["value"])
            kl = torch.as_tensor(kl).expand(site["fn"].batch_shape)  # a number if all is masked
            scale = _common_scale(site, prior_site) if draws.scaled else 1.0
            yield site, scale_and_mask(kl, scale, prior_site["mask"])

    def _site_kl(self, posterior: Any, prior: Any, z: Tensor) -> Tensor:
        try:
            return kl_divergence(posterior, prior)
        except NotImplementedError as error:
            q, p = (type(getattr(d, "base_dist", d)).__name__ for d in (posterior, prior))
            raise InputError(
                f"KL({q} || {p}) has no closed form: use the objective ELBO", "objective"
            ) from error


def _site_pairs(model: poutine.Trace, guide: poutine.Trace) -> Iterator[tuple[Site, Site]]:
    """Yield each latent site of a run, as it is in the guide and in the model.

    Raises:
        InputError: if a site has no KL of its own. Pyro's autoguides are an example: their sites
            are points, computed from auxiliary sites.
    """
    for name, site in sample_sites(guide):
        if name not in model.nodes or isinstance(site["fn"], Delta):
            raise InputError(
                f"site '{name}' of the guide has no KL of its own: use the objective ELBO, without "
                "free bits",
                "objective",
            )
        yield site, model.nodes[name]


def _check_order(model: poutine.Trace, guide: poutine.Trace) -> None:
    """Refuse programs that sample latent variables in different orders.

    A KL in closed form is that of one site, with all that it depends on held fixed. If the model
    samples y given x, and the guide x given y, the KL of y depends on an x that is drawn after it.
    """
    in_guide = [name for name, _ in sample_sites(guide)]
    in_model = [name for name, _ in sample_sites(model) if name in guide.nodes]
    if in_guide != in_model:
        raise InputError(
            f"the guide samples {', '.join(in_guide)} in this order, and the model "
            f"{', '.join(in_model)}. A KL in closed form needs the same order: change the order, "
            "or use the objective ELBO",
            "objective",
        )


def _common_scale(site: Site, prior_site: Site) -> Tensor | float:
    """Return the scale that a site has in both programs."""
    scale, other = site["scale"], prior_site["scale"]
    if scale is not other and not bool((torch.as_tensor(scale) == torch.as_tensor(other)).all()):
        raise InputError(
            f"site '{site['name']}' has one scale in the guide and another in the model, and its "
            "KL in closed form has only one: use the objective ELBO",
            "objective",
        )
    return scale


def _independent(name: str, distribution: Any) -> Any:
    """Return the distribution of the single dimensions of a site."""
    if isinstance(distribution, Independent) and distribution.reinterpreted_batch_ndims == 1:
        return distribution.base_dist
    raise InputError(
        f"site '{name}' has no independent dimensions under {type(distribution).__name__}, and "
        "free bits for groups of dimensions need them: set group 0, which takes the whole site",
        "group",
    )
