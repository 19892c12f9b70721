"""Figures show the numbers that they are given, for images and for vectors."""

from collections.abc import Iterator

import numpy as np
import pytest
import torch
from conftest import LinearGaussian
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from pyro_vae import VAE, bounds, figures, likelihoods, posteriors, priors


@pytest.fixture
def ax() -> Iterator[Axes]:
    figure = Figure(layout="constrained")
    yield figure.subplots()
    figure.canvas.draw()  # whatever is wrong with labels and layout shows here


def make(*event_shape: int) -> VAE:
    return VAE(
        priors.StandardNormal(2),
        likelihoods.Bernoulli(2, event_shape),
        posteriors.Normal(event_shape, 2),
    )


def picture(ax: Axes) -> np.ndarray:
    return ax.images[0].get_array().filled(np.nan)


def test_grid_has_every_image_in_its_place(ax: Axes) -> None:
    images = torch.rand(5, 3, 4)
    shown = picture(figures.image_grid(ax, images, columns=2))
    assert shown.shape == (3 * 4 - 1, 2 * 5 - 1)
    for i, image in enumerate(images):
        top, left = i // 2 * 4, i % 2 * 5
        np.testing.assert_array_equal(shown[top : top + 3, left : left + 4], image)
    assert np.isnan(shown[3]).all() and np.isnan(shown[8:, 5:]).all()


def test_vectors_are_rows(ax: Axes) -> None:
    vectors = torch.rand(5, 7)
    np.testing.assert_array_equal(picture(figures.image_grid(ax, vectors, columns=2)), vectors)


@pytest.mark.parametrize("event_shape", [(3, 4), (6,)])
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


def test_interpolation_starts_and_ends_at_the_images_codes(ax: Axes) -> None:
    vae, x = make(3, 4), torch.rand(2, 3, 4).round()
    shown = picture(figures.interpolation(ax, vae, x[:1], x[1:], steps=5))
    with torch.no_grad():
        ends = vae.likelihood(vae.posterior(x).mean).mean
    np.testing.assert_allclose(shown[:, :4], ends[0], rtol=1e-5)
    np.testing.assert_allclose(shown[:, -4:], ends[1], rtol=1e-5)


def test_manifold_is_laid_out_as_axes_are(ax: Axes) -> None:
    """z_1 grows to the right, z_2 upwards."""
    vae = make(1, 1)
    with torch.no_grad():
        shown = picture(figures.manifold(ax, vae, side=4))
        corner = vae.likelihood(torch.tensor([-1.1503, 1.1503])).mean  # the normal's 1/8 quantile
    np.testing.assert_allclose(shown[0, 0], corner.item(), rtol=1e-3)
    assert ax.get_xticklabels()[0].get_text() == "-1.2"
    assert ax.get_yticklabels()[0].get_text() == "1.2"


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


def test_bounds_are_drawn_where_they_are(ax: Axes, linear_gaussian: LinearGaussian) -> None:
    vae = linear_gaussian.vae
    result = bounds.evaluate(vae.model, vae.guide, linear_gaussian.marginal.sample((9,)), 50)
    figures.bounds_against_samples(ax, result)
    points = ax.containers[0].lines[0].get_xydata()
    np.testing.assert_allclose(points[:, 0], [1, 5, 50])
    np.testing.assert_allclose(points[:, 1], [result.iwae[k].mean for k in (1, 5, 50)])
    assert f"{result.gap.mean:.2f}" in ax.get_title()
