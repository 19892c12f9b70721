"""Every public part keeps the contract that `pyro_vae.testing` checks for users."""

import inspect
import math
from collections.abc import Callable
from functools import partial
from typing import Any

import pyro
import pytest
import torch
from torch import Tensor

from pyro_vae import VAE, kinds, likelihoods, networks, objectives, posteriors, priors, testing
from pyro_vae.networks import MLP, ConvDecoder, ConvEncoder, Linear, ResidualEncoder
from pyro_vae.objectives import CIWAE, ELBO, IWAE, MIWAE, PIWAE, RWS, Renyi, TargetKL
from pyro_vae.testing.subject import nudge

Case = tuple[Callable[..., Any], dict[str, Any]]
SMALL = partial(MLP, widths=[8])


def q(cls: Callable[..., posteriors.Posterior], **options: Any) -> Callable[..., Any]:
    return partial(cls, encoder=Linear, **options)


IAF = q(posteriors.IAF, layers=1, hidden=4, context=2)
ONE_HOT = q(posteriors.Categorical, categories=2)
VAMP = partial(priors.Vamp, components=3)

RESIDUAL_LADDER = partial(
    posteriors.Ladder,
    encoder=partial(ResidualEncoder, channels=[4, 5], blocks=1),
    top_dim=[2],
    features=4,
)

LABEL = kinds.Categories([1], ["label"], [["cat", "dog", "fox"]])


def of_the_second_class(latent_dim: int) -> priors.Prior:
    """p(z | y) for one y."""
    kind = kinds.Conditional(kinds.Real([2]), LABEL)
    prior = priors.ConditionalNormal(latent_dim, network=SMALL)
    prior.build_for(kind)
    return prior.under(torch.tensor([0.0, 0.0, 1.0]), kind)


