"""Statistics of images whose values are known, and checks that tell models apart."""

import json

import numpy as np
import pytest
import torch

from pyro_vae.diagnostics import predictive


def test_statistics() -> None:
    images = torch.zeros(3, 5, 4)
    images[1, 0, 0] = 0.4  # below one half: no stroke
    images[2, 0, :2] = 1  # two in the corner, one that touches their corner, and one alone
    images[2, 1, 2] = 1
    images[2, 4, 0] = 0.8
    statistics = predictive.statistics(images)
    np.testing.assert_allclose(statistics["mean intensity"], [0, 0.4 / 20, 3.8 / 20], rtol=1e-6)
    np.testing.assert_allclose(statistics["stroke mass"], [0, 0, 4 / 20])
    np.testing.assert_allclose(statistics["components"], [0, 0, 2])
    colour = images[:, None].expand(-1, 3, -1, -1)
    for name, values in predictive.statistics(colour).items():
        np.testing.assert_allclose(values, statistics[name], rtol=1e-6)
    assert set(predictive.statistics(images.flatten(1))) == {"mean intensity", "stroke mass"}


def test_checks_tell_what_is_wrong() -> None:
    """Pixels that are on at random have the data's mean, but not its strokes."""
    strokes = torch.zeros(300, 8, 8)
    for image, row in zip(strokes, torch.randint(8, (300,)), strict=True):
        image[row] = 1
    scattered = (torch.rand(300, 8, 8) < 1 / 8).float()
    checks = predictive.compare_images(strokes, scattered)
    mean, components = checks.by_statistic["mean intensity"], checks.by_statistic["components"]
    assert abs(mean.difference) < 4.5 * mean.se
    assert components.difference > 10 * components.se and components.p_value < 1e-6
    assert components.se == pytest.approx(
        (components.data.var(ddof=1) / 300 + components.model.var(ddof=1) / 300) ** 0.5
    )
    assert f"{components.difference:+.3g}" in str(checks)
    assert str(checks).count("\n") == len(checks.by_statistic)
    written = json.loads(json.dumps(checks.to_dict(), allow_nan=False))
    assert list(written) == list(checks.by_statistic)
    assert written["components"] == {
        "difference": components.difference,
        "se": components.se,
        "p_value": components.p_value,
    }


def test_p_values_are_uniform_where_nothing_is_wrong() -> None:
    p = np.array(
        [
            predictive.compare_images(torch.rand(50, 9), torch.rand(60, 9))
            .by_statistic["mean intensity"]
            .p_value
            for _ in range(300)
        ]
    )
    for level in (0.1, 0.5, 0.9):
        error = (level * (1 - level) / 300) ** 0.5
        # For 50 and 60 values the statistic takes few distinct values, and so does the p-value.
        assert abs((p <= level).mean() - level) < 4.5 * error
