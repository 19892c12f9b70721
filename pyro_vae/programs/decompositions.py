"""Decompositions for the CPU: operations rewritten so that Inductor generates faster code for them.

For a small network, Inductor's code for tanh and log1p takes more time than the matrix products:
log1p is ten times slower than log.
"""

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor


def _tanh(x: Tensor) -> Tensor:
    """Return tanh(x) as 2 sigmoid(2x) - 1, or as its Taylor series where that would cancel."""
    if x.device.type != "cpu" or x.dtype not in (torch.float32, torch.bfloat16):
        return NotImplemented
    dtype, x = x.dtype, x.float()
    y = x * x
    series = x * (1 + y * (-1 / 3 + y * (2 / 15 + y * (-17 / 315 + y * (62 / 2835)))))
    return torch.where(x.abs() < 0.25, series, 2 * torch.sigmoid(2 * x) - 1).to(dtype)


def _softplus(x: Tensor, beta: float = 1, threshold: float = 20) -> Tensor:
    """Return log(1 + exp(x)) as max(x, 0) + log(1 + exp(-|x|))."""
    supported = x.device.type == "cpu" and x.dtype in (torch.float32, torch.bfloat16)
    if not supported or (beta, threshold) != (1, 20):
        return NotImplemented
    dtype, x = x.dtype, x.float()
    return (x.clamp(min=0) + _log_1_plus_exp_of_minus(x.abs())).to(dtype)


def _log_sigmoid(x: Tensor) -> tuple[Tensor, Tensor]:
    """Return min(x, 0) - log(1 + exp(-|x|)), and exp(-|x|), which PyTorch returns on a CPU too."""
    if x.device.type != "cpu" or x.dtype != torch.float32:
        return NotImplemented
    size = x.abs()
    return x.clamp(max=0) - _log_1_plus_exp_of_minus(size), (-size).exp()


def _cross_entropy(
    logits: Tensor,
    target: Tensor,
    weight: Tensor | None = None,
    pos_weight: Tensor | None = None,
    reduction: int = 1,
) -> Tensor:
    """Return max(l, 0) - t l + log(1 + exp(-|l|)) for logits l and targets t.

    Args:
        logits: l.
        target: t, of the same shape.
        weight: not supported.
        pos_weight: not supported.
        reduction: 0 for none, 1 for the mean, 2 for the sum, as PyTorch numbers them.
    """
    supported = logits.dtype == target.dtype == torch.float32 and logits.device.type == "cpu"
    if weight is not None or pos_weight is not None or not supported:
        return NotImplemented
    losses = logits.clamp(min=0) - target * logits + _log_1_plus_exp_of_minus(logits.abs())
    if reduction == 0:
        return losses
    return losses.mean() if reduction == 1 else losses.sum()


def _log_1_plus_exp_of_minus(x: Tensor) -> Tensor:
    """Return log(1 + e) with e = exp(-x) <= 1, as 2 artanh(u) with u = e / (2 + e) <= 1/3.

    The series of artanh is truncated: the relative error is 2e-9.
    """
    # Inductor would write exp(-x), which is used twice, to memory; it does not do so with exp2.
    e = torch.exp2(x * -math.log2(math.e))
    u = e / (2 + e)
    square, series = u * u, torch.full_like(u, 1 / 15)
    for power in (13, 11, 9, 7, 5, 3, 1):
        series = series * square + 1 / power
    return 2 * u * series


# The relative error is at most 1e-6, with two exceptions: exp(-|x|) has the rounding error of x,
# and the cross-entropy of targets other than 0 and 1 has the rounding error of the logits.
CPU_DECOMPOSITIONS: dict[Any, Callable[..., Any]] = {
    torch.ops.aten.tanh.default: _tanh,
    torch.ops.aten.softplus.default: _softplus,
    torch.ops.aten.log_sigmoid_forward.default: _log_sigmoid,
    torch.ops.aten.binary_cross_entropy_with_logits.default: _cross_entropy,
}
