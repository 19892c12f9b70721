"""Figures show the numbers that they are given, for images and for vectors."""

import dataclasses
import itertools
from collections.abc import Iterator

import numpy as np
import pyro
import pyro.distributions as dist
import pytest
import torch
from conftest import LinearGaussian
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Circle

from pyro_vae import VAE, bounds, diagnostics, figures, likelihoods, posteriors, priors
from pyro_vae.diagnostics import predictive
from pyro_vae.kinds import Levels


@pytest.fixture
def ax() -> Iterator[Axes]:
    figure = Figure(layout="constrained")
    yield figure.subplots()
    figure.canvas.draw()  # raises if labels or layout are wrong


def make(*event_shape: int) -> VAE:
    return VAE(
        priors.StandardNormal(2),
        likelihoods.Bernoulli(2, event_shape),
        posteriors.Normal(event_shape, 2),
    )


def picture(ax: Axes) -> np.ndarray:
    """Return what is shown: [.., ..] in grey, [.., .., 3] in colour, NaN where nothing is drawn."""
    shown = ax.images[0].get_array().filled(np.nan)
    return shown if shown.ndim == 2 else np.where(shown[..., 3:] == 1, shown[..., :3], np.nan)


def test_grid_has_every_image_in_its_place(ax: Axes) -> None:
    images = torch.rand(5, 3, 4)
    shown = picture(figures.image_grid(ax, images, columns=2))
    assert shown.shape == (3 * 4 - 1, 2 * 5 - 1)
    for i, image in enumerate(images):
        top, left = i // 2 * 4, i % 2 * 5
        np.testing.assert_array_equal(shown[top : top + 3, left : left + 4], image)
    assert np.isnan(shown[3]).all() and np.isnan(shown[8:, 5:]).all()


@pytest.mark.parametrize("channels", [1, 2, 3, 4])
def test_colours_in_a_grid(ax: Axes, channels: int) -> None:
    images = torch.rand(5, channels, 3, 4)
    shown = picture(figures.image_grid(ax, images, columns=2))
    colours = (3,) if channels == 3 else ()
    assert shown.shape == (3 * 4 - 1, 2 * 5 - 1, *colours)
    for i, image in enumerate(images):
        top, left = i // 2 * 4, i % 2 * 5
        expected = image.movedim(0, -1) if channels == 3 else image.mean(0)
        np.testing.assert_array_equal(shown[top : top + 3, left : left + 4], expected)
    assert np.isnan(shown[3]).all() and np.isnan(shown[8:, 5:]).all()


def test_vectors_are_rows(ax: Axes) -> None:
    vectors = torch.rand(5, 7)
    np.testing.assert_array_equal(picture(figures.image_grid(ax, vectors, columns=2)), vectors)


@pytest.mark.parametrize("event_shape", [(3, 4), (6,), (1, 3, 4), (3, 4, 5)])
def test_what_the_model_does(event_shape: tuple[int, ...]) -> None:
    vae, x = make(*event_shape), torch.rand(6, *event_shape).round()
    for draw in (
        lambda ax: figures.samples(ax, vae, count=9),
        lambda ax: figures.reconstructions(ax, vae, x),
        lambda ax: figures.interpolation(ax, vae, x[:3], x[3:], steps=4),
        lambda ax: figures.manifold(ax, vae, side=4),
    ):
        figure = Figure(layout="constrained")
        shown = picture(draw(figure.subplots()))
        figure.canvas.draw()
        inside = shown[~np.isnan(shown)]
        assert inside.min() >= 0 and inside.max() <= 1 and inside.std() > 0


