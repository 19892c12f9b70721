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
    assert str(checks).partition("\n\n")[0].count("\n") == len(checks.by_statistic)
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


def test_binary_images_have_no_stroke_mass_beside_their_mean() -> None:
    generator = np.random.default_rng(0)
    grey = torch.from_numpy(generator.uniform(size=(20, 4, 5)))
    names = {
        name: list(predictive.compare_images(images, images).by_statistic)
        for name, images in (("grey", grey), ("binary", grey.round()))
    }
    assert names["grey"] == ["mean intensity", "stroke mass", "components"]
    assert names["binary"] == ["mean intensity", "components"]
    mixed = predictive.compare_images(grey.round(), grey)
    assert [*mixed.by_statistic] == names["grey"]


def test_checks_say_which_statistics_the_model_does_not_reproduce() -> None:
    data = np.linspace(0, 1, 400)
    same, other = (predictive.PredictiveCheck(data, data + shift) for shift in (0.0, 0.5))
    text = str(predictive.PredictiveChecks({"same": same, "other": other}))
    assert "The model does not reproduce the distribution of other (p below 0.005)." in text
    assert " < 0.0001\n" in text and "e-" not in text
    assert "does not reproduce" not in str(predictive.PredictiveChecks({"same": same}))
    many = {f"c{i}": other for i in range(10)}
    assert "c7 and 2 more (p" in str(predictive.PredictiveChecks(many))
