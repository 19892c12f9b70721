"""Programs of the kinds that people write, small, with exact log p(x): bounds and objectives.

They are of the kinds of Pyro's examples: labels that some examples have, sequences of different
lengths, topics, covariates, global and local variables, several observed sites, any arguments.
"""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro.infer import config_enumerate
from torch import Tensor

from pyro_vae import bounds, objectives
from pyro_vae.bounds import Arguments

Program = Callable[..., Any]
RANDOM = torch.Generator().manual_seed(0)
N = 8
K = 2000


class Kind(NamedTuple):
    """A model, its guide, what both are called with, and the exact log p(x)."""

    model: Program
    guide: Program
    arguments: Arguments
    exact: Tensor
    batches: bool = True  # whether each example is on its own


# A label y with three values, a code z, and x = z + noise; some batches have labels.
CENTRES = torch.tensor([-2.0, 0.0, 3.0])
LABEL_PROBS = torch.tensor([0.2, 0.5, 0.3])
LABELLED_X = torch.randn(N, generator=RANDOM) * 2
LABELS = torch.arange(N) % 3
LOG_JOINT = LABEL_PROBS.log() + dist.Normal(CENTRES, 2**0.5).log_prob(LABELLED_X[:, None])


def label_model(x: Tensor, y: Tensor | None = None) -> None:
    with pyro.plate("data", len(x)):
        y = pyro.sample("y", dist.Categorical(LABEL_PROBS.expand(len(x), 3)), obs=y)
        z = pyro.sample("z", dist.Normal(CENTRES[y], 1.0))
        pyro.sample("x", dist.Normal(z, 1.0), obs=x)


def label_guide(x: Tensor, y: Tensor | None = None) -> None:
    with pyro.plate("data", len(x)):
        if y is None:
            logits = LOG_JOINT.new_zeros(()) - (x[:, None] - CENTRES) ** 2 / 6
            y = pyro.sample("y", dist.Categorical(logits=logits))
        pyro.sample("z", dist.Normal((x + CENTRES[y]) / 2, 0.8))


def code_guide(x: Tensor) -> None:
    """A guide without the label, which the model sums out."""
    with pyro.plate("data", len(x)):
        pyro.sample("z", dist.Normal(0.8 * x, 1.0))


# A random walk z_t with noise, for sequences of different lengths: masks within distributions.
STEPS = 4
LENGTHS = torch.tensor([4, 1, 2, 3, 4, 2, 1, 3])
SEQUENCES = torch.randn(N, STEPS, generator=RANDOM).cumsum(1)


def sequence_model(batch: dict[str, Tensor]) -> None:
    x, lengths = batch["x"], batch["lengths"]
    z = torch.zeros(len(x))
    with pyro.plate("sequences", len(x)):
        for t in pyro.markov(range(STEPS)):
            is_there = lengths > t
            z = pyro.sample(f"z{t}", dist.Normal(z, 1.0).mask(is_there))
            pyro.sample(f"x{t}", dist.Normal(z, 1.0).mask(is_there), obs=x[:, t])


def sequence_guide(batch: dict[str, Tensor]) -> None:
    x, lengths = batch["x"], batch["lengths"]
    z = torch.zeros(len(x))
    with pyro.plate("sequences", len(x)):
        for t in pyro.markov(range(STEPS)):
            z = pyro.sample(f"z{t}", dist.Normal((z + x[:, t]) / 2, 0.8).mask(lengths > t))


def sequence_exact() -> Tensor:
    rows = torch.arange(1.0, STEPS + 1)
    covariance = torch.minimum(rows[:, None], rows) + torch.eye(STEPS)
    return torch.stack(
        [
            dist.MultivariateNormal(torch.zeros(n), covariance[:n, :n]).log_prob(x[:n])
            for x, n in zip(SEQUENCES, LENGTHS.tolist(), strict=True)
        ]
    )