def test_every_picture_says_what_it_shows(ax: Axes) -> None:
    """Means are not called samples, and of vectors the lines have names too."""
    vae, x = make(6), torch.rand(4, 6).round()
    titles = {}
    for name, draw, rows, lines in (
        ("samples", lambda: figures.samples(ax, vae, count=9), [], "draw of z"),
        (
            "reconstructions",
            lambda: figures.reconstructions(ax, vae, x),
            ["data", "reconstruction"],
            "",
        ),
        (
            "interpolation",
            lambda: figures.interpolation(ax, vae, x[:2], x[2:], steps=5),
            ["pair 1", "pair 2"],
            "code of A above, of B below",
        ),
        (
            "manifold",
            lambda: figures.manifold(ax, vae, side=4),
            [],
            "point of the grid, row by row",
        ),
        (
            "traversals",
            lambda: figures.traversals(ax, vae, x, steps=5),
            None,
            "-2 sd above, +2 sd below",
        ),
    ):
        ax.clear()
        draw()
        titles[name] = ax.get_title()
        shown = [label.get_text() for label in ax.get_yticklabels()]
        assert ax.get_ylabel() == lines, name
        if rows is None:
            assert shown and set(shown) <= {"z[0]", "z[1]"}
        else:
            assert shown == rows, name
        if shown:  # each name is in the middle of its lines
            height = len(picture(ax)) / len(shown)
            np.testing.assert_allclose(
                ax.get_yticks(), [(row + 0.5) * height - 0.5 for row in range(len(shown))]
            )
    for name, title in titles.items():
        assert "means of p(x|z)" in title, name


def test_samples_follow_the_prior_of_the_model(ax: Axes) -> None:
    """Codes are drawn with the upper layer of the prior, and no pixels are drawn."""

    class TwoLayers(priors.StandardNormal):
        def forward(self) -> dist.Distribution:
            upper = pyro.sample("upper", super().forward())
            assert upper.shape == (9, 2)  # one for each image
            return dist.Normal(upper, 1e-4).to_event(1)

    vae = make(1, 1)
    vae.model.prior = TwoLayers(2)
    torch.manual_seed(1)
    with pyro.poutine.trace() as trace:
        shown = picture(figures.samples(ax, vae, count=9))
    assert set(trace.trace.stochastic_nodes) == {"data", "upper", "z"}
    with torch.no_grad():
        expected = vae.likelihood.picture(trace.trace.nodes["z"]["value"])
    np.testing.assert_allclose(shown[::2, ::2].flatten(), expected.flatten(), rtol=1e-6)
    assert expected.std() > 0


def test_reconstructions_are_below_their_images(ax: Axes) -> None:
    vae, x = make(3, 4, 5), torch.rand(2, 3, 4, 5).round()
    torch.manual_seed(1)
    shown = picture(figures.reconstructions(ax, vae, x))
    torch.manual_seed(1)
    with torch.no_grad():
        expected = vae.likelihood.picture(vae.guide(x))
    for i in range(2):
        columns = slice(6 * i, 6 * i + 5)
        np.testing.assert_array_equal(shown[:4, columns], x[i].movedim(0, -1))
        np.testing.assert_allclose(shown[5:, columns], expected[i].movedim(0, -1), rtol=1e-5)
    assert [label.get_text() for label in ax.get_yticklabels()] == ["data", "reconstruction"]
    np.testing.assert_allclose(ax.get_yticks(), [1.5, 6.5])  # the middles of rows 0..3 and 5..8


def test_levels_are_shown_as_intensities(ax: Axes, monkeypatch: pytest.MonkeyPatch) -> None:
    vae, x = make(3, 4), torch.randint(256, (2, 3, 4)).float()
    monkeypatch.setattr(vae.likelihood, "kind", Levels(), raising=False)
    shown = picture(figures.reconstructions(ax, vae, x))
    np.testing.assert_allclose(shown[:3, :4], x[0] / 255)


@pytest.mark.parametrize("event_shape", [(3, 4), (3, 6, 4)])
def test_interpolation_starts_and_ends_at_the_images_codes(
    ax: Axes, event_shape: tuple[int, ...]
) -> None:
    vae, x = make(*event_shape), torch.rand(2, *event_shape).round()
    torch.manual_seed(1)
    shown = picture(figures.interpolation(ax, vae, x[:1], x[1:], steps=5))
    torch.manual_seed(1)
    with torch.no_grad():
        ends = vae.likelihood.picture(torch.cat([vae.guide(x[:1]), vae.guide(x[1:])]))
    if len(event_shape) == 3:
        ends = ends.movedim(1, -1)
    np.testing.assert_allclose(shown[:, :4], ends[0], rtol=1e-5)
    np.testing.assert_allclose(shown[:, -4:], ends[1], rtol=1e-5)
    np.testing.assert_allclose(ax.get_xticks(), [1.5, 21.5])  # of 5 images 4 wide, 1 between


