"""Imputed values, their intervals and their scores, against exact answers."""

import math
from itertools import product

import pyro
import pytest
import torch
from factor_analysis import correlated, factor_analysis, joint_moments, with_holes
from scipy import stats
from torch import Tensor

from pyro_vae import VAE, distributions, kinds, likelihoods, networks, posteriors, priors
from pyro_vae.bounds import Settings
from pyro_vae.errors import InputError
from pyro_vae.likelihoods import ObservedEntries
from pyro_vae.prediction import imputation, impute, score


@pytest.fixture(scope="module")
def trained() -> VAE:
    return factor_analysis(with_holes(correlated()), train=1500)[0]


def drawn(vae: VAE, count: int) -> Tensor:
    """Return examples of the model itself, without holes."""
    torch.manual_seed(5)
    mean, covariance = joint_moments(vae)
    return torch.distributions.MultivariateNormal(mean, covariance).sample((count,)).float()


def conditional(vae: VAE, x: Tensor) -> tuple[Tensor, Tensor]:
    """Return the exact mean and deviation of each value that is missing, NaN elsewhere."""
    mean, covariance = joint_moments(vae)
    means, deviations = torch.full_like(x, torch.nan).double(), torch.full_like(x, torch.nan)
    for i, row in enumerate(x.double()):
        there = ~row.isnan()
        across = covariance[~there][:, there] @ torch.linalg.inv(covariance[there][:, there])
        means[i, ~there] = mean[~there] + across @ (row[there] - mean[there])
        own = covariance[~there][:, ~there] - across @ covariance[there][:, ~there]
        deviations[i, ~there] = own.diag().sqrt().float()
    return means, deviations.double()


@pytest.mark.parametrize("settings", [None, Settings(temperatures=30, chains=300)])
def test_means_and_deviations_of_factor_analysis(trained: VAE, settings: Settings | None) -> None:
    whole = drawn(trained, 40)
    x = with_holes(whole)
    found = impute(
        trained, x, 3000, draws=400, settings=settings, hidden=whole.where(x.isnan(), torch.nan)
    )
    mean, deviation = conditional(trained, x)
    known = ~found.mc_se.isnan() & x.isnan()
    assert known.sum() > 0.8 * x.isnan().sum()
    errors = ((found.means - mean) / found.mc_se)[known]
    # Errors of columns of one row are dependent: bound the mean square loosely, and the largest.
    assert errors.square().mean() < 2 and errors.abs().max() < 5
    assert found.values.equal(found.means)
    spread = found.draws.std(0)[known] / deviation[known]
    assert (spread - 1).abs().mean() < 0.06  # 400 draws: 0.035 each, and more if ess is low
    z = stats.norm.ppf(0.95)
    width = (found.upper - found.lower)[known] / (2 * z * deviation[known])
    assert (width - 1).abs().mean() < 0.08
    truth = whole.double()[known]
    exact = torch.distributions.Normal(mean[known], deviation[known]).log_prob(truth)
    assert found.log_density is not None
    assert (found.log_density[known] - exact).abs().mean() < 0.05
    assert found.log_density.isnan().equal(~x.isnan())
    there = ~x.isnan()
    for each in (found.values, found.lower, found.upper, found.draws[0], found.draws[-1]):
        assert each[there].equal(x[there].double())


def test_intervals_cover_what_they_say(trained: VAE) -> None:
    whole = drawn(trained, 1200)
    x = with_holes(whole)
    hidden = whole.where(x.isnan(), torch.nan)
    found = impute(trained, x, 2000, draws=0, hidden=hidden)
    scores = score(found, hidden, trained.likelihood.kind, whole.std(0))
    assert scores.coverage is not None and scores.squared_error is not None
    assert scores.num_values == x.isnan().sum() and scores.num_rows < 1200
    coverage, se = scores.coverage
    assert se < 0.01
    assert 0.87 < coverage < 0.93
    assert abs(coverage - 0.9) < 4 * se
    # The squared error is the variance that is left, and the log-density its expectation.
    _, deviation = conditional(trained, x)
    left = (deviation / whole.double().std(0)).square()[x.isnan()].mean().item()
    assert abs(scores.squared_error[0] - left) < 4 * scores.squared_error[1]
    entropy = (deviation.log() + 0.5 * math.log(2 * math.pi * math.e))[x.isnan()].mean().item()
    assert abs(scores.log_density[0] + entropy) < 4 * scores.log_density[1]
    assert scores.accuracy is None