# The mean of all groups outside the plate: one number for the whole data set.
GROUPS = torch.randn(N, generator=RANDOM) + 1


def group_model(x: Tensor) -> None:
    mean = pyro.sample("mean", dist.Normal(0.0, 1.0))
    with pyro.plate("groups", len(x)):
        z = pyro.sample("z", dist.Normal(mean, 1.0))
        pyro.sample("x", dist.Normal(z, 1.0), obs=x)


def group_guide(x: Tensor) -> None:
    mean = pyro.sample("mean", dist.Normal(0.8 * x.mean(), 0.45))
    with pyro.plate("groups", len(x)):
        pyro.sample("z", dist.Normal((x + mean) / 2, 0.75))


def group_exact() -> Tensor:
    covariance = torch.ones(N, N) + 2 * torch.eye(N)
    return dist.MultivariateNormal(torch.zeros(N), covariance).log_prob(GROUPS)[None]


# Two topics; the topic of each word is summed out.
TOPICS = torch.tensor([[0.7, 0.2, 0.1], [0.1, 0.2, 0.7]])
WORDS = torch.randint(3, (N, 5), generator=RANDOM)


def topic_model(words: Tensor) -> None:
    with pyro.plate("documents", len(words), dim=-2):
        share = pyro.sample("share", dist.Beta(torch.ones(len(words), 1), 2.0))
        with pyro.plate("words", words.shape[1], dim=-1):
            topic = pyro.sample("topic", dist.Bernoulli(share), infer={"enumerate": "parallel"})
            pyro.sample("word", dist.Categorical(TOPICS[topic.long()]), obs=words)


def topic_guide(words: Tensor) -> None:
    counts = (words == 2).sum(1, keepdim=True).float()
    with pyro.plate("documents", len(words), dim=-2):
        pyro.sample("share", dist.Beta(1 + 0.7 * counts, 2.0 + 0.5 * (5 - counts)))


def topic_exact() -> Tensor:
    share = (torch.arange(4000, dtype=torch.float64) + 0.5) / 4000
    probs = (1 - share)[:, None] * TOPICS[0] + share[:, None] * TOPICS[1]
    prior = dist.Beta(torch.tensor(1.0).double(), 2.0).log_prob(share)
    log_joint = prior[:, None] + probs.log()[:, WORDS].sum(-1)
    return log_joint.logsumexp(0) - math.log(4000)


# What is known of each example, by name.
COVARIATES = torch.randn(N, 3, generator=RANDOM)
COEFFICIENTS = torch.tensor([1.0, -2.0, 0.5])
RESPONSES = torch.randn(N, generator=RANDOM) * 2


def covariate_model(x: Tensor, *, covariates: Tensor) -> None:
    with pyro.plate("data", len(x)):
        z = pyro.sample("z", dist.Normal(covariates @ COEFFICIENTS, 1.0))
        pyro.sample("x", dist.Normal(z, 0.5), obs=x)


def covariate_guide(x: Tensor, *, covariates: Tensor) -> None:
    with pyro.plate("data", len(x)):
        pyro.sample("z", dist.Normal(0.8 * x + 0.2 * covariates @ COEFFICIENTS, 0.5))


# Two kinds of counts with one rate.
COUNTS = {"first": torch.arange(N).float(), "second": torch.tensor([1.0, 0, 3, 2, 5, 4, 9, 6])}


def count_model(first: Tensor, second: Tensor) -> None:
    with pyro.plate("data", len(first)):
        rate = pyro.sample("rate", dist.Gamma(torch.full((len(first),), 2.0), 1.0))
        pyro.sample("first", dist.Poisson(rate), obs=first)
        pyro.sample("second", dist.Poisson(2 * rate), obs=second)


def count_guide(first: Tensor, second: Tensor) -> None:
    with pyro.plate("data", len(first)):
        pyro.sample("rate", dist.Gamma(2.5 + first + second, 4.0))