@pytest.mark.parametrize("support", ["real", "sphere"])
def test_interpolation_stays_where_codes_are(
    ax: Axes, monkeypatch: pytest.MonkeyPatch, support: str
) -> None:
    vae = make(3, 4)
    codes = torch.nn.functional.normalize(torch.randn(2, 3, 2), dim=-1)
    turns, decoded = iter(codes), []
    monkeypatch.setattr(vae.guide, "forward", lambda x: next(turns))
    monkeypatch.setattr(vae.posterior, "support", support, raising=False)
    monkeypatch.setattr(
        vae.likelihood, "picture", lambda z: decoded.append(z) or torch.rand(*z.shape[:-1], 3, 4)
    )
    figures.interpolation(ax, vae, torch.zeros(3, 3, 4), torch.zeros(3, 3, 4), steps=5)
    way = decoded[0]
    assert way.shape == (3, 5, 2)
    torch.testing.assert_close(way[:, 0], codes[0])
    torch.testing.assert_close(way[:, -1], codes[1])
    middle = codes.mean(0)
    if support == "sphere":
        torch.testing.assert_close(way.norm(dim=-1), torch.ones(3, 5))
        middle = middle / middle.norm(dim=-1, keepdim=True)
    torch.testing.assert_close(way[:, 2], middle)


def test_manifold_is_laid_out_as_axes_are(ax: Axes) -> None:
    """z[0] grows to the right, z[1] upwards."""
    vae = make(1, 1)
    with torch.no_grad():
        shown = picture(figures.manifold(ax, vae, side=4))
        corner = vae.likelihood.picture(
            torch.tensor([-1.1503, 1.1503])
        )  # the normal's 1/8 quantile
    np.testing.assert_allclose(shown[0, 0], corner.item(), rtol=1e-3)
    assert ax.get_xticklabels()[0].get_text() == "-1.2"
    assert ax.get_yticklabels()[0].get_text() == "1.2"


def test_manifold_in_colour(ax: Axes) -> None:
    vae = make(3, 2, 4)
    shown = picture(figures.manifold(ax, vae, side=5))
    assert shown.shape == (5 * 3 - 1, 5 * 5 - 1, 3)
    np.testing.assert_allclose(ax.get_xticks(), [1.5, 6.5, 11.5, 16.5, 21.5])
    np.testing.assert_allclose(ax.get_yticks(), [0.5, 3.5, 6.5, 9.5, 12.5])
    with torch.no_grad():
        centre = vae.likelihood.picture(torch.zeros(2))
    np.testing.assert_allclose(shown[6:8, 10:14], centre.movedim(0, -1), rtol=1e-5)


def test_curves_are_the_history(ax: Axes) -> None:
    history = [
        {"epoch": i, "train_loss": 9.0 - i, "validation_bound": -8.0 + i % 3} for i in range(1, 7)
    ]
    figures.training_curves(ax, history)
    lines = {line.get_label(): line.get_xydata() for line in ax.lines}
    np.testing.assert_array_equal(lines["training objective"][:, 1], [i - 9.0 for i in range(1, 7)])
    np.testing.assert_array_equal(
        lines["validation bound"][:, 1], [-8.0 + i % 3 for i in range(1, 7)]
    )
    assert (lines["best: -6.00 in epoch 2"] == [2, -6.0]).all()


