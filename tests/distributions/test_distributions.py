"""Distributions against quadrature, exact arithmetic, closed forms, and torch if accurate."""

import math
from collections.abc import Callable
from decimal import Decimal, localcontext
from itertools import pairwise

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro import poutine
from torch import Tensor
from torch.distributions import ContinuousBernoulli as Reference
from torch.distributions.kl import kl_divergence
from torch.nn.functional import logsigmoid, normalize

from pyro_vae.distributions import (
    ContinuousBernoulli,
    CumulativeLogit,
    DiscretizedLogistic,
    Expandable,
    Gamma,
    Multinomial,
    NegativeBinomial,
    NormalMixture,
    Poisson,
    PowerSpherical,
    Resampled,
    UniformSphere,
    ZeroInflated,
    mixture,
)

LOGITS = torch.tensor(
    [-900, -100.0, -40, -10, -1, -0.41, -0.39, -1e-4, 0, 1e-7, 0.2, 0.4, 3, 20, 100]
)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_density_integrates_to_one_and_has_its_mean(dtype: torch.dtype) -> None:
    x = ((torch.arange(2_000_000, dtype=torch.float64) + 0.5) / 2_000_000).to(dtype)
    tolerance = 2e-5 if dtype == torch.float32 else 1e-6
    for logit in LOGITS.to(dtype):
        p = ContinuousBernoulli(logit)
        mass = p.log_prob(x).double().exp()
        # In single precision logit * x has a relative error of 1e-7.
        slack = tolerance + (2e-7 * abs(logit.item()) if dtype == torch.float32 else 0)
        assert abs(mass.mean().item() - 1) < slack, logit
        assert abs((mass * x.double()).mean().item() - p.mean.item()) < slack, logit


def test_agrees_with_torch_for_moderate_logits() -> None:
    logits = torch.linspace(-12, 12, 101, dtype=torch.float64)
    x = torch.rand(50, 101, dtype=torch.float64)
    ours, theirs = ContinuousBernoulli(logits), Reference(logits=logits)
    torch.testing.assert_close(ours.log_prob(x), theirs.log_prob(x), atol=1e-6, rtol=0)
    torch.testing.assert_close(ours.mean, theirs.mean, atol=1e-6, rtol=0)


def test_samples_follow_the_density() -> None:
    p = ContinuousBernoulli(LOGITS)
    x = p.sample((40_000,)).double()
    assert x.min() >= 0 and x.max() <= 1
    error = x.std(0) / len(x) ** 0.5
    assert ((x.mean(0) - p.mean).abs() < 4.5 * error + 1e-7).all()
    # F(x) is uniform: F = expm1(logit x) / expm1(logit).
    slope = LOGITS.double()
    steep = slope.abs() > 1e-3
    uniform = torch.expm1(slope * x)[:, steep] / torch.expm1(slope[steep])
    assert ((uniform.mean(0) - 0.5).abs() < 4.5 * (1 / 12 / len(x)) ** 0.5).all()
    assert ((uniform.var(0) - 1 / 12).abs() < 0.002).all()


def test_gradients() -> None:
    logits = LOGITS.double().requires_grad_()
    x = torch.rand(15, dtype=torch.float64)
    assert torch.autograd.gradcheck(lambda v: ContinuousBernoulli(v).log_prob(x), logits)
    # d log p / d logits = x - mean; any other expected value would lose digits by cancellation.
    single = LOGITS.clone().requires_grad_()
    ContinuousBernoulli(single).log_prob(x.float()).sum().backward()
    expected = x - ContinuousBernoulli(LOGITS.double()).mean
    torch.testing.assert_close(single.grad.double(), expected, atol=2e-6, rtol=0)
    moderate = torch.tensor([-30.0, -2, 0.5, 8], dtype=torch.float64, requires_grad=True)

    def sample(v: torch.Tensor) -> torch.Tensor:
        torch.manual_seed(0)
        return ContinuousBernoulli(v).rsample((3,))

    assert torch.autograd.gradcheck(sample, moderate)


