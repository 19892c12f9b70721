"""Variational autoencoders as Pyro programs, with bounds on log p(x) that carry their errors.

`VAE` puts a prior p(z), a likelihood p(x|z) and a posterior q(z|x) together to a Pyro model and
guide; `objectives` and `svi` train them, `training` does so for whole runs, and `bounds` measures
any Pyro model and guide, whose q(z|x) `refinement` can make better for given examples. `compiling`
turns a function in which Pyro programs run into a compiled one.
"""

from pyro_vae import (
    bounds,
    data,
    diagnostics,
    figures,
    kinds,
    likelihoods,
    networks,
    objectives,
    posteriors,
    priors,
    training,
)
from pyro_vae.diagnostics import refinement
from pyro_vae.errors import DivergenceError, InputError
from pyro_vae.programs import compiling
from pyro_vae.vae import VAE, Guide, Model

__all__ = [
    "VAE",
    "DivergenceError",
    "Guide",
    "InputError",
    "Model",
    "bounds",
    "compiling",
    "data",
    "diagnostics",
    "figures",
    "kinds",
    "likelihoods",
    "networks",
    "objectives",
    "posteriors",
    "priors",
    "refinement",
    "svi",
    "training",
]