@pytest.mark.parametrize("every", [2, 6])
def test_curves_of_epochs_that_are_not_all_validated(ax: Axes, every: int) -> None:
    history = [
        {"epoch": i, "train_loss": 900.0 if i == 1 else 9.0}
        | ({"validation_bound": -8.0 + i} if i % every == 0 else {})
        for i in range(1, 7)
    ]
    figures.training_curves(ax, history)
    lines = {line.get_label(): line for line in ax.lines}
    validated = lines["validation bound"]
    np.testing.assert_array_equal(validated.get_xdata(), range(every, 7, every))
    assert (validated.get_marker() == "o") == (every == 6)  # a line of one point is not seen
    assert ax.get_title() == ""  # of so few values none is left out


def test_epochs_below_the_axis_are_counted(ax: Axes) -> None:
    history = [{"epoch": i, "train_loss": 900.0 if i < 3 else 9.0} for i in range(1, 50)]
    history[-1]["validation_bound"] = -8.0
    figures.training_curves(ax, history)
    assert ax.get_title() == "2 epochs are below the axis"


def test_bounds_are_drawn_where_they_are(ax: Axes, linear_gaussian: LinearGaussian) -> None:
    vae = linear_gaussian.vae
    result = bounds.evaluate(vae.model, vae.guide, linear_gaussian.marginal.sample((9,)), 50)
    figures.ladder(ax, result)
    points = ax.containers[0].lines[0].get_xydata()
    np.testing.assert_allclose(points[:, 0], [1, 5, 50])
    np.testing.assert_allclose(points[:, 1], [result.iwae[k].mean for k in (1, 5, 50)])
    assert f"{result.iwae[50].mean:.2f}" in ax.get_title()


def test_bounds_of_the_annealed_examples_are_drawn(
    ax: Axes, linear_gaussian: LinearGaussian
) -> None:
    vae, x = linear_gaussian.vae, linear_gaussian.marginal.sample((9,))
    result = bounds.evaluate(vae.model, vae.guide, x, 50)
    annealed = bounds.anneal(vae.model, vae.guide, x[:4], bounds.Settings(temperatures=20))
    figures.ladder(ax, result, annealed)
    points = ax.containers[0].lines[0].get_xydata()
    expected = [result.iwae[k].values[:4].mean().item() for k in (1, 5, 50)]
    np.testing.assert_allclose(points[:, 1], expected)
    heights = {line.get_label().split(":")[0]: line.get_ydata()[0] for line in ax.lines}
    assert heights["AIS, lower"] == annealed.lower.mean
    assert heights["AIS, upper"] == annealed.upper.mean
    # Bands are 95 % intervals, and what is written is one standard error.
    band = next(iter(ax.patches)).get_extents().transformed(ax.transData.inverted())
    np.testing.assert_allclose(band.height, 2 * 1.96 * annealed.lower.mc_se, rtol=1e-6)
    labels = [line.get_label() for line in ax.lines]
    assert any(label.endswith(f"MC error {annealed.lower.mc_se:.2f}") for label in labels)
    assert not any("±" in label for label in labels)


def test_khat_is_drawn(ax: Axes, linear_gaussian: LinearGaussian) -> None:
    vae, x = linear_gaussian.vae, linear_gaussian.marginal.sample((30,))
    result = bounds.evaluate(vae.model, vae.guide, x, 200)
    figures.pareto_k(ax, result)
    assert sum(patch.get_height() for patch in ax.patches) == 30
    assert f"{100 * result.heavy:.0f} % of" in ax.get_title()


@pytest.mark.parametrize("spread", [0.0, 1e-9])
def test_khat_that_differs_by_rounding_is_drawn(
    ax: Axes, linear_gaussian: LinearGaussian, spread: float
) -> None:
    vae, x = linear_gaussian.vae, linear_gaussian.marginal.sample((30,))
    result = bounds.evaluate(vae.model, vae.guide, x, 200)
    khat = 0.3 + spread * torch.rand(30, dtype=torch.float64)
    figures.pareto_k(ax, dataclasses.replace(result, khat=khat))
    assert sum(patch.get_height() for patch in ax.patches) == 30


def test_forest(ax: Axes) -> None:
    values = {name: torch.randn(50) + i for i, name in enumerate(("first", "second", "third"))}
    comparison = bounds.compare(values)
    figures.forest(ax, comparison)
    assert [label.get_text() for label in ax.get_yticklabels()] == list(values)
    means = [container.lines[0].get_xdata()[0] for container in ax.containers]
    assert means == [comparison.differences[name].mean for name in ("second", "third")]