PRIORS: dict[str, Case] = {
    "StandardNormal": (priors.StandardNormal, {}),
    "LearnedNormal": (priors.LearnedNormal, {"latent_dim": 1}),
    "LearnedNormal of four": (priors.LearnedNormal, {"latent_dim": 4}),
    "StudentT": (priors.StudentT, {}),
    "StudentT, half": (partial(priors.StudentT, df=0.5), {"tolerance": 1e-3}),
    "StudentT, Cauchy": (partial(priors.StudentT, df=1.0), {}),
    "Laplace": (priors.Laplace, {}),
    "Mixture": (partial(priors.Mixture, components=3), {}),
    "Vamp": (VAMP, {}),
    "Vamp, weighted, from noise": (partial(VAMP, start="noise", learn_weights=True), {}),
    "Vamp on the sphere": (VAMP, {"posterior": q(posteriors.PowerSpherical)}),
    "Vamp, full": (VAMP, {"posterior": q(posteriors.FullNormal)}),
    "Vamp, flow": (VAMP, {"posterior": IAF}),
    "Vamp, binary": (VAMP, {"posterior": q(posteriors.Bernoulli)}),
    "Vamp, one-hot": (VAMP, {"posterior": ONE_HOT, "latent_dim": 4}),
    "Exemplar": (partial(priors.Exemplar, components=3), {}),
    "ConditionalNormal": (of_the_second_class, {}),
    "Flow": (partial(priors.Flow, layers=2, hidden=8), {}),
    "Flow, masked": (
        partial(priors.Flow, transform="masked_autoregressive", layers=2, hidden=8),
        {},
    ),
    # Its bins may be too narrow for a grid: its density has a test of its own below.
    "Flow, spline": (
        partial(priors.Flow, transform="spline_coupling", layers=2, hidden=8),
        {"tolerance": math.inf},
    ),
    # LARS estimates its constant, of about a half here, from 2^18 draws.
    "LARS": (partial(priors.LARS, widths=[8]), {"tolerance": 4.5 * 2**-9}),
    "LARS, truncated": (
        partial(priors.LARS, widths=[8], truncation=2),
        {"tolerance": 4.5 * 2**-9},
    ),
    "UniformSphere": (priors.UniformSphere, {}),
    "UniformSphere of three": (priors.UniformSphere, {"latent_dim": 3}),
    "Bernoulli": (priors.Bernoulli, {}),
    "Categorical": (priors.Categorical, {}),
    "Categorical of two": (
        partial(priors.Categorical, categories=2),
        {"posterior": ONE_HOT, "latent_dim": 4},
    ),
    "AR1": (partial(priors.AR1, rate=0.5), {}),
    "Hierarchical": (partial(priors.Hierarchical, network=SMALL), {}),
    "Hierarchical, Vamp": (partial(priors.Hierarchical, top=VAMP, network=SMALL), {}),
    "Hierarchical of four": (
        partial(priors.Hierarchical, network=SMALL),
        {"posterior": q(posteriors.Ladder, top_dim=[2, 1, 2], features=4)},
    ),
    "Hierarchical, Vamp over a ladder": (
        partial(priors.Hierarchical, top=VAMP, network=SMALL),
        {"posterior": q(posteriors.Ladder, top_dim=2, features=4)},
    ),
    "Hierarchical, Exemplar": (
        partial(priors.Hierarchical, top=partial(priors.Exemplar, components=3), network=SMALL),
        {},
    ),
}
POSTERIORS: dict[str, Case] = {
    "Normal": (q(posteriors.Normal), {"latent_dim": 1}),
    "Normal, convolutional": (partial(posteriors.Normal, encoder=ConvEncoder), {}),
    "Normal, residual": (
        partial(posteriors.Normal, encoder=partial(ResidualEncoder, channels=[4, 5], blocks=1)),
        {},
    ),
    "FullNormal": (q(posteriors.FullNormal), {}),
    "FullNormal of four": (q(posteriors.FullNormal), {"latent_dim": 4}),
    "LowRankNormal": (q(posteriors.LowRankNormal), {}),
    "IAF": (q(posteriors.IAF, hidden=8, context=4), {}),
    "SplineFlow": (
        q(posteriors.SplineFlow, hidden=8, context=4, layers=1),
        {"tolerance": 2e-3},  # its density has corners
    ),
    "PowerSpherical": (q(posteriors.PowerSpherical), {"smooth_draws": False}),
    "Bernoulli": (q(posteriors.Bernoulli), {}),
    "Categorical": (q(posteriors.Categorical), {}),
    "Categorical of two": (ONE_HOT, {"latent_dim": 4}),
    "Hierarchical": (q(posteriors.Hierarchical, top_dim=2, features=4), {}),
    "Hierarchical, spherical": (
        q(posteriors.Hierarchical, top=q(posteriors.PowerSpherical), top_dim=2, features=4),
        {
            "smooth_draws": False,
            "prior": partial(priors.Hierarchical, top=priors.UniformSphere, network=Linear),
        },
    ),
    "Hierarchical of four": (q(posteriors.Hierarchical, top_dim=[2, 1, 2], features=4), {}),
    "Ladder": (q(posteriors.Ladder, top_dim=2, features=4), {}),
    "Ladder of four": (q(posteriors.Ladder, top_dim=[1, 2, 1], features=3), {}),
    "Ladder, residual": (RESIDUAL_LADDER, {"event_shape": (6, 5)}),
    "Ladder, Vamp": (
        q(posteriors.Ladder, top_dim=2, features=4),
        {"prior": partial(priors.Hierarchical, top=VAMP, network=SMALL)},
    ),
    "BottomUp": (q(posteriors.BottomUp, top_dim=2, network=SMALL), {}),
    "BottomUp of four": (q(posteriors.BottomUp, top_dim=[1, 2, 1], network=Linear), {}),
}
LIKELIHOODS: dict[str, Case] = {
    "Bernoulli": (likelihoods.Bernoulli, {"mean": True}),
    "Binomial": (likelihoods.Binomial, {"mean": True}),
    "ContinuousBernoulli": (likelihoods.ContinuousBernoulli, {"mean": True}),
    "Gaussian": (likelihoods.Gaussian, {"mean": True}),
    "Gaussian, fixed": (partial(likelihoods.Gaussian, noise="fixed"), {"mean": True}),
    "Gaussian, per pixel": (partial(likelihoods.Gaussian, noise="per_pixel"), {"mean": True}),
    "Gaussian, optimal": (partial(likelihoods.Gaussian, noise="optimal"), {"mean": True}),
    "Laplace": (likelihoods.Laplace, {"mean": True}),
    "StudentT": (likelihoods.StudentT, {"mean": True}),
    # It is cut off where single precision ends.
    "Beta": (likelihoods.Beta, {"mean": True, "tolerance": 1e-3}),
    "LogitNormal": (likelihoods.LogitNormal, {"mean": True}),
    "DiscretizedLogistic": (likelihoods.DiscretizedLogistic, {"mean": True}),
    "DiscretizedLogistic, mixed": (
        partial(likelihoods.DiscretizedLogistic, components=3),
        {"mean": True},
    ),
    "Categorical": (likelihoods.Categorical, {"mean": True}),
    "LogisticMixture": (likelihoods.LogisticMixture, {"mean": True}),
    "LogisticMixture of one": (
        partial(likelihoods.LogisticMixture, components=1),
        {"mean": True},
    ),
    "PixelCNN": (partial(likelihoods.PixelCNN, layers=2, kernel_size=3, channels=6), {}),
    "LocalPixels": (partial(likelihoods.LocalPixels, features=2, reach=1), {}),
    "PixelCNNLevels": (
        partial(likelihoods.PixelCNNLevels, layers=2, kernel_size=3, channels=6),
        {},
    ),
}


