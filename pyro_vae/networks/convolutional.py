"""Convolutional networks for images."""

from collections.abc import Sequence
from itertools import pairwise
from math import prod

from torch import Tensor, nn

from pyro_vae.errors import InputError
from pyro_vae.networks.layers import activation_named, positive
from pyro_vae.networks.network import Network


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
        positive("blocks", [blocks])
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
        positive("blocks", [blocks])
        self.body = _up(self, channels, activation, blocks)


class _Residual(nn.Module):
    """h -> h + conv(f(conv(f(h))))."""

    def __init__(self, channels: int, activation: str) -> None:
        super().__init__()
        self.branch = nn.Sequential(
            activation_named(activation),
            nn.Conv2d(channels, channels, 3, padding=1),
            activation_named(activation),
            nn.Conv2d(channels, channels, 1),
        )

    def forward(self, inputs: Tensor) -> Tensor:
        return inputs + self.branch(inputs)


def _down(
    network: Network, channels: Sequence[int], activation: str, blocks: int = 0
) -> nn.Sequential:
    """Return the body of a network from an image to anything."""
    image_channels, *size = _image_shape(network, network.in_shape)
    layers: list[nn.Module] = [nn.Unflatten(0, (-1, 1))] if len(network.in_shape) == 2 else []
    for narrow, wide in pairwise(positive("channels", [image_channels, *channels])):
        layers += [nn.Conv2d(narrow, wide, 3, stride=2, padding=1)]
        layers += [_Residual(wide, activation) for _ in range(blocks)]
        layers += [activation_named(activation)]
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
    for _ in positive("channels", channels):
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
            activation_named(activation),
            nn.ConvTranspose2d(narrow, wide, 3, 2, 1, output_padding=extra),
        ]
    return nn.Sequential(*layers)


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
