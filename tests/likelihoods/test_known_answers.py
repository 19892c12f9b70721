"""The log p(x) of tables whose code has four values: bounds against scipy's densities."""

from collections.abc import Callable
from functools import partial

import numpy as np
import pytest
import torch
from scipy import stats
from torch import Tensor

from pyro_vae import VAE, bounds, kinds, likelihoods, objectives, posteriors, priors, training
from pyro_vae.kinds import Counts, Kind, Ordered, Positive, Real
from pyro_vae.likelihoods import Likelihood, NegativeBinomial, Poisson
from pyro_vae.networks import Linear

N = 60
CODES = torch.cartesian_prod(torch.tensor([0.0, 1.0]), torch.tensor([0.0, 1.0]))
CATEGORIES = [["no", "yes"], [*"abcd"], ["low", "middle", "high"]]
UNIFORM = torch.rand(N, 3, generator=torch.Generator().manual_seed(1))
COUNTS = (UNIFORM.pow(-0.8) * torch.tensor([1.0, 4, 15])).floor()
CATEGORY_CODES = (UNIFORM * torch.tensor([2.0, 4, 3])).floor()
POSITIVE = 1000 * (2 * UNIFORM.logit()).exp()


def shares(likelihood: Likelihood, z: Tensor, x: Tensor) -> Tensor:
    """The means of counts with known totals, shape [4, N, 3]."""
    return likelihood.decode(z)[0].softmax(-1)[:, None] * x.sum(-1, keepdim=True)


def poisson(likelihood: Likelihood, z: Tensor, x: Tensor) -> Tensor:
    return stats.poisson(likelihood.decode(z)[0].exp()[:, None]).logpmf(x)


def inflated(likelihood: Likelihood, z: Tensor, x: Tensor) -> Tensor:
    mean, logit = likelihood.decode(z)
    gate = logit.sigmoid()[:, None]
    p = torch.as_tensor(stats.poisson(mean.exp()[:, None]).pmf(x))
    return torch.log((1 - gate) * p + gate * (x == 0))


def negative_binomial(likelihood: Likelihood, z: Tensor, x: Tensor) -> Tensor:
    mean, theta = shares(likelihood, z, x), likelihood.log_theta.exp()
    return stats.nbinom(theta, theta / (theta + mean)).logpmf(x)


def multinomial(likelihood: Likelihood, z: Tensor, x: Tensor) -> Tensor:
    share = likelihood.decode(z)[0].softmax(-1)
    x = x.int()
    rows = [stats.multinomial(x.sum(1).numpy(), p.numpy()).logpmf(x.numpy()) for p in share]
    return torch.as_tensor(np.array(rows))[..., None]


def categories(likelihood: Likelihood, z: Tensor, x: Tensor) -> Tensor:
    blocks = likelihood.decoder(z).split([2, 4, 3], -1)
    each = [block.log_softmax(-1)[:, x[:, i].long()] for i, block in enumerate(blocks)]
    return torch.stack(each, -1)


def cumulative_logit(likelihood: Likelihood, z: Tensor, x: Tensor) -> Tensor:
    infinity = torch.full((3, 1), torch.inf).double()
    edges = torch.cat([-infinity, likelihood.cutpoints, infinity], -1)
    below = torch.sigmoid(edges - likelihood.decoder(z)[..., None])  # shape [4, 3, K + 1]
    probability = below.diff(dim=-1)[:, None].expand(4, N, 3, -1)
    return probability.gather(-1, x.long()[None, ..., None].expand(4, N, 3, 1))[..., 0].log()


def log_normal(likelihood: Likelihood, z: Tensor, x: Tensor) -> Tensor:
    kind = likelihood.kind
    loc, scale = kind.in_units(likelihood.decode(z)[0], 1e-3 + likelihood.second.exp())
    return stats.lognorm(scale, scale=loc.exp()[:, None]).logpdf(x)


