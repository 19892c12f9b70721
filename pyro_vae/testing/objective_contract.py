"""The contract of every objective."""

import math
from collections.abc import Callable

import pyro
import torch
from torch import Tensor

from pyro_vae.objectives import Objective
from pyro_vae.testing.linear_gaussian import LinearGaussian
from pyro_vae.testing.subject import Subject, isolated
from pyro_vae.training import EagerEngine


def check_objective(
    make: Callable[[], Objective],
    *,
    bound: bool = True,
    gain: float = 0.5,
    gap: float = 1.0,
    steps: int = 40,
    seed: int = 0,
) -> None:
    """Check that an objective keeps the contract of `pyro_vae.objectives.Objective`.

    All models here are linear and Gaussian, so that log p(x) is known. `loss` is finite, leaves no
    gradients, and its negative is at most log p(x), within 4.5 standard errors, for a guide that is
    the exact posterior and for one that is not; `loss_and_grads` leaves finite gradients in model
    and guide; after some steps, the objective's state, loaded into another one, gives the same loss
    and the same gradients; `pyro.infer.SVI` moves both programs; and training raises log p(x) and
    the bound.

    Args:
        make: the class, or a callable without arguments.
        bound: whether `loss` is the negative of a lower bound; False for objectives
            whose `bound` is not a lower bound. Then `loss` is not compared with log p(x).
        gain: the share of the attainable rise of log p(x) that the steps have to reach.
        gap: the nats per example that the bound may be below log p(x) after the steps.
        steps: the number of training steps.
        seed: the seed of all noise.

    Raises:
        AssertionError: with a sentence on what is wrong.

    Examples:
        >>> from functools import partial
        >>> from pyro_vae.objectives import IWAE
        >>> from pyro_vae.testing import check_objective
        >>> check_objective(partial(IWAE, num_particles=3))
    """
    subject = Subject(make)
    with isolated(seed):
        with subject.during("building the objective"):
            objective = make()
        subject.require(
            isinstance(objective, Objective),
            "it is not a subclass of pyro_vae.objectives.Objective",
        )
        for latent_dim, misfit, draws in ((1, 1.0, 2), (2, 1.3, 20)):
            exact = LinearGaussian(latent_dim, misfit=misfit)
            x = exact.marginal.sample((20,))
            with subject.during("loss"):
                _check_loss(subject, make(), exact, x, draws, bound)
            with subject.during("loss_and_grads"):
                _check_gradients(subject, make(), exact, x)
        with subject.during("state_dict or load_state_dict"):
            _check_state(subject, make, x, seed)
        with subject.during("a step of pyro.infer.SVI"):
            _check_svi(subject, make(), x, seed)
        with subject.during("training"):
            _check_training(subject, make(), seed, steps, gain, gap)


def _check_loss(
    subject: Subject,
    objective: Objective,
    exact: LinearGaussian,
    x: Tensor,
    draws: int,
    bound: bool,
) -> None:
    vae, x = exact.vae, x.repeat(10, 1)
    losses = [objective.loss(vae.model, vae.guide, x) for _ in range(draws)]
    subject.require(
        all(isinstance(loss, float) and math.isfinite(loss) for loss in losses),
        "`loss` does not return a finite float",
    )
    subject.require(
        all(parameter.grad is None for parameter in vae.parameters()),
        "`loss` leaves gradients in the parameters",
    )
    if bound:
        bounds = torch.tensor(losses).double() / -len(x)
        error = bounds.std().item() / draws**0.5
        truth = exact.marginal.log_prob(x).mean().item()
        subject.require(
            bounds.mean().item() <= truth + 4.5 * error + 1e-5,
            f"the negative of `loss` is {bounds.mean().item():.5g} per example (standard error "
            f"{error:.2g}), above log p(x), which is {truth:.5g}: it is not a lower bound",
        )


