"""Numbers that are extreme: log-weights and bounds in single precision against double precision."""

import copy
import math
from collections.abc import Callable

import numpy as np
import pyro
import pyro.distributions as dist
import pytest
import torch
from torch import Tensor, nn

from pyro_vae import bounds, likelihoods
from pyro_vae.bounds.streaming import Stream
from pyro_vae.kinds import Real
from pyro_vae.likelihoods import Likelihood
from pyro_vae.networks import Linear

PIXELS = 10_000
WORST = {"rtol": 2e-6, "atol": 2e-3}  # nats: ten thousand terms are summed in single precision


class SameNoise(dist.Normal):
    """A normal distribution that draws the same noise in single and in double precision."""

    def rsample(self, sample_shape: tuple[int, ...] = ()) -> Tensor:
        noise = torch.randn(self._extended_shape(sample_shape), dtype=torch.float32)
        return self.loc + noise.to(self.loc) * self.scale


class Programs(nn.Module):
    """q(z|x) = N(0, scale^2) and p(z) = N(0, 1) in two dimensions, with a likelihood."""

    def __init__(self, likelihood: Likelihood, scale: float) -> None:
        super().__init__()
        self.likelihood = likelihood
        self.register_buffer("scale", torch.tensor(scale))

    def model(self, x: Tensor) -> None:
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(x.new_zeros(2), 1.0).to_event(1))
            pyro.sample("x", self.likelihood(z), obs=x)

    def guide(self, x: Tensor) -> None:
        with pyro.plate("data", len(x)):
            pyro.sample("z", SameNoise(x.new_zeros(2), self.scale).to_event(1))


def bernoulli() -> Likelihood:
    return likelihoods.Bernoulli(2, [PIXELS], Linear)


def sharp(of: Callable[..., Likelihood], scale: float) -> Callable[[], Likelihood]:
    def make() -> Likelihood:
        made = of(2, Real([PIXELS]), Linear)
        made.log_scale.data.fill_(math.log(scale))
        return made

    return make


CASES: dict[str, tuple[Callable[[], Likelihood], float | None]] = {  # the factor of logits
    "logits of +-1e4, right": (bernoulli, 1e4),
    "logits of +-1e4, wrong": (bernoulli, -1e4),
    "logits of +-1": (bernoulli, 1.0),
    "Gaussian, scale 1": (sharp(likelihoods.Gaussian, 1.0), None),
    "Gaussian, scale 1e-6": (sharp(likelihoods.Gaussian, 1e-6), None),
    "Laplace, scale 1e-6": (sharp(likelihoods.Laplace, 1e-6), None),
    "StudentT, scale 1e-6": (sharp(likelihoods.StudentT, 1e-6), None),
}


@pytest.mark.parametrize("scale", [1.0, 1e-6])
@pytest.mark.parametrize("name", CASES)
def test_log_weights_are_those_of_double_precision(name: str, scale: float) -> None:
    make, factor = CASES[name]
    torch.manual_seed(0)
    likelihood = make()
    x = torch.rand(3, PIXELS)
    if factor is None:  # the location is the same number in both: it does not depend on z
        for parameter in likelihood.decoder.parameters():
            parameter.data.zero_()
        likelihood.decoder_bias[0] = x[0] + 2.0**-12
    else:
        x = x.round()
        likelihood.decoder.bias.data.copy_(factor * (2 * x[0] - 1))
    single = Programs(likelihood, scale)
    found = []
    for programs in (single, copy.deepcopy(single).double()):
        torch.manual_seed(1)
        with torch.no_grad():
            args = programs.model, programs.guide, x.to(programs.scale)
            found.append(bounds.log_weights(*args, 4, plate="data").double())
    assert found[0].isfinite().all()
    torch.testing.assert_close(*found, **WORST)


def reference(log_w: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the ELBO and IWAE of each example, in extended precision."""
    wide = log_w.astype(np.longdouble)
    largest = wide.max(0)
    return wide.mean(0), largest + np.log(np.exp(wide - largest).mean(0))


@pytest.mark.parametrize("offset", [0.0, -1e8, 1e8, -1e4])
@pytest.mark.parametrize("spread", [1e-6, 1.0, 1e4])
def test_bounds_of_extreme_log_weights(offset: float, spread: float) -> None:
    torch.manual_seed(0)
    log_w = offset + spread * torch.randn(1000, 4, dtype=torch.double)
    log_w[::7, 3] = -math.inf  # some weights are zero
    stream = Stream([10, 1000])
    for chunk in log_w.split(300):
        stream.add(chunk)
    found = stream.results()
    elbo, iwae = reference(log_w.numpy())
    for name, expected in (("elbo", elbo), ("iwae_1000", iwae)):
        np.testing.assert_allclose(
            found[name].numpy(), expected.astype(float), rtol=1e-14, atol=1e-14
        )
    positive = log_w[:, :3]
    shares = (positive - positive.logsumexp(0)).exp()
    torch.testing.assert_close(found["ess"][:3], 1 / shares.square().sum(0), rtol=1e-6, atol=0)
    jackknife = bounds.jackknife(positive)
    torch.testing.assert_close(found["jackknife"][:3], jackknife, rtol=1e-9, atol=1e-4)
    for name, values in found.items():
        if not name.startswith("elbo") and not name.startswith("gap"):
            assert not values[:3].isnan().any(), name
