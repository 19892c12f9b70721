"""The gradients of every objective, compared with exact ones, and their signal-to-noise ratio.

Models are linear and Gaussian with a latent dimension or two, so that expectations over a few draws
are integrals that Gauss-Hermite quadrature gives to many digits.
"""

import math
from collections.abc import Callable
from functools import partial
from itertools import pairwise

import numpy as np
import pytest
import torch
from conftest import LinearGaussian
from torch import Tensor, nn

from pyro_vae import VAE, InputError, likelihoods, networks, posteriors, priors
from pyro_vae.diagnostics import refinement
from pyro_vae.objectives import (
    CIWAE,
    CUBO,
    ELBO,
    IWAE,
    MIWAE,
    PIWAE,
    RWS,
    TVO,
    AnalyticELBO,
    Objective,
    Renyi,
    TargetKL,
)
from pyro_vae.objectives.importance_weighted import Weights

X = torch.tensor([[0.7, -0.4, 1.1], [-1.0, 0.2, 0.3]], dtype=torch.float64)


@pytest.fixture
def vae() -> VAE:
    """A guide with wrong means and wrong scales, so that no gradient is zero."""
    vae = LinearGaussian(latent_dim=1, data_dim=3, misfit=0.8).vae
    with torch.no_grad():
        vae.posterior.encoder.bias[0] += 0.4
        vae.posterior.encoder.body[1].weight += 0.1
    return vae


def nodes(draws: int, points: int = 40) -> tuple[Tensor, Tensor]:
    """Quadrature for `draws` standard normals: points [draws, points ** draws], and weights."""
    x, w = np.polynomial.hermite_e.hermegauss(points)
    line, weight = torch.from_numpy(x), torch.from_numpy(w / w.sum())
    grid = torch.meshgrid(*[line] * draws, indexing="ij")
    weights = torch.meshgrid(*[weight] * draws, indexing="ij")
    return torch.stack([g.flatten() for g in grid]), torch.stack(weights).prod(0).flatten()


def expected(vae: VAE, x: Tensor, draws: int, reduce: Callable[[Tensor], Tensor]) -> Tensor:
    """The expectation of a function that maps log-weights [draws, points, N] to [points, N]."""
    noise, weight = nodes(draws)
    q = vae.posterior(x).base_dist
    z = q.loc + q.scale * noise[..., None, None]
    log_w = vae.likelihood(z).log_prob(x) + vae.prior().log_prob(z)
    log_w = log_w - vae.posterior(x).log_prob(z)
    return (reduce(log_w) * weight[:, None]).sum()


def log_mean_exp(log_w: Tensor, power: float = 1.0) -> Tensor:
    return ((power * log_w).logsumexp(0) - math.log(len(log_w))) / power


def first(log_w: Tensor) -> Tensor:
    return log_w[0]


EXACT: list[tuple[Objective, int, Callable[[Tensor], Tensor], Callable[[Tensor], Tensor]]] = [
    # objective, draws, the function whose expectation the model maximises, the same for the guide
    (ELBO(), 1, first, first),
    (ELBO(3), 1, first, first),
    (ELBO(3, gradient="stl"), 1, first, first),
    (AnalyticELBO(2), 1, first, first),
    (Renyi(2, alpha=1.0, gradient="dreg"), 1, first, first),
    *[(IWAE(2, g), 2, log_mean_exp, log_mean_exp) for g in ("plain", "dreg")],
    *[(MIWAE(2, 3, g), 2, log_mean_exp, log_mean_exp) for g in ("plain", "dreg")],
    *[(PIWAE(1, 2, g), 2, log_mean_exp, first) for g in ("plain", "stl", "dreg")],
    *[
        (Renyi(2, a, g), 2, partial(log_mean_exp, power=1 - a), partial(log_mean_exp, power=1 - a))
        for a, g in ((0.5, "plain"), (0.5, "dreg"), (-1.0, "dreg"), (2.0, "dreg"))
    ],
    *[
        (
            CIWAE(2, 0.3, g),
            2,
            lambda w: 0.3 * w.mean(0) + 0.7 * log_mean_exp(w),
            lambda w: 0.3 * w.mean(0) + 0.7 * log_mean_exp(w),
        )
        for g in ("plain", "dreg")
    ],
]


