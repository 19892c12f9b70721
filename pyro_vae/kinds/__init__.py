"""Kinds of data: what x is.

| kind | x | the encoder sees | log p(x) is |
|---|---|---|---|
| `Binary` | pixels in {0, 1}, drawn from grey values if there are any | x | a probability |
| `Levels` | pixels 0, 1, .., L - 1 | x / (L - 1) | a probability |
| `UnitInterval` | values in [0, 1]; dequantised levels | x | a density; of levels, a probability |
| `Real` | real values in their own units | x, standardised | a density in these units |
| `Positive` | positive values, the same | log x, standardised | the same |
| `Counts` | 0, 1, 2, .. | log(1 + x), standardised | a probability |
| `Categories` | codes 0, 1, .., K - 1 | one-hot vectors | a probability |
| `Ordered` | the same, in an order | x / (K - 1) | a probability |
| `Columns` | a table of columns of these kinds | all of that | the sum over the columns |
| `Incomplete` | x of another kind with holes, NaN | that, and what is there | of what is there |
| `Conditional` | x and its conditions y | the features of both | that of x, given y |

A data set has a kind, and a likelihood names the kinds that it models. Loaders, encoders, figures
and reports ask the kind, and never look at the type of a tensor.

To add a kind, write a subclass of `Kind` in a new file of this folder (of `Pixels`, if a person
sees it as grey or coloured pixels), and import it here. A likelihood for it is one more file, in
`likelihoods`. `docs/extending.md` says what else changes if users should be able to name the kind
in `--columns`, or if it should be inferred. `kind_states` writes kinds into a run's folder.
"""

from pyro_vae.kinds.base_measure import BaseMeasure, bits_per_dim
from pyro_vae.kinds.binary import Binary
from pyro_vae.kinds.categories import Categories, Ordered
from pyro_vae.kinds.columns import Columns
from pyro_vae.kinds.conditional import Conditional, has_holes
from pyro_vae.kinds.counts import Counts
from pyro_vae.kinds.incomplete import Incomplete
from pyro_vae.kinds.kind import Binarization, Kind, Stored
from pyro_vae.kinds.kind_states import from_state, to_state
from pyro_vae.kinds.levels import Levels
from pyro_vae.kinds.pixels import Pixels
from pyro_vae.kinds.positive import Positive
from pyro_vae.kinds.real import Real
from pyro_vae.kinds.statistics import column_names
from pyro_vae.kinds.unit_interval import UnitInterval

__all__ = [
    "BaseMeasure",
    "Binarization",
    "Binary",
    "Categories",
    "Columns",
    "Conditional",
    "Counts",
    "Incomplete",
    "Kind",
    "Levels",
    "Ordered",
    "Pixels",
    "Positive",
    "Real",
    "Stored",
    "UnitInterval",
    "bits_per_dim",
    "column_names",
    "from_state",
    "has_holes",
    "to_state",
]