def test_forest_of_groups(ax: Axes) -> None:
    """Intervals of the groups with several runs, and a dot for each run."""
    runs = {"first": 3, "second": 2, "third": 1}
    comparison = bounds.compare_groups(
        {name: torch.randn(count, 50) + count for name, count in runs.items()}
    )
    figures.forest_of_groups(ax, comparison)
    assert [label.get_text() for label in ax.get_yticklabels()] == list(runs)
    drawn = {line.get_marker(): [] for line in ax.lines}
    for line in ax.lines:
        drawn[line.get_marker()].append(list(line.get_xdata()))
    first = comparison.bounds["first"].mean
    assert drawn["."] == [
        [mean - first for mean in means] for means in comparison.run_means.values()
    ]
    assert drawn["o"] == [[each.mean] for each in comparison.differences.values()]
    intervals = [x for x in drawn["|"] if len(x) == 2]
    assert intervals == [list(comparison.differences["second"].ci95)]


@pytest.mark.parametrize("shape", [(8, 8), (20,)])
def test_predictive_checks_are_drawn(shape: tuple[int, ...]) -> None:
    axes = Figure().subplots(ncols=3)
    checks = predictive.compare_images(torch.rand(30, *shape), torch.rand(40, *shape))
    figures.predictive_checks(axes, checks)
    names = list(checks.by_statistic)
    assert [ax.get_xlabel() for ax in axes[: len(names)]] == names
    assert [ax.get_visible() for ax in axes] == [i < len(names) for i in range(3)]
    for ax, check in zip(axes, checks.by_statistic.values(), strict=False):
        assert ax.get_title() == f"difference {check.difference:+.3f}, se {check.se:.3f}"


def test_predictive_checks_of_images_that_are_all_alike_are_drawn() -> None:
    axes = Figure().subplots(ncols=3)
    figures.predictive_checks(
        axes, predictive.compare_images(torch.zeros(5, 8, 8), torch.zeros(6, 8, 8))
    )
    assert axes[0].get_title().startswith("difference +0.000")


def test_units_show_what_each_carries(ax: Axes) -> None:
    vae = LinearGaussian(latent_dim=3).vae
    with torch.no_grad():
        vae.posterior.encoder.body[1].weight[1] = 0  # of the first three rows, those of the means
        found = diagnostics.diagnose(vae.model, vae.guide, torch.randn(200, 4).double())
    figures.units(ax, found)
    heights = [bar.get_height() for bar in ax.patches]
    expected = found.kl["z"]
    assert expected is not None and sorted(heights) == pytest.approx(sorted(expected.tolist()))
    assert len(ax.containers) == 2 and len(ax.containers[1]) == 1
    assert "2 of 3 units are active" in ax.get_title()
    # A bar has the index of its unit, which traversals and tables of codes name.
    by_unit = {ax.get_xticklabels()[round(b.get_x() + 0.4)].get_text(): b for b in ax.patches}
    assert {unit: by_unit[unit].get_height() for unit in by_unit} == pytest.approx(
        {str(unit): kl for unit, kl in enumerate(expected.tolist())}
    )
    assert ax.get_xlabel() == "units of z, counted from 0"
    assert ax.get_ylabel() == "KL, nats"


def test_units_show_shares_of_variance_if_a_kl_is_not_known(ax: Axes) -> None:
    found = diagnostics.Diagnosis(
        diagnostics.Information(*torch.ones(5, 4)),
        {"top": torch.tensor([0.2, 0.6]), "z": torch.tensor([0.9, -0.001])},
        {"top": torch.tensor([2.0, 3.0]), "z": None},
    )
    figures.units(ax, found)
    heights = [bar.get_height() for bar in ax.patches]
    assert heights == pytest.approx([0.6, 0.2, 0.9, 0.0])  # all of one kind, the largest first
    assert ax.get_ylabel() == "share of variance"


