"""How images are shown: the right values, with the right probabilities."""

import math
from pathlib import Path

import numpy as np
import pyro.distributions as dist
import pytest
import torch
from matplotlib.figure import Figure
from torch import Tensor

from pyro_vae import InputError, bounds, figures
from pyro_vae.kinds import (
    BaseMeasure,
    Binary,
    Kind,
    Levels,
    Real,
    UnitInterval,
    bits_per_dim,
    random_bits,
)
from pyro_vae.likelihoods import Decoder, Likelihood, Shape
from pyro_vae.networks import MLP
from pyro_vae.programs.compiling import Compiled
from pyro_vae.runs import config
from pyro_vae.runs.run import Run

LEVELS = torch.arange(256, dtype=torch.uint8)


FLOATS = Binary(levels=None)


@pytest.mark.parametrize(
    ("kind", "images"),
    [
        (Binary(), LEVELS),
        (FLOATS, LEVELS.float() / 255),
        *((Binary(levels=n), torch.arange(n, dtype=torch.int32)) for n in (3, 17, 52, 100, 256)),
    ],
)
def test_binarisation_has_the_grey_value_as_its_mean(kind: Binary, images: torch.Tensor) -> None:
    draws = 20_000
    shown = kind.observe(images.expand(draws, len(images)))
    assert shown.dtype == torch.float32 and set(shown.unique().tolist()) == {0.0, 1.0}
    probability = kind.stored_features(images).double()
    error = (probability * (1 - probability) / draws).sqrt()
    assert ((shown.double().mean(0) - probability).abs() <= 4.5 * error).all()


def test_black_and_white_are_certain() -> None:
    for kind in (Binary(), FLOATS, Binary(levels=17), Binary(levels=100)):
        images = torch.tensor([0, kind.largest])
        images = images.float() if kind.levels is None else images.to(torch.uint8)
        shown = kind.observe(images.expand(1_000_000, 2))  # of 16 random bits, 15 such pixels
        assert (shown[:, 0] == 0).all() and (shown[:, 1] == 1).all()


