"""Variational autoencoders as Pyro programs, with bounds on log p(x) that carry their errors.

- `VAE` combines a prior p(z), a likelihood p(x|z) and a posterior q(z|x) into a Pyro model and a
  Pyro guide. The parts are in `priors`, `likelihoods`, `posteriors` and `networks`.
- `kinds` describes what the data are; `data` loads and splits them.
- `objectives` are trained by the engines and the loop in `training`.
- `bounds` measures log p(x) for any Pyro model and guide.
- `distributions` has what Pyro lacks; `prediction` imputes missing values and classifies.
- `diagnostics` examines the latent code; `refinement` improves q(z|x) for given examples.
- `load` opens the folder of a trained run, to score, encode, sample and impute.
- `figures` draws; `runs` is the command line and the folder that a run fills.
- `sklearn.VAE` is all this as a scikit-learn estimator.
- `semi_supervised` has VAEs with a class y that is known for some of the examples.
- `compiling` turns a function in which Pyro programs run into a compiled function.
- `ranks` lets several processes do one piece of work together.
- `testing` has tests for your own parts.

`svi` is the older name of `training`. All this is imported at its first use. `import pyro_vae`
alone imports neither Pyro nor PyTorch, so that help texts appear at once.
"""

import importlib
import sys
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from typing import TYPE_CHECKING, Any

from pyro_vae.errors import DivergenceError, InputError

if TYPE_CHECKING:
    from types import ModuleType

    from pyro_vae import (
        bounds,
        checkpoint,
        data,
        diagnostics,
        distributions,
        figures,
        kinds,
        likelihoods,
        networks,
        objectives,
        posteriors,
        prediction,
        priors,
        runs,
        semi_supervised,
        sklearn,
        testing,
        training,
    )
    from pyro_vae import training as svi
    from pyro_vae.diagnostics import refinement
    from pyro_vae.programs import compiling, ranks
    from pyro_vae.runs.applying import load
    from pyro_vae.vae import VAE, Guide, Model

__version__ = "0.1.0"  # the only place; the build reads it as text, and imports nothing
__all__ = [
    "VAE",
    "DivergenceError",
    "Guide",
    "InputError",
    "Model",
    "bounds",
    "checkpoint",
    "compiling",
    "data",
    "diagnostics",
    "distributions",
    "figures",
    "kinds",
    "likelihoods",
    "load",
    "networks",
    "objectives",
    "posteriors",
    "prediction",
    "priors",
    "ranks",
    "refinement",
    "runs",
    "semi_supervised",
    "sklearn",
    "svi",
    "testing",
    "training",
]

_OTHER_PLACES = {
    "compiling": "pyro_vae.programs.compiling",
    "ranks": "pyro_vae.programs.ranks",
    "refinement": "pyro_vae.diagnostics.refinement",
    "svi": "pyro_vae.training",
}
_MEMBERS = {
    "Guide": "pyro_vae.vae",
    "Model": "pyro_vae.vae",
    "VAE": "pyro_vae.vae",
    "load": "pyro_vae.runs.applying",
}


class _OtherPlaces(MetaPathFinder, Loader):
    """Lets `from pyro_vae.svi import ...` find a module that is in another place now."""

    def find_spec(self, name: str, path: Any = None, target: Any = None) -> ModuleSpec | None:
        package, _, last = name.rpartition(".")
        found = package == __name__ and last in _OTHER_PLACES
        return ModuleSpec(name, self, origin=_OTHER_PLACES[last]) if found else None

    def create_module(self, spec: ModuleSpec) -> "ModuleType":
        module = importlib.import_module(str(spec.origin))
        self._own_spec = module.__spec__
        return module

    def exec_module(self, module: "ModuleType") -> None:
        module.__spec__ = self._own_spec  # the import system has replaced it


sys.meta_path.append(_OtherPlaces())

if not TYPE_CHECKING:  # type checkers read the imports above

    def __getattr__(name: str) -> Any:
        """Import a public module, or the module of a public class or function, when it is used."""
        if name not in __all__:
            raise AttributeError(f"module 'pyro_vae' has no attribute '{name}'")
        if name in _MEMBERS:
            found = getattr(importlib.import_module(_MEMBERS[name]), name)
        else:
            found = importlib.import_module(_OTHER_PLACES.get(name, f"pyro_vae.{name}"))
        globals()[name] = found
        return found


def __dir__() -> list[str]:
    """List the public names, also those of modules that are not imported yet."""
    return sorted({*globals(), *__all__})
