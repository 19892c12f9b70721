"""The ELBO: its KL sampled or in closed form, weighted, on a schedule, with free bits."""

from collections.abc import Iterator
from typing import Any, Literal

import torch
from pyro.distributions import Delta, Independent
from torch import Tensor
from torch.distributions import kl_divergence
from torch.nn.functional import pad

from pyro_vae import bounds
from pyro_vae.errors import InputError, check_range
from pyro_vae.objectives.draws import Draws, Site
from pyro_vae.objectives.objective import Objective
from pyro_vae.programs.traces import Program, is_latent, is_observed, sample_sites


class _WeighsKL(Objective):
    """E_q[log p(x|z)] less the KL, which has a weight and a schedule; for the classes below."""

    def __init__(
        self,
        num_particles: int,
        beta: float,
        warmup: float,
        start: float,
        cycles: int,
        free_bits: float,
        group: int,
    ) -> None:
        super().__init__(num_particles)
        if warmup == 0 and (start != 0 or cycles != 1):
            raise InputError("start and cycles are of a warm-up: say how many epochs warmup takes")
        self.beta = check_range("beta", beta, 0, 1e6)
        self.warmup = check_range("warmup", warmup, 0, 1e6)
        self.start = check_range("start", start, 0, 1e6)
        self.cycles = int(check_range("cycles", cycles, 1, 1e6))
        self.free_bits = check_range("free_bits", free_bits, 0, 1e6)
        self.group = int(check_range("group", group, 0, 1e6))
        self.kl_weight = torch.tensor(beta, dtype=torch.float32)
        self.anneal(0)

    def anneal(self, epoch: float) -> None:
        """Set the KL's weight to where the schedule is after `epoch` epochs."""
        self.kl_weight.fill_(
            kl_weight(epoch, self.start, self.beta, warmup=self.warmup, cycles=self.cycles)
        )

    def bound(self, log_w: Tensor) -> Tensor:
        """Return the ELBO, nats, shape [batch]."""
        return bounds.elbo(log_w)

    def differentiable_loss(self, model: Program, guide: Program, x: Tensor) -> Tensor:
        """Return the weighted loss, summed over the examples, to be differentiated."""
        draws = self.draw(model, guide, x)
        log_likelihood = draws.sum(draws.model, is_observed)
        unpathed = draws.unpathed()
        if self.free_bits:
            for name in unpathed:
                raise InputError(
                    f"site '{name}' of the guide is not reparameterised, as free bits require: "
                    "leave them out"
                )
            return self.kl_weight * self._after_free_bits(draws) - log_likelihood.mean(0).sum()
        kl = self._kl(draws)
        loss = self.kl_weight * kl.mean(0).sum() - log_likelihood.mean(0).sum()
        if unpathed:  # the score of sites that have no path, times what each draw costs
            cost = (self.kl_weight * kl - log_likelihood).detach()
            log_q = draws.sum(draws.guide, lambda site: site["name"] in unpathed)
            score = (cost * log_q).mean(0).sum()
            loss = loss + score - score.detach()
        return loss

    def _kl(self, draws: Draws) -> Tensor:
        """Return what estimates the KL, from each draw, nats, shape [K, batch]."""
        return draws.log_q - draws.sum(draws.model, is_latent)

    def _site_kl(self, posterior: Any, prior: Any, z: Tensor) -> Tensor:
        """Return what estimates the KL of one site, for each draw, without summing over events."""
        return posterior.log_prob(z) - prior.log_prob(z)

    def _after_free_bits(self, draws: Draws) -> Tensor:
        """Return sum_g max(free_bits, KL_g), KL_g being the batch's mean, times the batch's size.

        It is in all of a batch, and not in each of its examples, that a group is not to be empty.
        """
        size = draws.log_q.shape[1]
        total = draws.log_q.new_zeros(())
        for name, site, prior in _pairs(draws):
            q, p, z = site["fn"], prior["fn"], site["value"]
            if site["mask"] is not None or prior["mask"] is not None:
                raise InputError(f"site '{name}' is masked, and free bits know no masks")
            if self.group > 0:
                q, p = _independent(name, q), _independent(name, p)
            kl = self._site_kl(q, p, z)
            dims = kl.dim() - (self.group > 0)
            if dims > max(draws.batch_dims, 1):
                raise InputError(
                    f"site '{name}' is in a plate beside that of the data: free bits know none"
                )
            groups = kl.flatten(0, dims - 1).mean(0)
            if self.group > 0:
                groups = pad(groups, (0, -len(groups) % self.group)).view(-1, self.group).sum(1)
            total = total + groups.clamp(min=self.free_bits).sum() * size
        return total


