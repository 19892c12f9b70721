"""What the latent code carries, whether it has collapsed, and how smooth its space is."""

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
