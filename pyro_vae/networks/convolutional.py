"""Convolutional networks for images."""

from abc import abstractmethod
from collections.abc import Sequence
from itertools import pairwise
from math import prod

from torch import Tensor, nn

from pyro_vae.errors import InputError
from pyro_vae.networks.activations import activation_named
from pyro_vae.networks.network import Network, check_positive


class _Convolutional(Network):
    """A network of convolutions and residual blocks, whose input or output is an image.

    Args:
        channels: the numbers of channels of the layers, from input to output.
        activation: the name of an activation in `torch.nn`: Tanh, ReLU, SiLU, ...
        blocks: the number of residual blocks at each convolution; zero for none.
    """

    @abstractmethod
    def __init__(
        self,
        in_shape: Sequence[int],
        out_shape: Sequence[int],
        channels: Sequence[int],
        activation: str,
        blocks: int,
    ) -> None:
        super().__init__(in_shape, out_shape)
        self.body = self._make_body(channels, activation, blocks)

    @abstractmethod
    def _make_body(self, channels: Sequence[int], activation: str, blocks: int) -> nn.Module: ...


class _ImageEncoder(_Convolutional):
    """Convolutions of stride two, each followed by residual blocks, then a linear map.

    Args:
        in_shape: the shape of an image: [H, W] or [C, H, W], of any size.
        channels: the numbers of channels of the layers, from image to code.
    """

    def _make_body(self, channels: Sequence[int], activation: str, blocks: int) -> nn.Module:
        image_channels, *size = _image_shape(self, self.in_shape)
        check_positive("channels", [image_channels, *channels])
        layers: list[nn.Module] = [nn.Unflatten(0, (-1, 1))] if len(self.in_shape) == 2 else []
        for inputs, outputs in pairwise([image_channels, *channels]):
            layers += [nn.Conv2d(inputs, outputs, 3, stride=2, padding=1)]
            layers += [_Residual(outputs, activation) for _ in range(blocks)]
            layers += [activation_named(activation)]
            size = [_half(side) for side in size]
        features = [image_channels, *channels][-1] * prod(size)
        layers += [nn.Flatten(), nn.Linear(features, prod(self.out_shape), bias=False)]
        return nn.Sequential(*layers)


class ConvEncoder(_ImageEncoder):
    """Convolutions of stride two, each of which halves the image, then a linear map."""

    def __init__(
        self,
        in_shape: Sequence[int],
        out_shape: Sequence[int],
        channels: Sequence[int] = (32, 64),
        activation: str = "SiLU",
    ) -> None:
        super().__init__(in_shape, out_shape, channels, activation, blocks=0)


class ResidualEncoder(_ImageEncoder):
    """A `ConvEncoder` with residual blocks after each of its convolutions.

    A block adds conv(f(conv(f(h)))) to h, where the first convolution is 3 x 3, the second 1 x 1,
    and f is the activation (He et al. 2016; van den Oord, Vinyals & Kavukcuoglu 2017 in a VAE).
    There is no batch normalisation: with it, the bound of an image would depend on the other images
    in its batch.

    Args:
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
        check_positive("blocks", [blocks])
        super().__init__(in_shape, out_shape, channels, activation, blocks)


class _ImageDecoder(_Convolutional):
    """A linear map, followed by convolutions that double the height and width of the image.

    Residual blocks come before each convolution.

    Args:
        out_shape: the shape of an image: [H, W] or [C, H, W], of any size.
        channels: the numbers of channels of the layers, from code to image.
    """

    only_decodes = True

    def _make_body(self, channels: Sequence[int], activation: str, blocks: int) -> nn.Module:
        image_channels, *size = _image_shape(self, self.out_shape)
        if not channels:
            raise InputError(
                f"a {type(self).__name__} needs the channels of one layer at least", "channels"
            )
        check_positive("channels", channels)
        sizes = [size]  # from code to image
        for _ in channels:
            sizes.insert(0, [_half(side) for side in sizes[0]])
        layers: list[nn.Module] = [
            nn.Flatten(),
            nn.Linear(prod(self.in_shape), channels[0] * prod(sizes[0])),
            nn.Unflatten(1, (channels[0], *sizes[0])),
        ]
        for inputs, outputs, small, large in zip(
            channels, [*channels[1:], image_channels], sizes[:-1], sizes[1:], strict=True
        ):
            # A transposed convolution makes 2n - 1 pixels of n, and one more with a padding of one.
            extra = (large[0] - (2 * small[0] - 1), large[1] - (2 * small[1] - 1))
            layers += [_Residual(inputs, activation) for _ in range(blocks)]
            layers += [
                activation_named(activation),
                nn.ConvTranspose2d(inputs, outputs, 3, 2, 1, output_padding=extra),
            ]
        return nn.Sequential(*layers)


class ConvDecoder(_ImageDecoder):
    """The mirror image of `ConvEncoder`: a linear map, then convolutions that double the image."""

    def __init__(
        self,
        in_shape: Sequence[int],
        out_shape: Sequence[int],
        channels: Sequence[int] = (64, 32),
        activation: str = "SiLU",
    ) -> None:
        super().__init__(in_shape, out_shape, channels, activation, blocks=0)


class ResidualDecoder(_ImageDecoder):
    """The mirror image of `ResidualEncoder`: residual blocks before each doubling of the image.

    Args:
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
        check_positive("blocks", [blocks])
        super().__init__(in_shape, out_shape, channels, activation, blocks)


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


def _image_shape(network: Network, shape: Sequence[int]) -> tuple[int, int, int]:
    """Return [C, H, W] for the shape of an image, [H, W] or [C, H, W]."""
    if len(shape) not in (2, 3):
        raise InputError(
            f"{type(network).__name__} needs images [H, W] or [C, H, W], not {list(shape)}: "
            "take an MLP for vectors"
        )
    channels = 1 if len(shape) == 2 else shape[0]
    return channels, shape[-2], shape[-1]


def _half(side: int) -> int:
    """Return the side of an image after a convolution of stride two."""
    return (side + 1) // 2
