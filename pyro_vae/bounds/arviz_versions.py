"""Loads ArviZ when it is first needed: 0.23 for Python 3.11, 1.x for Python 3.12 and later."""

import functools
import warnings
from typing import Any


@functools.cache
def load_arviz() -> tuple[Any, bool]:
    """Return the module `arviz`, and whether its version is 0.x."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # 0.23 announces 1.x
        import arviz

    return arviz, not hasattr(arviz, "plot_ppc_dist")
