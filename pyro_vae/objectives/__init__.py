"""Training objectives, as Pyro ELBO subclasses.

As `pyro.infer.SVI` calls them: `loss_and_grads` is what is trained, and may be annealed; `loss` is
what is measured, and is always the negative of a proper lower bound on log p(x), so that models can
be chosen by it whatever they were trained with: of the ELBO for `ELBO`, `AnalyticELBO` and
`TargetKL`, and of IWAE_K for all others, K being how many draws there are in all. Both are sums
over the examples, in nats.

| objective | model | guide |
|---|---|---|
| `ELBO`, `AnalyticELBO` | ELBO, the KL weighted, on a schedule, or with free bits | the same |
| `TargetKL` | the reconstruction, at a KL that is chosen | the same |
| `IWAE`, `MIWAE`, `CIWAE` | IWAE_K; its mean over groups; between it and the ELBO | the same |
| `PIWAE` | IWAE_MK | MIWAE: IWAE_K, averaged over M groups |
| `Renyi` | the variational Renyi bound | the same |
| `CUBO` | IWAE_K | an upper bound, by chi^2 divergence |
| `TVO` | a Riemann sum of the thermodynamic integral | the same |
| `RWS` | IWAE_K | KL(p(z|x) || q(z|x)): reweighted wake-sleep |

The committed rate of delta-VAEs is a prior, `priors.AR1`; aggressive training of the guide is a
loop, in `training`. To add an objective, subclass `Objective`.
"""

from pyro_vae.objectives.elbo import ELBO, AnalyticELBO
from pyro_vae.objectives.importance_weighted import CIWAE, CUBO, IWAE, MIWAE, PIWAE, Renyi
from pyro_vae.objectives.objective import Objective
from pyro_vae.objectives.target_kl import TargetKL
from pyro_vae.objectives.thermodynamic import TVO
from pyro_vae.objectives.wake_sleep import RWS

__all__ = [
    "CIWAE",
    "CUBO",
    "ELBO",
    "IWAE",
    "MIWAE",
    "PIWAE",
    "RWS",
    "TVO",
    "AnalyticELBO",
    "Objective",
    "Renyi",
    "TargetKL",
]
