"""Operations that Inductor makes slow code of on a CPU, written so that it makes fast code."""

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor


def _tanh(x: Tensor) -> Tensor:
    """Return tanh, as 2 sigmoid(2 x) - 1, and as its Taylor series where that would cancel."""
    if x.device.type != "cpu" or x.dtype not in (torch.float32, torch.bfloat16):
        return NotImplemented
    dtype, x = x.dtype, x.float()
    y = x * x
    series = x * (1 + y * (-1 / 3 + y * (2 / 15 + y * (-17 / 315 + y * (62 / 2835)))))
    return torch.where(x.abs() < 0.25, series, 2 * torch.sigmoid(2 * x) - 1).to(dtype)


def _softplus(x: Tensor, beta: float = 1, threshold: float = 20) -> Tensor:
    """Return log(1 + exp x) as max(x, 0) + log(1 + exp(-|x|))."""
    single = x.device.type == "cpu" and x.dtype in (torch.float32, torch.bfloat16)
    if not single or (beta, threshold) != (1, 20):
        return NotImplemented
    dtype, x = x.dtype, x.float()
    return (x.clamp(min=0) + _log_of_1_and_exp_of_minus(x.abs())).to(dtype)


def _log_sigmoid(x: Tensor) -> tuple[Tensor, Tensor]:
    """Return min(x, 0) - log(1 + exp(-|x|)), and exp(-|x|), as PyTorch does on a CPU."""
    if x.device.type != "cpu" or x.dtype != torch.float32:
        return NotImplemented
    size = x.abs()
    return x.clamp(max=0) - _log_of_1_and_exp_of_minus(size), (-size).exp()


def _cross_entropy(
    logits: Tensor,
    target: Tensor,
    weight: Tensor | None = None,
    pos_weight: Tensor | None = None,
    reduction: int = 1,
) -> Tensor:
    """Return max(l, 0) - t l + log(1 + exp(-|l|))."""
    single = logits.dtype == target.dtype == torch.float32 and logits.device.type == "cpu"
    if weight is not None or pos_weight is not None or not single:
        return NotImplemented
    each = logits.clamp(min=0) - target * logits + _log_of_1_and_exp_of_minus(logits.abs())
    return (lambda: each, each.mean, each.sum)[reduction]()


def _log_of_1_and_exp_of_minus(x: Tensor) -> Tensor:
    """Return log(1 + e), e = exp(-x) <= 1, as 2 artanh(e / (2 + e)).

    The series of artanh is of u = e / (2 + e) <= 1/3: what is left out is 2e-9 of it.
    """
    # exp itself, being used twice, would be put into memory on the way.
    e = torch.exp2(x * -math.log2(math.e))
    u = e / (2 + e)
    square, series = u * u, torch.full_like(u, 1 / 15)
    for power in (13, 11, 9, 7, 5, 3, 1):
        series = series * square + 1 / power
    return 2 * u * series


# On a CPU, where tanh and log1p take Inductor more time than the products of a small network do:
# log1p is ten times as slow as log. They agree within 1e-6 of the value, but for exp(-|x|), which
# is off by the rounding of x, and cross-entropies of grey targets, by that of their logits.
FASTER: dict[Any, Callable[..., Any]] = {
    torch.ops.aten.tanh.default: _tanh,
    torch.ops.aten.softplus.default: _softplus,
    torch.ops.aten.log_sigmoid_forward.default: _log_sigmoid,
    torch.ops.aten.binary_cross_entropy_with_logits.default: _cross_entropy,
}
