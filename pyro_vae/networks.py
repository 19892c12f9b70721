"""Encoder and decoder bodies: tensors in, tensors out, with any leading batch dimensions.

`MLP`, `SkipMLP` and `Linear` take tensors of any shape for vectors. `ConvEncoder` and
`ResidualEncoder` take images [H, W] or [C, H, W] of any size; `ConvDecoder` and `ResidualDecoder`
make them, C being the number of colours, or of parameters times colours.

A network maps [..., *in_shape] to [..., *out_shape]. To add one, subclass `Network`, give it a
`body` that maps [batch, *in_shape] to [batch, *out_shape], and name it on the command line.
"""

import warnings
from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
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
    """A multilayer perceptron, its hidden layers h -> f(W h + b), f being the activation.

    Gated, a hidden layer is h -> f(W h + b) * sigmoid(V h + c) (Dauphin et al. 2017, with the
    identity for f, as Tomczak & Welling 2018 have it in VAEs: `activation="Identity"`).

    Args:
        in_shape: the shape of one input.
        out_shape: the shape of one output.
        widths: of the hidden layers, from input to output.
        activation: the name of an activation in `torch.nn`: Tanh, ReLU, SiLU, ...
        gated: whether the hidden layers are gated; it doubles their parameters.
    """

    def __init__(
        self,
        in_shape: Sequence[int],
        out_shape: Sequence[int],
        widths: Sequence[int] = (200, 200),
        activation: str = "SiLU",
        gated: bool = False,
    ) -> None:
        super().__init__(in_shape, out_shape)
        sizes = _positive("widths", [prod(in_shape), *widths])
        layers: list[nn.Module] = [nn.Flatten()]
        for narrow, wide in pairwise(sizes):
            layers += _hidden(narrow, wide, activation, gated)
        self.body = nn.Sequential(*layers, nn.Linear(sizes[-1], prod(out_shape), bias=False))


class SkipMLP(Network):
    """An `MLP` in which every layer after the first sees the input again, the last one included.

    As a decoder it keeps z in sight of all its layers, which makes it harder to learn to leave z
    alone: posterior collapse (Skip-VAE, Dieng et al. 2019).

    Args:
        in_shape: the shape of one input.
        out_shape: the shape of one output.
        widths: of the hidden layers, from input to output.
        activation: the name of an activation in `torch.nn`: Tanh, ReLU, SiLU, ...
        gated: whether the hidden layers are gated, as in `MLP`.
    """

    def __init__(
        self,
        in_shape: Sequence[int],
        out_shape: Sequence[int],
        widths: Sequence[int] = (200, 200),
        activation: str = "SiLU",
        gated: bool = False,
    ) -> None:
        super().__init__(in_shape, out_shape)
        size = prod(in_shape)
        seen = [size, *(width + size for width in _positive("widths", widths))]
        layers: list[nn.Module] = [
            nn.Sequential(*_hidden(narrow, wide, activation, gated))
            for narrow, wide in zip(seen, widths, strict=False)
        ]
        self.body = _Skip([*layers, nn.Linear(seen[-1], prod(out_shape), bias=False)])


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
        self.body = _down(self, channels, activation)


class ResidualEncoder(Network):
    """A `ConvEncoder` with residual blocks after each of its convolutions.

    A block adds conv(f(conv(f(h)))) to h, 3 x 3 and then 1 x 1, f being the activation (He et al.
    2016; van den Oord, Vinyals & Kavukcuoglu 2017 in a VAE). There is no batch normalisation: one
    image's bound would depend on the others in its batch.

    Args:
        in_shape: of an image: [H, W] or [C, H, W], of any size.
        out_shape: the shape of one output.
        channels: of the layers, from image to code.
        activation: the name of an activation in `torch.nn`: Tanh, ReLU, SiLU, ...
        blocks: the number of residual blocks after each convolution.
    """

    def __init__(
        self,
        in_shape: Sequence[int],
        out_shape: Sequence[int],
        channels: Sequence[int] = (32, 64),
        activation: str = "SiLU",
        blocks: int = 2,
    ) -> None:
        super().__init__(in_shape, out_shape)
        _positive("blocks", [blocks])
        self.body = _down(self, channels, activation, blocks)


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
        self.body = _up(self, channels, activation)


class ResidualDecoder(Network):
    """The mirror image of `ResidualEncoder`: residual blocks before each doubling of the image.

    Args:
        in_shape: the shape of one input.
        out_shape: ends in an image's shape, [H, W] or [C, H, W], of any size.
        channels: of the layers, from code to image.
        activation: the name of an activation in `torch.nn`: Tanh, ReLU, SiLU, ...
        blocks: the number of residual blocks before each convolution.
    """

    def __init__(
        self,
        in_shape: Sequence[int],
        out_shape: Sequence[int],
        channels: Sequence[int] = (64, 32),
        activation: str = "SiLU",
        blocks: int = 2,
    ) -> None:
        super().__init__(in_shape, out_shape)
        _positive("blocks", [blocks])
        self.body = _up(self, channels, activation, blocks)


