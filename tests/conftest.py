"""What all tests share: a clean Pyro, a fixed seed, and two models whose log p(x) is known."""

import math
import os
import signal
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pyro
import pytest
import torch
from torch import Tensor
from traced import Traced

from pyro_vae import VAE, likelihoods, networks, objectives, posteriors, priors, training
from pyro_vae.programs import compiling
from pyro_vae.runs import draw_figure
from pyro_vae.testing import LinearGaussian, integration

# Tests run side by side, and their tensors are small: one thread each, in their processes, too.
os.environ.setdefault("OMP_NUM_THREADS", "1")
torch.set_num_threads(1)
ROOT = Path(__file__).parent.parent
FULL_STYLE = dict(draw_figure.STYLE)
# Margins that fit take two more drawings of each figure: half of the time of a small run.
draw_figure.STYLE.update(
    {"figure.constrained_layout.use": False, "savefig.bbox": None, "savefig.dpi": 40}
)


@pytest.fixture(autouse=True)
def _fresh() -> Iterator[None]:
    pyro.clear_param_store()
    torch.manual_seed(0)
    yield


@pytest.fixture(scope="module")
def full_style() -> Iterator[None]:
    """Draw figures as users see them."""
    quick = dict(draw_figure.STYLE)
    draw_figure.STYLE.update(FULL_STYLE)
    yield
    draw_figure.STYLE.update(quick)


@pytest.fixture
def traced(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let graphs run without being compiled, in training and evaluation."""
    monkeypatch.setattr(training.compiled_engine, "Graph", Traced)
    monkeypatch.setattr(compiling, "Graph", Traced)


@pytest.fixture
def linear_gaussian() -> LinearGaussian:
    return LinearGaussian()


@pytest.fixture(scope="session")
def nonlinear() -> VAE:
    """A VAE with two latent dimensions and 12 binary pixels, bent decoder, guide fitted by SVI."""
    torch.manual_seed(3)
    small = partial(networks.MLP, widths=[16], activation="Tanh")
    vae = VAE(
        priors.StandardNormal(2),
        likelihoods.Bernoulli(2, [3, 4], small),
        posteriors.Normal([3, 4], 2, small),
    )
    with torch.no_grad():
        for layer in (1, 3):
            vae.likelihood.decoder.body[layer].weight.normal_(std=1.0 / math.sqrt(layer))
    vae.likelihood.requires_grad_(False)
    # IWAE makes the guide broad enough for its weights to have a variance; the ELBO does not.
    engine = training.EagerEngine(vae.model, vae.guide, objectives.IWAE(10), lr=1e-2)
    for _ in range(500):
        engine.step(vae.model(size=200))
    return vae


def grid(dims: int = 2) -> tuple[Tensor, Tensor]:
    """Points z of R^dims, and log-weights with which sums over them are integrals."""
    return integration.grid(dims)[:2]


def codes(support: str | None) -> tuple[Tensor, Tensor]:
    """The same for any support of two dimensions; of four, two variables, for one-hot codes."""
    return integration.codes(support, 4 if support == "categorical" else 2, categories=2)[:2]


@pytest.fixture(scope="session", autouse=True)
def interruptible() -> None:
    """Let Ctrl-C be tested where a shell has turned it off, as for jobs in the background."""
    if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
