"""Exact answers for the programs of a description, by linear algebra in float64.

    u ~ N(0, global_scale^2),   c_i ~ Categorical,   z1_i ~ N(prior_mean[c_i] + offset_i + u group)
    z2_i ~ N(z1_i step),   x_i ~ N(z_i P loading + bias),   symbol_i ~ emission[c_i]

For given classes, all variables are affine functions of independent standard normals: a mean, and
coefficients of the noise. The covariances are products of the coefficients. Classes are summed out
over all combinations. Angles have closed forms of their own.

Examples are taken in groups that share nothing: G groups of n examples. A program without a global
variable has n = 1, and one with a global variable has G = 1. There are Q combinations of classes of
a group, and M latent scalars: u, then the first layer of all examples of the group, then the
second.
"""

import math
from dataclasses import dataclass
from itertools import product
from typing import NamedTuple

import numpy as np
import torch
from constants import Constants, Rows, position_matrix
from descriptions import Description
from torch import Tensor
from torch.distributions import MultivariateNormal, Normal, VonMises, kl_divergence
from torch.special import i0, i1


class Affine(NamedTuple):
    """Variables mean + coefficients @ noise: the mean [G, Q, n, d], the coefficients [n, d, E]."""

    mean: Tensor
    coefficients: Tensor

    def times(self, matrix: Tensor) -> "Affine":
        return Affine(self.mean @ matrix, torch.einsum("nde,df->nfe", self.coefficients, matrix))

    def plus(self, other: "Affine") -> "Affine":
        return Affine(self.mean + other.mean, self.coefficients + other.coefficients)

    def plus_mean(self, mean: Tensor) -> "Affine":
        return Affine(self.mean + mean, self.coefficients)

    def flat(self) -> "Affine":
        return Affine(self.mean.flatten(-2), self.coefficients.flatten(0, 1))


@dataclass(frozen=True)
class Posterior:
    """The posterior of the classes and of the normal variables.

    Attributes:
        classes: the combinations of classes, [Q, n].
        log_joint: log p(x, c) of each combination, [G, Q], without the angles.
        mean: the mean of the latent scalars given the combination, [G, Q, M].
        cov: their covariance, [G, Q, M, M].
        drawn: which of the latent scalars count, [G, M].
    """

    classes: Tensor
    log_joint: Tensor
    mean: Tensor
    cov: Tensor
    drawn: Tensor

    @property
    def weights(self) -> Tensor:
        """The posterior probabilities of the combinations, [G, Q]."""
        return self.log_joint.softmax(-1)


def posterior(
    d: Description,
    c: Constants,
    rows: Rows,
    bias: Tensor | None = None,
    together: bool | None = None,
) -> Posterior:
    """Condition the normal variables on what is observed.

    Args:
        d: the description.
        c: its constants.
        rows: the examples.
        bias: the bias, in the place of that of the constants.
        together: whether all examples are one group; by default if a variable is global.
    """
    together = d.has_one_evidence if together is None else together
    n = len(rows.x) if together else 1
    x, observed, offset, drawn = (
        t.reshape(-1, n, t.shape[-1]) for t in (rows.x, rows.observed, rows.offset, rows.drawn)
    )
    classes = torch.tensor(list(product(range(max(d.classes, 1)), repeat=n)))
    latents, seen = _joint(d, c, classes, offset, c.bias if bias is None else bias)
    covs = seen.coefficients @ seen.coefficients.T
    is_seen = observed.flatten(1)[:, None]  # [G, 1, n F]
    both = is_seen[..., None] & is_seen[..., None, :]
    # What is not observed is replaced by an independent standard normal, seen at its mean.
    covs = torch.where(both, covs, torch.eye(covs.shape[-1], dtype=torch.float64))
    residual = torch.where(is_seen, x.flatten(1)[:, None] - seen.mean, 0.0)
    log_p = MultivariateNormal(torch.zeros(covs.shape[-1]).double(), covs).log_prob(residual)
    log_p = log_p + 0.5 * math.log(2 * math.pi) * (~is_seen).sum(-1)
    log_p = log_p + c.class_logits.log_softmax(-1)[classes].sum(-1)
    if d.emission:
        symbol = rows.symbol.reshape(-1, 1, n)
        log_p = log_p + c.symbol_log_probs[classes, symbol].sum(-1)
    cross = (latents.coefficients @ seen.coefficients.T) * is_seen[..., None, :]  # [G, 1, M, nF]
    gain = torch.linalg.solve(covs, cross.mT).mT
    mean = latents.mean + (gain @ residual[..., None])[..., 0]
    cov = latents.coefficients @ latents.coefficients.T - gain @ cross.mT
    of_all = [torch.ones(len(x), d.global_width, dtype=torch.bool)]
    of_all += [drawn.flatten(1)] * d.layers
    return Posterior(
        classes, log_p, mean, cov.expand(*mean.shape, mean.shape[-1]), torch.cat(of_all, 1)
    )


