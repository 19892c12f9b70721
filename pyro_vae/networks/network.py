"""The base of all networks."""

from abc import ABC, abstractmethod
from collections.abc import Sequence

import torch
from torch import Tensor, nn


class Network(nn.Module, ABC):
    """A map between tensors of fixed shapes, with a bias for every output.

    The bias is here, and not in the body's last layer, so that a likelihood can start any decoder
    at the mean of the data.

    Args:
        in_shape: the shape of one input.
        out_shape: the shape of one output.
    """

    body: nn.Module

    @abstractmethod
    def __init__(self, in_shape: Sequence[int], out_shape: Sequence[int]) -> None:
        super().__init__()
        self.in_shape = torch.Size(in_shape)
        self.out_shape = torch.Size(out_shape)
        self.bias = nn.Parameter(torch.zeros(self.out_shape))

    def forward(self, inputs: Tensor) -> Tensor:
        """Map inputs of shape [..., *in_shape] to outputs of shape [..., *out_shape]."""
        leading = inputs.shape[: inputs.dim() - len(self.in_shape)]
        outputs = self.body(inputs.reshape(-1, *self.in_shape))
        return outputs.reshape(*leading, *self.out_shape) + self.bias
