"""Likelihoods of counts, positive values, reals and categories: where they start, what they are."""

import math
from collections.abc import Callable
from functools import partial

import pyro.distributions as dist
import pytest
import torch
from torch import Tensor

from pyro_vae import VAE, InputError, kinds, likelihoods, objectives, posteriors, priors, training
from pyro_vae import distributions as ours
from pyro_vae.kinds import Counts, Kind, Ordered, Positive, Real
from pyro_vae.likelihoods import CumulativeLogit, Likelihood, Multinomial, NegativeBinomial, Poisson
from pyro_vae.networks import MLP, Linear

N = 4000
NB = NegativeBinomial
CATEGORIES = [["no", "yes"], [*"abcde"], ["low", "middle", "high"]]


def started(make: Callable[..., Likelihood], kind: Kind, stored: Tensor) -> Likelihood:
    """A likelihood after `initialize` whose decoder ignores z."""
    kind = kind.fitted(stored)
    likelihood = make(2, kind, Linear)
    likelihood.initialize(likelihood.kind.stored_features(stored))
    for parameter in likelihood.decoder.body.parameters():
        parameter.data.zero_()
    return likelihood.eval()


def counts_of(theta: float, zeros: float = 0.0) -> Tensor:
    """Counts of means 0.3, 4 and 200."""
    log_mean = torch.tensor([0.3, 4, 200]).log().expand(N, 3)
    x = ours.NegativeBinomial(log_mean, torch.tensor(theta).log()).sample()
    return torch.where(torch.rand(N, 3) < zeros, 0.0, x)


@pytest.mark.parametrize("zeros", [0.0, 0.4])
@pytest.mark.parametrize(
    ("make", "theta"),
    [
        (Poisson, 1e8),
        (NB, 2.0),
        (partial(NB, dispersion="shared"), 2.0),
        (partial(NB, dispersion="per_example"), 2.0),
    ],
)
def test_counts_start_at_the_moments_of_the_data(
    make: Callable[..., Likelihood], theta: float, zeros: float
) -> None:
    x = counts_of(theta, zeros)
    if zeros:
        make = partial(make, zero_inflation=True)
    likelihood = started(make, Counts([3]), x)
    p = likelihood(torch.zeros(2))
    torch.testing.assert_close(p.mean, x.mean(0), rtol=1e-4, atol=1e-4)
    # The moments of 4000 counts have errors of a few per cent.
    torch.testing.assert_close(p.variance, x.var(0), rtol=0.2, atol=0)
    empty = p.base_dist.log_prob(torch.zeros(3)).exp()
    error = (empty * (1 - empty) / N).sqrt()
    if not isinstance(likelihood, NB) or not zeros:
        assert ((empty - (x == 0).float().mean(0)).abs() < 5 * error + 1e-3).all()
    truth = ours.NegativeBinomial(torch.tensor([0.3, 4, 200]).log(), torch.tensor(theta).log())
    truth = ours.ZeroInflated(truth, torch.tensor(zeros).logit().clamp(min=-50)).to_event(1)
    assert p.log_prob(x).mean() > truth.log_prob(x).mean() - 0.05


def sampled_rows(theta: float | None) -> tuple[Tensor, Tensor]:
    """Rows of totals near 20 .. 400, with shares 0.1, 0.3, 0.6; Poisson if theta is None."""
    share = torch.tensor([0.1, 0.3, 0.6])
    size = torch.randint(20, 400, (N, 1)).float()
    log_mean = (size * share).log()
    p = ours.Poisson(log_mean)
    if theta is not None:
        p = ours.NegativeBinomial(log_mean, torch.tensor(theta).log())
    return p.sample(), share


