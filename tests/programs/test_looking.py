"""What a look at two programs finds out: each kind of program gets the right number, or a sentence.

The exact log p(x) is in closed form. Weights are tested on the scale on which they are unbiased:
the mean of w / p(x) is one.
"""

from collections.abc import Callable
from typing import Any

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro import poutine
from pyro.infer.autoguide import AutoDelta, AutoGuideList, AutoMultivariateNormal, AutoNormal
from torch import Tensor, nn

from pyro_vae import InputError, bounds
from pyro_vae.bounds import Arguments, Shared
from pyro_vae.programs.looking import look_at, look_at_once

Program = Callable[..., Any]


@pytest.fixture(autouse=True)
def _clean() -> None:
    pyro.clear_param_store()
    torch.manual_seed(0)


def normal_model(x: Tensor) -> None:
    """Log p(x) is N(0, 2)."""
    with pyro.plate("data", len(x)):
        z = pyro.sample("z", dist.Normal(0.0, 1.0))
        pyro.sample("x", dist.Normal(z, 1.0), obs=x)


def normal_guide(x: Tensor) -> None:
    """The exact posterior has scale 0.7."""
    with pyro.plate("data", len(x)):
        pyro.sample("z", dist.Normal(x / 2, 0.8))


def normal_log_p(x: Tensor) -> Tensor:
    return dist.Normal(0.0, 2**0.5).log_prob(x)


def assert_unbiased(log_w: Tensor, log_p: Tensor) -> None:
    """The mean of w / p(x) is one for each example, within 4.5 standard errors that are small."""
    ratio = (log_w - log_p).double().exp()
    error = ratio.std(0) / len(ratio) ** 0.5
    assert error.max() < 0.2
    assert ((ratio.mean(0) - 1).abs() < 4.5 * error).all(), (ratio.mean(0), error)


# Particles.


def centred(z: Tensor) -> Tensor:
    return z - z.mean(1, keepdim=True)  # over the dimensions of a code, if there are no particles


def folded(z: Tensor) -> Tensor:
    return z.reshape(-1, 3)  # what a convolution needs


def counted(z: Tensor) -> Tensor:
    return z / len(z)  # the number of examples, if there are no particles


@pytest.mark.parametrize("decode", [centred, folded, counted])
def test_programs_that_are_wrong_among_particles(decode: Callable[[Tensor], Tensor]) -> None:
    x = torch.randn(4, 3)

    def model(x: Tensor) -> None:
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(x.new_zeros(len(x), 3), 1.0).to_event(1))
            pyro.sample("x", dist.Normal(decode(z), 1.0).to_event(1), obs=x)

    def guide(x: Tensor) -> None:
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(decode(x) / 2, 0.9).to_event(1))

    mean = decode(torch.eye(3)) if decode is not counted else torch.eye(3) / 4
    exact = dist.MultivariateNormal(torch.zeros(3), mean.T @ mean + torch.eye(3)).log_prob(x)
    with pytest.warns(UserWarning, match="run once for each draw"):
        log_w = bounds.log_weights(model, guide, x, 3000)
    assert_unbiased(log_w, exact)
    with pytest.warns(UserWarning, match="run once for each draw"):
        assert not look_at_once(model, guide, Arguments(x)).vectorize
    with pytest.raises(InputError, match="cannot make several draws at once"):
        bounds.log_weights(model, guide, x, 2, vectorize=True)


