"""One contract for every prior, what is particular to each, and what each gains by theory."""

import math
from collections.abc import Callable
from functools import partial

import pyro
import pytest
import torch
from conftest import codes, grid
from torch import Tensor

from pyro_vae import VAE, InputError, bounds, likelihoods, objectives, posteriors, priors, training
from pyro_vae.kinds import Binary, Kind, Levels, UnitInterval
from pyro_vae.networks import MLP, Linear
from pyro_vae.posteriors import Posterior
from pyro_vae.priors import Exemplar, Flow, LearnedNormal, Mixture, Prior, StandardNormal, Vamp

CASES: dict[str, Callable[[int], Prior]] = {
    "StandardNormal": StandardNormal,
    "LearnedNormal": LearnedNormal,
    "StudentT": priors.StudentT,
    "Laplace": priors.Laplace,
    "Mixture": partial(Mixture, components=3),
    "Vamp": partial(Vamp, components=3),
    "Vamp, weighted, from noise": partial(Vamp, components=3, start="noise", learn_weights=True),
    "Vamp on the sphere": partial(Vamp, components=3),
    "Vamp, full": partial(Vamp, components=3),
    "Vamp, flow": partial(Vamp, components=3),
    "Vamp, binary": partial(Vamp, components=3),
    "Vamp, one-hot": partial(Vamp, components=3),
    "Exemplar": partial(Exemplar, components=3),
    "Flow": partial(Flow, layers=2, hidden=8),
    "Flow, masked": partial(Flow, transform="masked_autoregressive", layers=2, hidden=8),
    "Flow, spline": partial(Flow, transform="spline_coupling", layers=2, hidden=8),
    "LARS": partial(priors.LARS, widths=[8]),
    "LARS, truncated": partial(priors.LARS, widths=[8], truncation=2),
    "UniformSphere": priors.UniformSphere,
    "Bernoulli": priors.Bernoulli,
    "Categorical": partial(priors.Categorical, categories=2),
    "AR1": partial(priors.AR1, rate=0.5),
    "Hierarchical": priors.Hierarchical,
    "Hierarchical, Vamp": partial(priors.Hierarchical, top=partial(Vamp, components=3)),
    "Hierarchical, Exemplar": partial(priors.Hierarchical, top=partial(Exemplar, components=3)),
}
GOES_WITH: dict[str, Callable[..., Posterior]] = {
    "Vamp on the sphere": posteriors.PowerSpherical,
    "Vamp, full": posteriors.FullNormal,
    "Vamp, flow": posteriors.IAF,
    "Vamp, binary": posteriors.Bernoulli,
    "Vamp, one-hot": partial(posteriors.Categorical, categories=2),
    "UniformSphere": posteriors.PowerSpherical,
    "Bernoulli": posteriors.Bernoulli,
    "Categorical": partial(posteriors.Categorical, categories=2),
    "Hierarchical": partial(posteriors.Hierarchical, top_dim=2),
    "Hierarchical, Vamp": partial(posteriors.Hierarchical, top_dim=2),
    "Hierarchical, Exemplar": partial(posteriors.Hierarchical, top_dim=2),
}


def ready(name: str) -> tuple[Prior, Posterior]:
    """A prior of two dimensions as a VAE makes it, moved away from where it starts."""
    torch.manual_seed(1)
    posterior = GOES_WITH.get(name, posteriors.Normal)([6], 4 if "one-hot" in name else 2, Linear)
    if name == "Categorical":
        posterior = posteriors.Categorical([6], 4, Linear, categories=2)
    prior = CASES[name](posterior.latent_dim)
    priors.check_support(prior, posterior)
    prior.build(posterior)
    prior.double()
    prior.initialize(torch.rand(10, 6).double())
    with torch.no_grad():
        for parameter in prior.parameters():
            parameter += 0.1 * torch.randn_like(parameter)
    return prior, posterior


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
    prior.build(posterior)
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
    prior.build(posteriors.Normal([6], 2, Linear))
    images = torch.rand(3, 6)
    prior.initialize(images)
    counts = (torch.cdist(images.clamp(0.01, 0.99), prior.pseudo_inputs) < 1e-5).sum(1).tolist()
    assert sum(counts) == 7 and min(counts) >= 2