def gamma(likelihood: Likelihood, z: Tensor, x: Tensor) -> Tensor:
    log_mean, log_a = likelihood.decode(z)
    mean = likelihood.kind.in_units(log_mean, log_mean)[0].exp()
    a = log_a.exp()[:, None]
    return stats.gamma(a, scale=mean[:, None] / a).logpdf(x)


def logistics(likelihood: Likelihood, z: Tensor, x: Tensor) -> Tensor:
    outputs = torch.stack(likelihood.decode(z), -1)[:, None]
    loc, log_scale, logits = outputs.split(2, -1)
    unit = likelihood.kind.scale[:, None]
    loc = likelihood.kind.loc[:, None] + unit * loc
    p = stats.logistic(loc, unit * (1e-3 + log_scale.exp())).pdf(x[..., None])
    return (logits.softmax(-1) * torch.as_tensor(p)).sum(-1).log()


CASES: dict[str, tuple[Callable[..., Likelihood], Kind, Tensor, Callable[..., Tensor]]] = {
    "Poisson": (Poisson, Counts([3]), COUNTS, poisson),
    "zeros": (partial(Poisson, zero_inflation=True), Counts([3]), COUNTS, inflated),
    "NegativeBinomial of known totals": (
        partial(NegativeBinomial, total="known"),
        Counts([3]),
        COUNTS,
        negative_binomial,
    ),
    "Multinomial": (likelihoods.Multinomial, Counts([3]), COUNTS, multinomial),
    "Categories": (
        likelihoods.Categories,
        kinds.Categories([3], None, CATEGORIES),
        CATEGORY_CODES,
        categories,
    ),
    "CumulativeLogit": (
        likelihoods.CumulativeLogit,
        Ordered([3], None, CATEGORIES),
        CATEGORY_CODES,
        cumulative_logit,
    ),
    "LogNormal": (likelihoods.LogNormal, Positive([3]), POSITIVE, log_normal),
    "Gamma": (
        partial(likelihoods.Gamma, noise="per_example"),
        Positive([3]),
        POSITIVE,
        gamma,
    ),
    "LogisticMixture": (
        partial(likelihoods.LogisticMixture, components=2),
        Real([3]),
        500 + 9 * UNIFORM.logit(),
        logistics,
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_bounds_reach_the_exact_log_p(name: str) -> None:
    """The ELBO and IWAE of 5000 draws, after training, for the sum over the codes."""
    make, kind, stored, density = CASES[name]
    likelihood = make(2, kind.fitted(stored), Linear)
    kind = likelihood.kind
    vae = VAE(priors.Bernoulli(2), likelihood, posteriors.Bernoulli(kind.feature_shape, 2, Linear))
    vae.initialize(kind.stored_features(stored))
    x = kind.observe(stored)
    engine = training.EagerEngine(vae.model, vae.guide, objectives.ELBO(), lr=2e-2)
    for _ in range(100):
        engine.step(x)
    vae.eval()
    with torch.no_grad():
        log_p = torch.as_tensor(density(likelihood.double(), CODES.double(), x.double()))
        log_joint = log_p.sum(-1) + vae.prior().log_prob(CODES)[:, None]
        exact = log_joint.logsumexp(0)
        likelihood.float()
        q = vae.posterior(kind.features(x)).log_prob(CODES[:, None])
        elbo = (q.exp() * (log_joint - q)).sum(0)
    result = bounds.evaluate(vae.model, vae.guide, x, 5000)
    # Single precision has errors of 1e-6 relative to log p(x).
    rounding = 1e-6 * exact.abs().mean().item()
    assert abs(result.elbo.mean - elbo.mean().item()) < 4.5 * result.elbo.mc_se + rounding
    top = result.iwae[5000]
    assert abs(top.mean - exact.mean().item()) < 4.5 * top.mc_se + 1e-3 + rounding
    assert exact.mean() > elbo.mean()
