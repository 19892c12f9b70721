"""A few steps of stochastic variational inference."""

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from pyro_vae.objectives import ELBO
from pyro_vae.testing.subject import Subject
from pyro_vae.training import Adam, CompiledEngine, EagerEngine
from pyro_vae.vae import VAE


def binary_images(event_shape: Sequence[int]) -> Tensor:
    """Draw 30 images of binary pixels, none of them all black."""
    images = (torch.rand(30, *event_shape) < torch.rand(*event_shape)).float()
    images.flatten(1)[:, 0] = 1
    return images


def check_training(
    subject: Subject,
    build: Callable[[], VAE],
    part: Callable[[VAE], nn.Module],
    x: Tensor,
    compile: bool,
) -> None:
    """Check that steps of SVI lower the loss of a batch, and move every parameter of the part.

    Args:
        subject: the part under test.
        build: a function that makes a VAE around the part, the same at each call.
        part: a function that returns the part of a VAE.
        x: the batch, as the likelihood sees it.
        compile: whether to compare a compiled step with an eager one.
    """
    vae = build()
    engine = EagerEngine(vae.model, vae.guide, ELBO(), lr=5e-3)
    before = {name: p.detach().clone() for name, p in part(vae).named_parameters()}
    losses = []
    for _ in range(11):
        torch.manual_seed(1)
        losses.append(engine.step(x))
    subject.require(
        all(map(math.isfinite, losses)), "in SVI steps the loss is not always a finite number"
    )
    subject.require(
        losses[-1] < losses[0],
        f"ten SVI steps on one batch, with the same noise, do not lower the loss: it goes from "
        f"{losses[0]:.5g} to {losses[-1]:.5g}",
    )
    for name, parameter in part(vae).named_parameters():
        subject.require(parameter.isfinite().all(), f"SVI steps make '{name}' infinite or nan")
        moved = not torch.equal(parameter.detach(), before[name])
        subject.require(
            moved or not parameter.requires_grad, f"SVI steps do not move the parameter '{name}'"
        )
    loss = engine.evaluate_loss(x)
    subject.require(math.isfinite(loss), "in evaluation mode the loss is not a finite number")
    if compile:
        _check_compiled(subject, build, x)


def _check_compiled(subject: Subject, build: Callable[[], VAE], x: Tensor) -> None:
    results = []
    for make_engine in (EagerEngine, CompiledEngine):
        vae = build()
        # By default Adam takes whole steps even for gradients that are only rounding errors.
        optimizer = Adam(eps=1e-3)
        engine = make_engine(vae.model, vae.guide, ELBO(), lr=2e-3, optimizer=optimizer)
        engine.check(x[:2])
        torch.manual_seed(1)
        loss = engine.step(x)
        results.append([torch.tensor(loss), *vae.parameters(), *vae.buffers()])
    for eager, compiled in zip(*results, strict=True):
        subject.require(
            torch.allclose(eager.detach(), compiled.detach(), rtol=1e-5, atol=1e-5),
            "a compiled SVI step does not give the same loss and parameters as an eager one",
        )