def test_dropout_is_no_reason_to_run_draw_by_draw() -> None:
    dropout = nn.Dropout(0.5)

    class Guide(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.dropout = dropout

        def forward(self, x: Tensor) -> None:
            normal_guide(self.dropout(x))

    guide = Guide()
    assert look_at_once(normal_model, guide, Arguments(torch.randn(5))).vectorize
    assert dropout.training
    with pytest.raises(InputError, match="call eval"):
        bounds.evaluate(normal_model, guide, torch.randn(5), 4)
    bounds.evaluate(normal_model, guide.eval(), torch.randn(5), 4)


# Batches.


def test_covariates_that_are_found_by_index() -> None:
    mean = torch.where(torch.arange(120) < 60, -5.0, 5.0)
    x = mean + torch.randn(120)

    def model(x: Tensor) -> None:
        with pyro.plate("data", len(x)) as i:
            z = pyro.sample("z", dist.Normal(mean[i], 1.0))
            pyro.sample("x", dist.Normal(z, 0.5), obs=x)

    def guide(x: Tensor) -> None:
        with pyro.plate("data", len(x)) as i:
            pyro.sample("z", dist.Normal((mean[i] + 4 * x) / 5, 0.5))

    with pytest.warns(UserWarning, match="all examples are taken at once"):
        result = bounds.evaluate(model, guide, x, 500)
    exact = dist.Normal(mean, 1.25**0.5).log_prob(x)
    error = result.bound.mc_variance.sqrt()
    assert ((result.bound.values - exact).abs() < 5 * error + 1e-3).all()
    with pytest.raises(InputError, match="cannot be taken in batches of 50"):
        bounds.evaluate(model, guide, x, 5, batch_size=50)
    with pytest.warns(UserWarning, match="all examples are taken at once"):
        annealed = bounds.anneal(model, guide, x, bounds.Settings(5, 4))
    assert abs(annealed.lower.mean - exact.mean()) < 0.05


def test_guides_of_local_parameters() -> None:
    x = torch.randn(120)
    guide = AutoNormal(normal_model, init_scale=0.8)
    with pytest.warns(UserWarning, match="all examples are taken at once"):
        result = bounds.evaluate(normal_model, guide, x, 2000)
    assert abs(result.bound.mean - normal_log_p(x).mean()) < 0.05


def test_batch_statistics_of_the_guide() -> None:
    """They change q(z|x) from batch to batch; in any batch it is a density, but not the same."""
    x = torch.randn(120)

    def guide(x: Tensor) -> None:
        normal_guide(x - x.mean())

    with pytest.warns(UserWarning, match="all examples are taken at once"):
        result = bounds.evaluate(normal_model, guide, x, 2000)
    assert abs(result.bound.mean - normal_log_p(x).mean()) < 0.01


def test_batch_statistics_of_the_model_are_refused() -> None:
    """Examples that change each other's probability have no log p(x) of their own."""

    def model(x: Tensor) -> None:
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(0.0, 1.0))
            pyro.sample("x", dist.Normal(z - z.mean(-1, keepdim=True), 1.0), obs=x)

    with pytest.raises(InputError, match="one example change the log-probability of others"):
        bounds.evaluate(model, normal_guide, torch.randn(7), 5)


def test_batch_normalisation_needs_evaluation_mode() -> None:
    class Model(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.norm = nn.BatchNorm1d(3)

        def forward(self, x: Tensor) -> None:
            with pyro.plate("data", len(x)):
                z = pyro.sample("z", dist.Normal(x.new_zeros(len(x), 3), 1.0).to_event(1))
                mean = self.norm(z.reshape(-1, 3)).reshape(z.shape)
                pyro.sample("x", dist.Normal(mean, 1.0).to_event(1), obs=x)

    def guide(x: Tensor) -> None:
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(x / 2, 0.8).to_event(1))

    model, x = Model(), torch.randn(60, 3)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    with pytest.raises(InputError, match="call eval"):
        bounds.evaluate(model, guide, x, 5)
    for name, value in model.state_dict().items():
        assert torch.equal(value, before[name]), name
    log_w = bounds.log_weights(model.eval(), guide, x, 4000)
    assert_unbiased(log_w, normal_log_p(x).sum(1))


def test_random_numbers_outside_of_sites() -> None:
    def model(x: Tensor) -> None:
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(0.0, 1.0))
            pyro.sample("x", dist.Normal(z + torch.randn(()), 1.0), obs=x)

    with pytest.raises(InputError, match="random numbers outside of their sample sites"):
        bounds.evaluate(model, normal_guide, torch.randn(7), 5)


def test_looking_changes_no_random_numbers() -> None:
    before = torch.get_rng_state()
    look_at(normal_model, normal_guide, Arguments(torch.ones(9)))
    assert torch.equal(before, torch.get_rng_state())


# Sites.


def test_points_are_refused() -> None:
    def model(x: Tensor) -> None:
        with pyro.plate("data", len(x)):
            w = pyro.sample("w", dist.Normal(0.0, 1.0))
            z = pyro.sample("z", dist.Normal(0.0, 0.1))
            pyro.sample("x", dist.Normal(z + w, 0.1), obs=x)

    x = torch.randn(6)
    beside_draws = AutoGuideList(model)
    beside_draws.append(AutoNormal(poutine.block(model, hide=["w"])))
    beside_draws.append(AutoDelta(poutine.block(model, expose=["w"])))
    for guide in (beside_draws, AutoDelta(model)):
        with pytest.raises(InputError, match="'w' is a point estimate"):
            bounds.log_weights(model, guide, x, 5)


