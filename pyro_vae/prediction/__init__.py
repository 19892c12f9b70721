"""What follows from a trained model for an example: its missing values.

| file | content |
|---|---|
| `imputation` | p(missing values given observed ones): `impute`, and how good it is: `score` |
"""

from pyro_vae.prediction.imputation import Imputation, Scores, deviations, impute, score

__all__ = ["Imputation", "Scores", "deviations", "impute", "score"]
