"""The base of all networks, and the check of their layers' sizes."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import ClassVar

import torch
from torch import Tensor, nn

from pyro_vae.errors import InputError


class Network(nn.Module, ABC):
    """A map between tensors of fixed shapes, with a bias for every output.

    The bias is a parameter of this class, and the last layer of `body` has none, so that a
    likelihood can set the outputs of any decoder to the mean of the data before training.

    Args:
        in_shape: the shape of one input.
        out_shape: the shape of one output.

    Attributes:
        body: a module that maps inputs [batch, *in_shape] to tensors of batch * prod(out_shape)
            elements. The constructor of each subclass sets it.
        only_decodes: whether its outputs are pictures, so that it suits nothing but a likelihood.
    """

    body: nn.Module
    only_decodes: ClassVar[bool] = False

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


def check_positive(name: str, sizes: Sequence[int]) -> None:
    """Refuse an argument that contains sizes of zero or less.

    Raises:
        InputError: with the smallest of them.
    """
    if min(sizes, default=1) < 1:
        raise InputError(f"{name} have to be positive, but {min(sizes)} was given", name)
