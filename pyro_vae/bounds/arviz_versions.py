"""ArviZ 0.23, which Python 3.11 has, and 1.x, from Python 3.12 on: loaded when first needed."""

import functools
import warnings
from typing import Any


@functools.cache
def load_arviz() -> tuple[Any, bool]:
    """Return the module `arviz`, and whether it is 0.x."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # 0.23 announces 1.x
        import arviz

    return arviz, not hasattr(arviz, "plot_ppc_dist")