def _joint(
    d: Description, c: Constants, classes: Tensor, offset: Tensor, bias: Tensor
) -> tuple[Affine, Affine]:
    """Return all latent scalars [G, Q, M] and the observed ones [G, Q, n F]."""
    groups, n, width = offset.shape
    sizes = [d.global_width] + [n * width] * d.layers + [n * d.features]
    noise = iter(torch.eye(sum(sizes), dtype=torch.float64).split(sizes))

    def fresh(rows: int, scale: Tensor) -> Affine:
        coefficients = next(noise).reshape(rows, len(scale), sum(sizes)) * scale[:, None]
        return Affine(torch.zeros(groups, len(classes), rows, len(scale)).double(), coefficients)

    u = fresh(1, c.global_scale)
    latents = [u]
    if d.layers:
        z = fresh(n, c.prior_scale).plus(u.times(c.group))
        z = z.plus_mean(c.prior_mean[classes] + offset[:, None])
        latents.append(z)
        for _ in range(1, d.layers):
            z = z.times(c.step).plus(fresh(n, c.step_scale))
            latents.append(z)
        x = z.times(position_matrix(d) @ c.loading)
    else:
        x = u.times(c.global_x).plus_mean(c.class_x[classes])
    x = x.plus_mean(bias).plus(fresh(n, c.noise))
    flat = [latent.flat() for latent in latents]
    return (
        Affine(torch.cat([f.mean for f in flat], -1), torch.cat([f.coefficients for f in flat], 0)),
        x.flat(),
    )


def angle_posterior(c: Constants, rows: Rows) -> tuple[Tensor, Tensor]:
    """Return the location and the concentration of the angles' von Mises posterior, each [n]."""
    real = c.prior_concentration + c.angle_concentration * rows.angle.cos()
    imaginary = c.angle_concentration * rows.angle.sin()
    return torch.atan2(imaginary, real), torch.hypot(imaginary, real)


def angle_evidence(d: Description, c: Constants, rows: Rows) -> Tensor:
    """Log p(angle), [n]: the integral of a product of two densities.

    It has a closed form for two von Mises densities, and is computed by quadrature for an angle
    that is observed on a line.
    """
    if d.circle == "line":
        t, log_weight = _angle_grid()
        return (_angle_log_joint(d, c, rows, t) + log_weight).logsumexp(0)
    _, concentration = angle_posterior(c, rows)
    scales = torch.tensor([c.prior_concentration, c.angle_concentration]).double()
    return i0(concentration).log() - math.log(2 * math.pi) - i0(scales).log().sum()


def evidence(d: Description, c: Constants, rows: Rows) -> Tensor:
    """Log p(x): of each example, [n], or of the data set, [1], if a variable is global."""
    log_p = posterior(d, c, rows).log_joint.logsumexp(-1)
    return log_p + angle_evidence(d, c, rows) if d.circle else log_p


def _angle_grid() -> tuple[Tensor, Tensor]:
    """Return angles and the logarithms of their weights in an integral, by Gauss and Legendre."""
    points, weights = np.polynomial.legendre.leggauss(200)
    return math.pi * torch.tensor(points)[:, None], (math.pi * torch.tensor(weights)).log()[:, None]


def _angle_log_joint(d: Description, c: Constants, rows: Rows, t: Tensor) -> Tensor:
    """Log p(angle, t) of latent angles t, [count, n]."""
    prior = VonMises(torch.zeros(()).double(), torch.tensor(c.prior_concentration).double())
    concentration = torch.tensor(c.angle_concentration).double()
    seen = Normal(t, 1.0) if d.circle == "line" else VonMises(t, concentration)
    return prior.log_prob(t) + seen.log_prob(rows.angle)