def test_shapes_and_support() -> None:
    p = ContinuousBernoulli(torch.zeros(3, 1)).expand((2, 3, 1))
    assert p.batch_shape == (2, 3, 1) and p.sample((5,)).shape == (5, 2, 3, 1)
    assert p.to_event(1).log_prob(torch.rand(2, 3, 1)).shape == (2, 3)
    with pytest.raises(ValueError, match="support"):
        p.log_prob(torch.tensor(1.1))
    with pytest.raises(ValueError, match="logits"):
        ContinuousBernoulli(torch.tensor(float("nan")))


def assert_mean(samples: Tensor, expected: Tensor | float, slack: float = 0.0) -> None:
    """Assert that the mean over the first dimension is as expected, within 4.5 standard errors."""
    samples = samples.double()
    error = samples.std(0) / len(samples) ** 0.5
    deviation = (samples.mean(0) - expected).abs()
    assert (deviation <= 4.5 * error + slack).all(), (deviation / (error + 1e-300)).max()


def axis(dim: int, kind: str, dtype: torch.dtype = torch.float64) -> Tensor:
    if kind == "random":
        return normalize(torch.randn(dim, dtype=dtype), dim=-1)
    loc = torch.zeros(dim, dtype=dtype)
    loc[0 if kind != "e2" else 1] = -1.0 if kind == "-e1" else 1.0
    return loc


AXES = ["random", "e1", "-e1", "e2"]


@pytest.mark.parametrize("concentration", [1e-3, 0.3, 1, 20, 1e4])
@pytest.mark.parametrize("kind", AXES)
def test_power_spherical_integrates_to_one(concentration: float, kind: str) -> None:
    kappa = torch.tensor(concentration, dtype=torch.float64)
    n = 200_000
    middle = (torch.arange(n, dtype=torch.float64) + 0.5) / n
    angle = 2 * math.pi * middle
    circle = torch.stack([angle.cos(), angle.sin()], -1)
    mass = PowerSpherical(axis(2, kind), kappa).log_prob(circle).exp().mean() * 2 * math.pi
    assert abs(mass.item() - 1) < 1e-5
    loc = axis(3, kind)
    across = normalize(torch.linalg.cross(loc, axis(3, "random")), dim=-1)
    # Equal steps of height have equal areas. The points are denser at the top: cos = 1 - 2 s^2,
    # d cos = -4 s ds.
    cos = (1 - 2 * middle**2).unsqueeze(-1)
    points = cos * loc + (1 - cos**2).sqrt() * across
    mass = 2 * math.pi * (PowerSpherical(loc, kappa).log_prob(points).exp() * 4 * middle).mean()
    assert abs(mass.item() - 1) < 1e-6
    if concentration <= 20:
        uniform = UniformSphere(10, like=kappa)
        points = uniform.sample((100_000,))
        p = PowerSpherical(axis(10, kind), kappa)
        assert_mean((p.log_prob(points) - uniform.log_prob(points)).exp(), 1.0)


def test_power_spherical_kernel() -> None:
    loc, kappa = axis(5, "random"), torch.tensor(3.7, dtype=torch.float64)
    z = UniformSphere(5, like=loc).sample((100,))
    log_p = PowerSpherical(loc, kappa).log_prob(z)
    kernel = kappa * torch.log1p(z @ loc)
    torch.testing.assert_close(log_p - log_p[0], kernel - kernel[0])
    single = PowerSpherical(loc.float(), torch.tensor(1e4))
    z = single.sample((1000,))
    double = PowerSpherical(normalize(single.loc.double(), dim=-1), torch.tensor(1e4).double())
    expected = double.log_prob(normalize(z.double(), dim=-1))
    # log p is about 10 nats, and single precision gives it an error of 1e-6. The exponent is about
    # d / 2. It comes from differences z - loc of 0.01 with errors of 1e-7: 1e-5 relative to it.
    torch.testing.assert_close(single.log_prob(z).double(), expected, atol=2e-4, rtol=0)


def second_moment(loc: Tensor, kappa: Tensor) -> Tensor:
    """E[z z'], in closed form."""
    b = (loc.shape[-1] - 1) / 2
    a = b + kappa
    square = 4 * a * b / ((a + b) ** 2 * (a + b + 1)) + ((a - b) / (a + b)) ** 2
    outer = torch.outer(loc, loc)
    eye = torch.eye(len(loc), dtype=loc.dtype)
    return square * outer + (1 - square) / (len(loc) - 1) * (eye - outer)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("kind", AXES)
