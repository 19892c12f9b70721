"""Kinds of data: what x is.

| kind | x | stored as |
|---|---|---|
| `Binary` | pixels in {0, 1}, drawn from the grey values | levels or floats in [0, 1] |
| `Levels` | 0, 1, .., 255 | levels |
| `UnitInterval` | values in [0, 1]; levels are dequantised | levels or floats in [0, 1] |

A likelihood names its kind. Loaders, encoders, figures and reports ask the kind, and never look at
the type of a tensor.

To add a kind, write a subclass of `Kind` in a new file of this folder (of `Pixels`, if a person
sees it as grey or coloured pixels), and import it here. No other file changes. A likelihood for it
is one more file, in `likelihoods`.
"""

from pyro_vae.kinds.base_measure import BaseMeasure, bits_per_dim
from pyro_vae.kinds.binary import Binary
from pyro_vae.kinds.kind import Binarization, Kind
from pyro_vae.kinds.levels import Levels
from pyro_vae.kinds.pixels import Pixels
from pyro_vae.kinds.unit_interval import UnitInterval

__all__ = [
    "BaseMeasure",
    "Binarization",
    "Binary",
    "Kind",
    "Levels",
    "Pixels",
    "UnitInterval",
    "bits_per_dim",
]
