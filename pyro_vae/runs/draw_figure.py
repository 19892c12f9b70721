"""Figures in the style of runs and reports, in which the current folder has no say."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO

GREY = "#6b7580"
STYLE: dict[str, Any] = {
    "axes.axisbelow": True,
    "axes.edgecolor": GREY,
    "axes.grid": True,
    "axes.grid.axis": "y",
    "axes.labelcolor": "#3c4650",
    "axes.labelsize": 9,
    "axes.spines.right": False,
    "axes.spines.top": False,
    "axes.titlelocation": "left",
    "axes.titlesize": 9,
    "axes.titlecolor": "#3c4650",
    "figure.constrained_layout.use": True,
    "font.size": 9,
    "grid.color": "#e6e9ed",
    "grid.linewidth": 0.8,
    "legend.fontsize": 8.5,
    "legend.frameon": False,
    "savefig.bbox": "tight",
    "savefig.dpi": 160,
    "savefig.pad_inches": 0.05,
    "text.parse_math": False,  # names of columns and categories may have dollar signs
    "xtick.color": GREY,
    "xtick.labelsize": 8.5,
    "ytick.color": GREY,
    "ytick.labelsize": 8.5,
}
# By their numbers: C0 is ours, C7 is the data or what is not sure, C2 and C3 are low and high.
COLOURS = (
    *("#2a6496", "#d98032", "#2f8f6b", "#b8433f"),
    *("#7a5ea8", "#8c6239", "#c7699b", "#8d969f"),
)


def draw_figure(
    file: Path | BinaryIO,
    size: tuple[float, float],
    draw: Callable[[Any], Any],
    rows: int = 1,
    columns: int = 1,
) -> None:
    """Draw a figure into a file.

    Matplotlib reads its style from a `matplotlibrc` in the current folder, if there is one. That
    folder may be a stranger's, and a style can have LaTeX run on texts of its own. So figures begin
    with matplotlib's own style.

    Args:
        file: the path of the file, whose ending says what kind it is; or a file that receives PNG.
        size: the width and height in inches.
        draw: a function of the axes; if there are several, of a sequence of them, row by row.
        rows: the number of rows of axes.
        columns: the number of axes in a row.

    Raises:
        ValueError: if matplotlib cannot write files of that kind.
    """
    import matplotlib
    from cycler import cycler
    from matplotlib.figure import Figure

    with matplotlib.rc_context():
        matplotlib.rcdefaults()
        style: Any = {**STYLE, "axes.prop_cycle": cycler(color=COLOURS)}
        matplotlib.rcParams.update(style)
        figure = Figure(figsize=size)
        axes = figure.subplots(rows, columns)
        draw(axes.flatten() if rows * columns > 1 else axes)
        figure.savefig(file)
