"""Linear Gaussian VAEs of data with holes, whose answers are known in closed form."""

import pyro
import torch
from torch import Tensor

from pyro_vae import VAE, kinds, likelihoods, networks, posteriors, priors
from pyro_vae.likelihoods import ObservedEntries


def with_holes(stored: Tensor, share: float = 0.5) -> Tensor:
    """Return examples of which the first has nothing observed, and the second everything."""
    holes = torch.rand(stored.shape) < share
    holes[0], holes[1] = True, False
    return torch.where(holes, torch.nan, stored)


def factor_analysis(x: Tensor, train: int = 600) -> tuple[VAE, Tensor]:
    """Return a linear VAE that has seen x, and its exact log p(x_observed), in closed form."""
    torch.manual_seed(1)
    pyro.clear_param_store()
    likelihood = ObservedEntries(likelihoods.Gaussian(2, kinds.Real(x.shape[1:]), networks.Linear))
    likelihood.fit_kind(x)
    posterior = posteriors.FullNormal(likelihood.kind.feature_shape, 2, networks.Linear)
    vae = VAE(priors.StandardNormal(2), likelihood, posterior)
    vae.initialize(likelihood.kind.stored_features(x))
    svi = pyro.infer.SVI(
        vae.model, vae.guide, pyro.optim.Adam({"lr": 1e-2}), pyro.infer.Trace_ELBO()
    )
    for _ in range(train):
        svi.step(x)
    vae.eval()
    return vae, exact_log_p(vae, x)


def exact_log_p(vae: VAE, x: Tensor) -> Tensor:
    """Return log p(x_observed) under a linear Gaussian model, in closed form."""
    mean, covariance = joint_moments(vae)
    exact = []
    for row in x.double():
        there = ~row.isnan()
        if there.any():
            own = covariance[there][:, there]
            normal = torch.distributions.MultivariateNormal(mean[there], own)
            exact.append(normal.log_prob(row[there]))
        else:
            exact.append(torch.zeros((), dtype=torch.float64))
    return torch.stack(exact)


def joint_moments(vae: VAE) -> tuple[Tensor, Tensor]:
    """Return the mean and the covariance of x under a linear Gaussian model."""
    gaussian = vae.likelihood
    if isinstance(gaussian, ObservedEntries):
        gaussian = gaussian.whole
    assert isinstance(gaussian, likelihoods.Gaussian)
    kind = gaussian.kind
    assert isinstance(kind, kinds.Real)
    (weight,) = [p for p in gaussian.decoder.parameters() if p.dim() == 2]
    loc, scale = kind.in_units(gaussian.decoder.bias, gaussian.log_scale.exp())
    loadings = (kind.scale.unsqueeze(1) * weight).double()
    covariance = loadings @ loadings.T + scale.double().square().diag()
    return loc.detach().double(), covariance.detach()


def correlated(count: int = 60) -> Tensor:
    torch.manual_seed(0)
    loadings = torch.randn(2, 4) * torch.tensor([1, 1, 5.0, 0.1])
    noise = torch.randn(count, 4) * torch.tensor([0.5, 0.3, 2, 0.05])
    return torch.randn(count, 2) @ loadings + noise + torch.tensor([0, -2, 30.0, 0])