def _check_gradients(
    subject: Subject, objective: Objective, exact: LinearGaussian, x: Tensor
) -> None:
    vae = exact.vae
    vae.zero_grad()
    loss = objective.loss_and_grads(vae.model, vae.guide, x)
    subject.require(math.isfinite(loss), "`loss_and_grads` does not return a finite number")
    for program in ("model", "guide"):
        parameters = [p for p in getattr(vae, program).parameters() if p.requires_grad]
        gradients = [p.grad for p in parameters if p.grad is not None]
        subject.require(
            any(gradient.abs().sum() > 0 for gradient in gradients),
            f"`loss_and_grads` leaves no gradients in the {program}",
        )
        subject.require(
            all(gradient.isfinite().all() for gradient in gradients),
            f"`loss_and_grads` leaves gradients that are not finite in the {program}",
        )
    vae.zero_grad()


def _check_state(subject: Subject, make: Callable[[], Objective], x: Tensor, seed: int) -> None:
    """Check that an objective which has taken steps and its copy do the same."""
    torch.manual_seed(seed)
    vae = LinearGaussian().vae
    objective, other = make(), make()
    for _ in range(5):
        objective.loss_and_grads(vae.model, vae.guide, x)
    for each in (objective, other):
        each.anneal(0.5)
        each.loss(vae.model, vae.guide, x)  # an objective looks at the programs once
    other.load_state_dict(objective.state_dict())
    results = []
    for each in (objective, other):
        vae.zero_grad()
        torch.manual_seed(seed)
        loss = each.loss_and_grads(vae.model, vae.guide, x)
        gradients = [p.grad.flatten() for p in vae.parameters() if p.grad is not None]
        results.append(torch.cat([torch.tensor([loss]).double(), *gradients]))
    subject.require(
        torch.allclose(results[0], results[1]),
        "another objective with the same state_dict has another loss or other gradients: something "
        "that steps change is not in state_dict",
    )


def _check_svi(subject: Subject, objective: Objective, x: Tensor, seed: int) -> None:
    torch.manual_seed(seed)
    vae = LinearGaussian().vae
    before = {name: parameter.detach().clone() for name, parameter in vae.named_parameters()}
    svi = pyro.infer.SVI(vae.model, vae.guide, pyro.optim.Adam({"lr": 1e-3}), objective)
    loss = svi.step(x)
    moved = {n for n, p in vae.named_parameters() if not torch.equal(p.detach(), before[n])}
    for name in ("decoder", "encoder"):
        subject.require(
            any(name in parameter for parameter in moved),
            f"a step of pyro.infer.SVI does not move the {name}",
        )
    subject.require(
        math.isfinite(loss)
        and math.isfinite(svi.evaluate_loss(x))
        and all(parameter.isfinite().all() for parameter in vae.parameters()),
        "a step of pyro.infer.SVI gives a loss or parameters that are not finite",
    )


def _check_training(
    subject: Subject, objective: Objective, seed: int, steps: int, gain: float, gap: float
) -> None:
    """Train from a decoder that all but ignores z; log p(x) and the bound have to rise."""
    torch.manual_seed(seed)
    exact = LinearGaussian()
    x = exact.marginal.sample((100,))
    best = exact.evidence(x)
    with torch.no_grad():
        exact.weight.mul_(0.05)
    engine = EagerEngine(exact.vae.model, exact.vae.guide, objective, lr=0.1)
    before = exact.evidence(x), -engine.evaluate_loss(x) / len(x)
    for step in range(steps):
        engine.optimizer.param_groups[0]["lr"] = 0.1 * (1 - 0.9 * step / steps)
        engine.step(x)
    after = exact.evidence(x), -engine.evaluate_loss(x) / len(x)
    subject.require(
        after[0] > before[0] + gain * (best - before[0]),
        f"{steps} training steps take log p(x) from {before[0]:.4g} to {after[0]:.4g}, and "
        f"{best:.4g} is attainable",
    )
    subject.require(
        after[1] > before[1] and after[1] > after[0] - gap,
        f"{steps} training steps take the negative of `loss` from {before[1]:.4g} to "
        f"{after[1]:.4g} per example, and it does not rise to within {gap:g} of log p(x), which is "
        f"{after[0]:.4g}",
    )