def split(vae: VAE) -> tuple[list[nn.Parameter], list[nn.Parameter]]:
    model = [p for p in vae.model.parameters() if p.requires_grad]
    return model, list(vae.guide.parameters())


def flat(gradients: list[Tensor]) -> Tensor:
    return torch.cat([gradient.flatten() for gradient in gradients])


def mean_gradient(
    objective: Objective, vae: VAE, x: Tensor, calls: int = 60, copies: int = 400
) -> tuple[Tensor, Tensor, Tensor]:
    """The mean gradient of the objective, its standard error, and which entries are the guide's."""
    many = x.repeat(copies, 1)
    parameters = [p for group in split(vae) for p in group]
    gradients_of_calls = []
    for _ in range(calls):
        loss = objective.differentiable_loss(vae.model, vae.guide, many)
        gradients = torch.autograd.grad(loss, parameters, allow_unused=True)
        parts = zip(gradients, parameters, strict=True)
        gradients_of_calls.append(
            flat([torch.zeros_like(p) if g is None else -g / copies for g, p in parts])
        )
    each = torch.stack(gradients_of_calls)
    guides = flat([torch.ones_like(p) for p in split(vae)[1]]).numel()
    of_guide = torch.arange(each.shape[1]) >= each.shape[1] - guides
    return each.mean(0), each.std(0) / calls**0.5, of_guide


def exact_gradient(
    vae: VAE, x: Tensor, draws: int, model: Callable[..., Tensor], guide: Callable[..., Tensor]
) -> Tensor:
    parts = []
    for parameters, reduce in zip(split(vae), (model, guide), strict=True):
        value = expected(vae, x, draws, reduce)
        parts += list(torch.autograd.grad(value, parameters))
    return flat(parts)


def assert_near(mean: Tensor, error: Tensor, exact: Tensor) -> None:
    """Each entry is within 4.5 standard errors, and these are small."""
    assert ((mean - exact).abs() < 4.5 * error + 1e-9).all(), ((mean - exact) / error, exact)
    assert error.norm() < 0.05 * exact.norm()


@pytest.mark.parametrize(
    ("objective", "draws", "model", "guide"),
    EXACT,
    ids=lambda v: type(v).__name__ if isinstance(v, Objective) else "",
)
def test_mean_gradient_is_exact(
    objective: Objective,
    draws: int,
    model: Callable[..., Tensor],
    guide: Callable[..., Tensor],
    vae: VAE,
) -> None:
    mean, error, _ = mean_gradient(objective, vae, X)
    assert_near(mean, error, exact_gradient(vae, X, draws, model, guide))


class Mutant(IWAE):
    """DReG with wrong weights."""

    def __init__(self, model: float, doubly: float) -> None:
        super().__init__(2, "dreg")
        self.powers = model, doubly

    def weights(self, log_w: Tensor) -> Weights:
        w = log_w.softmax(0)
        model, doubly = (w**power for power in self.powers)
        return Weights(model, w, doubly)


@pytest.mark.parametrize("powers", [(1.0, 1.0), (2.0, 2.0), (1.0, 3.0)])
def test_wrong_weights_are_detected(powers: tuple[float, float], vae: VAE) -> None:
    exact = exact_gradient(vae, X, 2, log_mean_exp, log_mean_exp)
    mean, error, _ = mean_gradient(Mutant(1.0, 2.0), vae, X)
    assert_near(mean, error, exact)
    mean, error, _ = mean_gradient(Mutant(*powers), vae, X)
    assert ((mean - exact).abs() > 8 * error).any()


