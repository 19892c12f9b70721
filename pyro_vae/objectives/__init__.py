"""Training objectives, as subclasses of Pyro's ELBO.

`pyro.infer.SVI` calls two methods. `loss_and_grads` is the training objective; it may follow a
schedule. `loss` is the measured value. It is always the negative of a proper lower bound on
log p(x), so models can be chosen by it, whichever objective they were trained with. The bound is
the ELBO for `ELBO`, `AnalyticELBO` and `TargetKL`, and IWAE_K for all others, where K is the number
of draws of z for each x, `num_draws`. Both methods return sums over the examples, in nats.

| objective | the model maximises | the guide maximises |
|---|---|---|
| `ELBO`, `AnalyticELBO` | the ELBO, its KL weighted, on a schedule, or with free bits | the same |
| `TargetKL` | the reconstruction, at a given KL | the same |
| `IWAE`, `MIWAE`, `CIWAE` | IWAE_K; its mean over groups; a mean of it and the ELBO | the same |
| `PIWAE` | IWAE_MK | MIWAE: IWAE_K, averaged over M groups |
| `Renyi` | the variational Renyi bound | the same |
| `CUBO` | IWAE_K | the negative of an upper bound, by the chi^n divergence |
| `TVO` | a Riemann sum of the thermodynamic integral | the same |
| `RWS` | IWAE_K | -KL of p(z given x) and q(z given x): reweighted wake-sleep |

They take any pair of Pyro programs, with the arguments and the keywords of Pyro's ELBOs
(`Objective` documents them): `ELBO` replaces `Trace_ELBO`, `TraceGraph_ELBO` and `TraceEnum_ELBO`,
`AnalyticELBO` replaces `TraceMeanField_ELBO`, and `Renyi` with alpha 0 `RenyiELBO`. What an
objective cannot do right it refuses. Points, and enumeration in the guide, are for `ELBO` alone.
Scales of single sites are for `ELBO` and `AnalyticELBO`. For the others a scale that all sites
share is the weight of each
example, outside of the logarithm.

Two related methods are elsewhere: the committed rate of delta-VAEs is a prior, `priors.AR1`, and
aggressive training of the guide is a callback, `training.GuideFirst`.

To add an objective:

1. Write a subclass of `Objective` in a file of this folder, with `differentiable_loss`; define
   `bound` too if models should not be chosen by IWAE_K, and `anneal` if it has a schedule.
   `draws.TrainingDraws.surrogate` makes a loss from weights of the draws. The arguments of the
   constructor are the options on the command line. Let it take `**pyro_options: Any` too,
   and hand them on as `super().__init__(num_particles, pyro_options)`: Pyro's keywords, not shown
   on the command line.
2. Import the class below, and name it in `__all__`. The command line then offers it.
3. Add a case to `OBJECTIVES` in tests/test_contracts.py, and compare its
   gradient with an exact one in tests/objectives/test_gradients.py.
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