@pytest.mark.parametrize("dim", [2, 3, 10])
def test_power_spherical_samples(dim: int, kind: str, dtype: torch.dtype) -> None:
    loc = axis(dim, kind, dtype)
    for concentration in [1e-3, 0.5, 4.0, 100.0, 1e4]:
        p = PowerSpherical(loc, torch.tensor(concentration, dtype=dtype))
        z = p.sample((30_000,))
        assert z.dtype == dtype and p.support.check(z).all()
        assert p.log_prob(z).isfinite().all()
        assert_mean(z, p.mean.double(), slack=1e-6)
        expected = second_moment(loc.double(), p.concentration.double())
        assert_mean(z.unsqueeze(-1) * z.unsqueeze(-2), expected, slack=1e-6)
        assert_mean(-p.log_prob(z), p.entropy().double(), slack=2e-4 if dim > 9 else 2e-5)


@pytest.mark.parametrize("dim", [2, 3, 10])
def test_power_spherical_kl_from_uniform(dim: int) -> None:
    kappa = torch.tensor([1e-3, 0.1, 1, 30, 1e4], dtype=torch.float64)
    p = PowerSpherical(axis(dim, "random"), kappa)
    uniform = UniformSphere(dim, like=kappa)
    kl = kl_divergence(p, uniform)
    z = p.sample((50_000,))
    assert_mean(p.log_prob(z) - uniform.log_prob(z), kl)
    assert kl.shape == (5,) and (kl.diff() > 0).all()
    least = kl_divergence(PowerSpherical(p.loc[0], kappa[0] * 1e-3), uniform)
    assert -1e-13 < least < 1e-11  # the KL is of second order in the concentration
    with pytest.raises(ValueError, match="dimensions"):
        kl_divergence(p, UniformSphere(dim + 1))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("kind", AXES)
@pytest.mark.parametrize("dim", [2, 3, 10])
def test_power_spherical_pathwise_gradients(dim: int, kind: str, dtype: torch.dtype) -> None:
    n = 30_000
    direction = torch.randn(dim, dtype=torch.float64)
    loc = axis(dim, kind)
    for concentration in [1e-3, 0.5, 4.0, 100.0, 1e4]:
        v, kappa = loc.clone().requires_grad_(), torch.tensor(concentration).double()
        kappa.requires_grad_()
        unit = v / v.norm()
        shrink = kappa / (kappa + dim - 1)
        exact = [shrink * direction @ unit, direction @ second_moment(unit, kappa) @ direction]
        for power, value in enumerate(exact, 1):
            expected = torch.autograd.grad(value, [v, kappa], retain_graph=True)
            vs = loc.to(dtype).repeat(n, 1).requires_grad_()
            kappas = torch.full((n,), concentration, dtype=dtype, requires_grad=True)
            z = PowerSpherical(vs / vs.norm(dim=-1, keepdim=True), kappas).rsample()
            total = ((z @ direction.to(dtype)) ** power).sum()
            for got, want in zip(torch.autograd.grad(total, [vs, kappas]), expected, strict=True):
                assert got.isfinite().all()
                # In single precision z has an error of 1e-7, and its gradient a similar one.
                assert_mean(got, want, slack=1e-6)


def test_power_spherical_gradients_of_log_prob() -> None:
    v = torch.randn(4, 3, dtype=torch.float64, requires_grad=True)
    kappa = torch.tensor([0.2, 1, 10, 400], dtype=torch.float64, requires_grad=True)
    x = torch.randn(4, 3, dtype=torch.float64, requires_grad=True)

    def unit(u: Tensor) -> Tensor:
        return u / u.norm(dim=-1, keepdim=True)

    def log_prob(v: Tensor, kappa: Tensor, x: Tensor) -> Tensor:
        return PowerSpherical(unit(v), kappa).log_prob(unit(x))

    assert torch.autograd.gradcheck(log_prob, (v, kappa, x))
    assert torch.autograd.gradcheck(
        lambda k: kl_divergence(PowerSpherical(unit(v.detach()), k), UniformSphere(3, v)), kappa
    )
    # At the poles themselves.
    for sign in [1.0, -1.0]:
        loc = torch.tensor([1.0, 0, 0], requires_grad=True)
        single = torch.tensor(5.0, requires_grad=True)
        log_p = PowerSpherical(loc, single).log_prob(torch.tensor([sign, 0, 0]))
        log_p.backward()
        assert log_p.isfinite() and loc.grad.isfinite().all() and single.grad.isfinite()


