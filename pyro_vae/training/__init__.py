"""Training by stochastic variational inference: engines that take the steps, and the loop."""

from pyro_vae.training.compiled_engine import CompiledEngine
from pyro_vae.training.engine import EagerEngine, Observe, Precision, as_they_are
from pyro_vae.training.loop import History, check, fit, resume

__all__ = [
    "CompiledEngine",
    "EagerEngine",
    "History",
    "Observe",
    "Precision",
    "as_they_are",
    "check",
    "fit",
    "resume",
]
