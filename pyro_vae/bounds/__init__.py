"""Bounds on log p(x) for any Pyro model and guide that share a data plate."""

from pyro_vae.bounds.annealing import Annealed, Bidirectional, Settings, anneal, bidirectional
from pyro_vae.bounds.estimates import Corrected, Estimate, certified
from pyro_vae.bounds.exact import enumeration, gaussian, quadrature
from pyro_vae.bounds.for_arviz import elpd_data, inference_data
from pyro_vae.bounds.importance import LADDER, Bounds, elbo, evaluate, iwae, jackknife
from pyro_vae.bounds.paired import Comparison, compare
from pyro_vae.bounds.weights import log_weights

__all__ = [
    "LADDER",
    "Annealed",
    "Bidirectional",
    "Bounds",
    "Comparison",
    "Corrected",
    "Estimate",
    "Settings",
    "anneal",
    "bidirectional",
    "certified",
    "compare",
    "elbo",
    "elpd_data",
    "enumeration",
    "evaluate",
    "gaussian",
    "inference_data",
    "iwae",
    "jackknife",
    "log_weights",
    "quadrature",
]