@pytest.mark.parametrize("dim", [2, 3, 10])
def test_uniform_sphere(dim: int) -> None:
    p = UniformSphere(dim)
    z = p.sample((50_000,))
    assert z.dtype == torch.float32 and p.support.check(z).all()
    assert_mean(z, p.mean.double())
    assert_mean(z.unsqueeze(-1) * z.unsqueeze(-2), torch.eye(dim).double() / dim, slack=1e-6)
    area = {2: 2 * math.pi, 3: 4 * math.pi, 10: math.pi**5 / 12}[dim]
    assert abs(p.log_prob(z[0]).item() + math.log(area)) < 1e-6
    assert abs(p.entropy().item() - math.log(area)) < 1e-6


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("levels", [2, 16, 256])
def test_discretized_logistic_sums_to_one(levels: int, dtype: torch.dtype) -> None:
    loc = torch.tensor([-50, -1, 0, 0.5, 3.3, 100.48, 128, 254.5, 255, 300], dtype=dtype)
    scale = torch.tensor([0.02, 0.1, 0.7, 5, 40, 1000], dtype=dtype).unsqueeze(-1)
    p = DiscretizedLogistic(loc, scale, levels)
    k = torch.arange(levels, dtype=dtype).reshape(-1, 1, 1)
    mass = p.log_prob(k).exp()
    tolerance = 1e-12 if dtype == torch.float64 else 1e-5
    torch.testing.assert_close(mass.sum(0), torch.ones(6, 10).to(dtype), atol=tolerance, rtol=0)
    mean = (mass * k).sum(0)
    torch.testing.assert_close(p.mean, mean, atol=tolerance * levels, rtol=0)


def exact_discretized_logistic(k: int, loc: float, scale: float) -> tuple[float, float, float]:
    """Return log P and its derivatives by loc and scale, from the definition, with 60 digits."""
    if k > loc:  # otherwise both terms could be nearly one
        log_p, by_loc, by_scale = exact_discretized_logistic(255 - k, 255 - loc, scale)
        return log_p, -by_loc, by_scale
    with localcontext() as context:
        context.prec = 60
        s = Decimal(scale)
        mass, by_loc, by_scale = Decimal(0), Decimal(0), Decimal(0)
        for sign in [1, -1]:
            if sign == 1 and k == 255:
                mass += 1
            elif sign == 1 or k > 0:
                u = (Decimal(k) + sign * Decimal("0.5") - Decimal(loc)) / s
                cdf = 1 / (1 + (-u).exp())
                density = (-u).exp() / (1 + (-u).exp()) ** 2
                mass += sign * cdf
                by_loc -= sign * density / s
                by_scale -= sign * density * u / s
        return float(mass.ln()), float(by_loc / mass), float(by_scale / mass)


def test_discretized_logistic_against_exact_arithmetic() -> None:
    worst = 0.0
    for scale_ in [0.02, 0.1, 1.0, 7.0, 50.0, 1000.0]:
        for loc_ in [-50.0, 0.0, 3.3, 100.48, 128.0, 254.5, 300.0]:
            loc = torch.full((8,), loc_, requires_grad=True)
            scale = torch.full((8,), scale_, requires_grad=True)
            levels = torch.tensor([0.0, 1, 3, 100, 101, 200, 254, 255])
            log_p = DiscretizedLogistic(loc, scale).log_prob(levels)
            log_p.sum().backward()
            for i, k in enumerate(levels.tolist()):
                want = exact_discretized_logistic(int(k), loc[i].item(), scale[i].item())
                got = (log_p[i].item(), loc.grad[i].item(), scale.grad[i].item())
                # Single precision has a relative error of 6e-8, in log P and in the derivatives.
                size = 1 + abs(want[0])
                for g, w, unit in zip(got, want, [size, size / scale_, size / scale_], strict=True):
                    worst = max(worst, abs(g - w) / unit)
    assert worst < 1e-6


