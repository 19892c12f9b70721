"""Optimisers: each as torch has it, for the eager engine, and as formulas, for a compiled step.

To add one, subclass `Optimizer` and name the class in `pyro_vae/training/__init__.py`. The command
line then takes it by its name.

The loss is summed over the batch. Papers often give `eps`, and the largest norm of a gradient, for
a mean over the batch: multiply them by the batch size.
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor

from pyro_vae.errors import InputError, check_range


class Optimizer(ABC):
    """Turns gradients into changes of parameters. This class holds the settings, and no state.

    Args:
        betas: the decay rates of the two running moments of the gradient.
        eps: what is added to the scale of the gradient, so that nothing is divided by zero. The
            loss is summed over the batch: multiply an eps for mean losses by the batch size.

    Attributes:
        moments: the names of the running moments in the state of the torch optimiser. Beside them
            the state of a parameter has `step`, the number of its steps.

    Raises:
        InputError: if `betas` are not two numbers from 0 to below 1, or `eps` is negative.
    """

    moments: ClassVar[tuple[str, ...]]

    def __init__(self, betas: Sequence[float] = (0.9, 0.999), eps: float = 1e-8) -> None:
        if len(betas) != 2 or not all(0 <= beta < 1 for beta in betas):
            raise InputError(
                f"betas have to be two numbers from 0 to below 1, but are {list(betas)}",
                "betas",
            )
        self.betas = float(betas[0]), float(betas[1])
        self.eps = check_range("eps", eps, 0, math.inf)

    @abstractmethod
    def of(self, parameters: Any, lr: float) -> torch.optim.Optimizer:
        """Return the torch optimiser of parameters, in any form that torch takes."""

    @abstractmethod
    def factors(self, lr: float, count: float) -> tuple[float, ...]:
        """Return the numbers that a step needs and that are the same for a whole parameter.

        They are computed in double precision, outside the compiled step.

        Args:
            lr: the learning rate.
            count: the number of the step of the parameter, from 1.
        """

    @abstractmethod
    def update(
        self, parameter: Tensor, gradient: Tensor, moments: Sequence[Tensor], factors: Tensor
    ) -> tuple[Tensor, tuple[Tensor, ...]]:
        """Return what is subtracted from a parameter in a step, and its new moments.

        Args:
            parameter: its value before the step. Nothing is written to it, nor to its moments.
            gradient: the gradient of the loss by it.
            moments: its moments before the step, in the order of `moments`.
            factors: what `factors` returned, as a tensor.
        """


class Adam(Optimizer):
    """Adam (Kingma & Ba 2015, algorithm 1)."""

    moments = ("exp_avg", "exp_avg_sq")

    def of(self, parameters: Any, lr: float) -> torch.optim.Optimizer:
        """Return `torch.optim.Adam`."""
        return torch.optim.Adam(parameters, lr, self.betas, self.eps)

    def factors(self, lr: float, count: float) -> tuple[float, ...]:
        """Return the size of the step, and the correction of the second moment."""
        beta1, beta2 = self.betas
        return lr / (1 - beta1**count), (1 - beta2**count) ** -0.5

    def update(
        self, parameter: Tensor, gradient: Tensor, moments: Sequence[Tensor], factors: Tensor
    ) -> tuple[Tensor, tuple[Tensor, ...]]:
        """Return the change, and the new means of the gradient and of its square."""
        (beta1, beta2), (mean, square) = self.betas, moments
        size, correction, *_ = factors
        new_mean = mean.lerp(gradient, 1 - beta1)
        new_square = (square * beta2).addcmul(gradient, gradient, value=1 - beta2)
        change = size * new_mean / (new_square.sqrt() * correction + self.eps)
        return change, (new_mean, new_square)


class AdamW(Adam):
    """Adam with decoupled weight decay (Loshchilov & Hutter 2019, algorithm 2).

    Every step also subtracts the learning rate times `weight_decay` times the parameter, as in
    torch: from all parameters, biases included.

    Args:
        weight_decay: the weight decay.

    Raises:
        InputError: as in `Optimizer`, or if `weight_decay` is negative.
    """

    def __init__(
        self,
        betas: Sequence[float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0.01,
    ) -> None:
        super().__init__(betas, eps)
        self.weight_decay = check_range("weight_decay", weight_decay, 0, math.inf)

    def of(self, parameters: Any, lr: float) -> torch.optim.Optimizer:
        """Return `torch.optim.AdamW`."""
        return torch.optim.AdamW(parameters, lr, self.betas, self.eps, self.weight_decay)

    def factors(self, lr: float, count: float) -> tuple[float, ...]:
        """Return the numbers of Adam, and the share of the parameter that decays."""
        return *super().factors(lr, count), lr * self.weight_decay

    def update(
        self, parameter: Tensor, gradient: Tensor, moments: Sequence[Tensor], factors: Tensor
    ) -> tuple[Tensor, tuple[Tensor, ...]]:
        """Return the change, decay included, and Adam's new moments."""
        change, new = super().update(parameter, gradient, moments, factors)
        return change + factors[2] * parameter, new


class Adamax(Optimizer):
    """Adamax: Adam with a running maximum in place of the second moment (Kingma & Ba 2015, 7.1)."""

    moments = ("exp_avg", "exp_inf")

    def of(self, parameters: Any, lr: float) -> torch.optim.Optimizer:
        """Return `torch.optim.Adamax`."""
        return torch.optim.Adamax(parameters, lr, self.betas, self.eps)

    def factors(self, lr: float, count: float) -> tuple[float, ...]:
        """Return the size of the step."""
        return (lr / (1 - self.betas[0] ** count),)

    def update(
        self, parameter: Tensor, gradient: Tensor, moments: Sequence[Tensor], factors: Tensor
    ) -> tuple[Tensor, tuple[Tensor, ...]]:
        """Return the change, the new mean of the gradient, and the maximum of its size."""
        (beta1, beta2), (mean, largest) = self.betas, moments
        new_mean = mean.lerp(gradient, 1 - beta1)
        new_largest = torch.maximum(largest * beta2, gradient.abs() + self.eps)
        return factors[0] * new_mean / new_largest, (new_mean, new_largest)


def clipped(gradients: Sequence[Any], largest: float) -> list[Any]:
    """Return gradients, scaled down so that their joint norm is not above a limit.

    This is `torch.nn.utils.clip_grad_norm_`, which writes to gradients, as a function.

    Args:
        gradients: a tensor, or None, for each parameter.
        largest: the limit.
    """
    norms = [torch.linalg.vector_norm(each) for each in gradients if each is not None]
    if not norms:
        return list(gradients)
    norm = torch.linalg.vector_norm(torch.stack(norms))
    scale = (largest / (norm + 1e-6)).clamp(max=1.0)
    return [None if each is None else each * scale for each in gradients]
