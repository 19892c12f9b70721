"""The gated PixelCNN, and features of the nearest pixels: they read only the pixels before a pixel.

The order is raster order: row by row, within a row from left to right, and within a pixel channel
by channel (red, green, blue). Masks and padding make sure that no pixel reads a later one.
"""

from collections.abc import Sequence

import torch
from torch import Size, Tensor, nn
from torch.nn import functional as F

from pyro_vae.errors import InputError
from pyro_vae.networks.network import check_positive


class GatedPixelCNN(nn.Module):
    """The gated PixelCNN (van den Oord et al. 2016, "Conditional image generation ...").

    Two stacks of gated layers, tanh(a) * sigmoid(b), are computed in parallel. The vertical stack
    reads the rows above the pixel. The horizontal stack reads the pixel's own row to its left and,
    in each layer, the vertical stack. Together they read all pixels before it, without a blind
    spot. The output of each horizontal layer is added to the next layer's input (residual) and to
    the network's output (skip). Each layer of both stacks adds a 1x1 convolution of the context.
    All colours share the network: hidden channel i belongs to colour i modulo C, and within a pixel
    a colour reads no colour that comes after it.

    The receptive field, with r = layers * (kernel_size // 2), is exactly: the r rows above, up to r
    columns to the left and to the right; the r pixels to the left in the pixel's own row; the
    channels before it in its own pixel. With a small r the decoder can model only local texture,
    and the rest has to come from z. The context is read in the pixel's own row and the r' rows
    above it, up to r' columns to the left and to the right, with
    r' = (layers - 1) * (kernel_size // 2).

    Images are padded at the top and at the sides, never at the bottom. So the outputs for an image
    without its bottom rows are those for the whole image, without these rows.

    Args:
        event_shape: the shape of an image: [H, W] or [C, H, W].
        outputs: the number of parameters of each (sub)pixel's distribution.
        context_channels: the number of channels of the context.
        channels: the number of channels of each stack; it is rounded up to a multiple of C.
        layers: the number of gated layers.
        kernel_size: the side of the square whose first half a layer reads; odd, 3 or more.
    """

    def __init__(
        self,
        event_shape: Sequence[int],
        outputs: int,
        context_channels: int,
        channels: int = 16,
        layers: int = 4,
        kernel_size: int = 5,
    ) -> None:
        super().__init__()
        _check_shape(self, event_shape)
        sizes = {"outputs": outputs, "context_channels": context_channels}
        sizes |= {"channels": channels, "layers": layers, "event_shape": min(event_shape)}
        for name, size in sizes.items():
            if size < 1:
                raise InputError(
                    f"a GatedPixelCNN's {name} has to be positive, but is {size}", name
                )
        if kernel_size < 3 or kernel_size % 2 == 0:
            raise InputError(
                f"a GatedPixelCNN's kernel_size has to be odd and 3 or more, not {kernel_size}",
                "kernel_size",
            )
        self.event_shape = Size(event_shape)
        self.outputs = outputs
        colours = 1 if len(event_shape) == 2 else event_shape[0]
        channels = -(-channels // colours) * colours
        self.layers = nn.ModuleList(
            _GatedLayer(colours, channels, context_channels, kernel_size, first=i == 0)
            for i in range(layers)
        )
        self.head = nn.Sequential(
            nn.ReLU(),
            _MaskedConv(channels, channels, 1, colours),
            nn.ReLU(),
            _MaskedConv(channels, outputs * colours, 1, colours),
        )

    def forward(self, x: Tensor, context: Tensor) -> Tensor:
        """Return the parameters of each (sub)pixel's distribution, given the (sub)pixels before it.

        Args:
            x: images, shape [N, *event_shape], values in [0, 1]. Bottom rows may be missing.
            context: a tensor of shape [N, context_channels, H, W], with as many rows as x.

        Returns:
            Shape [N, outputs, *event_shape].
        """
        image = x if len(self.event_shape) == 3 else x.unsqueeze(1)
        vertical, horizontal, skips = image, image, None
        for layer in self.layers:
            vertical, horizontal, skip = layer(vertical, horizontal, context)
            skips = skip if skips is None else skips + skip
        return self.head(skips).reshape(len(x), self.outputs, *x.shape[1:])


class LocalFeatures(nn.Module):
    """Features of the pixels just before each pixel: tanh(W x_before + b).

    What is before a pixel is defined as for `GatedPixelCNN`, and read exactly in the same field,
    with r = reach.

    Args:
        event_shape: the shape of an image: [H, W] or [C, H, W].
        features: the number of features of each (sub)pixel.
        reach: how many rows above, and columns to the left and to the right, are read.
    """

    def __init__(self, event_shape: Sequence[int], features: int, reach: int) -> None:
        super().__init__()
        _check_shape(self, event_shape)
        check_positive("features", [features])
        check_positive("reach", [reach])
        self.event_shape = Size(event_shape)
        self.reach = reach
        colours = 1 if len(event_shape) == 2 else event_shape[0]
        channels = features * colours
        self.vertical = nn.Conv2d(colours, channels, (reach, 2 * reach + 1), padding=(0, reach))
        self.horizontal = _MaskedConv(colours, channels, reach + 1, colours, strict=True)

    def forward(self, x: Tensor) -> Tensor:
        """Return the features of each (sub)pixel, shape [N, features, *event_shape].

        Args:
            x: images, shape [N, *event_shape], values in [0, 1]. Bottom rows may be missing.
        """
        image = x if len(self.event_shape) == 3 else x.unsqueeze(1)
        # A padding of -1 removes the last row: row r then reads the rows above it.
        above = F.pad(image, (0, 0, self.reach, -1))
        features = (self.vertical(above) + self.horizontal(image)).tanh()
        return features.reshape(len(x), -1, *x.shape[1:])


class _GatedLayer(nn.Module):
    """One layer of both stacks.

    The first layer reads the image. Its vertical part leaves out the pixel's own row, and its
    horizontal part leaves out the pixel itself. Later layers read the outputs of earlier ones,
    which contain nothing of that row or that pixel, and so they leave out neither.

    Args:
        colours: the number of colours, C.
        channels: the number of channels of each stack.
        context_channels: the number of channels of the context.
        kernel_size: the width of the convolutions.
        first: whether this layer reads the image.
    """

    def __init__(
        self, colours: int, channels: int, context_channels: int, kernel_size: int, first: bool
    ) -> None:
        super().__init__()
        self.first = first
        self.reach = kernel_size // 2
        inputs, gates = colours if first else channels, 2 * channels
        rows = self.reach if first else self.reach + 1
        self.vertical = nn.Conv2d(inputs, gates, (rows, kernel_size), padding=(0, self.reach))
        self.horizontal = _MaskedConv(inputs, gates, self.reach + 1, colours, strict=first)
        # No masks: each colour may read all colours of the rows above, and the whole context.
        self.link = nn.Conv2d(gates, gates, 1, bias=False)
        self.context = nn.Conv2d(context_channels, 2 * gates, 1, bias=False)
        self.residual_and_skip = _MaskedConv(channels, gates, 1, colours)

    def forward(
        self, vertical: Tensor, horizontal: Tensor, context: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Return the next vertical and horizontal stack, and the term of the network's output."""
        # Two convolutions are faster than one that is split: its gradients would be concatenated.
        of_vertical, of_horizontal = self.context.weight.chunk(2)
        # A padding of -1 removes the last row: row r then reads the rows r - reach .. r - 1.
        above = F.pad(vertical, (0, 0, self.reach, -1 if self.first else 0))
        rows = self.vertical(above) + F.conv2d(context, of_vertical)
        row = self.horizontal(horizontal) + self.link(rows) + F.conv2d(context, of_horizontal)
        residual, skip = self.residual_and_skip.halves(_gate(row))
        return _gate(rows), residual if self.first else horizontal + residual, skip


class _MaskedConv(nn.Conv2d):
    """A convolution along the row, over the pixel itself and the `width` - 1 pixels to its left.

    Channel i belongs to colour i modulo `colours`. In the pixels to the left a colour reads all
    colours. In the pixel itself it reads the colours before it and, unless `strict`, its own.
    """

    mask: Tensor

    def __init__(
        self, inputs: int, outputs: int, width: int, colours: int, strict: bool = False
    ) -> None:
        super().__init__(inputs, outputs, (1, width))
        input_colour = torch.arange(inputs) % colours
        colour = (torch.arange(outputs) % colours).unsqueeze(1)
        mask = torch.ones_like(self.weight)
        allowed = input_colour < colour if strict else input_colour <= colour
        mask[:, :, 0, -1] = allowed.to(mask)
        self.register_buffer("mask", mask, persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """Convolve; the output has the height and width of x."""
        padded = F.pad(x, (self.kernel_size[1] - 1, 0)) if self.kernel_size[1] > 1 else x
        return F.conv2d(padded, self.weight * self.mask, self.bias)

    def halves(self, x: Tensor) -> list[Tensor]:
        """Return the two halves of the output's channels, each convolved by itself; width 1."""
        assert self.bias is not None
        parts = zip((self.weight * self.mask).chunk(2), self.bias.chunk(2), strict=True)
        return [F.conv2d(x, weight, bias) for weight, bias in parts]


def _check_shape(network: nn.Module, event_shape: Sequence[int]) -> None:
    if len(event_shape) not in (2, 3):
        raise InputError(
            f"a {type(network).__name__} needs images [H, W] or [C, H, W], not {list(event_shape)}",
            "event_shape",
        )


def _gate(x: Tensor) -> Tensor:
    """Return tanh(a) * sigmoid(b), where a and b are the two halves of the channels."""
    a, b = x.chunk(2, 1)
    return a.tanh() * b.sigmoid()