def test_discretized_logistic_gradients_and_samples() -> None:
    loc = torch.tensor([-3, 2.7, 100.2, 255, 270], dtype=torch.float64, requires_grad=True)
    scale = torch.tensor([2, 0.4, 30, 1, 12], dtype=torch.float64, requires_grad=True)
    for k in [0.0, 3.0, 104.0, 255.0]:
        value = torch.full((5,), k, dtype=torch.float64)
        assert torch.autograd.gradcheck(
            lambda m, s, v=value: DiscretizedLogistic(m, s).log_prob(v), (loc, scale)
        )
    p = DiscretizedLogistic(loc.detach().float(), scale.detach().float())
    x = p.sample((40_000,))
    assert p.support.check(x).all()
    assert_mean(x, p.mean.double(), slack=1e-5)
    for k in [0.0, 2, 3, 100, 254, 255]:
        expected = p.log_prob(torch.tensor(k)).double().exp()
        error = (expected * (1 - expected) / len(x)).sqrt()
        # The slack is two draws: counts of rare levels are not normally distributed.
        frequency = (x == k).double().mean(0)
        assert ((frequency - expected).abs() < 4.5 * error + 2 / len(x)).all(), k
    far = DiscretizedLogistic(torch.tensor(1e6), torch.tensor(1e-3)).log_prob(torch.tensor(3.0))
    assert abs(far.item() / -((1e6 - 3.5) / 1e-3) - 1) < 1e-6


def parts(dim: int, number: int, dtype: torch.dtype = torch.float64) -> list[Tensor]:
    logits, loc = torch.randn(number, dtype=dtype), torch.randn(number, dim, dtype=dtype)
    return [logits, loc, torch.rand(number, dim, dtype=dtype) + 0.2]


def family(logits: Tensor, loc: Tensor, scale: Tensor) -> dist.MixtureSameFamily:
    return dist.MixtureSameFamily(
        dist.Categorical(logits=logits), dist.Normal(loc, scale).to_event(1)
    )


def test_normal_mixture_agrees_with_mixture_same_family() -> None:
    values = parts(3, 7)
    ours, theirs = NormalMixture(*values), family(*values)
    z = 3 * torch.randn(4, 5, 3, dtype=torch.float64)
    torch.testing.assert_close(ours.log_prob(z), theirs.log_prob(z), atol=1e-11, rtol=0)
    torch.testing.assert_close(ours.mean, theirs.mean)
    torch.testing.assert_close(ours.variance, theirs.variance)
    x = ours.sample((50_000,))
    assert_mean(x, ours.mean)
    assert_mean((x - ours.mean) ** 2, ours.variance)
    assert_mean(-ours.log_prob(x), -theirs.log_prob(theirs.sample((200_000,))).mean(), slack=0.02)


def test_normal_mixture_is_exact_for_narrow_components() -> None:
    logits = torch.randn(30)
    loc = 5 * torch.randn(30, 50).sign() + torch.randn(30, 50)
    scale = 0.01 * (1 + torch.rand(30, 50))
    ours = NormalMixture(logits, loc, scale)
    z = ours.sample((200,))
    expected = family(logits.double(), loc.double(), scale.double()).log_prob(z.double())
    assert ours.log_prob(z).dtype == torch.float32
    torch.testing.assert_close(ours.log_prob(z).double(), expected, atol=1e-4, rtol=0)
    far = ours.log_prob(-z)  # log p is about -1e7: a relative tolerance
    expected = family(logits.double(), loc.double(), scale.double()).log_prob(-z.double())
    torch.testing.assert_close(far.double(), expected, atol=0, rtol=1e-7)


def test_normal_mixture_gradients() -> None:
    values = [v.requires_grad_() for v in [*parts(2, 3), torch.randn(4, 2, dtype=torch.float64)]]
    assert torch.autograd.gradcheck(lambda c, m, s, z: NormalMixture(c, m, s).log_prob(z), values)


def test_only_mixtures_of_diagonal_normals_are_fast() -> None:
    logits, loc, scale = parts(3, 5)
    normal = dist.Normal(loc, scale)
    z = torch.randn(6, 3, dtype=torch.float64)
    fast = mixture(logits, normal.to_event(1))
    assert isinstance(fast, NormalMixture)
    torch.testing.assert_close(fast.log_prob(z), family(logits, loc, scale).log_prob(z))
    for other in [
        dist.Laplace(loc, scale).to_event(1),
        dist.MultivariateNormal(loc, scale_tril=torch.diag_embed(scale)),
    ]:
        slow = mixture(logits, other)
        assert isinstance(slow, dist.MixtureSameFamily)
        expected = torch.logsumexp(logits.log_softmax(0) + other.log_prob(z.unsqueeze(1)), -1)
        torch.testing.assert_close(slow.log_prob(z), expected)
    batch = mixture(logits, normal.expand((2, 5, 3)).to_event(1))
    assert isinstance(batch, dist.MixtureSameFamily) and batch.batch_shape == (2,)
    with pytest.raises(ValueError, match="logits"):
        NormalMixture(logits[:3], loc, scale)