@pytest.mark.parametrize("zero_inflation", [False, True])
@pytest.mark.parametrize(
    "make", [partial(Poisson, total="known"), partial(NB, total="known"), Multinomial]
)
def test_known_totals_start_at_the_shares(
    make: Callable[..., Likelihood], zero_inflation: bool
) -> None:
    if zero_inflation:
        if make is Multinomial:
            return
        make = partial(make, zero_inflation=True)
    x, share = sampled_rows(None)
    likelihood = started(make, Counts([3]), x)
    p = likelihood.given(torch.zeros(N, 2), x)
    found = p.mean / x.sum(1, keepdim=True)
    expected = x.sum(0) / x.sum()
    # Additional zeros have at least a probability of 0.001, which the shares cannot make up for.
    rtol = 2e-3 if zero_inflation else 1e-4
    torch.testing.assert_close(found, expected.expand(N, 3), rtol=rtol, atol=0)
    assert ((expected - share).abs() < 0.005).all()
    drawn = likelihood(torch.zeros(N, 2)).sample().sum(1)
    total = x.sum(1).mean().round()
    if make is Multinomial:
        assert (drawn == total).all()
    else:
        assert abs(drawn.mean() - total) < 4.5 * drawn.std() / N**0.5


def test_dispersion_starts_near_the_truth() -> None:
    """With totals that vary, free means would take their spread for dispersion."""
    x, _ = sampled_rows(5.0)
    known = started(partial(NB, total="known"), Counts([3]), x)
    free = started(NB, Counts([3]), x)
    # The total of three counts is noisy itself and follows the largest of them.
    assert (known.log_theta.exp()[:2] > 3.5).all() and (free.log_theta.exp() < 2.5).all()
    plain = started(NB, Counts([3]), counts_of(5.0))
    assert ((plain.log_theta.exp()[1:] / 5 - 1).abs() < 0.15).all()


def test_poisson_of_known_totals_is_below_the_multinomial() -> None:
    """Log Poisson(x; n p) = log Multinomial(x; n, p) + log Poisson(n; n)."""
    x = sampled_rows(5.0)[0][:50]
    x[0] = 0
    multinomial = Multinomial(2, [3], Linear)
    poisson = Poisson(2, [3], Linear, total="known")
    poisson.load_state_dict(multinomial.state_dict())
    z = torch.randn(7, 50, 2)
    n = x.sum(1)
    of_total = ours.Poisson(n.clamp(min=1e-30).log()).log_prob(n)
    found = poisson.given(z, x).log_prob(x)
    torch.testing.assert_close(found, multinomial.given(z, x).log_prob(x) + of_total)
    assert (of_total <= 0).all() and found.shape == (7, 50)


def test_known_totals_are_a_measure_of_their_own() -> None:
    kind = Counts([3])
    free, known = Poisson(2, kind), NB(2, kind, total="known")
    names = {each.kind.base_measure().name for each in (free, known, Multinomial(2, kind))}
    assert names == {"counts", "counts, given their total"}
    assert not kind.total_is_known and known.kind.fitted(counts_of(1.0)).total_is_known


@pytest.mark.parametrize("make", [Multinomial, partial(NB, total="known", zero_inflation=True)])
def test_a_vae_of_known_totals(make: Callable[..., Likelihood]) -> None:
    """Training and evaluation see the totals of x, and draws have the mean total."""
    x, _ = sampled_rows(3.0)
    kind = Counts([3]).fitted(x)
    likelihood = make(2, kind, Linear)
    vae = VAE(priors.StandardNormal(2), likelihood, posteriors.Normal([3], 2, Linear))
    vae.initialize(likelihood.kind.stored_features(x))
    engine = training.EagerEngine(vae.model, vae.guide, objectives.IWAE(3), lr=1e-2)
    losses = [float(engine.step(x[:500])) for _ in range(60)]
    assert all(map(math.isfinite, losses)) and losses[-1] < losses[0]
    assert vae.model(size=4).shape == (4, 3)


def one_column(likelihood: Likelihood, z: Tensor, values: Tensor, column: int) -> Tensor:
    """Return log p of values of one column."""
    x = torch.ones(len(values), *likelihood.event_shape, dtype=values.dtype)
    x[:, column] = values
    return likelihood(z).base_dist.log_prob(x)[:, column]


@pytest.mark.parametrize(
    "make",
    [
        Poisson,
        partial(Poisson, zero_inflation=True),
        partial(NB, dispersion="per_example", total="known", zero_inflation=True),
    ],
)
def test_counts_sum_to_one(make: Callable[..., Likelihood]) -> None:
    likelihood = make(2, Counts([3]), MLP).double()
    likelihood.initialize(likelihood.kind.features(counts_of(1.0).double()))
    k = torch.arange(100_000, dtype=torch.float64)
    for z in 3 * torch.randn(4, 2).double():
        for column in range(3):
            total = one_column(likelihood, z, k, column).exp().sum().item()
            assert total == pytest.approx(1, abs=1e-6)