def table(
    likelihood: Callable[..., likelihoods.Likelihood], kind: kinds.Kind, stored: Tensor
) -> Case:
    """A likelihood of data that are no pixels."""

    def make(latent_dim: int, event_shape: Any) -> likelihoods.Likelihood:
        return likelihood(latent_dim, kind.fitted(stored))

    return make, {"event_shape": kind.shape, "stored": stored}


DRAWS = torch.rand(60, 4, generator=torch.Generator().manual_seed(0))
COUNTS = (DRAWS.pow(-0.7) * torch.tensor([1.0, 3, 30, 0.7])).floor()
CODES = (DRAWS * torch.tensor([2.0, 5, 3, 3])).floor()
NAMES = [["no", "yes"], [*"abcde"], ["low", "middle", "high"], [*"xyz"]]
OF_COUNTS = kinds.Counts([4]), COUNTS
OF_POSITIVES = kinds.Positive([4]), 1e3 * DRAWS.exp() + DRAWS.flip(0)
OF_REALS = kinds.Real([4]), 50 + 9 * DRAWS.logit()
NB = likelihoods.NegativeBinomial
TABLES: dict[str, Case] = {
    "Poisson": table(likelihoods.Poisson, *OF_COUNTS),
    "Poisson, zeros": table(partial(likelihoods.Poisson, zero_inflation=True), *OF_COUNTS),
    "Poisson, known total": table(partial(likelihoods.Poisson, total="known"), *OF_COUNTS),
    "Poisson, image": table(
        partial(likelihoods.Poisson, zero_inflation=True, total="known"),
        kinds.Counts([2, 2]),
        COUNTS.reshape(60, 2, 2),
    ),
    "NegativeBinomial": table(NB, *OF_COUNTS),
    "NegativeBinomial, shared": table(partial(NB, dispersion="shared"), *OF_COUNTS),
    "NegativeBinomial, per example": table(partial(NB, dispersion="per_example"), *OF_COUNTS),
    "NegativeBinomial, all": table(
        partial(NB, dispersion="per_example", total="known", zero_inflation=True), *OF_COUNTS
    ),
    "NegativeBinomial, zeros": table(partial(NB, zero_inflation=True), *OF_COUNTS),
    "Multinomial": table(likelihoods.Multinomial, *OF_COUNTS),
    "Categories": table(likelihoods.Categories, kinds.Categories([4], None, NAMES), CODES),
    "CumulativeLogit": table(likelihoods.CumulativeLogit, kinds.Ordered([4], None, NAMES), CODES),
    "CumulativeLogit of two": table(
        likelihoods.CumulativeLogit, kinds.Ordered([1], None, NAMES[:1]), CODES[:, :1]
    ),
    "LogNormal": table(likelihoods.LogNormal, *OF_POSITIVES),
    "LogNormal, shared": table(partial(likelihoods.LogNormal, noise="shared"), *OF_POSITIVES),
    "LogNormal, per example": table(
        partial(likelihoods.LogNormal, noise="per_example"), *OF_POSITIVES
    ),
    "Gamma": table(likelihoods.Gamma, *OF_POSITIVES),
    "Gamma, per example": table(partial(likelihoods.Gamma, noise="per_example"), *OF_POSITIVES),
    "Gaussian of reals": table(likelihoods.Gaussian, *OF_REALS),
    "Laplace of reals": table(likelihoods.Laplace, *OF_REALS),
    "StudentT of reals": table(likelihoods.StudentT, *OF_REALS),
    "LogisticMixture of reals": table(likelihoods.LogisticMixture, *OF_REALS),
}
MIXED = (
    kinds.Columns(
        [
            (kinds.Real([1], ["age"]), [2]),
            (kinds.Counts([1], ["visits"]), [0]),
            (kinds.Categories([1], ["city"], [[*"abc"]]), [3]),
            (kinds.Positive([1], ["income"]), [1]),
        ],
        ["visits", "income", "age", "city"],
    ),
    torch.stack([COUNTS[:, 1], DRAWS[:, 1].exp(), 50 + DRAWS[:, 2].logit(), CODES[:, 3]], 1),
)
TABLES |= {
    "Columns": table(likelihoods.Columns, *MIXED),
    "Columns, named": table(
        partial(likelihoods.Columns, columns={"income": "Gamma", "age": "StudentT"}), *MIXED
    ),
    "ByKind": table(likelihoods.ByKind, *MIXED),
}