@pytest.mark.parametrize("kind", [Binary(), Levels(), UnitInterval()], ids=lambda kind: kind.name)
def test_exemplars_leave_an_image_out_of_its_own_prior(kind: Kind) -> None:
    levels = torch.randint(256, (8, 40), dtype=torch.uint8)
    levels[:, ::3] = torch.where(levels[:, ::3] > 127, 255, 0).to(torch.uint8)
    prior = Exemplar(2, components=8)
    posterior = posteriors.Normal([40], 2, Linear)
    vae = VAE(prior, _likelihood(kind), posterior)
    prior.initialize(levels.float() / 255)
    z = torch.randn(8, 2)
    x = kind.observe(levels)
    own = kind.could_show(x, prior.exemplars)
    assert own.sum() == 8  # each from one, and no other
    kernels = torch.distributions.Normal(posterior(prior.exemplars).mean, prior.log_scale.exp())
    densities = kernels.log_prob(z[:, None]).sum(-1).exp()
    expected = (densities * ~own).sum(1) / 7
    torch.testing.assert_close(prior.leave_out(x, kind).log_prob(z), expected.log())
    torch.testing.assert_close(prior().log_prob(z), densities.mean(1).log())

    def prior_of(vae: VAE) -> Tensor:
        conditioned = pyro.poutine.condition(vae.model, {"z": z})
        trace = pyro.poutine.trace(conditioned).get_trace(x)
        return trace.nodes["z"]["fn"].log_prob(z)

    torch.testing.assert_close(prior_of(vae), expected.log())
    torch.testing.assert_close(prior_of(vae.eval()), densities.mean(1).log())


def _likelihood(kind: Kind) -> likelihoods.Likelihood:
    made = [likelihoods.Bernoulli, likelihoods.Binomial, likelihoods.ContinuousBernoulli]
    return next(cls(2, [40]) for cls in made if cls.kinds[0] is type(kind))


def test_an_only_exemplar_stays() -> None:
    prior = Exemplar(2, components=2)
    prior.build(posteriors.Normal([3], 2, Linear))
    prior.initialize(torch.ones(1, 3))
    z = torch.randn(1, 2)
    left = prior.leave_out(torch.ones(1, 3), Binary()).log_prob(z)
    torch.testing.assert_close(left, prior().log_prob(z))


@pytest.mark.parametrize("name", ["Vamp", "Exemplar", "Hierarchical"])
def test_a_prior_that_depends_on_the_posterior_says_so_before_it_has_one(name: str) -> None:
    prior = getattr(priors, name)(2)
    assert prior.built_parts and not any(hasattr(prior, part) for part in prior.built_parts)
    uses: list[Callable[[], object]] = [prior, lambda: prior.initialize(torch.rand(600, 3))]
    uses += [lambda part=part: getattr(prior, part) for part in prior.built_parts]
    for use in uses:
        with pytest.raises(
            InputError, match=rf"^the prior {name} depends on .* build\(posterior\)$"
        ):
            use()
    with pytest.raises(AttributeError, match="nonsense"):
        _ = prior.nonsense
    VAE(prior, likelihoods.Bernoulli(2, [3]), GOES_WITH.get(name, posteriors.Normal)([3], 2))
    for use in uses[1:]:
        use()


@pytest.mark.parametrize("learn_weights", [False, True])
def test_vamp_loads_older_checkpoints(learn_weights: bool) -> None:
    """Their names were `weights` and `logits`; the order of the tensors is the same."""

    def make() -> VAE:
        prior = Vamp(2, components=4, learn_weights=learn_weights)
        return VAE(prior, likelihoods.Bernoulli(2, [3]), posteriors.Normal([3], 2))

    vae, other = make(), make()
    state = vae.model.state_dict()
    own = [key for key in state if key.startswith("prior.") and "posterior" not in key]
    expected = ["prior.weight_logits", "prior.pseudo_input_logits"]
    assert own == (expected if learn_weights else expected[::-1])
    names = {expected[0]: "prior.weights", expected[1]: "prior.logits"}
    old = {names.get(key, key): torch.randn_like(value) for key, value in state.items()}
    other.model.load_state_dict(old)
    assert list(other.model.state_dict()) == list(state)
    for value, loaded in zip(old.values(), other.model.state_dict().values(), strict=True):
        assert torch.equal(value, loaded)


