"""Bounds on log p(x) for any Pyro model and guide that share a data plate."""

from pyro_vae.bounds.comparison import Comparison, compare
from pyro_vae.bounds.exact import quadrature
from pyro_vae.bounds.importance import LADDER, Bounds, Estimate, elbo, evaluate, iwae
from pyro_vae.bounds.weights import log_weights

__all__ = [
    "LADDER",
    "Bounds",
    "Comparison",
    "Estimate",
    "compare",
    "elbo",
    "evaluate",
    "iwae",
    "log_weights",
    "quadrature",
]
