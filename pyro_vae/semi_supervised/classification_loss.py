"""The objective of equation 9: the ELBO, with a classification loss of the labelled examples."""

from typing import Any

from torch import Tensor

from pyro_vae.errors import InputError, check_range
from pyro_vae.objectives import ELBO
from pyro_vae.programs.traces import Program
from pyro_vae.semi_supervised.labelled_programs import LabelledGuide


class SemiSupervisedELBO(ELBO):
    """The objective J_alpha: the ELBO, with a classification loss of the labelled examples.

    Its loss is that of equation 9. Its `bound`, by which models are compared, is without the
    classification loss: it bounds log p(x, y) where y is known, and log p(x) where it is not.

    Args:
        alpha: the weight of log q(y|x) of each labelled example. The paper's weight is 0.1 N in
            front of a mean over labelled examples, N being the number of all examples: with M
            labelled ones this is alpha = 0.1 N / M. If a labelled example is used r times in an
            epoch, and an unlabelled one once, divide by r.
        num_particles: the number of draws of z for each x and y.

    Raises:
        InputError: if alpha is negative, or the guide is not a `LabelledGuide`.
    """

    def __init__(self, alpha: float, num_particles: int = 1, **pyro_options: Any) -> None:
        super().__init__(num_particles, **pyro_options)
        self.alpha = check_range("alpha", alpha, 0, 1e6)

    def differentiable_loss(
        self, model: Program, guide: Program, *args: Any, **kwargs: Any
    ) -> Tensor:
        """Return J_alpha in nats, summed over the examples, to be differentiated."""
        if not isinstance(guide, LabelledGuide):
            raise InputError(
                "SemiSupervisedELBO needs the guide of a SemiSupervised, which has q(y|x): use "
                "ELBO for other guides",
                "objective",
            )
        loss = super().differentiable_loss(model, guide, *args, **kwargs)
        return loss - self.alpha * guide.log_q_label(*args, **kwargs).sum()
