"""What cannot fit into memory is refused, before the memory is taken."""

import gc
import math
import resource
import weakref
from pathlib import Path
from typing import Any

import pytest
import torch

from pyro_vae import VAE, InputError, likelihoods, objectives, posteriors, priors, training
from pyro_vae.data import free_memory as of_data
from pyro_vae.runs import config, memory
from pyro_vae.runs.run import Run

TOO_LARGE = {  # options, with what the message says
    "latent_dim": (["--latent_dim=1000000000"], r"8\.\d TiB .*latent_dim.*\[2000000000, 200\]"),
    "latent_dim of 20 digits": (["--latent_dim=12345678901234567890"], "at most 9"),
    "no such tensor": (
        ["--posterior.encoder.widths=[12345678901234567890]"],
        r"no tensor .*1\.2e\+19",
    ),
    "components": (["--prior=Vamp", "--prior.components=10000000"], r"9\.6 GiB .* 8\.0 GiB are"),
    "widths": (["--likelihood.decoder.widths=[1000000,1000000]"], r"14\.6 TiB"),
    "layers": (["--likelihood=PixelCNN", "--likelihood.layers=1000000"], "more than 5000 tensors"),
    "flows": (["--posterior=IAF", "--posterior.layers=100000"], "more than 5000 tensors"),
    "blocks": (
        ["--posterior.encoder=ResidualEncoder", "--posterior.encoder.blocks=1000000"],
        "more than 5000 tensors",
    ),
    "particles": (
        ["--objective=IWAE", "--objective.num_particles=1000000"],
        r"100 examples, 1000000 draws .* at least 26\.8 GiB .*fewer draws",
    ),
    "fewer particles": (
        ["--objective=IWAE", "--objective.num_particles=50000"],
        r"50000 draws .* 1\d\.\d GiB .*batch_size",
    ),
    "groups": (["--objective=MIWAE", "--objective.groups=1000000"], "5000000 draws"),
    "lr": (["--lr=1e300"], r"lr has to be at most 1000000, but is 1e\+300"),
    "a picture": (["--image_size=1000000"], "image_size has to be at most 10000"),
    "epochs": (["--epochs=12345678901234567890"], "epochs has to be at most"),
}


def peak_memory() -> int:
    """Return the most memory that this process has had, in bytes."""
    return 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


@pytest.mark.parametrize("name", TOO_LARGE)
def test_what_cannot_fit_is_refused(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(memory, "free_memory", lambda *_: 8.0 * 2**30)
    options, said = TOO_LARGE[name]
    before = peak_memory()
    with pytest.raises(InputError, match=said) as error:
        Run.build(tmp_path / "run", config.parse(options))
    assert "\n" not in str(error.value)
    assert peak_memory() - before < 2**31  # 50,000 draws for two examples take one
    assert not (tmp_path / "run").exists()


def make() -> VAE:
    """Return a VAE; more tensors are made than those that it keeps."""
    return VAE(priors.Flow(4), likelihoods.Bernoulli(4, [3, 3]), posteriors.Normal([3, 3], 4))


def test_a_model_that_fits_narrowly_is_made_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """More tensors are made than parameters, so the first time does not say whether it fits."""
    torch.manual_seed(1)
    vae = make()
    size = sum(each.nbytes for each in [*vae.parameters()])
    need = memory.COPIES * size + sum(each.nbytes for each in [*vae.buffers()])
    torch.manual_seed(1)
    calls = []
    monkeypatch.setattr(memory, "free_memory", lambda *_: float(need))
    again = memory.make_within_memory(lambda: calls.append(1) or make(), trained=True)
    assert len(calls) == 2
    for one, other in zip(vae.parameters(), again.parameters(), strict=True):
        assert one.equal(other)
    monkeypatch.setattr(memory, "free_memory", lambda *_: need - 1.0)
    with pytest.raises(InputError, match="largest parameter, "):
        memory.make_within_memory(make, trained=True)
    memory.make_within_memory(make, trained=False)  # needs a quarter


@pytest.mark.parametrize("objective", [objectives.ELBO(), objectives.IWAE(5)])
def test_the_memory_of_a_step_is_that_of_its_batch(
    objective: objectives.Objective, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What two examples need tells what a thousand need, without pseudo-inputs, which are fixed."""
    vae = VAE(
        priors.Vamp(4, components=300),
        likelihoods.Bernoulli(4, [6, 6]),
        posteriors.FullNormal([6, 6], 4),
    )
    x = torch.rand(1000, 6, 6).round()
    engine = training.EagerEngine(vae.model, vae.guide, objective)
    engine.check(x)  # the first time it needs more
    with memory._saved_tensors(list(vae.parameters())) as real:
        engine.check(x)
    asked = (x, vae, 1000, objective.num_draws)
    monkeypatch.setattr(memory, "free_memory", lambda *_: 1.05 * real.most)
    memory.check_step(engine.check, *asked, fused=False)
    monkeypatch.setattr(memory, "free_memory", lambda *_: 0.95 * real.most)
    with pytest.raises(InputError, match="a step on 1000 examples"):
        memory.check_step(engine.check, *asked, fused=False)
    memory.check_step(engine.check, *asked, fused=True)
    assert not real.kept and not real.now  # all of it was released


def test_what_a_check_leaves_behind_is_freed_before_the_next(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Cycles of references live until the garbage is collected, and memory is scarce."""
    vae = VAE(priors.StandardNormal(2), likelihoods.Bernoulli(2, [6]), posteriors.Normal([6], 2))
    weight = torch.ones(6, requires_grad=True)
    left: list[weakref.ref[Any]] = []

    class Cycle:
        def __init__(self, x: torch.Tensor) -> None:
            self.me, self.kept = self, (x * weight).exp()

    def check(x: torch.Tensor) -> None:
        assert all(each() is None for each in left)
        left.append(weakref.ref(Cycle(x)))

    monkeypatch.setattr(memory, "free_memory", lambda *_: 4e4)
    gc.disable()  # or it would be collected by chance
    try:
        with pytest.raises(InputError, match="a step on 1000 examples"):
            memory.check_step(check, torch.rand(9, 6), vae, 1000, 1, fused=False)
    finally:
        gc.enable()
    assert len(left) == 3 and all(each() is None for each in left)


def test_free_memory() -> None:
    there = of_data.free_memory()
    assert 2**25 < there < 2**50
    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    before = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (used + 2**28, before[1]))
    try:
        assert of_data.free_memory() <= 2**28
        with pytest.raises(InputError, match=r"^x holds 2\.0 GiB of numbers, and 0\.\d GiB"):
            of_data.check_fits("x holds", 2**31)
    finally:
        resource.setrlimit(resource.RLIMIT_AS, before)


@pytest.mark.parametrize(
    ("size", "words"),
    [(2**30, "1.0 GiB"), (2**41, "2.0 TiB"), (2**20, "0.001 GiB"), (1e30, "8.7e+11 EiB")],
)
def test_bytes_in_words(size: float, words: str) -> None:
    assert of_data.in_words(size) == words
    assert math.isfinite(size)