CATEGORIES = kinds.Columns(
    [
        (kinds.Categories([2], None, [["a", "b"], ["a", "b", "c", "d"]]), [0, 2]),
        (kinds.Ordered([1], None, [["low", "middle", "high"]]), [3]),
        (kinds.Counts([1]), [1]),
    ]
)


def test_categories_by_enumeration() -> None:
    torch.manual_seed(0)
    likelihood = ObservedEntries(likelihoods.Columns(3, CATEGORIES, networks.Linear))
    for parameter in likelihood.parameters():
        parameter.data.normal_()
    vae = VAE(
        priors.Bernoulli(3),
        likelihood,
        posteriors.Bernoulli(likelihood.kind.feature_shape, 3, networks.Linear),
    ).eval()
    with torch.no_grad():
        whole = vae.model(size=30)
    x = with_holes(whole)
    hidden = whole.where(x.isnan(), torch.nan)
    found = impute(vae, x, 4000, draws=0, hidden=hidden)
    codes = torch.tensor(list(product([0.0, 1.0], repeat=3)))
    with torch.no_grad():
        p = likelihood(codes.unsqueeze(1))
        log_prior = vae.prior().log_prob(codes)
        log_joint = log_prior.unsqueeze(1) + p.log_prob(x)
        log_w = log_joint.log_softmax(0)
        exact = (log_w.unsqueeze(-1) + p.entry_log_probs(hidden)).logsumexp(0).double()
        assert found.log_density is not None
        missing = x.isnan()
        errors = (found.log_density - exact) * found.ess.sqrt().unsqueeze(1)
        assert found.ess.min() > 400
        assert errors[missing].abs().max() < 5  # p varies by less than its mean
        for place, size in ((0, 2), (2, 4), (3, 3)):
            shares = []
            for code in range(size):
                value = torch.full_like(x, torch.nan)
                value[:, place] = code
                log_p = p.entry_log_probs(value)[..., place]
                shares.append((log_w + log_p).logsumexp(0).exp())
            ranked = torch.stack(shares).topk(2, dim=0)
            clear = missing[:, place] & (ranked.values[0] - ranked.values[1] > 0.1)
            assert clear.sum() > 5
            assert found.values[clear, place].equal(ranked.indices[0][clear].double())
            assert found.lower[missing[:, place], place].isnan().all()
        mean = (log_w.exp() * p.mean.squeeze(1)[:, 1:2]).sum(0)
    own = missing[:, 1]
    errors = (found.means[:, 1] - mean)[own] / found.mc_se[own, 1]
    assert errors.abs().max() < 5
    scores = score(found, hidden, likelihood.kind, torch.ones(4))
    assert scores.accuracy is not None and 0.2 < scores.accuracy[0] < 1


def test_rows_that_draws_do_not_stand_for_have_no_interval(trained: VAE) -> None:
    x = drawn(trained, 20)
    x[:, 3] = torch.nan
    x[:10, :3] += 40 * x.where(~x.isnan(), 0).std(0)[:3]  # far from all that q(z|x) has seen
    found = impute(trained, x, 500, draws=0)
    few = impute(trained, x, 20, draws=0)
    assert found.lower[:10, 3].isnan().sum() >= 8
    assert found.lower[10:, 3].isfinite().all()
    assert few.lower[:, 3].isnan().all() and few.values.isfinite().all()