@pytest.mark.parametrize("spread", [0.01, 1.0, 2.0])
@pytest.mark.parametrize("noise", ["shared", "per_column", "per_example"])
@pytest.mark.parametrize("family", [likelihoods.LogNormal, likelihoods.Gamma])
def test_positive_values(family: Callable[..., Likelihood], noise: str, spread: float) -> None:
    """They integrate to one for any z, and start at the moments of the data, in log x."""
    log_x = 5 + spread * torch.randn(N, 2).double()
    if family is likelihoods.Gamma:
        log_a = torch.tensor(-2 * math.log(spread)).double()
        log_x = ours.Gamma(torch.tensor(5.0).double(), log_a.expand(N, 2)).sample().log()
    kind = Positive([2]).fitted(log_x.exp())
    x = kind.observe(log_x.exp())
    likelihood = started(partial(family, noise=noise), Positive([2]), log_x.exp())
    p = likelihood(torch.zeros(2))
    # LogNormal has the mean and the deviation of log x, Gamma the mean of x.
    if family is likelihoods.LogNormal:
        torch.testing.assert_close(p.base_dist.loc, x.log().mean(0), atol=1e-4, rtol=0)
        rtol = 0.03 if noise == "shared" else 0.002
        torch.testing.assert_close(p.base_dist.scale, x.log().std(0), rtol=rtol, atol=0)
    else:
        torch.testing.assert_close(p.mean, x.mean(0), rtol=1e-3, atol=0)
        assert ((p.base_dist.log_concentration - log_a).abs() < 0.1).all()
    bent = family(2, kind, MLP, noise=noise).double()
    bent.initialize(kind.features(x).double())
    grid = torch.linspace(5 - 300 * spread, 5 + 40 * spread, 400_001, dtype=torch.float64)
    for z in torch.randn(3, 2).double():
        density = (one_column(bent, z, grid.exp(), 1) + grid).exp()
        assert torch.trapezoid(density, grid).item() == pytest.approx(1, abs=1e-4)


def test_log_normal_is_the_normal_of_the_features() -> None:
    """With the Jacobian of log x / spread, whatever the units."""
    stored = (3 + 2 * torch.randn(50, 2)).exp()
    for factor in (1.0, 1e6):
        kind = Positive([2]).fitted(factor * stored)
        likelihood = likelihoods.LogNormal(2, kind, Linear)
        z, x = torch.zeros(50, 2), kind.observe(factor * stored)
        log_p = likelihood(z).log_prob(x) + kind.shift(x)
        features = kind.features(x)
        scale = 1e-3 + likelihood.second.exp()
        normal = dist.Normal(likelihood.decoder(z), scale).log_prob(features) - kind.scale.log()
        expected = (normal - (factor * stored).log()).sum(1)
        torch.testing.assert_close(log_p, expected, rtol=1e-5, atol=1e-4)


@pytest.mark.parametrize("components", [1, 2, 5])
def test_logistic_mixture_starts_at_the_moments(components: int) -> None:
    make = partial(likelihoods.LogisticMixture, components=components)
    stored = 7 + torch.tensor([0.1, 30]) * torch.randn(N, 2)
    likelihood = started(make, Real([2]), stored)
    p = likelihood(torch.zeros(2))
    deviation = stored.std(0)
    assert ((p.mean - stored.mean(0)).abs() < 1e-4 * deviation).all()
    torch.testing.assert_close(p.variance.sqrt(), deviation, rtol=0.01, atol=0)
    drawn = p.sample((20_000,))
    error = (p.variance / 20_000).sqrt()
    assert ((drawn.mean(0) - p.mean).abs() < 4.5 * error).all()


def test_categories_start_at_their_frequencies() -> None:
    codes = (torch.rand(N, 3).square() * torch.tensor([2.0, 5, 3])).floor()
    for make, kind in (
        (likelihoods.Categories, kinds.Categories([3], None, CATEGORIES)),
        (CumulativeLogit, Ordered([3], None, CATEGORIES)),
    ):
        likelihood = started(make, kind, codes)
        for column, size in enumerate(kind.sizes):
            found = one_column(likelihood, torch.zeros(2), torch.arange(float(size)), column)
            frequency = (codes[:, column, None] == torch.arange(size)).float().mean(0)
            torch.testing.assert_close(found.exp(), frequency, atol=2e-3, rtol=0)