@pytest.mark.parametrize("shift", [0.0, -100.0])
def test_the_ladder_has_no_texts_upon_each_other(
    linear_gaussian: LinearGaussian, shift: float
) -> None:
    vae, x = linear_gaussian.vae, linear_gaussian.marginal.sample((9,))
    result = bounds.evaluate(vae.model, vae.guide, x, 5000)
    annealed = bounds.anneal(vae.model, vae.guide, x, bounds.Settings(temperatures=20))
    for estimate in (result.elbo, annealed.log_w, *(e.values for e in result.iwae.values())):
        (estimate if isinstance(estimate, torch.Tensor) else estimate.values).add_(shift)
    figure = Figure(figsize=(7.2, 3.2), layout="constrained")
    ax = figure.subplots(ncols=2)[0]
    figures.ladder(ax, result, annealed)
    figure.canvas.draw()
    boxes = [label.get_window_extent() for label in ax.get_xticklabels()]
    assert [label.get_text().split()[0] for label in ax.get_xticklabels()] == [
        *("1", "5", "50", "500", "5000")
    ]
    assert f"{result.iwae[5000].mean:.2f}" in ax.get_xticklabels()[-1].get_text()
    assert all(left.x1 < right.x0 for left, right in itertools.pairwise(boxes))
    legend = ax.get_legend()
    assert legend is not None
    elbo = ax.transData.transform((1, result.elbo.mean))[1]
    assert legend.get_window_extent().y1 < elbo


def test_traversals_move_one_dimension_at_a_time(ax: Axes) -> None:
    vae = make(3, 4)
    with torch.no_grad():
        vae.posterior.encoder.body[-1].weight[:2] = 0  # no dimension moves with x
        vae.posterior.encoder.body[-1].weight[1] = 5.0  # the second one moves
    x = (torch.rand(100, 3, 4) < 0.5).float()
    shown = picture(figures.traversals(ax, vae, x, steps=5))
    assert shown.shape == (3, 5 * 5 - 1)  # one row, of the active dimension
    assert [label.get_text() for label in ax.get_yticklabels()] == ["z[1]"]
    assert ax.get_title().startswith("means of p(x|z), where one unit of z moves")
    images = shown.reshape(3, -1)[:, [c for c in range(24) if c % 5 < 4]].reshape(3, 5, 4)
    assert all(np.abs(np.diff(images, axis=1)).max(axis=(0, 2)) > 0)


def test_a_graphical_model_has_sites_plates_and_arrows_as_pyro_sees_them(ax: Axes) -> None:
    vae = VAE(
        priors.Hierarchical(2),
        likelihoods.Bernoulli(2, [6]),
        posteriors.Hierarchical([6], 2),
    )
    state = torch.get_rng_state()
    relations = figures.relations(vae.model, torch.zeros(3, 6))
    assert torch.equal(state, torch.get_rng_state())
    figures.graphical_model(ax, relations, "model")
    texts = [text.get_text() for text in ax.texts]
    assert {"z_top", "z", "x", "~ Bernoulli", "plate data"} <= set(texts)
    heights = {text.get_text(): text.get_position()[1] for text in ax.texts}
    assert heights["z_top"] > heights["z"] > heights["x"]
    kinds = [type(patch).__name__ for patch in ax.patches]
    assert kinds.count("FancyArrowPatch") == sum(map(len, relations["sample_sample"].values())) == 2
    shaded = [p for p in ax.patches if isinstance(p, Circle) and p.get_facecolor()[0] < 1]
    assert [circle.center[1] for circle in shaded] == [heights["x"]]


def test_hard_examples_are_in_two_rows(ax: Axes) -> None:
    images = torch.rand(6, 3, 4)
    figures.hard_examples(ax, images)
    shown = picture(ax)
    assert shown.shape == (2 * 4 - 1, 3 * 5 - 1)
    np.testing.assert_array_equal(shown[4:7, :4], images[3])
    assert [text.get_text() for text in ax.get_yticklabels()] == [
        "lowest log p(x)",
        "loosest ELBO",
    ]