@dataclass(frozen=True)
class Law:
    """The guide's distribution: of the combinations of classes, and of the latent scalars.

    Attributes:
        log_probs: log q(c), [G, Q]; None if the classes are summed out in the model.
        mean: [G, Q, M].
        cov: [G, Q, M, M].
        angle: location and concentration of the angles.
    """

    log_probs: Tensor | None
    mean: Tensor
    cov: Tensor
    angle: tuple[Tensor, Tensor] | None = None


def law(d: Description, p: Posterior, shift: Tensor, widen: Tensor) -> Law:
    """Return the guide's law: the posterior, shifted and widened.

    Args:
        d: the description.
        p: the posterior, from which no gradient is taken.
        shift: the shift of each latent scalar, in standard deviations, [M].
        widen: the logarithm of the factor of each scale, [M].
    """
    mean, cov = p.mean, p.cov
    log_probs = None
    if not keeps_classes(d):
        mean, cov = moments(p)
    if d.enumerate != "model":
        log_probs = class_log_probs(d, p)
    if d.guide == "full":
        return Law(log_probs, mean, cov)
    sd = cov.diagonal(dim1=-2, dim2=-1).sqrt()
    scale = sd * covering(cov)[..., None] * widen.exp()
    return Law(log_probs, mean + shift * sd, torch.diag_embed(scale.square()))


def keeps_classes(d: Description) -> bool:
    """Whether the guide's normal variables depend on the class that it drew."""
    return d.enumerate != "model" and not d.has_one_evidence


def moments(p: Posterior) -> tuple[Tensor, Tensor]:
    """Mean and covariance over all combinations, for each of them, [G, Q, M] and [G, Q, M, M]."""
    w = p.weights[..., None]
    mean = (w * p.mean).sum(1, keepdim=True)
    away = p.mean - mean
    cov = (w[..., None] * (p.cov + away[..., None] * away[..., None, :])).sum(1, keepdim=True)
    return mean.expand_as(p.mean), cov.expand_as(p.cov)


def covering(cov: Tensor) -> Tensor:
    """By how much the scales of independent normals cover a covariance in every direction."""
    if cov.shape[-1] < 2:
        return cov.new_ones(cov.shape[:-2])
    sd = cov.diagonal(dim1=-2, dim2=-1).sqrt()
    correlation = cov / sd[..., None] / sd[..., None, :]
    return torch.linalg.eigvalsh(correlation)[..., -1].sqrt()


def class_log_probs(d: Description, p: Posterior) -> Tensor:
    """Log q of the combinations, [G, Q]: independent classes, a little flatter than posterior."""
    marginal = class_marginals(d, p).log()  # [G, n, C]
    index = p.classes.T.expand(len(marginal), -1, -1)  # [G, n, Q]
    return marginal.gather(-1, index).sum(1)


def class_marginals(d: Description, p: Posterior) -> Tensor:
    """Q of the class of each example, [G, n, classes]."""
    count = max(d.classes, 1)
    one_hot = torch.nn.functional.one_hot(p.classes, count).double()  # [Q, n, C]
    exact = torch.einsum("gq,qnc->gnc", p.weights, one_hot)
    flat = 0.2 if d.shift else 0.0
    return (1 - flat) * exact + flat / count


def angle_law(d: Description, c: Constants, rows: Rows) -> tuple[Tensor, Tensor]:
    """Location and concentration of the guide's angles."""
    if d.circle == "line":
        return 0.5 * rows.angle, torch.ones_like(rows.angle)
    loc, concentration = angle_posterior(c, rows)
    return loc + 0.3 * d.shift, concentration * (0.8 if d.shift else 1.0)


def elbo(d: Description, c: Constants, rows: Rows, p: Posterior, q: Law) -> Tensor:
    """The ELBO of each group, [G], where the classes are drawn by the guide or there are none."""
    if q.log_probs is None and len(p.classes) > 1:
        raise ValueError("the classes are summed out: there is no closed form")
    log_q = torch.zeros_like(p.log_joint) if q.log_probs is None else q.log_probs
    counted = p.log_joint - _kl(q, p) - log_q
    value = torch.where(log_q > -math.inf, log_q.exp() * counted, 0.0).sum(-1)
    if d.circle:
        value = value + _angle_elbo(d, c, rows)
    return value


