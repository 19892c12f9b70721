"""Bounds on log p(x) for any Pyro model and guide that share a data plate.

| file | content |
|---|---|
| `weights` | the log-weights as one tensor, for users; `evaluate` streams them |
| `weighted_draws` | draws with their weights, for what follows from x, such as imputation |
| `importance`, `importance_results`, `streaming` | ELBO, IWAE and the jackknife: `evaluate` |
| `annealing`, and `annealing_*` | annealed importance sampling, from both sides: `anneal` |
| `densities` | log q(z given x) and log p(x, z) with gradients, in coordinates |
| `coordinates`, `discrete_values` | coordinates of lines, circles, spheres and discrete sites |
| `discrete_moves` | proposals for discrete variables |
| `simulation` | data drawn from a model, for the upper bound from backward chains |
| `exact`, `grid` | exact log p(x), where it can be computed |
| `given_values` | models that run with many given values of their latent sites |
| `elbo_gaps` | log p(x) - ELBO, split into approximation and amortisation gap |
| `estimates`, `khat` | means with their errors; the Pareto k-hat of weights |
| `known_errors` | when a Monte Carlo error can be stated |
| `paired` | models, compared on the same examples |
| `groups` | groups of runs, compared over seeds and examples |
| `results` | the protocol that results of estimators share |
| `batches` | work in batches, which can be interrupted and continued |
| `for_arviz`, `arviz_versions` | draws and bounds in the form that ArviZ takes |

To add an estimator:

1. Write one file here, with a function of `(model, guide, x, ...)` that returns a frozen dataclass.
   Give this class the members of `results.Result`: `rows`, `verdict`, `bound`, `conditions` and
   `to_dict`. Let the function work through `batches.in_batches`, with its own `work_name`: then it
   has its own noise and a progress bar, and can be continued after an interruption.
2. Call the function in `_estimate` in `runs/evaluation.py`. The report, `bounds.json` and the
   comparison of runs loop over results.

To add a bound that is another reduction of the log-weights which `evaluate` draws:

1. Compute it in `streaming.Stream.results`, from the sums that the stream has, or from a new one;
   put its name, its variance (`NAME_variance`) and the limit of that (`NAME_limit`) beside it. An
   error that is stated must not be much too small: `known_errors` has the rule, and
   `variance_limit` applies it. A variance that is unknown is NaN.
2. Add a field to `importance_results.Bounds`, an entry to its `rows` and its `to_dict`, and a line
   to `importance._bounds`.
3. Test it in `tests/bounds/test_bounds.py` against the exact value and by brute force, and its
   error in `tests/bounds/test_known_errors.py`.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pyro_vae.bounds.annealing import anneal, bidirectional
    from pyro_vae.bounds.annealing_results import Annealed, Bidirectional
    from pyro_vae.bounds.annealing_settings import Settings
    from pyro_vae.bounds.elbo_gaps import Gaps, gaps
    from pyro_vae.bounds.estimates import Corrected, Estimate, certified
    from pyro_vae.bounds.exact import enumeration, gaussian
    from pyro_vae.bounds.for_arviz import elpd_data, inference_data
    from pyro_vae.bounds.grid import quadrature
    from pyro_vae.bounds.groups import GroupComparison, compare_groups
    from pyro_vae.bounds.importance import LADDER, elbo, evaluate, iwae, jackknife
    from pyro_vae.bounds.importance_results import Bounds
    from pyro_vae.bounds.paired import Comparison, compare
    from pyro_vae.bounds.results import Result
    from pyro_vae.bounds.weights import log_weights
    from pyro_vae.programs.arguments import Arguments, Shared

__all__ = [
    "LADDER",
    "Annealed",
    "Arguments",
    "Bidirectional",
    "Bounds",
    "Comparison",
    "Corrected",
    "Estimate",
    "Gaps",
    "GroupComparison",
    "Result",
    "Settings",
    "Shared",
    "anneal",
    "bidirectional",
    "certified",
    "compare",
    "compare_groups",
    "elbo",
    "elpd_data",
    "enumeration",
    "evaluate",
    "gaps",
    "gaussian",
    "inference_data",
    "iwae",
    "jackknife",
    "log_weights",
    "quadrature",
]

_MODULES = {  # where the public names are
    "Annealed": "pyro_vae.bounds.annealing_results",
    "Arguments": "pyro_vae.programs.arguments",
    "Bidirectional": "pyro_vae.bounds.annealing_results",
    "Bounds": "pyro_vae.bounds.importance_results",
    "Comparison": "pyro_vae.bounds.paired",
    "Corrected": "pyro_vae.bounds.estimates",
    "Estimate": "pyro_vae.bounds.estimates",
    "Gaps": "pyro_vae.bounds.elbo_gaps",
    "GroupComparison": "pyro_vae.bounds.groups",
    "LADDER": "pyro_vae.bounds.importance",
    "Result": "pyro_vae.bounds.results",
    "Settings": "pyro_vae.bounds.annealing_settings",
    "Shared": "pyro_vae.programs.arguments",
    "anneal": "pyro_vae.bounds.annealing",
    "bidirectional": "pyro_vae.bounds.annealing",
    "certified": "pyro_vae.bounds.estimates",
    "compare": "pyro_vae.bounds.paired",
    "compare_groups": "pyro_vae.bounds.groups",
    "elbo": "pyro_vae.bounds.importance",
    "elpd_data": "pyro_vae.bounds.for_arviz",
    "enumeration": "pyro_vae.bounds.exact",
    "evaluate": "pyro_vae.bounds.importance",
    "gaps": "pyro_vae.bounds.elbo_gaps",
    "gaussian": "pyro_vae.bounds.exact",
    "inference_data": "pyro_vae.bounds.for_arviz",
    "iwae": "pyro_vae.bounds.importance",
    "jackknife": "pyro_vae.bounds.importance",
    "log_weights": "pyro_vae.bounds.weights",
    "quadrature": "pyro_vae.bounds.grid",
}

if not TYPE_CHECKING:  # type checkers read the imports above

    def __getattr__(name: str) -> Any:
        """Import a public name at its first use: nearly all need PyTorch, which takes seconds."""
        if name not in _MODULES:
            raise AttributeError(f"module '{__name__}' has no attribute '{name}'")
        found = getattr(importlib.import_module(_MODULES[name]), name)
        globals()[name] = found
        return found


def __dir__() -> list[str]:
    """List the public names, also those that are not imported yet."""
    return sorted({*globals(), *__all__})
