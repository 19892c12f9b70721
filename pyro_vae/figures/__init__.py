"""Figures. Each function draws on matplotlib axes; the caller saves the file.

To add a figure, write a function in a file of this folder, name it here, and add an entry to
`FIGURES` in `runs/files.py`.
"""

from pyro_vae.figures.graphical_models import graphical_model, relations
from pyro_vae.figures.measurements import (
    forest,
    forest_of_groups,
    ladder,
    pareto_k,
    predictive_checks,
    tightness,
    training_curves,
    units,
)
from pyro_vae.figures.pictures import (
    hard_examples,
    image_grid,
    interpolation,
    manifold,
    reconstructions,
    samples,
    samples_by_class,
    traversals,
)
from pyro_vae.figures.table_rows import column_fits, column_pairs, reconstructed_rows

__all__ = [
    "column_fits",
    "column_pairs",
    "forest",
    "forest_of_groups",
    "graphical_model",
    "hard_examples",
    "image_grid",
    "interpolation",
    "ladder",
    "manifold",
    "pareto_k",
    "predictive_checks",
    "reconstructed_rows",
    "reconstructions",
    "relations",
    "samples",
    "samples_by_class",
    "tightness",
    "training_curves",
    "traversals",
    "units",
]