class ELBO(_WeighsKL):
    """E_q[log p(x|z)] - beta KL(q(z|x) || p(z)), the KL by Monte Carlo.

    With beta = 1, `pyro.infer.Trace_ELBO` (Kingma & Welling 2014, equation 2). A bound on log p(x)
    for beta >= 1, as free bits, which raise the KL in the mean over a batch, only make it lower;
    models are chosen by it at beta = 1 and without free bits, the ELBO.

    The schedule: beta rises linearly over `warmup` epochs (Bowman et al. 2016), so that the code is
    used before it is paid for; with several `cycles` (Fu et al. 2019) it then stays for as long,
    and begins anew.

    Args:
        num_particles: how many z are drawn for each x; they are averaged.
        beta: the weight of the KL (Higgins et al. 2017).
        warmup: the number of epochs over which the weight rises to beta.
        start: where it rises from.
        cycles: how often it does.
        free_bits: nats that the KL of a group of dimensions has for nothing, in the mean over a
            batch (Kingma et al. 2016, equation 15).
        group: how many dimensions, one after the other, are a group; 0 for all of a site's.
        gradient: of the guide: `plain`, or `stl`, sticking the landing (see
            `objectives.importance`), here unbiased for any K.

    Raises:
        InputError: if an option makes no sense; in the first step, if free bits are for single
            dimensions where posterior or prior knows none.
    """

    def __init__(
        self,
        num_particles: int = 1,
        beta: float = 1.0,
        warmup: float = 0.0,
        start: float = 0.0,
        cycles: int = 1,
        free_bits: float = 0.0,
        group: int = 1,
        gradient: Literal["plain", "stl"] = "plain",
    ) -> None:
        super().__init__(num_particles, beta, warmup, start, cycles, free_bits, group)
        self.gradient = gradient
        if gradient == "stl" and free_bits:
            raise InputError("sticking the landing and free bits do not go together: take one")

    def _kl(self, draws: Draws) -> Tensor:
        kl = super()._kl(draws)
        if self.gradient == "plain" or not kl.requires_grad:
            return kl
        for name in draws.unpathed():
            raise InputError(
                f"site '{name}' of the guide is not reparameterised, as sticking the landing "
                "requires: take the gradient plain"
            )
        score = draws.score()
        return kl - (score - score.detach())


class AnalyticELBO(_WeighsKL):
    """E_q[log p(x|z)] - beta KL(q(z|x) || p(z)), the KL in closed form.

    Refuses pairs of posterior and prior that have none, where `pyro.infer.TraceMeanField_ELBO`
    would fall back on Monte Carlo without a word. What it bounds, and how models are chosen, is as
    for `ELBO`.

    Args:
        num_particles: how many z are drawn for each x; they are averaged.
        beta: the weight of the KL (Higgins et al. 2017).
        warmup: the number of epochs over which the weight rises to beta.
        start: where it rises from.
        cycles: how often it does.
        free_bits: nats that the KL of a group of dimensions has for nothing (see `ELBO`).
        group: how many dimensions are a group; 0 for all of a site's.

    Raises:
        InputError: in the first step, if no closed form is registered.
    """

    def __init__(
        self,
        num_particles: int = 1,
        beta: float = 1.0,
        warmup: float = 0.0,
        start: float = 0.0,
        cycles: int = 1,
        free_bits: float = 0.0,
        group: int = 1,
    ) -> None:
        super().__init__(num_particles, beta, warmup, start, cycles, free_bits, group)

    def loss(self, model: Program, guide: Program, x: Tensor) -> float:
        """Return the negative ELBO, its KL in closed form, summed over the examples."""
        with torch.no_grad():
            draws = self.draw(model, guide, x)
            gain = draws.sum(draws.model, is_observed) - self._kl(draws)
            return -gain.mean(0).sum().item()

    def _kl(self, draws: Draws) -> Tensor:
        total = draws.log_q.new_zeros(())
        for _, site, prior in _pairs(draws):
            kl = self._site_kl(site["fn"], prior["fn"], site["value"])
            total = total + draws.reduced(kl, site)
        return total

    def _site_kl(self, posterior: Any, prior: Any, z: Tensor) -> Tensor:
        try:
            return kl_divergence(posterior, prior)
        except NotImplementedError as error:
            q, p = (type(getattr(d, "base_dist", d)).__name__ for d in (posterior, prior))
            raise InputError(f"KL({q} || {p}) has no closed form: take --objective ELBO") from error


def kl_weight(epoch: float, start: float, beta: float, *, warmup: float, cycles: int) -> float:
    """Return the KL's weight after `epoch` epochs; see `ELBO`."""
    if warmup == 0:
        return beta
    cycle = min(epoch // (2 * warmup), cycles - 1)
    return start + (beta - start) * min(1.0, (epoch - cycle * 2 * warmup) / warmup)


def _pairs(draws: Draws) -> Iterator[tuple[str, Site, Site]]:
    """Yield the name of each latent site, what the guide has there, and what the model has.

    Raises:
        InputError: if the KL is not the sum of the sites' own, as of Pyro's autoguides, whose
            sites are points, and functions of auxiliary ones.
    """
    for name, site in sample_sites(draws.guide):
        if name not in draws.model.nodes or isinstance(site["fn"], Delta):
            raise InputError(
                f"site '{name}' of the guide has no KL of its own: take --objective ELBO, without "
                "free bits"
            )
        yield name, site, draws.model.nodes[name]


def _independent(name: str, distribution: Any) -> Any:
    """Return the distribution of the single dimensions."""
    if isinstance(distribution, Independent) and distribution.reinterpreted_batch_ndims == 1:
        return distribution.base_dist
    raise InputError(
        f"site '{name}' has no independent dimensions under {type(distribution).__name__}, as free "
        "bits for each of them require: take group 0, all of the site"
    )
