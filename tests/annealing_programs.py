"""Small Pyro programs with latent variables of all kinds, whose log p(x) is known.

Their densities q(z|x) and p(z|x) differ by a few nats at most: then both w / p(x) and p(x) / w have
a variance, and their means can be tested.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import pyro
import pyro.distributions as dist
import torch
from scipy import special
from torch import Tensor

from pyro_vae import distributions
from pyro_vae.bounds import Settings
from pyro_vae.bounds.annealing_moves import Chains
from pyro_vae.bounds.densities import prior_of
from pyro_vae.bounds.simulation import simulate
from pyro_vae.programs.arguments import Arguments
from pyro_vae.programs.looking import look_at

Program = Callable[[Tensor], None]
PI = math.pi


@dataclass(frozen=True)
class Known:
    """A model, a guide, some different examples, and log p of any examples."""

    model: Program
    guide: Program
    x: Tensor
    log_p: Callable[[Tensor], Tensor]


def grid(low: float, high: float, count: int) -> tuple[Tensor, float]:
    """Return midpoints of equal intervals, `float64`, and the log of the intervals' length."""
    width = (high - low) / count
    return low + width * (torch.arange(count).double() + 0.5), math.log(width)


def normal(x: Tensor, loc: Tensor, scale: float = 1.0) -> Tensor:
    return torch.distributions.Normal(loc, scale).log_prob(x)


# Circles.


def circle(prior: dist.Distribution | None = None) -> Known:
    """An angle, seen with a noise that is not periodic: the density has a step at pi."""
    prior = prior or dist.VonMises(torch.tensor(0.5).double(), torch.tensor(1.0).double())

    def model(x: Tensor) -> None:
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", prior)
            pyro.sample("x", dist.Normal(z, 2.5), obs=x)

    def guide(x: Tensor) -> None:
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.VonMises(0.3 * x, torch.tensor(0.5).double()))

    def log_p(x: Tensor) -> Tensor:
        z, log_width = grid(-PI, PI, 1000)
        return (prior.log_prob(z)[:, None] + normal(x, z[:, None], 2.5)).logsumexp(0) + log_width

    return Known(model, guide, torch.tensor([2.5, 3.4, -3.0]).double(), log_p)


def uniform_angle() -> Known:
    """A prior on the interval from -pi to pi, and a guide on the circle."""
    return circle(dist.Uniform(torch.tensor(-PI).double(), torch.tensor(PI).double()))


def torus() -> Known:
    """Two angles at one site, and x of two dimensions."""

    def model(x: Tensor) -> None:
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.VonMises(x.new_zeros(2), 0.6).to_event(1))
            pyro.sample("x", dist.Normal(z, 3.0).to_event(1), obs=x)

    def guide(x: Tensor) -> None:
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.VonMises(0.3 * x, 0.4).to_event(1))

    def log_p(x: Tensor) -> Tensor:
        z, log_width = grid(-PI, PI, 1000)
        log_prior = dist.VonMises(z.new_zeros(()), 0.6).log_prob(z)
        log_joint = log_prior + normal(x[..., None], z, 3.0)
        return (log_joint.logsumexp(-1) + log_width).sum(-1)

    return Known(model, guide, torch.tensor([[2.0, -0.5], [4.0, 0.0]]).double(), log_p)


# Spheres.


def sphere(dim: int) -> Known:
    """A uniform prior on the sphere, and x ~ N(z, scale^2 I).

    The integral of exp(k m'z) over the sphere is (2 pi)^(d/2) k^(1-d/2) I_(d/2-1)(k).
    """
    scale = 1.2

    def model(x: Tensor) -> None:
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", distributions.UniformSphere(dim, x))
            pyro.sample("x", dist.Normal(z, scale).to_event(1), obs=x)

    def guide(x: Tensor) -> None:
        with pyro.plate("data", len(x)):
            loc = torch.nn.functional.normalize(x + 0.5, dim=-1)
            pyro.sample("z", distributions.PowerSpherical(loc, x.new_full((len(x),), 0.5)))

    def log_p(x: Tensor) -> Tensor:
        half = dim / 2
        k = x.norm(dim=-1) / scale**2
        log_integral = half * math.log(2 * PI) + (1 - half) * k.log()
        log_integral += torch.as_tensor(special.ive(half - 1, k.numpy())).log() + k
        log_area = math.log(2) + half * math.log(PI) - math.lgamma(half)
        square = (x.square().sum(-1) + 1) / (2 * scale**2)
        return log_integral - log_area - square - dim * math.log(scale * math.sqrt(2 * PI))

    torch.manual_seed(dim)
    return Known(model, guide, torch.randn(3, dim).double(), log_p)


