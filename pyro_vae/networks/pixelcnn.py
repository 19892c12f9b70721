"""The gated PixelCNN: a network whose outputs for a pixel depend on the pixels before it alone.

The order is the raster's: row by row, within a row from left to right, within a pixel channel by
channel (red, green, blue). That a pixel sees no later one is a matter of masks.
"""

from collections.abc import Sequence

import torch
from torch import Size, Tensor, nn
from torch.nn import functional as F

from pyro_vae.errors import InputError


class GatedPixelCNN(nn.Module):
    """The gated PixelCNN (van den Oord et al. 2016, "Conditional image generation ...").

    Two stacks of gated layers, tanh(a) * sigmoid(b), run side by side. The vertical one sees the
    rows above; the horizontal one sees its own row on the left and, layer by layer, the vertical
    one, so that together they see all that comes before, without a blind spot. Each horizontal
    layer adds to the next (residual) and to the output (skip), and each layer of both stacks adds
    a 1x1 convolution of the context. Colours share the network: hidden channel i belongs to colour
    i modulo C, and within a pixel a colour reads none that comes after it.

    The receptive field is exactly, with r = layers * (kernel_size // 2): the r rows above, r
    columns to either side; in its own row the r pixels on the left; in its own pixel the channels
    before. A small r makes a decoder that can only do local texture, and leaves the rest to z. The
    context is seen in the pixel's own row and the r' above it, r' columns to either side, with
    r' = (layers - 1) * (kernel_size // 2).

    Padding is only ever above and beside, so an image cut at the bottom gives the outputs of the
    whole one, cut.

    Args:
        event_shape: of an image: [H, W] or [C, H, W].
        outputs: the number of parameters of each (sub)pixel's distribution.
        context_channels: of the context.
        channels: of each stack, rounded up to a multiple of C.
        layers: the number of gated layers.
        kernel_size: of the square that a layer sees half of; odd, 3 or more.
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
        if len(event_shape) not in (2, 3):
            raise InputError(
                f"a GatedPixelCNN needs images [H, W] or [C, H, W], not {list(event_shape)}"
            )
        sizes = {"outputs": outputs, "context_channels": context_channels}
        sizes |= {"channels": channels, "layers": layers, "event_shape": min(event_shape)}
        for name, size in sizes.items():
            if size < 1:
                raise InputError(f"a GatedPixelCNN's {name} has to be positive, and {size} is not")
        if kernel_size < 3 or kernel_size % 2 == 0:
            raise InputError(
                f"a GatedPixelCNN's kernel_size has to be odd and 3 or more, not {kernel_size}"
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
        """Return the parameters of each (sub)pixel, given those before it.

        Args:
            x: images, shape [N, *event_shape], values in [0, 1]. There may be fewer rows.
            context: shape [N, context_channels, H, W], with the rows of x.

        Returns:
            Shape [N, outputs, *event_shape].
        """
        image = x if len(self.event_shape) == 3 else x.unsqueeze(1)
        vertical, horizontal, skips = image, image, None
        for layer in self.layers:
            vertical, horizontal, skip = layer(vertical, horizontal, context)
            skips = skip if skips is None else skips + skip
        return self.head(skips).reshape(len(x), self.outputs, *x.shape[1:])


class _GatedLayer(nn.Module):
    """One layer of both stacks.

    The first layer reads the image: its vertical part leaves out the row of the pixel, and its
    horizontal part the pixel. What those may not see they do not carry either, so later layers
    may take in their own row and pixel.
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
        # Every colour may see all of the rows above, and of the context: no masks here.
        self.link = nn.Conv2d(gates, gates, 1, bias=False)
        self.context = nn.Conv2d(context_channels, 2 * gates, 1, bias=False)
        self.residual_and_skip = _MaskedConv(channels, gates, 1, colours)

    def forward(
        self, vertical: Tensor, horizontal: Tensor, context: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Map both stacks, and return them and what the output gets."""
        to_vertical, to_horizontal = self.context(context).chunk(2, 1)
        # A padding of -1 takes the last row away: row r then sees the rows r - reach .. r - 1.
        above = F.pad(vertical, (0, 0, self.reach, -1 if self.first else 0))
        rows = self.vertical(above) + to_vertical
        row = self.horizontal(horizontal) + self.link(rows) + to_horizontal
        residual, skip = self.residual_and_skip(_gate(row)).chunk(2, 1)
        return _gate(rows), residual if self.first else horizontal + residual, skip


class _MaskedConv(nn.Conv2d):
    """A convolution along the row, over the pixel itself and the `width` - 1 on its left.

    Channel i belongs to colour i modulo `colours`. In the pixel itself a colour reads the colours
    up to its own or, if `strict`, before it; on the left it reads all.
    """

    mask: Tensor

    def __init__(
        self, inputs: int, outputs: int, width: int, colours: int, strict: bool = False
    ) -> None:
        super().__init__(inputs, outputs, (1, width))
        reads = torch.arange(inputs) % colours
        colour = (torch.arange(outputs) % colours).unsqueeze(1)
        mask = torch.ones_like(self.weight)
        mask[:, :, 0, -1] = (reads < colour if strict else reads <= colour).to(mask)
        self.register_buffer("mask", mask, persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """Convolve."""
        padded = F.pad(x, (self.kernel_size[1] - 1, 0)) if self.kernel_size[1] > 1 else x
        return F.conv2d(padded, self.weight * self.mask, self.bias)


def _gate(x: Tensor) -> Tensor:
    a, b = x.chunk(2, 1)
    return a.tanh() * b.sigmoid()
