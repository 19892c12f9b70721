"""The graphical model of a Pyro program, drawn without Graphviz."""

import math
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from pyro_vae.programs.random_streams import preserve_rng_state

if TYPE_CHECKING:
    from matplotlib.axes import Axes

RADIUS = 0.3  # of a site


def relations(program: Callable[..., Any], x: Any) -> dict[str, Any]:
    """Return what depends on what in a program, as `pyro.render_model` finds it.

    Args:
        program: a Pyro program of x. It runs once.
        x: the data.
    """
    from pyro.infer.inspect import get_model_relations

    with preserve_rng_state(x):
        found: dict[str, Any] = get_model_relations(program, (x,))
    return found


def graphical_model(ax: "Axes", relations: dict[str, Any], title: str = "") -> "Axes":
    """Draw the sites of a program: arrows from parents to children, observed sites shaded.

    Args:
        ax: the axes.
        relations: what `relations` returns.
        title: the title of the axes.
    """
    from matplotlib.patches import Circle, FancyArrowPatch, FancyBboxPatch

    parents: dict[str, list[str]] = relations["sample_sample"]
    names = relations["sample_dist"]
    places = _places(parents)
    for site, (x, y) in places.items():
        face = "0.85" if site in relations["observed"] else "white"
        ax.add_patch(Circle((x, y), RADIUS, facecolor=face, edgecolor="0.25", zorder=3))
        ax.text(x, y, site, ha="center", va="center", style="italic", zorder=4)
        ax.text(
            x + 1.4 * RADIUS,
            y,
            f"~ {names[site]}",
            ha="left",
            va="center",
            fontsize="small",
            zorder=4,
        )
        for parent in parents[site]:
            above, left = places[parent][1] - y, places[parent][0] - x
            share = RADIUS / math.hypot(above, left)  # arrows go from rim to rim
            rim = left * share, above * share
            start = places[parent][0] - rim[0], places[parent][1] - rim[1]
            end = x + rim[0], y + rim[1]
            arrow = FancyArrowPatch(
                start,
                end,
                arrowstyle="-|>",
                mutation_scale=10,
                shrinkA=0,
                shrinkB=0,
                color="0.25",
                zorder=2,
            )
            ax.add_patch(arrow)
    for plate, sites in relations["plate_sample"].items():
        left, right = (f(places[site][0] for site in sites) for f in (min, max))
        low, high = (f(places[site][1] for site in sites) for f in (min, max))
        ax.add_patch(
            FancyBboxPatch(
                (left - 0.5, low - 0.75),
                right - left + 2.6,
                high - low + 1.25,
                boxstyle="round,pad=0,rounding_size=0.12",
                facecolor="none",
                edgecolor="0.55",
            )
        )
        ax.text(right + 2.0, low - 0.6, f"plate {plate}", ha="right", fontsize="small")
    ax.set_title(title)
    ax.set_xlim(-0.6, max(x for x, _ in places.values()) + 2.2)
    ax.set_ylim(min(y for _, y in places.values()) - 0.85, 0.6)
    ax.set_aspect("equal", anchor="NW")
    ax.set_axis_off()
    return ax


def _places(parents: dict[str, list[str]]) -> dict[str, tuple[float, float]]:
    """Return a place for each site: below all of its parents; sites of a level side by side."""
    levels: dict[str, int] = {}
    for site in parents:  # a program draws parents first
        levels[site] = max((levels[parent] + 1 for parent in parents[site]), default=0)
    places: dict[str, tuple[float, float]] = {}
    for level in range(max(levels.values()) + 1):
        sites = [site for site, its_level in levels.items() if its_level == level]
        places |= {site: (2.8 * i, -1.2 * level) for i, site in enumerate(sites)}
    return places