def test_points_of_discrete_variables_have_a_probability() -> None:
    """IWAE of the value c = 1 alone is log p(x, c = 1), a lower bound."""

    def model(x: Tensor) -> None:
        with pyro.plate("data", len(x)):
            c = pyro.sample("c", dist.Bernoulli(0.3))
            pyro.sample("x", dist.Normal(c, 1.0), obs=x)

    def guide(x: Tensor) -> None:
        with pyro.plate("data", len(x)):
            pyro.sample("c", dist.Delta(torch.ones(len(x))))

    x = torch.randn(3)
    log_w = bounds.log_weights(model, guide, x, 2)
    torch.testing.assert_close(
        log_w[0], dist.Normal(1.0, 1.0).log_prob(x) + torch.tensor(0.3).log()
    )


def test_observed_in_part() -> None:
    """`obs_mask` makes the missing values latent; the guide's noise for the others counts not."""
    values, known = torch.randn(8, 3), torch.rand(8, 3) < 0.6

    def model(values: Tensor, known: Tensor) -> None:
        with pyro.plate("rows", len(values), dim=-2):
            z = pyro.sample("z", dist.Normal(0.0, 1.0))
            with pyro.plate("columns", 3, dim=-1):
                pyro.sample("x", dist.Normal(z, 0.7), obs=values, obs_mask=known)

    guide = AutoNormal(model, init_scale=1.2)
    log_w = bounds.log_weights(model, guide, (values, known), 200_000).detach()
    covariance = torch.ones(3, 3) + 0.49 * torch.eye(3)
    exact = torch.stack(
        [
            dist.MultivariateNormal(torch.zeros(len(row)), covariance[k][:, k]).log_prob(row)
            if len(row)
            else torch.zeros(())
            for row, k in ((v[k], k) for v, k in zip(values, known, strict=True))
        ]
    )
    assert_unbiased(log_w, exact)


def masked_model(x: Tensor, *, depends: bool = False) -> None:
    """The second of two latent variables exists for the first half of the examples only."""
    exists = torch.arange(len(x)) < len(x) // 2
    with pyro.plate("data", len(x)):
        z = pyro.sample("z", dist.Normal(0.0, 1.0))
        with poutine.mask(mask=exists):
            w = pyro.sample("w", dist.Normal(0.0, 1.0))
        pyro.sample("x", dist.Normal(z + (w if depends else w * exists), 1.0), obs=x)


def test_a_mask_of_the_model_applies_to_the_guide() -> None:
    def guide(x: Tensor) -> None:
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(x / 3, 1.0))
            pyro.sample("w", dist.Normal(x / 3, 1.0))

    x = torch.randn(6)
    log_w = bounds.log_weights(masked_model, guide, x, 20_000)
    variance = torch.tensor([3.0, 3.0, 3.0, 2.0, 2.0, 2.0])
    assert_unbiased(log_w, dist.Normal(0.0, variance.sqrt()).log_prob(x))
    with pytest.raises(InputError, match="depend on its masked values"):
        bounds.log_weights(lambda x: masked_model(x, depends=True), guide, x, 5)


def test_a_mask_of_the_guide_alone_is_refused() -> None:
    def guide(x: Tensor) -> None:
        with pyro.plate("data", len(x)), poutine.mask(mask=x > 0):
            pyro.sample("z", dist.Normal(x / 2, 0.8))

    with pytest.raises(InputError, match="masked where the model's is not"):
        bounds.log_weights(normal_model, guide, torch.tensor([1.0, -1.0]), 5)


@pytest.mark.parametrize("site", ["z", "x"])
def test_a_scale_of_one_site_is_refused(site: str) -> None:
    class Scale(poutine.messenger.Messenger):
        def _pyro_sample(self, message: dict[str, Any]) -> None:
            if message["name"] == site:
                message["scale"] = 3.0

    with pytest.raises(InputError, match="scale of its own"):
        bounds.log_weights(Scale()(normal_model), normal_guide, torch.ones(2), 5)


def test_priors_without_a_density_are_refused() -> None:
    def model(x: Tensor) -> None:
        with pyro.plate("data", len(x)):
            flat = dist.ImproperUniform(dist.constraints.real, (), ())
            z = pyro.sample("z", flat, infer={"enumerate": None})
            pyro.sample("x", dist.Normal(z, 1.0), obs=x)

    with pytest.raises(InputError, match="no normalised density"):
        bounds.log_weights(model, normal_guide, torch.ones(2), 5)