@pytest.mark.parametrize("start", ["images", "noise"])
def test_vamp_refuses_features_beyond_its_pseudo_inputs(start: str) -> None:
    prior = Vamp(2, components=3, start=start)
    prior.build(posteriors.Normal([6], 2, Linear))
    for images in (torch.full((9, 6), -0.1), torch.full((9, 6), 1.1), torch.full((9, 6), math.nan)):
        with pytest.raises(InputError, match=r"in \(0, 1\).*choose another prior"):
            prior.initialize(images)


def test_flows_see_new_parameters_at_an_old_point() -> None:
    """Pyro's transforms keep what they computed for a tensor, whatever becomes of the weights."""
    for kind in ("affine_coupling", "masked_autoregressive", "spline_coupling"):
        prior = Flow(2, transform=kind)
        z = torch.randn(5, 2)
        before = prior().log_prob(z)
        with torch.no_grad():
            for parameter in prior.parameters():
                parameter += 0.1 * torch.randn_like(parameter)
        after = prior().log_prob(z)
        assert not torch.allclose(before, after)
        torch.testing.assert_close(after, prior().log_prob(z.clone()))


def test_lars_knows_its_constant_in_evaluation() -> None:
    """Z against quadrature, within the error that the docstring states."""
    prior, _ = ready("LARS")
    prior.eval()
    z, log_w = grid()
    exact = (StandardNormal(2).double()().log_prob(z) + prior.log_accept(z) + log_w).logsumexp(0)
    error = ((1 / exact.exp() - 1) / 2**18).sqrt().item()
    assert abs(prior.log_z.item() - exact.item()) < 4.5 * error < 0.05
    assert prior().log_prob(z[:5]).equal(prior().log_prob(z[:5]))


# What each prior gains over N(0, I), where x = 1/2 + (W z + 0.3 e) / 10 and p*(z) is in its reach.
NOISE, SCALE = 0.3, 0.1
RING = 1.6 * torch.tensor([[1.0, 0.0], [0.0, 1.0], [-1.0, 0.0], [0.0, -1.0]])


def ring(z: Tensor) -> Tensor:
    """Four normals around the origin."""
    parts = torch.distributions.Normal(RING.double(), 0.3).log_prob(z[:, None]).sum(-1)
    return parts.logsumexp(1) - math.log(4)


def banana(z: Tensor) -> Tensor:
    """The second code is near the square of the first."""
    first, second = z.T
    below = torch.distributions.Normal(first**2 - 1, 0.3).log_prob(second)
    return torch.distributions.Normal(0, 1).log_prob(first) + below


def correlated(z: Tensor) -> Tensor:
    """A normal with a correlation of 0.9."""
    covariance = torch.tensor([[1.0, 0.9], [0.9, 1.0]]).double()
    normal = torch.distributions.MultivariateNormal(torch.zeros(2).double(), covariance)
    return normal.log_prob(z)


def shifted(z: Tensor) -> Tensor:
    loc, scale = torch.tensor([1.0, -1.0]).double(), torch.tensor([0.4, 1.8]).double()
    return torch.distributions.Normal(loc, scale).log_prob(z).sum(-1)


def unequal(z: Tensor) -> Tensor:
    """Two binary or one-hot variables, on with probability 0.2 and 0.7."""
    on = z[:, ::2] if z.shape[1] == 4 else z
    share = torch.tensor([0.2, 0.7]).double()
    return torch.where(on == 1, share, 1 - share).log().sum(-1)


