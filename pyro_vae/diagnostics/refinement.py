"""Semi-amortised posteriors: q(z|x) from the encoder, improved for each example by SVI.

    log p(x) - ELBO = KL(q(z|x) || p(z|x)) = approximation gap + amortisation gap

(Cremer, Li & Duvenaud 2018). The approximation gap is what the best member of the family leaves.
The amortisation gap is added by the encoder, which is one network for all x. A few steps of SVI on
the parameters of each example's own q (Kim et al. 2018) reduce the amortisation gap.
"""

import copy

import pyro
import torch
from pyro.infer import Trace_ELBO
from torch import Tensor, nn

from pyro_vae.errors import InputError
from pyro_vae.networks import Network
from pyro_vae.posteriors import Posterior
from pyro_vae.programs.arguments import Arguments
from pyro_vae.programs.looking import look_at_once
from pyro_vae.vae import Guide


class _FixedExamples(nn.Module):
    """Replaces an encoder: its outputs for certain examples, as trainable parameters."""

    def __init__(self, encoded: Tensor) -> None:
        super().__init__()
        self.encoded = nn.Parameter(encoded)

    def forward(self, x: Tensor) -> Tensor:
        return self.encoded


def refine(
    model: nn.Module,
    guide: Guide,
    x: Tensor,
    *,
    steps: int = 100,
    lr: float = 1e-2,
    num_particles: int = 8,
) -> Guide:
    """Return a guide for these examples only, with a q for each that has a higher ELBO.

    The encoder's outputs for each example become parameters, and Adam moves them. The model, and
    all parameters of the guide that examples share, stay fixed.

    Args:
        model: p(x, z), a Pyro program that is called with x.
        guide: a guide whose posterior has a `Network` named `encoder`, with x as its input.
        x: the examples, shape [N, *event]. The returned guide is for these, in this order.
        steps: the number of steps of Adam, each on all examples.
        lr: the learning rate; it falls to zero along half a cosine.
        num_particles: the number of draws of z for each example and step.

    Raises:
        InputError: if steps < 0, or the guide is not that of a VAE, or its posterior has no
            encoder.
    """
    if not isinstance(guide, Guide):
        raise InputError(
            "refinement needs the guide of a VAE, with a posterior and its encoder, but the guide "
            f"is a {type(guide).__name__}",
            "guide",
        )
    if steps < 0:
        raise InputError(f"the steps of refinement cannot be {steps}: give 0 or more")
    with torch.no_grad():
        local = Guide(_with_fixed_examples(guide.posterior, guide.kind.features(x)), guide.kind)
    parameters = [
        module.encoded for module in local.modules() if isinstance(module, _FixedExamples)
    ]
    if not parameters:
        raise InputError(
            f"the posterior {type(guide.posterior).__name__} has no Network named encoder, and "
            "refinement starts from the encoder's outputs"
        )
    optimizer = torch.optim.Adam(parameters, lr=lr)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, max(1, steps))
    pair = look_at_once(model, local, Arguments(x))
    elbo = Trace_ELBO(
        num_particles, max_plate_nesting=pair.nesting, vectorize_particles=pair.vectorize
    )
    with torch.enable_grad(), pyro.get_param_store().scope():
        for _ in range(steps):
            optimizer.zero_grad()
            elbo.differentiable_loss(model, local, x).backward(inputs=parameters)
            optimizer.step()
            schedule.step()
    return local.train(guide.training)


def _with_fixed_examples(posterior: Posterior, x: Tensor) -> Posterior:
    """Copy a posterior, with its encoders replaced by their outputs for x."""
    local = copy.deepcopy(posterior).requires_grad_(False)
    for module in list(local.modules()):
        for name, child in list(module.named_children()):
            if name == "encoder" and isinstance(child, Network):
                setattr(module, name, _FixedExamples(child(x)))
    return local