def test_sticking_the_landing_in_iwae_is_biased_as_it_says(vae: VAE) -> None:
    """The mean is the gradient of sum_k w_k path_k, not IWAE's gradient."""
    mean, error, of_guide = mean_gradient(IWAE(2, "stl"), vae, X)
    noise, weight = nodes(2)
    q = vae.posterior(X).base_dist
    z = q.loc + q.scale * noise[..., None, None]
    fixed = torch.distributions.Normal(q.loc.detach(), q.scale.detach())
    log_w = vae.likelihood(z).log_prob(X) + vae.prior().log_prob(z) - fixed.log_prob(z).sum(-1)
    w = log_w.detach().softmax(0)
    value = ((w * log_w).sum(0) * weight[:, None]).sum()
    exact = flat(list(torch.autograd.grad(value, split(vae)[1], retain_graph=True)))
    assert_near(mean[of_guide], error[of_guide], exact)
    unbiased = exact_gradient(vae, X, 2, log_mean_exp, log_mean_exp)[of_guide]
    assert ((mean[of_guide] - unbiased).abs() > 8 * error[of_guide]).any()


def quadrature(vae: VAE, x: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """A fine, even grid of z, log p(x, z), log q(z|x), and the logarithm of its spacing."""
    z = torch.linspace(-9, 9, 2001, dtype=torch.float64)[:, None, None]
    log_p = vae.likelihood(z).log_prob(x) + vae.prior().log_prob(z)
    log_q = vae.posterior(x).log_prob(z.expand(-1, len(x), 1))
    return z, log_p, log_q, (z[1] - z[0]).log().squeeze()


def consistent_gradient(make: Callable[[int], Objective], vae: VAE) -> tuple[Tensor, Tensor]:
    """The mean gradient extrapolated to K = infinity, for a bias of order 1/K, and its error."""
    half, half_error, _ = mean_gradient(make(100), vae, X, calls=60, copies=150)
    full, full_error, _ = mean_gradient(make(200), vae, X, calls=60, copies=150)
    return 2 * full - half, (4 * full_error**2 + half_error**2).sqrt()


def test_tvo_gradient(vae: VAE) -> None:
    mean, error = consistent_gradient(partial(TVO, terms=3, first=0.2), vae)
    _, log_p, log_q, spacing = quadrature(vae, X)
    points = TVO(2, terms=3, first=0.2).points
    assert points == pytest.approx([0.0, 0.2, 0.2**0.5, 1.0])
    value = torch.zeros(())
    for t, following in pairwise(points):
        pi = (t * log_p + (1 - t) * log_q).softmax(0)
        value = value + (following - t) * (pi * (log_p - log_q)).sum()
    gradients = torch.autograd.grad(value, [p for group in split(vae) for p in group])
    assert_near(mean, error, flat(list(gradients)))
    evidence = (log_p + spacing).logsumexp(0).sum()
    objective = TVO(2000, terms=3, first=0.2)
    losses = torch.stack(
        [objective.differentiable_loss(vae.model, vae.guide, X).detach() for _ in range(50)]
    )
    assert value.item() < evidence.item()
    assert abs(losses.mean() + value) < 4.5 * losses.std() / 50**0.5


@pytest.mark.parametrize("order", [2.0, 1.5])
def test_cubo_gradient(order: float) -> None:
    """The gradient of the upper bound itself, not of the mean of its K-draw estimate."""
    # A wide guide, for which w^2 has a finite variance.
    vae = LinearGaussian(latent_dim=1, data_dim=3, misfit=1.3).vae
    with torch.no_grad():
        vae.posterior.encoder.bias[0] += 0.2
    mean, error = consistent_gradient(partial(CUBO, order=order), vae)
    _, log_p, log_q, spacing = quadrature(vae, X)
    upper = (order * log_p + (1 - order) * log_q + spacing).logsumexp(0).sum() / order
    evidence = (log_p + spacing).logsumexp(0).sum()
    assert upper.item() > evidence.item() + 0.01
    model, guide = split(vae)
    exact = list(torch.autograd.grad(evidence, model, retain_graph=True))
    exact += list(torch.autograd.grad(-upper, guide))
    assert_near(mean, error, flat(exact))


@pytest.mark.parametrize("phase", ["wake", "sleep", "both"])
def test_reweighted_wake_sleep_gradient(phase: str, vae: VAE) -> None:
    mean, error = consistent_gradient(partial(RWS, guide=phase), vae)
    model, guide = split(vae)
    _, log_p, log_q, spacing = quadrature(vae, X)
    evidence = (log_p + spacing).logsumexp(0).sum()
    exact = list(torch.autograd.grad(evidence, model, retain_graph=True))
    wake = (log_p.detach().softmax(0) * log_q).sum()
    # E[log q(z|x)] over x and z from the model, by quadrature over z and the noise of x.
    with torch.no_grad():
        weight, bias = vae.likelihood.decoder.body[1].weight, vae.likelihood.decoder.bias
        noise = vae.likelihood.log_scale.exp()
    at, chance = nodes(4, 12)
    z = at[0][:, None]
    x = z @ weight.T + bias + noise * at[1:].T
    sleep = (chance * vae.posterior(x).log_prob(z)).sum() * len(X)
    share = {"wake": 1.0, "both": 0.5, "sleep": 0.0}[phase]
    exact += list(torch.autograd.grad(share * wake + (1 - share) * sleep, guide))
    assert_near(mean, error, flat(exact))


def test_a_posterior_that_is_exact_leaves_no_noise() -> None:
    """For sticking the landing (Roeder et al. 2017) and DReG."""
    exact = LinearGaussian(latent_dim=1, misfit=1.0).vae
    x = torch.randn(5, 4, dtype=torch.float64)
    for objective in (ELBO(gradient="stl"), IWAE(4, "stl"), IWAE(4, "dreg"), MIWAE(2, 2, "dreg")):
        exact.zero_grad()
        objective.loss_and_grads(exact.model, exact.guide, x)
        assert all(p.grad.abs().max() < 1e-5 for p in exact.guide.parameters())
    exact.zero_grad()
    ELBO().loss_and_grads(exact.model, exact.guide, x)
    assert all(p.grad.abs().max() > 1e-2 for p in exact.guide.parameters())


def guide_gradients(objective: Objective, vae: VAE, copies: int) -> Tensor:
    """Independent gradients with respect to the encoder's output for one x, [copies, 2]."""
    x = X[:1].expand(copies, 3)
    local = refinement.refine(vae.model, vae.guide, x, steps=0)
    encoded = local.posterior.encoder.encoded
    loss = objective.differentiable_loss(vae.model, local, x)
    (gradient,) = torch.autograd.grad(loss, [encoded])
    return gradient.flatten(1)


def test_signal_to_noise() -> None:
    """IWAE's falls as 1 / sqrt(K) (Rainforth et al. 2018), DReG's and STL's do not (Tucker 2019).

    The slopes are of log SNR against log K, the mean over the encoder's two answers. DReG's grows
    as sqrt(K): its variance falls as 1 / K^3 here, where the plain one's falls as 1 / K.
    """
    # A wide guide, near its optimum: with a narrow guide the weights have no finite variance.
    vae = LinearGaussian(latent_dim=1, data_dim=3, misfit=1.3).vae
    with torch.no_grad():
        vae.posterior.encoder.bias[0] += 0.1
    ladder = [8, 32, 128]
    means, deviations = {}, {}
    for gradient in ("plain", "stl", "dreg"):
        each = [guide_gradients(IWAE(k, gradient), vae, 2000) for k in ladder]
        means[gradient] = torch.stack([gradients.mean(0).abs() for gradients in each])
        deviations[gradient] = torch.stack([gradients.std(0) for gradients in each])
    # Both have the same mean, and DReG's estimate of it is far better.
    error = deviations["plain"] / 2000**0.5
    assert ((means["plain"] - means["dreg"]).abs() < 4.5 * error).all()
    means["plain"] = means["dreg"]
    slopes = {}
    for gradient, deviation in deviations.items():
        ratio = (means[gradient] / deviation).log().mean(1)
        slopes[gradient] = np.polyfit(np.log(ladder), ratio, 1)[0]
    assert -0.6 < slopes["plain"] < -0.4
    assert slopes["dreg"] > 0.4 and slopes["stl"] > 0.4
    for gradient in ("stl", "dreg"):
        assert (deviations[gradient].square() < deviations["plain"].square() / 3).all()


@pytest.mark.parametrize("family", [posteriors.IAF, posteriors.SplineFlow, posteriors.FullNormal])
def test_paths_of_any_guide(family: type[posteriors.Posterior]) -> None:
    """For flows too, the estimators have the same mean, and differ in single draws."""
    torch.manual_seed(1)
    truth = LinearGaussian(latent_dim=2, data_dim=3).vae
    small = partial(networks.MLP, widths=[5])
    guide = VAE(truth.prior, truth.likelihood, family([3], 2, small)).double().guide
    parameters = [guide.posterior.encoder.bias, *list(guide.parameters())[-4:]]
    means, variances = {}, {}
    for gradient in ("plain", "dreg"):
        each = []
        for _ in range(30):
            loss = IWAE(3, gradient).differentiable_loss(truth.model, guide, X.repeat(200, 1))
            each.append(flat(list(torch.autograd.grad(loss, parameters))))
        stacked = torch.stack(each)
        means[gradient], variances[gradient] = stacked.mean(0), stacked.var(0) / 30
    difference = (means["plain"] - means["dreg"]).abs()
    error = (variances["plain"] + variances["dreg"]).sqrt()
    assert (difference < 4.5 * error + 1e-9).all()
    assert (means["dreg"].abs() > 10 * error).any()  # the mean is not zero
    assert (difference > 0).any()


def test_score_function_of_discrete_codes() -> None:
    """`ELBO`, `TVO`, `RWS` and `CUBO` train discrete guides; gradients are exact by enumeration."""
    torch.manual_seed(0)
    vae = VAE(
        priors.Bernoulli(2),
        likelihoods.Gaussian(2, [3], networks.Linear, scale=0.7, noise="fixed"),
        posteriors.Bernoulli([3], 2, networks.Linear),
    ).double()
    vae.eval()  # codes are 0 or 1
    z = torch.cartesian_prod(*[torch.tensor([0.0, 1.0], dtype=torch.float64)] * 2)[:, None]
    z = z.expand(4, len(X), 2)
    log_p = vae.likelihood(z).log_prob(X) + vae.prior().log_prob(z)
    log_q = vae.posterior(X).log_prob(z)
    parameters = [p for group in split(vae) for p in group]
    log_prior = vae.prior().log_prob(z)
    for objective, beta in ((ELBO(2), 1.0), (AnalyticELBO(2), 1.0), (ELBO(2, beta=0.4), 0.4)):
        mean, error, _ = mean_gradient(objective, vae, X)
        value = (log_q.exp() * (log_p - log_prior - beta * (log_q - log_prior))).sum()
        exact = flat(list(torch.autograd.grad(value, parameters, retain_graph=True)))
        assert_near(mean, error, exact)
    mean, error = consistent_gradient(RWS, vae)
    model, guide = split(vae)
    exact = list(torch.autograd.grad(log_p.logsumexp(0).sum(), model, retain_graph=True))
    wake = (log_p.detach().softmax(0) * log_q).sum()
    exact += list(torch.autograd.grad(wake, guide, retain_graph=True))
    assert_near(mean, error, flat(exact))
    mean, error = consistent_gradient(partial(TVO, terms=2, first=0.3), vae)
    value = torch.zeros(())
    for t, following in ((0.0, 0.3), (0.3, 1.0)):
        pi = (t * log_p + (1 - t) * log_q).softmax(0)
        value = value + (following - t) * (pi * (log_p - log_q)).sum()
    exact = list(torch.autograd.grad(value, parameters, retain_graph=True))
    assert_near(mean, error, flat(exact))
    mean, error = consistent_gradient(CUBO, vae)
    exact = list(torch.autograd.grad(log_p.logsumexp(0).sum(), model, retain_graph=True))
    upper = (2 * log_p - log_q).logsumexp(0).sum() / 2
    exact += list(torch.autograd.grad(-upper, guide, retain_graph=True))
    assert_near(mean, error, flat(exact))
    for refused in (IWAE(), MIWAE(), ELBO(gradient="stl"), TargetKL()):
        with pytest.raises(InputError, match="is not reparameterised"):
            refused.differentiable_loss(vae.model, vae.guide, X)