def holes(
    likelihood: Callable[..., likelihoods.Likelihood], kind: kinds.Kind, stored: Tensor
) -> Case:
    """A likelihood of data of which a third is missing, and of one example everything."""
    there = torch.rand(stored.shape, generator=torch.Generator().manual_seed(0)) > 1 / 3
    there[0] = False
    incomplete = torch.where(there, stored, torch.nan)

    def make(latent_dim: int, event_shape: Any) -> likelihoods.Likelihood:
        return likelihoods.ObservedEntries(likelihood(latent_dim, kind.fitted(incomplete)))

    return make, {"event_shape": kind.shape, "stored": incomplete}


TABLES |= {
    "ObservedEntries of columns": holes(likelihoods.Columns, *MIXED),
    "ObservedEntries of counts": holes(NB, *OF_COUNTS),
    "ObservedEntries of pixels": holes(
        likelihoods.Binomial, kinds.Levels([2, 2], levels=17), CODES.reshape(60, 2, 2)
    ),
}


def conditions(case: Case, given: kinds.Kind = LABEL) -> Case:
    """The likelihood of another case, of data with labels."""
    make, options = case
    stored = options["stored"]
    labels = torch.arange(len(stored))[:, None] % 3
    kind = kinds.Conditional(make(2, ()).kind, given)

    def made(latent_dim: int, event_shape: Any) -> likelihoods.Likelihood:
        size = latent_dim + given.feature_shape[0]
        return likelihoods.Given(make(size, kind.of.shape), given)

    return made, {"event_shape": kind.shape, "stored": kind.packed(stored, labels)}


