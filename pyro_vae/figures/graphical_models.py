"""The graphical model of a Pyro program, drawn without Graphviz."""

import math
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from pyro_vae.programs.random_streams import preserve_rng_state

if TYPE_CHECKING:
    from matplotlib.axes import Axes

RADIUS = 0.3  # of a site
Place = tuple[float, float]


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
    from matplotlib.patches import Circle

    parents: dict[str, list[str]] = relations["sample_sample"]
    names = relations["sample_dist"]
    places = _places(parents)
    for site, (x, y) in places.items():
        face = "0.85" if site in relations["observed"] else "white"
        ax.add_patch(Circle((x, y), RADIUS, facecolor=face, edgecolor="0.25", zorder=3))
        ax.text(x, y, site, ha="center", va="center", style="italic", zorder=4)
        ax.text(x + 1.4 * RADIUS, y, f"~ {names[site]}", va="center", fontsize="small", zorder=4)
        for parent in parents[site]:
            _draw_arrow(ax, places[parent], (x, y))
    for plate, sites in relations["plate_sample"].items():
        _draw_plate(ax, plate, [places[site] for site in sites])
    ax.set_title(title)
    ax.set_xlim(-0.6, max(x for x, _ in places.values()) + 2.2)
    ax.set_ylim(min(y for _, y in places.values()) - 0.85, 0.6)
    ax.set_aspect("equal", anchor="NW")
    ax.set_axis_off()
    return ax


def _draw_arrow(ax: "Axes", parent: Place, child: Place) -> None:
    """Draw an arrow between two sites, from rim to rim."""
    from matplotlib.patches import FancyArrowPatch

    (x, y), (to_x, to_y) = parent, child
    share = RADIUS / math.hypot(to_x - x, to_y - y)
    rim_x, rim_y = share * (to_x - x), share * (to_y - y)
    start, end = (x + rim_x, y + rim_y), (to_x - rim_x, to_y - rim_y)
    style: Any = {"arrowstyle": "-|>", "mutation_scale": 10, "shrinkA": 0, "shrinkB": 0}
    ax.add_patch(FancyArrowPatch(start, end, color="0.25", zorder=2, **style))


def _draw_plate(ax: "Axes", name: str, places: Sequence[Place]) -> None:
    """Draw a box around sites."""
    from matplotlib.patches import FancyBboxPatch

    across, down = zip(*places, strict=True)
    left, right, low, high = min(across), max(across), min(down), max(down)
    corner, width, height = (left - 0.5, low - 0.75), right - left + 2.6, high - low + 1.25
    style: Any = {"boxstyle": "round,pad=0,rounding_size=0.12", "facecolor": "none"}
    ax.add_patch(FancyBboxPatch(corner, width, height, edgecolor="0.55", **style))
    ax.text(right + 2.0, low - 0.6, f"plate {name}", ha="right", fontsize="small")


def _places(parents: dict[str, list[str]]) -> dict[str, Place]:
    """Return a place for each site: below all of its parents; sites of a level side by side."""
    levels: dict[str, int] = {}
    for site in parents:  # a program draws parents first
        levels[site] = max((levels[parent] + 1 for parent in parents[site]), default=0)
    places: dict[str, Place] = {}
    for level in range(max(levels.values()) + 1):
        sites = [site for site, its_level in levels.items() if its_level == level]
        places |= {site: (2.8 * i, -1.2 * level) for i, site in enumerate(sites)}
    return places