GAINS: dict[str, tuple[Callable[[int], Prior], Callable[[Tensor], Tensor]]] = {
    "LearnedNormal": (LearnedNormal, shifted),
    "StudentT": (
        priors.StudentT,
        lambda z: torch.distributions.StudentT(3.0).log_prob(z).sum(-1),
    ),
    "Laplace": (
        priors.Laplace,
        lambda z: torch.distributions.Laplace(0.0, 2.0).log_prob(z).sum(-1),
    ),
    "Mixture": (Mixture, ring),
    "Vamp": (partial(Vamp, components=50), ring),
    "Exemplar": (partial(Exemplar, components=300), ring),
    # Affine flows cannot part a normal into four.
    "Flow": (partial(Flow, hidden=32), banana),
    "Flow, masked": (partial(Flow, transform="masked_autoregressive", hidden=32), banana),
    "Flow, spline": (partial(Flow, transform="spline_coupling", hidden=32), ring),
    "LARS": (priors.LARS, ring),
    "Hierarchical": (partial(priors.Hierarchical, network=partial(MLP, widths=[64])), correlated),
    "UniformSphere": (
        priors.UniformSphere,
        lambda z: torch.full((len(z),), -math.log(2 * math.pi)).double(),
    ),
    "Bernoulli": (priors.Bernoulli, unequal),
    "Categorical": (partial(priors.Categorical, categories=2), unequal),
}

SLOW_TO_LEARN = {"Exemplar": 600, "Mixture": 600, "Flow, spline": 400}


@pytest.mark.parametrize("name", GAINS)
def test_gain_over_the_standard_normal(name: str) -> None:
    """E log p(x) under the right prior less that under N(0, I), both exact; training attains it.

    The first by quadrature over z, or enumeration; the second N(x; 1/2, (WW' + 0.09 I) / 100).
    """
    make, log_prior = GAINS[name]
    encoder = partial(MLP, widths=[32, 32])
    posterior = GOES_WITH.get(name, posteriors.Normal)(
        [2], 4 if name == "Categorical" else 2, encoder
    )
    dim = posterior.latent_dim
    weight = 2 * torch.linalg.qr(torch.randn(dim, dim))[0][:2].double()
    z, log_w = codes(posterior.support) if posterior.support != "layers" else grid()
    log_p = log_prior(z) + log_w
    kept = log_p > log_p.max() - 40
    z, log_p = z[kept], log_p[kept]
    assert abs(log_p.exp().sum().item() - 1) < 1e-3

    def images(count: int) -> Tensor:
        chosen = torch.multinomial(log_p.exp(), count, replacement=True)
        return 0.5 + SCALE * (z[chosen] @ weight.T + NOISE * torch.randn(count, 2).double())

    def log_density(x: Tensor) -> Tensor:
        means = 0.5 + SCALE * z @ weight.T
        scale = SCALE * NOISE
        parts = [
            (log_p - 0.5 * (torch.cdist(some, means) / scale).square()).logsumexp(1)
            for some in x.split(20)
        ]
        return torch.cat(parts) - 2 * math.log(scale * (2 * math.pi) ** 0.5)

    vae = VAE(
        make(dim),
        likelihoods.Gaussian(dim, [2], Linear, scale=SCALE * NOISE, noise="fixed"),
        posterior,
    )
    vae.likelihood.decoder.body[1].weight.data = (SCALE * weight).float()
    if posterior.support == "sphere":
        vae.likelihood.decoder.body[1].weight.data /= 2**0.5  # it is shown sqrt(2) z
    vae.likelihood.decoder.bias.data.fill_(0.5)
    vae.likelihood.requires_grad_(False)
    train = images(20_000).float()
    vae.prior.initialize(train.clamp(0, 1))  # pseudo-inputs are in (0, 1)
    engine = training.EagerEngine(vae.model, vae.guide, objectives.IWAE(5), lr=1e-2)
    steps = SLOW_TO_LEARN.get(name, 300)
    for step in range(steps):
        for group in engine.optimizer.param_groups:
            group["lr"] = 1e-2 * (1 - step / steps)
        engine.step(train[torch.randint(len(train), (200,))])
    vae.eval()
    x = images(500)
    truth = log_density(x)
    covariance = SCALE**2 * (weight @ weight.T + NOISE**2 * torch.eye(2))
    normal = torch.distributions.MultivariateNormal(torch.full((2,), 0.5).double(), covariance)
    gain = (truth - normal.log_prob(x)).mean().item()
    found = bounds.evaluate(vae.model, vae.guide, x.float(), 500).iwae[500].values
    lost = truth - found
    print(f"{name}: gain {gain:.3f}, lost {lost.mean():.3f} +- {lost.std() / 500**0.5:.3f}")
    assert gain > 0.3
    assert lost.mean() > -4.5 * lost.std() / 500**0.5  # no model beats the truth
    assert lost.mean() < 0.1 * gain + 0.02