TABLES |= {
    "Given of columns": conditions(TABLES["Columns"]),
    "Given of columns with holes": conditions(TABLES["ObservedEntries of columns"]),
    "Given of known totals": conditions(TABLES["NegativeBinomial, all"]),
    "Given of reals, optimal": conditions(
        table(partial(likelihoods.Gaussian, noise="optimal"), *OF_REALS)
    ),
    "Given of one pixel after another": conditions(
        table(
            partial(likelihoods.PixelCNN, layers=2, kernel_size=3, channels=6),
            kinds.Binary([2, 2], levels=2),
            (DRAWS > 0.4).float().reshape(60, 2, 2),
        )
    ),
    "Given of pixels with holes": conditions(TABLES["ObservedEntries of pixels"]),
}
NETWORKS: dict[str, Case] = {
    "MLP": (partial(MLP, widths=[7, 6]), {}),
    "MLP without hidden layers": (partial(MLP, widths=[]), {}),
    "MLP gated": (partial(MLP, widths=[7, 6], gated=True), {}),
    "MLP with dropout and noise": (partial(MLP, widths=[7, 6], dropout=0.3, noise=0.1), {}),
    "SkipMLP": (partial(networks.SkipMLP, widths=[7, 6]), {}),
    "SkipMLP without hidden layers": (partial(networks.SkipMLP, widths=[]), {}),
    "SkipMLP gated": (partial(networks.SkipMLP, widths=[7, 6], gated=True), {}),
    "Linear": (Linear, {}),
    "ConvEncoder": (partial(ConvEncoder, channels=[3, 4, 5]), {"in_shape": (9, 6)}),
    "ConvEncoder in colour": (ConvEncoder, {"in_shape": (3, 9, 6)}),
    "ConvDecoder": (
        partial(ConvDecoder, channels=[5, 4, 3]),
        {"in_shape": (4,), "out_shape": (9, 6)},
    ),
    "ConvDecoder in colour": (ConvDecoder, {"in_shape": (4,), "out_shape": (3, 9, 6)}),
    "ResidualEncoder": (
        partial(ResidualEncoder, channels=[3, 4, 5], blocks=1),
        {"in_shape": (9, 6)},
    ),
    "ResidualEncoder in colour": (
        partial(ResidualEncoder, channels=[4, 5]),
        {"in_shape": (3, 9, 6)},
    ),
    "ResidualDecoder": (
        partial(networks.ResidualDecoder, channels=[5, 4, 3], blocks=1),
        {"in_shape": (4,), "out_shape": (9, 6)},
    ),
    "ResidualDecoder of two parameters in colour": (
        partial(networks.ResidualDecoder, channels=[5, 4]),
        {"in_shape": (2, 2), "out_shape": (6, 9, 6)},
    ),
}
GAIN = {"gain": 0.8}
OBJECTIVES: dict[str, Case] = {
    "ELBO": (ELBO, GAIN),
    "ELBO, stl": (partial(ELBO, 3, gradient="stl"), GAIN),
    "ELBO, free bits": (partial(ELBO, 2, free_bits=0.1, group=0), GAIN),
    "AnalyticELBO": (objectives.AnalyticELBO, GAIN),
    "TargetKL": (partial(TargetKL, 5.0, 2), GAIN),
    "IWAE": (IWAE, GAIN),
    "IWAE, dreg": (partial(IWAE, 3, "dreg"), GAIN),
    "MIWAE": (partial(MIWAE, 2, 2, "stl"), GAIN),
    "PIWAE": (partial(PIWAE, 2, 2, "dreg"), GAIN),
    "CIWAE": (partial(CIWAE, 3, 0.5, "dreg"), GAIN),
    "Renyi": (partial(Renyi, 3, 0.5), GAIN),
    "CUBO": (objectives.CUBO, GAIN),
    "TVO": (objectives.TVO, GAIN),
    "RWS": (partial(RWS, guide="both"), GAIN),
}
CHECKS: list[tuple[Callable[..., None], Any, type, dict[str, Case]]] = [
    (testing.check_prior, priors, priors.Prior, PRIORS),
    (testing.check_posterior, posteriors, posteriors.Posterior, POSTERIORS),
    (testing.check_likelihood, likelihoods, likelihoods.Likelihood, LIKELIHOODS | TABLES),
    (testing.check_network, networks, networks.Network, NETWORKS),
    (testing.check_objective, objectives, objectives.Objective, OBJECTIVES),
]


