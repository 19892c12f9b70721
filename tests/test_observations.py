"""How images are shown: the right values, with the right probabilities."""

import pytest
import torch

from pyro_vae import InputError
from pyro_vae.observations import binarize, intensities, observe, observe_once

LEVELS = torch.arange(256, dtype=torch.uint8)


@pytest.mark.parametrize("images", [LEVELS, LEVELS.float() / 255], ids=["uint8", "float"])
def test_binarisation_has_the_grey_value_as_its_mean(images: torch.Tensor) -> None:
    draws = 20_000
    shown = observe(images.expand(draws, 256), "binary")
    assert shown.dtype == torch.float32 and set(shown.unique().tolist()) == {0.0, 1.0}
    probability = LEVELS.double() / 255
    error = (probability * (1 - probability) / draws).sqrt()
    assert ((shown.double().mean(0) - probability).abs() <= 4.5 * error).all()


def test_black_and_white_are_certain() -> None:
    for images in (torch.tensor([0, 255], dtype=torch.uint8), torch.tensor([0.0, 1.0])):
        shown = observe(images.expand(10_000, 2), "binary")
        assert (shown[:, 0] == 0).all() and (shown[:, 1] == 1).all()


def test_dequantisation_stays_in_the_level() -> None:
    shown = observe(LEVELS.expand(2000, 256), "unit_interval")
    assert shown.dtype == torch.float32 and shown.min() >= 0 and shown.max() <= 1
    inside = shown.double() * 256 - LEVELS.double()  # u, but for rounding in single precision
    assert inside.min() > -1e-4 and inside.max() < 1 + 1e-4
    assert abs(inside.mean() - 0.5) < 4.5 * (1 / 12 / inside.numel()) ** 0.5
    assert abs(inside.var() - 1 / 12) < 0.001


def test_float_images_are_shown_as_they_are_on_the_unit_interval() -> None:
    images = torch.rand(5, 3)
    assert torch.equal(observe(images, "unit_interval"), images)
    assert torch.equal(intensities(images), images)
    assert torch.equal(intensities(LEVELS), LEVELS / 255)


@pytest.mark.parametrize("support", ["binary", "unit_interval"])
def test_held_out_images_are_always_shown_alike(support: str) -> None:
    images = torch.randint(256, (50, 4), dtype=torch.uint8)
    first, again, other = (observe_once(images, support, seed) for seed in (1, 1, 2))
    assert torch.equal(first, again) and not torch.equal(first, other)
    assert not torch.equal(observe(images, support), observe(images, support))


@pytest.mark.parametrize("method", ["static", "threshold"])
@pytest.mark.parametrize("dtype", [torch.uint8, torch.float32])
def test_fixed_binarisation(method: str, dtype: torch.dtype) -> None:
    images = LEVELS if dtype == torch.uint8 else LEVELS / 255
    fixed = binarize(images, method, "binary", seed=1)
    assert fixed.dtype == dtype
    shown = observe(fixed.expand(100, 256), "binary")
    assert (shown == shown[0]).all()  # the noise is gone
    if method == "threshold":
        assert torch.equal(shown[0], (LEVELS >= 128).float())
    else:
        assert torch.equal(fixed, binarize(images, method, "binary", seed=1))
        assert not torch.equal(fixed, binarize(images, method, "binary", seed=2))
        assert shown[0, :64].sum() < shown[0, -64:].sum()


def test_unknown_supports_are_refused() -> None:
    with pytest.raises(InputError, match="one of binary, unit_interval, and not real"):
        observe(LEVELS, "real")


def test_dynamic_binarisation_leaves_images_alone() -> None:
    assert binarize(LEVELS, "dynamic", "unit_interval", seed=0) is LEVELS
    with pytest.raises(InputError, match="for binary likelihoods"):
        binarize(LEVELS, "static", "unit_interval", seed=0)