# Finitely many values.


def binary() -> Known:
    """Three bits that are far from independent in p(z|x), and a guide in which they are."""
    pull = torch.tensor([0.9, 0.7, -1.1]).double()

    def model(x: Tensor) -> None:
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Bernoulli(probs=0.3 * torch.ones_like(pull)).to_event(1))
            pyro.sample("x", dist.Normal(z @ pull + z[..., 0] * z[..., 1], 1.0), obs=x)

    def guide(x: Tensor) -> None:
        with pyro.plate("data", len(x)):
            pyro.sample(
                "z", dist.Bernoulli(logits=0.2 * x[:, None] * pull.sign() - 0.5).to_event(1)
            )

    def log_p(x: Tensor) -> Tensor:
        z = torch.cartesian_prod(*[torch.arange(2)] * 3).double()
        log_prior = dist.Bernoulli(probs=torch.tensor(0.3).double()).log_prob(z).sum(-1)
        loc = z @ pull + z[:, 0] * z[:, 1]
        return (log_prior[:, None] + normal(x, loc[:, None], 1.0)).logsumexp(0)

    return Known(model, guide, torch.tensor([1.4, -0.3, 3.5]).double(), log_p)


def integers() -> Known:
    """A category and a count, both integers: nothing can be differentiated by them."""
    loc = torch.tensor([-0.8, 0.1, 0.9]).double()
    prior = torch.tensor([0.2, 0.5, 0.3]).double()
    half = torch.tensor(0.5).double()

    def model(x: Tensor) -> None:
        with pyro.plate("data", len(x)):
            k = pyro.sample("k", dist.Categorical(prior))
            n = pyro.sample("n", dist.Binomial(2, half))
            pyro.sample("x", dist.Normal(loc[k] + 0.5 * n.long(), 0.9), obs=x)

    def guide(x: Tensor) -> None:
        with pyro.plate("data", len(x)):
            pyro.sample("n", dist.Binomial(2, (0.4 * x).sigmoid()))
            pyro.sample("k", dist.Categorical(logits=0.3 * x[:, None] * loc))

    def log_p(x: Tensor) -> Tensor:
        n = torch.arange(3).double()
        log_prior = prior.log()[:, None] + dist.Binomial(2, half).log_prob(n)
        means = (loc[:, None] + 0.5 * n)[..., None]
        return (log_prior[..., None] + normal(x, means, 0.9)).logsumexp((0, 1))

    return Known(model, guide, torch.tensor([0.6, -1.0]).double(), log_p)


def plates() -> Known:
    """One-hot variables in a plate inside that of the examples, which is not the last one."""
    weight = torch.tensor([-1.0, 0.0, 0.8]).double()
    probs = torch.tensor([0.5, 0.2, 0.3]).double()

    def model(x: Tensor) -> None:
        with pyro.plate("examples", len(x), dim=-2), pyro.plate("pixels", x.shape[1], dim=-1):
            z = pyro.sample("z", dist.OneHotCategorical(probs))
            pyro.sample("x", dist.Normal(z @ weight, 1.0), obs=x)

    def guide(x: Tensor) -> None:
        with pyro.plate("examples", len(x), dim=-2), pyro.plate("pixels", x.shape[1], dim=-1):
            pyro.sample("z", dist.OneHotCategorical(logits=0.4 * x[..., None] * weight))

    def log_p(x: Tensor) -> Tensor:
        return (probs.log() + normal(x[..., None], weight, 1.0)).logsumexp(-1).sum(-1)

    x = torch.tensor([[0.2, -1.0], [0.9, 1.4], [-0.3, 0.5]]).double()
    return Known(model, guide, x, log_p)


# Mixed kinds.


def bit_over_line() -> Known:
    """A bit in the upper layer, and a normal variable below: x is a mixture of normals."""
    step = 1.5

    def model(x: Tensor) -> None:
        with pyro.plate("data", len(x)):
            c = pyro.sample("c", dist.Bernoulli(probs=x.new_tensor(0.3)))
            z = pyro.sample("z", dist.Normal(step * c, 1.0))
            pyro.sample("x", dist.Normal(z, 1.2), obs=x)

    def guide(x: Tensor) -> None:
        with pyro.plate("data", len(x)):
            c = pyro.sample("c", dist.Bernoulli(logits=0.5 * x))
            pyro.sample("z", dist.Normal(0.4 * x + 0.9 * c, 0.8))

    def log_p(x: Tensor) -> Tensor:
        c = torch.arange(2).double()
        log_prior = torch.tensor([0.7, 0.3]).double().log()
        return (log_prior + normal(x[:, None], step * c, math.hypot(1, 1.2))).logsumexp(-1)

    return Known(model, guide, torch.tensor([0.7, 1.9]).double(), log_p)