@pytest.mark.parametrize(("module", "base", "cases"), [check[1:] for check in CHECKS])
def test_every_public_part_is_under_contract(
    module: Any, base: type, cases: dict[str, Case]
) -> None:
    public = {
        name
        for name, part in vars(module).items()
        if inspect.isclass(part) and issubclass(part, base) and not name.startswith("_")
    }
    assert public - {base.__name__} == {name.split()[0].rstrip(",") for name in cases}


@pytest.mark.parametrize(
    ("check", "case"),
    [
        pytest.param(check, case, id=f"{check.__name__}-{name}")
        for check, _, _, cases in CHECKS
        for name, case in cases.items()
    ],
)
def test_contract(check: Callable[..., None], case: Case) -> None:
    make, options = case
    if check in (testing.check_prior, testing.check_posterior):
        options = {"tolerance": 2e-4, **options}
    if check is testing.check_posterior:
        options = {"event_shape": (5, 4), **options}
    check(make, **options)


@pytest.mark.parametrize("name", LIKELIHOODS)
def test_likelihoods_in_colour(name: str) -> None:
    make, options = LIKELIHOODS[name]
    images = torch.randint(256, (20, 3, 4, 2), dtype=torch.uint8)
    testing.check_likelihood(make, event_shape=(3, 4, 2), stored=images, **options)


@pytest.mark.parametrize("name", POSTERIORS)
def test_posteriors_are_reparameterised(name: str) -> None:
    posterior = POSTERIORS[name][0]((5, 4), 4)
    if name.startswith("Ladder"):
        VAE(priors.Hierarchical(4), likelihoods.Bernoulli(4, [5, 4]), posterior)
    assert posterior(torch.rand(6, 5, 4)).has_rsample
    discrete = posterior.support in ("binary", "categorical")
    assert posterior.eval()(torch.rand(6, 5, 4)).has_rsample != discrete


def test_the_density_of_a_flow_of_splines() -> None:
    """The image of a normal density under a known map."""
    torch.manual_seed(1)
    prior = priors.Flow(2, transform="spline_coupling", layers=2, hidden=8).double().eval()
    nudge(prior)
    p = prior()
    base = torch.distributions.Normal(torch.zeros(2).double(), 1.0)

    def flow(u: Tensor) -> Tensor:
        for transform in p.transforms:
            u = transform(u)
        return u

    for u in base.sample((50,)):
        jacobian = torch.autograd.functional.jacobian(flow, u)
        expected = base.log_prob(u).sum() - torch.linalg.slogdet(jacobian)[1]
        torch.testing.assert_close(p.log_prob(flow(u).detach().clone()), expected)
    torch.manual_seed(0)
    drawn = p.sample((3,))
    torch.manual_seed(0)
    torch.testing.assert_close(drawn, flow(torch.randn(3, 2).double()))


def test_checks_leave_no_trace() -> None:
    pyro.param("mine", torch.ones(1))
    before = torch.get_rng_state()
    testing.check_prior(priors.LearnedNormal)
    assert torch.equal(torch.get_rng_state(), before)
    assert list(pyro.get_param_store().keys()) == ["mine"]
    assert torch.get_default_dtype() == torch.float32