def test_what_is_refused() -> None:
    for make in (Mixture, Vamp):
        with pytest.raises(InputError, match="at least one component"):
            make(2, components=0)
    refused: list[tuple[Callable[[], object], str]] = [
        (lambda: Exemplar(2, components=1), "two components or more"),
        (lambda: Flow(1), "two latent dimensions"),
        (lambda: Flow(2, layers=0), "at least 1"),
        (lambda: priors.LARS(2, truncation=0), "at least 1"),
        (lambda: priors.UniformSphere(1), "two latent dimensions"),
        (lambda: priors.StudentT(2, df=0), r"in \[1e-3"),
        (lambda: priors.Categorical(3, categories=2), "cannot be divided into one-hot variables"),
        (lambda: priors.Bernoulli(3, temperature=0), "temperature"),
        (lambda: Exemplar(2).build(posteriors.IAF([3], 2)), "none in closed form"),
        (
            lambda: priors.Categorical(4, categories=2).build(
                posteriors.Categorical([3], 4, categories=4)
            ),
            "make them alike",
        ),
    ]
    for make, message in refused:
        with pytest.raises(InputError, match=message):
            make()
    assert priors.Prior.__abstractmethods__ == {"forward"}


@pytest.mark.parametrize("prior", sorted({name.split(",")[0] for name in CASES if " " not in name}))
@pytest.mark.parametrize(
    "posterior", ["Normal", "PowerSpherical", "Bernoulli", "Categorical", "Hierarchical"]
)
def test_supports_agree_or_are_refused(prior: str, posterior: str) -> None:
    p = getattr(priors, prior)(8)
    q = getattr(posteriors, posterior)([4], 8)
    if p.support == q.support or (p.support is None and posterior != "Hierarchical"):
        VAE(p, likelihoods.Bernoulli(8, [4]), q)
    else:
        with pytest.raises(InputError, match=r"the codes of the prior .*: choose two that agree"):
            VAE(p, likelihoods.Bernoulli(8, [4]), q)


@pytest.mark.parametrize(("dim", "rate"), [(2, 1.5), (3, 0.3), (16, 5.0), (20, 12.5)])
def test_committed_rate(dim: int, rate: float) -> None:
    """The least KL from independent normals to AR1 is the rate: q's variances are 1 / precision."""
    p = priors.AR1(dim, rate).double()()
    covariance = p.scale_tril @ p.scale_tril.T
    torch.testing.assert_close(covariance.diagonal(), torch.ones(dim).double(), atol=1e-5, rtol=0)

    def kl(scale: Tensor) -> float:
        q = torch.distributions.MultivariateNormal(p.loc, scale_tril=scale.diag())
        return torch.distributions.kl_divergence(q, p).item()

    best = torch.linalg.inv(covariance).diagonal().rsqrt()
    assert kl(best) == pytest.approx(rate, rel=1e-4)
    for _ in range(20):
        assert kl(best * (0.3 * torch.randn(dim).double()).exp()) > rate


def test_rates_that_cannot_be_committed() -> None:
    for dim, rate in ((1, 0.5), (4, 0.0), (4, 8.0), (20, 13.0), (40, 40.0)):
        with pytest.raises(InputError, match=r"AR1|rate"):
            priors.AR1(dim, rate)