@pytest.mark.parametrize("family", ["Categories", "CumulativeLogit"])
def test_categories_sum_to_one(family: str) -> None:
    """Over the categories of each column; another code is impossible and is never drawn."""
    ordered = family == "CumulativeLogit"
    kind = (Ordered if ordered else kinds.Categories)([3], None, CATEGORIES)
    likelihood = getattr(likelihoods, family)(2, kind, MLP).double()
    for z in 9 * torch.randn(5, 2).double():
        drawn = likelihood(z).sample((500,))
        kind.check(drawn)
        for column, size in enumerate(kind.sizes):
            codes = torch.arange(size, dtype=torch.float64)
            total = one_column(likelihood, z, codes, column).exp().sum().item()
            assert total == pytest.approx(1, abs=1e-12)
    p = likelihood(torch.zeros(2).double()).base_dist
    p._validate_args = False
    codes = torch.tensor([2.0, 0, 3]).double()
    assert p.log_prob(codes).isfinite().tolist() == [False, True, False]


def test_the_picture_of_categories_is_the_most_probable() -> None:
    likelihood = likelihoods.Categories(2, kinds.Categories([3], None, CATEGORIES), Linear)
    likelihood.decoder.bias.data.copy_(torch.tensor([0.0, 9, 0, 0, 0, 9, 0, 9, 0, 0]))
    picture = likelihood.picture(torch.zeros(4, 2))
    assert torch.equal(picture, torch.tensor([1.0, 0.75, 0]).expand(4, 3))


def test_cutpoints_increase_whatever_their_parameters() -> None:
    likelihood = CumulativeLogit(2, Ordered([3], None, CATEGORIES))
    for scale in (0.0, 1.0, 30.0):
        likelihood.cuts.data.normal_().mul_(scale)
        p = likelihood(torch.randn(5, 2))
        for x in (torch.zeros(3), torch.tensor([1.0, 2, 1]), torch.tensor([1.0, 4, 2])):
            log_p = p.log_prob(x)
            assert log_p.dtype == torch.float32 and log_p.isfinite().all()


def test_extreme_decoders_give_finite_numbers() -> None:
    """Outputs of +-1000, in single precision: log p(x|z) and its gradients are finite."""
    of_counts = [
        partial(family, total=total, zero_inflation=zeros)
        for family in (Poisson, NB)
        for total in ("free", "known")
        for zeros in (False, True)
    ]
    per_example = partial(NB, dispersion="per_example")
    for make in (*of_counts, per_example, Multinomial):
        likelihood = make(2, Counts([3]), Linear)
        likelihood.decoder.body[-1].weight.data.mul_(1000)
        x = torch.tensor([[0.0, 0, 0], [1, 1e6, 0], [0, 3, 3]])
        log_p = likelihood.given(torch.randn(40, 3, 2), x).log_prob(x)
        log_p.sum().backward()
        assert log_p.isfinite().all()
        for parameter in likelihood.parameters():
            assert parameter.grad.isfinite().all()
        drawn = likelihood(torch.randn(50, 2)).sample()
        assert drawn.isfinite().all() and (drawn >= 0).all()


def test_what_is_refused() -> None:
    with pytest.raises(InputError, match=r"rows of a table.* shape \[4, 4\]"):
        Multinomial(2, [4, 4])
    with pytest.raises(InputError, match="one component"):
        likelihoods.LogisticMixture(2, [3], components=0)
    for make, kind in (
        (Poisson, Real([3])),
        (likelihoods.Gamma, Real([3])),
        (CumulativeLogit, kinds.Categories([3], None, CATEGORIES)),
        (likelihoods.Categories, Counts([3])),
        (likelihoods.LogisticMixture, Counts([3])),
    ):
        with pytest.raises(InputError, match="models"):
            make(2, kind)
    assert likelihoods.Categories(2, Ordered([3], None, CATEGORIES)).kind.name == "categories"
