"""Figures of tables: bins, long names, and columns that are constant."""

import numpy as np
import torch
from matplotlib.figure import Figure

from pyro_vae.diagnostics.predictive import PredictiveChecks, compare_columns
from pyro_vae.figures import table_rows
from pyro_vae.kinds import Counts, Real

draw = np.random.default_rng(0)


def test_bins_of_whole_numbers_have_as_many_each() -> None:
    for size, spread in ((20, 5), (20, 200), (5000, 40), (5000, 3)):
        values = draw.integers(0, spread + 1, size).astype(float)
        edges = np.array(table_rows._bins(values))
        steps = np.diff(edges)
        assert np.allclose(steps, steps[0]) and steps[0] == round(steps[0])
        assert np.allclose(edges % 1, 0.5) and len(edges) <= 33
        assert np.mean((edges[0] <= values) & (values <= edges[-1])) > 0.98
    few, many = (table_rows._bins(draw.normal(size=size)) for size in (18, 5000))
    assert len(few) == 8 and len(many) == 30


def test_long_names_are_shortened_in_figures_and_lined_up_in_text() -> None:
    names = ["od280/od315_of_diluted_wines", "b"]
    data, drawn = (torch.from_numpy(draw.poisson(30, (50, 2))) for _ in range(2))
    checks = compare_columns(data, drawn, Counts([2], names))
    axes = Figure().subplots(2)
    table_rows.column_fits(axes, checks, Counts([2], names))
    titles = [ax.get_title() for ax in axes]
    assert any(title.startswith("od280/od315_of_diluted_…, p =") for title in titles)
    lines = str(checks).splitlines()
    assert len({len(line) for line in lines}) == 1 and names[0] in str(checks)


def test_columns_that_are_constant_are_drawn() -> None:
    """In a small test set, or under a model that has collapsed."""
    data, drawn = draw.normal(size=(9, 3)), draw.normal(size=(50, 3))
    data[:, 0] = 0.3
    drawn[:, 1] = 7
    kind = Real([3], ["a", "b", "c"])
    checks = compare_columns(torch.from_numpy(data), torch.from_numpy(drawn), kind)
    for shown in ([0, 1, 2], [0, 1]):  # some pairs have a correlation, or none
        figure = Figure()
        axes = figure.subplots(2, 3).ravel()
        names = [name for name in checks.by_statistic if name in [kind.names[i] for i in shown]]
        some = PredictiveChecks({name: checks.by_statistic[name] for name in names})
        table_rows.column_fits(axes[:3], some, kind)
        table_rows.column_pairs(axes[3:], some, kind)
        assert not any(ax.get_visible() for ax in axes[3:])
        figure.canvas.draw()
    data[:, 0] = drawn[:9, 0]
    checks = compare_columns(torch.from_numpy(data), torch.from_numpy(drawn), kind)
    axes = Figure().subplots(3)
    table_rows.column_pairs(axes, checks, kind)
    assert [ax.get_visible() for ax in axes] == [True, False, False]