def acceptance(z: Tensor) -> Tensor:
    """Accept at most half of the plane, without symmetry."""
    return logsigmoid(2 * z.sum(-1) - 1.5 + z[..., 0].sin())


def grid(dim: int) -> tuple[Tensor, float]:
    """Return midpoints of cells from -9 to 9, shape [n, dim], and the volume of a cell."""
    n = 4000 if dim == 1 else 400
    line = (torch.arange(n, dtype=torch.float64) + 0.5) * (18 / n) - 9
    return torch.cartesian_prod(*[line] * dim).reshape(-1, dim), (18 / n) ** dim


def resampled(dim: int, truncation: int) -> Resampled:
    base = dist.Normal(torch.zeros(dim).double(), torch.ones(dim).double()).to_event(1)
    z, cell = grid(dim)
    log_z = torch.logsumexp(base.log_prob(z) + acceptance(z), 0) + math.log(cell)
    return Resampled(base, acceptance, log_z, truncation)


@pytest.mark.parametrize("truncation", [1, 2, 3, 100, 10**9])
@pytest.mark.parametrize("dim", [1, 2])
def test_resampled_density(dim: int, truncation: int) -> None:
    p = resampled(dim, truncation)
    z, cell = grid(dim)
    log_p = p.log_prob(z)
    assert abs(log_p.exp().sum().item() * cell - 1) < 1e-9
    accept, a = p.log_z.exp(), acceptance(z).exp()
    rest = (1 - accept) ** (truncation - 1)
    naive = p.base.log_prob(z) + torch.log((1 - rest) * a / accept + rest)
    torch.testing.assert_close(log_p, naive, atol=1e-9, rtol=0)


@pytest.mark.parametrize("truncation", [1, 2, 3, 100])
@pytest.mark.parametrize("dim", [1, 2])
def test_resampled_samples(dim: int, truncation: int) -> None:
    p = resampled(dim, truncation)
    z, cell = grid(dim)
    mass = p.log_prob(z).exp() * cell
    x = p.sample((50_000,))
    assert_mean(x, mass @ z)
    assert_mean(x**2, mass @ z**2)
    edges = [-9.0, -1.8, -0.9, -0.45, 0.0, 0.45, 0.9, 1.8, 9.0]  # at boundaries of cells
    for j in range(dim):
        for low, high in pairwise(edges):
            expected = mass[(z[:, j] > low) & (z[:, j] < high)].sum()
            between = (x[:, j] > low) & (x[:, j] < high)
            assert_mean(between, expected)


def test_resampled_with_one_round_is_the_base() -> None:
    base = dist.Normal(torch.zeros(2), torch.ones(2)).to_event(1)
    p = Resampled(base, acceptance, torch.tensor(-1.0), 1)
    z = torch.randn(5, 2)
    assert (p.log_prob(z) == base.log_prob(z)).all()
    torch.manual_seed(1)
    x = p.sample((7,))
    torch.manual_seed(1)
    assert (x == base.sample((7,))).all()


def test_resampled_draws_at_most_truncation_times() -> None:
    class Counted(dist.Normal):
        draws = 0

        def sample(self, sample_shape: torch.Size = torch.Size()) -> Tensor:  # noqa: B008
            Counted.draws += 1
            return super().sample(sample_shape)

    base = Counted(torch.zeros(2), torch.ones(2)).to_event(1)
    never = Resampled(base, lambda z: z[..., 0] * 0 - math.inf, torch.tensor(-80.0), 5)
    never.sample((3,))
    assert Counted.draws == 5
    always = Resampled(base, lambda z: z[..., 0] * 0, torch.tensor(0.0), 5)
    always.sample((3,))
    assert Counted.draws == 6


