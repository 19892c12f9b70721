"""One contract for every prior, and what is particular to each."""

from collections.abc import Callable

import pytest
import torch

from pyro_vae import InputError, posteriors, priors
from pyro_vae.networks import Linear
from pyro_vae.priors import LearnedNormal, Mixture, Prior, StandardNormal, Vamp

CASES: dict[str, Callable[[int], Prior]] = {
    "StandardNormal": StandardNormal,
    "LearnedNormal": LearnedNormal,
    "Mixture": lambda latent_dim: Mixture(latent_dim, components=3),
    "Vamp": lambda latent_dim: Vamp(latent_dim, components=3),
}
every_prior = pytest.mark.parametrize("make", CASES.values(), ids=CASES.keys())


def ready(make: Callable[[int], Prior]) -> Prior:
    """A prior of two dimensions as a VAE makes it, moved away from where it starts."""
    torch.manual_seed(1)
    prior = make(2)
    posterior = posteriors.Normal([6], 2, Linear)
    prior.attach(posterior)
    prior.initialize(torch.rand(10, 6))
    for parameter in prior.parameters():
        if parameter.requires_grad:
            parameter.data += 0.3 * torch.rand_like(parameter)
    return prior


def test_every_prior_is_under_contract() -> None:
    assert {cls.__name__ for cls in Prior.__subclasses__() if "priors" in cls.__module__} == set(
        CASES
    )


@every_prior
def test_contract(make: Callable[[int], Prior]) -> None:
    prior = ready(make)
    p = prior()
    assert p.batch_shape == () and p.event_shape == (2,)
    z = p.sample((500,))
    assert p.log_prob(z).shape == (500,) and p.log_prob(z).isfinite().all()
    parameters = dict(prior.named_parameters())
    if parameters:
        prior().log_prob(z).sum().backward()
    for name, parameter in parameters.items():
        assert parameter.grad is not None and parameter.grad.abs().sum() > 0, name
    other = ready(make)
    for parameter in other.parameters():
        parameter.data.zero_()
    other.load_state_dict(prior.state_dict())
    torch.testing.assert_close(other().log_prob(z), p.log_prob(z))


@every_prior
def test_density_integrates_to_one_and_samples_follow_it(make: Callable[[int], Prior]) -> None:
    p = ready(make)()
    line = torch.linspace(-9, 9, 600)
    grid = torch.cartesian_prod(line, line)
    with torch.no_grad():
        mass = p.log_prob(grid).double().exp() * (line[1] - line[0]).double() ** 2
        z = p.sample((40_000,)).double()
    assert abs(mass.sum() - 1) < 1e-4
    for moment in (grid.double(), grid.double() ** 2, grid.double().prod(1, keepdim=True)):
        expected = (mass[:, None] * moment).sum(0)
        variance = (mass[:, None] * (moment - expected) ** 2).sum(0)
        drawn = {2: z, 1: z.prod(1, keepdim=True)}[moment.shape[1]]
        drawn = z**2 if moment.min() >= 0 and moment.shape[1] == 2 else drawn
        error = (variance / len(z)).sqrt()
        assert ((drawn.mean(0) - expected).abs() < 4.5 * error).all()


def test_learned_normal_starts_standard() -> None:
    z = torch.randn(10, 3)
    torch.testing.assert_close(LearnedNormal(3)().log_prob(z), StandardNormal(3)().log_prob(z))


def test_mixture_is_the_sum_of_its_parts() -> None:
    prior = Mixture(2, components=3)
    prior.logits.data = torch.tensor([0.0, 1.0, -2.0])
    z = torch.randn(5, 2)
    parts = [
        weight * torch.distributions.Normal(loc, scale).log_prob(z).sum(-1).exp()
        for weight, loc, scale in zip(
            prior.logits.softmax(0), prior.loc, prior.log_scale.exp(), strict=True
        )
    ]
    torch.testing.assert_close(prior().log_prob(z), torch.stack(parts).sum(0).log())


def test_vamp_is_the_mean_of_the_posteriors_at_its_pseudo_inputs() -> None:
    prior = Vamp(2, components=4)
    posterior = posteriors.Normal([6], 2, Linear)
    prior.attach(posterior)
    images = torch.rand(9, 6)
    prior.initialize(images)
    near = torch.cdist(prior.pseudo_inputs, images.clamp(0.01, 0.99)) < 1e-5
    chosen = [row.nonzero().item() for row in near]
    assert len(set(chosen)) == 4  # training images, no one twice
    z = torch.randn(5, 2)
    kept = images[chosen].clamp(0.01, 0.99)
    densities = torch.stack([posterior(image).log_prob(z).exp() for image in kept])
    torch.testing.assert_close(prior().log_prob(z), densities.mean(0).log())


def test_vamp_with_more_pseudo_inputs_than_images() -> None:
    prior = Vamp(2, components=7)
    prior.attach(posteriors.Normal([6], 2, Linear))
    images = torch.rand(3, 6)
    prior.initialize(images)
    counts = (torch.cdist(images.clamp(0.01, 0.99), prior.pseudo_inputs) < 1e-5).sum(1).tolist()
    assert sum(counts) == 7 and min(counts) >= 2


def test_what_is_refused() -> None:
    for make in (Mixture, Vamp):
        with pytest.raises(InputError, match="at least one component"):
            make(2, components=0)
    assert priors.Prior.__abstractmethods__ == {"forward"}