def circle_over_categories() -> Known:
    """An angle in the upper layer, and a category below, whose logits depend on the angle."""
    places = torch.tensor([-1.2, 0.0, 1.2]).double()

    def logits(z: Tensor) -> Tensor:
        return (z[..., None] - places).cos()

    def model(x: Tensor) -> None:
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.VonMises(x.new_tensor(3.0), x.new_tensor(1.0)))
            k = pyro.sample("k", dist.Categorical(logits=logits(z)))
            pyro.sample("x", dist.Normal(places[k] + z.sin(), 1.2), obs=x)

    def guide(x: Tensor) -> None:
        with pyro.plate("data", len(x)):
            k = pyro.sample("k", dist.Categorical(logits=0.3 * x[:, None] * places))
            pyro.sample("z", dist.VonMises(places[k], x.new_tensor(0.5)))

    def log_p(x: Tensor) -> Tensor:
        z, log_width = grid(-PI, PI, 500)
        log_prior = dist.VonMises(z.new_tensor(3.0), z.new_tensor(1.0)).log_prob(z)[:, None]
        log_prior = log_prior + logits(z).log_softmax(-1)
        loc = places + z.sin()[:, None]
        return (log_prior[..., None] + normal(x, loc[..., None], 1.2)).logsumexp((0, 1)) + log_width

    return Known(model, guide, torch.tensor([-1.5, 0.8]).double(), log_p)


CIRCLES = [circle, uniform_angle, torus]
DISCRETE = [binary, integers, plates]
MIXED = [bit_over_line, circle_over_categories]


def deviations(
    known: Known, settings: Settings, repeats: int = 5
) -> tuple[Tensor, Tensor, float, float]:
    """Return how far mean weights are from p(x), in standard errors, and how much weights vary.

    Args:
        known: the programs.
        settings: the settings of the chains.
        repeats: how often each example is annealed, besides its chains.

    Returns:
        For each example, the deviation of the mean of w / p(x) from one; the same for the mean
        of p(x) / w over backward chains of simulated examples, shape [1]; and the standard
        deviations of w / p(x) and p(x) / w.
    """
    x = known.x.repeat(repeats, *[1] * (known.x.dim() - 1))
    chains, arguments = chains_of(known, x, settings)
    moves = chains.pilot(arguments, lambda _: None)
    u = chains.densities.draw(settings.chains, arguments)
    log_w, _, _ = chains.run(u, arguments, moves, lambda _: None)
    ratio = (log_w - known.log_p(x)).exp()
    ratio = ratio.unflatten(1, (repeats, len(known.x))).flatten(0, 1)
    forward = (ratio.mean(0) - 1) / (ratio.std(0) / len(ratio) ** 0.5)

    template = x[:1].expand(settings.chains * repeats, *x.shape[1:]).clone()
    latents, arguments = simulate(known.model, Arguments(template))
    u = chains.densities.coordinates_of(latents, 2, arguments)
    moves = chains.pilot(arguments, lambda _: None)
    log_w, _, _ = chains.run(u, arguments, moves, lambda _: None, backward=True)
    (x,) = arguments.tensors()
    inverse = (known.log_p(x) - log_w).exp().mean(0)
    backward = (inverse.mean() - 1) / (inverse.std() / len(inverse) ** 0.5)
    return forward, backward[None], ratio.std().item(), inverse.std().item()


def chains_of(known: Known, x: Tensor, settings: Settings) -> tuple[Chains, Arguments]:
    """Return the chains for some examples, and what the programs are called with."""
    arguments = Arguments(x)
    guide = known.guide if settings.start == "posterior" else prior_of(known.model)
    return Chains(look_at(known.model, guide, arguments), arguments, settings), arguments


def assert_unbiased(known: Known, settings: Settings, repeats: int = 5) -> None:
    """Check that E[w] = p(x), and E[1 / w] = 1 / p(x) for backward chains, in all examples."""
    forward, backward, spread, inverse_spread = deviations(known, settings, repeats)
    assert (forward.abs() < 4.5).all(), forward
    assert (backward.abs() < 4.5).all(), backward
    assert spread > 1e-3 and inverse_spread > 1e-3  # so that a mistake would show