def test_resampled_gradients_and_extremes() -> None:
    inputs = [
        torch.randn(4, 2, dtype=torch.float64, requires_grad=True),
        torch.randn(2, dtype=torch.float64, requires_grad=True),
        torch.tensor(0.7, dtype=torch.float64, requires_grad=True),
        torch.tensor(-1.3, dtype=torch.float64, requires_grad=True),
    ]
    for truncation in [1, 2, 100]:

        def log_prob(
            z: Tensor, loc: Tensor, slope: Tensor, log_z: Tensor, t: int = truncation
        ) -> Tensor:
            base = dist.Normal(loc, torch.ones_like(loc)).to_event(1)
            return Resampled(base, lambda x: logsigmoid(slope * x.sum(-1)), log_z, t).log_prob(z)

        assert torch.autograd.gradcheck(log_prob, inputs)
    base = dist.Normal(torch.zeros(2), torch.ones(2)).to_event(1)
    z = torch.tensor([[0.1, 0.2], [-80.0, 0.0]])
    for log_z_ in [0.0, -1e-9, -1e-3, -40.0, -300.0]:
        for truncation in [2, 100, 10**6]:
            log_z = torch.tensor(log_z_, requires_grad=True)
            log_p = Resampled(base, acceptance, log_z, truncation).log_prob(z)
            log_p.sum().backward()
            assert log_p.isfinite().all() and log_z.grad.isfinite()
            if log_z_ == -300:  # in this limit (1 - r) / Z is T - 1, and r is one
                expected = base.log_prob(z) + torch.log1p((truncation - 1) * acceptance(z).exp())
                torch.testing.assert_close(log_p, expected)


UNIT = torch.tensor([0.6, 0.0, -0.8])
EVERY: dict[str, Callable[[], dist.TorchDistribution]] = {
    "ContinuousBernoulli": lambda: ContinuousBernoulli(torch.tensor(-3.0)),
    "PowerSpherical": lambda: PowerSpherical(UNIT, torch.tensor(3.0)),
    "UniformSphere": lambda: UniformSphere(3),
    "DiscretizedLogistic": lambda: DiscretizedLogistic(torch.tensor(9.0), torch.tensor(4.0), 16),
    "NormalMixture": lambda: NormalMixture(*parts(3, 4, torch.float32)),
    "Resampled": lambda: Resampled(
        dist.Normal(torch.zeros(3), torch.ones(3)).to_event(1), acceptance, torch.tensor(-1.0), 10
    ),
    "Poisson": lambda: Poisson(torch.tensor(3.0)),
    "NegativeBinomial": lambda: NegativeBinomial(torch.tensor(3.0), torch.tensor(1.0)),
    "ZeroInflated": lambda: ZeroInflated(Poisson(torch.tensor(3.0)), torch.tensor(-1.0)),
    "Multinomial": lambda: Multinomial(torch.tensor(30.0), torch.tensor([0.0, 1, 1])),
    "CumulativeLogit": lambda: CumulativeLogit(torch.tensor(0.5), torch.linspace(-3, 3, 12)),
    "Gamma": lambda: Gamma(torch.tensor(0.5), torch.tensor(1.0)),
}


@pytest.mark.parametrize("name", EVERY)
def test_shapes_expand_and_plates(name: str) -> None:
    p = EVERY[name]()
    event = p.event_shape
    assert p.batch_shape == () and p.sample().shape == event and p.log_prob(p.sample()).shape == ()
    wide = p.expand(torch.Size([2, 1])).expand((2, 5))
    assert type(wide) is type(p) and wide.batch_shape == (2, 5) and wide.event_shape == event
    x = wide.sample((4,))
    assert x.shape == (4, 2, 5, *event) and len(x.flatten().unique()) > 5
    torch.testing.assert_close(wide.log_prob(x), p.log_prob(x))
    assert wide.log_prob(x[0, 0, 0]).shape == (2, 5)
    assert wide.to_event(1).log_prob(x).shape == (4, 2)
    if name != "Resampled":
        assert wide.mean.shape == (2, 5, *event)
    with pytest.raises(ValueError, match="support"):
        p.log_prob(torch.full(event, math.nan))

    def model() -> Tensor:
        with pyro.plate("outer", 3, dim=-2), pyro.plate("data", 5, dim=-1):
            return pyro.sample("z", EVERY[name]())

    trace = poutine.trace(model).get_trace()
    trace.compute_log_prob()
    assert trace.nodes["z"]["value"].shape == (3, 5, *event)
    assert trace.nodes["z"]["log_prob"].shape == (3, 5)
    assert len(trace.nodes["z"]["value"].flatten().unique()) > 3


