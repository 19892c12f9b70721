"""Semi-amortised posteriors: the encoder's answer for each example, made better by SVI.

    log p(x) - ELBO = KL(q(z|x) || p(z|x)) = approximation gap + amortisation gap

(Cremer, Li & Duvenaud 2018). The first is what the best member of the family leaves; the second
what the encoder, one for all x, adds to it. A few steps on the parameters of each example's own q
(Kim et al. 2018) take the second away, or as much of it as they can.
"""

import copy

import pyro
import torch
from pyro.infer import Trace_ELBO
from torch import Tensor, nn

from pyro_vae.errors import InputError
from pyro_vae.networks import Network
from pyro_vae.posteriors import Posterior
from pyro_vae.vae import Guide


class _Local(nn.Module):
    """What an encoder said of certain examples, as parameters of their own."""

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
    """Return a guide for these examples alone, with a q for each that raises its own ELBO.

    What an encoder gives for each example becomes a parameter, and is moved by Adam; the model, and
    what all examples share in the guide, stay as they are.

    Args:
        model: p(x, z), a Pyro program.
        guide: whose posterior has a `Network` by the name of `encoder`, which is shown x.
        x: the examples, shape [N, *event]. The guide that is returned is for these, in this order.
        steps: of Adam, on all examples at once.
        lr: the learning rate; it falls to zero along half a cosine.
        num_particles: draws of z for each example and step.

    Raises:
        InputError: if steps < 0, or the posterior has no encoder.
    """
    if steps < 0:
        raise InputError(f"steps of refinement cannot be {steps}")
    with torch.no_grad():
        local = Guide(_localize(guide.posterior, guide.kind.features(x)), guide.kind)
    parameters = [module.encoded for module in local.modules() if isinstance(module, _Local)]
    if not parameters:
        raise InputError(
            f"the posterior {type(guide.posterior).__name__} has no Network named encoder, whose "
            "answer could be refined"
        )
    optimizer = torch.optim.Adam(parameters, lr=lr)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, max(1, steps))
    elbo = Trace_ELBO(num_particles, max_plate_nesting=1, vectorize_particles=True)
    with torch.enable_grad(), pyro.get_param_store().scope():
        for _ in range(steps):
            optimizer.zero_grad()
            elbo.differentiable_loss(model, local, x).backward(inputs=parameters)
            optimizer.step()
            schedule.step()
    return local.train(guide.training)


def _localize(posterior: Posterior, x: Tensor) -> Posterior:
    """Copy a posterior, with its encoders replaced by what they say of x."""
    local = copy.deepcopy(posterior).requires_grad_(False)
    for module in list(local.modules()):
        for name, child in list(module.named_children()):
            if name == "encoder" and isinstance(child, Network):
                setattr(module, name, _Local(child(x)))
    return local
