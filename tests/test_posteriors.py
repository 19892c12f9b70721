"""One contract for every posterior."""

from collections.abc import Callable

import pytest
import torch

from pyro_vae import posteriors
from pyro_vae.networks import ConvEncoder
from pyro_vae.posteriors import Normal, Posterior

CASES: dict[str, Callable[..., Posterior]] = {
    "Normal": Normal,
    "Normal, convolutional": lambda *shape: Normal(*shape, encoder=ConvEncoder),
}


def test_every_posterior_is_under_contract() -> None:
    public = {
        cls.__name__ for cls in Posterior.__subclasses__() if cls.__module__ == posteriors.__name__
    }
    assert public == {name.split(",")[0] for name in CASES}


@pytest.mark.parametrize("make", CASES.values(), ids=CASES.keys())
def test_contract(make: Callable[..., Posterior]) -> None:
    posterior = make([5, 4], 3)
    assert posterior.event_shape == (5, 4) and posterior.latent_dim == 3
    x = torch.rand(6, 5, 4)
    q = posterior(x)
    assert q.batch_shape == (6,) and q.event_shape == (3,) and q.has_rsample
    assert posterior(x.expand(2, 6, 5, 4)).batch_shape == (2, 6)
    z = q.rsample()
    (q.log_prob(z) + z.square().sum(-1)).sum().backward()
    for name, parameter in posterior.named_parameters():
        assert parameter.grad is not None and parameter.grad.abs().sum() > 0, name
    other = make([5, 4], 3)
    other.load_state_dict(posterior.state_dict())
    torch.testing.assert_close(other(x).log_prob(z), q.log_prob(z))
    extreme = posterior(1e6 * torch.ones(1, 5, 4))
    assert extreme.log_prob(extreme.sample()).isfinite().all()


def test_gradients_agree_with_finite_differences() -> None:
    posterior = Normal([3], 2).double()
    x, z = torch.rand(4, 3).double(), torch.randn(4, 2).double()
    parameters = dict(posterior.named_parameters())

    def log_prob(*values: torch.Tensor) -> torch.Tensor:
        named = dict(zip(parameters, values, strict=True))
        return torch.func.functional_call(posterior, named, (x,)).log_prob(z)

    some = [p.detach()[..., :2].clone() for p in parameters.values()]

    def of_some(*values: torch.Tensor) -> torch.Tensor:
        full = [
            torch.cat([value, parameter.detach()[..., 2:]], -1)
            for value, parameter in zip(values, parameters.values(), strict=True)
        ]
        return log_prob(*full)

    assert torch.autograd.gradcheck(of_some, [v.requires_grad_() for v in some], fast_mode=True)