def test_every_value_of_16_bits_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of 65535 values, 257 level are on: a probability of level / 255."""
    values = torch.cat([torch.randperm(2**16) - 2**15, torch.full((4,), -(2**15))]).int()
    high, low = values.chunk(2)
    words = (high << 16 | low & 0xFFFF).view(torch.int64)[None]
    monkeypatch.setattr(random_bits, "_random_words", lambda *args: words)
    for level in (0, 1, 100, 254, 255):
        shown = Binary().observe(torch.full((1, 2**16), level, dtype=torch.uint8))
        assert shown.sum() == 257 * level + (level > 0)  # the spare one is the least


def test_random_words_are_those_of_splitmix64(monkeypatch: pytest.MonkeyPatch) -> None:
    """Against the reference implementation, seeded with 1234567, and by bits of other seeds."""
    seed = 1234567 * pow(0x9E3779B97F4A7C15, -1, 2**64) % 2**64
    with monkeypatch.context() as patched:
        patched.setattr(torch, "randint", lambda *args, **kwargs: torch.tensor([seed - 2**64]))
        words = random_bits._random_words(1, 5, None, torch.device("cpu"))
    assert [word % 2**64 for word in words[0].tolist()] == [
        6457827717110365317,
        3203168211198807973,
        9817491932198370423,
        4593380528125082431,
        16408922859458223821,
    ]
    words = random_bits._random_words(100, 1000, None, torch.device("cpu")).flatten()
    bits = torch.stack([words >> place & 1 for place in range(64)]).double()
    assert ((bits.mean(1) - 0.5).abs() < 4.5 * 0.5 / len(words) ** 0.5).all()
    between = torch.corrcoef(bits) - torch.eye(64)  # 2016 pairs
    assert between.abs().max() < 5.5 / len(words) ** 0.5


@pytest.mark.parametrize("shape", [(100, 784), (7, 5), (3, 4, 9), (0, 4), (6,)])
def test_compiled_binarisation_draws_the_same(shape: tuple[int, ...]) -> None:
    """Where an index overflows, compilers make other words, and write beyond them."""
    images = torch.randint(256, shape, dtype=torch.uint8)
    compiled = Compiled(lambda x: Binary().observe(x))
    for seed in range(3):
        torch.manual_seed(seed)
        found = compiled(images)
        torch.manual_seed(seed)
        assert torch.equal(found, Binary().observe(images))


def test_pixels_are_drawn_apart() -> None:
    """Those of one word of random bits, of neighbouring words, and of one look and the next."""
    rows = 20_000
    images = torch.full((rows, 11), 100, dtype=torch.uint8)  # rows begin anywhere in a word
    shown = torch.cat([Binary().observe(images), Binary().observe(images)], 1).double()
    correlation = shown.T.corrcoef() - torch.eye(22)
    assert correlation.abs().max() < 4.5 * rows**-0.5
    along = torch.stack([shown[:, 10][:-1], shown[:, 0][1:]]).corrcoef()[0, 1]
    assert along.abs() < 4.5 * rows**-0.5


def test_dequantisation_stays_in_the_level() -> None:
    shown = UnitInterval().observe(LEVELS.expand(2000, 256))
    assert shown.dtype == torch.float32 and shown.min() >= 0 and shown.max() <= 1
    inside = shown.double() * 256 - LEVELS.double()  # u, but for rounding in single precision
    assert inside.min() > -1e-4 and inside.max() < 1 + 1e-4
    assert abs(inside.mean() - 0.5) < 4.5 * (1 / 12 / inside.numel()) ** 0.5
    assert abs(inside.var() - 1 / 12) < 0.001


def test_float_images_are_shown_as_they_are_on_the_unit_interval() -> None:
    images = torch.rand(5, 3)
    assert torch.equal(UnitInterval(levels=None).observe(images), images)
    assert torch.equal(FLOATS.stored_features(images), images)
    assert torch.equal(Binary().stored_features(LEVELS), LEVELS / 255)


@pytest.mark.parametrize("kind", [Binary(), UnitInterval()], ids=lambda kind: kind.name)
def test_held_out_images_are_always_shown_alike(kind: Kind) -> None:
    images = torch.randint(256, (50, 4), dtype=torch.uint8)
    first, again, other = (kind.observe_once(images, seed) for seed in (1, 1, 2))
    assert torch.equal(first, again) and not torch.equal(first, other)
    assert not torch.equal(kind.observe(images), kind.observe(images))


@pytest.mark.parametrize("method", ["static", "threshold"])
@pytest.mark.parametrize("dtype", [torch.uint8, torch.float32])
def test_fixed_binarisation(method: str, dtype: torch.dtype) -> None:
    images = LEVELS if dtype == torch.uint8 else LEVELS / 255
    kind = Binary() if dtype == torch.uint8 else FLOATS
    fixed = kind.binarize(images, method, seed=1)
    assert fixed.dtype == dtype
    shown = kind.observe(fixed.expand(100, 256))
    assert (shown == shown[0]).all()  # the noise is gone
    if method == "threshold":
        assert torch.equal(shown[0], (LEVELS >= 128).float())
    else:
        assert torch.equal(fixed, kind.binarize(images, method, seed=1))
        assert not torch.equal(fixed, kind.binarize(images, method, seed=2))
        assert shown[0, :64].sum() < shown[0, -64:].sum()


def test_dynamic_binarisation_leaves_images_alone() -> None:
    assert UnitInterval().binarize(LEVELS, "dynamic", seed=0) is LEVELS
    with pytest.raises(InputError, match="for binary likelihoods"):
        UnitInterval().binarize(LEVELS, "static", seed=0)


def test_levels_are_shown_as_they_are() -> None:
    images = torch.randint(256, (5, 4, 3), dtype=torch.uint8)
    x = Levels().observe(images)
    assert x.dtype == torch.float32 and torch.equal(x, images.float())
    with pytest.raises(
        InputError, match=r"the value 0\.\d+, and levels data are whole numbers from 0 to 255"
    ):
        Levels().check(torch.rand(2, 3) / 2)
    with pytest.raises(
        InputError, match=r"the value 17, and levels data are whole numbers from 0 to 16"
    ):
        Levels(levels=17).check(torch.arange(21))
    with pytest.raises(InputError, match="between 2 and 65,536, but is 1"):
        Levels(levels=1)


def test_dequantised_pixels_are_inside(monkeypatch: pytest.MonkeyPatch) -> None:
    """A uniform draw may be 0 or round up to 1, where densities may be infinite."""
    for level, noise in ((0, 0.0), (255, 1 - 2**-24)):
        monkeypatch.setattr(torch, "rand", lambda *shape, noise=noise, **_: torch.tensor([noise]))
        x = UnitInterval().observe(torch.tensor([level], dtype=torch.uint8))
        assert 0 < x < 1


@pytest.mark.parametrize(
    ("kind", "measure"),
    [
        (Binary(), "binary pixels"),
        (Binary(levels=None), "binary pixels"),
        (Levels(), "256 levels"),
        (Levels(levels=17), "17 levels"),
        (UnitInterval(), "256 levels"),
        (UnitInterval(levels=4096), "4096 levels"),
        (UnitInterval(levels=None), "the unit interval"),
    ],
)
def test_base_measures(kind: Kind, measure: str) -> None:
    assert kind.base_measure().name == measure


@pytest.mark.parametrize("scale", [1e-3, 1e-2, 0.2])
def test_dequantisation_bounds_the_probability_of_levels(scale: float) -> None:
    """A normal density, integrated over each cell, against its dequantised log-density."""
    p = torch.distributions.Normal(torch.tensor(0.4, dtype=torch.float64), scale)
    levels = torch.arange(80.0, 104.0).double()
    exact = (p.cdf((levels + 1) / 256) - p.cdf(levels / 256)).log()
    kept = exact > -25  # where the difference has digits
    u = (torch.arange(4000).double() + 0.5) / 4000
    density = p.log_prob((levels[:, None] + u) / 256).mean(1)
    bound = density + UnitInterval([1]).base_measure().shift
    assert (bound <= exact + 1e-9)[kept].all()
    if scale > 1 / 256:  # a cell is short: the log-density is nearly a line, of slope a per cell
        half = ((0.4 - (levels + 0.5) / 256) / (256 * scale**2) / 2).abs()[kept]
        expected = torch.log(torch.sinh(half) / half)
        torch.testing.assert_close((exact - bound)[kept], expected, atol=0.01, rtol=0)
    ours = bits_per_dim(bound[20].item(), 1)
    assert ours >= bits_per_dim(exact[20].item(), 1)


def test_dequantisation_is_exact_for_a_density_that_is_flat_over_levels() -> None:
    """A uniform density on [0, 1] gives each level a 256th: 8 bits per dimension."""
    log_density = torch.zeros(3)
    levels = log_density + UnitInterval([10]).base_measure().shift
    torch.testing.assert_close(levels, torch.full((3,), -10 * math.log(256)))
    assert bits_per_dim(levels[0].item(), 10) == pytest.approx(8)
    assert Levels([10]).base_measure().shift == 0


@pytest.mark.parametrize("kind", [Binary(), Levels(), UnitInterval()], ids=lambda kind: kind.name)
def test_what_could_have_been_shown(kind: Kind) -> None:
    images = torch.randint(256, (30, 60), dtype=torch.uint8)
    images[:, :20] = torch.where(images[:, :20] > 127, 255, 0).to(torch.uint8)
    x = kind.observe(images)
    found = kind.could_show(x, Binary().stored_features(images))
    assert torch.equal(found, torch.eye(30, dtype=torch.bool))


def test_grey_images_without_black_or_white_are_told_apart() -> None:
    """Of photographs no binary pixel is certain: it takes their probability."""
    images = torch.randint(30, 226, (50, 784), dtype=torch.uint8)
    x = Binary().observe(images)
    found = Binary().could_show(x, Binary().stored_features(images))
    assert torch.equal(found, torch.eye(50, dtype=torch.bool))


@pytest.mark.parametrize("kind", [FLOATS, UnitInterval(levels=None)], ids=lambda kind: kind.name)
def test_floats_beyond_the_unit_interval_are_refused(kind: Kind) -> None:
    kind.check(torch.tensor([[0.0, 1.0]]))
    with pytest.raises(InputError, match=r"the value 1.5, and .* data are numbers from 0 to 1"):
        kind.check(torch.tensor([[0.1, 1.5]]))
    with pytest.raises(InputError, match=r"the value -0\.1"):
        kind.check(torch.tensor([[-0.1, 1]]))


class Angles(Kind):
    """Angles in [-pi, pi): a kind whose values are no intensities."""

    name = "angles"

    def check(self, stored: Tensor) -> None:
        if stored.dtype == torch.uint8 or stored.abs().max() > math.pi:
            raise InputError("angles are floats in [-pi, pi)", "data")

    def observe(self, stored: Tensor, generator: torch.Generator | None = None) -> Tensor:
        return stored.float()

    def base_measure(self) -> BaseMeasure:
        return BaseMeasure("angles in radians", counts=False)

    def intensities(self, x: Tensor) -> Tensor:
        return (x + math.pi) / (2 * math.pi)

    def could_show(self, x: Tensor, features: Tensor) -> Tensor:
        return torch.cdist(x.flatten(1), features.flatten(1), p=math.inf) < 1e-6


class VonMises(Likelihood):
    """Von Mises angles around the decoder's, with one learned concentration."""

    kinds = (Angles,)

    def __init__(self, latent_dim: int, x: Kind | Shape, decoder: Decoder = MLP) -> None:
        super().__init__(latent_dim, x, decoder)
        self.log_concentration = torch.nn.Parameter(torch.zeros(()))

    def forward(self, z: Tensor) -> dist.Distribution:
        return self.independent(dist.VonMises(self.decoder(z), self.log_concentration.exp()))

    def initialize(self, images: Tensor) -> None:
        self.decoder_bias[0] = torch.atan2(images.sin().mean(0), images.cos().mean(0))