# Values.


@pytest.mark.parametrize("wrong", [3.0, float("nan")])
def test_values_outside_the_support_in_a_later_batch(wrong: float) -> None:
    def model(x: Tensor) -> None:
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(0.0, 1.0))
            pyro.sample("x", dist.Bernoulli(logits=z, validate_args=False), obs=x)

    def guide(x: Tensor) -> None:
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(0.0, 1.0))

    x = torch.zeros(200)
    x[170] = wrong
    for call in (
        lambda: bounds.evaluate(model, guide, x, 20, batch_size=10),
        lambda: bounds.anneal(model, guide, x, bounds.Settings(2, 2)),
        lambda: bounds.log_weights(model, guide, x, 2),
    ):
        with pytest.raises(InputError, match="site 'x' observes"):
            call()


def test_half_precision_is_refused() -> None:
    with pytest.raises(InputError, match="too coarse"):
        bounds.evaluate(normal_model, normal_guide, torch.ones(3).bfloat16(), 5)


# Plates and arguments.


def test_plates_of_any_name_and_dimension() -> None:
    x = torch.randn(7)

    def model(x: Tensor) -> None:
        with pyro.plate("features", 2, dim=-1), pyro.plate("cases", len(x), dim=-3):
            z = pyro.sample("z", dist.Normal(0.0, 1.0))
            pyro.sample("x", dist.Normal(z, 1.0), obs=x[:, None, None].expand(-1, 1, 2))

    def guide(x: Tensor) -> None:
        with pyro.plate("features", 2, dim=-1), pyro.plate("cases", len(x), dim=-3):
            pyro.sample("z", dist.Normal(x[:, None, None] / 2, 0.8))

    pair = look_at(model, guide, Arguments(x))
    assert (pair.plate, pair.nesting, pair.vectorize) == ("cases", 3, True)
    assert_unbiased(bounds.log_weights(model, guide, x, 9000), 2 * normal_log_p(x))


def test_plates_without_a_size() -> None:
    def guide(x: Tensor) -> None:
        with pyro.plate("data"):
            pyro.sample("z", dist.Normal(x / 2, 0.8))

    x = torch.randn(5)
    assert_unbiased(bounds.log_weights(normal_model, guide, x, 9000), normal_log_p(x))

    def shares_one_value(x: Tensor) -> None:
        with pyro.plate("data"):
            pyro.sample("z", dist.Normal(0.0, 1.0))

    with pytest.raises(InputError, match="shapes disagree at site 'z'"):
        bounds.log_weights(normal_model, shares_one_value, x, 5)


def test_sequential_plates_are_one_number() -> None:
    def model(x: Tensor) -> None:
        for i in pyro.plate("data", len(x)):
            z = pyro.sample(f"z_{i}", dist.Normal(0.0, 1.0))
            pyro.sample(f"x_{i}", dist.Normal(z, 1.0), obs=x[i])

    def guide(x: Tensor) -> None:
        for i in pyro.plate("data", len(x)):
            pyro.sample(f"z_{i}", dist.Normal(x[i] / 2, 0.8))

    x = torch.randn(4)
    log_w = bounds.log_weights(model, guide, x, 9000)
    assert_unbiased(log_w, normal_log_p(x).sum())
    result = bounds.evaluate(model, guide, x, 100)
    assert result.evidence_of == "the data set" and len(result.bound.values) == 1


def test_latent_variables_outside_the_plate() -> None:
    def model(x: Tensor) -> None:
        mean = pyro.sample("mean", dist.Normal(0.0, 1.0))
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(mean, 1.0))
            pyro.sample("x", dist.Normal(z, 1.0), obs=x)

    x = torch.randn(3)
    guide = AutoMultivariateNormal(model, init_scale=0.9)
    exact = dist.MultivariateNormal(torch.zeros(3), torch.ones(3, 3) + 2 * torch.eye(3))
    assert_unbiased(bounds.log_weights(model, guide, x, 90_000), exact.log_prob(x))
    with pytest.raises(InputError, match="not in a plate named 'data'"):
        bounds.log_weights(model, guide, x, 5, plate="data")
    many = torch.randn(60)
    pyro.clear_param_store()
    wide = AutoMultivariateNormal(model, init_scale=0.9)
    assert len(bounds.evaluate(model, wide, many, 5).bound.values) == 1
    with pytest.raises(InputError, match="one for all data"):
        bounds.evaluate(model, wide, many, 5, batch_size=20)


