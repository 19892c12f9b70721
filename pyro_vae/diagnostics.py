"""What the latent code carries."""

import torch
from torch import Tensor

from pyro_vae.posteriors import Posterior


def active_units(posterior: Posterior, x: Tensor, threshold: float = 0.01) -> int:
    """Count the dimensions of z whose posterior mean moves with x.

    A dimension is active if Var_x(E_q[z_d | x]) > threshold (Burda, Grosse & Salakhutdinov
    2016). A collapsed dimension has q(z_d | x) = p(z_d) for all x, and a variance of zero.

    Args:
        posterior: q(z|x).
        x: examples, shape [N, *event].
        threshold: on the variance.
    """
    with torch.no_grad():
        means = torch.cat([posterior(part).mean for part in x.split(1000)])
    return int((means.var(0, correction=0) > threshold).sum())
