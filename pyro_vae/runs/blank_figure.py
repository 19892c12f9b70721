"""An empty figure, in whose style the current folder has no say."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def blank_figure(size: tuple[float, float]) -> "Figure":
    """Return an empty matplotlib figure.

    Matplotlib reads its style from a `matplotlibrc` in the current folder, if there is one. That
    folder may be a stranger's, and a style can have LaTeX run on texts of its own. So that file is
    left out, and matplotlib's own style is used.

    Args:
        size: the width and height in inches.
    """
    import matplotlib
    from matplotlib.figure import Figure

    if matplotlib.matplotlib_fname() == "matplotlibrc":  # in the current folder
        matplotlib.rcdefaults()
    return Figure(figsize=size, layout="constrained")
