"""What follows from a trained model for an example: its missing values, its class.

| file | content |
|---|---|
| `imputation` | p(missing values given observed ones): `impute`, and how good it is: `score` |
| `bayes_rule` | p(y given x), by a model of p(x given y): `classify` |
"""

from pyro_vae.prediction.bayes_rule import (
    Classification,
    class_frequencies,
    classify,
    num_classes,
)
from pyro_vae.prediction.imputation import Imputation, Scores, deviations, impute, score

__all__ = [
    "Classification",
    "Imputation",
    "Scores",
    "class_frequencies",
    "classify",
    "deviations",
    "impute",
    "num_classes",
    "score",
]