def test_every_distribution_is_expanded_by_its_declaration() -> None:
    """`Autoregressive` has its own test of shapes, because its draws are images."""
    names = {cls.__name__ for cls in Expandable.__subclasses__() if "pyro_vae" in cls.__module__}
    assert names == {*EVERY, "Autoregressive"}
    for make in EVERY.values():
        p = make()
        wide = p.expand((4, 2))
        assert vars(wide).keys() == vars(p).keys() | {"_validate_args"}
        for name, event_dims in p.batched.items():
            tensor = getattr(p, name)
            assert getattr(wide, name).shape == (4, 2, *tensor.shape[tensor.dim() - event_dims :])
        for name in p.shared:
            assert getattr(wide, name) is getattr(p, name)
        for validate_args in (True, False):
            p._validate_args = validate_args
            assert p.expand((2,))._validate_args is validate_args


def test_subclasses_expand() -> None:
    class Renamed(UniformSphere):
        """A subclass with the constructor of its base."""

    class Undeclared(UniformSphere):
        def __init__(self) -> None:
            super().__init__(3)

    class Declared(UniformSphere):
        shared = ("_like", "shift")

        def __init__(self, shift: float) -> None:
            super().__init__(3)
            self.shift = shift

    assert type(Renamed(3).expand((2,))) is Renamed
    with pytest.raises(NotImplementedError, match="Undeclared of UniformSphere"):
        Undeclared().expand((2,))
    wide = Declared(2.0).expand((2,))
    assert type(wide) is Declared and wide.shift == 2.0 and wide.batch_shape == (2,)

    class Extended(UniformSphere):
        """A subclass that extends `expand` as torch's distributions do."""

        def __init__(self, shift: float) -> None:
            super().__init__(3)
            self.shift = shift

        def expand(self, batch_shape: torch.Size, _instance: object = None) -> "Extended":
            new = self._get_checked_instance(Extended, _instance)
            new.shift = self.shift
            return super().expand(batch_shape, _instance=new)

    extended = Extended(2.0).expand((2,))
    assert type(extended) is Extended and extended.shift == 2.0 and extended.batch_shape == (2,)


def test_batches_of_parameters_and_their_validation() -> None:
    locs = normalize(torch.randn(4, 1, 3), dim=-1)
    p = PowerSpherical(locs, torch.rand(2) + 1)
    assert p.batch_shape == (4, 2) and p.rsample((6,)).shape == (6, 4, 2, 3)
    one = PowerSpherical(locs[1, 0], p.concentration[1, 1])
    z = one.sample()
    torch.testing.assert_close(p.log_prob(z)[1, 1], one.log_prob(z))
    q = DiscretizedLogistic(torch.tensor([[3.0], [250.0]]), torch.tensor([1.0, 2, 3]))
    assert q.batch_shape == (2, 3) and q.sample((4,)).shape == (4, 2, 3)
    for wrong in [
        lambda: PowerSpherical(2 * UNIT, torch.tensor(1.0)),
        lambda: PowerSpherical(UNIT, torch.tensor(0.0)),
        lambda: PowerSpherical(torch.ones(1), torch.tensor(1.0)),
        lambda: UniformSphere(1),
        lambda: UniformSphere(3).log_prob(2 * UNIT),
        lambda: DiscretizedLogistic(torch.tensor(1.0), torch.tensor(0.0)),
        lambda: DiscretizedLogistic(torch.tensor(1.0), torch.tensor(1.0), levels=1),
        lambda: q.log_prob(torch.tensor(1.5)),
        lambda: q.log_prob(torch.tensor(256.0)),
        lambda: NormalMixture(torch.zeros(2), torch.zeros(2, 3), torch.zeros(2, 3)),
        lambda: Resampled(dist.Normal(0.0, 1.0), acceptance, torch.tensor(-1.0), 2),
        lambda: Resampled(UniformSphere(3), acceptance, torch.tensor(-1.0), 0),
    ]:
        with pytest.raises(ValueError):
            wrong()
