"""Encoder and decoder bodies: tensors in, tensors out, with any leading batch dimensions.

A network maps [..., *in_shape] to [..., *out_shape]. To add one, subclass `Network`, give it a
`body` that maps [batch, *in_shape] to [batch, *out_shape], and name it on the command line.
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from itertools import pairwise
from math import prod

import torch
from torch import Tensor, nn

from pyro_vae.errors import InputError


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


class MLP(Network):
    """A multilayer perceptron.

    Args:
        in_shape: the shape of one input.
        out_shape: the shape of one output.
        widths: of the hidden layers, from input to output.
        activation: the name of an activation in `torch.nn`: Tanh, ReLU, SiLU, ...
    """

    def __init__(
        self,
        in_shape: Sequence[int],
        out_shape: Sequence[int],
        widths: Sequence[int] = (200, 200),
        activation: str = "Tanh",
    ) -> None:
        super().__init__(in_shape, out_shape)
        sizes = _positive("widths", [prod(in_shape), *widths])
        layers: list[nn.Module] = [nn.Flatten()]
        for narrow, wide in pairwise(sizes):
            layers += [nn.Linear(narrow, wide), _activation(activation)]
        self.body = nn.Sequential(*layers, nn.Linear(sizes[-1], prod(out_shape), bias=False))


class Linear(Network):
    """A linear map: as a decoder under a Gaussian likelihood, probabilistic PCA.

    Args:
        in_shape: the shape of one input.
        out_shape: the shape of one output.
    """

    def __init__(self, in_shape: Sequence[int], out_shape: Sequence[int]) -> None:
        super().__init__(in_shape, out_shape)
        self.body = nn.Sequential(
            nn.Flatten(), nn.Linear(prod(in_shape), prod(out_shape), bias=False)
        )


class ConvEncoder(Network):
    """Convolutions of stride two, each halving the image, then a linear map.

    Args:
        in_shape: of an image: [H, W] or [C, H, W], of any size.
        out_shape: the shape of one output.
        channels: of the layers, from image to code.
        activation: the name of an activation in `torch.nn`: Tanh, ReLU, SiLU, ...
    """

    def __init__(
        self,
        in_shape: Sequence[int],
        out_shape: Sequence[int],
        channels: Sequence[int] = (32, 64),
        activation: str = "SiLU",
    ) -> None:
        super().__init__(in_shape, out_shape)
        image_channels, *size = _image_shape("ConvEncoder", in_shape)
        layers: list[nn.Module] = [nn.Unflatten(0, (-1, 1))] if len(in_shape) == 2 else []
        for narrow, wide in pairwise(_positive("channels", [image_channels, *channels])):
            layers += [nn.Conv2d(narrow, wide, 3, stride=2, padding=1), _activation(activation)]
            size = [_half(side) for side in size]
        features = [image_channels, *channels][-1] * prod(size)
        layers += [nn.Flatten(), nn.Linear(features, prod(out_shape), bias=False)]
        self.body = nn.Sequential(*layers)


class ConvDecoder(Network):
    """The mirror image of `ConvEncoder`: a linear map, then convolutions that double the image.

    Args:
        in_shape: the shape of one input.
        out_shape: ends in an image's shape, [H, W] or [C, H, W], of any size.
        channels: of the layers, from code to image.
        activation: the name of an activation in `torch.nn`: Tanh, ReLU, SiLU, ...
    """

    def __init__(
        self,
        in_shape: Sequence[int],
        out_shape: Sequence[int],
        channels: Sequence[int] = (64, 32),
        activation: str = "SiLU",
    ) -> None:
        super().__init__(in_shape, out_shape)
        image_channels, *size = _image_shape("ConvDecoder", out_shape)
        if not channels:
            raise InputError("a ConvDecoder needs the channels of one layer at least")
        sizes = [size]  # from image to code
        for _ in _positive("channels", channels):
            sizes.insert(0, [_half(side) for side in sizes[0]])
        first = [*channels, image_channels][0]
        layers: list[nn.Module] = [
            nn.Flatten(),
            nn.Linear(prod(in_shape), first * prod(sizes[0])),
            nn.Unflatten(1, (first, *sizes[0])),
        ]
        for narrow, wide, small, large in zip(
            channels, [*channels[1:], image_channels], sizes[:-1], sizes[1:], strict=True
        ):
            # A transposed convolution takes a side of n to 2n - 1, or 2n with one more.
            extra = (large[0] - (2 * small[0] - 1), large[1] - (2 * small[1] - 1))
            layers += [
                _activation(activation),
                nn.ConvTranspose2d(narrow, wide, 3, 2, 1, output_padding=extra),
            ]
        self.body = nn.Sequential(*layers)


def _activation(name: str) -> nn.Module:
    try:
        activation = getattr(nn, name)()
        if activation(torch.zeros(2, 4)).shape != (2, 4):
            raise TypeError("it changes the shape")
    except (AttributeError, TypeError, NotImplementedError, RuntimeError) as error:
        raise InputError(
            f"'{name}' is no activation in torch.nn: choose Tanh, ReLU, SiLU, GELU, ..."
        ) from error
    return activation


def _positive(what: str, sizes: Sequence[int]) -> Sequence[int]:
    """Return sizes that are all positive."""
    if min(sizes, default=1) < 1:
        raise InputError(f"{what} have to be positive, and {min(sizes)} is not")
    return sizes


def _image_shape(network: str, shape: Sequence[int]) -> tuple[int, int, int]:
    """Return [C, H, W] of the image that a shape describes."""
    if len(shape) not in (2, 3):
        raise InputError(
            f"{network} needs images [H, W], not {list(shape)}: take an MLP for vectors"
        )
    channels = 1 if len(shape) == 2 else shape[0]
    return channels, shape[-2], shape[-1]


def _half(side: int) -> int:
    return (side + 1) // 2
