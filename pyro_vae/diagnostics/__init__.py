"""What the latent code carries, whether it has collapsed, and how smooth its space is.

`diagnose` answers the first two questions in one verdict; `measure`, `unit_shares`, `kl_per_unit`
and `probe` are its parts, and can be used alone. `smoothness` answers the third. Two more modules
are not part of the verdict: `predictive` compares examples drawn from the model with the data, and
`refinement` improves q(z|x) for single examples, which shows the amortisation gap.

Results are frozen dataclasses. Those that a run reports, `Diagnosis`, `Smoothness` and
`predictive.PredictiveChecks`, have `to_dict()`, for a JSON file (None for what is not finite), and
`str()`, a text for people.

To add a diagnostic:

1. Write a module here: a function that measures a model and a guide, or a VAE, and returns a frozen
   dataclass with `to_dict()` and `__str__`. `means` has the means with their standard errors.
2. Export both below.
3. Call it in `runs.model_diagnostics.measure`; report and files loop over what that returns.
4. Test it on a model whose answer is known; tests/conftest.py has a linear-Gaussian one.
"""

from pyro_vae.diagnostics.collapse import Diagnosis, Probe, diagnose, judge, probe
from pyro_vae.diagnostics.information import Information, measure
from pyro_vae.diagnostics.smoothness import Smoothness, smoothness
from pyro_vae.diagnostics.units import active_units, kl_per_unit, unit_means, unit_shares

__all__ = [
    "Diagnosis",
    "Information",
    "Probe",
    "Smoothness",
    "active_units",
    "diagnose",
    "judge",
    "kl_per_unit",
    "measure",
    "probe",
    "smoothness",
    "unit_means",
    "unit_shares",
]