class _Gated(nn.Module):
    """h -> f(W h + b) * sigmoid(V h + c)."""

    def __init__(self, narrow: int, wide: int, activation: str) -> None:
        super().__init__()
        self.linear = nn.Linear(narrow, wide)
        self.gate = nn.Linear(narrow, wide)
        self.activation = _activation(activation)

    def forward(self, inputs: Tensor) -> Tensor:
        return self.activation(self.linear(inputs)) * self.gate(inputs).sigmoid()


class _Skip(nn.Module):
    """Layers in turn, each after the first with the input beside what it gets."""

    def __init__(self, layers: Iterable[nn.Module]) -> None:
        super().__init__()
        self.layers = nn.ModuleList(layers)

    def forward(self, inputs: Tensor) -> Tensor:
        inputs = inputs.flatten(1)
        outputs = self.layers[0](inputs)
        for layer in self.layers[1:]:
            outputs = layer(torch.cat([outputs, inputs], -1))
        return outputs


class _Residual(nn.Module):
    """h -> h + conv(f(conv(f(h))))."""

    def __init__(self, channels: int, activation: str) -> None:
        super().__init__()
        self.branch = nn.Sequential(
            _activation(activation),
            nn.Conv2d(channels, channels, 3, padding=1),
            _activation(activation),
            nn.Conv2d(channels, channels, 1),
        )

    def forward(self, inputs: Tensor) -> Tensor:
        return inputs + self.branch(inputs)


def _hidden(narrow: int, wide: int, activation: str, gated: bool) -> list[nn.Module]:
    """Return the modules of a hidden layer."""
    if gated:
        return [_Gated(narrow, wide, activation)]
    return [nn.Linear(narrow, wide), _activation(activation)]


def _down(
    network: Network, channels: Sequence[int], activation: str, blocks: int = 0
) -> nn.Sequential:
    """Return the body of a network from an image to anything."""
    image_channels, *size = _image_shape(network, network.in_shape)
    layers: list[nn.Module] = [nn.Unflatten(0, (-1, 1))] if len(network.in_shape) == 2 else []
    for narrow, wide in pairwise(_positive("channels", [image_channels, *channels])):
        layers += [nn.Conv2d(narrow, wide, 3, stride=2, padding=1)]
        layers += [_Residual(wide, activation) for _ in range(blocks)]
        layers += [_activation(activation)]
        size = [_half(side) for side in size]
    features = [image_channels, *channels][-1] * prod(size)
    layers += [nn.Flatten(), nn.Linear(features, prod(network.out_shape), bias=False)]
    return nn.Sequential(*layers)


def _up(
    network: Network, channels: Sequence[int], activation: str, blocks: int = 0
) -> nn.Sequential:
    """Return the body of a network from anything to an image."""
    image_channels, *size = _image_shape(network, network.out_shape)
    if not channels:
        raise InputError(f"a {type(network).__name__} needs the channels of one layer at least")
    sizes = [size]  # from code to image
    for _ in _positive("channels", channels):
        sizes.insert(0, [_half(side) for side in sizes[0]])
    layers: list[nn.Module] = [
        nn.Flatten(),
        nn.Linear(prod(network.in_shape), channels[0] * prod(sizes[0])),
        nn.Unflatten(1, (channels[0], *sizes[0])),
    ]
    for narrow, wide, small, large in zip(
        channels, [*channels[1:], image_channels], sizes[:-1], sizes[1:], strict=True
    ):
        # A transposed convolution takes a side of n to 2n - 1, or 2n with one more.
        extra = (large[0] - (2 * small[0] - 1), large[1] - (2 * small[1] - 1))
        layers += [_Residual(narrow, activation) for _ in range(blocks)]
        layers += [
            _activation(activation),
            nn.ConvTranspose2d(narrow, wide, 3, 2, 1, output_padding=extra),
        ]
    return nn.Sequential(*layers)


def _activation(name: str) -> nn.Module:
    try:
        activation = getattr(nn, name)()
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            for shape in ((2, 4), (2, 4, 3, 3)):
                if activation(torch.zeros(shape)).shape != shape:
                    raise TypeError("it changes the shape")
    except (
        AttributeError,
        NotImplementedError,
        RuntimeError,
        TypeError,
        UserWarning,
        ValueError,
    ) as error:
        raise InputError(
            f"'{name}' is no activation in torch.nn: choose Tanh, ReLU, SiLU, GELU, ..."
        ) from error
    return activation


def _positive(what: str, sizes: Sequence[int]) -> Sequence[int]:
    """Return sizes that are all positive."""
    if min(sizes, default=1) < 1:
        raise InputError(f"{what} have to be positive, and {min(sizes)} is not")
    return sizes


def _image_shape(network: Network, shape: Sequence[int]) -> tuple[int, int, int]:
    """Return [C, H, W] of the image that a shape describes."""
    if len(shape) not in (2, 3):
        raise InputError(
            f"{type(network).__name__} needs images [H, W] or [C, H, W], not {list(shape)}: "
            "take an MLP for vectors"
        )
    channels = 1 if len(shape) == 2 else shape[0]
    return channels, shape[-2], shape[-1]


def _half(side: int) -> int:
    return (side + 1) // 2
