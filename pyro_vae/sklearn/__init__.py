"""A VAE as a scikit-learn estimator, for pipelines and searches over parameters.

| file | content |
|---|---|
| `estimator` | `VAE`: fit, transform, score, sample |
| `fitting` | what the rows are, their split, and the training in memory |
| `named_parts` | parts of the model that are named by their class, or given |
"""

from pyro_vae.sklearn.estimator import VAE

__all__ = ["VAE"]
