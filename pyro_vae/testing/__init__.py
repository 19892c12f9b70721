"""Contract tests for parts of one's own: call them in a test.

    from pyro_vae.testing import check_prior

    def test_my_prior() -> None:
        check_prior(MyPrior)

| function | part | takes |
|---|---|---|
| `check_prior` | `priors.Prior` | a callable with the argument `latent_dim` |
| `check_likelihood` | `likelihoods.Likelihood` | a callable of `latent_dim`, `event_shape` |
| `check_posterior` | `posteriors.Posterior` | a callable of `event_shape`, `latent_dim` |
| `check_network` | `networks.Network` | a callable of `in_shape`, `out_shape` |
| `check_objective` | `objectives.Objective` | a callable without arguments |

Each returns nothing, or raises an `AssertionError` with one sentence on what is wrong. The
callable is the class, or a `functools.partial` of it with other options. Parts are made several
times, small, and most checks are in double precision; the global random state and Pyro's parameter
store are left unchanged. The same functions check all parts of this package. `LinearGaussian` is a
VAE whose log p(x) is known.
"""

from pyro_vae.testing.likelihood_contract import check_likelihood
from pyro_vae.testing.linear_gaussian import LinearGaussian
from pyro_vae.testing.network_contract import check_network
from pyro_vae.testing.objective_contract import check_objective
from pyro_vae.testing.posterior_contract import check_posterior
from pyro_vae.testing.prior_contract import check_prior

__all__ = [
    "LinearGaussian",
    "check_likelihood",
    "check_network",
    "check_objective",
    "check_posterior",
    "check_prior",
]
