"""Statistics of images whose values are known, and checks that tell models apart."""

import numpy as np
import pytest
import torch

from pyro_vae.diagnostics import predictive


def test_statistics() -> None:
    images = torch.zeros(3, 5, 4)
    images[1, 0, 0] = 0.4  # seen, but no stroke
    images[2, 0, :2] = 1  # two in the corner, one at their corner, one on its own
    images[2, 1, 2] = 1
    images[2, 4, 0] = 0.8
    found = predictive.statistics(images)
    np.testing.assert_allclose(found["mean intensity"], [0, 0.4 / 20, 3.8 / 20], rtol=1e-6)
    np.testing.assert_allclose(found["stroke mass"], [0, 0, 4 / 20])
    np.testing.assert_allclose(found["components"], [0, 0, 2])
    colour = images[:, None].expand(-1, 3, -1, -1)
    for name, values in predictive.statistics(colour).items():
        np.testing.assert_allclose(values, found[name], rtol=1e-6)
    assert set(predictive.statistics(images.flatten(1))) == {"mean intensity", "stroke mass"}


def test_a_check_tells_what_is_wrong() -> None:
    """Pixels on at random have the data's mean, and not its strokes."""
    strokes = torch.zeros(300, 8, 8)
    for image, row in zip(strokes, torch.randint(8, (300,)), strict=True):
        image[row] = 1
    scattered = (torch.rand(300, 8, 8) < 1 / 8).float()
    found = predictive.check(strokes, scattered)
    mean, components = found["mean intensity"], found["components"]
    assert abs(mean.difference) < 4.5 * mean.se
    assert components.difference > 10 * components.se and components.p_value < 1e-6
    assert components.se == pytest.approx(
        (components.data.var(ddof=1) / 300 + components.model.var(ddof=1) / 300) ** 0.5
    )
    assert f"{components.difference:+.4f}" in predictive.report(found)


def test_p_values_are_uniform_where_there_is_nothing_wrong() -> None:
    p = np.array(
        [
            predictive.check(torch.rand(50, 9), torch.rand(60, 9))["mean intensity"].p_value
            for _ in range(300)
        ]
    )
    for level in (0.1, 0.5, 0.9):
        error = (level * (1 - level) / 300) ** 0.5
        # The statistic has steps, for 50 and 60 values, and the p-value with it.
        assert abs((p <= level).mean() - level) < 4.5 * error