@pytest.mark.parametrize("outside", [False, True])
def test_enumerated_sites_are_summed_out(outside: bool) -> None:
    """A label of each example, or one for all of them."""
    weights, means = torch.tensor([0.3, 0.7]), torch.tensor([-1.0, 2.0])

    def label() -> Tensor:
        return pyro.sample("c", dist.Categorical(weights), infer={"enumerate": "parallel"})

    def model(x: Tensor) -> None:
        c = label() if outside else None
        with pyro.plate("data", len(x)):
            c = c if outside else label()
            z = pyro.sample("z", dist.Normal(means[c], 1.0))
            pyro.sample("x", dist.Normal(z, 1.0), obs=x)

    x = torch.randn(3)
    log_p = dist.Normal(means, 2**0.5).log_prob(x[:, None])
    if outside:
        exact = (log_p.sum(0) + weights.log()).logsumexp(0)
    else:
        exact = (log_p + weights.log()).logsumexp(1)

    def wide(x: Tensor) -> None:
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(x / 2 + 0.2, 1.2))

    assert_unbiased(bounds.log_weights(model, wide, x, 90_000), exact)
    assert_unbiased(bounds.log_weights(model, wide, x, 3000, vectorize=False), exact)


@pytest.mark.parametrize("dependent", [False, True])
def test_sites_that_the_guide_marks_for_enumeration(dependent: bool) -> None:
    """They are summed out, if the rest of the guide does not depend on them, and else drawn."""
    weights, means = torch.tensor([0.3, 0.7]), torch.tensor([-1.0, 2.0])

    def model(x: Tensor) -> None:
        with pyro.plate("data", len(x)):
            c = pyro.sample("c", dist.Categorical(weights))
            z = pyro.sample("z", dist.Normal(means[c], 1.0))
            pyro.sample("x", dist.Normal(z, 1.0), obs=x)

    def guide(x: Tensor) -> None:
        even = dist.Categorical(torch.ones(len(x), 2))
        with pyro.plate("data", len(x)):
            c = pyro.sample("c", even, infer={"enumerate": "parallel"})
            shift = means[c] if dependent else 0.4
            pyro.sample("z", dist.Normal((x + shift) / 2, 1.2))

    x = torch.randn(3)
    exact = (dist.Normal(means, 2**0.5).log_prob(x[:, None]) + weights.log()).logsumexp(1)
    pair = look_at(model, guide, Arguments(x))
    assert pair.summed_out == (set() if dependent else {"c"})
    assert_unbiased(bounds.log_weights(model, guide, x, 30_000), exact)


def test_any_arguments() -> None:
    def model(x: Tensor, scale: Tensor, options: dict[str, Any], *, shift: Tensor) -> None:
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(options["mean"], 1.0))
            pyro.sample("x", dist.Normal(z + shift + scale.sum(), 1.0), obs=x)

    def guide(x: Tensor, scale: Tensor, options: dict[str, Any], *, shift: Tensor) -> None:
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal((x - shift - scale.sum() + options["mean"]) / 2, 0.8))

    x, mean, shift, scale = torch.randn(4, 60).unbind()
    scale = scale.clone() / 60
    data = Arguments(x, Shared(scale), {"mean": mean, "name": "any"}, shift=shift)
    exact = normal_log_p(x - mean - shift - scale.sum())
    pair = look_at(model, guide, data, most_at_once=25)
    assert pair.batch_size == 25
    assert_unbiased(bounds.log_weights(model, guide, data, 9000), exact)
    result = bounds.evaluate(model, guide, data, 2000, batch_size=25)
    assert abs(result.bound.mean - exact.mean()) < 0.01


def test_no_arguments() -> None:
    x = torch.randn(5)
    log_w = bounds.log_weights(lambda: normal_model(x), lambda: normal_guide(x), Arguments(), 9000)
    assert_unbiased(log_w, normal_log_p(x))


def test_random_subsamples_are_refused() -> None:
    x = torch.randn(6)

    def model(x: Tensor) -> None:
        with pyro.plate("data", 6, subsample_size=3) as i:
            z = pyro.sample("z", dist.Normal(0.0, 1.0))
            pyro.sample("x", dist.Normal(z, 1.0), obs=x[i])

    def guide(x: Tensor) -> None:
        with pyro.plate("data", 6, subsample_size=3) as i:
            pyro.sample("z", dist.Normal(x[i] / 2, 0.8))

    with pytest.raises(InputError, match="at random"):
        bounds.log_weights(model, guide, x, 5)