def _kl(q: Law, p: Posterior) -> Tensor:
    """KL of the guide's normal variables from the posterior's, of those that count, [G, Q]."""
    if p.mean.shape[-1] == 0:
        return torch.zeros_like(p.log_joint)
    counts = p.drawn[:, None]
    both = counts[..., None] & counts[..., None, :]
    eye = torch.eye(p.mean.shape[-1], dtype=torch.float64)
    return kl_divergence(
        MultivariateNormal(q.mean.where(counts, 0.0), torch.where(both, q.cov, eye)),
        MultivariateNormal(p.mean.where(counts, 0.0), torch.where(both, p.cov, eye)),
    )


def _angle_elbo(d: Description, c: Constants, rows: Rows) -> Tensor:
    law = angle_law(d, c, rows)
    if d.circle == "angle":
        return angle_evidence(d, c, rows) - _angle_kl(law, c, rows)
    t, log_weight = _angle_grid()
    log_q = VonMises(*law).log_prob(t)
    return ((log_q + log_weight).exp() * (_angle_log_joint(d, c, rows, t) - log_q)).sum(0)


def _angle_kl(law: tuple[Tensor, Tensor], c: Constants, rows: Rows) -> Tensor:
    loc, kappa = law
    true_loc, true_kappa = angle_posterior(c, rows)
    mean_cosine = i1(kappa) / i0(kappa)
    return (
        (i0(true_kappa) / i0(kappa)).log()
        + mean_cosine * kappa
        - mean_cosine * true_kappa * (loc - true_loc).cos()
    )


def log_joint(p: Posterior, z: Tensor) -> Tensor:
    """Log p(x, z) of latent scalars z, [count, M], of all examples together, [count]."""
    normal = MultivariateNormal(p.mean[0], p.cov[0])
    return (p.log_joint[0] + normal.log_prob(z[:, None])).logsumexp(-1)


def log_weights(
    d: Description, c: Constants, rows: Rows, p: Posterior, q: Law, count: int
) -> Tensor:
    """Draw log-weights from the closed forms, [count, G], differentiable in the law and in p."""
    groups, combinations, size = p.mean.shape
    if q.log_probs is None:
        index = torch.zeros(count, groups, dtype=torch.long)
    else:
        index = torch.multinomial(q.log_probs.exp(), count, replacement=True).T
    which = torch.arange(groups)
    total = torch.zeros(count, groups, dtype=torch.float64)
    if size:
        counts = p.drawn[:, None]
        both = counts[..., None] & counts[..., None, :]
        eye = torch.eye(size, dtype=torch.float64)
        q_cov = torch.where(both, q.cov, eye)
        mean, cov = q.mean[which, index], q_cov[which, index]
        guide = MultivariateNormal(mean, cov)
        z = guide.rsample()
        true = MultivariateNormal(p.mean, torch.where(both, p.cov, eye))
        z = z.where(counts[:, 0], mean)
        z_true = z.where(counts[:, 0], 0.0)
        true = MultivariateNormal(p.mean.where(counts, 0.0), true.covariance_matrix)
        log_true = true.log_prob(z_true[:, :, None])  # [count, G, Q]
        not_drawn = 0.5 * math.log(2 * math.pi) * (~counts[:, 0]).sum(-1)
        total = total - guide.log_prob(z) - not_drawn
        log_joint = p.log_joint + log_true + not_drawn[:, None]
    else:
        log_joint = p.log_joint.expand(count, groups, combinations)
    if q.log_probs is None:
        total = total + log_joint.logsumexp(-1)
    else:
        total = total + log_joint.gather(-1, index[..., None])[..., 0]
        total = total - q.log_probs[which, index]
    if d.circle:
        loc, kappa = angle_law(d, c, rows)
        t = VonMises(loc, kappa).sample((count,))
        total = total + _angle_log_joint(d, c, rows, t)
        total = total - VonMises(loc, kappa).log_prob(t)
    return total