def count_exact() -> Tensor:
    first, second = COUNTS["first"], COUNTS["second"]
    total = first + second
    return (
        torch.lgamma(2 + total)
        - (2 + total) * math.log(4)
        + second * math.log(2)
        - torch.lgamma(first + 1)
        - torch.lgamma(second + 1)
    )


KINDS = {
    "label in the guide": Kind(
        label_model, label_guide, Arguments(LABELLED_X), LOG_JOINT.logsumexp(1)
    ),
    "label marked in the guide": Kind(
        label_model,
        config_enumerate(label_guide, "parallel"),
        Arguments(LABELLED_X),
        LOG_JOINT.logsumexp(1),
    ),
    "label summed out": Kind(
        config_enumerate(label_model, "parallel"),
        code_guide,
        Arguments(LABELLED_X),
        LOG_JOINT.logsumexp(1),
    ),
    "label given": Kind(
        label_model,
        label_guide,
        Arguments(LABELLED_X, LABELS),
        LOG_JOINT.gather(1, LABELS[:, None])[:, 0],
    ),
    "sequences": Kind(
        sequence_model,
        sequence_guide,
        Arguments({"x": SEQUENCES, "lengths": LENGTHS}),
        sequence_exact(),
    ),
    "global and local": Kind(group_model, group_guide, Arguments(GROUPS), group_exact(), False),
    "topics": Kind(topic_model, topic_guide, Arguments(WORDS), topic_exact()),
    "covariates": Kind(
        covariate_model,
        covariate_guide,
        Arguments(RESPONSES, covariates=COVARIATES),
        dist.Normal(COVARIATES @ COEFFICIENTS, 1.25**0.5).log_prob(RESPONSES),
    ),
    "several observed sites": Kind(count_model, count_guide, Arguments(**COUNTS), count_exact()),
}
CONTINUOUS = [name for name in KINDS if name not in list(KINDS)[:2]]


@pytest.mark.parametrize("name", KINDS)
@pytest.mark.parametrize("batch_size", [None, 3])
def test_importance_weights(name: str, batch_size: int | None) -> None:
    kind = KINDS[name]
    if batch_size and not kind.batches:
        batch_size = None
    result = bounds.evaluate(kind.model, kind.guide, kind.arguments, K, batch_size=batch_size)
    assert result.bound.values.shape == kind.exact.shape
    error = ((1 / result.ess - 1 / K) ** 0.5).clamp(min=1e-6)
    assert ((result.bound.values - kind.exact).abs() < 4.5 * error).all()
    assert error.max() < 0.1  # the comparison is a sharp one
    assert (result.elbo.mean < kind.exact.mean()).item()


@pytest.mark.parametrize("name", CONTINUOUS)
def test_annealing(name: str) -> None:
    kind = KINDS[name]
    settings = bounds.Settings(temperatures=12, chains=32)
    result = bounds.anneal(kind.model, kind.guide, kind.arguments, settings)
    for bound in (result.lower, result.upper):
        assert abs(bound.mean - kind.exact.mean().item()) < 4.5 * bound.mc_se + 0.003


@pytest.mark.parametrize("name", KINDS)
def test_objectives_agree_with_bounds(name: str) -> None:
    """The objectives draw in other ways: their losses are the same bounds, within both errors."""
    kind = KINDS[name]
    result = bounds.evaluate(kind.model, kind.guide, kind.arguments, K)
    count = len(result.elbo.values)
    torch.manual_seed(1)
    pairs: list[tuple[objectives.Objective, Any]] = [(objectives.ELBO(K), result.elbo)]
    if name in CONTINUOUS:  # IWAE's gradient needs reparameterised guides
        pairs.append((objectives.IWAE(K), result.bound))
    for objective, bound in pairs:
        args, kwargs = kind.arguments.args, kind.arguments.kwargs
        loss = objective.differentiable_loss(kind.model, kind.guide, *args, **kwargs)
        assert abs(loss.item() / count + bound.mean) < 4.5 * 2**0.5 * bound.mc_se