def test_results_do_not_depend_on_what_else_is_there(trained: VAE) -> None:
    x = with_holes(drawn(trained, 12))
    first, again = (impute(trained, x, 50, seed=3) for _ in range(2))
    assert first.values.equal(again.values) and first.draws.equal(again.draws)
    hidden = torch.zeros_like(x).where(x.isnan(), torch.nan)
    with_hidden = impute(trained, x, 50, seed=3, hidden=hidden)
    assert with_hidden.values.equal(first.values)


def test_what_cannot_be_imputed_is_refused(trained: VAE) -> None:
    pyro.clear_param_store()
    whole = VAE(
        priors.StandardNormal(2),
        likelihoods.Gaussian(2, kinds.Real([4])),
        posteriors.Normal([4], 2),
    )
    x = torch.randn(3, 4)
    with pytest.raises(InputError, match="seen no data with missing values"):
        impute(whole, x)
    with pytest.raises(InputError, match="level has to be between 0 and 1"):
        impute(trained, x, level=1.0)
    with pytest.raises(InputError, match="draws has to be 0 or more"):
        impute(trained, x, draws=-1)
    with pytest.raises(InputError, match="num_samples has to be at least 1"):
        impute(trained, x, 0)
    nothing = torch.full_like(x, torch.nan)
    with pytest.raises(InputError, match="nothing to score"):
        score(impute(trained, x, 20, hidden=nothing), nothing, trained.likelihood.kind, x.std(0))


def test_errors_of_means_are_those_of_rows() -> None:
    """Two values in each row that are always equal count as one."""
    torch.manual_seed(0)
    values = torch.randn(400, 1).double()
    once = imputation._mean_by_rows(values, torch.ones(400, 1, dtype=torch.bool))
    twice = imputation._mean_by_rows(values.expand(-1, 2), torch.ones(400, 2, dtype=torch.bool))
    assert once is not None and twice is not None
    assert twice == pytest.approx(once)
    assert once[1] == pytest.approx(values.std().item() / 20)


def impute_by_hand(log_w: Tensor, draws: int = 0) -> dict[str, Tensor]:
    """Impute one value, N(k / K, 1e-3) given draw k of K, with given log-weights [K]."""
    count = len(log_w)
    loc = (torch.arange(count) / count).view(count, 1, 1)
    whole = pyro.distributions.Normal(loc, 1e-3).to_event(1)
    p = distributions.ObservedEntries(whole, torch.zeros(()))
    kind = kinds.Incomplete(kinds.Real([1]))
    x = torch.full((1, 1), torch.nan)
    return imputation._impute_batch(p, kind, log_w.double().view(count, 1), draws, 0.9, x)


def test_draws_means_and_intervals_follow_the_weights() -> None:
    torch.manual_seed(0)
    weights = torch.arange(1.0, 1001)  # a triangle: its mean is 2/3, P(below t) = t^2
    found = impute_by_hand(weights.log(), draws=4000)
    assert found["means"].item() == pytest.approx(2 / 3, abs=0.002)
    assert found["lower"].item() == pytest.approx(math.sqrt(0.05), abs=0.005)
    assert found["upper"].item() == pytest.approx(math.sqrt(0.95), abs=0.005)
    drawn = found["draws"].flatten()
    assert drawn.mean().item() == pytest.approx(2 / 3, abs=4 * drawn.std().item() / 4000**0.5)
    assert drawn.std().item() == pytest.approx(math.sqrt(1 / 18), rel=0.06)


def test_an_interval_needs_a_good_khat_and_enough_effective_draws() -> None:
    torch.manual_seed(0)
    heavy = 1 + 0.05 / torch.rand(5000)  # a tail of Pareto's shape 1
    found = impute_by_hand(heavy.log())
    assert found["ess"].item() > 100 and found["khat"].item() > 0.75
    assert found["lower"].isnan().all() and found["mc_se"].isnan().all()
    for count, is_enough in ((99, False), (101, True)):
        found = impute_by_hand(torch.zeros(count))
        assert found["khat"].item() == 0 and found["ess"].item() == pytest.approx(count)
        assert found["lower"].isfinite().all().item() is is_enough