def test_a_kind_of_ones_own_trains_is_evaluated_and_drawn(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Angles near -pi and pi in a file, by the command line: nothing takes them for pixels."""
    angles = (math.pi + 0.3 * torch.randn(300, 1) + 0.2 * torch.randn(300, 5)).numpy()
    angles = np.angle(np.exp(1j * angles)).astype(np.float32)
    np.save(tmp_path / "angles.npy", angles)
    monkeypatch.chdir(tmp_path)

    def run(*arguments: str) -> Run:
        given = ["--data", "angles.npy", "--likelihood", "test_kinds.VonMises", *arguments]
        parsed = config.parse([*given, "--latent_dim", "2", "--batch_size", "50"])
        return Run.build(tmp_path / "run", parsed)

    exemplars = ["--prior", "Exemplar", "--prior.components", "20"]
    ours = run(*exemplars, "--objective.warmup_share", "0")
    assert ours.vae.prior.exemplars.min() < -1  # training examples, unchanged
    expected = torch.from_numpy(angles)
    centre = ours.vae.likelihood.decoder_bias[0]
    assert (centre.abs() - math.pi).abs().max() < 0.1
    before = ours.engine.evaluate_loss(ours.validation)
    for _ in range(200):
        ours.engine.step(ours.train)
    assert ours.engine.evaluate_loss(ours.validation) < before
    ours.vae.eval()
    found = bounds.evaluate(ours.vae.model, ours.vae.guide, ours.test, 200)
    assert found.elbo.values.isfinite().all() and ours.base_measure.name == "angles in radians"
    assert torch.isin(ours.measured, expected).all()
    picture = ours.vae.likelihood.picture(torch.zeros(4, 2))
    assert picture.shape == (4, 5) and picture.min() >= 0 and picture.max() <= 1
    assert ((picture < 0.15) | (picture > 0.85)).all()  # black and white are neighbours here
    image = figures.reconstructions(Figure().subplots(), ours.vae, ours.test[:6]).images[0]
    assert 0 <= image.get_array().min() and image.get_array().max() <= 1
    with pytest.raises(InputError, match=r"Vamp prior .* features of the data are from -3.* to 3"):
        run("--prior", "Vamp")
    with pytest.raises(InputError, match="angles are floats") as caught:
        np.save(tmp_path / "angles.npy", 2 * angles)
        run()
    assert caught.value.parameter == "data"
    with pytest.raises(InputError, match="of the kind angles"):
        Angles().binarize(expected, "static", seed=0)


def test_moments_leave_missing_values_out() -> None:
    torch.manual_seed(0)
    stored = 5 + 3 * torch.randn(9000, 3, dtype=torch.float64)  # of more than two chunks
    stored[torch.rand(stored.shape) < torch.tensor([0.0, 0.3, 0.9])] = torch.nan
    kind = Real([3]).fitted(stored)
    values = stored.numpy()
    assert kind.loc.numpy() == pytest.approx(np.nanmean(values, 0), rel=1e-6)
    assert kind.scale.numpy() == pytest.approx(np.nanstd(values, 0, ddof=1), rel=1e-6)
    stored[:, 1] = torch.nan
    with pytest.raises(InputError, match="column 1 has no value in the training examples"):
        Real([3]).fitted(stored)
